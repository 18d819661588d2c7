//! The CPU engine, in f32 and f64. The f64 instance is the oracle for every other engine.
//!
//! Episodes run side by side where there are enough of them and their traces fit the
//! caches; else the threads share the columns of one episode. Gradients of the parts of
//! a batch are added in a fixed order, so one machine gives the same bits each time.

mod episode;
mod panels;
mod simd;
mod sweep;

use std::collections::VecDeque;
use std::sync::Mutex;

use rayon::prelude::*;

use crate::engine::cpu::episode::{Sums, Task, Weights, Workspace};
use crate::engine::cpu::panels::{Panels, zeros};
use crate::engine::memory::{available_memory, check_memory};
use crate::engine::{Description, Engine, Gradients, Outputs, Report, Want};
use crate::error::Result;
use crate::model::{
    AlphaSharing, Episodes, Network, Optimiser, Parameters, Shape, StepSize, Tensor,
};

pub(crate) use simd::Lanes;

/// Steps between stored traces. From 2 to 8 `hebbian bench` tells no difference beyond the
/// machine's drift; memory falls with the window.
const WINDOW: usize = 5;

/// Traces and weights of one episode above this many bytes fall out of a core's own
/// cache: then the threads share an episode instead of running one each.
const PRIVATE_BYTES: usize = 2 << 20;

/// How many parameters a thread takes at a time in element-wise work.
const CHUNK: usize = 1 << 14;

/// The engine; see [`Engine`].
#[expect(private_bounds, reason = "only f32 and f64 have vectors")]
pub struct Cpu<S: Lanes> {
    network: Network,
    panels: Panels,
    parameters: Parameters<S>,
    weights: Vec<Weights<S>>,
    moments: Moments<S>,
    gradients: Parameters<S>,
    prepared: Option<Prepared<S>>,
    update: u64,
    reports: VecDeque<Report<S>>,
}

struct Moments<S> {
    first: Vec<S>,
    second: Vec<S>,
}

/// Buffers for one shape.
struct Prepared<S: Lanes> {
    shape: Shape,
    gradients: bool,
    /// Threads per episode.
    sharing: usize,
    /// One for each episode that runs at a time.
    workspaces: Vec<Mutex<Workspace<S>>>,
    /// `[P, parts]`.
    sums: Vec<Mutex<Sums<S>>>,
    parts: usize,
}

/// Results of every episode of a batch, cut into one slice per episode.
struct Slots<'a, S> {
    y_last: &'a mut [S],
    y: &'a mut [S],
    traces: [&'a mut [S]; 2],
    input: &'a mut [S],
    pre: &'a mut [S],
    y0: &'a mut [S],
    traces0: [&'a mut [S]; 2],
}

#[expect(private_bounds, reason = "only f32 and f64 have vectors")]
impl<S: Lanes> Cpu<S> {
    /// An engine for `network` with all parameters zero.
    ///
    /// # Errors
    /// A network whose sizes do not fit each other, or too little memory.
    pub fn new(network: &Network) -> Result<Self> {
        network.validate()?;
        let panels = Panels::new::<S>(network.n_pre, network.n_post);
        let needed = Self::parameter_bytes(network);
        check_memory("the parameters", needed)?;
        let parameters = Parameters::zeros(network);
        let weights = (0..network.n_networks)
            .map(|_| Weights { w: zeros(panels.len()), alpha: zeros(panels.len()) })
            .collect();
        let n = parameters.values().len();
        Ok(Cpu {
            network: network.clone(),
            panels,
            gradients: parameters.clone(),
            moments: Moments { first: vec![S::ZERO; n], second: vec![S::ZERO; n] },
            parameters,
            weights,
            prepared: None,
            update: 0,
            reports: VecDeque::new(),
        })
    }

    fn parameter_bytes(network: &Network) -> u64 {
        let flat = crate::model::Layout::new(network).len() as u64;
        let panels = 2 * Panels::new::<S>(network.n_pre, network.n_post).len() as u64;
        (4 * flat + panels) * network.n_networks as u64 * size_of::<S>() as u64
    }

    /// Whether the buffers at hand serve such a batch.
    fn is_ready(&self, shape: Shape, want: Want) -> bool {
        self.prepared.as_ref().is_some_and(|prepared| {
            prepared.shape == shape && (prepared.gradients || !want.gradients)
        })
    }

    /// Packs w and alpha after the parameters changed.
    fn pack(&mut self) {
        let (panels, parameters, n) = (self.panels, &self.parameters, self.network.n_post);
        let alpha_sharing = self.network.alpha;
        self.weights.par_iter_mut().enumerate().for_each(|(p, weights)| {
            let w = parameters.get(p, Tensor::W);
            let alpha = parameters.get(p, Tensor::Alpha);
            panels.pack(&mut weights.w, |i, j| w[i * n + j]);
            panels.pack(&mut weights.alpha, |i, j| match alpha_sharing {
                AlphaSharing::PerConnection => alpha[i * n + j],
                AlphaSharing::PerNeuron => alpha[j],
                AlphaSharing::PerNetwork => alpha[0],
            });
        });
    }

    /// Runs a batch into `slots`, one for each episode, and returns the loss of each
    /// network; with the way back, gradients are left in `self.gradients`.
    fn run(&mut self, episodes: &Episodes<S>, want: Want, slots: Vec<Slots<'_, S>>) -> Vec<S> {
        let prepared = self.prepared.as_ref().expect("prepare ran");
        let (network, parameters, panels) = (&self.network, &self.parameters, self.panels);
        let n_batch = prepared.shape.n_batch;
        let share = 1.0 / to_f64(n_batch);
        let per_part = n_batch.div_ceil(prepared.parts);
        let mut slots = slots.into_iter();
        let jobs: Vec<(usize, usize, Vec<Slots<'_, S>>)> = (0..network.n_networks)
            .flat_map(|p| (0..prepared.parts).map(move |part| (p, part)))
            .map(|(p, part)| {
                let first = (part * per_part).min(n_batch);
                let last = (first + per_part).min(n_batch);
                (p, p * n_batch + first, slots.by_ref().take(last - first).collect())
            })
            .collect();
        let run_part = |(k, (p, first, slots)): (usize, (usize, usize, Vec<Slots<'_, S>>))| {
            let worker = rayon::current_thread_index().unwrap_or(0) % prepared.workspaces.len();
            let mut workspace = prepared.workspaces[worker].lock().expect("no panic before");
            let mut sums = prepared.sums[k].lock().expect("no panic before");
            sums.clear();
            for (b, slot) in slots.into_iter().enumerate() {
                let task = Task {
                    network,
                    parameters,
                    weights: &self.weights[p],
                    episodes,
                    index: first + b,
                };
                workspace.forward(&task, want.traces);
                sums.loss += workspace.loss(&task, share);
                if want.gradients {
                    workspace.backward(&task, &mut sums);
                }
                slot.take(&workspace, &task, panels);
            }
        };
        if prepared.sharing > 1 {
            jobs.into_iter().enumerate().for_each(run_part);
        } else {
            jobs.into_par_iter().enumerate().for_each(run_part);
        }

        let parts = prepared.parts;
        let len = self.gradients.layout().len();
        let layout = self.gradients.layout().clone();
        let sums = &prepared.sums;
        if want.gradients {
            let gradients = self.gradients.values_mut();
            gradients.par_chunks_mut(len).enumerate().for_each(|(p, out)| {
                out.fill(S::ZERO);
                for sums in &sums[p * parts..(p + 1) * parts] {
                    let sums = sums.lock().expect("no panic before");
                    for (out, &value) in out.iter_mut().zip(&sums.rule) {
                        *out += value;
                    }
                    let at = |tensor| layout.find(tensor).map_or(0, |e| e.offset);
                    let n = network.n_post;
                    let (w, alpha) = (at(Tensor::W), at(Tensor::Alpha));
                    panels.unpack(&sums.d_w, |i, j, value| out[w + i * n + j] += value);
                    panels.unpack(&sums.d_alpha, |i, j, value| {
                        let k = match network.alpha {
                            AlphaSharing::PerConnection => i * n + j,
                            AlphaSharing::PerNeuron => j,
                            AlphaSharing::PerNetwork => 0,
                        };
                        out[alpha + k] += value;
                    });
                }
            });
        }
        (0..network.n_networks)
            .map(|p| {
                let parts = &sums[p * parts..(p + 1) * parts];
                S::from_f64(parts.iter().map(|s| s.lock().expect("no panic before").loss).sum())
            })
            .collect()
    }

    /// Moves the parameters along `self.gradients`; returns each gradient's norm.
    fn step(&mut self, step: StepSize) -> Vec<S> {
        let len = self.parameters.layout().len();
        let norms: Vec<f64> = (0..self.network.n_networks)
            .map(|p| {
                let squares: Vec<f64> = self
                    .gradients
                    .network(p)
                    .par_chunks(CHUNK)
                    .map(|chunk| chunk.iter().map(|g| g.to_f64() * g.to_f64()).sum())
                    .collect();
                squares.iter().sum::<f64>().sqrt()
            })
            .collect();
        let rate = S::from_f64(step.rate);
        for (p, &norm) in norms.iter().enumerate() {
            let shrink = step.max_norm > 0.0 && norm > step.max_norm;
            let scale = S::from_f64(if shrink { step.max_norm / norm } else { 1.0 });
            let range = p * len..(p + 1) * len;
            let chunks = self.parameters.values_mut()[range.clone()]
                .par_chunks_mut(CHUNK)
                .zip(self.moments.first[range.clone()].par_chunks_mut(CHUNK))
                .zip(self.moments.second[range.clone()].par_chunks_mut(CHUNK))
                .zip(self.gradients.values()[range].par_chunks(CHUNK));
            match step.optimiser {
                Optimiser::Adam { beta1, beta2, epsilon } => {
                    let (b1, b2) = (S::from_f64(beta1), S::from_f64(beta2));
                    let (c1, c2) = (S::from_f64(1.0 - beta1), S::from_f64(1.0 - beta2));
                    let second_scale = S::from_f64(step.second_scale);
                    let epsilon = S::from_f64(epsilon);
                    chunks.for_each(|(((theta, first), second), gradient)| {
                        let moments = first.iter_mut().zip(second);
                        for ((theta, (m, v)), &g) in theta.iter_mut().zip(moments).zip(gradient) {
                            let g = g * scale;
                            *m = b1 * *m + c1 * g;
                            *v = b2 * *v + c2 * g * g;
                            let root = v.sqrt() * second_scale + epsilon;
                            *theta = *theta - rate * *m / root;
                        }
                    });
                }
                Optimiser::Sgd { momentum } => {
                    let momentum = S::from_f64(momentum);
                    chunks.for_each(|(((theta, first), _), gradient)| {
                        for ((theta, m), &g) in theta.iter_mut().zip(first).zip(gradient) {
                            *m = momentum * *m + g * scale;
                            *theta = *theta - rate * *m;
                        }
                    });
                }
            }
        }
        norms.into_iter().map(S::from_f64).collect()
    }
}

impl<S: Lanes> Engine<S> for Cpu<S> {
    fn network(&self) -> &Network {
        &self.network
    }

    fn prepare(&mut self, shape: Shape, want: Want) -> Result<Description> {
        let network = &self.network;
        shape.validate(network)?;
        let threads = rayon::current_num_threads();
        let window = WINDOW.min(shape.n_steps);
        let one = Workspace::<S>::bytes(network, &shape, window, want.gradients);
        let total = network.n_networks * shape.n_batch;
        let private = 4 * self.panels.len() * size_of::<S>();
        let shared = self.panels.n_panels > 1 && (total < threads || private > PRIVATE_BYTES);
        let sharing = if shared { threads.min(self.panels.n_panels) } else { 1 };
        let n_workspaces = if sharing > 1 { 1 } else { threads.min(total) };
        let parts =
            if sharing > 1 { 1 } else { threads.div_ceil(network.n_networks).min(shape.n_batch) };
        let sums_len = if want.gradients { 2 * self.panels.len() } else { 0 };
        let sums_bytes = (network.n_networks * parts * sums_len * size_of::<S>()) as u64;
        let episodes = shape.host_bytes(network, size_of::<S>());
        let needed =
            n_workspaces as u64 * one + sums_bytes + Self::parameter_bytes(network) + episodes;
        if !self.is_ready(shape, want) {
            self.prepared = None;
            check_memory("this job", needed)?;
            let new_sums = || Sums {
                d_w: zeros(sums_len / 2),
                d_alpha: zeros(sums_len / 2),
                rule: vec![S::ZERO; self.parameters.layout().len()],
                loss: 0.0,
            };
            self.prepared = Some(Prepared {
                shape,
                gradients: want.gradients,
                sharing,
                workspaces: (0..n_workspaces)
                    .map(|_| {
                        Workspace::new(network, &shape, window, sharing, want.gradients).into()
                    })
                    .collect(),
                sums: (0..network.n_networks * parts).map(|_| new_sums().into()).collect(),
                parts,
            });
        }
        let instructions = format!("{:?}", pulp::Arch::new());
        let instructions = instructions.split('(').next().unwrap_or("").to_lowercase();
        let layout = if sharing > 1 { "columns" } else { "episodes" };
        Ok(Description {
            device: format!("cpu, {threads} threads, {} ({instructions})", S::NAME),
            driver: "none".into(),
            software: false,
            plan: format!("windows of {window} steps, threads over {layout}"),
            memory_needed: needed,
            memory_available: available_memory(),
        })
    }

    fn set_parameters(&mut self, parameters: &Parameters<S>) -> Result<()> {
        self.parameters = parameters.clone();
        self.moments.first.fill(S::ZERO);
        self.moments.second.fill(S::ZERO);
        self.pack();
        Ok(())
    }

    fn parameters(&mut self) -> Result<Parameters<S>> {
        Ok(self.parameters.clone())
    }

    fn evaluate(&mut self, episodes: &Episodes<S>, want: Want) -> Result<Outputs<S>> {
        episodes.validate(&self.network)?;
        if !self.is_ready(episodes.shape, want) {
            self.prepare(episodes.shape, want)?;
        }
        let (m, n) = (self.network.n_pre, self.network.n_post);
        let (t, mn) = (episodes.shape.n_steps, m * n);
        let total = self.network.n_networks * episodes.shape.n_batch;
        let two = self.network.n_traces() == 2;
        let zeros = |wanted: bool, len: usize| vec![S::ZERO; if wanted { total * len } else { 0 }];
        let mut y_last = zeros(true, n);
        let mut y = zeros(want.activity, t * n);
        let mut h = zeros(want.traces, mn);
        let mut e = zeros(want.traces && two, mn);
        let back = want.gradients;
        let mut input = zeros(back, t * n);
        let mut pre = zeros(back && !self.network.recurrent, t * m);
        let mut y0 = zeros(back, n);
        let mut h0 = zeros(back, mn);
        let mut e0 = zeros(back, mn);
        let loss = {
            let mut y_last = y_last.chunks_mut(n);
            let mut y = y.chunks_mut(t * n);
            let (mut h, mut e) = (h.chunks_mut(mn), e.chunks_mut(mn));
            let mut input = input.chunks_mut(t * n);
            let mut pre = pre.chunks_mut(t * m);
            let mut y0 = y0.chunks_mut(n);
            let (mut h0, mut e0) = (h0.chunks_mut(mn), e0.chunks_mut(mn));
            let slots = (0..total)
                .map(|_| Slots {
                    y_last: y_last.next().unwrap_or_default(),
                    y: y.next().unwrap_or_default(),
                    traces: [h.next().unwrap_or_default(), e.next().unwrap_or_default()],
                    input: input.next().unwrap_or_default(),
                    pre: pre.next().unwrap_or_default(),
                    y0: y0.next().unwrap_or_default(),
                    traces0: [h0.next().unwrap_or_default(), e0.next().unwrap_or_default()],
                })
                .collect();
            self.run(episodes, want, slots)
        };
        let gradients = back.then(|| {
            let parameters = self.gradients.clone();
            Gradients { parameters, input, pre, y0, h0, e0 }
        });
        Ok(Outputs { loss, y_last, y, h, e, gradients })
    }

    fn update(&mut self, episodes: &Episodes<S>, step: StepSize) -> Result<()> {
        episodes.validate(&self.network)?;
        let want = Want { gradients: true, ..Want::default() };
        if !self.is_ready(episodes.shape, want) {
            self.prepare(episodes.shape, want)?;
        }
        let n = self.network.n_post;
        let mut y_last = vec![S::ZERO; self.network.n_networks * episodes.shape.n_batch * n];
        let slots = y_last.chunks_mut(n).map(Slots::only_y_last).collect();
        let loss = self.run(episodes, want, slots);
        let eta = (0..self.network.n_networks).map(|p| mean(self.parameters.get(p, Tensor::Eta)));
        let eta = eta.collect();
        let gradient_norm = self.step(step);
        self.pack();
        self.reports.push_back(Report { update: self.update, loss, gradient_norm, eta, y_last });
        self.update += 1;
        Ok(())
    }

    fn reports(&mut self, _wait: bool) -> Result<Vec<Report<S>>> {
        Ok(self.reports.drain(..).collect())
    }
}

impl<S: Lanes> Sums<S> {
    fn clear(&mut self) {
        self.d_w.fill(S::ZERO);
        self.d_alpha.fill(S::ZERO);
        self.rule.fill(S::ZERO);
        self.loss = 0.0;
    }
}

impl<'a, S: Lanes> Slots<'a, S> {
    fn only_y_last(y_last: &'a mut [S]) -> Self {
        let none = || [&mut [][..], &mut [][..]];
        Slots {
            y_last,
            y: &mut [],
            traces: none(),
            input: &mut [],
            pre: &mut [],
            y0: &mut [],
            traces0: none(),
        }
    }

    /// Copies what is wanted (what is not has length 0) out of the workspace.
    fn take(self, workspace: &Workspace<S>, task: &Task<'_, S>, panels: Panels) {
        let n = task.network.n_post;
        let y = &workspace.y()[n..];
        self.y_last.copy_from_slice(&y[y.len() - n..]);
        if !self.y.is_empty() {
            self.y.copy_from_slice(y);
        }
        for (out, trace) in self.traces.into_iter().zip(workspace.last_traces()) {
            if !out.is_empty() {
                panels.unpack(trace, |i, j, value| out[i * n + j] = value);
            }
        }
        if !self.input.is_empty() {
            self.input.copy_from_slice(workspace.d_input());
        }
        if !self.pre.is_empty() {
            self.pre.copy_from_slice(workspace.d_x());
        }
        if task.network.recurrent && !self.y0.is_empty() {
            self.y0.copy_from_slice(&workspace.d_x()[..n]);
        }
        let alpha = &task.weights.alpha;
        for (out, adjoint) in self.traces0.into_iter().zip(workspace.adjoints()) {
            if out.is_empty() || adjoint.is_empty() {
                continue;
            }
            panels.unpack(adjoint, |i, j, value| out[i * n + j] = value);
            panels.unpack(alpha, |i, j, alpha| out[i * n + j] = alpha * out[i * n + j]);
        }
    }
}

fn mean<S: Lanes>(values: &[S]) -> S {
    let sum: f64 = values.iter().map(|v| v.to_f64()).sum();
    S::from_f64(sum / to_f64(values.len().max(1)))
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn to_f64(n: usize) -> f64 {
    n as f64
}
