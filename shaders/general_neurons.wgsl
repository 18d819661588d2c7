// The O(N) part of a rule's text at one step, after its neurons: r, and the variables after the step, or
// their start values where the next step resets them.
//
// Workgroup (e, k) owns a part of episode e.   state (r, variables): =
//!include lib/job.wgsl
//!include lib/eight.wgsl
//!include lib/math.wgsl
//!include lib/marks.wgsl
//!include lib/product_sums.wgsl
//!include rule/values.wgsl
//!include lib/rows.wgsl
//!include lib/general_traces.wgsl
//!include lib/general.wgsl
//!include rule/variables.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(3) var<storage, read> partial: array<f32>;    // [1 or 2, chunks, E, N]
@group(0) @binding(4) var<storage, read> record: array<f32>;     // [slots, E, T+1, N]
@group(0) @binding(5) var<storage, read> pre: array<f32>;        // [1 or 2, E, T, M]
@group(0) @binding(6) var<storage, read_write> state: array<f32>; // [E, state_stride]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let episode = group.x;
    let own = group.y * 256u + local;
    let stride = groups.y * 256u;
    let t = now.row - 1u;
    let network = network_at(episode);
    let reset = is_reset(episode, t + 1u);
    for (var j = own; j < job.n_post; j = j + stride) {
        if (READS_R == 1u) {
            state[r_at(episode, t) + j] = product_sum(1u, episode, j);
        }
        if (POSTS > 0u) {
            var v = Values();
            post_values(&v, network, episode, t, j);
            var after = post_after(v);
            for (var k: u32 = 0u; k < POSTS; k = k + 1u) {
                if (reset) {
                    after[k] = state[post_at(episode, k, 0u) + j];
                }
                state[post_at(episode, k, t + 1u) + j] = after[k];
            }
        }
    }
    if (PRES > 0u) {
        for (var i = own; i < job.n_pre; i = i + stride) {
            var v = Values();
            pre_values(&v, network, episode, t, i);
            var after = pre_after(v);
            for (var k: u32 = 0u; k < PRES; k = k + 1u) {
                if (reset) {
                    after[k] = state[pre_at(episode, k, 0u) + i];
                }
                state[pre_at(episode, k, t + 1u) + i] = after[k];
            }
        }
    }
}
