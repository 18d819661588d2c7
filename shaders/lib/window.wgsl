// What a tile needs of a window of at most WINDOW steps: x of its rows at each step, and at the
// step after it; d, c, m and delta of its columns at each step; the traces at the window's start.

var<workgroup> sh_x: array<array<array<vec4<f32>, LANES>, ROW_GROUPS>, WINDOW + 1u>;
var<workgroup> sh_k: array<array<array<vec4<f32>, PLACES>, COLUMNS>, WINDOW>;

// An invocation's part of them, on its way from memory.
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

// Puts it into workgroup memory. Every invocation calls it, between barriers.
fn put_fetched(part: Fetched, n_steps: u32, local: u32) {
    if (local / QUADS < n_steps) {
        let spot = spot_of_quad(local % QUADS);
        sh_x[local / QUADS][spot.x][spot.y] = part.x;
    }
    //!unroll f FETCHES
    if ((local + 256u * $f) / WIDTH < min(n_steps, WINDOW)) {
        let i = local + 256u * $f;
        let spot = spot_of_column(i % WIDTH);
        sh_k[i / WIDTH][spot.x][spot.y] = part.k[$f];
    }
    //!end
}

fn coefficients_of(k: vec4<f32>) -> Coefficients {
    return Coefficients(k.x, k.y, k.z);
}

// The traces of the invocation's quads of column j.
fn load_quads(slot: u32, episode: u32, base: u32, j: u32, local: u32) -> array<Traces, ROW_GROUPS> {
    var at: array<Traces, ROW_GROUPS>;
    if (j < job.n_post) {
        //!unroll g ROW_GROUPS
        if (has_quad(local, $g) && base + own_quad(local, $g) < n_quads()) {
            at[$g] = load_traces(slot, episode, base + own_quad(local, $g), j);
        }
        //!end
    }
    return at;
}
