// A sweep of the general plan: the traces after the step before, by the rule's text, and the product of
// the step (Miconi et al. 2018, equation 1) with what they predict:
//
//     H(t) = F(H(t-1), ...),   z_j += sum_i x_i(t) (w_ij + alpha_ij H_ij(t)),   r_j = sum_i x_i(t) H_ij(t)
//
// At the first step, and where the network is reset, the traces are those it started with.
// Workgroup (column, row, episode) owns a tile (`lib/tile.wgsl`); an invocation quads of one column.
// partial: = where propagated   trace_out: = where asked
//!include lib/job.wgsl
//!include lib/math.wgsl
//!include lib/tile.wgsl
//!include lib/marks.wgsl
//!include rule/values.wgsl
//!include lib/rows.wgsl
//!include lib/general_traces.wgsl
//!include lib/general.wgsl
//!include lib/quads.wgsl
//!include rule/traces.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(3) var<storage, read> start: array<vec4<f32>>; // [E, traces, quads, N]
@group(0) @binding(4) var<storage, read> trace: array<vec4<f32>>; // [E, traces, quads, N]
@group(0) @binding(5) var<storage, read> record: array<f32>;     // [slots, E, T+1, N]
@group(0) @binding(6) var<storage, read> state: array<f32>;      // [E, state_stride]
@group(0) @binding(7) var<storage, read> pre: array<f32>;        // [1 or 2, E, T, M]
@group(0) @binding(8) var<storage, read_write> partial: array<f32>; // [1 or 2, chunks, E, N]
@group(0) @binding(9) var<storage, read_write> trace_out: array<vec4<f32>>; // as trace

var<workgroup> sh_lanes: array<vec2<f32>, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let episode = group.z;
    let network = network_at(episode);
    let t = now.row - 1u;
    let j = group.x * WIDTH + local % PLACES;
    let reset = t == 0u || is_reset(episode, t);
    var sum = vec2(0.0);
    if (j < job.n_post) {
        var v = Values();
        if (!reset) {
            post_values(&v, network, episode, t - 1u, j);
        }
        for (var g: u32 = 0u; g < ROW_GROUPS; g = g + 1u) {
            let quad = group.y * QUADS + own_quad(local, g);
            if (quad >= n_quads()) {
                continue;
            }
            let rows = rows_of(quad);
            var h = array<vec4<f32>, TRACES>();
            for (var k: u32 = 0u; k < TRACES; k = k + 1u) {
                let at = quad_at(episode, k, quad, j);
                if (reset) {
                    h[k] = start[at];
                } else {
                    h[k] = trace[at];
                }
            }
            if (!reset) {
                for (var q: u32 = 0u; q < 4u; q = q + 1u) {
                    pre_values(&v, network, episode, t - 1u, rows[q]);
                    connection_parameters(&v, network, rows[q], j);
                    for (var k: u32 = 0u; k < TRACES; k = k + 1u) {
                        v.h[k] = h[k][q];
                    }
                    let after = traces_after(v);
                    for (var k: u32 = 0u; k < TRACES; k = k + 1u) {
                        h[k][q] = after[k];
                    }
                }
            }
            if (now.store == 1u) {
                for (var k: u32 = 0u; k < TRACES; k = k + 1u) {
                    trace_out[quad_at(episode, k, quad, j)] = h[k];
                }
            }
            if (now.propagate == 1u) {
                var x = vec4(0.0);
                for (var q: u32 = 0u; q < 4u; q = q + 1u) {
                    x[q] = x_of(episode, t, rows[q]);
                }
                // what a rule makes of rows that are not there may be no number
                let there = are_rows(quad);
                let own = w_quad(network, quad, j) + alpha_quad(network, quad, j) * h[0];
                sum.x = sum.x + total_of(select(vec4(0.0), x * own, there));
                sum.y = sum.y + total_of(select(vec4(0.0), x * h[0], there));
            }
        }
    }
    if (now.propagate == 0u) {
        return;
    }
    sh_lanes[local] = sum;
    workgroupBarrier();
    if (local < WIDTH && j < job.n_post) {
        var total = vec2(0.0);
        for (var lane: u32 = 0u; lane < LANES; lane = lane + 1u) {
            total = total + sh_lanes[lane * PLACES + local];
        }
        let to = (group.y * n_episodes() + episode) * job.n_post + j;
        partial[to] = total.x;
        if (READS_R == 1u) {
            partial[job.n_chunks * n_episodes() * job.n_post + to] = total.y;
        }
    }
}
