// The gradient of a shared alpha from that of its connections, four rows summed already:
//
//     per neuron: d_alpha_j += sum over quads of alpha_quads_j,   per network: their sum
//
// Workgroup p owns network p; an invocation every 256th neuron.   gradient (alpha): +=
//!include lib/job.wgsl
//!include lib/eight.wgsl
//!include lib/reduce.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> alpha_quads: array<f32>; // [P, quads, N]
@group(0) @binding(2) var<storage, read_write> gradient: array<f32>; // [P, n_parameters]

fn column_sum(network: u32, j: u32) -> f32 {
    let quads = (job.n_pre + 3u) / 4u;
    let at = network * quads * job.n_post + j;
    var sum = 0.0;
    for (var quad = 0u; quad < quads; quad = quad + 8u) {
        var part = array<f32, 8>();
        //!unroll k 8
        part[$k] = alpha_quads[at + min(quad + $k, quads - 1u) * job.n_post];
        //!end
        sum = add_eight(sum, part, quads - quad);
    }
    return sum;
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let alpha_at = group.x * job.n_parameters + job.at_alpha;
    var total = 0.0;
    for (var j = local; j < job.n_post; j = j + 256u) {
        let sum = column_sum(group.x, j);
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
