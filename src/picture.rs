//! Pictures of episodes, before anything draws them.

/// An episode as a person sees it: pictures side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Pixels in a row of a tile.
    pub width: usize,
    /// Caption and pixels of each tile, from -1 (black) to 1 (white).
    pub tiles: Vec<(String, Vec<f32>)>,
}
