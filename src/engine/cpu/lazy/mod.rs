//! Traces without a clip, lazily: inside a window of K steps the trace is a combination of
//! the trace at its start and of the x of its steps (`window.rs`), so a step reads w, alpha
//! and alpha H at the window's start and writes nothing. Forward sums go down the rows of
//! these matrices, backward sums along them.

pub(crate) mod commit;
pub(crate) mod fold;
pub(crate) mod gather;
pub(crate) mod gradients;
pub(crate) mod window;

use std::marker::PhantomData;

use crate::engine::cpu::buffer::{Aligned, zeros};
use crate::engine::cpu::form::Form;
use crate::engine::cpu::lazy::commit::Commit;
use crate::engine::cpu::lazy::fold::Fold;
use crate::engine::cpu::lazy::gather::{Along, Down, Source};
use crate::engine::cpu::lazy::gradients::WeightGradients;
use crate::engine::cpu::lazy::window::Window;
use crate::engine::cpu::neurons::{Neurons, Task};
use crate::engine::cpu::share::{Gradients, Returns, Share, Site};
use crate::engine::cpu::simd::Lanes;

/// The longest window: its last step has a sum for each step before it.
pub(crate) const MOST_STEPS: usize = gather::MOST + 1;

/// One share's traces.
pub(crate) struct Traces<S: Lanes> {
    /// alpha H and alpha E at each window's start; without a way back two in turn. Not to be
    /// read where [`Window::starts_at_zero`].
    stored: Vec<[Aligned<S>; 2]>,
    /// P of H and of E; zero, whatever it holds, until the first fold of an episode.
    p: [Aligned<S>; 2],
    folded: bool,
}

impl<S: Lanes> Traces<S> {
    pub(crate) fn new(share: &Share, two: bool, n_windows: usize, back: bool) -> Self {
        let both = |len: usize| [zeros(len), zeros(if two { len } else { 0 })];
        let len = share.matrix_len();
        Traces {
            stored: (0..Self::n_stored(n_windows, back)).map(|_| both(len)).collect(),
            p: both(if back { len } else { 0 }),
            folded: false,
        }
    }

    fn n_stored(n_windows: usize, back: bool) -> usize {
        if back { n_windows } else { n_windows.min(2) }
    }

    /// Numbers that [`Traces::new`] keeps for each connection.
    pub(crate) fn per_connection(two: bool, n_windows: usize, back: bool) -> usize {
        (Self::n_stored(n_windows, back) + usize::from(back)) * if two { 2 } else { 1 }
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
                let start = one(&task.episode(lane), start);
                on.share.connections(task.network, lane, |c, w, own| {
                    out[own] = start[c] * on.matrices.alpha[w];
                });
            }
        }
    }

    fn source<'a>(&'a self, on: Site<'a, S>, window: &Window<S>, w: usize) -> Source<'a, S> {
        let Site { share, matrices, .. } = on;
        let stored = &self.stored[w % self.stored.len()];
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
        on.arch.dispatch(Down::<S, F> {
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
        on.arch.dispatch(Along::<S, F> {
            form: PhantomData,
            source: self.source(on, window, w),
            scalars: &window.gather_back,
            first: on.share.columns.start / on.share.lanes,
            out: &mut out.sums,
        });
    }

    /// Takes the traces from window `w` to the next.
    pub(crate) fn commit<F: Form>(&mut self, on: Site<'_, S>, window: &Window<S>, w: usize) {
        let Site { arch, share, matrices } = on;
        let n = self.stored.len();
        let [from, to] =
            self.stored.get_disjoint_mut([w % n, (w + 1) % n]).expect("two windows or more");
        let from = unless_zero(window.committed_from_zero(), from);
        let at = share.columns.start;
        let ([keep, cross], [b, b_h]) = window.at_commit();
        arch.dispatch(Commit::<S, F> {
            form: PhantomData,
            panels: share.panels,
            n_steps: window.committed.len(),
            first: window.committed.start,
            keep: &keep[at..],
            cross: cross.get(at..).unwrap_or_default(),
            b: b.skip(at),
            b_h: b_h.skip(at),
            x: &window.x,
            alpha: &matrices.alpha,
            from,
            to: to.each_mut().map(|t| &mut t[..]),
        });
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
        let n_qc = n * share.panels.n_rows;
        arch.dispatch(Fold::<S, F> {
            form: PhantomData,
            panels: share.panels,
            x: &window.x,
            later: window.later.clone(),
            keep: window.later_keep.from(0).skip(first).values,
            cross: window.later_cross.from(0).skip(first).values,
            reach: window.reach.from(0).skip(first),
            delta: neurons.delta.from(window.later.start).skip(first),
            earlier: window.steps(),
            earlier_c: window.earlier_c.from(0).skip(first),
            alpha: &matrices.alpha,
            u: self.stored[w].each_ref().map(|trace| &trace[..]),
            first: !std::mem::replace(&mut self.folded, true),
            p: self.p.each_mut().map(|p| &mut p[..]),
            qx: out.qx.each_mut().map(|qx| {
                let len = qx_len.min(qx.len());
                &mut qx[..len]
            }),
            qc: &mut out.lanes[..n_qc * share.lanes],
        });
        if !F::EPISODES {
            out.add_up(arch, n_qc);
        }
    }

    /// Ends the way back: dL/dw and dL/dalpha of all steps, and of the first traces; `=` where
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
        on.arch.dispatch(WeightGradients::<S, F> {
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
                let start = one(&task.episode(lane), start);
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

/// An episode's part of a batch's first traces.
fn one<'a, S: Lanes>(task: &Task<'_, S>, start: &'a [S]) -> &'a [S] {
    let len = task.network.n_connections();
    &start[task.index * len..][..len]
}
