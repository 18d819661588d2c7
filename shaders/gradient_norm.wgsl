// Squared norm of each block of a network's gradient: squares[p, block] = sum g^2.
//
// Workgroup (block, network) owns a block of BLOCK parameters; an invocation every 256th.
// squares: =
//!include lib/optimiser.wgsl
//!include lib/reduce.wgsl

@group(0) @binding(0) var<uniform> how: Update;
@group(0) @binding(1) var<storage, read> gradient: array<f32>; // [P, n_parameters]
@group(0) @binding(2) var<storage, read_write> squares: array<f32>; // [P, n_blocks]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let last = min((group.x + 1u) * BLOCK, how.n_parameters);
    var sum = 0.0;
    for (var k = group.x * BLOCK + local; k < last; k = k + 256u) {
        let g = gradient[group.y * how.n_parameters + k];
        sum = sum + g * g;
    }
    let total = reduce_sum(local, sum);
    if (local == 0u) {
        squares[group.y * how.n_blocks + group.x] = total;
    }
}
