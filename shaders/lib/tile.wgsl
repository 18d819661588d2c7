// How a sweep over connections is shared out. A workgroup owns a tile of TILE columns and
// a chunk of CHUNK rows; invocation (column, lane) of it the quads lane + LANES g of the
// chunk, g < GROUPS.

const TILE = 64u;
const LANES = 4u;
const CHUNK = 64u;
const GROUPS = 4u; // QUADS / LANES

// The chunk's x at each step of the window, and at the step after it; the tile's d, c, m and
// delta at each step of the window.
const QUADS = CHUNK / 4u;
var<workgroup> sh_x: array<array<vec4<f32>, QUADS>, MAX_WINDOW + 1u>;
var<workgroup> sh_k: array<array<vec4<f32>, TILE>, MAX_WINDOW>;

// Fills sh_x for steps first..first + n_steps. Every invocation calls it, between barriers.
fn load_x(episode: u32, chunk: u32, first: u32, n_steps: u32, local: u32) {
    let r = local / QUADS;
    if (r < n_steps) {
        sh_x[r][local % QUADS] = x_quad(episode, first + r, chunk * QUADS + local % QUADS);
    }
}

// The same of sh_k; delta where it is `wanted`.
fn load_k(episode: u32, tile: u32, first: u32, n_steps: u32, wanted: bool, local: u32) {
    let j = min(tile * TILE + local % TILE, job.n_post - 1u);
    //!unroll half 2
    if (local / TILE + LANES * $half < n_steps) {
        let r = local / TILE + LANES * $half;
        let k = coefficients_at(episode, first + r, j);
        var delta = 0.0;
        if (wanted) {
            delta = record[row_at(DELTA, episode, first + r) + j];
        }
        sh_k[r][local % TILE] = vec4(k.d, k.c, k.m, delta);
    }
    //!end
}

fn coefficients_of(k: vec4<f32>) -> Coefficients {
    return Coefficients(k.x, k.y, k.z);
}

// The traces at a window's start of the invocation's quads of column j.
fn load_quads(slot: u32, episode: u32, base: u32, j: u32, local: u32) -> array<Traces, GROUPS> {
    var at: array<Traces, GROUPS>;
    if (j < job.n_post) {
        //!unroll g GROUPS
        if (base + quad_in_chunk(local, $g) < n_quads()) {
            at[$g] = load_traces(slot, episode, base + quad_in_chunk(local, $g), j);
        }
        //!end
    }
    return at;
}

// Number `g` of the invocation's quads in its chunk.
fn quad_in_chunk(local: u32, g: u32) -> u32 {
    return local / TILE + LANES * g;
}

// The episodes, all of one network, that a workgroup takes one after the other.
struct Together {
    first: u32,
    end: u32,
}

fn together(z: u32) -> Together {
    let n_parts = (job.n_batch + job.n_together - 1u) / job.n_together;
    let start = z / n_parts * job.n_batch;
    let first = z % n_parts * job.n_together;
    return Together(start + first, start + min(first + job.n_together, job.n_batch));
}
