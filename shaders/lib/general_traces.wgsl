// How the general plan's shaders find traces, `[E, traces, quads, N]`, by quads of rows as
// `lib/trace.wgsl` has them, and x.

//!constant TRACES

// Index of a quad of trace k.
fn quad_at(episode: u32, k: u32, quad: u32, j: u32) -> u32 {
    return ((episode * TRACES + k) * n_quads() + quad) * job.n_post + j;
}

// x_i(t).
fn x_of(episode: u32, t: u32, i: u32) -> f32 {
    if (RECURRENT == 1u) {
        return record[row_at(Y, episode, before(episode, t)) + i];
    }
    return pre[(episode * job.n_steps + t) * job.n_pre + i];
}
