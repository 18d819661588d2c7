// A life that is shown pictures, as in training, for so many steps at a time (`settings.recall`).

class PageLife extends Life {
  get recall() {
    return this.network.settings.recall;
  }

  // Half of a stimulus.
  probe() {
    return this.driveOf(this.network.examples[0].map((value, k) => (hides("bottom", k, this.recall) ? 0 : value)));
  }

  // The external drive of a stimulus, with the bias neuron behind it, and which neurons it clamps.
  driveOf(values) {
    const { gain, clamped } = this.recall;
    const u = Float32Array.from([...values, 1], (value) => value * gain);
    return [u, clamped ? u.map((value) => (value === 0 ? 0 : 1)) : null];
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
      await this.advance(this.driveOf(values), now);
      this.steps += now;
      await each?.();
    }
  }

  // What the network makes of a cue. The memory stays as it is.
  async complete(cue) {
    const before = this.memory;
    await this.advance(this.driveOf(cue), this.recall.test);
    const answer = this.memory.y.slice(0, cue.length);
    this.memory = before;
    this.runner.write(before);
    return answer;
  }

  // The answer to a stimulus with a half hidden.
  completeWithout(values, half) {
    return this.complete(values.map((value, k) => (hides(half, k, this.recall) ? 0 : value)));
  }
}
