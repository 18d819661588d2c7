// What the input layer sends back to what it observes, at every step:
//
//     d_observed_k = sum_j in.w_kj dL/dz_j
//
// Workgroup (x, y, z), number k of its layer z, owns step k % T of episode k / T; an invocation an
// input.
// d_observed: =
//!include lib/job.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(2) var<storage, read> record: array<f32>;     // [slots, E, T+1, N]
@group(0) @binding(3) var<storage, read_write> d_observed: array<f32>; // [E, T, K]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let step = group.y * groups.x + group.x;
    if (step >= n_episodes() * job.n_steps) {
        return;
    }
    let episode = step / job.n_steps;
    let delta_at = row_at(DELTA, episode, step % job.n_steps);
    let w_at = network_at(episode) + job.at_in_w;
    let k = group.z * 256u + local;
    if (k < job.n_observed) {
        var sum = 0.0;
        for (var j = 0u; j < job.n_post; j = j + 1u) {
            sum = sum + parameters[w_at + k * job.n_post + j] * record[delta_at + j];
        }
        d_observed[step * job.n_observed + k] = sum;
    }
}
