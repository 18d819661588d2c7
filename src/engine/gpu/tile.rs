//! How connections lie in the registers of a workgroup.

/// Registers of an invocation for matrices where the weight gradients keep a second set of traces;
/// the others are for what is being computed.
const ROOM: u32 = 176;

/// Connections in the registers of a workgroup, as `shaders/lib/tile.wgsl` explains; each field
/// a `//!constant` by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Tile {
    /// Pre- and post-synaptic neurons.
    pub(crate) rows: u32,
    pub(crate) width: u32,
    pub(crate) lanes: u32,
    pub(crate) places: u32,
    /// Quads and columns of an invocation.
    pub(crate) row_groups: u32,
    pub(crate) columns: u32,
    /// The longest window.
    pub(crate) window: u32,
}

impl Tile {
    /// Tiles side by side and one above the other that n_pre by n_post connections take.
    pub(crate) fn grid(self, n_pre: usize, n_post: usize) -> [u32; 2] {
        let tiles = |n: usize, size: u32| {
            u32::try_from(n.div_ceil(size as usize)).expect("sizes fit 32 bits")
        };
        [tiles(n_post, self.width), tiles(n_pre, self.rows)]
    }

    /// Whether registers hold two matrices and, for each trace, two more.
    pub(crate) fn has_room(self, n_traces: u32) -> bool {
        4 * self.row_groups * self.columns * (2 + 2 * n_traces) <= ROOM
    }

    /// Columns that an invocation brings of a window's vectors.
    pub(crate) fn fetches(self) -> u32 {
        (self.window * self.width).div_ceil(256)
    }
}

/// The connections of a workgroup of a sweep. Eight steps of four rows fit the bits of a mask
/// of `backward_sweep.wgsl`.
pub(crate) const SWEEP_TILE: Tile =
    Tile { rows: 64, width: 32, lanes: 8, places: 32, row_groups: 2, columns: 1, window: 8 };
/// The connections of a workgroup of the general plan: an invocation has few of them at a time, for a
/// rule's text may need many registers.
pub(crate) const GENERAL_TILE: Tile =
    Tile { rows: 32, width: 64, lanes: 4, places: 64, row_groups: 2, columns: 1, window: 1 };
/// What `general_*.wgsl` take for granted: of a tile's rows a quad to 32 invocations.
const _: () = {
    let Tile { rows, width, lanes, places, row_groups, .. } = GENERAL_TILE;
    assert!(lanes * places == 256 && places == width && 4 * lanes * row_groups == rows);
    assert!(rows / 4 * 32 == 256 && width % 32 == 0);
};
/// What `backward_sweep.wgsl` takes for granted.
const _: () = {
    let Tile { rows, width, lanes, places, columns, .. } = SWEEP_TILE;
    assert!(lanes * columns <= rows / 4);
    assert!(4 * rows == 256 && rows + width <= 256 && lanes * places == 256 && places % 4 == 0);
};
