//! Sums over the tiles of several matrices at once, down their columns or along their rows:
//! those of a step (`gather.rs`), and those with Q at a window's end (`fold.rs`).
//!
//! SINGLE matrices have one sum each, of w, alpha H, alpha E in this order, and alpha has MANY;
//! where SINGLE is 0, alpha H alone is there, and has MANY.
//!
//! Loops run over arrays of known length, and what they read is cut to one length before them:
//! an index that the compiler must check costs as much as the sum itself.

#![expect(clippy::needless_range_loop, reason = "an index for arrays and for lanes alike")]

use std::ops::Range;

use pulp::Simd;

use crate::engine::cpu::form::{Form, lanes_of};
use crate::engine::cpu::panels::{BLOCK, ROWS, Sweep, Tile, padded, rows_of};
use crate::engine::cpu::simd::{Lanes, Vector};

/// w, alpha H, alpha E and alpha; what a kernel does not read may be empty.
#[derive(Clone, Copy)]
pub(crate) struct Matrices<'a, A: Simd, S: Lanes, F: Form> {
    pub(crate) w: &'a [F::Shared<A, S>],
    pub(crate) h: &'a [Vector<A, S>],
    pub(crate) e: &'a [Vector<A, S>],
    pub(crate) alpha: &'a [F::Shared<A, S>],
}

impl<'a, A: Simd, S: Lanes, F: Form> Matrices<'a, A, S, F> {
    /// `n` rows of W vectors from vector `at` on.
    #[inline(always)]
    fn rows<const SINGLE: usize, const MANY: usize, const W: usize>(
        self,
        at: usize,
        n: usize,
    ) -> Part<'a, A, S, F, SINGLE, MANY, W> {
        let reads = Part::<'a, A, S, F, SINGLE, MANY, W>::READS;
        Part {
            w: if reads[0] { &rows_of(&self.w[at..])[..n] } else { &[] },
            h: if reads[1] { &rows_of(&self.h[at..])[..n] } else { &[] },
            e: if reads[2] { &rows_of(&self.e[at..])[..n] } else { &[] },
            alpha: if reads[3] { &rows_of(&self.alpha[at..])[..n] } else { &[] },
        }
    }
}

/// Some rows of them, W vectors each.
struct Part<'a, A: Simd, S: Lanes, F: Form, const SINGLE: usize, const MANY: usize, const W: usize>
{
    w: &'a [[F::Shared<A, S>; W]],
    h: &'a [[Vector<A, S>; W]],
    e: &'a [[Vector<A, S>; W]],
    alpha: &'a [[F::Shared<A, S>; W]],
}

impl<A: Simd, S: Lanes, F: Form, const SINGLE: usize, const MANY: usize, const W: usize>
    Part<'_, A, S, F, SINGLE, MANY, W>
{
    /// Which of w, alpha H, alpha E and alpha are read; the others are empty.
    const READS: [bool; 4] = [SINGLE > 0, SINGLE != 1, SINGLE > 2, SINGLE > 0 && MANY > 0];

    /// Takes the first `n` rows away from it, and returns them.
    #[inline(always)]
    fn split_off(&mut self, n: usize) -> Self {
        let mut first = Part { w: &[], h: &[], e: &[], alpha: &[] };
        if Self::READS[0] {
            (first.w, self.w) = self.w.split_at(n);
        }
        if Self::READS[1] {
            (first.h, self.h) = self.h.split_at(n);
        }
        if Self::READS[2] {
            (first.e, self.e) = self.e.split_at(n);
        }
        if Self::READS[3] {
            (first.alpha, self.alpha) = self.alpha.split_at(n);
        }
        first
    }

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
    fn many(&self, a: A, row: usize, v: usize) -> Vector<A, S> {
        if SINGLE == 0 { self.h[row][v] } else { F::load(a, self.alpha[row][v]) }
    }
}

/// Sums of W vectors of columns: those of one matrix each, and those of alpha.
type Sums<A, S, const SINGLE: usize, const MANY: usize, const W: usize> =
    ([[Vector<A, S>; W]; SINGLE], [[Vector<A, S>; W]; MANY]);

/// Sums down the columns of tiles, which stay in registers down a tile.
pub(crate) struct ColumnSums<
    'a,
    'b,
    A: Simd,
    S: Lanes,
    F: Form,
    const SINGLE: usize,
    const MANY: usize,
> {
    pub(crate) a: A,
    pub(crate) source: Matrices<'a, A, S, F>,
    /// Vectors of a row.
    pub(crate) vectors: usize,
    /// Blocks of n values; w and the traces share the first.
    pub(crate) scalars: &'a [[F::Pre<A, S>; BLOCK]],
    pub(crate) n: usize,
    /// `[sums, vectors]`: `=` of tiles that start with the first row, `+=` of the others.
    pub(crate) out: &'b mut [Vector<A, S>],
}

impl<A: Simd, S: Lanes, F: Form, const SINGLE: usize, const MANY: usize> Sweep
    for ColumnSums<'_, '_, A, S, F, SINGLE, MANY>
{
    #[inline(always)]
    fn tile<const W: usize>(&mut self, tile: &Tile) {
        let (a, vectors, first) = (self.a, self.vectors, tile.panel.first);
        let zero = S::splat(a, S::ZERO);
        let mut sums: Sums<A, S, SINGLE, MANY, W> = ([[zero; W]; SINGLE], [[zero; W]; MANY]);
        if tile.rows.start > 0 {
            for (c, sum) in sums.0.iter_mut().chain(&mut sums.1).enumerate() {
                sum.copy_from_slice(&self.out[c * vectors + first..][..W]);
            }
        }
        let mut part = self.source.rows::<SINGLE, MANY, W>(tile.at, tile.rows.len());
        for (block, _, n) in tile.blocks() {
            let scalars = &self.scalars[block * self.n..];
            sums = add_block(a, &part.split_off(n), n, scalars, sums);
        }
        for (c, sum) in sums.0.iter().chain(&sums.1).enumerate() {
            self.out[c * vectors + first..][..W].copy_from_slice(sum);
        }
    }
}

/// What the `n` rows of one block of the table add to the sums.
#[inline(always)]
fn add_block<A: Simd, S: Lanes, F: Form, const SINGLE: usize, const MANY: usize, const W: usize>(
    a: A,
    part: &Part<'_, A, S, F, SINGLE, MANY, W>,
    n: usize,
    scalars: &[[F::Pre<A, S>; BLOCK]],
    (mut single, mut many): Sums<A, S, SINGLE, MANY, W>,
) -> Sums<A, S, SINGLE, MANY, W> {
    let shared = SINGLE.min(1);
    let scalars = &scalars[..shared + MANY];
    for k in 0..n {
        for s in 0..SINGLE {
            let x = F::spread(a, scalars[0][k]);
            for v in 0..W {
                single[s][v] = S::fma(a, x, part.single(a, s, k, v), single[s][v]);
            }
        }
        if MANY > 0 {
            let mut row = [S::splat(a, S::ZERO); W];
            for v in 0..W {
                row[v] = part.many(a, k, v);
            }
            for r in 0..MANY {
                let x = F::spread(a, scalars[shared + r][k]);
                for v in 0..W {
                    many[r][v] = S::fma(a, x, row[v], many[r][v]);
                }
            }
        }
    }
    (single, many)
}

/// Sums along the rows of tiles, w and the traces together; the scalars stay in registers down a
/// tile. [`ROWS`] rows at a time are taken through all panels, so that their sums stay in the first
/// cache.
pub(crate) struct RowSums<
    'a,
    'b,
    A: Simd,
    S: Lanes,
    F: Form,
    const SINGLE: usize,
    const MANY: usize,
> {
    pub(crate) a: A,
    pub(crate) source: Matrices<'a, A, S, F>,
    /// A table's values, those of w and the traces first.
    pub(crate) scalars: &'a [Vector<A, S>],
    /// Vectors of post neurons to the left of the matrix.
    pub(crate) first: usize,
    /// `+=`, of each sum.
    pub(crate) out: &'b mut [[Vector<A, S>; ROWS]],
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
        let out = &mut self.out[..first_many + MANY];
        for k in 0..n {
            if SINGLE > 0 {
                let mut sum = out[0][k];
                for s in 0..SINGLE {
                    for v in 0..W {
                        sum = S::fma(a, values.0[s][v], part.single(a, s, k, v), sum);
                    }
                }
                out[0][k] = sum;
            }
            if MANY > 0 {
                let mut row = [zero; W];
                for v in 0..W {
                    row[v] = part.many(a, k, v);
                }
                for r in 0..MANY {
                    let mut sum = out[first_many + r][k];
                    for v in 0..W {
                        sum = S::fma(a, values.1[r][v], row[v], sum);
                    }
                    out[first_many + r][k] = sum;
                }
            }
        }
    }
}

/// `out =` the sums along some of `n_rows` rows, which stand in vectors; `[sums, padded rows]`.
#[inline(always)]
pub(crate) fn put_rows<A: Simd, S: Lanes, F: Form>(
    a: A,
    sums: &[[Vector<A, S>; ROWS]],
    rows: Range<usize>,
    n_rows: usize,
    out: &mut [S],
) {
    let each = if F::EPISODES { lanes_of::<A, S>() } else { 1 };
    let stride = padded(n_rows * each) / each;
    for (c, sums) in sums.iter().enumerate() {
        F::put(a, &sums[..rows.len()], out, c * stride + rows.start);
    }
}
