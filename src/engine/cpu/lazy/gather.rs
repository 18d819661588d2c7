//! Sums over several matrices at once, down their rows (forward) or along them (backward):
//!
//! ```text
//! Down:   out_c[j] = sum_i s_c[i] M_c[i, j]
//! Along:  out_c[i] = sum_j s_c[j] M_c[i, j]
//! ```
//!
//! w and the window's first alpha H (alpha E) have one sum each (along the rows, one
//! together), alpha has one for every earlier step of the window. Sums stay in registers (but
//! see [`LARGE`]); 12 bytes a connection are read, 8 while the traces are zero.

#![expect(clippy::needless_range_loop, reason = "an index for arrays and for lanes alike")]

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::engine::cpu::form::{Form, lanes_of};
use crate::engine::cpu::panels::{BLOCK, Panel, Panels, ROWS, Table, VECTORS, padded};
use crate::engine::cpu::simd::{Lanes, Vector};

/// The most sums of alpha that a kernel is compiled for.
pub(crate) const MOST: usize = 5;

/// Bytes of a share's w above which its matrices come from beyond the core's own cache, and
/// should come in order, each line once: sums along take [`ROWS`] rows of a panel at a time, sums
/// down [`HEIGHT`] blocks of the scalars' table. What is summed so far waits in memory. At 1001
/// neurons that takes 0.64 to 0.78 of the time (where 12 MB do not fit the last cache), at 200 to
/// 500 as long as without.
const LARGE: usize = 1 << 20;
const HEIGHT: usize = 8;

fn is_large<S>(panels: Panels) -> bool {
    panels.len() * size_of::<S>() > LARGE
}

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

    /// The traces as vectors.
    #[inline(always)]
    fn vectors<A: Simd>(&self) -> [&'a [Vector<A, S>]; 2] {
        self.traces.map(S::vectors::<A>)
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
    /// Room for `[1 + sums of alpha, rows]` vectors.
    pub(crate) room: &'a mut [S],
    /// `=`, `[1 + sums of alpha, padded rows]`: first w and the traces together.
    pub(crate) out: &'a mut [S],
}

/// Calls a kernel for as many sums as there are.
macro_rules! choose {
    ($kernel:ident, $a:ident, $job:ident, $n_many:expr) => {
        choose!($kernel, $a, $job, $n_many, 0 1 2 3 4 5)
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

#[inline(always)]
fn down<A: Simd, S: Lanes, F: Form, const SINGLE: usize, const MANY: usize>(
    a: A,
    mut job: Down<'_, S, F>,
) {
    // accumulators, and a vector of alpha for each, should fit the registers
    let most = match (A::REGISTER_COUNT - 1) / (SINGLE + MANY + 1) {
        0 | 1 => 1,
        2 | 3 => 2,
        _ => 4,
    };
    let panels = job.source.panels;
    let n_blocks = panels.n_rows.div_ceil(BLOCK / F::step::<A, S>());
    let height = if is_large::<S>(panels) { HEIGHT } else { n_blocks };
    for panel in panels.iter() {
        for first in (0..n_blocks).step_by(height) {
            let blocks = first..n_blocks.min(first + height);
            let mut from = 0;
            while from < panel.width {
                let left = (panel.width - from).min(most);
                match left {
                    4 => strip::<A, S, F, SINGLE, MANY, 4>(a, &mut job, panel, from, &blocks),
                    3 => strip::<A, S, F, SINGLE, MANY, 3>(a, &mut job, panel, from, &blocks),
                    2 => strip::<A, S, F, SINGLE, MANY, 2>(a, &mut job, panel, from, &blocks),
                    _ => strip::<A, S, F, SINGLE, MANY, 1>(a, &mut job, panel, from, &blocks),
                }
                from += left;
            }
        }
    }
}

/// V vectors of a panel, from vector `from` of its rows, in the rows of some of the table's
/// blocks; adds to the sums of the blocks before.
#[inline(always)]
fn strip<A: Simd, S: Lanes, F: Form, const SINGLE: usize, const MANY: usize, const V: usize>(
    a: A,
    job: &mut Down<'_, S, F>,
    panel: Panel,
    from: usize,
    blocks: &Range<usize>,
) {
    let Source { panels, w, alpha, .. } = job.source;
    let traces = job.source.vectors::<A>();
    let (n_rows, start, step) = (panels.n_rows, n_before(panels, panel) + from, F::step::<A, S>());
    let zero = S::splat(a, S::ZERO);
    let mut sum = [[zero; V]; SINGLE];
    let mut sums = [[zero; V]; MANY];
    let per_block = BLOCK / step;
    if blocks.start > 0 {
        let out = S::vectors::<A>(job.out);
        for (c, sum) in sum.iter_mut().chain(&mut sums).enumerate() {
            let at = c * panels.vectors() + panel.first + from;
            sum.copy_from_slice(&out[at..at + V]);
        }
    }
    let len = (1 + MANY) * BLOCK;
    let scalars = &job.scalars.blocks()[blocks.start * len..blocks.end * len];
    for (b, block) in blocks.clone().zip(scalars.chunks_exact(len)) {
        let first = b * per_block;
        for k in 0..per_block.min(n_rows - first) {
            let at = start + (first + k) * panel.width;
            let x = F::pre(a, block, k * step);
            let row = F::part::<A, S>(w, at, V);
            for v in 0..V {
                sum[0][v] = S::fma(a, x, F::shared(a, row, v), sum[0][v]);
            }
            for s in 1..SINGLE {
                let row = &traces[s - 1][at..at + V];
                for v in 0..V {
                    sum[s][v] = S::fma(a, x, row[v], sum[s][v]);
                }
            }
            let mut row = [zero; V];
            if MANY > 0 {
                let part = F::part::<A, S>(alpha, at, V);
                for v in 0..V {
                    row[v] = F::shared(a, part, v);
                }
            }
            for r in 0..MANY {
                let x = F::pre(a, block, (1 + r) * BLOCK + k * step);
                for v in 0..V {
                    sums[r][v] = S::fma(a, x, row[v], sums[r][v]);
                }
            }
        }
    }
    let out = S::vectors_mut::<A>(job.out);
    for (c, sum) in sum.iter().chain(&sums).enumerate() {
        let at = c * panels.vectors() + panel.first + from;
        out[at..at + V].copy_from_slice(sum);
    }
}

/// Vectors of the panels to the left of one.
fn n_before(panels: Panels, panel: Panel) -> usize {
    panels.n_rows * panel.first
}

#[inline(always)]
fn along<A: Simd, S: Lanes, F: Form, const SINGLE: usize, const MANY: usize>(
    a: A,
    mut job: Along<'_, S, F>,
) {
    let panels = job.source.panels;
    let n_panels = panels.iter().len();
    let width = if is_large::<S>(panels) { 1 } else { n_panels };
    for first in (0..panels.n_rows).step_by(ROWS) {
        let rows = first..panels.n_rows.min(first + ROWS);
        for first in (0..n_panels).step_by(width) {
            let some = first..n_panels.min(first + width);
            some_rows::<A, S, F, SINGLE, MANY>(a, &mut job, rows.clone(), &some);
        }
    }
}

/// Some rows of some panels, in groups.
#[inline(always)]
fn some_rows<A: Simd, S: Lanes, F: Form, const SINGLE: usize, const MANY: usize>(
    a: A,
    job: &mut Along<'_, S, F>,
    rows: Range<usize>,
    panels: &Range<usize>,
) {
    // rows whose sums half of the registers hold; four gain nothing where lanes are neurons
    let two = 2 * (MANY + 1) <= A::REGISTER_COUNT / 2;
    let four = F::EPISODES && 4 * (MANY + 1) <= A::REGISTER_COUNT / 2;
    let mut row = rows.start;
    while row < rows.end {
        row += if four && row + 3 < rows.end {
            group::<A, S, F, SINGLE, MANY, 4>(a, job, row, panels)
        } else if two && row + 1 < rows.end {
            group::<A, S, F, SINGLE, MANY, 2>(a, job, row, panels)
        } else {
            group::<A, S, F, SINGLE, MANY, 1>(a, job, row, panels)
        };
    }
}

/// Sums of G rows: of w and the traces together, and of alpha.
type Sums<A, S, const MANY: usize, const G: usize> = ([Vector<A, S>; G], [[Vector<A, S>; G]; MANY]);

/// G rows from `row` on, of some panels: their sums come from the room but for the first panels,
/// and go there but for the last. Returns G.
#[inline(always)]
fn group<A: Simd, S: Lanes, F: Form, const SINGLE: usize, const MANY: usize, const G: usize>(
    a: A,
    job: &mut Along<'_, S, F>,
    row: usize,
    panels: &Range<usize>,
) -> usize {
    let zero = S::splat(a, S::ZERO);
    let all = job.source.panels;
    // handed on by value: what is borrowed does not stay in registers
    let mut sums: Sums<A, S, MANY, G> = ([zero; G], [[zero; G]; MANY]);
    if panels.start > 0 {
        let room = S::vectors::<A>(job.room);
        sums.0.copy_from_slice(&room[row..][..G]);
        for r in 0..MANY {
            sums.1[r].copy_from_slice(&room[(1 + r) * all.n_rows + row..][..G]);
        }
    }
    for panel in all.iter().skip(panels.start).take(panels.len()) {
        if panel.width == VECTORS {
            sums = part::<A, S, F, SINGLE, MANY, G, VECTORS>(a, job, panel, 0, row, sums);
        } else {
            for v in 0..panel.width {
                sums = part::<A, S, F, SINGLE, MANY, G, 1>(a, job, panel, v, row, sums);
            }
        }
    }
    if panels.end == all.iter().len() {
        let stride = padded(all.n_rows * F::step::<A, S>()) / F::step::<A, S>();
        F::put(a, &sums.0, job.out, row);
        for r in 0..MANY {
            F::put(a, &sums.1[r], job.out, (1 + r) * stride + row);
        }
    } else {
        let room = S::vectors_mut::<A>(job.room);
        room[row..][..G].copy_from_slice(&sums.0);
        for r in 0..MANY {
            room[(1 + r) * all.n_rows + row..][..G].copy_from_slice(&sums.1[r]);
        }
    }
    G
}

/// What W vectors of a panel add to some rows' sums, from vector `from` on; W is 1 or the
/// panel's width.
#[inline(always)]
fn part<
    A: Simd,
    S: Lanes,
    F: Form,
    const SINGLE: usize,
    const MANY: usize,
    const G: usize,
    const W: usize,
>(
    a: A,
    job: &Along<'_, S, F>,
    panel: Panel,
    from: usize,
    row: usize,
    (mut sum, mut sums): Sums<A, S, MANY, G>,
) -> Sums<A, S, MANY, G> {
    let Source { panels, w, alpha, .. } = job.source;
    let width = if W == 1 { panel.width } else { W };
    let (at, n) = (n_before(panels, panel) + row * width + from, (G - 1) * width + W);
    let (w, alpha) = (F::part::<A, S>(w, at, n), F::part::<A, S>(alpha, at, n));
    let [h, e] = job.source.vectors::<A>();
    let h = if SINGLE > 1 { &h[at..at + n] } else { h };
    let e = if SINGLE > 2 { &e[at..at + n] } else { e };
    let lanes = lanes_of::<A, S>();
    let block = (SINGLE + MANY) * BLOCK;
    let first = (job.first + panel.first + from) * lanes;
    let scalars = &job.scalars.blocks()[first / BLOCK * block + first % BLOCK..];
    for v in 0..W {
        let at = v * lanes / BLOCK * block + v * lanes % BLOCK;
        let scalars = &scalars[at..][..(SINGLE + MANY - 1) * BLOCK + lanes];
        for s in 0..SINGLE {
            let x = S::vectors::<A>(&scalars[s * BLOCK..][..lanes])[0];
            for g in 0..G {
                let k = g * width + v;
                let value = match s {
                    0 => F::shared(a, w, k),
                    1 => h[k],
                    _ => e[k],
                };
                sum[g] = S::fma(a, x, value, sum[g]);
            }
        }
        for g in 0..G {
            let alpha = F::shared(a, alpha, g * width + v);
            for r in 0..MANY {
                let x = S::vectors::<A>(&scalars[(SINGLE + r) * BLOCK..][..lanes])[0];
                sums[r][g] = S::fma(a, x, alpha, sums[r][g]);
            }
        }
    }
    (sum, sums)
}
