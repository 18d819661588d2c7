//! One thread's share of an episode's connections: the columns of some post neurons.

use std::ops::Range;

use crate::engine::cpu::buffer::{Aligned, Buffers};
use crate::engine::cpu::panels::{Panels, Strided, width_in_use};
use crate::engine::cpu::simd::{Instructions, Lanes, lanes};
use crate::model::{Network, Parameters, Tensor};

/// Which connections.
#[derive(Clone)]
pub(crate) struct Share {
    /// Post neurons, whose columns these are.
    pub(crate) columns: Range<usize>,
    /// `[M, columns]`.
    pub(crate) panels: Panels,
    /// Elements of a vector. They are post neurons where the panels have as many, or
    /// episodes where the panels' rows are of single numbers.
    pub(crate) lanes: usize,
}

impl Share {
    /// Elements of a row of vectors.
    pub(crate) fn row_len(&self) -> usize {
        self.panels.vectors() * self.lanes
    }

    /// Episodes in a vector.
    pub(crate) fn side_by_side(&self) -> usize {
        self.lanes / self.panels.lanes
    }

    /// Calls `take(c, w, own)` for each of its connections: number c of the network's, whose
    /// weight is element `w`, and whose trace in the `lane`-th episode is element `own` of a
    /// matrix of vectors.
    pub(crate) fn connections(
        &self,
        network: &Network,
        lane: usize,
        mut take: impl FnMut(usize, usize, usize),
    ) {
        let n = self.side_by_side();
        self.panels.rows(|row, columns, place| {
            let first = row * network.n_post + self.columns.start + columns.start;
            for k in 0..columns.len() {
                take(first + k, place + k, (place + k) * n + lane);
            }
        });
    }

    /// Elements of a matrix of vectors.
    pub(crate) fn matrix_len(&self) -> usize {
        self.panels.n_rows * self.row_len()
    }
}

/// All of a network's connections, of as many episodes as a vector has lanes.
pub(crate) fn side_by_side<S: Lanes>(network: &Network) -> Share {
    let (n_rows, n_columns) = (network.n_pre, network.n_post);
    let panels = Panels::new::<S>(n_rows, n_columns).of_numbers();
    Share { columns: 0..n_columns, panels, lanes: lanes::<S>() }
}

/// Splits a network's connections among `n` threads, whole panels each.
pub(crate) fn split<S: Lanes>(network: &Network, n: usize) -> Vec<Share> {
    let (len, lanes) = (network.n_post, lanes::<S>());
    let width = panel_columns::<S>();
    let panels = len.div_ceil(width);
    let at = |k: usize| (panels * k / n * width).min(len);
    (0..n)
        .map(|k| {
            let columns = at(k)..at(k + 1);
            let panels = Panels::new::<S>(network.n_pre, columns.len());
            Share { columns, panels, lanes }
        })
        .collect()
}

/// The panels that threads can share.
pub(crate) fn n_panels<S: Lanes>(network: &Network) -> usize {
    network.n_post.div_ceil(panel_columns::<S>())
}

/// Columns of a panel.
fn panel_columns<S: Lanes>() -> usize {
    width_in_use::<S>() * lanes::<S>()
}

/// A share of w and alpha, alpha expanded to every connection.
pub(crate) struct Matrices<S: Lanes> {
    pub(crate) w: Aligned<S>,
    pub(crate) alpha: Aligned<S>,
}

impl<S: Lanes> Matrices<S> {
    pub(crate) fn new(buffers: &mut Buffers, share: &Share) -> Self {
        let len = share.panels.len();
        Matrices { w: buffers.zeros(len), alpha: buffers.zeros(len) }
    }

    /// Fills them from network `p`.
    pub(crate) fn pack(
        &mut self,
        share: &Share,
        network: &Network,
        parameters: &Parameters<S>,
        p: usize,
    ) {
        let n = network.n_post;
        let (row, column) = network.alpha.strides(n);
        let w = Strided { values: parameters.get(p, Tensor::W), row: n, column: 1 };
        let alpha = Strided { values: parameters.get(p, Tensor::Alpha), row, column };
        share.panels.pack(&mut self.w, share.columns.start, w);
        share.panels.pack(&mut self.alpha, share.columns.start, alpha);
        if let Some(mask) =
            parameters.mask.get(p * network.n_connections()..).filter(|m| !m.is_empty())
        {
            share.panels.rows(|row, columns, place| {
                let mask = &mask[row * n + share.columns.start + columns.start..];
                for matrix in [&mut self.w, &mut self.alpha] {
                    let values = matrix[place..].iter_mut().take(columns.len());
                    values.zip(mask).for_each(|(value, &mask)| *value = *value * mask);
                }
            });
        }
    }
}

/// Where a thread works.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a, S: Lanes> {
    pub(crate) arch: Instructions<S>,
    pub(crate) share: &'a Share,
    pub(crate) matrices: &'a Matrices<S>,
}

/// A share of dL/dw and dL/dalpha per connection.
pub(crate) struct Gradients<S: Lanes> {
    pub(crate) d_w: Aligned<S>,
    pub(crate) d_alpha: Aligned<S>,
}

impl<S: Lanes> Gradients<S> {
    /// Zeros, or nothing where there is no backward pass.
    pub(crate) fn new(buffers: &mut Buffers, share: &Share, back: bool) -> Self {
        let len = if back { share.matrix_len() } else { 0 };
        Gradients { d_w: buffers.zeros(len), d_alpha: buffers.zeros(len) }
    }

    /// Adds up what lies side by side, to the front.
    pub(crate) fn add_up(&mut self, share: &Share) {
        let n = share.side_by_side();
        for matrix in [&mut self.d_w, &mut self.d_alpha] {
            for k in 0..matrix.len() / n {
                matrix[k] = matrix[k * n..(k + 1) * n].iter().fold(S::ZERO, |sum, &x| sum + x);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.d_w.fill(S::ZERO);
        self.d_alpha.fill(S::ZERO);
    }
}

/// What a share's kernels hand back to the neurons.
pub(crate) struct Returns<S: Lanes> {
    /// Sums over a column or a row.
    pub(crate) sums: Aligned<S>,
    /// Sums with Q down the columns, for P of H and of E (`lazy/fold.rs`).
    pub(crate) qx: [Aligned<S>; 2],
    /// Room for rows of a window, cut by panels, and for Q_H and Q_E of a tile.
    pub(crate) rows: Aligned<S>,
    pub(crate) q: [Aligned<S>; 2],
    /// Room for sums along some rows, lanes still to be added up; with a clip along all.
    pub(crate) lanes: Aligned<S>,
    /// With a clip, these sums, of pre neurons.
    pub(crate) added: Aligned<S>,
    /// Room for `lazy/gradients.rs`.
    pub(crate) column: Aligned<S>,
}
