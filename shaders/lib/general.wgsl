// What the general plan's shaders share: where the numbers of a rule's text lie, and a connection's names
// (`rule/values.wgsl`, made from the text).
//
// `state`, an episode after another: post variables [POSTS, T+1, N], pre variables [PRES, T+1, M], where
// the text reads it r [T, N] and dL/dr [N]; dL by the post variables [POSTS, N] and by their start values,
// dL by the pre variables [PRES, M] and by their start values. Row 0 of a variable is its start value.

fn post_at(episode: u32, k: u32, t: u32) -> u32 {
    return episode * state_stride() + (k * (job.n_steps + 1u) + t) * job.n_post;
}

fn pre_at(episode: u32, k: u32, t: u32) -> u32 {
    return post_at(episode, POSTS, 0u) + (k * (job.n_steps + 1u) + t) * job.n_pre;
}

fn r_at(episode: u32, t: u32) -> u32 {
    return pre_at(episode, PRES, 0u) + READS_R * t * job.n_post;
}

fn r_bar_at(episode: u32) -> u32 {
    return r_at(episode, job.n_steps);
}

fn post_bar_at(episode: u32, k: u32) -> u32 {
    return r_bar_at(episode) + (READS_R + k) * job.n_post;
}

fn post_start_bar_at(episode: u32, k: u32) -> u32 {
    return post_bar_at(episode, POSTS + k);
}

fn pre_bar_at(episode: u32, k: u32) -> u32 {
    return post_bar_at(episode, 2u * POSTS) + k * job.n_pre;
}

fn pre_start_bar_at(episode: u32, k: u32) -> u32 {
    return pre_bar_at(episode, PRES + k);
}

fn state_stride() -> u32 {
    let rows = job.n_steps + 1u;
    return (POSTS * (rows + 2u) + READS_R * rows) * job.n_post + PRES * (rows + 2u) * job.n_pre;
}

// What a connection's rule reads of its post-synaptic neuron at step t ...
fn post_values(v: ptr<function, Values>, network: u32, episode: u32, t: u32, j: u32) {
    (*v).y = record[row_at(Y, episode, t + 1u) + j];
    (*v).z = record[row_at(Z, episode, t) + j];
    if (READS_M == 1u) {
        (*v).m = record[row_at(M, episode, t) + j];
    }
    if (READS_R == 1u) {
        (*v).r = state[r_at(episode, t) + j];
    }
    for (var k: u32 = 0u; k < POSTS; k = k + 1u) {
        (*v).s[k] = state[post_at(episode, k, t) + j];
    }
    post_parameters(v, network, j);
}

// ... and of its pre-synaptic neuron.
fn pre_values(v: ptr<function, Values>, network: u32, episode: u32, t: u32, i: u32) {
    (*v).x = x_of(episode, t, i);
    for (var k: u32 = 0u; k < PRES; k = k + 1u) {
        (*v).u[k] = state[pre_at(episode, k, t) + i];
    }
    pre_parameters(v, network, i);
}
