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

use pulp::{Simd, WithSimd};

use crate::engine::cpu::lazy::form::{Form, Pre, lanes_of};
use crate::engine::cpu::panels::{Groups, Panels, RowsView, Table, group_of, group_of_mut};
use crate::engine::cpu::simd::{Lanes, Vector};

/// The job.
pub(crate) struct Commit<'a, S: Lanes, F> {
    pub(crate) form: PhantomData<F>,
    pub(crate) panels: Panels,
    pub(crate) n_steps: usize,
    /// The window's first step.
    pub(crate) first: usize,
    /// A and the b of the Hebbian trace; with two traces A, C and the b of E, then of H; from
    /// the matrix's first column on.
    pub(crate) coefficients: RowsView<'a, S>,
    /// x of all steps.
    pub(crate) x: &'a Table<S>,
    pub(crate) alpha: &'a [S],
    /// alpha H and alpha E before; the second is empty for one trace.
    pub(crate) from: [&'a [S]; 2],
    /// `=`, the same after.
    pub(crate) to: [&'a mut [S]; 2],
}

impl<S: Lanes, F: Form> WithSimd for Commit<'_, S, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        if self.from[1].is_empty() {
            commit::<A, S, F, false>(a, self);
        } else {
            commit::<A, S, F, true>(a, self);
        }
    }
}

#[inline(always)]
fn commit<A: Simd, S: Lanes, F: Form, const TWO: bool>(a: A, job: Commit<'_, S, F>) {
    let Commit { form, panels, n_steps, first, coefficients, x, alpha, from, to } = job;
    let stride = coefficients.stride / lanes_of::<A, S>();
    let coefficients = S::vectors::<A>(coefficients.values);
    let [from_h, from_e] = from.map(S::vectors::<A>);
    let [to_h, to_e] = to.map(S::vectors_mut::<A>);
    for panel in panels.iter() {
        let all = panels.vectors_of(panel);
        let second = if TWO { all.clone() } else { 0..0 };
        CommitPanel::<A, S, F, TWO> {
            a,
            form,
            n_steps,
            first,
            coefficients: &coefficients[panel.first..],
            stride,
            x,
            alpha: F::part::<A, S>(alpha, all.start, all.len()),
            from_h: &from_h[all.clone()],
            from_e: &from_e[second.clone()],
            to_h: &mut to_h[all],
            to_e: &mut to_e[second],
        }
        .down(panels.n_rows, panel.width);
    }
}

/// One panel of the job.
struct CommitPanel<'a, 'b, A: Simd, S: Lanes, F, const TWO: bool> {
    a: A,
    form: PhantomData<F>,
    n_steps: usize,
    first: usize,
    /// Rows of coefficients from the panel's first column on.
    coefficients: &'a [Vector<A, S>],
    stride: usize,
    x: &'a Table<S>,
    alpha: &'a [S],
    from_h: &'a [Vector<A, S>],
    from_e: &'a [Vector<A, S>],
    to_h: &'b mut [Vector<A, S>],
    to_e: &'b mut [Vector<A, S>],
}

impl<A: Simd, S: Lanes, F: Form, const TWO: bool> Groups for CommitPanel<'_, '_, A, S, F, TWO> {
    #[inline(always)]
    fn group<const W: usize, const G: usize>(&mut self, row: usize) {
        let (a, n, stride, coefficients) = (self.a, self.n_steps, self.stride, self.coefficients);
        let zero = S::splat(a, S::ZERO);
        let pre = Pre::of::<A, F>(self.x, row);
        let n_fixed = if TWO { 2 } else { 1 };
        let alpha = F::part::<A, S>(self.alpha, row * W, G * W);
        let from_h = group_of::<_, W, G>(self.from_h, row);
        let to_h = group_of_mut::<_, W, G>(self.to_h, row);
        // sums of the Hebbian trace's b, and with two traces of H's
        let (mut sum, mut sum_h) = ([[zero; W]; G], [[zero; W]; G]);
        for r in 0..n {
            let b = &coefficients[(n_fixed + r) * stride..][..W];
            let b_h = if TWO { &coefficients[(n_fixed + n + r) * stride..][..W] } else { b };
            for q in 0..G {
                let x = pre.get::<A, F>(a, self.first + r, q);
                for v in 0..W {
                    sum[q][v] = S::fma(a, x, b[v], sum[q][v]);
                    if TWO {
                        sum_h[q][v] = S::fma(a, x, b_h[v], sum_h[q][v]);
                    }
                }
            }
        }
        let keep = &coefficients[..W];
        let cross = if TWO { &coefficients[stride..][..W] } else { keep };
        for q in 0..G {
            for v in 0..W {
                let at = q * W + v;
                let alpha = F::shared(a, alpha, at);
                if TWO {
                    let from_e = group_of::<_, W, G>(self.from_e, row)[at];
                    let h = S::fma(a, cross[v], from_e, from_h[at]);
                    to_h[at] = S::fma(a, alpha, sum_h[q][v], h);
                    let e = S::fma(a, alpha, sum[q][v], S::times(a, keep[v], from_e));
                    group_of_mut::<_, W, G>(self.to_e, row)[at] = e;
                } else {
                    let h = S::times(a, keep[v], from_h[at]);
                    to_h[at] = S::fma(a, alpha, sum[q][v], h);
                }
            }
        }
    }
}
