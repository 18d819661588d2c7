//! The window's end forward: the plastic weights alpha H (and alpha E) are taken over its
//! steps,
//!
//! ```text
//! alpha H' = alpha H + C alpha E + alpha sum_r b_r x_r
//! alpha E' =           A alpha E + alpha sum_r b_r x_r      (with one trace: H alone, as E)
//! ```
//!
//! where A, C and b belong to the post neuron and x to the pre neuron (`window.rs`).

use pulp::{Simd, WithSimd};

use crate::engine::cpu::panels::{
    Groups, Panels, RowsView, Table, TableView, group_of, group_of_mut,
};
use crate::engine::cpu::simd::{Lanes, Vector};

/// What belongs to the post neurons and to the pre neurons, along a row or down the rows.
/// Coefficients are A and the b of the Hebbian trace; with two traces A, C and the b of E,
/// then of H.
pub(crate) enum Sides<'a, S: Lanes> {
    /// A matrix by columns: rows are pre neurons.
    Columns { coefficients: RowsView<'a, S>, x: &'a Table<S> },
    /// A matrix by rows: rows are post neurons.
    Rows { coefficients: &'a Table<S>, x: RowsView<'a, S> },
}

/// The job.
pub(crate) struct Commit<'a, S: Lanes> {
    pub(crate) panels: Panels,
    pub(crate) n_steps: usize,
    pub(crate) sides: Sides<'a, S>,
    /// Elements of a row of [`RowsView`] to the left of this matrix.
    pub(crate) first: usize,
    pub(crate) alpha: &'a [S],
    /// alpha H and alpha E before; the second is empty for one trace.
    pub(crate) from: [&'a [S]; 2],
    /// `=`, after.
    pub(crate) to: [&'a mut [S]; 2],
}

impl<S: Lanes> WithSimd for Commit<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        match (&self.sides, self.from[1].is_empty()) {
            (Sides::Columns { .. }, true) => commit::<A, S, true, false>(a, self),
            (Sides::Columns { .. }, false) => commit::<A, S, true, true>(a, self),
            (Sides::Rows { .. }, true) => commit::<A, S, false, false>(a, self),
            (Sides::Rows { .. }, false) => commit::<A, S, false, true>(a, self),
        }
    }
}

#[inline(always)]
fn commit<A: Simd, S: Lanes, const COLUMNS: bool, const TWO: bool>(a: A, job: Commit<'_, S>) {
    let Commit { panels, n_steps, sides, first, alpha, from, to } = job;
    let (along, down) = match sides {
        Sides::Columns { coefficients, x } => (coefficients, x),
        Sides::Rows { coefficients, x } => (x, coefficients),
    };
    let (stride, first) = (along.stride / panels.lanes, first / panels.lanes);
    let along = S::vectors::<A>(along.values);
    let alpha = S::vectors::<A>(alpha);
    let [from_h, from_e] = from.map(S::vectors::<A>);
    let [to_h, to_e] = to.map(S::vectors_mut::<A>);
    for panel in panels.iter() {
        let all = panels.vectors_of(panel);
        let second = if TWO { all.clone() } else { 0..0 };
        CommitPanel::<A, S, COLUMNS, TWO> {
            a,
            n_steps,
            along: &along[first + panel.first..],
            stride,
            down: down.view(),
            alpha: &alpha[all.clone()],
            from_h: &from_h[all.clone()],
            from_e: &from_e[second.clone()],
            to_h: &mut to_h[all],
            to_e: &mut to_e[second],
        }
        .down(panels.n_rows, panel.width);
    }
}

/// One panel of the job.
struct CommitPanel<'a, 'b, A: Simd, S: Lanes, const COLUMNS: bool, const TWO: bool> {
    a: A,
    n_steps: usize,
    /// Rows of what goes along a row, from the panel's first column on.
    along: &'a [Vector<A, S>],
    stride: usize,
    down: TableView<'a, S>,
    alpha: &'a [Vector<A, S>],
    from_h: &'a [Vector<A, S>],
    from_e: &'a [Vector<A, S>],
    to_h: &'b mut [Vector<A, S>],
    to_e: &'b mut [Vector<A, S>],
}

impl<A: Simd, S: Lanes, const COLUMNS: bool, const TWO: bool> Groups
    for CommitPanel<'_, '_, A, S, COLUMNS, TWO>
{
    #[inline(always)]
    fn group<const W: usize, const G: usize>(&mut self, row: usize) {
        let (a, n, stride) = (self.a, self.n_steps, self.stride);
        let zero = S::splat(a, S::ZERO);
        let down = self.down.at(row);
        let n_fixed = if TWO { 2 } else { 1 };
        let alpha = group_of::<_, W, G>(self.alpha, row);
        let from_h = group_of::<_, W, G>(self.from_h, row);
        let to_h = group_of_mut::<_, W, G>(self.to_h, row);
        let along = |r: usize| -> &[Vector<A, S>] { &self.along[r * stride..][..W] };
        // sums of the Hebbian trace's b, and with two traces of H's
        let (mut sum, mut sum_h) = ([[zero; W]; G], [[zero; W]; G]);
        for r in 0..n {
            if COLUMNS {
                outer::<A, S, W, G>(a, &mut sum, along(n_fixed + r), down.get(r));
                if TWO {
                    outer::<A, S, W, G>(a, &mut sum_h, along(n_fixed + n + r), down.get(r));
                }
            } else {
                outer::<A, S, W, G>(a, &mut sum, along(r), down.get(n_fixed + r));
                if TWO {
                    outer::<A, S, W, G>(a, &mut sum_h, along(r), down.get(n_fixed + n + r));
                }
            }
        }
        // A and C, which belong to the post neuron
        let (mut keep, mut cross) = ([[zero; W]; G], [[zero; W]; G]);
        for q in 0..G {
            for v in 0..W {
                if COLUMNS {
                    keep[q][v] = self.along[v];
                    cross[q][v] = if TWO { self.along[stride + v] } else { zero };
                } else {
                    keep[q][v] = S::splat(a, down.one(0, q));
                    cross[q][v] = if TWO { S::splat(a, down.one(1, q)) } else { zero };
                }
            }
        }
        for q in 0..G {
            for v in 0..W {
                let at = q * W + v;
                if TWO {
                    let from_e = group_of::<_, W, G>(self.from_e, row)[at];
                    let h = S::fma(a, cross[q][v], from_e, from_h[at]);
                    to_h[at] = S::fma(a, alpha[at], sum_h[q][v], h);
                    let e = S::fma(a, alpha[at], sum[q][v], S::times(a, keep[q][v], from_e));
                    group_of_mut::<_, W, G>(self.to_e, row)[at] = e;
                } else {
                    let h = S::times(a, keep[q][v], from_h[at]);
                    to_h[at] = S::fma(a, alpha[at], sum[q][v], h);
                }
            }
        }
    }
}

/// `sum_qv += scalar_q row_v`. A function, since a closure may not be inlined, and would then
/// lack the instruction set.
#[inline(always)]
fn outer<A: Simd, S: Lanes, const W: usize, const G: usize>(
    a: A,
    sum: &mut [[Vector<A, S>; W]; G],
    row: &[Vector<A, S>],
    scalars: [S; G],
) {
    for q in 0..G {
        for v in 0..W {
            sum[q][v] = S::fma(a, S::splat(a, scalars[q]), row[v], sum[q][v]);
        }
    }
}
