// How connections lie in the registers of a workgroup of 256: a tile of ROWS pre- and WIDTH
// post-synaptic neurons. Invocation (lane, place) owns the quads lane + LANES g, g < ROW_GROUPS,
// of the columns place + PLACES c, c < COLUMNS, of the tile; invocations beyond LANES PLACES own
// none. Arrays over them are indexed by constants alone, so that they stay in registers.
//
// A window has at most WINDOW steps. With one quad of x and FETCHES columns an invocation, a
// workgroup brings all its vectors.
//
// Workgroup arrays have a dimension for each index: each is checked against its own bound, and
// the checks of a neuron or quad are made once.

//!constant ROWS
//!constant WIDTH
//!constant LANES
//!constant PLACES
//!constant ROW_GROUPS
//!constant COLUMNS
//!constant WINDOW
//!constant FETCHES
const QUADS = (ROWS + 3u) / 4u;
const OWN = ROW_GROUPS * COLUMNS;

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

fn total_of(x: vec4<f32>) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}
