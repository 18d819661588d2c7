//! One thread's share of an episode's connections: some of the post neurons' columns, and
//! some of the pre neurons' for matrices kept by rows.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::engine::cpu::buffer::{Aligned, zeros};
use crate::engine::cpu::panels::{Panels, Strided, VECTORS};
use crate::engine::cpu::simd::{Lanes, lanes};
use crate::model::{AlphaSharing, Network, Parameters, Tensor};

/// Which connections.
#[derive(Clone)]
pub(crate) struct Share {
    /// Post neurons, whose columns these are.
    pub(crate) columns: Range<usize>,
    /// `[M, columns]`.
    pub(crate) by_columns: Panels,
    /// Pre neurons, whose rows these are.
    pub(crate) rows: Range<usize>,
    /// `[N, rows]`, transposed.
    pub(crate) by_rows: Panels,
}

/// Splits a network's connections among `n` threads, whole panels each.
pub(crate) fn split<S: Lanes>(network: &Network, n: usize) -> Vec<Share> {
    let width = VECTORS * lanes::<S>();
    let part = |len: usize, k: usize| {
        let panels = len.div_ceil(width);
        let at = |k: usize| (panels * k / n * width).min(len);
        at(k)..at(k + 1)
    };
    (0..n)
        .map(|k| {
            let (columns, rows) = (part(network.n_post, k), part(network.n_pre, k));
            Share {
                by_columns: Panels::new::<S>(network.n_pre, columns.len()),
                by_rows: Panels::new::<S>(network.n_post, rows.len()),
                columns,
                rows,
            }
        })
        .collect()
}

/// The panels that threads can share.
pub(crate) fn n_panels<S: Lanes>(network: &Network) -> usize {
    network.n_post.div_ceil(VECTORS * lanes::<S>())
}

/// A share of w and alpha, alpha expanded to every connection.
pub(crate) struct Matrices<S: Lanes> {
    pub(crate) w_columns: Aligned<S>,
    pub(crate) alpha_columns: Aligned<S>,
    /// By rows; empty where no kernel reads them.
    pub(crate) w_rows: Aligned<S>,
    pub(crate) alpha_rows: Aligned<S>,
}

impl<S: Lanes> Matrices<S> {
    pub(crate) fn new(share: &Share, by_rows: bool) -> Self {
        let (columns, rows) = (share.by_columns.len(), share.by_rows.len());
        let rows = if by_rows { rows } else { 0 };
        Matrices {
            w_columns: zeros(columns),
            alpha_columns: zeros(columns),
            w_rows: zeros(rows),
            alpha_rows: zeros(rows),
        }
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
        let alpha_strides = match network.alpha {
            AlphaSharing::PerConnection => (n, 1),
            AlphaSharing::PerNeuron => (0, 1),
            AlphaSharing::PerNetwork => (0, 0),
        };
        for (tensor, (row, column), columns, rows) in [
            (Tensor::W, (n, 1), &mut self.w_columns, &mut self.w_rows),
            (Tensor::Alpha, alpha_strides, &mut self.alpha_columns, &mut self.alpha_rows),
        ] {
            let values = parameters.get(p, tensor);
            share.by_columns.pack(columns, share.columns.start, Strided { values, row, column });
            if !rows.is_empty() {
                let transposed = Strided { values, row: column, column: row };
                share.by_rows.pack(rows, share.rows.start, transposed);
            }
        }
    }
}

/// Where a thread works.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a, S: Lanes> {
    pub(crate) arch: pulp::Arch,
    pub(crate) share: &'a Share,
    pub(crate) matrices: &'a Matrices<S>,
}

/// A share of dL/dw and dL/dalpha per connection: by columns, or by rows.
pub(crate) struct Gradients<S: Lanes> {
    pub(crate) d_w: Aligned<S>,
    pub(crate) d_alpha: Aligned<S>,
}

impl<S: Lanes> Gradients<S> {
    /// Zeros, or nothing where there is no way back.
    pub(crate) fn new(share: &Share, by_rows: bool, back: bool) -> Self {
        let panels = if by_rows { share.by_rows } else { share.by_columns };
        let len = if back { panels.len() } else { 0 };
        Gradients { d_w: zeros(len), d_alpha: zeros(len) }
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
    /// Sums with Q over post neurons (`lazy/fold.rs`).
    pub(crate) qc: Aligned<S>,
    /// Sums along a matrix's rows, lanes still to be added up; and added up.
    pub(crate) lanes: [Aligned<S>; 2],
    pub(crate) added: [Aligned<S>; 2],
}

impl<S: Lanes> Returns<S> {
    /// Adds up the lanes of the first `n` sums.
    pub(crate) fn add_up(&mut self, arch: pulp::Arch, n: usize) {
        for (lanes, out) in self.lanes.iter().zip(&mut self.added) {
            let n = n.min(out.len());
            arch.dispatch(AddUp { lanes, out: &mut out[..n] });
        }
    }
}

struct AddUp<'a, S: Lanes> {
    lanes: &'a [S],
    out: &'a mut [S],
}

impl<S: Lanes> WithSimd for AddUp<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        for (out, &lanes) in self.out.iter_mut().zip(S::vectors::<A>(self.lanes)) {
            *out = S::total(a, lanes);
        }
    }
}
