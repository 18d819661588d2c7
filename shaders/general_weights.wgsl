// The gradients of w and alpha of one step, of a split of a network's episodes:
//
//     d_w_ij += sum over episodes of x_i delta_j,   d_alpha_ij += sum over episodes of H_ij x_i delta_j
//
// Workgroup (column, row, (network, split)) owns a tile (`lib/tile.wgsl`); an invocation quads of one
// column.   d_connections: +=
//!include lib/job.wgsl
//!include lib/tile.wgsl
//!include lib/marks.wgsl
//!include lib/rows.wgsl
//!include lib/general_traces.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> trace: array<vec4<f32>>; // [E, traces, quads, N]
@group(0) @binding(3) var<storage, read> record: array<f32>;     // [slots, E, T+1, N]
@group(0) @binding(4) var<storage, read> pre: array<f32>;        // [1 or 2, E, T, M]
@group(0) @binding(5) var<storage, read_write> d_connections: array<f32>; // [P, splits, 2, M, N]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let network = group.z / job.n_splits;
    let split = group.z % job.n_splits;
    let per_split = (job.n_batch + job.n_splits - 1u) / job.n_splits;
    let first = min(split * per_split, job.n_batch);
    let last = min(first + per_split, job.n_batch);
    let t = now.row - 1u;
    let j = group.x * WIDTH + local % PLACES;
    let connections = job.n_pre * job.n_post;
    let to = ((job.first_network + network) * job.n_splits + split) * 2u * connections + j;
    if (j >= job.n_post) {
        return;
    }
    for (var g: u32 = 0u; g < ROW_GROUPS; g = g + 1u) {
        let quad = group.y * QUADS + own_quad(local, g);
        if (quad >= n_quads()) {
            continue;
        }
        let rows = rows_of(quad);
        var d_w = vec4(0.0);
        var d_alpha = vec4(0.0);
        for (var b = first; b < last; b = b + 1u) {
            let episode = network * job.n_batch + b;
            let delta = record[row_at(DELTA, episode, t) + j];
            var x = vec4(0.0);
            for (var q: u32 = 0u; q < 4u; q = q + 1u) {
                x[q] = x_of(episode, t, rows[q]);
            }
            d_w = d_w + x * delta;
            d_alpha = d_alpha + trace[quad_at(episode, 0u, quad, j)] * x * delta;
        }
        for (var q: u32 = 0u; q < 4u; q = q + 1u) {
            if (4u * quad + q < job.n_pre) {
                let at = to + rows[q] * job.n_post;
                d_connections[at] = d_connections[at] + d_w[q];
                d_connections[connections + at] = d_connections[connections + at] + d_alpha[q];
            }
        }
    }
}
