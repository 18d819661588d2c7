// The O(N) part of one backward step, after a sweep that left the tiles' row sums and the
// chunks' column sums q, r and e: dL/dy from the step after and from the rule, then
//
//     dL/dz = activation'(z) dL/dy where free    (`lib/rule.wgsl`, `lib/math.wgsl`).
//
// Of neurons that leak, by a rate k, (1 - k) of it is carried to the step before and k of it goes
// on: of dL/dy (rate), or of dL/dv (membrane). What is carried lies in the row that z has no step for.
// At row 0, before the first step, only hands dL/dx(1) to dL/dy(0).
//
// Workgroup (e, k) owns a part of episode e: with one part for an episode, as softmax and a
// modulator need it, an invocation has every 256th neuron. It alone reads what it wrote, but for
// the row below.
// record (y_bar, dL/dm): =   record (delta, d_input): +=   rule_bar: +=   pre (dL/dx): =
//
// Where a step resets the network, what it would hand on belongs to the start values: their rows add it up, and
// hand it over at row 0. A rule's text has left what y, z and m get of it (`general_neurons_back.wgsl`).
//
// A shared eta's gradient waits by neurons, in a row that delta has no step for, to be added up
// at row 0.
//!include lib/job.wgsl
//!include lib/eight.wgsl
//!include lib/math.wgsl
//!include lib/reduce.wgsl
//!include lib/column_sums.wgsl
//!include lib/row_sums.wgsl
//!include lib/rule.wgsl
//!include lib/leak.wgsl
//!include lib/marks.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(3) var<storage, read> column_partial: array<f32>; // [3, chunks, E, N]
@group(0) @binding(4) var<storage, read> row_partial: array<f32>;    // [tiles, E, M]
@group(0) @binding(5) var<storage, read> stimuli: array<f32>;    // [1 or 2, E, n_stimuli, N]
@group(0) @binding(6) var<storage, read> shown: array<u32>;      // [E, T]
@group(0) @binding(7) var<storage, read_write> record: array<f32>; // [slots, E, T+1, N]
@group(0) @binding(8) var<storage, read_write> rule_bar: array<f32>; // [E, n_rule]
@group(0) @binding(9) var<storage, read_write> pre: array<f32>;  // [2, E, T, M]

// Adds to the gradients of this episode; every invocation calls it with its own neuron, if any.
fn add_rule_bar(episode: u32, at: u32, value: f32) {
    let to = episode * job.n_rule + at - job.at_rule;
    rule_bar[to] = rule_bar[to] + value;
}

fn is_clamped(episode: u32, t: u32, j: u32) -> bool {
    if (CLAMPED == 0u) {
        return false;
    }
    let row = n_episodes() * job.n_stimuli + episode * job.n_stimuli
        + shown[episode * job.n_steps + t];
    return stimuli[row * job.n_post + j] != 0.0;
}

fn neuron_back(episode: u32, t: u32, is_collected: bool, own: u32, stride: u32, local: u32) {
    let n = job.n_post;
    let network = network_at(episode);
    let bar_at = row_at(Y_BAR, episode, t + 1u);
    let y_at = row_at(Y, episode, t + 1u);
    let z_at = row_at(Z, episode, t);
    let argument_at = argument_at(episode, t);
    let earlier = before(episode, t);
    let carried_at = row_at(Z, episode, job.n_steps);
    let waiting_at = row_at(DELTA, episode, job.n_steps);
    var signal = 0.0;
    if (uses_modulator()) {
        var read_out = 0.0;
        for (var j = own; j < n; j = j + stride) {
            read_out = read_out + parameters[network + job.at_mod_w + j] * record[y_at + j];
        }
        signal = tanh_own(reduce_sum(local, read_out) + parameters[network + job.at_mod_b]);
    }
    if (is_collected && RULE != NONE) {
        var signal_bar = 0.0;
        for (var j = own; j < n; j = j + stride) {
            var e = 0.0;
            if (RULE == RETROACTIVE) {
                e = collected(2u, episode, j);
            }
            var q = 0.0;
            var r = 0.0;
            if (RULE != TEXT) {
                q = collected(0u, episode, j);
                r = collected(1u, episode, j);
            }
            let rule = rule_parameters(network, j);
            var m = modulation(rule, signal);
            if (GIVEN != 0u) {
                m = m + record[row_at(GIVEN, episode, t) + j];
            }
            var back = rule_back(rule, record[y_at + j], m, q, r, e);
            if (RULE == TEXT) {
                back.y_bar = record[row_at(BARS, episode, t) + j];
                back.m_bar = record[row_at(BARS + 2u, episode, t) + j];
            }
            record[bar_at + j] = record[bar_at + j] + back.y_bar;
            if (uses_eta()) {
                if (job.n_eta == 1u) {
                    record[waiting_at + j] = record[waiting_at + j] + back.d_eta;
                } else {
                    add_rule_bar(episode, job.at_eta + j, back.d_eta);
                }
            }
            if (GIVEN != 0u) {
                record[row_at(GIVEN + 1u, episode, t) + j] = back.m_bar;
            }
            if (uses_modulator()) {
                add_rule_bar(episode, job.at_fanout_w + j, back.m_bar * signal);
                add_rule_bar(episode, job.at_fanout_b + j, back.m_bar);
                signal_bar = signal_bar + back.m_bar * rule.fanout_w;
            }
        }
        if (uses_modulator()) {
            let a_bar = (1.0 - signal * signal) * reduce_sum(local, signal_bar);
            for (var j = own; j < n; j = j + stride) {
                add_rule_bar(episode, job.at_mod_w + j, a_bar * record[y_at + j]);
                record[bar_at + j] =
                    record[bar_at + j] + a_bar * parameters[network + job.at_mod_w + j];
            }
            if (local == 0u) {
                add_rule_bar(episode, job.at_mod_b, a_bar);
            }
        }
    } else if (GIVEN != 0u) {
        for (var j = own; j < n; j = j + stride) {
            record[row_at(GIVEN + 1u, episode, t) + j] = 0.0;
        }
    }

    var leak_bar = 0.0;
    if (LEAK == RATE) {
        for (var j = own; j < n; j = j + stride) {
            let k = leak_of(network, j);
            var bar = record[bar_at + j];
            if (is_clamped(episode, t, j)) {
                bar = 0.0;
            } else {
                record[bar_at + j] = k * bar;
            }
            record[carried_at + j] = (1.0 - k) * bar;
            let moved =
                record[row_at(LEAKED, episode, t) + j] - record[row_at(Y, episode, earlier) + j];
            leak_bar = leak_bar + bar * moved;
            if (job.n_leak > 1u) {
                add_rule_bar(episode, job.at_leak + j, bar * moved);
            }
        }
    }
    // softmax mixes neurons, and y is no softmax where clamped: form it again from z
    var top = -3.0e38;
    var total = 1.0;
    var mean = 0.0;
    if (ACTIVATION == SOFTMAX) {
        for (var j = own; j < n; j = j + stride) {
            top = max(top, record[argument_at + j]);
        }
        top = reduce_max(local, top);
        var sum = 0.0;
        for (var j = own; j < n; j = j + stride) {
            sum = sum + exp_neg(record[argument_at + j] - top);
        }
        total = reduce_sum(local, sum);
        sum = 0.0;
        for (var j = own; j < n; j = j + stride) {
            let free = select(record[bar_at + j], 0.0, is_clamped(episode, t, j));
            sum = sum + free * (exp_neg(record[argument_at + j] - top) / total);
        }
        mean = reduce_sum(local, sum);
    }
    var bias_bar = 0.0;
    for (var j = own; j < n; j = j + stride) {
        var free = record[bar_at + j];
        var clamped_bar = 0.0;
        if (is_clamped(episode, t, j)) {
            clamped_bar = free;
            free = 0.0;
        }
        let z = record[argument_at + j];
        let delta_at = row_at(DELTA, episode, t) + j;
        let input_at = row_at(D_INPUT, episode, t) + j;
        var delta = record[delta_at];
        if (ACTIVATION == SOFTMAX) {
            delta = delta + (exp_neg(z - top) / total) * (free - mean);
        } else {
            delta = delta + slope(z) * free;
        }
        if (LEAK == MEMBRANE) {
            let k = leak_of(network, j);
            delta = delta + record[carried_at + j];
            let moved = record[z_at + j] - record[row_at(LEAKED, episode, earlier) + j];
            leak_bar = leak_bar + delta * moved;
            if (job.n_leak > 1u) {
                add_rule_bar(episode, job.at_leak + j, delta * moved);
            }
            record[carried_at + j] = (1.0 - k) * delta;
            delta = k * delta;
        }
        if (RULE == TEXT && is_collected) {
            delta = delta + record[row_at(BARS + 1u, episode, t) + j];
        }
        record[delta_at] = delta;
        record[input_at] = record[input_at] + clamped_bar + delta;
        bias_bar = bias_bar + delta;
        if (DRIVE != 0u && job.n_bias > 1u) {
            add_rule_bar(episode, job.at_bias + j, delta);
        }
        if (DRIVE != 0u && job.at_in_b != NO_ROW) {
            add_rule_bar(episode, job.at_in_b + j, delta);
        }
    }
    if (LEAK != NO_LEAK && job.n_leak == 1u) {
        let sum = reduce_sum(local, leak_bar);
        if (local == 0u) {
            add_rule_bar(episode, job.at_leak, sum);
        }
    }
    if (DRIVE != 0u && job.n_bias == 1u) {
        let sum = reduce_sum(local, bias_bar);
        if (local == 0u) {
            add_rule_bar(episode, job.at_bias, sum);
        }
    }
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let episode = group.x;
    let own = group.y * 256u + local;
    let stride = groups.y * 256u;
    let shares_eta = uses_eta() && job.n_eta == 1u;
    let waiting_at = row_at(DELTA, episode, job.n_steps);
    let bar_at = row_at(Y_BAR, episode, now.row);
    let carried_at = row_at(Z, episode, job.n_steps);
    let is_last = now.row == job.n_steps;
    let mark = mark(episode, now.row);
    let start_at = row_at(MARKS + 1u, episode, 0u);
    for (var j = own; j < job.n_post; j = j + stride) {
        var y_bar = 0.0;
        if (RECURRENT == 1u && now.propagated == 1u) {
            y_bar = row_sum(0u, episode, j);
        }
        if (LEAK == RATE && !is_last) {
            y_bar = y_bar + record[carried_at + j];
        }
        if (MARKS != 0u) {
            if (is_last) {
                record[start_at + j] = 0.0;
                record[start_at + job.n_post + j] = 0.0;
            }
            if (mark == RESET) {
                record[start_at + j] = record[start_at + j] + y_bar;
                if (LEAK == MEMBRANE) {
                    let at = start_at + job.n_post + j;
                    record[at] = record[at] + record[carried_at + j];
                }
            }
            if (mark != 0.0) {
                y_bar = 0.0;
                record[carried_at + j] = 0.0;
            }
            if (now.row == 0u) {
                y_bar = y_bar + record[start_at + j];
                if (LEAK == MEMBRANE) {
                    record[carried_at + j] =
                        record[carried_at + j] + record[start_at + job.n_post + j];
                }
            }
        }
        if (D_Y != 0u && now.row > 0u) {
            y_bar = y_bar + record[row_at(D_Y, episode, now.row - 1u) + j];
        }
        record[bar_at + j] = y_bar;
        if (LEAK != NO_LEAK && is_last) {
            record[carried_at + j] = 0.0;
        }
        if (shares_eta && is_last) {
            record[waiting_at + j] = 0.0;
        }
    }
    if (RECURRENT == 0u && now.propagated == 1u) {
        for (var i = own; i < job.n_pre; i = i + stride) {
            let to = ((n_episodes() + episode) * job.n_steps + now.row) * job.n_pre + i;
            pre[to] = row_sum(0u, episode, i);
        }
    }
    if (now.row > 0u) {
        neuron_back(episode, now.row - 1u, now.collected == 1u, own, stride, local);
    }
    if (shares_eta && now.row == 0u && group.y == 0u) {
        var waiting = 0.0;
        for (var j = local; j < job.n_post; j = j + 256u) {
            waiting = waiting + record[waiting_at + j];
        }
        let total = reduce_sum(local, waiting);
        if (local == 0u) {
            add_rule_bar(episode, job.at_eta, total);
        }
    }
}
