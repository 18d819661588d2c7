// What a window adds to the weight gradients, and P at its start:
//
//     d_w_ij     += sum over episodes and steps of x_i delta_j
//     d_alpha_ij += sum over episodes and steps of H_ij x_i delta_j
//     P(first)    = the adjoint recurrence, n times back, from P(first + n)
//
// Workgroup (tile, chunk, network) owns a tile of columns and a chunk of rows of a
// network; an invocation one column and every fourth group of four rows, and adds up the
// network's episodes in order.
// gradient: +=   d_alpha (where alpha is shared): +=   adjoint: =
//!include lib/job.wgsl
//!include lib/trace.wgsl
//!include lib/adjoint.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> trace: array<f32>;  // [E, traces, M, N]
@group(0) @binding(3) var<storage, read> record: array<f32>; // [slots, E, T+1, N]
@group(0) @binding(4) var<storage, read> pre: array<f32>;    // [E, T, M]
@group(0) @binding(5) var<storage, read_write> adjoint: array<f32>;  // [E, traces, M, N]
@group(0) @binding(6) var<storage, read_write> gradient: array<f32>; // [P, n_parameters]
@group(0) @binding(7) var<storage, read_write> d_alpha: array<f32>;  // [P, M, N]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let j = group.x * TILE + local % TILE;
    let lane = local / TILE;
    let n = now.n_steps;
    let here = j < job.n_post;
    var sum_w: array<vec4<f32>, 4>;
    var sum_alpha: array<vec4<f32>, 4>;
    for (var batch = 0u; batch < job.n_batch; batch = batch + 1u) {
        let episode = group.z * job.n_batch + batch;
        workgroupBarrier();
        load_x(episode, group.y, now.first, n, local);
        workgroupBarrier();
        if (here) {
            load_coefficients(episode, j, now.first, n);
            load_deltas(episode, j, now.first, n);
            for (var g = 0u; g < GROUPS; g = g + 1u) {
                let row4 = lane + LANES * g;
                let i = group.y * CHUNK + row4 * 4u;
                if (i >= job.n_pre) {
                    break;
                }
                let n_rows = min(4u, job.n_pre - i);
                var at = Traces(vec4(0.0), vec4(0.0));
                var p = Traces(vec4(0.0), vec4(0.0));
                for (var k = 0u; k < n_rows; k = k + 1u) {
                    at.h[k] = trace[trace_at(episode, 0u, j) + (i + k) * job.n_post];
                    p.h[k] = adjoint[trace_at(episode, 0u, j) + (i + k) * job.n_post];
                    if (two_traces()) {
                        at.e[k] = trace[trace_at(episode, 1u, j) + (i + k) * job.n_post];
                        p.e[k] = adjoint[trace_at(episode, 1u, j) + (i + k) * job.n_post];
                    }
                }
                for (var r = 0u; r < n; r = r + 1u) {
                    let x = sh_x[r * (CHUNK / 4u) + row4];
                    let gain = k_delta[r] * x;
                    sum_w[g] = sum_w[g] + gain;
                    sum_alpha[g] = sum_alpha[g] + at.h * gain;
                    at = evolve(at, r, x);
                    if (CLIPPED == 1u) {
                        masks[r] = inside(at.h);
                        at = clipped(at);
                    }
                }
                for (var r = n; r > 0u; r = r - 1u) {
                    p = evolve_back(p, r - 1u, sh_x[(r - 1u) * (CHUNK / 4u) + row4]);
                }
                for (var k = 0u; k < n_rows; k = k + 1u) {
                    adjoint[trace_at(episode, 0u, j) + (i + k) * job.n_post] = p.h[k];
                    if (two_traces()) {
                        adjoint[trace_at(episode, 1u, j) + (i + k) * job.n_post] = p.e[k];
                    }
                }
            }
        }
    }
    if (!here) {
        return;
    }
    let network = job.first_network + group.z;
    for (var g = 0u; g < GROUPS; g = g + 1u) {
        let i = group.y * CHUNK + (lane + LANES * g) * 4u;
        for (var k = 0u; k < 4u; k = k + 1u) {
            if (i + k >= job.n_pre) {
                break;
            }
            let at_w = network * job.n_parameters + job.at_w + (i + k) * job.n_post + j;
            gradient[at_w] = gradient[at_w] + sum_w[g][k];
            if (job.alpha_row != 0u) {
                let at = network * job.n_parameters + job.at_alpha + (i + k) * job.n_post + j;
                gradient[at] = gradient[at] + sum_alpha[g][k];
            } else {
                let at = (network * job.n_pre + i + k) * job.n_post + j;
                d_alpha[at] = d_alpha[at] + sum_alpha[g][k];
            }
        }
    }
}
