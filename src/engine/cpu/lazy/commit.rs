//! The window's end forward: the plastic weights alpha H (and alpha E) are taken over its
//! steps,
//!
//! ```text
//! alpha H' = alpha H + C alpha E + alpha sum_r b_r x_r
//! alpha E' =           A alpha E + alpha sum_r b_r x_r      (with one trace: H alone, as E)
//! ```
//!
//! where A, C and b belong to the post neuron and x to the pre neuron (`window.rs`).

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::engine::cpu::form::{Form, Pre, lanes_of};
use crate::engine::cpu::panels::{
    Groups, Panels, RowsView, Table, group_of, group_of_mut, rows_of,
};
use crate::engine::cpu::simd::{Lanes, Vector};

/// The job.
pub(crate) struct Commit<'a, S: Lanes, F> {
    pub(crate) form: PhantomData<F>,
    pub(crate) panels: Panels,
    /// The window's.
    pub(crate) steps: Range<usize>,
    /// A, and C where there are two traces; these and the next from the matrix's first column
    /// on.
    pub(crate) keep: &'a [S],
    pub(crate) cross: &'a [S],
    /// b of the Hebbian trace, and of H where that is E.
    pub(crate) b: RowsView<'a, S>,
    pub(crate) b_h: RowsView<'a, S>,
    /// x of all steps.
    pub(crate) x: &'a Table<S>,
    pub(crate) alpha: &'a [S],
    /// alpha H and alpha E before; the second is empty for one trace, both where they are zero.
    pub(crate) from: [&'a [S]; 2],
    /// `=`, the same after.
    pub(crate) to: [&'a mut [S]; 2],
    /// Room for b and b_h.
    pub(crate) room: &'a mut [S],
}

impl<S: Lanes, F: Form> WithSimd for Commit<'_, S, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        if self.to[1].is_empty() {
            commit::<A, S, F, false>(a, self);
        } else {
            commit::<A, S, F, true>(a, self);
        }
    }
}

#[inline(always)]
fn commit<A: Simd, S: Lanes, F: Form, const TWO: bool>(a: A, job: Commit<'_, S, F>) {
    let Commit { panels, steps, keep, cross, b, b_h, x, alpha, from, to, room, .. } = job;
    let (first, n_steps) = (steps.start, steps.len());
    let stride = b.stride / lanes_of::<A, S>();
    let [keep, cross, b, b_h] = [keep, cross, b.values, b_h.values].map(S::vectors::<A>);
    let (b, room) = panels.cut((b, stride), n_steps, S::vectors_mut::<A>(room));
    let (b_h, _) = panels.cut((b_h, stride), if TWO { n_steps } else { 0 }, room);
    let [from_h, from_e] = from.map(S::vectors::<A>);
    let [to_h, to_e] = to.map(S::vectors_mut::<A>);
    for tile in panels.tiles(0..panels.n_rows) {
        let (panel, all) = (tile.panel, tile.vectors());
        let second = if TWO { all.clone() } else { 0..0 };
        CommitTile::<A, S, F, TWO> {
            a,
            n_steps,
            first,
            keep: &keep[panel.first..],
            cross: if TWO { &cross[panel.first..] } else { &[] },
            b: &b[n_steps * panel.first..],
            b_h: if TWO { &b_h[n_steps * panel.first..] } else { &[] },
            x,
            alpha: &F::shared::<A, S>(alpha)[all.clone()],
            from_h: from_h.get(all.clone()).unwrap_or_default(),
            from_e: from_e.get(second.clone()).unwrap_or_default(),
            to_h: &mut to_h[all],
            to_e: &mut to_e[second],
        }
        .down::<A>(&tile);
    }
}

/// One tile of the job.
struct CommitTile<'a, 'b, A: Simd, S: Lanes, F: Form, const TWO: bool> {
    a: A,
    n_steps: usize,
    first: usize,
    keep: &'a [Vector<A, S>],
    cross: &'a [Vector<A, S>],
    /// A row for each step.
    b: &'a [Vector<A, S>],
    b_h: &'a [Vector<A, S>],
    x: &'a Table<S>,
    alpha: &'a [F::Shared<A, S>],
    from_h: &'a [Vector<A, S>],
    from_e: &'a [Vector<A, S>],
    to_h: &'b mut [Vector<A, S>],
    to_e: &'b mut [Vector<A, S>],
}

impl<A: Simd, S: Lanes, F: Form, const TWO: bool> Groups for CommitTile<'_, '_, A, S, F, TWO> {
    #[inline(always)]
    fn group<const W: usize, const G: usize>(&mut self, row: usize, place: usize) {
        let (a, n) = (self.a, self.n_steps);
        let zero = S::splat(a, S::ZERO);
        let pre = Pre::<A, S, F, G>::of(self.x, row, (self.first, n));
        let alpha = group_of::<_, W, G>(self.alpha, place);
        let to_h = group_of_mut::<_, W, G>(self.to_h, place);
        // sums of the Hebbian trace's b, and with two traces of H's
        let (mut sum, mut sum_h) = ([[zero; W]; G], [[zero; W]; G]);
        let b = rows_of::<_, W>(&self.b[..n * W]);
        let b_h = if TWO { rows_of::<_, W>(&self.b_h[..n * W]) } else { b };
        for r in 0..n {
            let x = pre.get(a, r);
            for q in 0..G {
                for v in 0..W {
                    sum[q][v] = S::fma(a, x[q], b[r][v], sum[q][v]);
                    if TWO {
                        sum_h[q][v] = S::fma(a, x[q], b_h[r][v], sum_h[q][v]);
                    }
                }
            }
        }
        let keep = &self.keep[..W];
        let cross = if TWO { &self.cross[..W] } else { keep };
        // what is left of the traces
        let (mut h, mut e) = ([[zero; W]; G], [[zero; W]; G]);
        if !self.from_h.is_empty() {
            let from_h = group_of::<_, W, G>(self.from_h, place);
            for q in 0..G {
                for v in 0..W {
                    let at = q * W + v;
                    if TWO {
                        let from_e = group_of::<_, W, G>(self.from_e, place);
                        h[q][v] = S::fma(a, cross[v], from_e[at], from_h[at]);
                        e[q][v] = S::times(a, keep[v], from_e[at]);
                    } else {
                        h[q][v] = S::times(a, keep[v], from_h[at]);
                    }
                }
            }
        }
        for q in 0..G {
            for v in 0..W {
                let at = q * W + v;
                let alpha = F::load(a, alpha[at]);
                if TWO {
                    to_h[at] = S::fma(a, alpha, sum_h[q][v], h[q][v]);
                    let to_e = group_of_mut::<_, W, G>(self.to_e, place);
                    to_e[at] = S::fma(a, alpha, sum[q][v], e[q][v]);
                } else {
                    to_h[at] = S::fma(a, alpha, sum[q][v], h[q][v]);
                }
            }
        }
    }
}
