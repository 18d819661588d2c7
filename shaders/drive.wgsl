// What z gains beside the core's sums and the stimuli, at every step:
//
//     drive_j = bias_j + in.b_j + sum_k observed_k in.w_kj
//
// Workgroup (x, y, z), number k of its layer z, owns step k % T of episode k / T; an invocation a
// neuron.
// record (drive): =
//!include lib/job.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(2) var<storage, read> observed: array<f32>;   // [E, T, K]
@group(0) @binding(3) var<storage, read_write> record: array<f32>; // [slots, E, T+1, N]

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
    let network = network_at(episode);
    let to = row_at(DRIVE, episode, step % job.n_steps);
    let from_layer = step * job.n_observed;
    let j = group.z * 256u + local;
    if (j < job.n_post) {
        var drive = 0.0;
        if (job.n_bias > 0u) {
            drive = parameters[network + job.at_bias + min(j, job.n_bias - 1u)];
        }
        if (job.at_in_b != NO_ROW) {
            drive = drive + parameters[network + job.at_in_b + j];
        }
        for (var k = 0u; k < job.n_observed; k = k + 1u) {
            let w = parameters[network + job.at_in_w + k * job.n_post + j];
            drive = drive + observed[from_layer + k] * w;
        }
        record[to + j] = drive;
    }
}
