// A life: a memory that goes on, on whatever runs it: JavaScript at first, WebGPU once it is there. Each kind
// of page has its own PageLife, which knows what a step is driven by: `probe` gives one step's drive.

// How far WebGPU and JavaScript may be from each other after the first steps, as a share of the largest
// number or of 1; else the device computes wrongly.
const AGREES = 1e-4;

class Life {
  constructor(network) {
    this.network = network;
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

  // The largest difference of activity or trace, as such a share, after two steps of a memory that holds
  // something.
  async compare(gpu) {
    const script = new ScriptRunner(this.network);
    const memory = blankMemory(this.network);
    for (const values of Object.values(memory)) values?.forEach((_, k) => (values[k] = Math.sin(k + 1) / 2));
    const [u, clamp] = this.probe();
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

  // So many steps of a drive; then `memory` is what there is after them.
  async advance([u, clamp], count) {
    if (count === 0) return;
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
