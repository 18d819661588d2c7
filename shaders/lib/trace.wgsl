// The trace of a few connections over a window, in registers: four rows (pre-synaptic
// neurons) of one column (post-synaptic neuron) at a time.
//
//     H' = clip(d_j H + c_j x_i),   or   H' = clip(H + m_j E), E' = d_j E + c_j x_i
//
// A workgroup owns a tile of TILE columns and a chunk of CHUNK rows of one episode;
// invocation (column, lane) of it the rows 4 (lane + LANES g) + 0..3 of the chunk.

const TILE = 64u;
const LANES = 4u;
const CHUNK = 64u;
const GROUPS = 4u; // CHUNK / (4 LANES)

// x of the chunk's rows at each step of the window, four rows a vector, and at the step
// after it.
var<workgroup> sh_x: array<vec4<f32>, 272>; // (MAX_WINDOW + 1) CHUNK / 4

// Coefficients of the invocation's column at each step of the window.
var<private> k_d: array<f32, 16>;
var<private> k_c: array<f32, 16>;
var<private> k_m: array<f32, 16>;

struct Traces {
    h: vec4<f32>,
    e: vec4<f32>,
}

fn two_traces() -> bool {
    return RULE == RETROACTIVE;
}

fn x_at(episode: u32, t: u32, i: u32) -> f32 {
    if (i >= job.n_pre) {
        return 0.0;
    }
    if (RECURRENT == 1u) {
        return record[row_at(Y, episode, t) + i];
    }
    return pre[(episode * job.n_steps + t) * job.n_pre + i];
}

// Fills sh_x for steps first..first + n_steps. Every invocation calls it, then a barrier.
fn load_x(episode: u32, chunk: u32, first: u32, n_steps: u32, local: u32) {
    for (var k = local; k < n_steps * CHUNK / 4u; k = k + TILE * LANES) {
        let i = chunk * CHUNK + (k % (CHUNK / 4u)) * 4u;
        let t = first + k / (CHUNK / 4u);
        sh_x[k] = vec4(
            x_at(episode, t, i),
            x_at(episode, t, i + 1u),
            x_at(episode, t, i + 2u),
            x_at(episode, t, i + 3u),
        );
    }
}

// Loads the coefficients of column j (below N) for steps first..first + n_steps.
fn load_coefficients(episode: u32, j: u32, first: u32, n_steps: u32) {
    for (var r = 0u; r < n_steps; r = r + 1u) {
        k_d[r] = record[row_at(D, episode, first + r) + j];
        k_c[r] = record[row_at(C, episode, first + r) + j];
        if (two_traces()) {
            k_m[r] = record[row_at(M, episode, first + r) + j];
        }
    }
}

// Index in a trace buffer `[episode][trace][M][N]` of column j of the first row.
fn trace_at(episode: u32, which: u32, j: u32) -> u32 {
    let n_traces = select(1u, 2u, two_traces());
    return (episode * n_traces + which) * job.n_pre * job.n_post + j;
}

// 1 where the value before clipping lies within the bound.
fn inside(h: vec4<f32>) -> vec4<f32> {
    return select(vec4(0.0), vec4(1.0), abs(h) <= vec4(job.clip));
}

// One step, without the clip.
fn evolve(at: Traces, r: u32, x: vec4<f32>) -> Traces {
    if (two_traces()) {
        return Traces(at.h + k_m[r] * at.e, k_d[r] * at.e + k_c[r] * x);
    }
    return Traces(k_d[r] * at.h + k_c[r] * x, at.e);
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
