// Stored traces: `trace` is the buffer bound.

fn load_traces(slot: u32, episode: u32, quad: u32, j: u32) -> Traces {
    let at = trace_at(slot, episode, quad, j);
    if (two_traces()) {
        return Traces(h_from_stored(trace[at]), from_stored(trace[at + trace_stride()]));
    }
    return Traces(h_from_stored(trace[at]), vec4(0.0));
}
