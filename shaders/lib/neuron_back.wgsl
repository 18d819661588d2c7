// The O(N) part of one backward step, for a workgroup of 256 that owns an episode: dL/dy
// from the rule is added to what the step after left in the record, then
//
//     dL/dz = activation'(z) dL/dy where free    (`lib/rule.wgsl`, `lib/math.wgsl`).
//
// The kernel that includes this gives `collected(which, episode, j)`, the column sums q, r
// and e. Every invocation calls it, in uniform control flow; an invocation owns every 256th
// neuron and alone reads what it wrote.
// record (y_bar, delta, d_input): +=   rule_bar: +=

fn neuron_back(episode: u32, t: u32, is_collected: bool, local: u32) {
    let n = job.n_post;
    let network = network_at(episode);
    let bar_at = row_at(Y_BAR, episode, t + 1u);
    let y_at = row_at(Y, episode, t + 1u);
    let z_at = row_at(Z, episode, t);
    let rule_at = episode * (job.n_parameters - job.at_rule);
    var signal = 0.0;
    if (uses_modulator()) {
        var read_out = 0.0;
        for (var j = local; j < n; j = j + 256u) {
            read_out = read_out + parameters[network + job.at_mod_w + j] * record[y_at + j];
        }
        signal = tanh_own(reduce_sum(local, read_out) + parameters[network + job.at_mod_b]);
    }
    if (is_collected && RULE != NONE) {
        var signal_bar = 0.0;
        var d_eta = 0.0;
        for (var j = local; j < n; j = j + 256u) {
            var e = 0.0;
            if (RULE == RETROACTIVE) {
                e = collected(2u, episode, j);
            }
            let q = collected(0u, episode, j);
            let r = collected(1u, episode, j);
            let back = rule_back(network, j, record[y_at + j], signal, q, r, e);
            record[bar_at + j] = record[bar_at + j] + back.y_bar;
            if (uses_eta()) {
                if (job.n_eta == 1u) {
                    d_eta = d_eta + back.d_eta;
                } else {
                    let at = rule_at + job.at_eta - job.at_rule + j;
                    rule_bar[at] = rule_bar[at] + back.d_eta;
                }
            }
            if (uses_modulator()) {
                let at_w = rule_at + job.at_fanout_w - job.at_rule + j;
                let at_b = rule_at + job.at_fanout_b - job.at_rule + j;
                rule_bar[at_w] = rule_bar[at_w] + back.m_bar * signal;
                rule_bar[at_b] = rule_bar[at_b] + back.m_bar;
                signal_bar = signal_bar + back.m_bar * parameters[network + job.at_fanout_w + j];
            }
        }
        if (uses_eta() && job.n_eta == 1u) {
            let total = reduce_sum(local, d_eta);
            if (local == 0u) {
                let at = rule_at + job.at_eta - job.at_rule;
                rule_bar[at] = rule_bar[at] + total;
            }
        }
        if (uses_modulator()) {
            let a_bar = (1.0 - signal * signal) * reduce_sum(local, signal_bar);
            for (var j = local; j < n; j = j + 256u) {
                let at = rule_at + job.at_mod_w - job.at_rule + j;
                rule_bar[at] = rule_bar[at] + a_bar * record[y_at + j];
                record[bar_at + j] =
                    record[bar_at + j] + a_bar * parameters[network + job.at_mod_w + j];
            }
            if (local == 0u) {
                let at = rule_at + job.at_mod_b - job.at_rule;
                rule_bar[at] = rule_bar[at] + a_bar;
            }
        }
    }

    let clamp_at =
        (n_episodes() * job.n_stimuli + episode * job.n_stimuli + shown[episode * job.n_steps + t]) * n;
    // softmax mixes neurons, and y is no softmax where clamped: form it again from z
    var top = -3.0e38;
    var total = 1.0;
    var mean = 0.0;
    if (ACTIVATION == SOFTMAX) {
        for (var j = local; j < n; j = j + 256u) {
            top = max(top, record[z_at + j]);
        }
        top = reduce_max(local, top);
        var sum = 0.0;
        for (var j = local; j < n; j = j + 256u) {
            sum = sum + exp_neg(record[z_at + j] - top);
        }
        total = reduce_sum(local, sum);
        sum = 0.0;
        for (var j = local; j < n; j = j + 256u) {
            var free = record[bar_at + j];
            if (CLAMPED == 1u) {
                free = select(free, 0.0, stimuli[clamp_at + j] != 0.0);
            }
            sum = sum + free * (exp_neg(record[z_at + j] - top) / total);
        }
        mean = reduce_sum(local, sum);
    }
    for (var j = local; j < n; j = j + 256u) {
        var free = record[bar_at + j];
        var clamped_bar = 0.0;
        if (CLAMPED == 1u) {
            if (stimuli[clamp_at + j] != 0.0) {
                clamped_bar = free;
                free = 0.0;
            }
        }
        let z = record[z_at + j];
        let delta_at = row_at(DELTA, episode, t) + j;
        let input_at = row_at(D_INPUT, episode, t) + j;
        var delta = record[delta_at];
        if (ACTIVATION == SOFTMAX) {
            delta = delta + (exp_neg(z - top) / total) * (free - mean);
        } else {
            delta = delta + slope(z) * free;
        }
        record[delta_at] = delta;
        record[input_at] = record[input_at] + clamped_bar + delta;
    }
}
