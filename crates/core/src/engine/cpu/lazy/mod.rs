//! Traces without a clip, lazily: inside a window of K steps the trace is a combination of
//! the trace at its start and of the x of its steps (`window.rs`), so a step reads w, alpha
//! and alpha H at the window's start and writes nothing. Forward sums go down the rows of
//! these matrices, backward sums along them.

pub(crate) mod commit;
pub(crate) mod fold;
pub(crate) mod gather;
pub(crate) mod gradients;
pub(crate) mod sums;
pub(crate) mod window;

use std::marker::PhantomData;
use std::ops::Range;

use crate::engine::cpu::buffer::{Aligned, Buffers};
use crate::engine::cpu::form::Form;
use crate::engine::cpu::lazy::commit::Commit;
use crate::engine::cpu::lazy::fold::Fold;
use crate::engine::cpu::lazy::gather::{Along, Down, Source};
use crate::engine::cpu::lazy::gradients::WeightGradients;
use crate::engine::cpu::lazy::window::Window;
use crate::engine::cpu::neurons::Neurons;
use crate::engine::cpu::share::{Gradients, Returns, Share, Site};
use crate::engine::cpu::simd::Lanes;
use crate::engine::cpu::task::Task;

/// The longest window: its last step has a sum for each step before it.
pub(crate) const MOST_STEPS: usize = gather::MOST + 1;

/// One share's traces.
pub(crate) struct Traces<S: Lanes> {
    /// alpha H and alpha E at the starts of the windows that are [`Kept`]. Those of the first
    /// are not to be read where [`Window::is_from_zero`].
    stored: Vec<[Aligned<S>; 2]>,
    kept: Kept,
    /// P of H and of E; zero, whatever it holds, until the first fold of an episode.
    p: [Aligned<S>; 2],
    folded: bool,
}

/// Bytes of an episode's traces up to which all are kept; and from which on they are, up to a
/// third, for blocks bring them into no cache then and only save memory. Between the first two,
/// blocks take 0.8 to 0.95 of the time (64 to 500 neurons, 100 steps); elsewhere about 1.03.
const FEW: usize = 5 << 20;
const PAST_CACHES: usize = 32 << 20;
const MANY: usize = 256 << 20;

/// Which windows' traces are kept. Without a backward pass those of two windows in turn. With one
/// either all; or those of the first window of every block, and of all windows of the current
/// block, which the backward pass recomputes from its first: about 2 sqrt(T / K) for T steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    back: bool,
    n_windows: usize,
    /// Windows of a block.
    block: usize,
}

impl Kept {
    /// Of so many windows, whose traces take `bytes` each; if `frugal` as few as can be.
    pub(crate) fn new(n_windows: usize, bytes: usize, back: bool, frugal: bool) -> Self {
        let of = |block: usize| Kept { back, n_windows, block };
        let all = n_windows * bytes;
        if !frugal && (all <= FEW || (PAST_CACHES..MANY).contains(&all)) {
            return of(1);
        }
        // the fewest are kept at about sqrt(n_windows); from twice that on a block alone has more
        let most = n_windows.min(2 * n_windows.isqrt() + 2);
        (1..=most).map(of).min_by_key(|kept| kept.n()).expect("a window or more")
    }

    /// Windows of a block; 1 where all are kept.
    pub(crate) fn block(self) -> usize {
        self.block
    }

    fn n_blocks(self) -> usize {
        self.n_windows.div_ceil(self.block)
    }

    /// How many.
    fn n(self) -> usize {
        if self.back { self.n_blocks() + self.block - 1 } else { self.n_windows.min(2) }
    }

    /// Where those at the start of window `w` are.
    fn slot(self, w: usize) -> usize {
        match w % self.block {
            _ if !self.back => w % 2,
            0 => w / self.block,
            k => self.n_blocks() + k - 1,
        }
    }

    /// The windows to be taken to the next once more before the backward pass comes to window `w`
    /// from a later one.
    fn again(self, w: usize) -> Range<usize> {
        if (w + 1).is_multiple_of(self.block) { w + 1 - self.block..w } else { w..w }
    }

    /// How many these are in all.
    pub(crate) fn n_again(self) -> usize {
        if self.back { (self.n_blocks() - 1) * (self.block - 1) } else { 0 }
    }
}

impl<S: Lanes> Traces<S> {
    pub(crate) fn new(buffers: &mut Buffers, share: &Share, two: bool, kept: Kept) -> Self {
        let len = share.matrix_len();
        Traces {
            stored: buffers.several(kept.n(), |buffers| buffers.traces(len, two)),
            kept,
            p: buffers.traces(if kept.back { len } else { 0 }, two),
            folded: false,
        }
    }

    /// The traces before the first step.
    pub(crate) fn start(&mut self, task: &Task<'_, S>, on: Site<'_, S>) {
        self.folded = false;
        if task.starts_at_zero() {
            return;
        }
        let starts = [&task.episodes.h0, &task.episodes.e0];
        let every_lane = task.n == on.share.side_by_side();
        for (out, start) in self.stored[0].iter_mut().zip(starts) {
            let start = start.as_deref().filter(|_| !out.is_empty());
            if !(every_lane && start.is_some()) {
                out.fill(S::ZERO);
            }
            let Some(start) = start else { continue };
            for lane in 0..task.n {
                let start = task.episode(lane).first_traces(start);
                on.share.connections(task.network, lane, |c, w, own| {
                    out[own] = start[c] * on.matrices.alpha[w];
                });
            }
        }
    }

    fn source<'a>(&'a self, on: Site<'a, S>, window: &Window<S>, w: usize) -> Source<'a, S> {
        let Site { share, matrices, .. } = on;
        let stored = &self.stored[self.kept.slot(w)];
        let traces = unless_zero(window.starts_at_zero(), stored);
        Source { panels: share.panels, w: &matrices.w, traces, alpha: &matrices.alpha }
    }

    /// Sums over pre neurons for the next step of window `w`.
    pub(crate) fn gather_down<F: Form>(
        &self,
        on: Site<'_, S>,
        window: &Window<S>,
        w: usize,
        out: &mut Returns<S>,
    ) {
        on.arch.run_lanes(Down::<S, F> {
            form: PhantomData,
            source: self.source(on, window, w),
            scalars: &window.gather,
            out: &mut out.sums,
        });
    }

    /// Sums over this share's post neurons for the step of window `w` that the window
    /// prepared.
    pub(crate) fn gather_along<F: Form>(
        &self,
        on: Site<'_, S>,
        window: &Window<S>,
        w: usize,
        out: &mut Returns<S>,
    ) {
        on.arch.run_lanes(Along::<S, F> {
            form: PhantomData,
            source: self.source(on, window, w),
            scalars: &window.gather_back,
            first: on.share.columns.start / on.share.lanes,
            room: &mut out.lanes,
            out: &mut out.sums,
        });
    }

    /// Takes the traces from window `w` to the next.
    pub(crate) fn commit<F: Form>(
        &mut self,
        on: Site<'_, S>,
        window: &Window<S>,
        w: usize,
        out: &mut Returns<S>,
    ) {
        let Site { arch, share, matrices } = on;
        let slots = [w, w + 1].map(|w| self.kept.slot(w));
        let [from, to] = self.stored.get_disjoint_mut(slots).expect("two windows or more");
        let from = unless_zero(window.is_from_zero(w), from);
        let (steps, rows) = window.at_commit(w);
        let [keep, cross, b, b_h] = rows.map(|rows| rows.skip(share.columns.start));
        arch.run_lanes(Commit::<S, F> {
            form: PhantomData,
            panels: share.panels,
            steps,
            keep: keep.values,
            cross: cross.values,
            b,
            b_h,
            x: &window.x,
            alpha: &matrices.alpha,
            from,
            to: to.each_mut().map(|t| &mut t[..]),
            room: &mut out.rows,
        });
    }

    /// Forms again, before the backward pass comes to window `w` from a later one, what was not
    /// kept.
    pub(crate) fn form_again<F: Form>(
        &mut self,
        on: Site<'_, S>,
        window: &Window<S>,
        w: usize,
        out: &mut Returns<S>,
    ) {
        self.kept.again(w).for_each(|w| self.commit::<F>(on, window, w, out));
    }

    /// Takes P over the later window, and sums for the earlier one, `w`.
    pub(crate) fn fold<F: Form>(
        &mut self,
        on: Site<'_, S>,
        neurons: &Neurons<S>,
        window: &Window<S>,
        w: usize,
        out: &mut Returns<S>,
    ) {
        let Site { arch, share, matrices } = on;
        let (n, first) = (window.n_steps, share.columns.start);
        let qx_len = (n + 1) * share.row_len();
        arch.run_lanes(Fold::<S, F> {
            form: PhantomData,
            panels: share.panels,
            x: &window.x,
            size: window.size,
            later: window.later.clone(),
            keep: window.later_keep.from(0).skip(first).values,
            cross: window.later_cross.from(0).skip(first).values,
            reach: window.reach.from(0).skip(first),
            delta: neurons.delta.from(window.later.start).skip(first),
            earlier: window.steps(),
            kept_c: &window.kept_c,
            cross_c: &window.cross_c,
            first_vector: first / share.lanes,
            alpha: &matrices.alpha,
            u: self.stored[self.kept.slot(w)].each_ref().map(|trace| &trace[..]),
            first: !std::mem::replace(&mut self.folded, true),
            p: self.p.each_mut().map(|p| &mut p[..]),
            qx: out.qx.each_mut().map(|qx| {
                let len = qx_len.min(qx.len());
                &mut qx[..len]
            }),
            qc: &mut out.sums,
            room: &mut out.rows,
            q: out.q.each_mut().map(|q| &mut q[..]),
            along: &mut out.lanes,
        });
    }

    /// Ends the backward pass: dL/dw and dL/dalpha of all steps, and of the first traces; `=` where
    /// this is the `first` episode of its part, else `+=`.
    pub(crate) fn finish<F: Form>(
        &self,
        task: &Task<'_, S>,
        on: Site<'_, S>,
        neurons: &Neurons<S>,
        window: &Window<S>,
        (first, gradients): (bool, &mut Gradients<S>),
        out: &mut Returns<S>,
    ) {
        let share = on.share;
        let [d, c, delta, m] = [&neurons.d, &neurons.c, &neurons.delta, &neurons.m]
            .map(|rows| rows.from(0).skip(share.columns.start));
        on.arch.run_lanes(WeightGradients::<S, F> {
            form: PhantomData,
            panels: share.panels,
            x: &window.x,
            d,
            c,
            delta,
            m: (window.n_single() > 2).then_some(m),
            column: &mut out.column,
            add: !first,
            d_w: &mut gradients.d_w,
            d_alpha: &mut gradients.d_alpha,
        });
        let starts = [&task.episodes.h0, &task.episodes.e0];
        for (start, p) in starts.into_iter().zip(&self.p) {
            let Some(start) = start.as_deref().filter(|_| !p.is_empty()) else { continue };
            for lane in 0..task.n {
                let start = task.episode(lane).first_traces(start);
                share.connections(task.network, lane, |c, _, own| {
                    gradients.d_alpha[own] += p[own] * start[c];
                });
            }
        }
    }

    /// P of H and of E before the first step.
    pub(crate) fn adjoints(&self) -> [&[S]; 2] {
        [&self.p[0], &self.p[1]]
    }
}

/// Stored traces, or nothing where they are zero.
fn unless_zero<S: Lanes>(zero: bool, stored: &[Aligned<S>; 2]) -> [&[S]; 2] {
    if zero { [&[]; 2] } else { stored.each_ref().map(|trace| &trace[..]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_finds_the_traces_of_every_window() {
        // in blocks, and all
        for (n_windows, bytes) in (1..60).flat_map(|n| [(n, MANY), (n, 1)]) {
            let kept = Kept::new(n_windows, bytes, true, false);
            let mut slots = vec![None; kept.n()];
            let commit = |slots: &mut Vec<Option<usize>>, w: usize| {
                assert_eq!(slots[kept.slot(w)], Some(w), "{kept:?}: taken from another window");
                slots[kept.slot(w + 1)] = Some(w + 1);
            };
            slots[kept.slot(0)] = Some(0);
            (0..n_windows - 1).for_each(|w| commit(&mut slots, w));
            let mut n_again = 0;
            for w in (0..n_windows).rev() {
                if w + 1 < n_windows {
                    n_again += kept.again(w).len();
                    kept.again(w).for_each(|w| commit(&mut slots, w));
                }
                assert_eq!(slots[kept.slot(w)], Some(w), "{kept:?}: window {w}");
            }
            assert_eq!(n_again, kept.n_again(), "{kept:?}");
            if bytes == 1 {
                assert_eq!((kept.n(), n_again), (n_windows, 0));
            } else {
                assert!((kept.n() - 1).pow(2) <= 4 * n_windows, "{kept:?}: {} kept", kept.n());
            }
        }
    }
}
