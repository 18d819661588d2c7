// A life: a memory that goes on, on whatever runs it: JavaScript at first, WebGPU once it is there. Stimuli
// are presented as in training, for so many steps at a time (`settings.recall`).

// How far WebGPU and JavaScript may be from each other after the first steps, as a share of the largest
// number or of 1; else the device computes wrongly.
const AGREES = 1e-4;

class Life {
  constructor(network) {
    this.network = network;
    this.recall = network.settings.recall;
    this.memory = blankMemory(network);
    this.steps = 0;
    this.plastic = true;
    this.runner = new ScriptRunner(network);
    // why not WebGPU, and how far it is from JavaScript where it is
    this.why = null;
    this.difference = null;
  }

  get onGpu() {
    return this.runner instanceof GpuRunner;
  }

  // A runner on WebGPU, where there is one that computes what JavaScript does.
  async findGpu() {
    let gpu = null;
    try {
      gpu = await GpuRunner.open(this.network);
      this.difference = await this.compare(gpu);
      if (!(this.difference <= AGREES)) {
        throw new Error(`its results are ${this.difference} from those of JavaScript`);
      }
      return gpu;
    } catch (error) {
      gpu?.close();
      this.why = error.message;
      return null;
    }
  }

  // Goes on, as it is, on another runner.
  moveTo(runner) {
    runner.write(this.memory);
    runner.setPlastic(this.plastic);
    this.runner = runner;
  }

  // The largest difference of activity or trace, as such a share, after two steps of a memory that holds something, with half
  // of a stimulus to see.
  async compare(gpu) {
    const script = new ScriptRunner(this.network);
    const memory = blankMemory(this.network);
    for (const values of Object.values(memory)) values?.forEach((_, k) => (values[k] = Math.sin(k + 1) / 2));
    const cue = this.network.examples[0].map((value, k) => (hides("bottom", k, this.recall) ? 0 : value));
    const [u, clamp] = this.driveOf(cue);
    for (const runner of [gpu, script]) {
      runner.write(memory);
      runner.step(u, clamp);
      runner.step(u, clamp);
    }
    const [found, wanted] = [await gpu.read(), await script.read()];
    const most = (a) => a.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
    const far = (a, b) => a.reduce((most, value, k) => Math.max(most, Math.abs(value - b[k])), 0);
    const worst = (a, b) => far(a, b) / most(b);
    return Math.max(worst(found.y, wanted.y), worst(found.h, wanted.h));
  }

  // The external drive of a stimulus, with the bias neuron behind it, and which neurons it clamps.
  driveOf(values) {
    const { gain, clamped } = this.recall;
    const u = Float32Array.from([...values, 1], (value) => value * gain);
    return [u, clamped ? u.map((value) => (value === 0 ? 0 : 1)) : null];
  }

  // So many steps of a stimulus; then `memory` is what there is after them.
  async advance(values, count) {
    if (count === 0) return;
    const [u, clamp] = this.driveOf(values);
    const run = async () => {
      for (let k = 0; k < count; k += 1) this.runner.step(u, clamp);
      return this.runner.read();
    };
    try {
      this.memory = await run();
    } catch (error) {
      if (!this.onGpu) throw error;
      // goes on from where the device was last heard of
      this.why = error.message;
      this.moveTo(new ScriptRunner(this.network));
      this.memory = await run();
    }
  }

  // Lives through a stimulus as in training; `each` is told after every stretch of steps, and may wait.
  async show(values, each, stretch = 1) {
    const blank = new Float32Array(values.length);
    for (let cycle = 0; cycle < this.recall.cycles; cycle += 1) {
      await this.live(values, this.recall.shown, each, stretch);
      await this.live(blank, this.recall.blank, each, stretch);
    }
  }

  async live(values, count, each, stretch) {
    for (let done = 0; done < count; done += stretch) {
      const now = Math.min(stretch, count - done);
      await this.advance(values, now);
      this.steps += now;
      await each?.();
    }
  }

  // What the network makes of a cue. The memory stays as it is.
  async complete(cue) {
    const before = this.memory;
    await this.advance(cue, this.recall.test);
    const answer = this.memory.y.slice(0, cue.length);
    this.memory = before;
    this.runner.write(before);
    return answer;
  }

  // The answer to a stimulus with a half hidden.
  completeWithout(values, half) {
    return this.complete(values.map((value, k) => (hides(half, k, this.recall) ? 0 : value)));
  }

  forget() {
    this.memory = blankMemory(this.network);
    this.steps = 0;
    this.runner.write(this.memory);
  }

  setPlastic(plastic) {
    this.plastic = plastic;
    this.runner.setPlastic(plastic);
  }
}
