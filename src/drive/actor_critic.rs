//! Advantage actor-critic over whole episodes (Mnih et al. 2016), as in Miconi et al. 2019: one episode,
//! one update, no bootstrap; the baseline of an episode is its own value.

use serde::{Deserialize, Serialize};

use crate::numbers::{index, single};

/// The objective's numbers. Of an episode of T steps with the returns `R(t) = r(t) + discount R(t+1)`,
/// values V and probabilities p of the actions:
///
/// ```text
/// loss = (1/T) sum_t ( -ln p_a(t) (R - V) + value (R - V)^2 + concentration sum_k p_k^2 )
/// ```
///
/// The advantage R - V of the first term passes no gradient.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActorCritic {
    /// Weight of a reward one step later, from 0 to 1.
    pub discount: f64,
    /// Weight of the squared error of the value.
    pub value: f64,
    /// Weight of the sum of squared probabilities, which keeps the policy from settling early.
    pub concentration: f64,
}

/// Probabilities of logits.
#[must_use]
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let mut each: Vec<f64> = logits.iter().map(|&v| (f64::from(v) - most).exp()).collect();
    let sum: f64 = each.iter().sum();
    each.iter_mut().for_each(|p| *p /= sum);
    each
}

impl ActorCritic {
    /// The loss of one episode, and its gradient by the read-out `[T, O]` times `scale` into `dout`. The
    /// read-out holds a logit for each action, then the value.
    pub fn gradient(
        &self,
        out: &[f32],
        actions: &[u32],
        rewards: &[f32],
        scale: f64,
        dout: &mut [f32],
    ) -> f64 {
        let n_steps = actions.len();
        let o = out.len() / n_steps;
        let share = 1.0 / f64::from(index(n_steps));
        let (mut loss, mut later) = (0.0, 0.0);
        for t in (0..n_steps).rev() {
            later = f64::from(rewards[t]) + self.discount * later;
            let (logits, value) = out[t * o..][..o].split_at(o - 1);
            let p = softmax(logits);
            let action = actions[t] as usize;
            let advantage = later - f64::from(value[0]);
            let concentration: f64 = p.iter().map(|p| p * p).sum();
            loss += share
                * (self.value * advantage * advantage + self.concentration * concentration
                    - p[action].ln() * advantage);
            let dout = &mut dout[t * o..][..o];
            let slope = |k: usize| match k {
                _ if k == o - 1 => -2.0 * self.value * advantage,
                _ => {
                    let chosen = f64::from(u8::from(k == action));
                    advantage * (p[k] - chosen)
                        + 2.0 * self.concentration * p[k] * (p[k] - concentration)
                }
            };
            for (k, dout) in dout.iter_mut().enumerate() {
                *dout = single(scale * share * slope(k));
            }
        }
        loss
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Stream};

    /// The loss in f64, with the advantages of the first term given.
    fn loss_of(
        objective: &ActorCritic,
        out: &[f64],
        actions: &[u32],
        returns: &[f64],
        advantage: &[f64],
    ) -> f64 {
        let n_steps = actions.len();
        let o = out.len() / n_steps;
        let one = |t: usize| {
            let out = &out[t * o..][..o];
            let sum: f64 = out[..o - 1].iter().map(|v| v.exp()).sum();
            let p: Vec<f64> = out[..o - 1].iter().map(|v| v.exp() / sum).collect();
            -p[actions[t] as usize].ln() * advantage[t]
                + objective.value * (returns[t] - out[o - 1]).powi(2)
                + objective.concentration * p.iter().map(|p| p * p).sum::<f64>()
        };
        (0..n_steps).map(one).sum::<f64>() / f64::from(index(n_steps))
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let objective = ActorCritic { discount: 0.9, value: 0.3, concentration: 0.2 };
        let mut stream = Stream::new(3, Purpose::Training, 0, 0);
        let (n_steps, o) = (7, 5);
        let out: Vec<f32> = (0..n_steps * o).map(|_| single(stream.normal())).collect();
        let actions: Vec<u32> = (0..n_steps).map(|_| stream.below(4)).collect();
        let rewards: Vec<f32> = (0..n_steps).map(|_| single(stream.normal())).collect();
        let mut returns = vec![0.0; n_steps];
        for t in (0..n_steps).rev() {
            let later = if t + 1 < n_steps { returns[t + 1] } else { 0.0 };
            returns[t] = f64::from(rewards[t]) + 0.9 * later;
        }
        let wide: Vec<f64> = out.iter().map(|&v| f64::from(v)).collect();
        let advantage: Vec<f64> = (0..n_steps).map(|t| returns[t] - wide[t * o + o - 1]).collect();
        let mut dout = vec![f32::NAN; out.len()];
        let loss = objective.gradient(&out, &actions, &rewards, 0.5, &mut dout);
        let plain = |out: &[f64]| loss_of(&objective, out, &actions, &returns, &advantage);
        assert!((loss - plain(&wide)).abs() < 1e-12, "{loss}");
        for k in 0..out.len() {
            let moved = |by: f64| {
                let mut moved = wide.clone();
                moved[k] += by;
                plain(&moved)
            };
            let slope = 0.5 * (moved(1e-5) - moved(-1e-5)) / 2e-5;
            // f32 rounds to 6e-8 of numbers below 1; the differences are exact to 1e-9
            assert!((f64::from(dout[k]) - slope).abs() < 1e-7, "{k}: {} {slope}", dout[k]);
        }
    }
}
