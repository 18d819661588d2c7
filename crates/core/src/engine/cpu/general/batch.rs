//! A batch of episodes by the general plan: threads over parts of it.

use std::sync::{Arc, Mutex, TryLockError};

use crate::engine::cpu::buffer::Buffers;
use crate::engine::cpu::general::{Equations, Job, Sums, Weights, Workspace, window};
use crate::engine::cpu::simd::Lanes;
use crate::engine::cpu::task::Task;
use crate::engine::cpu::{CHUNK, GradientsTo, PART_WORK, Slots, each, to_f64};
use crate::model::{Episodes, Layout, Network, Parameters, Shape};

/// What a program of the general plan has.
pub(crate) struct Batch<S: Lanes> {
    equations: Arc<Equations>,
    layout: Layout,
    /// `Cpu::moved` when w and alpha were packed.
    packed: Option<u64>,
    weights: Vec<Weights<S>>,
    /// One for each part that runs at a time.
    workspaces: Vec<Mutex<Workspace<S>>>,
    /// `[P, parts]`.
    sums: Vec<Mutex<Sums<S>>>,
    parts: usize,
    pub(crate) window: usize,
}

impl<S: Lanes> Batch<S> {
    pub(crate) fn new(
        buffers: &mut Buffers,
        network: &Network,
        shape: &Shape,
        equations: &Arc<Equations>,
        gradients: bool,
    ) -> Self {
        let layout = Layout::new(network);
        let threads = rayon::current_num_threads();
        let parts = threads.div_ceil(network.n_networks).min(shape.n_batch);
        let n_parts = network.n_networks * parts;
        Batch {
            equations: Arc::clone(equations),
            packed: None,
            weights: buffers
                .several(network.n_networks, |buffers| Weights::new(buffers, network, equations)),
            workspaces: buffers.several(threads.min(n_parts), |buffers| {
                Workspace::new(buffers, network, shape, equations, gradients).into()
            }),
            sums: buffers
                .several(n_parts, |buffers| Sums::new(buffers, network, &layout, gradients).into()),
            parts,
            window: if gradients { window::<S>(network, shape) } else { shape.n_steps },
            layout,
        }
    }

    /// Runs a batch into `slots`, one for each episode, and returns the loss of each network; with a
    /// backward pass where its gradients have somewhere to go.
    pub(crate) fn run(
        &mut self,
        (network, parameters, moved): (&Network, &Parameters<S>, u64),
        episodes: &Episodes<S>,
        to: Option<GradientsTo<'_, S>>,
        slots: Vec<Slots<'_, S>>,
    ) -> Vec<S> {
        if self.packed.replace(moved) != Some(moved) {
            let few = CHUNK.div_ceil(network.n_connections());
            each(self.weights.iter_mut().enumerate(), few, |(p, weights)| {
                weights.pack(network, &self.equations, parameters, p);
            });
        }
        let (n_batch, parts) = (episodes.shape.n_batch, self.parts);
        let share = if network.stages.cotangents { 1.0 } else { 1.0 / to_f64(n_batch) };
        let per_part = n_batch.div_ceil(parts);
        let mut slots = slots.into_iter().enumerate();
        let mut jobs = Vec::new();
        for k in 0..network.n_networks * parts {
            let first = (k % parts * per_part).min(n_batch);
            let count = per_part.min(n_batch - first);
            jobs.push((k, slots.by_ref().take(count).collect::<Vec<_>>()));
        }
        let work = per_part * episodes.shape.n_steps * network.n_connections();
        each(jobs.into_iter(), PART_WORK / work, |(k, slots)| {
            let p = k / parts;
            let mut workspace = self.free();
            let mut sums = self.sums[k].lock().expect("no panic before");
            sums.start();
            let job = Job {
                equations: &self.equations,
                weights: &self.weights[p],
                share,
                gradients: to.is_some(),
            };
            for (index, slot) in slots {
                let task = Task { network, parameters, episodes, index, n: 1 };
                workspace.run(&task, job, &mut sums, slot);
            }
            let mn = network.n_connections();
            let mask = parameters.mask.get(p * mn..(p + 1) * mn).unwrap_or_default();
            sums.end(network, &self.layout, mask);
        });
        let sums: Vec<_> = self.sums.iter_mut().map(|s| s.get_mut().expect("no panic")).collect();
        if let Some(GradientsTo { gradients, add }) = to {
            let len = self.layout.len();
            for (out, sums) in gradients.values_mut().chunks_mut(len).zip(sums.chunks(parts)) {
                for (k, sums) in sums.iter().enumerate() {
                    if k == 0 && !add {
                        out.copy_from_slice(&sums.flat);
                    } else {
                        out.iter_mut().zip(&*sums.flat).for_each(|(out, &sum)| *out += sum);
                    }
                }
            }
        }
        let loss = |parts: &[&mut Sums<S>]| S::from_f64(parts.iter().map(|sums| sums.loss).sum());
        sums.chunks(parts).map(loss).collect()
    }

    /// A workspace that no other part has: there are as many as threads.
    fn free(&self) -> std::sync::MutexGuard<'_, Workspace<S>> {
        loop {
            for workspace in &self.workspaces {
                match workspace.try_lock() {
                    Ok(free) => return free,
                    Err(TryLockError::Poisoned(broken)) => return broken.into_inner(),
                    Err(TryLockError::WouldBlock) => {}
                }
            }
            std::thread::yield_now();
        }
    }
}
