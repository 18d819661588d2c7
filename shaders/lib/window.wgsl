// What a tile needs of a window of at most WINDOW steps: x of its rows at each step, and at the
// step after it; d, c, m and delta of its columns at each step; the traces at the window's start.

var<workgroup> sh_x: array<array<array<vec4<f32>, LANES>, ROW_GROUPS>, WINDOW + 1u>;
var<workgroup> sh_k: array<array<array<vec4<f32>, PLACES>, COLUMNS>, WINDOW>;

// Fills sh_x for steps first..first + n_steps, rows from quad `base` on. Every invocation calls
// it, between barriers.
fn load_x(episode: u32, base: u32, first: u32, n_steps: u32, local: u32) {
    let r = local / QUADS;
    if (r < n_steps) {
        let spot = spot_of_quad(local % QUADS);
        sh_x[r][spot.x][spot.y] = x_quad(episode, first + r, base + local % QUADS);
    }
}

// The same of sh_k, columns from `left` on; delta where it is `wanted`.
fn load_k(episode: u32, left: u32, first: u32, n_steps: u32, wanted: bool, local: u32) {
    //!unroll f FETCHES
    if (local + 256u * $f < n_steps * WIDTH) {
        let i = local + 256u * $f;
        let t = first + i / WIDTH;
        let j = min(left + i % WIDTH, job.n_post - 1u);
        let k = coefficients_at(episode, t, j);
        var delta = 0.0;
        if (wanted) {
            delta = record[row_at(DELTA, episode, t) + j];
        }
        let spot = spot_of_column(i % WIDTH);
        sh_k[i / WIDTH][spot.x][spot.y] = vec4(k.d, k.c, k.m, delta);
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
