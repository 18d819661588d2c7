// The vectors of a window's steps, shared out for their way from memory: an invocation brings a
// quad of x, and d, c, m and delta of FETCHES columns, of a step each.
//
// Loads need no branch and nothing is made of what they bring, so that none is waited for before
// it is put where it belongs (`put_fetched`): where there is no such step, row or column, one that
// there is comes in its place.

struct Fetched {
    x: vec4<f32>,
    k: array<vec4<f32>, FETCHES>,
}

// Steps first..first + n_steps: x of rows from quad `base` on; d, c, m, and delta where it is
// `wanted`, of columns from `left` on.
fn fetch(
    episode: u32,
    base: u32,
    left: u32,
    first: u32,
    n_steps: u32,
    wanted: bool,
    local: u32,
) -> Fetched {
    var part: Fetched;
    let last = max(n_steps, 1u) - 1u;
    part.x = x_near(episode, first + min(local / QUADS, last), base + local % QUADS);
    //!unroll f FETCHES
    {
        // (of the step after the last there are none)
        let t = min(first + min((local + 256u * $f) / WIDTH, last), job.n_steps - 1u);
        let j = min(left + (local + 256u * $f) % WIDTH, job.n_post - 1u);
        let k = coefficients_at(episode, t, j);
        part.k[$f] = vec4(k.d, k.c, k.m, 0.0);
        if (wanted) {
            part.k[$f].w = record[row_at(DELTA, episode, t) + j];
        }
    }
    //!end
    return part;
}

// x of quad `local % QUADS` as it belongs there: 0 for rows beyond M.
fn x_fetched(part: Fetched, base: u32, first: u32, local: u32) -> vec4<f32> {
    return x_there(part.x, first + local / QUADS, base + local % QUADS);
}
