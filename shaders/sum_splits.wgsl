// Adds up the splits of the weight gradients in a fixed order:
//
//     dL/dw_ij += mask_ij sum over splits of d_w_ij,   dL/dalpha_ij likewise,
//
// and where alpha is shared, alpha_quads_j = sum over four rows i of dL/dalpha_ij.
// Workgroup number quad x columns + column, network z, owns 64 columns of four rows; an
// invocation a connection.
// gradient (w, alpha of each connection): +=   alpha_quads: =
//!include lib/job.wgsl
//!include lib/eight.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(2) var<storage, read> d_connections: array<f32>; // [P, splits, 2, M, N]
@group(0) @binding(3) var<storage, read_write> gradient: array<f32>; // [P, n_parameters]
@group(0) @binding(4) var<storage, read_write> alpha_quads: array<f32>; // [P, quads, N]

// With a quad's four rows a workgroup of 256.
const SUM_COLUMNS = 64u;

var<workgroup> sh_sum: array<f32, 256>;

fn over_splits(at: u32, stride: u32) -> f32 {
    var sum = 0.0;
    for (var split = 0u; split < job.n_splits; split = split + 8u) {
        var part = array<f32, 8>();
        //!unroll k 8
        part[$k] = d_connections[at + min(split + $k, job.n_splits - 1u) * stride];
        //!end
        sum = add_eight(sum, part, job.n_splits - split);
    }
    return sum;
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let columns = (job.n_post + SUM_COLUMNS - 1u) / SUM_COLUMNS;
    let quads = (job.n_pre + 3u) / 4u;
    let number = group.y * groups.x + group.x;
    let quad = number / columns;
    let j = number % columns * SUM_COLUMNS + local % SUM_COLUMNS;
    let i = quad * 4u + local / SUM_COLUMNS;
    let network = group.z;
    let connections = job.n_pre * job.n_post;
    var d_alpha = 0.0;
    if (j < job.n_post && i < job.n_pre) {
        let at = i * job.n_post + j;
        let from_split = network * job.n_splits * 2u * connections + at;
        let to = network * job.n_parameters;
        var mask = 1.0;
        if (MASKED == 1u) {
            mask = parameters[to + job.at_mask + at];
        }
        let w_at = to + job.at_w + at;
        gradient[w_at] = gradient[w_at] + mask * over_splits(from_split, 2u * connections);
        d_alpha = mask * over_splits(from_split + connections, 2u * connections);
        if (job.alpha_row != 0u) {
            let alpha_at = to + job.at_alpha + at;
            gradient[alpha_at] = gradient[alpha_at] + d_alpha;
        }
    }
    sh_sum[local] = d_alpha;
    workgroupBarrier();
    if (local < SUM_COLUMNS && quad < quads && j < job.n_post && job.alpha_row == 0u) {
        alpha_quads[(network * quads + quad) * job.n_post + j] =
            (sh_sum[local] + sh_sum[local + SUM_COLUMNS])
            + (sh_sum[local + 2u * SUM_COLUMNS] + sh_sum[local + 3u * SUM_COLUMNS]);
    }
}
