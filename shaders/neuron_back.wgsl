// The O(N) part of one backward step (`lib/neuron_back.wgsl`), after a sweep that left the
// tiles' row sums and the chunks' column sums. At row 0, before the first step, only hands
// dL/dx(1) to dL/dy(0).
//
// Workgroup e owns episode e; an invocation every 256th neuron.
// record (y_bar): =   record (delta, d_input): +=   rule_bar: +=   pre (dL/dx): =
//!include lib/job.wgsl
//!include lib/math.wgsl
//!include lib/reduce.wgsl
//!include lib/rule.wgsl
//!include lib/neuron_back.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(3) var<storage, read> column_partial: array<f32>; // [3, chunks, E, N]
@group(0) @binding(4) var<storage, read> row_partial: array<f32>;    // [tiles, E, M]
@group(0) @binding(5) var<storage, read> stimuli: array<f32>;    // [1 or 2, E, n_stimuli, N]
@group(0) @binding(6) var<storage, read> shown: array<u32>;      // [E, T]
@group(0) @binding(7) var<storage, read_write> record: array<f32>; // [slots, E, T+1, N]
@group(0) @binding(8) var<storage, read_write> rule_bar: array<f32>; // [E, n_parameters - at_rule]
@group(0) @binding(9) var<storage, read_write> pre: array<f32>;  // [2, E, T, M]

fn row_sum(episode: u32, i: u32) -> f32 {
    var sum = 0.0;
    for (var tile = 0u; tile < job.n_tiles; tile = tile + 1u) {
        sum = sum + row_partial[(tile * n_episodes() + episode) * job.n_pre + i];
    }
    return sum;
}

fn collected(which: u32, episode: u32, j: u32) -> f32 {
    var sum = 0.0;
    for (var chunk = 0u; chunk < job.n_chunks; chunk = chunk + 1u) {
        let at = (which * job.n_chunks + chunk) * n_episodes() + episode;
        sum = sum + column_partial[at * job.n_post + j];
    }
    return sum;
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let episode = group.x;
    let bar_at = row_at(Y_BAR, episode, now.row);
    for (var j = local; j < job.n_post; j = j + 256u) {
        var y_bar = 0.0;
        if (RECURRENT == 1u && now.propagated == 1u) {
            y_bar = row_sum(episode, j);
        }
        record[bar_at + j] = y_bar;
    }
    if (RECURRENT == 0u && now.propagated == 1u) {
        for (var i = local; i < job.n_pre; i = i + 256u) {
            let to = ((n_episodes() + episode) * job.n_steps + now.row) * job.n_pre + i;
            pre[to] = row_sum(episode, i);
        }
    }
    if (now.row > 0u) {
        neuron_back(episode, now.row - 1u, now.collected == 1u, local);
    }
}
