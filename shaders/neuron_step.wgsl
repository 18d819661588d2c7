// The O(N) part of one step (`lib/neuron_step.wgsl`), after a sweep that left the chunks'
// partial sums.
//
// Workgroup e owns episode e; an invocation every 256th neuron.
// record (z, y, d, c, m of this step): =   y_last: = at the last step
//!include lib/job.wgsl
//!include lib/math.wgsl
//!include lib/reduce.wgsl
//!include lib/rule.wgsl
//!include lib/neuron_step.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(3) var<storage, read> partial: array<f32>;    // [chunks, E, N]
@group(0) @binding(4) var<storage, read> stimuli: array<f32>;    // [1 or 2, E, n_stimuli, N]
@group(0) @binding(5) var<storage, read> shown: array<u32>;      // [E, T]
@group(0) @binding(6) var<storage, read_write> record: array<f32>; // [slots, E, T+1, N]
@group(0) @binding(7) var<storage, read_write> y_last: array<f32>; // [P B, N]

fn plastic_sum(episode: u32, j: u32) -> f32 {
    var sum = 0.0;
    for (var chunk = 0u; chunk < job.n_chunks; chunk = chunk + 1u) {
        sum = sum + partial[(chunk * n_episodes() + episode) * job.n_post + j];
    }
    return sum;
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    neuron_step(group.x, now.row - 1u, local);
}
