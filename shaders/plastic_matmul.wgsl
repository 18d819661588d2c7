// The O(N^2) product of one step (Miconi et al. 2018, equation 1):
//
//     partial_j (chunk) = sum over the chunk's rows i of x_i(t) (w_ij + alpha_ij H_ij(t))
//
// H is read as it was at the window's first step and evolved in registers.
// Workgroup (tile, chunk, episode) owns a tile of columns and a chunk of rows; an
// invocation one column and every fourth group of four rows.   partial: =
//!include lib/job.wgsl
//!include lib/trace.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(3) var<storage, read> trace: array<f32>;      // [E, traces, M, N]
@group(0) @binding(4) var<storage, read> record: array<f32>;     // [slots, E, T+1, N]
@group(0) @binding(5) var<storage, read> pre: array<f32>;        // [E, T, M]
@group(0) @binding(6) var<storage, read_write> partial: array<f32>; // [chunks, E, N]

var<workgroup> sh_sum: array<f32, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let episode = group.z;
    let j = group.x * TILE + local % TILE;
    let lane = local / TILE;
    let n = now.n_steps;
    load_x(episode, group.y, now.first, n + 1u, local);
    workgroupBarrier();

    var sum = vec4(0.0);
    if (j < job.n_post) {
        load_coefficients(episode, j, now.first, n);
        let network = network_at(episode);
        let at_w = network + job.at_w + j;
        let at_alpha = network + job.at_alpha + j * job.alpha_column;
        for (var g = 0u; g < GROUPS; g = g + 1u) {
            let row4 = lane + LANES * g;
            let i = group.y * CHUNK + row4 * 4u;
            if (i >= job.n_pre) {
                break;
            }
            var w = vec4(0.0);
            var alpha = vec4(0.0);
            var at = Traces(vec4(0.0), vec4(0.0));
            for (var k = 0u; k < min(4u, job.n_pre - i); k = k + 1u) {
                w[k] = parameters[at_w + (i + k) * job.n_post];
                alpha[k] = parameters[at_alpha + (i + k) * job.alpha_row];
                at.h[k] = trace[trace_at(episode, 0u, j) + (i + k) * job.n_post];
                if (two_traces()) {
                    at.e[k] = trace[trace_at(episode, 1u, j) + (i + k) * job.n_post];
                }
            }
            for (var r = 0u; r < n; r = r + 1u) {
                at = clipped(evolve(at, r, sh_x[r * (CHUNK / 4u) + row4]));
            }
            sum = sum + sh_x[n * (CHUNK / 4u) + row4] * (w + alpha * at.h);
        }
    }
    sh_sum[local] = (sum.x + sum.y) + (sum.z + sum.w);
    workgroupBarrier();
    if (local < TILE && j < job.n_post) {
        let total = (sh_sum[local] + sh_sum[local + TILE])
            + (sh_sum[local + 2u * TILE] + sh_sum[local + 3u * TILE]);
        partial[(group.y * n_episodes() + episode) * job.n_post + j] = total;
    }
}
