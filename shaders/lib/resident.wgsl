// How a whole episode's connections lie in the registers of one workgroup of 16 x 16.
// Invocation (lane, place) owns the quads lane + 16 g, g < ROW_GROUPS, of the columns
// place + 16 c, c < COLUMNS: M up to ROWS, N up to WIDTH. Arrays over them are indexed by
// constants alone, so that they stay in registers.

//!constant ROW_GROUPS
//!constant COLUMNS
//!constant TRACES
const ROWS = 64u * ROW_GROUPS;
const WIDTH = 16u * COLUMNS;
const OWN = ROW_GROUPS * COLUMNS;

// Partial sums of columns, a row a lane, or of rows, a column a place.
const COLUMN_PITCH = WIDTH + 1u;
const ROW_PITCH = 17u;
var<workgroup> sh_part: array<f32, max(16u * COLUMN_PITCH, ROWS * ROW_PITCH)>;

fn own_quad(local: u32, g: u32) -> u32 {
    return local / 16u + 16u * g;
}

fn own_column(local: u32, c: u32) -> u32 {
    return local % 16u + 16u * c;
}

fn total_of(x: vec4<f32>) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}

// Leaves the invocation's part of each column's sum; a barrier, then `column_total`.
fn put_columns(value: array<f32, COLUMNS>, local: u32) {
    //!unroll c COLUMNS
    sh_part[local / 16u * COLUMN_PITCH + own_column(local, $c)] = value[$c];
    //!end
}

fn column_total(j: u32) -> f32 {
    var sum = 0.0;
    for (var lane = 0u; lane < 16u; lane = lane + 1u) {
        sum = sum + sh_part[lane * COLUMN_PITCH + j];
    }
    return sum;
}
