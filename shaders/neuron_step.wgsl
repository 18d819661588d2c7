// The O(N) part of one step, after a sweep that left the chunks' partial sums:
//
//     z_j = sum over chunks of partial_j + u_j + drive_j,  y = activation(z), y = u where clamped,
//
// then the rule's coefficients d, c, m (`lib/rule.wgsl`). Neurons that leak, by a rate k:
//
//     rate       y = (1 - k) y(t-1) + k activation(z)
//     membrane   v = (1 - k) v(t-1) + k z,  y = activation(v)
//
// Workgroup (e, k) owns a part of episode e: with one part for an episode, as softmax and a
// modulator need it, an invocation has every 256th neuron. It alone reads what it wrote.
// record (z, leaked, y, d, c, m of this step): =   y_last: = at the last step
//!include lib/job.wgsl
//!include lib/eight.wgsl
//!include lib/math.wgsl
//!include lib/reduce.wgsl
//!include lib/rule.wgsl
//!include lib/leak.wgsl
//!include lib/product_sums.wgsl
//!include lib/marks.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(3) var<storage, read> partial: array<f32>;    // [1 or 2, chunks, E, N]
@group(0) @binding(4) var<storage, read> stimuli: array<f32>;    // [1 or 2, E, n_stimuli, N]
@group(0) @binding(5) var<storage, read> shown: array<u32>;      // [E, T]
@group(0) @binding(6) var<storage, read_write> record: array<f32>; // [slots, E, T+1, N]
@group(0) @binding(7) var<storage, read_write> y_last: array<f32>; // [P B, N]

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
    let n = job.n_post;
    let network = network_at(episode);
    let z_at = row_at(Z, episode, t);
    let argument_at = argument_at(episode, t);
    let y_at = row_at(Y, episode, t + 1u);
    let earlier = before(episode, t);
    let tables = n_episodes() * job.n_stimuli * n;
    let u_at = (episode * job.n_stimuli + shown[episode * job.n_steps + t]) * n;

    var top = -3.0e38;
    for (var j = own; j < n; j = j + stride) {
        var z = product_sum(0u, episode, j) + stimuli[u_at + j];
        if (DRIVE != 0u) {
            z = z + record[row_at(DRIVE, episode, t) + j];
        }
        record[z_at + j] = z;
        if (LEAK == MEMBRANE) {
            let k = leak_of(network, j);
            z = (1.0 - k) * record[row_at(LEAKED, episode, earlier) + j] + k * z;
            record[argument_at + j] = z;
        }
        top = max(top, z);
    }
    var total = 1.0;
    if (ACTIVATION == SOFTMAX) {
        top = reduce_max(local, top);
        var sum = 0.0;
        for (var j = own; j < n; j = j + stride) {
            sum = sum + exp_neg(record[argument_at + j] - top);
        }
        total = reduce_sum(local, sum);
    }

    var read_out = 0.0;
    for (var j = own; j < n; j = j + stride) {
        let z = record[argument_at + j];
        var y = activate(z);
        if (ACTIVATION == SOFTMAX) {
            y = exp_neg(z - top) / total;
        }
        if (LEAK == RATE) {
            let k = leak_of(network, j);
            record[row_at(LEAKED, episode, t) + j] = y;
            y = (1.0 - k) * record[row_at(Y, episode, earlier) + j] + k * y;
        }
        if (CLAMPED == 1u) {
            if (stimuli[tables + u_at + j] != 0.0) {
                y = stimuli[u_at + j];
            }
        }
        record[y_at + j] = y;
        if (t + 1u == job.n_steps) {
            y_last[(job.first_episode + episode) * n + j] = y;
        }
        if (uses_modulator()) {
            read_out = read_out + parameters[network + job.at_mod_w + j] * y;
        }
    }
    var signal = 0.0;
    if (uses_modulator()) {
        signal = tanh_own(reduce_sum(local, read_out) + parameters[network + job.at_mod_b]);
    }
    for (var j = own; j < n; j = j + stride) {
        let own = rule_parameters(network, j);
        var m = modulation(own, signal);
        if (GIVEN != 0u) {
            m = m + record[row_at(GIVEN, episode, t) + j];
        }
        let k = coefficients(own, record[y_at + j], m);
        record[row_at(D, episode, t) + j] = k.d;
        record[row_at(C, episode, t) + j] = k.c;
        if (RULE == RETROACTIVE || RULE == TEXT) {
            record[row_at(M, episode, t) + j] = m;
        }
    }
}
