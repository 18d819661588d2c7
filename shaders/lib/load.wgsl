// Stored traces: `trace` is the buffer bound.

// Traces as they lie in memory: nothing is made of them, and so they are not waited for, before
// they are needed.
struct Kept {
    h: Stored,
    e: Stored,
}

fn load_traces(at: u32) -> Kept {
    var kept: Kept;
    kept.h = trace[at];
    if (two_traces()) {
        kept.e = trace[at + trace_stride()];
    }
    return kept;
}

fn kept_of(at: Traces) -> Kept {
    return Kept(to_stored(at.h), to_stored(at.e));
}

fn traces_of(kept: Kept) -> Traces {
    if (two_traces()) {
        return Traces(h_from_stored(kept.h), from_stored(kept.e));
    }
    return Traces(h_from_stored(kept.h), vec4(0.0));
}

// Index of the traces of the invocation's quad g and column c of a tile.
fn own_trace_at(slot: u32, episode: u32, base: u32, left: u32, g: u32, c: u32, local: u32) -> u32 {
    return trace_at(slot, episode, near_quad(base, local, g), near_column(left, local, c));
}

// The traces of the invocation's connections of a tile.
fn load_tile(slot: u32, episode: u32, base: u32, left: u32, local: u32) -> array<Kept, OWN> {
    var at: array<Kept, OWN>;
    //!unroll c COLUMNS
    //!unroll g ROW_GROUPS
    at[$g * COLUMNS + $c] =
        load_traces(own_trace_at(slot, episode, base, left, $g, $c, local));
    //!end
    //!end
    return at;
}

fn traces_of_tile(kept: array<Kept, OWN>) -> array<Traces, OWN> {
    var at: array<Traces, OWN>;
    //!unroll o OWN
    at[$o] = traces_of(kept[$o]);
    //!end
    return at;
}
