// How connections lie in the registers of a workgroup of 256: a tile of ROWS pre- and WIDTH
// post-synaptic neurons. Invocation (lane, place) owns the quads lane + LANES g, g < ROW_GROUPS,
// of the columns place + PLACES c, c < COLUMNS, of the tile: OWN in all; invocations
// beyond LANES PLACES own none. Arrays over them are indexed by constants alone, so that they stay
// in registers.
//
// A window has at most WINDOW steps. With one quad of x and FETCHES columns an invocation, a
// workgroup brings all its vectors.
//
// Workgroup arrays that invocations read by their own quads and columns have dimensions for g
// and lane, c and place: an address is checked once for all g or c, which are constants.

//!constant ROWS
//!constant WIDTH
//!constant LANES
//!constant PLACES
//!constant ROW_GROUPS
//!constant COLUMNS
//!constant OWN
//!constant WINDOW
//!constant FETCHES
//!constant WHOLE
const QUADS = (ROWS + 3u) / 4u;

fn own_quad(local: u32, g: u32) -> u32 {
    return local / PLACES + LANES * g;
}

fn own_column(local: u32, c: u32) -> u32 {
    return local % PLACES + PLACES * c;
}

fn has_quad(local: u32, g: u32) -> bool {
    return LANES * (g + 1u) <= QUADS || own_quad(local, g) < QUADS;
}

fn has_column(local: u32, c: u32) -> bool {
    return PLACES * (c + 1u) <= WIDTH || own_column(local, c) < WIDTH;
}

// The invocation's quad g and column c of the tile that starts at quad `base` and column `left`, as
// they are numbered in the network; where there are none, some that there are: what is loaded so
// needs no branch, and all is on its way at once. Their w, alpha and x are zero, or what becomes of
// them is not kept.
//
// WHOLE: 1 where the tile is the network, so that columns lie at constant distances.
fn near_quad(base: u32, local: u32, g: u32) -> u32 {
    return min(base + own_quad(local, g), n_quads() - 1u);
}

fn near_column(left: u32, local: u32, c: u32) -> u32 {
    if (WHOLE == 1u && PLACES * (c + 1u) <= WIDTH) {
        return own_column(local, c);
    }
    return min(left + own_column(local, c), job.n_post - 1u);
}

// Two indices, (g, lane) of a quad of the tile and (c, place) of a column.
fn spot_of_quad(quad: u32) -> vec2<u32> {
    return vec2(quad / LANES, quad % LANES);
}

fn spot_of_column(j: u32) -> vec2<u32> {
    return vec2(j / PLACES, j % PLACES);
}

fn total_of(x: vec4<f32>) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}
