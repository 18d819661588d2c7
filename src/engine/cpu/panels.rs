//! Matrices as panels a few vectors wide, so that a sweep down a panel reads memory in
//! order and keeps its column sums in registers.

use aligned_vec::{AVec, ConstAlign};

use crate::engine::cpu::simd::{Lanes, lanes};

/// Vectors side by side in a panel.
pub(crate) const VECTORS: usize = 2;

/// Memory aligned to a cache line.
pub(crate) type Aligned<S> = AVec<S, ConstAlign<64>>;

/// `n` zeros, aligned.
pub(crate) fn zeros<S: Lanes>(n: usize) -> Aligned<S> {
    AVec::from_iter(64, std::iter::repeat_n(S::ZERO, n))
}

/// How `[M, N]` is cut into panels: `[n_panels, M, width]`, the last panel padded with
/// zero columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panels {
    pub(crate) n_rows: usize,
    pub(crate) n_columns: usize,
    pub(crate) width: usize,
    pub(crate) n_panels: usize,
}

impl Panels {
    pub(crate) fn new<S: Lanes>(n_rows: usize, n_columns: usize) -> Self {
        let width = VECTORS * lanes::<S>(pulp::Arch::new());
        Panels { n_rows, n_columns, width, n_panels: n_columns.div_ceil(width) }
    }

    /// Columns with the padding.
    pub(crate) fn padded(&self) -> usize {
        self.n_panels * self.width
    }

    /// Elements of one panel.
    pub(crate) fn panel_len(&self) -> usize {
        self.n_rows * self.width
    }

    /// Elements of all panels.
    pub(crate) fn len(&self) -> usize {
        self.n_panels * self.panel_len()
    }

    /// Fills `out` from `element(row, column)`.
    pub(crate) fn pack<S: Lanes>(&self, out: &mut [S], element: impl Fn(usize, usize) -> S) {
        for (panel, out) in out.chunks_exact_mut(self.panel_len()).enumerate() {
            let first = panel * self.width;
            let columns = self.width.min(self.n_columns - first);
            for (i, row) in out.chunks_exact_mut(self.width).enumerate() {
                for (j, value) in row[..columns].iter_mut().enumerate() {
                    *value = element(i, first + j);
                }
                row[columns..].fill(S::ZERO);
            }
        }
    }

    /// Calls `take(row, column, value)` for every element.
    pub(crate) fn unpack<S: Lanes>(&self, panels: &[S], mut take: impl FnMut(usize, usize, S)) {
        for (panel, values) in panels.chunks_exact(self.panel_len()).enumerate() {
            let first = panel * self.width;
            let columns = self.width.min(self.n_columns - first);
            for (i, row) in values.chunks_exact(self.width).enumerate() {
                for (j, &value) in row[..columns].iter().enumerate() {
                    take(i, first + j, value);
                }
            }
        }
    }
}
