// Steps before which the network is reset, and steps that no gradient passes.

const RESET = 1.0;
const CUT = 2.0;

fn mark(episode: u32, t: u32) -> f32 {
    if (MARKS == 0u || t >= job.n_steps) {
        return 0.0;
    }
    return record[row_at(MARKS, episode, 0u) + t];
}

fn is_reset(episode: u32, t: u32) -> bool {
    return mark(episode, t) == RESET;
}

// The row of y, and of v, that step t goes on from.
fn before(episode: u32, t: u32) -> u32 {
    return select(t, 0u, is_reset(episode, t));
}
