//! Gradient steps at test time: is plasticity more than a network that gets a little more training
//! data?
//!
//! A copy of a trained network for each held-out episode takes gradient steps on the stimuli shown in
//! that episode, each with random halves of it hidden, and is then tested as the plastic network is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::engine::{Engine, Want};
use crate::error::{Error, Result};
use crate::model::{
    Episodes, NO_ROW, Network, Optimiser, Parameters, Schedule, Shape, Signals, StepSize, Tensor,
};
use crate::numbers::index;
use crate::random::{Purpose, Stream};
use crate::task::{Answers, Recall, Task};
use crate::train::mean;

/// Numbers of gradient steps after which the copies are tested.
pub const STEPS: [u64; 6] = [0, 1, 3, 10, 30, 100];

/// What is tried of learning rates, as multiples of the rate that the network was trained with.
const RATES: [f64; 3] = [1.0, 10.0, 100.0];

/// Copies that take their steps at a time: their parameters are held with their moments.
const COPIES: usize = 20;

/// Errors of networks after gradient steps on what the episodes show.
#[derive(Clone, Debug, PartialEq)]
pub struct TestTime {
    /// For each number of [`STEPS`]: the rate, the best of three on training episodes.
    pub rates: Vec<f64>,
    /// For each number of [`STEPS`]: the error of each network, mean over its episodes.
    pub errors: Vec<Vec<f64>>,
    /// For each number of [`STEPS`]: seconds that the steps of an episode of one network took.
    pub seconds: Vec<f64>,
    /// Seconds of one showing to a plastic network, with its test.
    pub seconds_of_showing: f64,
    /// Multiply-adds of one gradient step of an episode.
    pub per_step: u64,
    /// Multiply-adds of one showing to a plastic network.
    pub per_showing: u64,
}

/// The copies of a network of `task` that take steps at a time: without plasticity.
#[must_use]
pub fn copies(task: &dyn Task, n_episodes: usize) -> Network {
    let mut copies = Network { n_networks: n_episodes.min(COPIES), ..task.network() };
    copies.stages.frozen.push(Tensor::Alpha);
    copies
}

/// Takes the steps from `start`, whose tensors of the names and sizes of the networks of `task`, which are
/// not plastic, are taken but for alpha: it is 0 and stays so. The engine is one of [`copies`]; `rate` is
/// what the networks were trained with. None where `stop` was set before the end.
///
/// # Errors
/// [`Error::Value`] for a task that shows no stimuli; errors of the engine.
pub fn test_time(
    task: &dyn Task,
    start: &Parameters<f32>,
    engine: &mut dyn Engine<f32>,
    (seed, n_episodes): (u64, usize),
    rate: f64,
    stop: &AtomicBool,
) -> Result<Option<TestTime>> {
    let none =
        || Error::value("gradient steps", format!("task {}", task.name()), "patterns or images");
    let recall = task.recall().ok_or_else(none)?;
    let network = task.network();
    let copies = engine.network().clone();
    let n_groups = (n_episodes / copies.n_networks).max(1);
    let mut run = |purpose, p: usize, group: usize, rate| {
        let job =
            Job { task, recall: &recall, copies: &copies, start, seed, purpose, p, group, rate };
        job.run(engine, stop)
    };
    let mut best = vec![(f64::INFINITY, rate); STEPS.len()];
    for tried in RATES.map(|times| times * rate) {
        let Some((errors, _)) = run(Purpose::Training, 0, 0, tried)? else { return Ok(None) };
        for (best, error) in best.iter_mut().zip(errors) {
            if error < best.0 {
                *best = (error, tried);
            }
        }
    }
    let rates: Vec<f64> = best.into_iter().map(|(_, rate)| rate).collect();
    let mut found = TestTime {
        errors: vec![vec![0.0; network.n_networks]; STEPS.len()],
        seconds: vec![0.0; STEPS.len()],
        ..work(task, &recall)
    };
    let share = 1.0 / f64::from(index(n_groups));
    let per_episode = share / f64::from(index(copies.n_networks * network.n_networks));
    for p in 0..network.n_networks {
        for group in 0..n_groups {
            let mut tried: Vec<f64> = rates.clone();
            tried.sort_by(f64::total_cmp);
            tried.dedup();
            for rate in tried {
                let Some((errors, seconds)) = run(Purpose::HeldOut, p, group, rate)? else {
                    return Ok(None);
                };
                for k in (0..STEPS.len()).filter(|&k| rates[k].total_cmp(&rate).is_eq()) {
                    found.errors[k][p] += share * errors[k];
                    found.seconds[k] += per_episode * seconds[k];
                }
            }
        }
    }
    Ok(Some(TestTime { rates, ..found }))
}

/// Multiply-adds counted by the equations: a step of a plastic network takes three for each connection
/// (alpha H, the sum, the trace), one of a gradient step three (forward, backward, outer product).
fn work(task: &dyn Task, recall: &Recall) -> TestTime {
    let shape = task.shape(1);
    let connections = task.network().n_connections() as u64;
    let stimuli = (shape.n_stimuli - 2) as u64;
    TestTime {
        rates: Vec::new(),
        errors: Vec::new(),
        seconds: Vec::new(),
        seconds_of_showing: 0.0,
        per_step: 3 * stimuli * recall.test as u64 * connections,
        per_showing: 3 * shape.n_steps as u64 * connections,
    }
}

/// Steps of the copies of one network, each of which has an episode.
struct Job<'a> {
    task: &'a dyn Task,
    recall: &'a Recall,
    /// The copies as a population.
    copies: &'a Network,
    start: &'a Parameters<f32>,
    seed: u64,
    purpose: Purpose,
    p: usize,
    /// Which episodes: the first, or those that follow so many groups of copies.
    group: usize,
    rate: f64,
}

/// For each number of [`STEPS`] the error, and the seconds of its steps; none where it was stopped.
type Taken = Option<(Vec<f64>, Vec<f64>)>;

impl Job<'_> {
    fn run(&self, engine: &mut dyn Engine<f32>, stop: &AtomicBool) -> Result<Taken> {
        let (n_copies, p) = (self.copies.n_networks, self.p);
        let first = index(self.group * n_copies);
        let episodes = self.task.episodes(self.seed, self.purpose, first, n_copies);
        let mut parameters = Parameters::zeros(self.copies);
        let tensors: Vec<Tensor> = parameters.layout().entries().iter().map(|e| e.tensor).collect();
        for (e, tensor) in (0..n_copies).flat_map(|e| tensors.iter().map(move |&t| (e, t))) {
            let (from, to) = (self.start.get(p, tensor), parameters.get_mut(e, tensor));
            if tensor != Tensor::Alpha && from.len() == to.len() {
                to.copy_from_slice(from);
            }
        }
        engine.set_parameters(&parameters)?;
        let test = self.test(&episodes);
        let schedule = Schedule { rate: self.rate, decay: 1.0, every: 1, max_norm: 0.0 };
        let (mut errors, mut seconds) = (Vec::new(), Vec::new());
        let (mut done, mut spent) = (0, 0.0);
        for until in STEPS {
            while done < until {
                if stop.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                let step = StepSize::at(Optimiser::adam(), &schedule, done);
                let halves = self.halves(&episodes, done);
                let begun = Instant::now();
                engine.update(&halves, step)?;
                engine.reports(true)?;
                spent += begun.elapsed().as_secs_f64();
                done += 1;
            }
            let own = engine.evaluate(&test, Want::default())?.y_last;
            let mut y_last = vec![0.0; self.task.network().n_networks * own.len()];
            y_last[p * own.len()..][..own.len()].copy_from_slice(&own);
            let answers = Answers { y_last: &y_last, ..Answers::default() };
            let all = self.task.errors(&episodes, &answers).unwrap_or_default();
            errors.push(mean(all.chunks(n_copies).nth(p).unwrap_or_default().iter().copied()));
            seconds.push(spent);
        }
        Ok(Some((errors, seconds)))
    }

    /// Row `row` of the stimuli of copy `e`.
    fn stimulus<'a>(&self, episodes: &'a Episodes<f32>, e: usize, row: usize) -> &'a [f32] {
        let (n, n_stimuli) = (self.copies.n_post, episodes.shape.n_stimuli);
        let at = (self.p * self.copies.n_networks + e) * n_stimuli + row;
        &episodes.stimuli[at * n..][..n]
    }

    /// The weights of the loss of copy `e`: the neurons that the task asks for.
    fn weights<'a>(&self, episodes: &'a Episodes<f32>, e: usize) -> &'a [f32] {
        let n = self.copies.n_post;
        &episodes.loss_weights[(self.p * self.copies.n_networks + e) * n..][..n]
    }

    /// Step `step` of each copy: random halves of what its episode shows, the wholes as targets.
    fn halves(&self, episodes: &Episodes<f32>, step: u64) -> Episodes<f32> {
        let n_stimuli = episodes.shape.n_stimuli - 2;
        let number = index(usize::try_from(step).unwrap_or(usize::MAX));
        let shown = |e: usize| {
            let n_copies = self.copies.n_networks;
            let copy = index((self.group * self.task.network().n_networks + self.p) * n_copies + e);
            let mut stream = Stream::new(self.seed, Purpose::TestTime, copy, number);
            let one = |row| {
                let whole = self.stimulus(episodes, e, row);
                let cue = self.task.halved(whole, &mut stream).unwrap_or_else(|| whole.to_vec());
                let target: Vec<f32> = whole.iter().map(|v| v / self.recall.gain).collect();
                (cue, target, self.weights(episodes, e).to_vec())
            };
            (0..n_stimuli).map(one).collect::<Vec<_>>()
        };
        self.tested(n_stimuli, (0..self.copies.n_networks).flat_map(shown))
    }

    /// The test of each copy's episode.
    fn test(&self, episodes: &Episodes<f32>) -> Episodes<f32> {
        let cue = |e| self.stimulus(episodes, e, episodes.shape.n_stimuli - 1).to_vec();
        let one = |e| {
            let weights = self.weights(episodes, e).to_vec();
            (cue(e), vec![0.0; weights.len()], weights)
        };
        self.tested(1, (0..self.copies.n_networks).map(one))
    }

    /// Episodes that show a cue for as long as a test does; each has a cue, a target and weights.
    fn tested(
        &self,
        n_batch: usize,
        each: impl Iterator<Item = (Vec<f32>, Vec<f32>, Vec<f32>)>,
    ) -> Episodes<f32> {
        let total = self.copies.n_networks * n_batch;
        let (mut stimuli, mut targets, mut loss_weights) = (Vec::new(), Vec::new(), Vec::new());
        for (cue, target, weights) in each {
            stimuli.extend(cue);
            targets.extend(target);
            loss_weights.extend(weights);
        }
        let n_steps = self.recall.test;
        let last = (0..total * n_steps).map(|k| (k + 1).is_multiple_of(n_steps));
        let clamp = |&v: &f32| if v == 0.0 { 0.0 } else { 1.0 };
        Episodes {
            shape: Shape {
                n_batch,
                n_steps,
                n_stimuli: 1,
                n_targets: 1,
                clamped: self.recall.clamped,
            },
            clamps: self.recall.clamped.then(|| stimuli.iter().map(clamp).collect()),
            stimuli,
            shown: vec![0; total * n_steps],
            targets,
            loss_weights,
            scored: last.map(|last| if last { 0 } else { NO_ROW }).collect(),
            pre: None,
            y0: None,
            h0: None,
            e0: None,
            signals: Signals::default(),
        }
    }
}
