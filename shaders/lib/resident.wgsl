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

// Each lane's part of each column's sums; between a barrier and a barrier, `column_total`.
var<workgroup> sh_columns: array<f32, SUMS * LANES * POST>;

fn put_column(which: u32, value: f32, c: u32, local: u32) {
    sh_columns[(which * LANES + local / PLACES) * POST + own_column(local, c)] = value;
}

fn column_total(which: u32, j: u32) -> f32 {
    let at = which * LANES * POST + j;
    var sum = vec4(0.0);
    //!unroll lane LANES
    sum[$lane % 4u] = sum[$lane % 4u] + sh_columns[at + $lane * POST];
    //!end
    return total_of(sum);
}
