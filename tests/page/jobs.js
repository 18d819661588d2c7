// Runs, in a browser, an update that `updates_for_a_browser` wrote: every dispatch of a plan, the sums of its
// gradients, the optimiser. Returns gradients and parameters. Made a function of a page by its text.
async (job) => {
  const adapter = await navigator.gpu.requestAdapter();
  const { maxComputeWorkgroupStorageSize, maxStorageBuffersPerShaderStage } = adapter.limits;
  const requiredLimits = { maxComputeWorkgroupStorageSize, maxStorageBuffersPerShaderStage };
  const device = await adapter.requestDevice({ requiredLimits });
  device.pushErrorScope("validation");
  const { STORAGE, UNIFORM, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
  const filled = (bytes, usage) => {
    const buffer = device.createBuffer({ size: bytes.byteLength, usage: usage | COPY_DST });
    device.queue.writeBuffer(buffer, 0, bytes);
    return buffer;
  };
  const buffers = Object.fromEntries(Object.entries(job.buffers).map(([name, text]) =>
    [name, filled(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)), STORAGE | COPY_SRC)]));
  const jobs = job.jobs.map((words) => filled(Uint32Array.from(words), UNIFORM));
  const steps = job.steps.map((words) => filled(Uint32Array.from(words), UNIFORM));
  const kinds = { uniform: "uniform", step: "uniform", read: "read-only-storage", write: "storage" };
  const kernels = {};
  for (const { stem, text, bindings, constants } of job.kernels) {
    const layout = device.createBindGroupLayout({
      entries: bindings.map(([, access], binding) =>
        ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type: kinds[access] } })),
    });
    const pipeline = await device.createComputePipelineAsync({
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module: device.createShaderModule({ label: stem, code: text }), constants },
    });
    kernels[stem] = { layout, pipeline, bindings };
  }
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  for (const { kernel, job: which, step, buffers: names, size } of job.dispatches) {
    const { layout, pipeline, bindings } = kernels[kernel];
    const bound = (name, access) => {
      if (access === "uniform") return jobs[which];
      return access === "step" ? steps[step] : buffers[name];
    };
    const entries = names.map((name, binding) =>
      ({ binding, resource: { buffer: bound(name, bindings[binding][1]) } }));
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout, entries }));
    pass.dispatchWorkgroups(...size);
  }
  pass.end();
  const [gradient, parameters] = ["gradient", "parameters"].map((name) => {
    const staging = device.createBuffer({ size: buffers[name].size, usage: MAP_READ | COPY_DST });
    encoder.copyBufferToBuffer(buffers[name], 0, staging, 0, staging.size);
    return staging;
  });
  device.queue.submit([encoder.finish()]);
  const error = await device.popErrorScope();
  if (error) throw new Error(error.message);
  const numbers = async (staging) => {
    await staging.mapAsync(GPUMapMode.READ);
    return Array.from(new Float32Array(staging.getMappedRange()));
  };
  const found = { gradient: await numbers(gradient), parameters: await numbers(parameters) };
  device.destroy();
  return found;
}
