//! The part of a batch that runs at a time.

use crate::engine::cpu::simd::Lanes;
use crate::model::{Episodes, NO_ROW, Network, Parameters};

/// The episode being run, of a batch, or several of one network side by side.
#[derive(Clone, Copy)]
pub(crate) struct Task<'a, S: Lanes> {
    pub(crate) network: &'a Network,
    pub(crate) parameters: &'a Parameters<S>,
    pub(crate) episodes: &'a Episodes<S>,
    /// p B + b, of the first.
    pub(crate) index: usize,
    /// Episodes.
    pub(crate) n: usize,
}

impl<'a, S: Lanes> Task<'a, S> {
    /// The `lane`-th of its episodes alone.
    pub(crate) fn episode(&self, lane: usize) -> Self {
        Task { index: self.index + lane, n: 1, ..*self }
    }

    /// Whether its traces are zero before the first step.
    pub(crate) fn starts_at_zero(&self) -> bool {
        self.episodes.h0.is_none() && self.episodes.e0.is_none()
    }

    /// Its part of a batch's first traces.
    pub(crate) fn first_traces(&self, all: &'a [S]) -> &'a [S] {
        let len = self.network.n_connections();
        &all[self.index * len..][..len]
    }

    /// Which connections there are; empty where all are.
    pub(crate) fn mask(&self) -> &'a [S] {
        let len = self.network.n_connections();
        self.parameters.mask.get(self.p() * len..(self.p() + 1) * len).unwrap_or_default()
    }

    pub(crate) fn p(&self) -> usize {
        self.index / self.episodes.shape.n_batch
    }

    /// Its part of a list with `len` numbers an episode.
    pub(crate) fn part_of(&self, list: &'a [S], len: usize) -> &'a [S] {
        &list[self.index * len..][..len]
    }

    /// Whether the network starts anew before step `t`.
    pub(crate) fn resets(&self, t: usize) -> bool {
        let reset = self.episodes.signals.reset.as_ref();
        reset.is_some_and(|reset| reset[self.index * self.episodes.shape.n_steps + t] != S::ZERO)
    }

    /// Whether no gradient passes to before step `t`.
    pub(crate) fn cuts(&self, t: usize) -> bool {
        let truncate = self.episodes.signals.truncate;
        truncate.is_some_and(|k| t > 0 && t.is_multiple_of(k))
    }

    /// The row of y, and of v, that step `t` goes on from.
    #[inline(always)]
    pub(crate) fn before(&self, t: usize) -> usize {
        if self.resets(t) { 0 } else { t }
    }

    pub(crate) fn row(&self, table: &'a [S], n_rows: usize, row: u32) -> &'a [S] {
        let n = self.network.n_post;
        &table[(self.index * n_rows + row as usize) * n..][..n]
    }

    pub(crate) fn shown(&self, table: &'a [S], t: usize) -> &'a [S] {
        let shape = &self.episodes.shape;
        self.row(table, shape.n_stimuli, self.episodes.shown[self.index * shape.n_steps + t])
    }

    pub(crate) fn clamp(&self, t: usize) -> Option<&'a [S]> {
        self.episodes.clamps.as_ref().map(|table| self.shown(table, t))
    }

    pub(crate) fn scored(&self, t: usize) -> Option<u32> {
        let row = self.episodes.scored[self.index * self.episodes.shape.n_steps + t];
        (row != NO_ROW).then_some(row)
    }

    /// One row of each episode, `[N, lanes]`: as it is where there is one, else in `wide`.
    #[inline(always)]
    pub(crate) fn rows<'b>(
        &self,
        lanes: usize,
        wide: &'b mut [S],
        row: impl Fn(Self) -> &'a [S],
    ) -> &'b [S]
    where
        'a: 'b,
    {
        if lanes == 1 {
            return row(*self);
        }
        for lane in 0..self.n {
            put_lane(wide, lanes, lane, row(self.episode(lane)));
        }
        wide
    }
}

/// Sets one lane of every neuron.
#[inline(always)]
pub(crate) fn put_lane<S: Lanes>(wide: &mut [S], lanes: usize, lane: usize, values: &[S]) {
    for (wide, &value) in wide.chunks_exact_mut(lanes).zip(values) {
        wide[lane] = value;
    }
}

/// One lane of every neuron.
#[inline(always)]
pub(crate) fn take_lane<S: Lanes>(wide: &[S], lanes: usize, lane: usize, out: &mut [S]) {
    for (wide, out) in wide.chunks_exact(lanes).zip(out) {
        *out = wide[lane];
    }
}
