//! The window's end backward: the adjoint P is taken over the later window, whose delta are
//! all known by now, and summed for the earlier one, with Q = alpha P:
//!
//! ```text
//! P' = A' P + sum_s D_s x_s             (two traces: of P_H and of P_E, `window.rs`)
//! qx_r[j] = sum_i Q_ij x_r[i]
//! qc_r[i] = sum_j Q_ij (A' c)_r[j]      (two traces: Q_E (A' c)_r + Q_H (C' c)_r)
//! dot[j]  = sum_i P_ij (alpha H)_ij     (two traces: of P_H and of P_E with alpha E)
//! ```
//!
//! Some rows at a time, whose Q stays in a near cache for the sums (`gather.rs`).

use std::marker::PhantomData;

use pulp::{Simd, WithSimd};

use crate::engine::cpu::form::{Form, Pre, lanes_of};
use crate::engine::cpu::lazy::gather::{Along, Down, Source, along, down};
use crate::engine::cpu::panels::{
    Groups, Panels, ROWS, RowsView, Table, group_of, group_of_mut, rows_of,
};
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
    /// The earlier window, and of all post neurons (A' c)_r of its steps and, with two traces,
    /// (C' c)_r.
    pub(crate) earlier: std::ops::Range<usize>,
    pub(crate) kept_c: &'a Table<S>,
    pub(crate) cross_c: &'a Table<S>,
    /// Vectors of post neurons to the left of the matrix.
    pub(crate) first_vector: usize,
    pub(crate) alpha: &'a [S],
    /// alpha H and alpha E at the earlier window's start.
    pub(crate) u: [&'a [S]; 2],
    /// Whether P is zero, whatever it holds.
    pub(crate) first: bool,
    /// `=`, P of H and of E (empty for one trace).
    pub(crate) p: [&'a mut [S]; 2],
    /// `=`, `[earlier + 1, vectors]`: qx, then dot; of P_H and of P_E.
    pub(crate) qx: [&'a mut [S]; 2],
    /// `=`, `[earlier, padded rows]`.
    pub(crate) qc: &'a mut [S],
    /// Room for reach and delta, and for Q_H and Q_E of some rows.
    pub(crate) room: &'a mut [S],
    pub(crate) q: [&'a mut [S]; 2],
    /// Room for sums along some rows.
    pub(crate) along: &'a mut [S],
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
fn fold<A: Simd, S: Lanes, F: Form, const TWO: bool>(a: A, mut job: Fold<'_, S, F>) {
    let panels = job.panels;
    let lanes = lanes_of::<A, S>();
    let (n_later, n_earlier) = (job.later.len(), job.earlier.len());
    let (stride, delta_stride) = (job.reach.stride / lanes, job.delta.stride / lanes);
    let [keep, cross] = [job.keep, job.cross].map(S::vectors::<A>);
    let [reach, delta] = [job.reach, job.delta].map(|rows| S::vectors::<A>(rows.values));
    let room = S::vectors_mut::<A>(std::mem::take(&mut job.room));
    let (reach, room) = panels.cut((reach, stride), n_later, room);
    let (delta, _) = panels.cut((delta, delta_stride), if TWO { n_later } else { 0 }, room);
    let [u_h, u_e] = job.u.map(S::vectors::<A>);
    let u = if TWO { u_e } else { u_h };
    let at = n_earlier * panels.vectors() * lanes;
    for qx in &mut job.qx {
        qx.get_mut(at..).unwrap_or_default().fill(S::ZERO);
    }
    for first in (0..panels.n_rows).step_by(ROWS) {
        let rows = first..panels.n_rows.min(first + ROWS);
        let part = panels.some(rows.len());
        let [p_h, p_e] = job.p.each_mut().map(|p| S::vectors_mut::<A>(p));
        let [q_h, q_e] = job.q.each_mut().map(|q| S::vectors_mut::<A>(q));
        let [dot_h, dot_e] =
            job.qx.each_mut().map(|qx| S::vectors_mut::<A>(qx.get_mut(at..).unwrap_or_default()));
        for (tile, q) in panels.tiles(rows.clone()).zip(part.tiles(0..rows.len())) {
            let (panel, all, q) = (tile.panel, tile.vectors(), q.vectors());
            let second = if TWO { (all.clone(), q.clone()) } else { (0..0, 0..0) };
            let from = panel.first;
            FoldTile::<A, S, F, TWO> {
                a,
                x: job.x,
                later: (job.later.start, n_later),
                keep: &keep[from..],
                cross: if TWO { &cross[from..] } else { &[] },
                reach: &reach[n_later * from..],
                delta: if TWO { &delta[n_later * from..] } else { &[] },
                alpha: &F::shared::<A, S>(job.alpha)[all.clone()],
                u: &u[all.clone()],
                first: job.first,
                p_h: &mut p_h[all],
                p_e: &mut p_e[second.0],
                q_h: &mut q_h[q],
                q_e: &mut q_e[second.1],
                dot_h: &mut dot_h[from..],
                dot_e: if TWO { &mut dot_e[from..] } else { &mut [] },
            }
            .down::<A>(&tile);
        }
        match n_earlier {
            // before the first step
            0 => (),
            1 => sums::<A, S, F, TWO, 1>(a, &mut job, part, first),
            2 => sums::<A, S, F, TWO, 2>(a, &mut job, part, first),
            3 => sums::<A, S, F, TWO, 3>(a, &mut job, part, first),
            4 => sums::<A, S, F, TWO, 4>(a, &mut job, part, first),
            5 => sums::<A, S, F, TWO, 5>(a, &mut job, part, first),
            n => unreachable!("a window of {n} steps"),
        }
    }
}

/// qx and qc of some rows, whose panels are `part`, for N steps.
#[inline(always)]
fn sums<A: Simd, S: Lanes, F: Form, const TWO: bool, const N: usize>(
    a: A,
    job: &mut Fold<'_, S, F>,
    part: Panels,
    first: usize,
) {
    for trace in 0..if TWO { 2 } else { 1 } {
        let q = &*job.q[trace];
        let source = Source { panels: part, w: &[], traces: [q, &[]], alpha: &[] };
        let down_job = Down {
            form: PhantomData,
            source,
            scalars: job.x,
            from: (first, job.earlier.start),
            add: first > 0,
            out: &mut *job.qx[trace],
        };
        down::<A, S, F, 0, N>(a, down_job);
        let along_job = Along {
            form: PhantomData,
            source,
            scalars: if TWO && trace == 0 { job.cross_c } else { job.kept_c },
            first: job.first_vector,
            room: &mut *job.along,
            rows: (first, job.panels.n_rows),
            add: trace > 0,
            out: &mut *job.qc,
        };
        along::<A, S, F, 0, N>(a, along_job);
    }
}

/// One tile of the job; rows of what belongs to post neurons from its first column on.
struct FoldTile<'a, 'b, A: Simd, S: Lanes, F: Form, const TWO: bool> {
    a: A,
    x: &'a Table<S>,
    /// First step and number of steps.
    later: (usize, usize),
    keep: &'a [Vector<A, S>],
    cross: &'a [Vector<A, S>],
    /// A row for each step.
    reach: &'a [Vector<A, S>],
    delta: &'a [Vector<A, S>],
    alpha: &'a [F::Shared<A, S>],
    u: &'a [Vector<A, S>],
    first: bool,
    p_h: &'b mut [Vector<A, S>],
    p_e: &'b mut [Vector<A, S>],
    q_h: &'b mut [Vector<A, S>],
    q_e: &'b mut [Vector<A, S>],
    dot_h: &'b mut [Vector<A, S>],
    dot_e: &'b mut [Vector<A, S>],
}

impl<A: Simd, S: Lanes, F: Form, const TWO: bool> Groups for FoldTile<'_, '_, A, S, F, TWO> {
    #[inline(always)]
    fn group<const W: usize, const G: usize>(&mut self, row: usize, place: usize) {
        let (a, zero) = (self.a, S::splat(self.a, S::ZERO));
        let pre = Pre::<A, S, F, G>::of(self.x, row, self.later);
        // what the window adds to P
        let (mut add_h, mut add_e) = ([[zero; W]; G], [[zero; W]; G]);
        let n = self.later.1;
        let reach = rows_of::<_, W>(&self.reach[..n * W]);
        let delta = if TWO { rows_of::<_, W>(&self.delta[..n * W]) } else { reach };
        for s in 0..n {
            let x = pre.get(a, s);
            for q in 0..G {
                for v in 0..W {
                    if TWO {
                        add_e[q][v] = S::fma(a, x[q], reach[s][v], add_e[q][v]);
                        add_h[q][v] = S::fma(a, x[q], delta[s][v], add_h[q][v]);
                    } else {
                        add_h[q][v] = S::fma(a, x[q], reach[s][v], add_h[q][v]);
                    }
                }
            }
        }
        let keep = &self.keep[..W];
        let cross = if TWO { &self.cross[..W] } else { keep };
        let u = group_of::<_, W, G>(self.u, place);
        let p_h = group_of_mut::<_, W, G>(self.p_h, place);
        let q_h = group_of_mut::<_, W, G>(self.q_h, place);
        let alpha = group_of::<_, W, G>(self.alpha, place);
        let (mut dot_h, mut dot_e) = ([zero; W], [zero; W]);
        for q in 0..G {
            for v in 0..W {
                let at = q * W + v;
                let (alpha, u) = (F::load(a, alpha[at]), u[at]);
                let mut h = if self.first { zero } else { p_h[at] };
                if TWO {
                    let p_e = &mut group_of_mut::<_, W, G>(self.p_e, place)[at];
                    let before = if self.first { zero } else { *p_e };
                    let e = S::fma(a, keep[v], before, S::fma(a, cross[v], h, add_e[q][v]));
                    *p_e = e;
                    let q_e = group_of_mut::<_, W, G>(self.q_e, place);
                    q_e[at] = S::times(a, alpha, e);
                    dot_e[v] = S::fma(a, e, u, dot_e[v]);
                    h = S::plus(a, h, add_h[q][v]);
                } else {
                    h = S::fma(a, keep[v], h, add_h[q][v]);
                }
                p_h[at] = h;
                q_h[at] = S::times(a, alpha, h);
                dot_h[v] = S::fma(a, h, u, dot_h[v]);
            }
        }
        for v in 0..W {
            self.dot_h[v] = S::plus(a, self.dot_h[v], dot_h[v]);
            if TWO {
                self.dot_e[v] = S::plus(a, self.dot_e[v], dot_e[v]);
            }
        }
    }
}
