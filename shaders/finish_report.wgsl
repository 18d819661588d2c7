// The rest of an update's report: the gradient's norm, and the mean of eta before the
// update.
//
// Workgroup p owns network p.   report (norm, eta): =
//!include lib/optimiser.wgsl
//!include lib/reduce.wgsl

@group(0) @binding(0) var<uniform> how: Update;
@group(0) @binding(1) var<storage, read> squares: array<f32>;    // [P, n_blocks]
@group(0) @binding(2) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(3) var<storage, read_write> report: array<f32>; // [P, 4]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let p = group.x;
    var sum = 0.0;
    for (var k = local; k < how.n_blocks; k = k + 256u) {
        sum = sum + squares[p * how.n_blocks + k];
    }
    let norm = sqrt(reduce_sum(local, sum));
    sum = 0.0;
    for (var k = local; k < how.n_eta; k = k + 256u) {
        sum = sum + parameters[p * how.n_parameters + how.at_eta + k];
    }
    let eta = reduce_sum(local, sum) / f32(max(how.n_eta, 1u));
    if (local == 0u) {
        report[p * 4u + 1u] = norm;
        report[p * 4u + 2u] = eta;
    }
}
