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

use crate::engine::cpu::form::{Form, Pre, lanes_of};
use crate::engine::cpu::panels::{BLOCK, Panels, RowsView, Table, Tile, width};
use crate::engine::cpu::simd::Lanes;

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

/// Rows at a time, which read a column's values once; half as many where the registers do not hold
/// the sums of all. They lie within a block of the table.
const GROUP: usize = 4;
const _: () = assert!(BLOCK.is_multiple_of(GROUP));

/// d, c, delta and m of a step, of one vector of post neurons.
const OF_STEP: usize = 4;

/// Numbers of [`WeightGradients::column`].
pub(crate) fn column_len(n_steps: usize, lanes: usize) -> usize {
    n_steps * OF_STEP * lanes
}

#[inline(always)]
fn all<A: Simd, S: Lanes, F: Form, const TWO: bool>(a: A, mut job: WeightGradients<'_, S, F>) {
    let panels = job.panels;
    let stride = job.d.stride / lanes_of::<A, S>();
    let rows = [job.d, job.c, job.delta, job.m.unwrap_or(job.d)].map(|rows| rows.values);
    for panel in panels.iter() {
        for v in 0..panel.width {
            // together, they stay in the first cache for all rows
            let column = S::vectors_mut::<A>(job.column).chunks_exact_mut(OF_STEP);
            for (t, column) in column.enumerate() {
                for (out, rows) in column.iter_mut().zip(rows) {
                    *out = S::vectors::<A>(rows)[t * stride + panel.first + v];
                }
            }
            for band in panels.bands(0..panels.n_rows) {
                let tile = band.tile(panel);
                if width::<A>() == 2 {
                    down::<A, S, F, TWO, { GROUP / 2 }>(a, &mut job, &tile, v);
                } else {
                    down::<A, S, F, TWO, GROUP>(a, &mut job, &tile, v);
                }
            }
        }
    }
}

/// Vector `v` of a tile's rows, G at a time.
#[inline(always)]
fn down<A: Simd, S: Lanes, F: Form, const TWO: bool, const G: usize>(
    a: A,
    job: &mut WeightGradients<'_, S, F>,
    tile: &Tile,
    v: usize,
) {
    let (rows, width, at) = (tile.rows.clone(), tile.panel.width, tile.at + v);
    let whole = rows.len() / G * G;
    for place in (0..whole).step_by(G) {
        let at = (at + place * width, width);
        group::<A, S, F, TWO, G>(a, job, rows.start + place, at);
    }
    for place in whole..rows.len() {
        let at = (at + place * width, width);
        group::<A, S, F, TWO, 1>(a, job, rows.start + place, at);
    }
}

/// The column's vector of G rows from `row` on; `at` is its place in the first one, `width`
/// what lies between them.
#[inline(always)]
fn group<A: Simd, S: Lanes, F: Form, const TWO: bool, const G: usize>(
    a: A,
    job: &mut WeightGradients<'_, S, F>,
    row: usize,
    (at, width): (usize, usize),
) {
    let zero = S::splat(a, S::ZERO);
    let columns = S::vectors::<A>(job.column).as_chunks::<OF_STEP>().0;
    let pre = Pre::<A, S, F, G>::of(job.x, row, (0, columns.len()));
    let (mut h, mut e) = ([zero; G], [zero; G]);
    let (mut sum_w, mut sum_alpha) = ([zero; G], [zero; G]);
    for t in (0..columns.len()).rev() {
        let [d, c, delta, m] = columns[t];
        let x = pre.get(a, t);
        for q in 0..G {
            let gain = S::times(a, delta, x[q]);
            sum_w[q] = S::plus(a, sum_w[q], gain);
            let hebbian = if TWO { e[q] } else { h[q] };
            sum_alpha[q] = S::fma(a, S::times(a, c, x[q]), hebbian, sum_alpha[q]);
            if TWO {
                e[q] = S::fma(a, d, e[q], S::times(a, m, h[q]));
                h[q] = S::plus(a, h[q], gain);
            } else {
                h[q] = S::fma(a, d, h[q], gain);
            }
        }
    }
    let d_w = S::vectors_mut::<A>(job.d_w);
    let d_alpha = S::vectors_mut::<A>(job.d_alpha);
    for q in 0..G {
        let at = at + q * width;
        let (mut w, mut alpha) = (sum_w[q], sum_alpha[q]);
        if job.add {
            w = S::plus(a, d_w[at], w);
            alpha = S::plus(a, d_alpha[at], alpha);
        }
        (d_w[at], d_alpha[at]) = (w, alpha);
    }
}
