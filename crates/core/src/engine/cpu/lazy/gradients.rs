//! dL/dw and dL/dalpha of a whole episode, from its stored vectors alone: P is taken back
//! through all steps in registers, and is never stored. At every step, last to first, with P
//! the adjoint of the trace after it as a share of alpha:
//!
//! ```text
//! d_w += x delta;   d_alpha += c x P;   P = d P + x delta
//!                   (two traces: d_alpha += c x P_E;  P_E = d P_E + m P_H;  P_H = P_H + x delta)
//! ```

use std::marker::PhantomData;

use pulp::{Simd, WithSimd};

use crate::engine::cpu::form::{Form, lanes_of};
use crate::engine::cpu::panels::{BLOCK, Panels, RowsView, Sweep, Table, Tile, tile_of_mut, width};
use crate::engine::cpu::simd::{Lanes, Vector, vectors_of};

/// The job. Rows of what belongs to post neurons start with the matrix's first column.
pub(crate) struct WeightGradients<'a, S: Lanes, F> {
    pub(crate) form: PhantomData<F>,
    pub(crate) panels: Panels,
    pub(crate) x: &'a Table<S>,
    pub(crate) d: RowsView<'a, S>,
    pub(crate) c: RowsView<'a, S>,
    pub(crate) delta: RowsView<'a, S>,
    /// None for one trace.
    pub(crate) m: Option<RowsView<'a, S>>,
    /// Room for `[steps, 4]` vectors.
    pub(crate) column: &'a mut [S],
    /// `+=` where `add`, else `=`.
    pub(crate) add: bool,
    pub(crate) d_w: &'a mut [S],
    pub(crate) d_alpha: &'a mut [S],
}

impl<S: Lanes, F: Form> WithSimd for WeightGradients<'_, S, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        if self.m.is_none() {
            all::<A, S, F, false>(a, self);
        } else {
            all::<A, S, F, true>(a, self);
        }
    }
}

/// d, c, delta and m of a step, of one vector of post neurons.
const OF_STEP: usize = 4;

/// Numbers of [`WeightGradients::column`].
pub(crate) fn column_len(n_steps: usize, lanes: usize) -> usize {
    n_steps * OF_STEP * lanes
}

#[inline(always)]
fn all<A: Simd, S: Lanes, F: Form, const TWO: bool>(a: A, job: WeightGradients<'_, S, F>) {
    let panels = job.panels;
    let stride = job.d.stride / lanes_of::<A, S>();
    let m = job.m.unwrap_or(job.d);
    let rows =
        vectors_of::<A, S, OF_STEP>([job.d.values, job.c.values, job.delta.values, m.values]);
    let mut column = Column::<A, S, F, TWO> {
        a,
        form: job.form,
        of_steps: S::vectors_mut::<A>(job.column).as_chunks_mut().0,
        v: 0,
        x: job.x,
        add: job.add,
        d_w: S::vectors_mut::<A>(job.d_w),
        d_alpha: S::vectors_mut::<A>(job.d_alpha),
    };
    for panel in panels.iter() {
        for v in 0..panel.width {
            column.v = v;
            for (t, of_step) in column.of_steps.iter_mut().enumerate() {
                for (out, rows) in of_step.iter_mut().zip(rows) {
                    *out = rows[t * stride + panel.first + v];
                }
            }
            for band in panels.bands(0..panels.n_rows) {
                column.take::<A>(&band.tile(panel));
            }
        }
    }
}

/// One vector of a panel's columns.
struct Column<'a, 'b, A: Simd, S: Lanes, F, const TWO: bool> {
    a: A,
    form: PhantomData<F>,
    /// What belongs to it of all steps; together, this stays in the first cache for all rows.
    of_steps: &'b mut [[Vector<A, S>; OF_STEP]],
    /// Which one of the panel.
    v: usize,
    /// x of all steps.
    x: &'a Table<S>,
    add: bool,
    d_w: &'b mut [Vector<A, S>],
    d_alpha: &'b mut [Vector<A, S>],
}

impl<A: Simd, S: Lanes, F: Form, const TWO: bool> Sweep for Column<'_, '_, A, S, F, TWO> {
    #[inline(always)]
    fn tile<const W: usize>(&mut self, tile: &Tile) {
        // as many rows at a time as have their sums and adjoints in registers
        if const { width::<A>() > 2 } {
            self.groups::<W, 4>(tile);
        } else if const { TWO } {
            self.groups::<W, 2>(tile);
        } else {
            self.groups::<W, 3>(tile);
        }
    }
}

impl<A: Simd, S: Lanes, F: Form, const TWO: bool> Column<'_, '_, A, S, F, TWO> {
    /// A tile's rows, G at a time.
    #[inline(always)]
    fn groups<const W: usize, const G: usize>(&mut self, tile: &Tile) {
        let (a, of_steps, add) = (self.a, &*self.of_steps, self.add);
        let blocks = F::pre::<A, S>(self.x.blocks()).as_chunks().0;
        // which it is in any case
        let v = self.v.min(W - 1);
        let d_w = tile_of_mut::<_, W>(self.d_w, tile.vectors());
        let d_alpha = tile_of_mut::<_, W>(self.d_alpha, tile.vectors());
        for (block, row, n) in tile.blocks() {
            let x = &blocks[block * self.x.n()..][..of_steps.len()];
            let (w, w_rest) = d_w[row..][..n].as_chunks_mut::<G>();
            let (alpha, alpha_rest) = d_alpha[row..][..n].as_chunks_mut::<G>();
            let n_whole = w.len() * G;
            for (k, (w, alpha)) in w.iter_mut().zip(alpha).enumerate() {
                let sums = group::<A, S, F, TWO, G>(a, of_steps, x, k * G);
                put::<A, S, _, W>(a, sums, v, add, w, alpha);
            }
            let rest = w_rest.as_chunks_mut().0.iter_mut().zip(alpha_rest.as_chunks_mut().0);
            for (k, (w, alpha)) in rest.enumerate() {
                let sums = group::<A, S, F, TWO, 1>(a, of_steps, x, n_whole + k);
                put::<A, S, _, W>(a, sums, v, add, w, alpha);
            }
        }
    }
}

/// The column's dL/dw and dL/dalpha of G rows of a block, from row `first` on.
#[inline(always)]
fn group<A: Simd, S: Lanes, F: Form, const TWO: bool, const G: usize>(
    a: A,
    of_steps: &[[Vector<A, S>; OF_STEP]],
    x: &[[F::Pre<A, S>; BLOCK]],
    first: usize,
) -> [[Vector<A, S>; G]; 2] {
    let zero = S::splat(a, S::ZERO);
    // which it is in any case
    let first = first.min(BLOCK - G);
    let x = &x[..of_steps.len()];
    let (mut h, mut e) = ([zero; G], [zero; G]);
    let (mut sum_w, mut sum_alpha) = ([zero; G], [zero; G]);
    for t in (0..of_steps.len()).rev() {
        let [d, c, delta, m] = of_steps[t];
        for q in 0..G {
            let x = F::spread(a, x[t][first + q]);
            let gain = S::times(a, delta, x);
            sum_w[q] = S::plus(a, sum_w[q], gain);
            let hebbian = if TWO { e[q] } else { h[q] };
            sum_alpha[q] = S::fma(a, S::times(a, c, x), hebbian, sum_alpha[q]);
            if TWO {
                e[q] = S::fma(a, d, e[q], S::times(a, m, h[q]));
                h[q] = S::plus(a, h[q], gain);
            } else {
                h[q] = S::fma(a, d, h[q], gain);
            }
        }
    }
    [sum_w, sum_alpha]
}

/// The sums become vector `v` of some rows, or are added to it.
#[inline(always)]
fn put<A: Simd, S: Lanes, const G: usize, const W: usize>(
    a: A,
    [sum_w, sum_alpha]: [[Vector<A, S>; G]; 2],
    v: usize,
    add: bool,
    d_w: &mut [[Vector<A, S>; W]; G],
    d_alpha: &mut [[Vector<A, S>; W]; G],
) {
    for q in 0..G {
        let (mut w, mut alpha) = (sum_w[q], sum_alpha[q]);
        if add {
            w = S::plus(a, d_w[q][v], w);
            alpha = S::plus(a, d_alpha[q][v], alpha);
        }
        (d_w[q][v], d_alpha[q][v]) = (w, alpha);
    }
}
