// The gradient of a shared alpha from its columns':
//
//     per neuron: d_alpha_j = alpha_columns_j,   per network: their sum
//
// Workgroup p owns network p; an invocation every 256th neuron.   gradient (alpha): =
//!include lib/job.wgsl
//!include lib/reduce.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> alpha_columns: array<f32>; // [P, N]
@group(0) @binding(2) var<storage, read_write> gradient: array<f32>; // [P, n_parameters]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let alpha_at = group.x * job.n_parameters + job.at_alpha;
    var total = 0.0;
    for (var j = local; j < job.n_post; j = j + 256u) {
        let sum = alpha_columns[group.x * job.n_post + j];
        if (job.alpha_column == 1u) {
            gradient[alpha_at + j] = sum;
        }
        total = total + sum;
    }
    total = reduce_sum(local, total);
    if (job.alpha_column == 0u && local == 0u) {
        gradient[alpha_at] = total;
    }
}
