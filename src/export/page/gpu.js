// The network on WebGPU. The shaders are the engine's own, in this page's `text/wgsl` elements; buffers,
// constants and dispatches are the engine's plan of a step, in `settings.plan`. This file knows no
// kernel: it makes what the plan lists and runs it.

// How long a device may be silent before it counts as lost.
const PATIENCE_MS = 20000;

// Where a dispatch's entry of `steps` begins: a multiple of what every device takes.
const STEP_STRIDE = 256;

// A matrix [rows][n] by quads, [quad][n] of four rows each, and back.
function toQuads(matrix, n, quads, at) {
  for (let i = 0; i < n; i += 1) {
    const first = at + 4 * n * Math.floor(i / 4) + (i % 4);
    for (let j = 0; j < n; j += 1) quads[first + 4 * j] = matrix[i * n + j];
  }
}

function fromQuads(quads, n, at) {
  const matrix = new Float32Array(n * n);
  for (let i = 0; i < n; i += 1) {
    const first = at + 4 * n * Math.floor(i / 4) + (i % 4);
    for (let j = 0; j < n; j += 1) matrix[i * n + j] = quads[first + 4 * j];
  }
  return matrix;
}

class GpuRunner {
  // The runner on the browser's best adapter; an Error says why there is none.
  static async open(network) {
    if (!isSecureContext) throw new Error("browsers keep WebGPU from pages that come neither from disk nor by https");
    if (!navigator.gpu) throw new Error("this browser has no WebGPU");
    const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
    if (!adapter) throw new Error("this browser has WebGPU and found no device for it");
    const device = await adapter.requestDevice();
    const runner = new GpuRunner(network, device, adapter.info);
    try {
      await runner.compile();
    } catch (error) {
      device.destroy();
      throw error;
    }
    return runner;
  }

  constructor(network, device, info) {
    this.network = network;
    this.plan = network.settings.plan;
    this.device = device;
    this.adapter = info?.description || [info?.vendor, info?.architecture].filter(Boolean).join(" ");
    this.failure = null;
    device.lost.then((lost) => (this.failure = new Error(`the device was lost: ${lost.message}`)));
    device.addEventListener("uncapturederror", ({ error }) => (this.failure = error));
  }

  async compile() {
    const { device, plan } = this;
    const kinds = { uniform: "uniform", step: "uniform", read: "read-only-storage", write: "storage" };
    device.pushErrorScope("validation");
    const kernels = plan.kernels.map(async ({ stem, bindings, constants }) => {
      const code = document.getElementById(`${stem}.wgsl`).textContent;
      const entries = bindings.map(([, access], binding) => ({
        binding,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type: kinds[access] },
      }));
      const layout = device.createBindGroupLayout({ label: stem, entries });
      const pipeline = await device.createComputePipelineAsync({
        label: stem,
        layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: { module: device.createShaderModule({ label: stem, code }), constants },
      });
      return [stem, { pipeline, layout, bindings }];
    });
    this.makeBuffers();
    const compiled = Object.fromEntries(await Promise.all(kernels));
    const bound = (dispatches) => dispatches.map((one) => this.bind(compiled[one.kernel], one));
    this.begin = bound(plan.begin);
    this.dispatches = bound(plan.step);
    // whether the next step is the first of a memory
    this.begins = true;
    const error = await device.popErrorScope();
    if (error) throw new Error(error.message);
  }

  makeBuffers() {
    const { device, plan, network } = this;
    const { STORAGE, UNIFORM, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
    const make = (label, size, usage) => device.createBuffer({ label, size, usage });
    this.buffers = {};
    for (const [name, bytes] of Object.entries(plan.buffers)) {
      this.buffers[name] = make(name, bytes, STORAGE | COPY_SRC | COPY_DST);
    }
    this.job = make("job", 4 * plan.job.length, UNIFORM | COPY_DST);
    device.queue.writeBuffer(this.job, 0, Uint32Array.from(plan.job));
    this.steps = make("steps", STEP_STRIDE * plan.steps.length, UNIFORM | COPY_DST);
    plan.steps.forEach((words, k) =>
      device.queue.writeBuffer(this.steps, STEP_STRIDE * k, Uint32Array.from(words)));
    device.queue.writeBuffer(this.buffers.parameters, 0, network.parameters);
    // the memory between steps, one vector behind another
    let bytes = 0;
    this.vectors = plan.memory.map((vector) => {
      bytes += vector.bytes;
      return { ...vector, at: bytes - vector.bytes };
    });
    this.life = make("life", bytes, COPY_SRC | COPY_DST);
    this.staging = make("staging", bytes, MAP_READ | COPY_DST);
  }

  bind({ pipeline, layout, bindings }, { step, buffers, size }) {
    const resource = (name, access) => {
      if (access === "uniform") return { buffer: this.job };
      if (access === "step") {
        return { buffer: this.steps, offset: STEP_STRIDE * step, size: 4 * this.plan.steps[step].length };
      }
      return { buffer: this.buffers[name] };
    };
    const entries = buffers.map((name, binding) => ({
      binding,
      resource: resource(name, bindings[binding][1]),
    }));
    return { pipeline, size, group: this.device.createBindGroup({ layout, entries }) };
  }

  // Without plasticity alpha is 0.
  setPlastic(plastic) {
    const { values, at } = this.network.tensors.alpha;
    const alpha = plastic ? values : new Float32Array(values.length);
    this.device.queue.writeBuffer(this.buffers.parameters, 4 * at, alpha);
    this.begins = true;
  }

  // One step with the external drive u; where clamp is not 0 (if there is a clamp), y is set to u.
  step(u, clamp) {
    const { device, buffers, vectors, life } = this;
    device.queue.writeBuffer(buffers.stimuli, 0, u);
    if (clamp) device.queue.writeBuffer(buffers.stimuli, 4 * u.length, clamp);
    const encoder = device.createCommandEncoder();
    for (const { before, at, bytes } of vectors) {
      encoder.copyBufferToBuffer(life, at, buffers[before[0]], before[1], bytes);
    }
    const pass = encoder.beginComputePass();
    const first = this.begins ? this.begin : [];
    this.begins = false;
    for (const { pipeline, group, size } of [...first, ...this.dispatches]) {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(...size);
    }
    pass.end();
    for (const { after, at, bytes } of vectors) {
      encoder.copyBufferToBuffer(buffers[after[0]], after[1], life, at, bytes);
    }
    device.queue.submit([encoder.finish()]);
  }

  // The memory as it is now.
  async read() {
    const { device, network, staging } = this;
    if (this.failure) throw this.failure;
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(this.life, 0, staging, 0, staging.size);
    device.queue.submit([encoder.finish()]);
    const silence = new Promise((_, fail) => {
      setTimeout(() => fail(new Error("the device does not answer")), PATIENCE_MS);
    });
    await Promise.race([staging.mapAsync(GPUMapMode.READ), silence]);
    const all = new Float32Array(staging.getMappedRange().slice());
    staging.unmap();
    if (this.failure) throw this.failure;
    const memory = { y: null, h: null, e: null, v: null };
    for (const { name, at, bytes } of this.vectors) {
      const values = all.subarray(at / 4, (at + bytes) / 4);
      if (name === "traces") {
        memory.h = fromQuads(values, network.n, 0);
        if (network.settings.rule === "retroactive") {
          memory.e = fromQuads(values, network.n, values.length / 2);
        }
      } else {
        memory[name] = values.slice();
      }
    }
    return memory;
  }

  write(memory) {
    const { device, network } = this;
    this.begins = true;
    for (const { name, at, bytes } of this.vectors) {
      let values = memory[name];
      if (name === "traces") {
        values = new Float32Array(bytes / 4);
        toQuads(memory.h, network.n, values, 0);
        if (memory.e) toQuads(memory.e, network.n, values, values.length / 2);
      }
      device.queue.writeBuffer(this.life, at, values);
    }
  }

  close() {
    this.device.destroy();
  }
}
