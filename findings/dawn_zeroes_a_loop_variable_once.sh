#!/usr/bin/env bash
# Dawn's Node module webgpu 0.6.2 (tint's SPIR-V writer), on a Vulkan driver that it takes: SwiftShader as
# Debian's package chromium brings it (VK_DRIVER_FILES names another).
# Guess: `var x: u32;` in a loop's body is zero at every iteration, as WGSL says of a variable that is
# declared without an initial value, and as `var x = 0u;` is.
# Found: it is zero once. The writer puts it at the head of the function with a null initialiser and stores
# nothing in the loop, so the iterations count 1, 2, 3, 4. An array in the loop keeps its elements as well.
# A kernel that sums into such a variable is right in naga, and wrong in a browser on Vulkan, without a word.
set -euo pipefail
export VK_DRIVER_FILES=${VK_DRIVER_FILES:-/usr/lib/chromium/vk_swiftshader_icd.json}
[ -f "$VK_DRIVER_FILES" ] || { echo "no Vulkan driver: install chromium, or set VK_DRIVER_FILES" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --no-audit --no-fund --prefix "$folder" webgpu@0.6.2
cat > "$folder/try.mjs" <<'JS'
import assert from "node:assert/strict";
import { create, globals } from "webgpu";

Object.assign(globalThis, globals);
const gpu = create([]); // must live as long as its devices
const adapter = await gpu.requestAdapter();
assert.ok(adapter, "Dawn takes no adapter here");
console.log(adapter.info.description);
const device = await adapter.requestDevice();

async function counts(declared, count) {
  const code = `
    @group(0) @binding(0) var<storage, read_write> out: array<u32>;
    @compute @workgroup_size(1) fn main() {
      for (var i = 0u; i < 4u; i++) { ${declared} ${count} }
    }`;
  const module = device.createShaderModule({ code });
  const pipeline = device.createComputePipeline({ layout: "auto", compute: { module } });
  const { STORAGE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
  const out = device.createBuffer({ size: 16, usage: STORAGE | COPY_SRC });
  const read = device.createBuffer({ size: 16, usage: MAP_READ | COPY_DST });
  const entries = [{ binding: 0, resource: { buffer: out } }];
  const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(1);
  pass.end();
  encoder.copyBufferToBuffer(out, 0, read, 0, 16);
  device.queue.submit([encoder.finish()]);
  await read.mapAsync(GPUMapMode.READ);
  return [...new Uint32Array(read.getMappedRange())].join(" ");
}

const number = "x += 1u; out[i] = x;";
const array = "x[1] += 1u; out[i] = x[1];";
const found = {
  "var x = 0u;": await counts("var x = 0u;", number),
  "var x: u32;": await counts("var x: u32;", number),
  "var x = array<u32, 2>();": await counts("var x = array<u32, 2>();", array),
  "var x: array<u32, 2>;": await counts("var x: array<u32, 2>;", array),
};
console.log(found);
assert.deepEqual(Object.values(found), ["1 1 1 1", "1 2 3 4", "1 1 1 1", "1 2 3 4"]);
process.exit(0);
JS
node "$folder/try.mjs" 2>&1 | grep -v XDG_RUNTIME_DIR
echo "as found: a variable without an initial value is zero in the first iteration alone"
