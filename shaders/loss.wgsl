// The loss of one step, and what it sends back (the twin of `Loss::seed` in
// `src/model/loss.rs`): dL/dz through free neurons, dL/dy where clamped.
//
//     squared        share sum_j weight (y - target)^2
//     bce            share sum_j weight (-target ln y - (1 - target) ln(1 - y))
//     cross_entropy  share sum_j weight (-target ln y)
//
// With a rate leak y is no function of z alone: all of it goes to dL/dy.
//
// Workgroup k owns step k % T of episode k / T; an invocation every 256th neuron.
// record (delta, d_input): =   record (dL/dy): +=   loss_rows: =
//!include lib/job.wgsl
//!include lib/math.wgsl
//!include lib/reduce.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> stimuli: array<f32>; // [1 or 2, E, n_stimuli, N]
@group(0) @binding(2) var<storage, read> shown: array<u32>;   // [E, T]
@group(0) @binding(3) var<storage, read> targets: array<f32>; // [2, E, n_targets, N]
@group(0) @binding(4) var<storage, read> scored: array<u32>;  // [E, T]
@group(0) @binding(5) var<storage, read_write> record: array<f32>; // [slots, E, T+1, N]
@group(0) @binding(6) var<storage, read_write> loss_rows: array<f32>; // [E, T]

// What the loss of a neuron needs: y, its target and weight, weight target and
// weight (1 - target).
struct Term {
    y: f32,
    wanted: f32,
    weight: f32,
    on: f32,
    off: f32,
}

fn plain(term: Term) -> f32 {
    let error = term.y - term.wanted;
    var value = term.weight * error * error;
    if (LOSS != SQUARED) {
        value = 0.0;
        if (term.on != 0.0) {
            value = -term.on * ln(term.y);
        }
        if (LOSS == BCE && term.off != 0.0) {
            value = value - term.off * ln(1.0 - term.y);
        }
    }
    return value;
}

fn plain_slope(term: Term) -> f32 {
    var value = 2.0 * term.weight * (term.y - term.wanted);
    if (LOSS != SQUARED) {
        value = 0.0;
        if (term.on != 0.0) {
            value = -term.on / term.y;
        }
        if (LOSS == BCE && term.off != 0.0) {
            value = value + term.off / (1.0 - term.y);
        }
    }
    return value;
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let k = group.y * groups.x + group.x;
    if (k >= n_episodes() * job.n_steps) {
        return;
    }
    let n = job.n_post;
    let episode = k / job.n_steps;
    let t = k % job.n_steps;
    let delta_at = row_at(DELTA, episode, t);
    let input_at = row_at(D_INPUT, episode, t);
    for (var j = local; j < n; j = j + 256u) {
        record[delta_at + j] = 0.0;
        record[input_at + j] = 0.0;
    }
    let row = scored[k];
    if (row == NO_ROW) {
        if (local == 0u) {
            loss_rows[k] = 0.0;
        }
        return;
    }

    let z_at = argument_at(episode, t);
    let y_at = row_at(Y, episode, t + 1u);
    let clamp_at = (n_episodes() * job.n_stimuli + episode * job.n_stimuli + shown[k]) * n;
    let target_at = (episode * job.n_targets + row) * n;
    let weight_at = target_at + n_episodes() * job.n_targets * n;
    var sum = 0.0;

    // softmax with its largest output apart: 1 - y loses no digits there
    var top_z = 0.0;
    var top = 0u;
    var second = 0.0;
    var rest = 0.0;
    var tail = 0.0;
    var ln_total = 0.0;
    var total_on = 0.0;
    var total_odds = 0.0;
    var top_off = 0.0;
    if (ACTIVATION == SOFTMAX && LEAK != RATE) {
        var best = -3.0e38;
        for (var j = local; j < n; j = j + 256u) {
            best = max(best, record[z_at + j]);
        }
        top_z = reduce_max(local, best);
        var index = -4.0e9;
        for (var j = local; j < n; j = j + 256u) {
            if (record[z_at + j] == top_z) {
                index = max(index, -f32(j));
            }
        }
        top = u32(-reduce_max(local, index));
        var next = -3.0e38;
        for (var j = local; j < n; j = j + 256u) {
            if (j != top) {
                next = max(next, record[z_at + j]);
            }
        }
        second = reduce_max(local, next);
        if (n == 1u) {
            second = top_z;
        }
        var others = 0.0;
        for (var j = local; j < n; j = j + 256u) {
            if (j != top) {
                others = others + exp_neg(record[z_at + j] - second);
            }
        }
        rest = reduce_sum(local, others);
        tail = exp_neg(second - top_z) * rest;
        if (tail < 1.0) {
            ln_total = ln_1p(tail);
        } else {
            ln_total = ln(1.0 + tail);
        }
        var on_sum = 0.0;
        var odds_sum = 0.0;
        var off_at_top = 0.0;
        for (var j = local; j < n; j = j + 256u) {
            let y = exp_neg(record[z_at + j] - top_z) / (1.0 + tail);
            var weight = targets[weight_at + j];
            if (CLAMPED == 1u) {
                weight = select(weight, 0.0, stimuli[clamp_at + j] != 0.0);
            }
            let wanted = targets[target_at + j];
            let off = weight * (1.0 - wanted);
            if (LOSS == SQUARED) {
                on_sum = on_sum + 2.0 * weight * (y - wanted) * y;
            } else {
                on_sum = on_sum + weight * wanted;
            }
            if (j == top) {
                off_at_top = off;
            } else {
                odds_sum = odds_sum + off * y / (1.0 - y);
            }
        }
        total_on = reduce_sum(local, on_sum);
        total_odds = reduce_sum(local, odds_sum);
        top_off = reduce_sum(local, off_at_top);
    }

    for (var j = local; j < n; j = j + 256u) {
        let z = record[z_at + j];
        let weight = targets[weight_at + j];
        let wanted = targets[target_at + j];
        let term = Term(record[y_at + j], wanted, weight, weight * wanted, weight * (1.0 - wanted));
        var is_clamped = false;
        if (CLAMPED == 1u) {
            is_clamped = stimuli[clamp_at + j] != 0.0;
        }
        var delta = 0.0;
        if (LEAK == RATE) {
            let to = row_at(D_Y, episode, t) + j;
            sum = sum + plain(term);
            record[to] = record[to] + job.share * plain_slope(term);
            continue;
        }
        if (is_clamped) {
            sum = sum + plain(term);
            record[input_at + j] = job.share * plain_slope(term);
        }
        if (ACTIVATION == SOFTMAX) {
            let y = exp_neg(z - top_z) / (1.0 + tail);
            let on = select(term.on, 0.0, is_clamped);
            let off = select(term.off, 0.0, is_clamped);
            if (LOSS == SQUARED) {
                let free = select(weight, 0.0, is_clamped);
                sum = sum + free * (y - wanted) * (y - wanted);
                delta = y * (2.0 * free * (y - wanted) - total_on);
            } else {
                if (on != 0.0) {
                    sum = sum - on * ((z - top_z) - ln_total);
                }
                delta = y * total_on - on;
                if (LOSS == BCE) {
                    if (off != 0.0) {
                        if (j == top) {
                            sum = sum - off * ((second - top_z) + ln(rest) - ln_total);
                        } else {
                            sum = sum - off * ln(1.0 - y);
                        }
                    }
                    if (j == top) {
                        delta = delta + off * y - y * total_odds;
                    } else {
                        let odds = off * y / (1.0 - y);
                        let top_y = 1.0 / (1.0 + tail);
                        delta = delta + off * y - y * (total_odds - odds)
                            - top_off * top_y * (exp_neg(z - second) / rest);
                    }
                }
            }
        } else if (!is_clamped) {
            if (ACTIVATION == SIGMOID && LOSS != SQUARED) {
                let ln_tail = ln_1p(exp_neg(-abs(z)));
                sum = sum + term.on * (max(-z, 0.0) + ln_tail);
                delta = -term.on * sigmoid(-z);
                if (LOSS == BCE) {
                    sum = sum + term.off * (max(z, 0.0) + ln_tail);
                    delta = delta + term.off * sigmoid(z);
                }
            } else {
                sum = sum + plain(term);
                delta = plain_slope(term) * slope(z);
            }
        }
        record[delta_at + j] = job.share * delta;
    }
    let total = reduce_sum(local, sum);
    if (local == 0u) {
        loss_rows[k] = job.share * total;
    }
}
