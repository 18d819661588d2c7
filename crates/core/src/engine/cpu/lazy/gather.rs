//! The sums of a step over several matrices at once, down their rows (forward) or along them
//! (backward):
//!
//! ```text
//! Down:   out_c[j] = sum_i s_c[i] M_c[i, j]
//! Along:  out_c[i] = sum_j s_c[j] M_c[i, j]
//! ```
//!
//! w and the window's first alpha H (alpha E) have one sum each (along the rows, one
//! together), alpha has one for every earlier step of the window. 12 bytes a connection are read, 8
//! while the traces are zero.

use std::marker::PhantomData;

use pulp::{Simd, WithSimd};

use crate::engine::cpu::form::Form;
use crate::engine::cpu::lazy::sums::{ColumnSums, Matrices, RowSums, put_rows};
use crate::engine::cpu::panels::{Panels, ROWS, Sweep, Table};
use crate::engine::cpu::simd::{Lanes, vectors_of};

/// The most sums of alpha that a kernel is compiled for.
pub(crate) const MOST: usize = 4;

/// What is summed.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a, S> {
    pub(crate) panels: Panels,
    pub(crate) w: &'a [S],
    /// alpha H and alpha E; the second is empty for one trace, both where they are zero.
    pub(crate) traces: [&'a [S]; 2],
    pub(crate) alpha: &'a [S],
}

impl<'a, S: Lanes> Source<'a, S> {
    /// Sums of one matrix each.
    fn n_single(&self) -> usize {
        1 + self.traces.iter().filter(|trace| !trace.is_empty()).count()
    }

    #[inline(always)]
    fn matrices<A: Simd, F: Form>(&self) -> Matrices<'a, A, S, F> {
        let [h, e] = vectors_of::<A, S, 2>(self.traces);
        Matrices { w: F::shared::<A, S>(self.w), h, e, alpha: F::shared::<A, S>(self.alpha) }
    }
}

/// Sums down the rows.
pub(crate) struct Down<'a, S: Lanes, F> {
    pub(crate) form: PhantomData<F>,
    pub(crate) source: Source<'a, S>,
    /// s, first that of w and the traces, which is one.
    pub(crate) scalars: &'a Table<S>,
    /// `=`, `[sums, vectors]`: of w, the traces, and alpha.
    pub(crate) out: &'a mut [S],
}

/// Sums along the rows.
pub(crate) struct Along<'a, S: Lanes, F> {
    pub(crate) form: PhantomData<F>,
    pub(crate) source: Source<'a, S>,
    /// s, those of w and the traces first.
    pub(crate) scalars: &'a Table<S>,
    /// Vectors of post neurons to the left of the matrix.
    pub(crate) first: usize,
    /// Room for `[1 + sums of alpha, ROWS]` vectors.
    pub(crate) room: &'a mut [S],
    /// `=`, `[1 + sums of alpha, padded rows]`, first w and the traces together.
    pub(crate) out: &'a mut [S],
}

/// Calls a kernel for as many sums as there are.
macro_rules! choose {
    ($kernel:ident, $a:ident, $job:ident, $n_many:expr) => {
        choose!($kernel, $a, $job, $n_many, 0 1 2 3 4)
    };
    ($kernel:ident, $a:ident, $job:ident, $n_many:expr, $($many:literal)*) => {
        // 0..=MOST
        match ($job.source.n_single(), $n_many) {
            $((1, $many) => $kernel::<A, S, F, 1, $many>($a, $job),
              (2, $many) => $kernel::<A, S, F, 2, $many>($a, $job),
              (3, $many) => $kernel::<A, S, F, 3, $many>($a, $job),)*
            (single, many) => unreachable!("{single} and {many} sums"),
        }
    };
}

impl<S: Lanes, F: Form> WithSimd for Down<'_, S, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        let n_many = self.scalars.n() - 1;
        choose!(down, a, self, n_many);
    }
}

impl<S: Lanes, F: Form> WithSimd for Along<'_, S, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        let n_many = self.scalars.n() - self.source.n_single();
        choose!(along, a, self, n_many);
    }
}

/// The job, for SINGLE sums of one matrix each, and MANY of alpha.
#[inline(always)]
fn down<A: Simd, S: Lanes, F: Form, const SINGLE: usize, const MANY: usize>(
    a: A,
    job: Down<'_, S, F>,
) {
    let panels = job.source.panels;
    let mut columns = ColumnSums::<A, S, F, SINGLE, MANY> {
        a,
        source: job.source.matrices::<A, F>(),
        vectors: panels.vectors(),
        scalars: F::pre::<A, S>(job.scalars.blocks()).as_chunks().0,
        n: job.scalars.n(),
        out: S::vectors_mut::<A>(job.out),
    };
    for tile in panels.tiles(0..panels.n_rows) {
        columns.take::<A>(&tile);
    }
}

/// The same along the rows.
#[inline(always)]
fn along<A: Simd, S: Lanes, F: Form, const SINGLE: usize, const MANY: usize>(
    a: A,
    job: Along<'_, S, F>,
) {
    let panels = job.source.panels;
    let room = S::vectors_mut::<A>(job.room).as_chunks_mut().0;
    let mut sums = RowSums::<A, S, F, SINGLE, MANY> {
        a,
        source: job.source.matrices::<A, F>(),
        scalars: S::vectors::<A>(job.scalars.blocks()),
        first: job.first,
        out: &mut room[..1 + MANY],
    };
    for first in (0..panels.n_rows).step_by(ROWS) {
        let rows = first..panels.n_rows.min(first + ROWS);
        sums.out.as_flattened_mut().fill(S::splat(a, S::ZERO));
        for tile in panels.tiles(rows.clone()) {
            sums.take::<A>(&tile);
        }
        put_rows::<A, S, F>(a, sums.out, rows, panels.n_rows, job.out);
    }
}
