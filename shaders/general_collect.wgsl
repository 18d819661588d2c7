// What the neurons of a step get of lambda = dL/dH after it, through the rule's text:
//
//     sum_i lambda_ij dF/dname   for y, z, r, m, the post variables, the parameters of neurons and network
//
// Workgroup (column, row, episode) owns a tile (`lib/tile.wgsl`); an invocation quads of one column.
// column_partial: =
//!include lib/job.wgsl
//!include lib/math.wgsl
//!include lib/tile.wgsl
//!include lib/marks.wgsl
//!include rule/values.wgsl
//!include lib/rows.wgsl
//!include lib/general_traces.wgsl
//!include lib/general.wgsl
//!include rule/columns.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(3) var<storage, read> trace: array<vec4<f32>>; // [E, traces, quads, N]
@group(0) @binding(4) var<storage, read> adjoint: array<vec4<f32>>; // [2, E, traces, quads, N]
@group(0) @binding(5) var<storage, read> record: array<f32>;     // [slots, E, T+1, N]
@group(0) @binding(6) var<storage, read> state: array<f32>;      // [E, state_stride]
@group(0) @binding(7) var<storage, read> pre: array<f32>;        // [1 or 2, E, T, M]
@group(0) @binding(8) var<storage, read_write> column_partial: array<f32>; // [COLUMN_SUMS, chunks, E, N]

var<workgroup> sh_lanes: array<f32, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let episode = group.z;
    let network = network_at(episode);
    let t = now.row - 1u;
    let j = group.x * WIDTH + local % PLACES;
    var sums = array<f32, COLUMN_SUMS>();
    if (j < job.n_post) {
        var v = Values();
        post_values(&v, network, episode, t, j);
        for (var g: u32 = 0u; g < ROW_GROUPS; g = g + 1u) {
            let quad = group.y * QUADS + own_quad(local, g);
            for (var q: u32 = 0u; q < 4u; q = q + 1u) {
                let i = 4u * quad + q;
                if (i >= job.n_pre) {
                    continue;
                }
                pre_values(&v, network, episode, t, i);
                connection_parameters(&v, network, i, j);
                var lambda = array<f32, TRACES>();
                for (var k: u32 = 0u; k < TRACES; k = k + 1u) {
                    let at = quad_at(episode, k, quad, j);
                    v.h[k] = trace[at][q];
                    lambda[k] = adjoint[at][q];
                }
                let own = column_terms(v, lambda);
                for (var c: u32 = 0u; c < COLUMN_SUMS; c = c + 1u) {
                    sums[c] = sums[c] + own[c];
                }
            }
        }
    }
    for (var c: u32 = 0u; c < COLUMN_SUMS; c = c + 1u) {
        workgroupBarrier();
        sh_lanes[local] = sums[c];
        workgroupBarrier();
        if (local < WIDTH && j < job.n_post) {
            var total = 0.0;
            for (var lane: u32 = 0u; lane < LANES; lane = lane + 1u) {
                total = total + sh_lanes[lane * PLACES + local];
            }
            let row = (c * job.n_chunks + group.y) * n_episodes() + episode;
            column_partial[row * job.n_post + j] = total;
        }
    }
}
