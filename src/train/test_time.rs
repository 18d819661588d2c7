//! Gradient steps at test time: is plasticity more than a network that gets a little more training
//! data?
//!
//! A copy of a trained network for each held-out episode takes gradient steps on the stimuli shown in
//! that episode, each with random halves of it hidden, and is then tested as the plastic network is.

use std::time::Instant;

use crate::engine::{Engine, Want};
use crate::error::{Error, Result};
use crate::model::{
    Episodes, NO_ROW, Network, Optimiser, Parameters, Schedule, Shape, Signals, StepSize, Tensor,
};
use crate::random::{Purpose, Stream};
use crate::task::{Answers, Recall, Task, index};
use crate::train::mean;

/// Numbers of gradient steps after which the copies are tested.
pub const STEPS: [u64; 6] = [0, 1, 3, 10, 30, 100];

/// What is tried of learning rates, as multiples of the rate that the network was trained with.
const RATES: [f64; 3] = [1.0, 10.0, 100.0];

/// Errors of networks after gradient steps on what the episodes show.
#[derive(Clone, Debug, PartialEq)]
pub struct TestTime {
    /// The rate of the steps, the best of three on training episodes.
    pub rate: f64,
    /// For each number of [`STEPS`]: the error of each network, mean over its episodes.
    pub errors: Vec<Vec<f64>>,
    /// Seconds that an episode of one network took after each number of [`STEPS`].
    pub seconds: Vec<f64>,
    /// Multiply-adds of one gradient step of an episode.
    pub per_step: u64,
    /// Multiply-adds of one showing to a plastic network.
    pub per_showing: u64,
}

/// Takes the steps from `start`, parameters of a task's networks, whose alpha is set to 0. The engine is
/// one of as many networks as episodes are tested, the copies; `rate` is what the networks were trained
/// with.
///
/// # Errors
/// [`Error::Value`] for a task that shows no stimuli; errors of the engine.
pub fn test_time(
    task: &dyn Task,
    start: &Parameters<f32>,
    engine: &mut dyn Engine<f32>,
    seed: u64,
    rate: f64,
) -> Result<TestTime> {
    let none =
        || Error::value("gradient steps", format!("task {}", task.name()), "patterns or images");
    let recall = task.recall().ok_or_else(none)?;
    let network = task.network();
    let copies = engine.network().clone();
    let n_episodes = copies.n_networks;
    let mut found = TestTime {
        rate,
        errors: vec![Vec::new(); STEPS.len()],
        seconds: vec![0.0; STEPS.len()],
        ..work(task, &recall)
    };
    let mut run = |purpose, p: usize, rate| {
        let job = Job { task, recall: &recall, copies: &copies, start, seed, purpose, p, rate };
        job.run(engine)
    };
    let mut best = f64::INFINITY;
    for tried in RATES.map(|times| times * rate) {
        let (errors, _) = run(Purpose::Training, 0, tried)?;
        if mean(errors.iter().copied()) < best {
            best = mean(errors.iter().copied());
            found.rate = tried;
        }
    }
    for p in 0..network.n_networks {
        let (errors, seconds) = run(Purpose::HeldOut, p, found.rate)?;
        for (k, (error, seconds)) in errors.into_iter().zip(seconds).enumerate() {
            found.errors[k].push(error);
            let share = f64::from(index(n_episodes * network.n_networks));
            found.seconds[k] += seconds / share;
        }
    }
    Ok(found)
}

/// Multiply-adds counted by the equations: a step of a plastic network takes three for each connection
/// (alpha H, the sum, the trace), one of a gradient step three (forward, backward, outer product).
fn work(task: &dyn Task, recall: &Recall) -> TestTime {
    let shape = task.shape(1);
    let connections = task.network().n_connections() as u64;
    let stimuli = (shape.n_stimuli - 2) as u64;
    TestTime {
        rate: 0.0,
        errors: Vec::new(),
        seconds: Vec::new(),
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
    rate: f64,
}

impl Job<'_> {
    /// The error after each number of [`STEPS`], and the seconds until there.
    fn run(&self, engine: &mut dyn Engine<f32>) -> Result<(Vec<f64>, Vec<f64>)> {
        let (n_copies, p) = (self.copies.n_networks, self.p);
        let episodes = self.task.episodes(self.seed, self.purpose, 0, n_copies);
        let mut parameters = Parameters::zeros(self.copies);
        let len = parameters.layout().len();
        for e in 0..n_copies {
            parameters.values_mut()[e * len..][..len].copy_from_slice(self.start.network(p));
            parameters.get_mut(e, Tensor::Alpha).fill(0.0);
        }
        engine.set_parameters(&parameters)?;
        let test = self.test(&episodes);
        let schedule = Schedule { rate: self.rate, decay: 1.0, every: 1, max_norm: 0.0 };
        let (mut errors, mut seconds) = (Vec::new(), Vec::new());
        let (mut done, mut spent) = (0, 0.0);
        for until in STEPS {
            let begun = Instant::now();
            while done < until {
                let step = StepSize::at(Optimiser::adam(), &schedule, done);
                engine.update(&self.halves(&episodes, done), step)?;
                done += 1;
            }
            engine.reports(true)?;
            let own = engine.evaluate(&test, Want::default())?.y_last;
            spent += begun.elapsed().as_secs_f64();
            let mut y_last = vec![0.0; self.task.network().n_networks * own.len()];
            y_last[p * own.len()..][..own.len()].copy_from_slice(&own);
            let answers = Answers { y_last: &y_last, ..Answers::default() };
            let all = self.task.errors(&episodes, &answers).unwrap_or_default();
            errors.push(mean(all.chunks(n_copies).nth(p).unwrap_or_default().iter().copied()));
            seconds.push(spent);
        }
        Ok((errors, seconds))
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
            let copy = index(self.p * self.copies.n_networks + e);
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
