//! What was learned: numbers about w, alpha, eta and the trace of a trained population.

use crate::engine::{Engine, Held, Want};
use crate::error::{Error, Result};
use crate::model::{Network, Parameters, Tensor};
use crate::random::Purpose;
use crate::task::Task;
use crate::train::{Batch, Estimate, mean};

/// Held-out episodes per network that are followed.
const EPISODES: usize = 4;

/// Moments of an episode at which the trace is looked at.
const MOMENTS: usize = 8;

/// Classes of |w|, each with as many connections.
pub const CLASSES: usize = 5;

/// Shares of connections by what the plastic part alpha H does to w: they add up to 1 with
/// the share where alpha H or w is 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    /// Same sign as w.
    pub amplifies: f64,
    /// The other sign, and smaller.
    pub attenuates: f64,
    /// The other sign, and larger: the connection's sign turns.
    pub turns: f64,
}

/// The answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// Share of connections where w and alpha have the same sign.
    pub same_sign: Estimate,
    /// What that share would be if the signs were independent.
    pub same_sign_if_independent: Estimate,
    /// The share weighted by |w alpha|.
    pub same_sign_weighted: Estimate,
    /// What that would be if the signs were independent of each other, sizes as they are.
    pub same_sign_weighted_if_independent: Estimate,
    /// Eta of each network, the mean where there are many; empty without eta.
    pub eta: Vec<f64>,
    /// |w - w0| / |w0| of each network.
    pub drift_w: Vec<f64>,
    /// |alpha - alpha0| / |alpha0| of each network.
    pub drift_alpha: Vec<f64>,
    /// Steps of an episode after which the trace was looked at.
    pub moments: Vec<usize>,
    /// Effect at each moment, over networks and episodes.
    pub over_time: Vec<Effect>,
    /// Effect after the last step by class of |w|, the smallest first.
    pub by_size: Vec<Effect>,
    /// Largest singular values of H after the last step of an episode, mean over networks,
    /// as shares of its Frobenius norm.
    pub spectrum: Vec<f64>,
    /// The neuromodulator m of network 0, mean over its neurons, at each step of some episodes; empty
    /// for a rule without one.
    pub modulator: Vec<Vec<f64>>,
}

/// Inspects a trained population; `initial` are the parameters that it began with.
///
/// # Errors
/// [`Error::Value`] for a task whose episodes cannot be followed; errors of the engine.
pub fn inspect(
    task: &dyn Task,
    engine: &mut dyn Engine<f32>,
    parameters: &Parameters<f32>,
    initial: &Parameters<f32>,
    seed: u64,
) -> Result<Inspection> {
    let network = task.network();
    if !network.recurrent {
        return Err(Error::value("inspect", "a feed-forward network", "a recurrent one"));
    }
    engine.set_parameters(parameters)?;
    let each = |number: &dyn Fn(usize) -> f64| -> Vec<f64> {
        (0..network.n_networks).map(number).collect()
    };
    let signs: Vec<Signs> =
        (0..network.n_networks).map(|p| Signs::count(&network, parameters, p)).collect();
    let estimate =
        |number: fn(&Signs) -> f64| Estimate::of(&signs.iter().map(number).collect::<Vec<f64>>());
    let drift = |tensor| each(&|p| distance(parameters.get(p, tensor), initial.get(p, tensor)));
    let eta = each(&|p| mean(parameters.get(p, Tensor::Eta).iter().map(|&v| f64::from(v))));
    let Followed { moments, over_time, by_size, spectrum, modulator } =
        follow(task, engine, parameters, seed)?;
    Ok(Inspection {
        same_sign: estimate(Signs::same),
        same_sign_if_independent: estimate(Signs::same_if_independent),
        same_sign_weighted: estimate(Signs::same_weighted),
        same_sign_weighted_if_independent: estimate(Signs::same_weighted_if_independent),
        eta: if network.rule.uses_eta() { eta } else { Vec::new() },
        drift_w: drift(Tensor::W),
        drift_alpha: drift(Tensor::Alpha),
        moments,
        over_time,
        by_size,
        spectrum,
        modulator,
    })
}

/// alpha of each connection.
#[must_use]
pub fn alpha_matrix(network: &Network, parameters: &Parameters<f32>, p: usize) -> Vec<f32> {
    let alpha = parameters.get(p, Tensor::Alpha);
    let n = network.n_post;
    let (row, column) = network.alpha.strides(n);
    (0..network.n_connections()).map(|k| alpha[k / n * row + k % n * column]).collect()
}

/// Sums over the connections of a network.
#[derive(Default)]
struct Signs {
    n: f64,
    same: f64,
    w_positive: f64,
    alpha_positive: f64,
    weight: f64,
    weight_same: f64,
    weight_w_positive: f64,
    weight_alpha_positive: f64,
}

impl Signs {
    fn count(network: &Network, parameters: &Parameters<f32>, p: usize) -> Self {
        let alpha = alpha_matrix(network, parameters, p);
        let mut sums = Signs::default();
        for (&w, &alpha) in parameters.get(p, Tensor::W).iter().zip(&alpha) {
            if w == 0.0 || alpha == 0.0 {
                continue;
            }
            let weight = f64::from(w.abs()) * f64::from(alpha.abs());
            let one = |yes: bool| f64::from(u8::from(yes));
            sums.n += 1.0;
            sums.same += one((w > 0.0) == (alpha > 0.0));
            sums.w_positive += one(w > 0.0);
            sums.alpha_positive += one(alpha > 0.0);
            sums.weight += weight;
            sums.weight_same += weight * one((w > 0.0) == (alpha > 0.0));
            sums.weight_w_positive += weight * one(w > 0.0);
            sums.weight_alpha_positive += weight * one(alpha > 0.0);
        }
        sums
    }

    fn same(&self) -> f64 {
        self.same / self.n.max(1.0)
    }

    fn same_if_independent(&self) -> f64 {
        chance(self.w_positive / self.n.max(1.0), self.alpha_positive / self.n.max(1.0))
    }

    fn same_weighted(&self) -> f64 {
        self.weight_same / self.weight.max(f64::MIN_POSITIVE)
    }

    fn same_weighted_if_independent(&self) -> f64 {
        let weight = self.weight.max(f64::MIN_POSITIVE);
        chance(self.weight_w_positive / weight, self.weight_alpha_positive / weight)
    }
}

/// How often two independent signs agree.
fn chance(a: f64, b: f64) -> f64 {
    a * b + (1.0 - a) * (1.0 - b)
}

fn distance(now: &[f32], before: &[f32]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let moved = now.iter().zip(before).map(|(&a, &b)| f64::from(a) - f64::from(b));
    let size = square(&mut before.iter().map(|&b| f64::from(b)));
    (square(&mut { moved }) / size.max(f64::MIN_POSITIVE)).sqrt()
}

/// What [`follow`] finds; see [`Inspection`].
struct Followed {
    moments: Vec<usize>,
    over_time: Vec<Effect>,
    by_size: Vec<Effect>,
    spectrum: Vec<f64>,
    modulator: Vec<Vec<f64>>,
}

/// The neuromodulator of a network at activity y, mean over its neurons.
fn modulator_of(parameters: &Parameters<f32>, p: usize, y: &[f32]) -> f64 {
    let of = |tensor| parameters.get(p, tensor).iter().map(|&v| f64::from(v));
    let read: f64 = of(Tensor::ModW).zip(y).map(|(w, &y)| w * f64::from(y)).sum();
    let s = (read + of(Tensor::ModB).sum::<f64>()).tanh();
    mean(of(Tensor::FanoutW)) * s + mean(of(Tensor::FanoutB))
}

/// Lives through held-out episodes and looks at the trace on the way.
fn follow(
    task: &dyn Task,
    engine: &mut dyn Engine<f32>,
    parameters: &Parameters<f32>,
    seed: u64,
) -> Result<Followed> {
    let network = task.network();
    let (p, mn) = (network.n_networks, network.n_connections());
    let batch = Batch::new(task, engine, seed, Purpose::HeldOut, (0, EPISODES))?;
    let episodes = batch.episodes;
    if episodes.has_start() || episodes.signals.reset.is_some() {
        let found = "episodes with a start or resets of their own";
        return Err(Error::value("inspect", found, "episodes that start from nothing"));
    }
    let shape = episodes.shape;
    let life = engine.wake(&Held::newborn(&network, EPISODES))?;
    let mut moments: Vec<usize> =
        (1..=MOMENTS).map(|k| (k * shape.n_steps / MOMENTS).max(1)).collect();
    moments.dedup();
    let classes: Vec<Vec<usize>> = (0..p).map(|p| classes(parameters.get(p, Tensor::W))).collect();
    let alphas: Vec<Vec<f32>> = (0..p).map(|p| alpha_matrix(&network, parameters, p)).collect();
    let modulated = network.has_modulator();
    let mut modulator = vec![Vec::new(); if modulated { EPISODES } else { 0 }];
    let mut over_time = Vec::new();
    let mut by_size = [[0.0; 4]; CLASSES];
    for t in 0..shape.n_steps {
        let outputs = engine.live(life, &episodes.step(&network, t), Want::default())?;
        for (m, y) in modulator.iter_mut().zip(outputs.y_last.chunks_exact(network.n_post)) {
            m.push(modulator_of(parameters, 0, y));
        }
        if !moments.contains(&(t + 1)) {
            continue;
        }
        let mut all = [0.0; 4];
        let last = t + 1 == shape.n_steps;
        for (e, h) in engine.held(life)?.h.chunks_exact(mn).enumerate() {
            let p = e / EPISODES;
            let w = parameters.get(p, Tensor::W);
            for k in 0..mn {
                let plastic = alphas[p][k] * h[k];
                let which = match () {
                    () if plastic == 0.0 || w[k] == 0.0 => 3,
                    () if (plastic > 0.0) == (w[k] > 0.0) => 0,
                    () if plastic.abs() <= w[k].abs() => 1,
                    () => 2,
                };
                all[which] += 1.0;
                if last {
                    by_size[classes[p][k]][which] += 1.0;
                }
            }
        }
        over_time.push(effect(&all));
    }
    let h = engine.held(life)?.h;
    engine.rest(life)?;
    let spectra: Vec<Vec<f64>> =
        (0..p).map(|p| spectrum(&h[p * EPISODES * mn..][..mn], network.n_post)).collect();
    let n = spectra.iter().map(Vec::len).min().unwrap_or(0);
    let spectrum = (0..n).map(|k| mean(spectra.iter().map(|s| s[k]))).collect();
    let by_size = by_size.iter().map(effect).collect();
    Ok(Followed { moments, over_time, by_size, spectrum, modulator })
}

fn effect(counts: &[f64; 4]) -> Effect {
    let all = counts.iter().sum::<f64>().max(1.0);
    Effect { amplifies: counts[0] / all, attenuates: counts[1] / all, turns: counts[2] / all }
}

/// The class of |w| of each connection.
fn classes(w: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..w.len()).collect();
    order.sort_by(|&a, &b| w[a].abs().total_cmp(&w[b].abs()));
    let mut class = vec![0; w.len()];
    for (rank, k) in order.into_iter().enumerate() {
        class[k] = rank * CLASSES / w.len();
    }
    class
}

/// The largest singular values of a matrix with `n` columns, over its Frobenius norm, by
/// orthogonal iteration (Golub & Van Loan, *Matrix computations*, section 8.2).
fn spectrum(h: &[f32], n: usize) -> Vec<f64> {
    const VALUES: usize = 12;
    const ROUNDS: usize = 30;
    let norm = h.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let count = VALUES.min(n);
    if norm == 0.0 {
        return vec![0.0; count];
    }
    let mut stream = crate::random::Stream::new(0, Purpose::Parameters, 0, 0);
    let mut basis: Vec<Vec<f64>> =
        (0..count).map(|_| (0..n).map(|_| stream.normal()).collect()).collect();
    let mut sizes = vec![0.0; count];
    for _ in 0..ROUNDS {
        orthonormalise(&mut basis);
        for (vector, size) in basis.iter_mut().zip(&mut sizes) {
            let image: Vec<f64> = h
                .chunks_exact(n)
                .map(|row| row.iter().zip(&*vector).map(|(&a, b)| f64::from(a) * b).sum())
                .collect();
            *size = image.iter().map(|v: &f64| v * v).sum::<f64>().sqrt();
            vector.fill(0.0);
            for (row, scale) in h.chunks_exact(n).zip(&image) {
                for (out, &a) in vector.iter_mut().zip(row) {
                    *out += scale * f64::from(a);
                }
            }
        }
    }
    sizes.sort_by(|a, b| b.total_cmp(a));
    sizes.iter().map(|size| size / norm).collect()
}

/// Modified Gram-Schmidt.
fn orthonormalise(basis: &mut [Vec<f64>]) {
    for k in 0..basis.len() {
        let (before, rest) = basis.split_at_mut(k);
        let vector = &mut rest[0];
        for other in before {
            let along: f64 = vector.iter().zip(&*other).map(|(a, b)| a * b).sum();
            vector.iter_mut().zip(&*other).for_each(|(a, b)| *a -= along * b);
        }
        let size = vector.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        vector.iter_mut().for_each(|v| *v /= size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spectrum_of_known_matrices_is_found() {
        // diag(3, 4): singular values 4 and 3, norm 5
        let found = spectrum(&[3.0, 0.0, 0.0, 4.0], 2);
        assert!((found[0] - 0.8).abs() < 1e-9 && (found[1] - 0.6).abs() < 1e-9, "{found:?}");
        // an outer product has one
        let found = spectrum(&[1.0, 2.0, 2.0, 4.0], 2);
        assert!((found[0] - 1.0).abs() < 1e-9 && found[1].abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn chances_and_classes_are_as_defined() {
        assert!((chance(0.5, 0.9) - 0.5).abs() < 1e-12);
        assert!((chance(1.0, 0.9) - 0.9).abs() < 1e-12);
        assert_eq!(classes(&[0.1, -5.0, 0.2, 3.0, -0.3]), [0, 4, 1, 3, 2]);
    }
}
