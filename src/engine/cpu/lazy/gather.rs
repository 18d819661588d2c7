//! Sums down the rows of several matrices at once:
//!
//! ```text
//! out_c[j] = sum_i s_c[i] M_c[i, j]
//! ```
//!
//! Forward, w and the window's first alpha H are summed with x(t), and alpha with
//! x(t) x(r) for each earlier step r of the window. Backward the same kernel runs on the
//! matrices stored by rows. All sums stay in registers; 12 bytes a connection are read.

use pulp::{Simd, WithSimd};

use crate::engine::cpu::panels::{BLOCK, Panel, Panels, Table};
use crate::engine::cpu::simd::{Lanes, Vector};

/// The most sums of `many` that a kernel is compiled for.
pub(crate) const MOST: usize = 5;

/// The job.
pub(crate) struct Gather<'a, S: Lanes> {
    pub(crate) panels: Panels,
    /// Matrices with one sum each: two, or three.
    pub(crate) single: [&'a [S]; 3],
    pub(crate) n_single: usize,
    /// The matrix that the other sums are of.
    pub(crate) many: &'a [S],
    /// s, the sums of `single` first.
    pub(crate) scalars: &'a Table<S>,
    /// `=`, `[scalars.n(), padded columns]`.
    pub(crate) out: &'a mut [S],
}

impl<S: Lanes> WithSimd for Gather<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        let n_many = self.scalars.n() - self.n_single;
        macro_rules! choose {
            ($($many:literal)*) => {
                match (self.n_single, n_many) {
                    $((2, $many) => panels::<A, S, 2, $many>(a, self),
                      (3, $many) => panels::<A, S, 3, $many>(a, self),)*
                    (single, many) => unreachable!("{single} and {many} sums"),
                }
            };
        }
        // 0..=MOST
        choose!(0 1 2 3 4 5);
    }
}

#[inline(always)]
fn panels<A: Simd, S: Lanes, const SINGLE: usize, const MANY: usize>(a: A, mut job: Gather<'_, S>) {
    // accumulators, and a vector of `many` for each, should fit the registers
    let most = match (A::REGISTER_COUNT - 1) / (SINGLE + MANY + 1) {
        0 | 1 => 1,
        2 | 3 => 2,
        _ => 4,
    };
    for panel in job.panels.iter() {
        let mut from = 0;
        while from < panel.width {
            let left = (panel.width - from).min(most);
            match left {
                4 => strip::<A, S, SINGLE, MANY, 4>(a, &mut job, panel, from),
                3 => strip::<A, S, SINGLE, MANY, 3>(a, &mut job, panel, from),
                2 => strip::<A, S, SINGLE, MANY, 2>(a, &mut job, panel, from),
                _ => strip::<A, S, SINGLE, MANY, 1>(a, &mut job, panel, from),
            }
            from += left;
        }
    }
}

/// V vectors of a panel, from vector `from` of its rows.
#[inline(always)]
fn strip<A: Simd, S: Lanes, const SINGLE: usize, const MANY: usize, const V: usize>(
    a: A,
    job: &mut Gather<'_, S>,
    panel: Panel,
    from: usize,
) {
    let panels = job.panels;
    let n_rows = panels.n_rows;
    let part = panels.vectors_of(panel);
    let single: [&[Vector<A, S>]; SINGLE] =
        std::array::from_fn(|s| &S::vectors::<A>(job.single[s])[part.clone()]);
    let many = &S::vectors::<A>(job.many)[part];
    let zero = S::splat(a, S::ZERO);
    let mut sum = [[zero; V]; SINGLE];
    let mut sums = [[zero; V]; MANY];
    for (b, block) in job.scalars.blocks().chunks_exact((SINGLE + MANY) * BLOCK).enumerate() {
        let first = b * BLOCK;
        if first >= n_rows {
            break;
        }
        for k in 0..BLOCK.min(n_rows - first) {
            let at = (first + k) * panel.width + from;
            for s in 0..SINGLE {
                let row = &single[s][at..at + V];
                let x = S::splat(a, block[s * BLOCK + k]);
                for v in 0..V {
                    sum[s][v] = S::fma(a, x, row[v], sum[s][v]);
                }
            }
            let mut row = [zero; V];
            row.copy_from_slice(&many[at..at + V]);
            for r in 0..MANY {
                let x = S::splat(a, block[(SINGLE + r) * BLOCK + k]);
                for v in 0..V {
                    sums[r][v] = S::fma(a, x, row[v], sums[r][v]);
                }
            }
        }
    }
    let out = S::vectors_mut::<A>(job.out);
    let stride = panels.vectors();
    for (c, sum) in sum.iter().chain(&sums).enumerate() {
        let at = c * stride + panel.first + from;
        out[at..at + V].copy_from_slice(sum);
    }
}
