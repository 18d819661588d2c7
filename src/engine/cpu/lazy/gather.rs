//! Sums over several matrices at once, down their rows (forward) or along them (backward):
//!
//! ```text
//! Down:   out_c[j] = sum_i s_c[i] M_c[i, j]
//! Along:  out_c[i] = sum_j s_c[j] M_c[i, j]
//! ```
//!
//! w and the window's first alpha H (alpha E) have one sum each (along the rows, one
//! together), alpha has one for every earlier step of the window. Down a tile its
//! sums stay in registers; along its rows the scalars do, and the sums of [`ROWS`] rows in the first
//! cache. 12 bytes a connection are read, 8 while the traces are zero. The fold has its sums with Q
//! made here too.
//!
//! Loops run over arrays of known length, and what they read is cut to one length before them:
//! an index that the compiler must check costs as much as the sum itself.

#![expect(clippy::needless_range_loop, reason = "an index for arrays and for lanes alike")]

use std::marker::PhantomData;

use pulp::{Simd, WithSimd};

use crate::engine::cpu::form::{Form, lanes_of};
use crate::engine::cpu::panels::{BLOCK, Panels, ROWS, Sweep, Table, Tile, padded, rows_of};
use crate::engine::cpu::simd::{Lanes, Vector};

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

    /// The matrices of a kernel for so many sums of one each, all of one length, so that one
    /// check serves all.
    #[inline(always)]
    fn matrices<A: Simd, F: Form, const SINGLE: usize>(&self) -> Matrices<'a, A, S, F> {
        let n = self.panels.len() / self.panels.lanes;
        Matrices {
            w: if SINGLE > 0 { &F::shared::<A, S>(self.w)[..n] } else { &[] },
            h: if SINGLE != 1 { &S::vectors::<A>(self.traces[0])[..n] } else { &[] },
            e: if SINGLE > 2 { &S::vectors::<A>(self.traces[1])[..n] } else { &[] },
            alpha: if SINGLE > 0 { &F::shared::<A, S>(self.alpha)[..n] } else { &[] },
        }
    }
}

/// w, alpha H, alpha E and alpha; what a kernel does not read is empty.
#[derive(Clone, Copy)]
struct Matrices<'a, A: Simd, S: Lanes, F: Form> {
    w: &'a [F::Shared<A, S>],
    h: &'a [Vector<A, S>],
    e: &'a [Vector<A, S>],
    alpha: &'a [F::Shared<A, S>],
}

/// Some rows of them, W vectors each.
struct Part<'a, A: Simd, S: Lanes, F: Form, const W: usize> {
    w: &'a [[F::Shared<A, S>; W]],
    h: &'a [[Vector<A, S>; W]],
    e: &'a [[Vector<A, S>; W]],
    alpha: &'a [[F::Shared<A, S>; W]],
}

impl<'a, A: Simd, S: Lanes, F: Form> Matrices<'a, A, S, F> {
    /// `n` rows from element `at` on.
    #[inline(always)]
    fn rows<const SINGLE: usize, const MANY: usize, const W: usize>(
        self,
        at: usize,
        n: usize,
    ) -> Part<'a, A, S, F, W> {
        let alpha = SINGLE > 0 && MANY > 0;
        Part {
            w: if SINGLE > 0 { rows_of(&self.w[at..][..n * W]) } else { &[] },
            h: if SINGLE != 1 { rows_of(&self.h[at..][..n * W]) } else { &[] },
            e: if SINGLE > 2 { rows_of(&self.e[at..][..n * W]) } else { &[] },
            alpha: if alpha { rows_of(&self.alpha[at..][..n * W]) } else { &[] },
        }
    }
}

impl<A: Simd, S: Lanes, F: Form, const W: usize> Part<'_, A, S, F, W> {
    /// A vector of the matrix that has sum `s` of one each.
    #[inline(always)]
    fn single(&self, a: A, s: usize, row: usize, v: usize) -> Vector<A, S> {
        match s {
            0 => F::load(a, self.w[row][v]),
            1 => self.h[row][v],
            _ => self.e[row][v],
        }
    }

    /// A vector of the matrix that has many.
    #[inline(always)]
    fn many<const SINGLE: usize>(&self, a: A, row: usize, v: usize) -> Vector<A, S> {
        if SINGLE == 0 { self.h[row][v] } else { F::load(a, self.alpha[row][v]) }
    }
}

/// Sums down the rows.
pub(crate) struct Down<'a, S: Lanes, F> {
    pub(crate) form: PhantomData<F>,
    pub(crate) source: Source<'a, S>,
    /// s, first that of w and the traces, which is one.
    pub(crate) scalars: &'a Table<S>,
    /// The matrix's first row, which starts a block, and the first s, in there.
    pub(crate) from: (usize, usize),
    /// `[sums, vectors]`: of w, the traces, and alpha; `+=` with `add`, else `=`.
    pub(crate) add: bool,
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
    /// The matrix's first row, and how many rows there are to the sums.
    pub(crate) rows: (usize, usize),
    /// `[1 + sums of alpha, padded rows]`, first w and the traces together (not where there are
    /// none); `+=` with `add`, else `=`.
    pub(crate) add: bool,
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

/// Sums of W vectors of columns: those of one matrix each, and those of alpha.
type Sums<A, S, const SINGLE: usize, const MANY: usize, const W: usize> =
    ([[Vector<A, S>; W]; SINGLE], [[Vector<A, S>; W]; MANY]);

/// The job, for SINGLE sums of one matrix each, and MANY of alpha; where SINGLE is 0, MANY of the
/// first trace alone.
#[inline(always)]
pub(crate) fn down<A: Simd, S: Lanes, F: Form, const SINGLE: usize, const MANY: usize>(
    a: A,
    job: Down<'_, S, F>,
) {
    let panels = job.source.panels;
    let (row, value) = job.from;
    let scalars = F::pre::<A, S>(job.scalars.blocks()).as_chunks().0;
    let mut columns = ColumnSums::<A, S, F, SINGLE, MANY> {
        a,
        source: job.source.matrices::<A, F, SINGLE>(),
        vectors: panels.vectors(),
        scalars: &scalars[row / BLOCK * job.scalars.n() + value..],
        n: job.scalars.n(),
        add: job.add,
        out: S::vectors_mut::<A>(job.out),
    };
    for tile in panels.tiles(0..panels.n_rows) {
        columns.take::<A>(&tile);
    }
}

/// Sums down the columns of tiles; those of the bands before are in `out`.
struct ColumnSums<'a, 'b, A: Simd, S: Lanes, F: Form, const SINGLE: usize, const MANY: usize> {
    a: A,
    source: Matrices<'a, A, S, F>,
    /// Vectors of a row.
    vectors: usize,
    /// Blocks of n values, from the first row's on.
    scalars: &'a [[F::Pre<A, S>; BLOCK]],
    n: usize,
    add: bool,
    out: &'b mut [Vector<A, S>],
}

impl<A: Simd, S: Lanes, F: Form, const SINGLE: usize, const MANY: usize> Sweep
    for ColumnSums<'_, '_, A, S, F, SINGLE, MANY>
{
    #[inline(always)]
    fn tile<const W: usize>(&mut self, tile: &Tile) {
        let (a, source, vectors, first) = (self.a, self.source, self.vectors, tile.panel.first);
        let zero = S::splat(a, S::ZERO);
        let mut sums: Sums<A, S, SINGLE, MANY, W> = ([[zero; W]; SINGLE], [[zero; W]; MANY]);
        if self.add || tile.rows.start > 0 {
            for (c, sum) in sums.0.iter_mut().chain(&mut sums.1).enumerate() {
                sum.copy_from_slice(&self.out[c * vectors + first..][..W]);
            }
        }
        for (block, rows) in tile.blocks() {
            let scalars = &self.scalars[block * self.n..];
            let part = (tile.at + rows.start * W, rows.len());
            sums = self::block::<A, S, F, SINGLE, MANY, W>(a, source, part, scalars, sums);
        }
        for (c, sum) in sums.0.iter().chain(&sums.1).enumerate() {
            self.out[c * vectors + first..][..W].copy_from_slice(sum);
        }
    }
}

/// What the rows of one block of the table add to the sums.
#[inline(always)]
fn block<A: Simd, S: Lanes, F: Form, const SINGLE: usize, const MANY: usize, const W: usize>(
    a: A,
    source: Matrices<'_, A, S, F>,
    (at, n): (usize, usize),
    scalars: &[[F::Pre<A, S>; BLOCK]],
    (mut single, mut many): Sums<A, S, SINGLE, MANY, W>,
) -> Sums<A, S, SINGLE, MANY, W> {
    let part = source.rows::<SINGLE, MANY, W>(at, n);
    // w and the traces share the first
    let shared = SINGLE.min(1);
    let scalars = &scalars[..shared + MANY];
    for k in 0..n {
        // which k is below in any case
        let place = k % BLOCK;
        for s in 0..SINGLE {
            let x = F::spread(a, scalars[0][place]);
            for v in 0..W {
                single[s][v] = S::fma(a, x, part.single(a, s, k, v), single[s][v]);
            }
        }
        if MANY > 0 {
            let mut row = [S::splat(a, S::ZERO); W];
            for v in 0..W {
                row[v] = part.many::<SINGLE>(a, k, v);
            }
            for r in 0..MANY {
                let x = F::spread(a, scalars[shared + r][place]);
                for v in 0..W {
                    many[r][v] = S::fma(a, x, row[v], many[r][v]);
                }
            }
        }
    }
    (single, many)
}

/// The same along the rows: [`ROWS`] of them at a time through all panels, so that their sums stay
/// in the first cache.
#[inline(always)]
pub(crate) fn along<A: Simd, S: Lanes, F: Form, const SINGLE: usize, const MANY: usize>(
    a: A,
    job: Along<'_, S, F>,
) {
    let panels = job.source.panels;
    let source = job.source.matrices::<A, F, SINGLE>();
    for first in (0..panels.n_rows).step_by(ROWS) {
        let rows = first..panels.n_rows.min(first + ROWS);
        let room = S::vectors_mut::<A>(job.room).as_chunks_mut::<ROWS>().0;
        let room = &mut room[..SINGLE.min(1) + MANY];
        for sums in &mut *room {
            sums[..rows.len()].fill(S::splat(a, S::ZERO));
        }
        let mut tiles = RowSums::<A, S, F, SINGLE, MANY> {
            a,
            source,
            scalars: S::vectors::<A>(job.scalars.blocks()),
            first: job.first,
            room: &mut *room,
        };
        for tile in panels.tiles(rows.clone()) {
            tiles.take::<A>(&tile);
        }
        let (first, n_rows) = job.rows;
        let each = if F::EPISODES { lanes_of::<A, S>() } else { 1 };
        let (stride, at) = (padded(n_rows * each) / each, first + rows.start);
        for (c, sums) in room.iter().enumerate() {
            F::put(a, &sums[..rows.len()], job.out, c * stride + at, job.add);
        }
    }
}

/// Sums along the rows of tiles.
struct RowSums<'a, 'b, A: Simd, S: Lanes, F: Form, const SINGLE: usize, const MANY: usize> {
    a: A,
    source: Matrices<'a, A, S, F>,
    scalars: &'a [Vector<A, S>],
    /// Vectors of post neurons to the left of the matrix.
    first: usize,
    /// `+=`, of each sum.
    room: &'b mut [[Vector<A, S>; ROWS]],
}

impl<A: Simd, S: Lanes, F: Form, const SINGLE: usize, const MANY: usize> Sweep
    for RowSums<'_, '_, A, S, F, SINGLE, MANY>
{
    #[inline(always)]
    fn tile<const W: usize>(&mut self, tile: &Tile) {
        let a = self.a;
        // the vectors of a value in a block; those of a panel lie together or in whole blocks
        let each = if F::EPISODES { BLOCK } else { BLOCK / lanes_of::<A, S>() };
        let place = |v: usize| v / each * (SINGLE + MANY) * each + v % each;
        let scalars = &self.scalars[place(self.first + tile.panel.first)..];
        let zero = S::splat(a, S::ZERO);
        let mut values = ([[zero; W]; SINGLE], [[zero; W]; MANY]);
        let scalars = &scalars[..place(W - 1) + (SINGLE + MANY - 1) * each + 1];
        for v in 0..W {
            for s in 0..SINGLE {
                values.0[s][v] = scalars[place(v) + s * each];
            }
            for r in 0..MANY {
                values.1[r][v] = scalars[place(v) + (SINGLE + r) * each];
            }
        }
        // which there are not more of in any case
        let n = tile.rows.len().min(ROWS);
        let part = self.source.rows::<SINGLE, MANY, W>(tile.at, n);
        let first_many = SINGLE.min(1);
        let room = &mut self.room[..first_many + MANY];
        for k in 0..n {
            if SINGLE > 0 {
                let mut sum = room[0][k];
                for s in 0..SINGLE {
                    for v in 0..W {
                        sum = S::fma(a, values.0[s][v], part.single(a, s, k, v), sum);
                    }
                }
                room[0][k] = sum;
            }
            if MANY > 0 {
                let mut row = [zero; W];
                for v in 0..W {
                    row[v] = part.many::<SINGLE>(a, k, v);
                }
                for r in 0..MANY {
                    let mut sum = room[first_many + r][k];
                    for v in 0..W {
                        sum = S::fma(a, values.1[r][v], row[v], sum);
                    }
                    room[first_many + r][k] = sum;
                }
            }
        }
    }
}
