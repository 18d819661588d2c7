//! Gradients without a backward pass: antithetic evolution strategies (Salimans et al. 2017) with
//! simultaneous perturbation (Spall 1992).
//!
//! A generation has pairs of members. Pair k has a sign `s_i = -1 or 1` for each trained number
//! `theta_i`; its members are the networks with `theta + sigma s` and `theta - sigma s`. All members play
//! the same episodes. Of n members with the fitness `f`, the gradient of minus the fitness is about
//!
//! ```text
//! g_i = -1 / (n sigma) sum_k (f_k+ - f_k-) s_ki
//! ```
//!
//! whose mean over signs is the gradient but for `O(sigma^2)`. Training takes centred ranks for `f`.
//!
//! Signs follow from (seed, network, generation, pair) and are formed where they are used, a bit each.
//! Members run in groups; a group's parameters are all that is held beside those of the network.

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::drive::{Numbers, roll_out};
use crate::engine::{Description, Engine, Program, Want};
use crate::error::{Error, Result};
use crate::model::{Episodes, Layout, Network, Parameters, Rule, Shape, Tensor};
use crate::numbers::{index, single};
use crate::random::{Purpose, Stream};
use crate::task::Task;
use crate::train::{Batch, Config, first_episode, training_batch};

/// Members whose parameters take so many bytes run at a time, where nothing else is asked for. With more,
/// forming them waits for the memory; with fewer, threads wait for each other. A generation of 1,024 networks
/// of 99 neurons takes 0.136 s with 8 to 16 at a time, as here, 0.160 s with 2, and 0.156 s with 256
/// (`benches/evolve.py groups`).
const GROUP_BYTES: usize = 1 << 20;

/// Numbers whose gradient a thread adds up at a time.
const CHUNK: usize = 1 << 12;

/// Numbers that a block of a stream has signs for.
const BLOCK: usize = 128;

/// The most members of a generation.
const MOST: usize = 1 << 20;

/// The settings of evolution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvolutionConfig {
    /// Members of a generation, an even number.
    pub members: usize,
    /// sigma, how far each trained number of a member is from the network's.
    pub noise: f64,
    /// Times a trained number, added to its gradient.
    pub weight_decay: f64,
    /// Members that run at a time; 0: as many as suit the caches of a CPU.
    pub at_once: usize,
}

impl EvolutionConfig {
    pub(super) fn validate(&self) -> Result<()> {
        if self.members < 2 || self.members > MOST || !self.members.is_multiple_of(2) {
            let wanted = format!("an even number from 2 to {MOST}: each has its opposite");
            return Err(Error::value("evolution.members", self.members.to_string(), wanted));
        }
        let held = f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX);
        if !held.contains(&self.noise) {
            let wanted = "a number above 0 that f32 can hold";
            return Err(Error::value("evolution.noise", self.noise.to_string(), wanted));
        }
        if !(0.0..=f64::from(f32::MAX)).contains(&self.weight_decay) {
            let (key, found) = ("evolution.weight_decay", self.weight_decay.to_string());
            return Err(Error::value(key, found, "a number of at least 0 that f32 can hold"));
        }
        Ok(())
    }

    /// Members that run at a time: groups are as even as can be.
    fn group(&self, layout: &Layout) -> usize {
        let most = match self.at_once {
            0 => (GROUP_BYTES / (layout.len() * size_of::<f32>())).max(2),
            most => most,
        };
        self.members.div_ceil(self.members.div_ceil(most))
    }
}

/// Whether training moves a tensor: not those that are frozen, and a rule that leaves the trace at zero
/// has no use for alpha.
pub(crate) fn is_trained(network: &Network, tensor: Tensor) -> bool {
    let plastic = network.rule != Rule::None;
    !network.stages.frozen.contains(&tensor) && (plastic || tensor != Tensor::Alpha)
}

/// Centred ranks `[n]`: -1/2 for the least fit to 1/2 for the fittest of n members. Equally fit ones
/// share the mean of their ranks; what is not finite is least fit.
#[must_use]
pub fn centred_ranks(fitness: &[f64]) -> Vec<f64> {
    let fitness: Vec<f64> =
        fitness.iter().map(|&f| if f.is_finite() { f } else { f64::NEG_INFINITY }).collect();
    let mut order: Vec<usize> = (0..fitness.len()).collect();
    order.sort_by(|&a, &b| fitness[a].total_cmp(&fitness[b]));
    let last = f64::from(index(fitness.len().max(2) - 1));
    let mut ranks = vec![0.0; fitness.len()];
    let mut first = 0;
    for equal in order.chunk_by(|&a, &b| fitness[a] == fitness[b]) {
        let middle = f64::from(index(2 * first + equal.len() - 1)) / 2.0;
        equal.iter().for_each(|&member| ranks[member] = middle / last - 0.5);
        first += equal.len();
    }
    ranks
}

/// The signs of the pairs of one network in one generation.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    seed: u64,
    network: u32,
    /// The number of pair 0.
    first: u32,
}

impl Noise {
    /// The signs of network number `network` in generation `update` of `n_pairs` pairs. Numbers of
    /// pairs come again after 2^32.
    #[must_use]
    pub fn new(seed: u64, network: u32, update: u64, n_pairs: usize) -> Self {
        let first = update.wrapping_mul(n_pairs as u64) % (1 << 32);
        Noise { seed, network, first: u32::try_from(first).expect("taken modulo 2^32") }
    }

    /// Those of network p of a run in the generation of update `update`.
    #[must_use]
    pub fn of(config: &Config, settings: &EvolutionConfig, p: usize, update: u64) -> Self {
        let number = config.first_network.wrapping_add(index(p));
        Self::new(config.seed, number, update, settings.members / 2)
    }

    /// Adds `scale` times the signs of a pair to `values`: numbers of the network's flat array, from
    /// number `128 first` on.
    pub fn add(&self, pair: usize, scale: f32, first: usize, values: &mut [f32]) {
        let number = self.first.wrapping_add(index(pair));
        let stream = Stream::new(self.seed, Purpose::Noise, self.network, number);
        for (k, values) in values.chunks_mut(BLOCK).enumerate() {
            let mut words = stream.block(index(first + k));
            let (fours, rest) = values.as_chunks_mut::<4>();
            for four in fours {
                add_signed(scale, &mut words, four);
            }
            add_signed(scale, &mut words, rest);
        }
    }

    /// The gradient of minus the fitness `[members]`, or of what is taken for it, into `gradient`.
    /// Pairs are added in their order, whatever runs at a time.
    pub fn gradient(&self, fitness: &[f64], sigma: f64, gradient: &mut [f32]) {
        let pairs = fitness.as_chunks::<2>().0;
        let scale = -1.0 / (f64::from(index(fitness.len())) * sigma);
        gradient.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
            values.fill(0.0);
            for (k, [plus, minus]) in pairs.iter().enumerate() {
                let scale = single(scale * (plus - minus));
                self.add(k, scale, chunk * CHUNK / BLOCK, values);
            }
        });
    }
}

/// Adds `scale` or minus `scale` to each value by the first bit of its word, and moves on by a bit.
#[inline(always)]
fn add_signed(scale: f32, words: &mut [u32; 4], values: &mut [f32]) {
    for (word, value) in words.iter_mut().zip(values) {
        *value += f32::from_bits(scale.to_bits() ^ (*word & (1 << 31)));
        *word <<= 1;
    }
}

/// The numbers of a network's flat array that training leaves as they are.
struct Still {
    tensors: Vec<Range<usize>>,
    /// w, and alpha where each connection has its own: those of missing connections are left too.
    of_connections: Vec<Range<usize>>,
}

impl Still {
    fn new(network: &Network) -> Self {
        let layout = Layout::new(network);
        let tensors = |chosen: &dyn Fn(Tensor, usize) -> bool| {
            let entries = layout.entries().iter().filter(|e| chosen(e.tensor, e.len));
            entries.map(|e| e.offset..e.offset + e.len).collect()
        };
        let n = network.n_connections();
        Still {
            tensors: tensors(&|tensor, _| !is_trained(network, tensor)),
            of_connections: tensors(&|tensor, len| {
                tensor == Tensor::W || tensor == Tensor::Alpha && len == n
            }),
        }
    }

    /// Sets them to what `from` says of their number; `mask` is that of the network's connections.
    fn set(&self, mask: &[f32], values: &mut [f32], from: impl Fn(usize) -> f32) {
        self.tensors.iter().cloned().flatten().for_each(|k| values[k] = from(k));
        for range in &self.of_connections {
            for (k, _) in range.clone().zip(mask).filter(|(_, mask)| **mask == 0.0) {
                values[k] = from(k);
            }
        }
    }
}

/// What runs the members of generations.
pub struct Evolution {
    settings: EvolutionConfig,
    /// Its networks are the members of a group.
    engine: Box<dyn Engine<f32>>,
    /// Of one episode a member.
    program: Program,
    group: Parameters<f32>,
    still: Still,
}

impl Evolution {
    /// Opens what members of the task's networks run on.
    ///
    /// # Errors
    /// [`Error::Value`] for settings without evolution; errors of the engine.
    pub fn open(
        config: &Config,
        task: &dyn Task,
        open: impl FnOnce(&Config, &Network) -> Result<Box<dyn Engine<f32>>>,
    ) -> Result<Self> {
        let none =
            || Error::value("evolution", "none", "its settings, as `hebbian evolve` has them");
        let settings = config.evolution.ok_or_else(none)?;
        let network = task.network();
        let n_networks = settings.group(&Layout::new(&network));
        let members = Network { n_networks, ..network };
        let mut engine = open(config, &members)?;
        let steps = if task.world().is_some() { 1 } else { task.shape(1).n_steps };
        let shape = Shape { n_steps: steps, ..task.shape(1) };
        let program = engine.program(shape, Want::default())?;
        let (group, still) = (Parameters::zeros(&members), Still::new(&members));
        Ok(Evolution { settings, engine, program, group, still })
    }

    /// Where and how the members run; the memory is that of a group.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn describe(&mut self) -> Result<Description> {
        let mut description = self.engine.describe(&self.program)?;
        description.memory_needed += size_of_val(self.group.values()) as u64;
        Ok(description)
    }

    /// The fitness `[members]` of network p's members in the generation of update `update`, its mean over
    /// a batch: minus the loss of `episodes`, or the reward of as many where the task has environments.
    /// Members `2 k` and `2 k + 1` are pair k.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn fitness(
        &mut self,
        config: &Config,
        task: &dyn Task,
        episodes: &Episodes<f32>,
        parameters: &Parameters<f32>,
        (p, update): (usize, u64),
    ) -> Result<Vec<f64>> {
        let Evolution { settings, engine, program, group, still } = self;
        let (n, n_batch, n_steps) =
            (group.n_networks(), episodes.shape.n_batch, episodes.shape.n_steps);
        let first_episode = first_episode(config, update);
        let of_world = task.world().map(|world| {
            let numbers = world.numbers(config.seed, Purpose::Training, first_episode, 1);
            let first_network = world.first_network.wrapping_add(index(p));
            (world.drive, Numbers { first_network, members: n, ..numbers })
        });
        let of_table: Vec<Episodes<f32>> = match &of_world {
            Some(_) => Vec::new(),
            None => (0..n_batch).map(|b| repeated(episodes, p * n_batch + b, n)).collect(),
        };
        // of each member of the group, in episode b of the batch
        let play = |engine: &mut dyn Engine<f32>, b: usize| -> Result<Vec<f64>> {
            if let Some((drive, numbers)) = of_world {
                let numbers = Numbers { first: numbers.first.wrapping_add(index(b)), ..numbers };
                let rewards = roll_out(engine, drive, &numbers)?.rewards;
                let sum = |rewards: &[f32]| rewards.iter().map(|&r| f64::from(r)).sum();
                return Ok(rewards.chunks_exact(n_steps).map(sum).collect());
            }
            let loss = engine.run(program, &of_table[b], Want::default())?.loss;
            Ok(loss.into_iter().map(|loss| -f64::from(loss)).collect())
        };

        let noise = Noise::of(config, settings, p, update);
        let (theta, mask) = (parameters.network(p), mask_of(parameters, engine.network(), p));
        group.mask = mask.repeat(n);
        let len = theta.len();
        let sigma = single(settings.noise);
        let mut fitness = Vec::with_capacity(settings.members + n);
        // members of the last group beyond the last one do not count
        for first in (0..settings.members).step_by(n) {
            group.values_mut().par_chunks_exact_mut(len).enumerate().for_each(|(k, values)| {
                let member = first + k;
                let scale = if member.is_multiple_of(2) { sigma } else { -sigma };
                values.copy_from_slice(theta);
                noise.add(member / 2, scale, 0, values);
                still.set(mask, values, |k| theta[k]);
            });
            engine.set_parameters(group)?;
            let mut sums = vec![0.0; n];
            for b in 0..n_batch {
                let each = play(&mut **engine, b)?;
                sums.iter_mut().zip(each).for_each(|(sum, fitness)| *sum += fitness);
            }
            fitness.extend(sums.into_iter().map(|sum| sum / f64::from(index(n_batch))));
        }
        fitness.truncate(settings.members);
        Ok(fitness)
    }

    /// Runs the generation of update `update` and gives `centre`, the engine of the networks, their
    /// gradients. Returns the networks' own episodes and answers.
    ///
    /// # Errors
    /// Errors of the engines.
    pub(super) fn fill(
        &mut self,
        config: &Config,
        task: &dyn Task,
        centre: &mut dyn Engine<f32>,
        update: u64,
    ) -> Result<Batch> {
        let mut batch = training_batch(config, task, centre, update)?;
        batch.measure(centre)?;
        let parameters = centre.parameters()?;
        let mut gradients = Parameters::zeros(centre.network());
        let decay = single(self.settings.weight_decay);
        let all = gradients.values_mut().chunks_exact_mut(parameters.layout().len());
        for (p, gradient) in all.enumerate() {
            let fitness = self.fitness(config, task, &batch.episodes, &parameters, (p, update))?;
            let noise = Noise::of(config, &self.settings, p, update);
            noise.gradient(&centred_ranks(&fitness), self.settings.noise, gradient);
            let theta = parameters.network(p);
            gradient.iter_mut().zip(theta).for_each(|(g, theta)| *g += decay * theta);
            self.still.set(mask_of(&parameters, centre.network(), p), gradient, |_| 0.0);
        }
        centre.set_gradients(&gradients)?;
        Ok(batch)
    }
}

/// The mask of network p's connections; empty where none are missing.
fn mask_of<'a>(parameters: &'a Parameters<f32>, network: &Network, p: usize) -> &'a [f32] {
    let n = network.n_connections();
    parameters.mask.get(p * n..(p + 1) * n).unwrap_or_default()
}

/// Episode `e` of all networks' for each of n members, alone in its batch.
fn repeated(episodes: &Episodes<f32>, e: usize, n: usize) -> Episodes<f32> {
    fn one<T: Copy>(list: &[T], e: usize, total: usize, n: usize) -> Vec<T> {
        let len = list.len() / total;
        list[e * len..(e + 1) * len].repeat(n)
    }
    let shape = episodes.shape;
    // the lists of schedules have a number for each step of each episode
    let total = episodes.shown.len() / shape.n_steps;
    let rows = |list: &Vec<u32>| one(list, e, total, n);
    let numbers = |list: &Vec<f32>| one(list, e, total, n);
    Episodes {
        shape: Shape { n_batch: 1, ..shape },
        stimuli: numbers(&episodes.stimuli),
        clamps: episodes.clamps.as_ref().map(numbers),
        shown: rows(&episodes.shown),
        targets: numbers(&episodes.targets),
        loss_weights: numbers(&episodes.loss_weights),
        scored: rows(&episodes.scored),
        pre: episodes.pre.as_ref().map(numbers),
        y0: episodes.y0.as_ref().map(numbers),
        h0: episodes.h0.as_ref().map(numbers),
        e0: episodes.e0.as_ref().map(numbers),
        signals: episodes.signals.map(numbers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_fitness_shares_a_rank_and_what_is_not_finite_comes_last() {
        let ranks = centred_ranks(&[2.0, f64::NAN, 2.0, 7.0, -1.0]);
        assert_eq!(ranks, [0.125, -0.5, 0.125, 0.5, -0.25]);
        assert_eq!(centred_ranks(&[3.0; 4]), [0.0; 4]);
    }

    #[test]
    fn signs_are_even_and_depend_on_nothing_but_their_number() {
        let noise = Noise::new(3, 1, 7, 4);
        let mut all = vec![0.0; 1001];
        noise.add(2, 1.0, 0, &mut all);
        assert!(all.iter().all(|s| s.abs() == 1.0));
        // five standard deviations
        assert!(all.iter().sum::<f32>().abs() < 5.0 * 1001.0_f32.sqrt());
        let mut part = vec![0.0; 1001 - 3 * BLOCK];
        noise.add(2, 1.0, 3, &mut part);
        assert_eq!(part, all[3 * BLOCK..]);
        // pair 2 of generation 7 is pair 30 of all
        let mut same = vec![0.0; 1001];
        Noise::new(3, 1, 6, 5).add(0, 1.0, 0, &mut same);
        assert_eq!(same, all);
        let mut other = vec![0.0; 1001];
        noise.add(3, 1.0, 0, &mut other);
        assert_ne!(other, all);
    }
}
