// The read-out of one step, its loss, and what they send back (the twin of `OutputLoss::of` in
// `crates/core/src/model/stages.rs`):
//
//     out_o = out.b_o + sum_j y_j out.w_jo,   loss += share loss(out),
//     dL/dout_o = share loss'(out_o) + what is given,   dL/dy_j += sum_o out.w_jo dL/dout_o
//
// Workgroup k owns step k % T of episode k / T; an invocation every 256th output, then every 256th
// neuron.
// outer (out, dL/dout): =   record (dL/dy): +=   loss_rows: +=
//!include lib/job.wgsl
//!include lib/math.wgsl
//!include lib/reduce.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(2) var<storage, read> asked: array<f32>; // target, weight, dL/dout: [3, E, T, O]
@group(0) @binding(3) var<storage, read_write> record: array<f32>; // [slots, E, T+1, N]
@group(0) @binding(4) var<storage, read_write> outer: array<f32>;  // [2, E, T, O]
@group(0) @binding(5) var<storage, read_write> loss_rows: array<f32>; // [E, T]

// Kinds of READ_LOSS.
const NO_LOSS = 0u;
const READ_SQUARED = 1u;
const READ_BCE = 2u;
const READ_CROSS_ENTROPY = 3u;

// ln(1 + e^v)
fn soft(v: f32) -> f32 {
    return max(v, 0.0) + ln_1p(exp_neg(-abs(v)));
}

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
    let n_outputs = job.n_outputs;
    let plane = n_episodes() * job.n_steps * n_outputs;
    let episode = step / job.n_steps;
    let t = step % job.n_steps;
    let network = network_at(episode);
    let y_at = row_at(Y, episode, t + 1u);
    let out_at = step * n_outputs;

    var top = -3.0e38;
    for (var o = local; o < n_outputs; o = o + 256u) {
        var out = 0.0;
        if (job.at_out_b != NO_ROW) {
            out = parameters[network + job.at_out_b + o];
        }
        for (var j = 0u; j < job.n_post; j = j + 1u) {
            out = out + record[y_at + j] * parameters[network + job.at_out_w + j * n_outputs + o];
        }
        outer[out_at + o] = out;
        top = max(top, out);
    }
    // softmax, for the cross-entropy of logits
    var ln_total = 0.0;
    var on = 0.0;
    if (READ_LOSS == READ_CROSS_ENTROPY) {
        top = reduce_max(local, top);
        var total = 0.0;
        for (var o = local; o < n_outputs; o = o + 256u) {
            total = total + exp_neg(outer[out_at + o] - top);
            on = on + asked[plane + out_at + o] * asked[out_at + o];
        }
        ln_total = ln(reduce_sum(local, total));
        on = reduce_sum(local, on);
    }
    var sum = 0.0;
    for (var o = local; o < n_outputs; o = o + 256u) {
        let out = outer[out_at + o];
        let wanted = asked[out_at + o];
        let weight = asked[plane + out_at + o];
        var slope = 0.0;
        if (READ_LOSS == READ_SQUARED && weight != 0.0) {
            sum = sum + weight * (out - wanted) * (out - wanted);
            slope = 2.0 * weight * (out - wanted);
        }
        if (READ_LOSS == READ_BCE && weight != 0.0) {
            if (wanted != 0.0) {
                sum = sum + weight * wanted * soft(-out);
            }
            if (wanted != 1.0) {
                sum = sum + weight * (1.0 - wanted) * soft(out);
            }
            slope = weight * (sigmoid(out) - wanted);
        }
        if (READ_LOSS == READ_CROSS_ENTROPY) {
            let ln_p = (out - top) - ln_total;
            if (weight * wanted != 0.0) {
                sum = sum - weight * wanted * ln_p;
            }
            slope = on * exp_neg(min(ln_p, 0.0)) - weight * wanted;
        }
        outer[plane + out_at + o] = job.share * slope + asked[2u * plane + out_at + o];
    }
    if (READ_LOSS != NO_LOSS) {
        sum = reduce_sum(local, sum);
        if (local == 0u) {
            loss_rows[step] = loss_rows[step] + job.share * sum;
        }
    }
    storageBarrier();
    let to = row_at(D_Y, episode, t);
    for (var j = local; j < job.n_post; j = j + 256u) {
        var bar = record[to + j];
        for (var o = 0u; o < n_outputs; o = o + 1u) {
            let w = parameters[network + job.at_out_w + j * n_outputs + o];
            bar = bar + w * outer[plane + out_at + o];
        }
        record[to + j] = bar;
    }
}
