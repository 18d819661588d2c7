// The O(N^2) work of one backward step. With P known after step t, *propagate* step t:
//
//     row_partial_i (tile) = sum over the tile's columns j of
//                            (w_ij + alpha_ij H_ij(t)) delta_j + alpha_ij G_ij c_j
//
// and *collect* the step before, s = t - 1, whose delta waits for the column sums
//
//     q_j = sum_i alpha_ij G_ij x_i,  r_j = sum_i alpha_ij G_ij trace_ij(s),
//     e_j = sum_i alpha_ij P^H_ij E_ij(s)   (two traces)
//
// with G the P of the trace that receives x y, masked where the clip acted. P is read as
// it was at the window's end and H as at its start; both are evolved in registers.
// Workgroup (tile, chunk, episode) owns a tile of columns and a chunk of rows; an
// invocation one column and every fourth group of four rows.
// column_partial: =   row_partial: =
//!include lib/job.wgsl
//!include lib/trace.wgsl
//!include lib/adjoint.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(3) var<storage, read> trace: array<f32>;      // [E, traces, M, N]
@group(0) @binding(4) var<storage, read> adjoint: array<f32>;    // [E, traces, M, N]
@group(0) @binding(5) var<storage, read> record: array<f32>;     // [slots, E, T+1, N]
@group(0) @binding(6) var<storage, read> pre: array<f32>;        // [E, T, M]
@group(0) @binding(7) var<storage, read_write> column_partial: array<f32>; // [3, chunks, E, N]
@group(0) @binding(8) var<storage, read_write> row_partial: array<f32>;    // [tiles, E, M]

const PITCH = 65u;

var<workgroup> sh_tile: array<f32, 1040>; // 16 rows of PITCH
var<workgroup> sh_part: array<f32, 256>;

// Sums `value` over the workgroup's lanes into column_partial[which].
fn put_column(which: u32, value: vec4<f32>, group: vec3<u32>, local: u32) {
    sh_part[local] = (value.x + value.y) + (value.z + value.w);
    workgroupBarrier();
    let j = group.x * TILE + local;
    if (local < TILE && j < job.n_post) {
        let total = (sh_part[local] + sh_part[local + TILE])
            + (sh_part[local + 2u * TILE] + sh_part[local + 3u * TILE]);
        let at = (which * job.n_chunks + group.y) * n_episodes() + group.z;
        column_partial[at * job.n_post + j] = total;
    }
    workgroupBarrier();
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let episode = group.z;
    let column = local % TILE;
    let j = group.x * TILE + column;
    let lane = local / TILE;
    let n = now.n_steps;
    let here = j < job.n_post;
    // steps of the window: `b` is propagated, `b - 1` collected
    let b = now.row - 1u - now.first;
    load_x(episode, group.y, now.first, n, local);
    workgroupBarrier();
    if (here) {
        load_coefficients(episode, j, now.first, n);
        load_deltas(episode, j, now.first, n);
    }
    let network = network_at(episode);
    let at_w = network + job.at_w + j;
    let at_alpha = network + job.at_alpha + j * job.alpha_column;
    var q = vec4(0.0);
    var r_sum = vec4(0.0);
    var e_sum = vec4(0.0);
    for (var g = 0u; g < GROUPS; g = g + 1u) {
        let row4 = lane + LANES * g;
        let i = group.y * CHUNK + row4 * 4u;
        var value = vec4(0.0);
        if (here && i < job.n_pre) {
            var w = vec4(0.0);
            var alpha = vec4(0.0);
            var at = Traces(vec4(0.0), vec4(0.0));
            var p = Traces(vec4(0.0), vec4(0.0));
            for (var k = 0u; k < min(4u, job.n_pre - i); k = k + 1u) {
                w[k] = parameters[at_w + (i + k) * job.n_post];
                alpha[k] = parameters[at_alpha + (i + k) * job.alpha_row];
                at.h[k] = trace[trace_at(episode, 0u, j) + (i + k) * job.n_post];
                p.h[k] = adjoint[trace_at(episode, 0u, j) + (i + k) * job.n_post];
                if (two_traces()) {
                    at.e[k] = trace[trace_at(episode, 1u, j) + (i + k) * job.n_post];
                    p.e[k] = adjoint[trace_at(episode, 1u, j) + (i + k) * job.n_post];
                }
            }
            // the trace before step b - 1 and before step b; masks to the window's end
            var before = at;
            var at_b = at;
            let last = select(b, n, CLIPPED == 1u);
            for (var r = 0u; r < last; r = r + 1u) {
                if (r + 1u == b) {
                    before = at;
                }
                at = evolve(at, r, sh_x[r * (CHUNK / 4u) + row4]);
                if (CLIPPED == 1u) {
                    masks[r] = inside(at.h);
                    at = clipped(at);
                }
                if (r + 1u == b) {
                    at_b = at;
                }
            }
            for (var r = n; r > b + now.propagate; r = r - 1u) {
                p = evolve_back(p, r - 1u, sh_x[(r - 1u) * (CHUNK / 4u) + row4]);
            }
            if (now.propagate == 1u) {
                var hebbian_p = unmasked(p, b);
                if (two_traces()) {
                    hebbian_p = p.e;
                }
                value = (w + alpha * at_b.h) * k_delta[b] + alpha * hebbian_p * k_c[b];
                p = evolve_back(p, b, sh_x[b * (CHUNK / 4u) + row4]);
            }
            if (now.collect == 1u) {
                let g_h = unmasked(p, b - 1u);
                var hebbian_p = alpha * g_h;
                if (two_traces()) {
                    hebbian_p = alpha * p.e;
                    e_sum = e_sum + alpha * g_h * before.e;
                }
                q = q + hebbian_p * sh_x[(b - 1u) * (CHUNK / 4u) + row4];
                r_sum = r_sum + hebbian_p * hebbian(before);
            }
        }
        if (now.propagate == 1u) {
            for (var k = 0u; k < 4u; k = k + 1u) {
                sh_tile[(lane * 4u + k) * PITCH + column] = value[k];
            }
            workgroupBarrier();
            let from_row = (local / 16u) * PITCH + (local % 16u) * 4u;
            sh_part[local] = (sh_tile[from_row] + sh_tile[from_row + 1u])
                + (sh_tile[from_row + 2u] + sh_tile[from_row + 3u]);
            workgroupBarrier();
            let row = group.y * CHUNK + g * 16u + local;
            if (local < 16u && row < job.n_pre) {
                var sum = 0.0;
                for (var k = 0u; k < 16u; k = k + 1u) {
                    sum = sum + sh_part[local * 16u + k];
                }
                row_partial[(group.x * n_episodes() + episode) * job.n_pre + row] = sum;
            }
            workgroupBarrier();
        }
    }
    if (now.collect == 1u) {
        put_column(0u, q, group, local);
        put_column(1u, r_sum, group, local);
        if (two_traces()) {
            put_column(2u, e_sum, group, local);
        }
    }
}
