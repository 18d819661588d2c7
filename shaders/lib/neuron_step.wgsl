// The O(N) part of one step, for a workgroup of 256 that owns an episode:
//
//     z_j = plastic_sum_j + u_j,  y = activation(z), y = u where clamped,
//
// then the rule's coefficients d, c, m. The kernel that includes this gives
// `plastic_sum(episode, j)`. Every invocation calls it, in uniform control flow; an
// invocation owns every 256th neuron and alone reads what it wrote.
// record (z, y, d, c, m of step t): =   y_last: = at the last step

fn neuron_step(episode: u32, t: u32, local: u32) {
    let n = job.n_post;
    let network = network_at(episode);
    let z_at = row_at(Z, episode, t);
    let y_at = row_at(Y, episode, t + 1u);
    let tables = n_episodes() * job.n_stimuli * n;
    let u_at = (episode * job.n_stimuli + shown[episode * job.n_steps + t]) * n;

    var top = -3.0e38;
    for (var j = local; j < n; j = j + 256u) {
        let z = plastic_sum(episode, j) + stimuli[u_at + j];
        record[z_at + j] = z;
        top = max(top, z);
    }
    var total = 1.0;
    if (ACTIVATION == SOFTMAX) {
        top = reduce_max(local, top);
        var sum = 0.0;
        for (var j = local; j < n; j = j + 256u) {
            sum = sum + exp_neg(record[z_at + j] - top);
        }
        total = reduce_sum(local, sum);
    }

    var read_out = 0.0;
    for (var j = local; j < n; j = j + 256u) {
        let z = record[z_at + j];
        var y = activate(z);
        if (ACTIVATION == SOFTMAX) {
            y = exp_neg(z - top) / total;
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
    for (var j = local; j < n; j = j + 256u) {
        let k = coefficients(network, j, record[y_at + j], signal);
        record[row_at(D, episode, t) + j] = k.d;
        record[row_at(C, episode, t) + j] = k.c;
        if (RULE == RETROACTIVE) {
            record[row_at(M, episode, t) + j] = k.m;
        }
    }
}
