// The gradient of a shared alpha from that of each connection:
//
//     per neuron: d_alpha_j += sum_i d_alpha_ij,   per network: += sum_ij d_alpha_ij
//
// Workgroup p owns network p; an invocation every 256th neuron.   gradient: +=
//!include lib/job.wgsl
//!include lib/reduce.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> d_alpha: array<f32>; // [P, M, N]
@group(0) @binding(2) var<storage, read_write> gradient: array<f32>; // [P, n_parameters]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let network = job.first_network + group.x;
    let alpha_at = network * job.n_parameters + job.at_alpha;
    var total = 0.0;
    for (var j = local; j < job.n_post; j = j + 256u) {
        var sum = 0.0;
        for (var i = 0u; i < job.n_pre; i = i + 1u) {
            sum = sum + d_alpha[(network * job.n_pre + i) * job.n_post + j];
        }
        if (job.alpha_column == 1u) {
            gradient[alpha_at + j] = gradient[alpha_at + j] + sum;
        }
        total = total + sum;
    }
    total = reduce_sum(local, total);
    if (job.alpha_column == 0u && local == 0u) {
        gradient[alpha_at] = gradient[alpha_at] + total;
    }
}
