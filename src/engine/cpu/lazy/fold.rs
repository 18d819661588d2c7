//! The window's end backward: the adjoint P is taken over the later window, whose delta are
//! all known by now, and summed for the earlier one, with Q = alpha P:
//!
//! ```text
//! P' = A' P + sum_s D_s x_s             (two traces: of P_H and of P_E, `window.rs`)
//! qx_r[j] = sum_i Q_ij x_r[i]
//! qc_r[i] = sum_j Q_ij (A' c)_r[j]      (two traces: Q_E (A' c)_r + Q_H (C' c)_r)
//! dot[j]  = sum_i P_ij (alpha H)_ij     (two traces: of P_H and of P_E with alpha E)
//! ```

#![expect(clippy::needless_range_loop, reason = "an index for arrays and for lanes alike")]

use std::marker::PhantomData;

use pulp::{Simd, WithSimd};

use crate::engine::cpu::form::{Form, Pre, lanes_of};
use crate::engine::cpu::panels::{Groups, Panels, ROWS, RowsView, Table, group_of, group_of_mut};
use crate::engine::cpu::simd::{Lanes, Vector};

/// The job. Rows of what belongs to post neurons start with the matrix's first column.
pub(crate) struct Fold<'a, S: Lanes, F> {
    pub(crate) form: PhantomData<F>,
    pub(crate) panels: Panels,
    /// x of all steps.
    pub(crate) x: &'a Table<S>,
    /// The later window: its A', and C' where there are two traces; D of its steps (of P_E
    /// with two traces) and their delta (that of P_H).
    pub(crate) later: std::ops::Range<usize>,
    pub(crate) keep: &'a [S],
    pub(crate) cross: &'a [S],
    pub(crate) reach: RowsView<'a, S>,
    pub(crate) delta: RowsView<'a, S>,
    /// The earlier window, and (A' c)_r of its steps, then with two traces (C' c)_r.
    pub(crate) earlier: std::ops::Range<usize>,
    pub(crate) earlier_c: RowsView<'a, S>,
    pub(crate) alpha: &'a [S],
    /// alpha H and alpha E at the earlier window's start.
    pub(crate) u: [&'a [S]; 2],
    /// Whether P is zero, whatever it holds.
    pub(crate) first: bool,
    /// `=`, P of H and of E (empty for one trace).
    pub(crate) p: [&'a mut [S]; 2],
    /// `=`, `[earlier + 1, vectors]`: qx, then dot; of P_H and of P_E.
    pub(crate) qx: [&'a mut [S]; 2],
    /// `=`, `[earlier, rows]`, vectors: where lanes are neurons, still to be added up.
    pub(crate) qc: &'a mut [S],
}

impl<S: Lanes, F: Form> WithSimd for Fold<'_, S, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        if self.p[1].is_empty() {
            fold::<A, S, F, false>(a, self);
        } else {
            fold::<A, S, F, true>(a, self);
        }
    }
}

#[inline(always)]
fn fold<A: Simd, S: Lanes, F: Form, const TWO: bool>(a: A, job: Fold<'_, S, F>) {
    let panels = job.panels;
    let lanes = lanes_of::<A, S>();
    let [keep, cross] = [job.keep, job.cross].map(S::vectors::<A>);
    let [reach, delta, earlier_c] =
        [job.reach, job.delta, job.earlier_c].map(|rows| S::vectors::<A>(rows.values));
    let [u_h, u_e] = job.u.map(S::vectors::<A>);
    let u = if TWO { u_e } else { u_h };
    let [p_h, p_e] = job.p.map(S::vectors_mut::<A>);
    let [qx_h, qx_e] = job.qx.map(S::vectors_mut::<A>);
    let qc = S::vectors_mut::<A>(job.qc);
    for out in [&mut *qc, &mut *qx_h, &mut *qx_e] {
        out.fill(S::splat(a, S::ZERO));
    }
    for first in (0..panels.n_rows).step_by(ROWS) {
        let rows = first..panels.n_rows.min(first + ROWS);
        for panel in panels.iter() {
            let all = panels.vectors_of(panel);
            let second = if TWO { all.clone() } else { 0..0 };
            let from = panel.first;
            FoldPanel::<A, S, F, TWO> {
                a,
                form: job.form,
                x: job.x,
                later: (job.later.start, job.later.len()),
                earlier: (job.earlier.start, job.earlier.len()),
                keep: &keep[from..],
                cross: if TWO { &cross[from..] } else { &[] },
                reach: &reach[from..],
                delta: &delta[from..],
                delta_stride: job.delta.stride / lanes,
                earlier_c: &earlier_c[from..],
                stride: job.reach.stride / lanes,
                n_rows: panels.n_rows,
                alpha: F::part::<A, S>(job.alpha, all.start, all.len()),
                u: &u[all.clone()],
                first: job.first,
                p_h: &mut p_h[all],
                p_e: &mut p_e[second],
                qx_h: &mut qx_h[from..],
                qx_e: if TWO { &mut qx_e[from..] } else { &mut [] },
                qc: &mut *qc,
                out_stride: panels.vectors(),
            }
            .down(rows.clone(), panel.width);
        }
    }
}

/// One panel of the job; rows of what belongs to post neurons from its first column on.
struct FoldPanel<'a, 'b, A: Simd, S: Lanes, F, const TWO: bool> {
    a: A,
    form: PhantomData<F>,
    x: &'a Table<S>,
    /// First step and number of steps.
    later: (usize, usize),
    earlier: (usize, usize),
    keep: &'a [Vector<A, S>],
    cross: &'a [Vector<A, S>],
    reach: &'a [Vector<A, S>],
    delta: &'a [Vector<A, S>],
    delta_stride: usize,
    earlier_c: &'a [Vector<A, S>],
    stride: usize,
    n_rows: usize,
    alpha: &'a [S],
    u: &'a [Vector<A, S>],
    first: bool,
    p_h: &'b mut [Vector<A, S>],
    p_e: &'b mut [Vector<A, S>],
    qx_h: &'b mut [Vector<A, S>],
    qx_e: &'b mut [Vector<A, S>],
    qc: &'b mut [Vector<A, S>],
    out_stride: usize,
}

impl<A: Simd, S: Lanes, F: Form, const TWO: bool> Groups for FoldPanel<'_, '_, A, S, F, TWO> {
    #[inline(always)]
    fn group<const W: usize, const G: usize>(&mut self, row: usize) {
        let (a, zero, stride) = (self.a, S::splat(self.a, S::ZERO), self.stride);
        let x = Pre::of::<A, F>(self.x, row);
        // P, then Q of the group
        let (mut q_h, mut q_e) = ([[zero; W]; G], [[zero; W]; G]);
        let (first, n) = self.later;
        for s in 0..n {
            let reach = &self.reach[s * stride..][..W];
            let delta = if TWO { &self.delta[s * self.delta_stride..][..W] } else { reach };
            for q in 0..G {
                let x = x.get::<A, F>(a, first + s, q);
                for v in 0..W {
                    if TWO {
                        q_e[q][v] = S::fma(a, x, reach[v], q_e[q][v]);
                        q_h[q][v] = S::fma(a, x, delta[v], q_h[q][v]);
                    } else {
                        q_h[q][v] = S::fma(a, x, reach[v], q_h[q][v]);
                    }
                }
            }
        }
        let keep = &self.keep[..W];
        let cross = if TWO { &self.cross[..W] } else { keep };
        let u = group_of::<_, W, G>(self.u, row);
        let p_h = group_of_mut::<_, W, G>(self.p_h, row);
        let alpha = F::part::<A, S>(self.alpha, row * W, G * W);
        let (mut dot_h, mut dot_e) = ([zero; W], [zero; W]);
        for q in 0..G {
            for v in 0..W {
                let at = q * W + v;
                let (alpha, u) = (F::shared(a, alpha, at), u[at]);
                let mut h = if self.first { zero } else { p_h[at] };
                if TWO {
                    let p_e = &mut group_of_mut::<_, W, G>(self.p_e, row)[at];
                    let before = if self.first { zero } else { *p_e };
                    let e = S::fma(a, keep[v], before, S::fma(a, cross[v], h, q_e[q][v]));
                    *p_e = e;
                    q_e[q][v] = S::times(a, alpha, e);
                    dot_e[v] = S::fma(a, e, u, dot_e[v]);
                    h = S::plus(a, h, q_h[q][v]);
                } else {
                    h = S::fma(a, keep[v], h, q_h[q][v]);
                }
                p_h[at] = h;
                q_h[q][v] = S::times(a, alpha, h);
                dot_h[v] = S::fma(a, h, u, dot_h[v]);
            }
        }
        let (first, n) = self.earlier;
        let at = n * self.out_stride;
        add_all::<A, S, _>(a, &mut self.qx_h[at..][..W], &dot_h);
        if TWO {
            add_all::<A, S, _>(a, &mut self.qx_e[at..][..W], &dot_e);
        }
        // the adjoint of the trace that x enters
        let hebbian = if TWO { &q_e } else { &q_h };
        for r in 0..n {
            let mut x_r = [zero; G];
            for q in 0..G {
                x_r[q] = x.get::<A, F>(a, first + r, q);
            }
            let c = &self.earlier_c[r * stride..][..W];
            let cross = if TWO { &self.earlier_c[(n + r) * stride..][..W] } else { c };
            let (mut down_h, mut down_e) = ([zero; W], [zero; W]);
            let mut along = [zero; G];
            for q in 0..G {
                for v in 0..W {
                    along[q] = S::fma(a, c[v], hebbian[q][v], along[q]);
                    down_h[v] = S::fma(a, x_r[q], q_h[q][v], down_h[v]);
                    if TWO {
                        along[q] = S::fma(a, cross[v], q_h[q][v], along[q]);
                        down_e[v] = S::fma(a, x_r[q], q_e[q][v], down_e[v]);
                    }
                }
            }
            let at = r * self.out_stride;
            add_all::<A, S, _>(a, &mut self.qx_h[at..][..W], &down_h);
            if TWO {
                add_all::<A, S, _>(a, &mut self.qx_e[at..][..W], &down_e);
            }
            add_all::<A, S, _>(a, &mut self.qc[r * self.n_rows + row..][..G], &along);
        }
    }
}

#[inline(always)]
fn add_all<A: Simd, S: Lanes, const N: usize>(
    a: A,
    out: &mut [Vector<A, S>],
    values: &[Vector<A, S>; N],
) {
    for (out, &value) in out.iter_mut().zip(values) {
        *out = S::plus(a, *out, value);
    }
}
