// How a sweep over connections is shared out. A workgroup owns a tile of TILE columns and
// a chunk of CHUNK rows; invocation (column, lane) of it the quads lane + LANES g of the
// chunk, g < GROUPS.

const TILE = 64u;
const LANES = 4u;
const CHUNK = 64u;
const GROUPS = 4u; // CHUNK / (4 LANES)

// x of the chunk's rows at each step of the window, and at the step after it.
var<workgroup> sh_x: array<vec4<f32>, 144>; // (MAX_WINDOW + 1) CHUNK / 4

// Fills sh_x for steps first..first + n_steps. Every invocation calls it, between barriers.
fn load_x(episode: u32, chunk: u32, first: u32, n_steps: u32, local: u32) {
    for (var k = local; k < n_steps * CHUNK / 4u; k = k + TILE * LANES) {
        let quad = chunk * (CHUNK / 4u) + k % (CHUNK / 4u);
        sh_x[k] = x_quad(episode, first + k / (CHUNK / 4u), quad);
    }
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
