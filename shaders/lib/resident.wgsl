// How a whole episode's connections lie in the registers of one workgroup of 256. Invocation
// (lane, place) owns the quads lane + LANES g, g < ROW_GROUPS, of the columns place + PLACES c,
// c < COLUMNS; those beyond LANES PLACES own none. Arrays over them are indexed by constants
// alone, so that they stay in registers. Neuron k belongs to invocation k besides.

//!constant PRE
//!constant POST
//!constant LANES
//!constant PLACES
//!constant ROW_GROUPS
//!constant COLUMNS
//!constant TRACES
const QUADS = (PRE + 3u) / 4u;
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
    return PLACES * (c + 1u) <= POST || own_column(local, c) < POST;
}

fn total_of(x: vec4<f32>) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}

// Indices of workgroup arrays are apart by dimension: each is checked against its own bound,
// and the checks of a neuron or quad are made once.
