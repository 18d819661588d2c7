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
//! A tile at a time, whose Q stays in the first cache for its sums (`sums.rs`).

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::engine::cpu::form::{Form, lanes_of};
use crate::engine::cpu::lazy::sums::{ColumnSums, Matrices, RowSums, put_rows};
use crate::engine::cpu::panels::{
    Panels, ROWS, RowsView, Sweep, Table, Tile, add_steps, row_of, steps_of, tile_of, tiles_of_mut,
};
use crate::engine::cpu::simd::{Lanes, Vector, vectors_mut_of, vectors_of};
use crate::engine::cpu::{CACHED_WINDOW, WINDOW};

/// The job. Rows of what belongs to post neurons start with the matrix's first column.
pub(crate) struct Fold<'a, S: Lanes, F> {
    pub(crate) form: PhantomData<F>,
    pub(crate) panels: Panels,
    /// x of all steps.
    pub(crate) x: &'a Table<S>,
    /// Steps of whole windows, which all but the later one are.
    pub(crate) size: usize,
    /// The later window: its A', and C' where there are two traces; D of its steps (of P_E
    /// with two traces) and their delta (that of P_H).
    pub(crate) later: Range<usize>,
    pub(crate) keep: &'a [S],
    pub(crate) cross: &'a [S],
    pub(crate) reach: RowsView<'a, S>,
    pub(crate) delta: RowsView<'a, S>,
    /// The earlier window, and of all post neurons (A' c)_r of its steps and, with two traces,
    /// (C' c)_r.
    pub(crate) earlier: Range<usize>,
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
    /// Room for reach and delta, and for Q_H and Q_E of a tile.
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
    let n_later = job.later.len();
    let zero = S::splat(a, S::ZERO);
    let (stride, delta_stride) = (job.reach.stride / lanes, job.delta.stride / lanes);
    let [reach, delta] = vectors_of::<A, S, 2>([job.reach.values, job.delta.values]);
    let room = S::vectors_mut::<A>(std::mem::take(&mut job.room));
    let (reach, room) = panels.cut((reach, stride, n_later), job.size, zero, room);
    let (delta, _) =
        panels.cut((delta, delta_stride, n_later), if TWO { job.size } else { 0 }, zero, room);
    let cut = [reach, delta];
    match (job.first, job.size) {
        (true, WINDOW) => bands::<A, S, F, TWO, true, WINDOW>(a, job, cut),
        (false, WINDOW) => bands::<A, S, F, TWO, false, WINDOW>(a, job, cut),
        (true, CACHED_WINDOW) => bands::<A, S, F, TWO, true, CACHED_WINDOW>(a, job, cut),
        (false, CACHED_WINDOW) => bands::<A, S, F, TWO, false, CACHED_WINDOW>(a, job, cut),
        (_, n) => unreachable!("a window of {n} steps"),
    }
}

/// The job for windows of N steps, to which the later one is filled up, given reach and delta cut
/// by panels; with FIRST P is zero after them.
#[inline(always)]
fn bands<A: Simd, S: Lanes, F: Form, const TWO: bool, const FIRST: bool, const N: usize>(
    a: A,
    job: Fold<'_, S, F>,
    [reach, delta]: [&[Vector<A, S>]; 2],
) {
    let (panels, zero) = (job.panels, S::splat(a, S::ZERO));
    let vectors = panels.vectors();
    let [qx_h, qx_e] = vectors_mut_of::<A, S>(job.qx);
    let (qx_h, dots_h) = qx_h.split_at_mut(qx_h.len().saturating_sub(vectors));
    let (qx_e, dots_e) = qx_e.split_at_mut(qx_e.len().saturating_sub(vectors));
    let (qx, mut dots) = ([qx_h, qx_e], [dots_h, dots_e]);
    dots.iter_mut().for_each(|dots| dots.fill(zero));
    let mut adjoints = Adjoints::<A, S, F, TWO, FIRST, N> {
        a,
        x: (job.x, job.later.start),
        keep: S::vectors::<A>(job.keep),
        cross: S::vectors::<A>(job.cross),
        reach,
        delta,
        alpha: F::shared::<A, S>(job.alpha),
        u: S::vectors::<A>(job.u[usize::from(TWO)]),
        p: vectors_mut_of::<A, S>(job.p),
        q: vectors_mut_of::<A, S>(job.q),
        dots,
    };
    let x = &F::pre::<A, S>(job.x.blocks()).as_chunks().0[job.earlier.start..];
    let first_c = if TWO { job.cross_c } else { job.kept_c };
    let c = vectors_of::<A, S, 2>([first_c.blocks(), job.kept_c.blocks()]);
    let along = &mut S::vectors_mut::<A>(job.along).as_chunks_mut().0[..N];
    for first in (0..panels.n_rows).step_by(ROWS) {
        let rows = first..panels.n_rows.min(first + ROWS);
        along.as_flattened_mut().fill(zero);
        for tile in panels.tiles(rows.clone()) {
            adjoints.take::<A>(&tile);
            if job.earlier.is_empty() {
                // before the first step
                continue;
            }
            let near = Tile { at: 0, ..tile };
            for trace in 0..if TWO { 2 } else { 1 } {
                let q = Matrices { w: &[], h: &*adjoints.q[trace], e: &[], alpha: &[] };
                let mut down = ColumnSums::<A, S, F, 0, N> {
                    a,
                    source: q,
                    vectors,
                    scalars: x,
                    n: job.x.n(),
                    out: &mut *qx[trace],
                };
                down.take::<A>(&near);
                let mut along = RowSums::<A, S, F, 0, N> {
                    a,
                    source: q,
                    scalars: c[trace],
                    first: job.first_vector,
                    out: &mut *along,
                };
                along.take::<A>(&near);
            }
        }
        if !job.earlier.is_empty() {
            put_rows::<A, S, F>(a, along, rows, panels.n_rows, job.qc);
        }
    }
}

/// P and Q of tiles before the later window's steps, and what they add to the dots. What belongs
/// to the post neurons' steps is cut by panels.
struct Adjoints<
    'a,
    'b,
    A: Simd,
    S: Lanes,
    F: Form,
    const TWO: bool,
    const FIRST: bool,
    const N: usize,
> {
    a: A,
    /// And the later window's first step.
    x: (&'a Table<S>, usize),
    keep: &'a [Vector<A, S>],
    cross: &'a [Vector<A, S>],
    reach: &'a [Vector<A, S>],
    delta: &'a [Vector<A, S>],
    alpha: &'a [F::Shared<A, S>],
    u: &'a [Vector<A, S>],
    p: [&'b mut [Vector<A, S>]; 2],
    /// Of the tile at hand alone.
    q: [&'b mut [Vector<A, S>]; 2],
    dots: [&'b mut [Vector<A, S>]; 2],
}

impl<A: Simd, S: Lanes, F: Form, const TWO: bool, const FIRST: bool, const N: usize> Sweep
    for Adjoints<'_, '_, A, S, F, TWO, FIRST, N>
{
    #[inline(always)]
    fn tile<const W: usize>(&mut self, tile: &Tile) {
        let (a, first, all) = (self.a, tile.panel.first, tile.vectors());
        let keep: [_; W] = row_of(self.keep, first);
        let cross: [_; W] = if TWO { row_of(self.cross, first) } else { keep };
        let reach: [[_; W]; N] = steps_of(self.reach, first);
        let delta: [[_; W]; N] = if TWO { steps_of(self.delta, first) } else { reach };
        let alpha = tile_of::<_, W>(self.alpha, all.clone());
        let u = tile_of::<_, W>(self.u, all.clone());
        let [p_h, p_e] = tiles_of_mut::<_, W>(&mut self.p, all);
        let [q_h, q_e] = tiles_of_mut::<_, W>(&mut self.q, 0..tile.rows.len() * W);
        let [dots_h, dots_e] = &mut self.dots;
        let mut dot_h: [_; W] = row_of(dots_h, first);
        let mut dot_e: [_; W] = if TWO { row_of(dots_e, first) } else { dot_h };
        for (block, row, n) in tile.blocks() {
            let x = F::block::<A, S, N>(self.x.0, block, self.x.1);
            let (alpha, u) = (&alpha[row..][..n], &u[row..][..n]);
            let p_h = &mut p_h[row..][..n];
            let q_h = &mut q_h[row..][..n];
            let p_e = if TWO { &mut p_e[row..][..n] } else { &mut [] };
            let q_e = if TWO { &mut q_e[row..][..n] } else { &mut [] };
            for k in 0..n {
                let x = F::values(a, x, k);
                for v in 0..W {
                    let zero = S::splat(a, S::ZERO);
                    let (alpha, u) = (F::load(a, alpha[k][v]), u[k][v]);
                    let before = if FIRST { zero } else { p_h[k][v] };
                    let h;
                    if TWO {
                        let e = if FIRST { zero } else { p_e[k][v] };
                        let e = S::fma(a, cross[v], before, S::times(a, keep[v], e));
                        let e = add_steps::<A, S, 0, N, W>(a, e, &x, &reach, v);
                        h = add_steps::<A, S, 0, N, W>(a, before, &x, &delta, v);
                        p_e[k][v] = e;
                        q_e[k][v] = S::times(a, alpha, e);
                        dot_e[v] = S::fma(a, e, u, dot_e[v]);
                    } else {
                        let kept = if FIRST { zero } else { S::times(a, keep[v], before) };
                        h = add_steps::<A, S, 0, N, W>(a, kept, &x, &reach, v);
                    }
                    p_h[k][v] = h;
                    q_h[k][v] = S::times(a, alpha, h);
                    dot_h[v] = S::fma(a, h, u, dot_h[v]);
                }
            }
        }
        dots_h[first..first + W].copy_from_slice(&dot_h);
        if TWO {
            dots_e[first..first + W].copy_from_slice(&dot_e);
        }
    }
}
