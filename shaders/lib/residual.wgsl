// What rounding takes from a stored trace, from a start trace too, is kept in f32 from a window to the
// next, so that slow traces move: `residual` is the buffer bound, `[E, traces, quads, N]`, indexed as a trace buffer of
// one slot. Where traces are stored exactly nothing is read or written.

fn with_residual(stored: Traces, at: u32) -> Traces {
    if (!ROUNDED) {
        return stored;
    }
    if (two_traces()) {
        return Traces(stored.h + residual[at], stored.e + residual[at + trace_stride()]);
    }
    return Traces(stored.h + residual[at], stored.e);
}

fn keep_residual(exact: Traces, stored: Traces, at: u32) {
    if (!ROUNDED) {
        return;
    }
    residual[at] = exact.h - stored.h;
    if (two_traces()) {
        residual[at + trace_stride()] = exact.e - stored.e;
    }
}
