//! Memories that live: a step changes their traces where they lie, row by row. One or a few steps are
//! not worth what whole episodes are laid out for.

use pulp::{Simd, WithSimd};

use crate::engine::Held;
use crate::engine::cpu::buffer::Buffers;
use crate::engine::cpu::evolve::Evolve;
use crate::engine::cpu::form::lanes_of;
use crate::engine::cpu::neurons::Neurons;
use crate::engine::cpu::simd::{Instructions, Lanes, vectors_of};
use crate::engine::cpu::task::Task;
use crate::engine::cpu::{PART_WORK, Slots, each};
use crate::model::{AlphaSharing, Episodes, Network, Parameters, Shape, Tensor};

/// The most steps of a stretch that are taken so. A step reads and writes H twice where one in an episode
/// reads alpha H once; but an episode lays its traces out first, and takes them back.
pub(crate) const MOST_STEPS: usize = 4;

/// What steps of memories need, beside the memories.
pub(crate) struct Living<S: Lanes> {
    shape: Shape,
    /// `Cpu::moved` when w and alpha were taken.
    moved: u64,
    weights: Vec<Weights<S>>,
    /// One for each part of the memories.
    rooms: Vec<Room<S>>,
}

struct Room<S: Lanes> {
    neurons: Neurons<S>,
    sums: Vec<S>,
}

/// w and alpha of a network; connections that are missing have neither.
struct Weights<S> {
    w: Vec<S>,
    alpha: Vec<S>,
    /// From one row of alpha to the next; 0 where there is one row for all.
    alpha_stride: usize,
}

impl<S: Lanes> Weights<S> {
    fn new(network: &Network, parameters: &Parameters<S>, p: usize) -> Self {
        let (n, mn) = (network.n_post, network.n_connections());
        let mask = parameters.mask.get(p * mn..(p + 1) * mn).unwrap_or_default();
        let alpha = parameters.get(p, Tensor::Alpha);
        let (row, column) = network.alpha.strides(n);
        let mut w = parameters.get(p, Tensor::W).to_vec();
        if mask.is_empty() && network.alpha != AlphaSharing::PerConnection {
            let alpha = (0..n).map(|j| alpha[j * column]).collect();
            return Weights { w, alpha, alpha_stride: 0 };
        }
        let mut alpha: Vec<S> = (0..mn).map(|c| alpha[c / n * row + c % n * column]).collect();
        for ((w, alpha), &mask) in w.iter_mut().zip(&mut alpha).zip(mask) {
            *w = *w * mask;
            *alpha = *alpha * mask;
        }
        Weights { w, alpha, alpha_stride: n }
    }
}

impl<S: Lanes> Living<S> {
    /// For stretches of `shape`.
    pub(crate) fn new(
        network: &Network,
        shape: Shape,
        parameters: &Parameters<S>,
        moved: u64,
    ) -> Self {
        let total = network.n_networks * shape.n_batch;
        let work = shape.n_steps * network.n_connections();
        let parts = rayon::current_num_threads().min((total * work).div_ceil(PART_WORK)).max(1);
        let room = |_| {
            let make = |buffers: &mut Buffers| Neurons::new(buffers, network, &shape, 1, false);
            Room { neurons: Buffers::make(make), sums: vec![S::ZERO; network.n_post] }
        };
        let rooms = (0..parts.min(total)).map(room).collect();
        let weights =
            (0..network.n_networks).map(|p| Weights::new(network, parameters, p)).collect();
        Living { shape, moved, weights, rooms }
    }

    /// Whether it serves such stretches of networks whose parameters moved so often.
    pub(crate) fn serves(&self, shape: Shape, moved: u64) -> bool {
        self.shape == shape && self.moved == moved
    }

    /// Takes memories through a stretch: y and v at its start come in `episodes`, the traces in `held`.
    pub(crate) fn run<'a>(
        &mut self,
        network: &Network,
        parameters: &Parameters<S>,
        episodes: &Episodes<S>,
        held: &'a mut Held<S>,
        slots: Vec<Slots<'a, S>>,
    ) {
        let mn = network.n_connections();
        let per_part = slots.len().div_ceil(self.rooms.len());
        let mut e = held.e.chunks_exact_mut(mn);
        let mut memories = slots
            .into_iter()
            .zip(held.h.chunks_exact_mut(mn))
            .map(|(slots, h)| (slots, h, e.next().unwrap_or_default()));
        let weights = &self.weights;
        let parts: Vec<_> = self
            .rooms
            .iter_mut()
            .enumerate()
            .map(|(k, room)| (k * per_part, room, memories.by_ref().take(per_part).collect()))
            .collect();
        let arch = Instructions::<S>::widest();
        each(parts.into_iter(), 1, |(first, room, part): (usize, _, Vec<_>)| {
            let Room { neurons, sums } = room;
            for (k, (slots, h, e)) in part.into_iter().enumerate() {
                let task = &Task { network, parameters, episodes, index: first + k, n: 1 };
                let weights = &weights[task.p()];
                neurons.start(task, false);
                arch.run(Stretch { neurons: &mut *neurons, task, weights, h, e, sums: &mut *sums });
                slots.take_neurons(neurons, task, 0);
            }
        });
    }
}

/// A stretch of one memory.
struct Stretch<'a, S: Lanes> {
    neurons: &'a mut Neurons<S>,
    task: &'a Task<'a, S>,
    weights: &'a Weights<S>,
    h: &'a mut [S],
    e: &'a mut [S],
    sums: &'a mut [S],
}

impl<S: Lanes> WithSimd for Stretch<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: Simd>(self, a: A) {
        let Stretch { neurons, task, weights, h, e, sums } = self;
        let n = task.network.n_post;
        let clip = task.network.trace_clip().map(S::from_f64);
        for t in 0..neurons.n_steps() {
            sum_down(a, neurons.x(t), weights, h, sums);
            neurons.plastic[..n].copy_from_slice(sums);
            neurons.advance(task, t);
            let m = if neurons.m.is_empty() { &[][..] } else { neurons.m.row(t) };
            let evolve = Evolve {
                n,
                x: &[neurons.x(t)],
                d: &[neurons.d.row(t)],
                c: &[neurons.c.row(t)],
                m: &[m],
                clip,
                h: &mut *h,
                e: &mut *e,
            };
            evolve.with_simd(a);
        }
        neurons.loss(task, 1.0);
    }
}

/// Vectors of columns that are summed at a time, in registers.
const PANEL: usize = 6;

/// `out_j = sum_i x_i (w_ij + alpha_ij H_ij)`.
#[inline(always)]
fn sum_down<A: Simd, S: Lanes>(a: A, x: &[S], weights: &Weights<S>, h: &[S], out: &mut [S]) {
    let (n, lanes) = (out.len(), lanes_of::<A, S>());
    let mut first = 0;
    while n - first >= PANEL * lanes {
        sum_panel::<A, S, PANEL>(a, x, weights, h, first, out);
        first += PANEL * lanes;
    }
    while n - first >= lanes {
        sum_panel::<A, S, 1>(a, x, weights, h, first, out);
        first += lanes;
    }
    if first == n {
        return;
    }
    let mut sum = S::splat(a, S::ZERO);
    for (i, (w, h)) in weights.w.chunks_exact(n).zip(h.chunks_exact(n)).enumerate() {
        let alpha = &weights.alpha[i * weights.alpha_stride..][..n];
        let [w, alpha, h] = [&w[first..], &alpha[first..], &h[first..]];
        let weight = S::fma(a, S::part(a, alpha), S::part(a, h), S::part(a, w));
        sum = S::fma(a, S::splat(a, x[i]), weight, sum);
    }
    S::set_part(a, &mut out[first..], sum);
}

/// V vectors of columns, from column `first` on.
#[inline(always)]
fn sum_panel<A: Simd, S: Lanes, const V: usize>(
    a: A,
    x: &[S],
    weights: &Weights<S>,
    h: &[S],
    first: usize,
    out: &mut [S],
) {
    let (n, width) = (out.len(), V * lanes_of::<A, S>());
    let mut sums = [S::splat(a, S::ZERO); V];
    for (i, (w, h)) in weights.w.chunks_exact(n).zip(h.chunks_exact(n)).enumerate() {
        let alpha = &weights.alpha[i * weights.alpha_stride..][..n];
        let [w, alpha, h] = vectors_of::<A, S, 3>([
            &w[first..][..width],
            &alpha[first..][..width],
            &h[first..][..width],
        ]);
        let (w, alpha, h) = (&w[..V], &alpha[..V], &h[..V]);
        let x = S::splat(a, x[i]);
        for v in 0..V {
            sums[v] = S::fma(a, x, S::fma(a, alpha[v], h[v], w[v]), sums[v]);
        }
    }
    S::vectors_mut::<A>(&mut out[first..][..width]).copy_from_slice(&sums);
}
