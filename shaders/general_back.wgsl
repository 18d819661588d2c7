// A sweep of the general plan backward: lambda = dL/dH goes from after a step to before it,
//
//     lambda_ij <- lambda_ij dF/dH + alpha_ij x_i delta_j + x_i dL/dr_j
//
// and the pre-synaptic neurons get
//
//     dL/dx_i = sum_j (w_ij + alpha_ij H_ij) delta_j + H_ij dL/dr_j + lambda_ij dF/dx
//
// with the sums of their variables and parameters; a connection's parameters get theirs. What crosses a
// step that is reset belongs to the start traces; what crosses one that no gradient passes is gone.
// Workgroup (column, row, episode) owns a tile (`lib/tile.wgsl`): an invocation a quad of rows of every
// 32nd column.
// adjoint: = and of the start traces +=   row_partial: =   rule_bar (of connections): +=
//!include lib/job.wgsl
//!include lib/math.wgsl
//!include lib/tile.wgsl
//!include lib/marks.wgsl
//!include rule/values.wgsl
//!include lib/rows.wgsl
//!include lib/general_traces.wgsl
//!include lib/general.wgsl
//!include lib/quads.wgsl
//!include rule/back.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(3) var<storage, read> trace: array<vec4<f32>>; // [E, traces, quads, N]
@group(0) @binding(4) var<storage, read> record: array<f32>;     // [slots, E, T+1, N]
@group(0) @binding(5) var<storage, read> state: array<f32>;      // [E, state_stride]
@group(0) @binding(6) var<storage, read> pre: array<f32>;        // [1 or 2, E, T, M]
@group(0) @binding(7) var<storage, read_write> adjoint: array<vec4<f32>>; // [2, E, traces, quads, N]
@group(0) @binding(8) var<storage, read_write> row_partial: array<f32>; // [ROW_SUMS, tiles, E, M]
@group(0) @binding(9) var<storage, read_write> rule_bar: array<f32>; // [E, n_rule]

// Invocations of a quad.
const ACROSS = 32u;

var<workgroup> sh_across: array<vec4<f32>, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let episode = group.z;
    let network = network_at(episode);
    let t = now.row - 1u;
    let across = local % ACROSS;
    let quad = group.y * QUADS + local / ACROSS;
    let mark = select(mark(episode, t), RESET, t == 0u);
    var sums = array<vec4<f32>, ROW_SUMS>();
    for (var c: u32 = 0u; c < WIDTH / ACROSS; c = c + 1u) {
        let j = group.x * WIDTH + across + ACROSS * c;
        if (quad >= n_quads() || j >= job.n_post) {
            continue;
        }
        var v = Values();
        post_values(&v, network, episode, t, j);
        let delta = record[row_at(DELTA, episode, t) + j];
        var r_bar = 0.0;
        if (READS_R == 1u) {
            r_bar = state[r_bar_at(episode) + j];
        }
        let w = w_quad(network, quad, j);
        let alpha = alpha_quad(network, quad, j);
        var h = array<vec4<f32>, TRACES>();
        var lambda = array<vec4<f32>, TRACES>();
        for (var k: u32 = 0u; k < TRACES; k = k + 1u) {
            let at = quad_at(episode, k, quad, j);
            h[k] = trace[at];
            lambda[k] = adjoint[at];
        }
        for (var q: u32 = 0u; q < 4u; q = q + 1u) {
            let i = 4u * quad + q;
            if (i >= job.n_pre) {
                for (var k: u32 = 0u; k < TRACES; k = k + 1u) {
                    lambda[k][q] = 0.0;
                }
                continue;
            }
            pre_values(&v, network, episode, t, i);
            connection_parameters(&v, network, i, j);
            var own = array<f32, TRACES>();
            for (var k: u32 = 0u; k < TRACES; k = k + 1u) {
                v.h[k] = h[k][q];
                own[k] = lambda[k][q];
            }
            let terms = row_terms(v, own);
            for (var k: u32 = 0u; k < ROW_SUMS; k = k + 1u) {
                sums[k][q] = sums[k][q] + terms[k];
            }
            sums[0][q] = sums[0][q] + (w[q] + alpha[q] * h[0][q]) * delta + h[0][q] * r_bar;
            connection_back(v, own, episode, i, j);
            var back = traces_back(v, own);
            back[0] = back[0] + v.x * (alpha[q] * delta + r_bar);
            for (var k: u32 = 0u; k < TRACES; k = k + 1u) {
                lambda[k][q] = back[k];
            }
        }
        for (var k: u32 = 0u; k < TRACES; k = k + 1u) {
            let at = quad_at(episode, k, quad, j);
            if (mark == RESET) {
                let start = quad_at(n_episodes() + episode, k, quad, j);
                adjoint[start] = adjoint[start] + lambda[k];
            }
            adjoint[at] = select(vec4(0.0), lambda[k], mark == 0.0);
        }
    }
    for (var k: u32 = 0u; k < ROW_SUMS; k = k + 1u) {
        workgroupBarrier();
        sh_across[local] = sums[k];
        workgroupBarrier();
        if (across < 8u) {
            sh_across[local] = (sh_across[local] + sh_across[local + 8u])
                + (sh_across[local + 16u] + sh_across[local + 24u]);
        }
        workgroupBarrier();
        if (across < 4u && 4u * quad + across < job.n_pre) {
            let first = local - across;
            var total = 0.0;
            for (var n: u32 = 0u; n < 8u; n = n + 1u) {
                total = total + sh_across[first + n][across];
            }
            let row = (k * job.n_tiles + group.x) * n_episodes() + episode;
            row_partial[row * job.n_pre + 4u * quad + across] = total;
        }
    }
}
