// The vectors of a window's steps, shared out for their way from memory: an invocation brings a
// quad of x, and d, c, m and delta of FETCHES columns, of a step each.

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
    if (local / QUADS < n_steps) {
        part.x = x_quad(episode, first + local / QUADS, base + local % QUADS);
    }
    //!unroll f FETCHES
    if ((local + 256u * $f) / WIDTH < n_steps) {
        let t = first + (local + 256u * $f) / WIDTH;
        let j = min(left + (local + 256u * $f) % WIDTH, job.n_post - 1u);
        let k = coefficients_at(episode, t, j);
        var delta = 0.0;
        if (wanted) {
            delta = record[row_at(DELTA, episode, t) + j];
        }
        part.k[$f] = vec4(k.d, k.c, k.m, delta);
    }
    //!end
    return part;
}
