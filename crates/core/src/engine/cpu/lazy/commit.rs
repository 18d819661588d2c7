//! The window's end forward: the plastic weights alpha H (and alpha E) are taken over its
//! steps,
//!
//! ```text
//! alpha H' = alpha H + C alpha E + alpha sum_r b_r x_r
//! alpha E' =           A alpha E + alpha sum_r b_r x_r      (with one trace: H alone, as E)
//! ```
//!
//! where A, C and b belong to the post neuron and x to the pre neuron (`window.rs`).

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::engine::cpu::form::{Form, lanes_of};
use crate::engine::cpu::panels::{
    Panels, RowsView, Sweep, Table, Tile, add_steps, row_of, steps_of, tile_of, tiles_of_mut,
};
use crate::engine::cpu::simd::{Lanes, Vector, vectors_mut_of, vectors_of};
use crate::engine::cpu::{CACHED_WINDOW, WINDOW};

/// The job.
pub(crate) struct Commit<'a, S: Lanes, F> {
    pub(crate) form: PhantomData<F>,
    pub(crate) panels: Panels,
    /// The window's.
    pub(crate) steps: Range<usize>,
    /// A, and C where there are two traces; these and the next from the matrix's first column
    /// on.
    pub(crate) keep: &'a [S],
    pub(crate) cross: &'a [S],
    /// b of the Hebbian trace, and of H where that is E.
    pub(crate) b: RowsView<'a, S>,
    pub(crate) b_h: RowsView<'a, S>,
    /// x of all steps.
    pub(crate) x: &'a Table<S>,
    pub(crate) alpha: &'a [S],
    /// alpha H and alpha E before; the second is empty for one trace, both where they are zero.
    pub(crate) from: [&'a [S]; 2],
    /// `=`, the same after.
    pub(crate) to: [&'a mut [S]; 2],
    /// Room for b and b_h.
    pub(crate) room: &'a mut [S],
}

impl<S: Lanes, F: Form> WithSimd for Commit<'_, S, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        match (self.to[1].is_empty(), self.steps.len()) {
            (true, WINDOW) => commit::<A, S, F, false, WINDOW>(a, self),
            (true, CACHED_WINDOW) => commit::<A, S, F, false, CACHED_WINDOW>(a, self),
            (false, WINDOW) => commit::<A, S, F, true, WINDOW>(a, self),
            (false, CACHED_WINDOW) => commit::<A, S, F, true, CACHED_WINDOW>(a, self),
            (_, n) => unreachable!("a window of {n} steps"),
        }
    }
}

/// The job, for N steps.
#[inline(always)]
fn commit<A: Simd, S: Lanes, F: Form, const TWO: bool, const N: usize>(
    a: A,
    job: Commit<'_, S, F>,
) {
    let Commit { panels, steps, keep, cross, b, b_h, x, alpha, from, to, room, .. } = job;
    let (stride, zero) = (b.stride / lanes_of::<A, S>(), S::splat(a, S::ZERO));
    let [keep, cross, b, b_h] = vectors_of::<A, S, 4>([keep, cross, b.values, b_h.values]);
    let (b, room) = panels.cut((b, stride, N), N, zero, S::vectors_mut::<A>(room));
    let (b_h, _) = panels.cut((b_h, stride, N), if TWO { N } else { 0 }, zero, room);
    let mut tiles = Tiles::<A, S, F, TWO, N> {
        a,
        keep,
        cross,
        b,
        b_h,
        x: (x, steps.start),
        alpha: F::shared::<A, S>(alpha),
        from: vectors_of::<A, S, 2>(from),
        to: vectors_mut_of::<A, S>(to),
    };
    for tile in panels.tiles(0..panels.n_rows) {
        tiles.take::<A>(&tile);
    }
}

/// The job's matrices, and what belongs to the post neurons, b cut by panels.
struct Tiles<'a, 'b, A: Simd, S: Lanes, F: Form, const TWO: bool, const N: usize> {
    a: A,
    keep: &'a [Vector<A, S>],
    cross: &'a [Vector<A, S>],
    b: &'a [Vector<A, S>],
    b_h: &'a [Vector<A, S>],
    /// And the first step.
    x: (&'a Table<S>, usize),
    alpha: &'a [F::Shared<A, S>],
    from: [&'a [Vector<A, S>]; 2],
    to: [&'b mut [Vector<A, S>]; 2],
}

impl<A: Simd, S: Lanes, F: Form, const TWO: bool, const N: usize> Sweep
    for Tiles<'_, '_, A, S, F, TWO, N>
{
    #[inline(always)]
    fn tile<const W: usize>(&mut self, tile: &Tile) {
        let (a, first, all) = (self.a, tile.panel.first, tile.vectors());
        let keep: [_; W] = row_of(self.keep, first);
        let cross: [_; W] = if TWO { row_of(self.cross, first) } else { keep };
        let b: [[_; W]; N] = steps_of(self.b, first);
        let b_h: [[_; W]; N] = if TWO { steps_of(self.b_h, first) } else { b };
        let zero = self.from[0].is_empty();
        let alpha = tile_of::<_, W>(self.alpha, all.clone());
        let [from_h, from_e] = self.from;
        let from_h = tile_of::<_, W>(from_h, all.clone());
        let from_e = tile_of::<_, W>(from_e, all.clone());
        let [to_h, to_e] = tiles_of_mut::<_, W>(&mut self.to, all);
        for (block, row, n) in tile.blocks() {
            let x = F::block::<A, S, N>(self.x.0, block, self.x.1);
            let alpha = &alpha[row..][..n];
            let from_h = if zero { &[] } else { &from_h[row..][..n] };
            let from_e = if zero || !TWO { &[] } else { &from_e[row..][..n] };
            let to_h = &mut to_h[row..][..n];
            let to_e = if TWO { &mut to_e[row..][..n] } else { &mut [] };
            for k in 0..n {
                let x = F::values(a, x, k);
                for v in 0..W {
                    let alpha = F::load(a, alpha[k][v]);
                    let gain = S::times(a, x[0], b[0][v]);
                    let gain = add_steps::<A, S, 1, N, W>(a, gain, &x, &b, v);
                    let gain = S::times(a, alpha, gain);
                    if TWO {
                        let gain_h = S::times(a, x[0], b_h[0][v]);
                        let gain_h = add_steps::<A, S, 1, N, W>(a, gain_h, &x, &b_h, v);
                        let gain_h = S::times(a, alpha, gain_h);
                        (to_h[k][v], to_e[k][v]) = if zero {
                            (gain_h, gain)
                        } else {
                            let e = from_e[k][v];
                            let h = S::fma(a, cross[v], e, from_h[k][v]);
                            (S::plus(a, h, gain_h), S::fma(a, keep[v], e, gain))
                        };
                    } else if zero {
                        to_h[k][v] = gain;
                    } else {
                        to_h[k][v] = S::fma(a, keep[v], from_h[k][v], gain);
                    }
                }
            }
        }
    }
}
