// The trace at the end of a window, from the trace at its start:
//
//     H(first + n) = the rule's recurrence, n times, from H(first)
//
// Workgroup (tile, chunk, episode) owns a tile of columns and a chunk of rows; an
// invocation one column and every fourth group of four rows.   trace_out: =
//!include lib/job.wgsl
//!include lib/trace.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> trace: array<f32>;  // [E, traces, M, N]
@group(0) @binding(3) var<storage, read> record: array<f32>; // [slots, E, T+1, N]
@group(0) @binding(4) var<storage, read> pre: array<f32>;    // [E, T, M]
@group(0) @binding(5) var<storage, read_write> trace_out: array<f32>; // [E, traces, M, N]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let episode = group.z;
    let j = group.x * TILE + local % TILE;
    let lane = local / TILE;
    let n = now.n_steps;
    load_x(episode, group.y, now.first, n, local);
    workgroupBarrier();
    if (j >= job.n_post) {
        return;
    }
    load_coefficients(episode, j, now.first, n);
    for (var g = 0u; g < GROUPS; g = g + 1u) {
        let row4 = lane + LANES * g;
        let i = group.y * CHUNK + row4 * 4u;
        if (i >= job.n_pre) {
            break;
        }
        let n_rows = min(4u, job.n_pre - i);
        var at = Traces(vec4(0.0), vec4(0.0));
        for (var k = 0u; k < n_rows; k = k + 1u) {
            at.h[k] = trace[trace_at(episode, 0u, j) + (i + k) * job.n_post];
            if (two_traces()) {
                at.e[k] = trace[trace_at(episode, 1u, j) + (i + k) * job.n_post];
            }
        }
        for (var r = 0u; r < n; r = r + 1u) {
            at = clipped(evolve(at, r, sh_x[r * (CHUNK / 4u) + row4]));
        }
        for (var k = 0u; k < n_rows; k = k + 1u) {
            trace_out[trace_at(episode, 0u, j) + (i + k) * job.n_post] = at.h[k];
            if (two_traces()) {
                trace_out[trace_at(episode, 1u, j) + (i + k) * job.n_post] = at.e[k];
            }
        }
    }
}
