// Stored traces: `trace` is the buffer bound.

fn load_traces(at: u32) -> Traces {
    if (two_traces()) {
        return Traces(h_from_stored(trace[at]), from_stored(trace[at + trace_stride()]));
    }
    return Traces(h_from_stored(trace[at]), vec4(0.0));
}

// Index of the traces of the invocation's quad g and column c of a tile that starts at quad
// `base` and column `left`; where there are none, of some that there are: their w, alpha and x
// are zero. So loads need no branch, and all are on their way at once.
fn own_trace_at(slot: u32, episode: u32, base: u32, left: u32, g: u32, c: u32, local: u32) -> u32 {
    let quad = min(base + own_quad(local, g), n_quads() - 1u);
    return trace_at(slot, episode, quad, min(left + own_column(local, c), job.n_post - 1u));
}

// The traces of the invocation's connections of a tile.
fn load_tile(slot: u32, episode: u32, base: u32, left: u32, local: u32) -> array<Traces, OWN> {
    var at: array<Traces, OWN>;
    //!unroll c COLUMNS
    //!unroll g ROW_GROUPS
    at[$g * COLUMNS + $c] =
        load_traces(own_trace_at(slot, episode, base, left, $g, $c, local));
    //!end
    //!end
    return at;
}
