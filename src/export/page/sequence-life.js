// A life that sees a sequence, waits, and says it again, as in training (`settings.sequence`). The shaders
// run the plastic layer; the input layer before it and the read-out behind it are a few sums, done here.

class PageLife extends Life {
  // A signed step, as the sequence shows them.
  probe() {
    return this.driveOf(this.network.examples[0].subarray(0, this.network.settings.sequence.bits), 0);
  }

  // What reaches the neurons from a vector and the signal to say the sequence again.
  driveOf(vector, signal) {
    const { n, layers } = this.network;
    const u = layers["in.b"].slice();
    [...vector, signal].forEach((value, k) => {
      for (let j = 0; j < n; j += 1) u[j] += value * layers["in.w"][k * n + j];
    });
    return [u, null];
  }

  readOut() {
    const { layers } = this.network;
    const out = Float64Array.from(layers["out.b"]);
    this.memory.y.forEach((y, j) => {
      for (let k = 0; k < out.length; k += 1) out[k] += y * layers["out.w"][j * out.length + k];
    });
    return Array.from(out);
  }

  async step(vector, signal) {
    await this.advance(this.driveOf(vector, signal), 1);
    this.steps += 1;
  }

  // Begins anew, sees a sequence of vectors, waits, and returns what it says; `each` is told of every step.
  async sayAgain(sequence, delay, each) {
    const { bits, length } = this.network.settings.sequence;
    const blank = new Float32Array(bits);
    const said = [];
    this.forget();
    for (let t = 0; t < length; t += 1) {
      await this.step(sequence.subarray(t * bits, (t + 1) * bits), 0);
      await each?.("shown", t);
    }
    for (let t = 0; t < delay; t += 1) {
      await this.step(blank, 0);
      await each?.("waits", t);
    }
    await this.step(blank, 1);
    for (let t = 0; t < length; t += 1) {
      await this.step(blank, 0);
      said.push(...this.readOut());
      await each?.("says", t, said);
    }
    return said;
  }
}
