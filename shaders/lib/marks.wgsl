// Steps that start anew, and steps that no gradient passes.

fn mark(episode: u32, t: u32) -> f32 {
    if (MARKS == 0u || t >= job.n_steps) {
        return 0.0;
    }
    return record[row_at(MARKS, episode, t)];
}

fn starts_anew(episode: u32, t: u32) -> bool {
    return mark(episode, t) == 1.0;
}

// The row of y, and of v, that step t goes on from.
fn before(episode: u32, t: u32) -> u32 {
    return select(t, 0u, starts_anew(episode, t));
}
