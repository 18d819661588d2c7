// Adds up the splits of the weight gradients in a fixed order:
//
//     dL/dw_ij = sum over splits of d_w_ij,   dL/dalpha_ij likewise,
//
// and where alpha is shared, alpha_columns_j = sum over rows i of dL/dalpha_ij.
// Workgroup (tile, network) owns a tile of 64 columns; an invocation one column of it and
// every fourth row.   gradient (w, alpha of each connection): =   alpha_columns: =
//!include lib/job.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> d_connections: array<f32>; // [P, splits, 2, M, N]
@group(0) @binding(2) var<storage, read_write> gradient: array<f32>; // [P, n_parameters]
@group(0) @binding(3) var<storage, read_write> alpha_columns: array<f32>; // [P, N]

var<workgroup> sh_sum: array<f32, 256>;

fn over_splits(at: u32, stride: u32) -> f32 {
    var sum = 0.0;
    for (var split = 0u; split < job.n_splits; split = split + 1u) {
        sum = sum + d_connections[at + split * stride];
    }
    return sum;
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let j = group.x * 64u + local % 64u;
    let network = group.y;
    let connections = job.n_pre * job.n_post;
    let first = network * job.n_splits * 2u * connections;
    let to = network * job.n_parameters;
    var column = 0.0;
    if (j < job.n_post) {
        for (var i = local / 64u; i < job.n_pre; i = i + 4u) {
            let at = i * job.n_post + j;
            gradient[to + job.at_w + at] = over_splits(first + at, 2u * connections);
            let d_alpha = over_splits(first + connections + at, 2u * connections);
            if (job.alpha_row != 0u) {
                gradient[to + job.at_alpha + at] = d_alpha;
            } else {
                column = column + d_alpha;
            }
        }
    }
    sh_sum[local] = column;
    workgroupBarrier();
    if (local < 64u && j < job.n_post && job.alpha_row == 0u) {
        alpha_columns[network * job.n_post + j] = (sh_sum[local] + sh_sum[local + 64u])
            + (sh_sum[local + 128u] + sh_sum[local + 192u]);
    }
}
