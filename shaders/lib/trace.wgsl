// The trace of four connections, rows 4 quad..4 quad + 3 (pre-synaptic neurons) of one
// column (post-synaptic neuron), over a step:
//
//     H' = clip(d_j H + c_j x_i),   or   H' = clip(H + m_j E), E' = d_j E + c_j x_i
//
// Traces are stored by quads, `[slot][episode][trace][quad][N]`; rows beyond M hold zeros
// or what x = 0 made of them, and count for nothing.

struct Traces {
    h: vec4<f32>,
    e: vec4<f32>,
}

fn two_traces() -> bool {
    return RULE == RETROACTIVE;
}

// Index in a trace buffer of column j of a quad; the second trace lies `trace_stride` on.
fn trace_at(slot: u32, episode: u32, quad: u32, j: u32) -> u32 {
    let n_traces = select(1u, 2u, two_traces());
    return ((slot * n_episodes() + episode) * n_traces * n_quads() + quad) * job.n_post + j;
}

// The slot of the trace at the start of a window, in a buffer that holds them all, or as
// many in turn as it has slots for.
fn slot_of(window: u32) -> u32 {
    return window % job.n_slots;
}

fn trace_stride() -> u32 {
    return n_quads() * job.n_post;
}

// The coefficients of column j at step t.
fn coefficients_at(episode: u32, t: u32, j: u32) -> Coefficients {
    var m = 0.0;
    if (two_traces()) {
        m = record[row_at(M, episode, t) + j];
    }
    return Coefficients(record[row_at(D, episode, t) + j], record[row_at(C, episode, t) + j], m);
}

// x_i(t); 0 for rows beyond M, and after the last step of a feed-forward layer.
fn x_at(episode: u32, t: u32, i: u32) -> f32 {
    let row = min(i, job.n_pre - 1u);
    if (RECURRENT == 1u) {
        return select(0.0, record[row_at(Y, episode, t) + row], i < job.n_pre);
    }
    let step = min(t, job.n_steps - 1u);
    let x = pre[(episode * job.n_steps + step) * job.n_pre + row];
    return select(0.0, x, i < job.n_pre && t < job.n_steps);
}

// x of a quad's rows at step t, or of a row and step near by where there is none ...
fn x_near(episode: u32, t: u32, quad: u32) -> vec4<f32> {
    let rows = rows_of(quad);
    if (RECURRENT == 1u) {
        let at = vec4(row_at(Y, episode, t)) + rows;
        return vec4(record[at.x], record[at.y], record[at.z], record[at.w]);
    }
    let at = vec4((episode * job.n_steps + min(t, job.n_steps - 1u)) * job.n_pre) + rows;
    return vec4(pre[at.x], pre[at.y], pre[at.z], pre[at.w]);
}

// ... and 0 in its place.
fn x_there(x: vec4<f32>, t: u32, quad: u32) -> vec4<f32> {
    let is_step = RECURRENT == 1u || t < job.n_steps;
    return select(vec4(0.0), x, are_rows(quad) & vec4(is_step));
}

// 1 where the value before clipping lies within the bound.
fn inside(h: vec4<f32>) -> vec4<f32> {
    return select(vec4(0.0), vec4(1.0), abs(h) <= vec4(job.clip));
}

// One step, without the clip.
fn evolve(at: Traces, k: Coefficients, x: vec4<f32>) -> Traces {
    if (two_traces()) {
        return Traces(at.h + k.m * at.e, k.d * at.e + k.c * x);
    }
    return Traces(k.d * at.h + k.c * x, at.e);
}

fn clipped(at: Traces) -> Traces {
    if (CLIPPED == 1u) {
        return Traces(clamp(at.h, vec4(-job.clip), vec4(job.clip)), at.e);
    }
    return at;
}

// The trace that receives x y.
fn hebbian(at: Traces) -> vec4<f32> {
    if (two_traces()) {
        return at.e;
    }
    return at.h;
}
