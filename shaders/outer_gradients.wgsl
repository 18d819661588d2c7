// Gradients of the input layer's weights and of the read-out, of some steps of an episode:
//
//     d in.w_kj += sum_t observed_k dL/dz_j,   d out.w_jo += sum_t y_j dL/dout_o,
//     d out.b_o += sum_t dL/dout_o
//
// Workgroup (e, k) owns a part of episode e's; an invocation every 256th parameter of that part.
// rule_bar: +=
//!include lib/job.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> record: array<f32>;   // [slots, E, T+1, N]
@group(0) @binding(3) var<storage, read> observed: array<f32>; // [E, T, K]
@group(0) @binding(4) var<storage, read> outer: array<f32>;    // [2, E, T, O]
@group(0) @binding(5) var<storage, read_write> rule_bar: array<f32>; // [E, n_rule]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let episode = group.x;
    let n = job.n_post;
    let n_in = job.n_observed * n;
    let n_out = n * job.n_outputs;
    var n_all = n_in + n_out;
    if (job.n_outputs > 0u && job.at_out_b != NO_ROW) {
        n_all = n_all + job.n_outputs;
    }
    let first = episode * job.n_steps + now.first;
    let d_out = (n_episodes() * job.n_steps + first) * job.n_outputs;
    for (var k = group.y * 256u + local; k < n_all; k = k + groups.y * 256u) {
        var sum = 0.0;
        var to = 0u;
        if (k < n_in) {
            let delta_at = row_at(DELTA, episode, now.first) + k % n;
            let observed_at = first * job.n_observed + k / n;
            for (var t = 0u; t < now.n_steps; t = t + 1u) {
                let value = observed[observed_at + t * job.n_observed];
                sum = sum + value * record[delta_at + t * n];
            }
            to = job.at_in_w + k;
        } else if (k < n_in + n_out) {
            let at = k - n_in;
            let y_at = row_at(Y, episode, now.first + 1u) + at / job.n_outputs;
            let bar_at = d_out + at % job.n_outputs;
            for (var t = 0u; t < now.n_steps; t = t + 1u) {
                sum = sum + record[y_at + t * n] * outer[bar_at + t * job.n_outputs];
            }
            to = job.at_out_w + at;
        } else {
            let o = k - n_in - n_out;
            for (var t = 0u; t < now.n_steps; t = t + 1u) {
                sum = sum + outer[d_out + o + t * job.n_outputs];
            }
            to = job.at_out_b + o;
        }
        let at = episode * job.n_rule + to - job.at_rule;
        rule_bar[at] = rule_bar[at] + sum;
    }
}
