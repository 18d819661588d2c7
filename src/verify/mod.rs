//! Checks of an engine's results on small random jobs.

use crate::engine::{Engine, Want, cpu};
use crate::error::{Error, Result};
use crate::model::{
    Activation, AlphaSharing, Episodes, Leak, Loss, Network, Parameters, Rule, RuleText, Shape,
    Sharing, Signals, Stages, Tensor,
};
use crate::random::{Purpose, Stream};

/// The share of a gradient's norm that finite differences may be off by.
pub const TOLERANCE: f64 = 1e-5;

/// Half the distance over which differences are taken.
const STEP: f64 = 1e-5;

/// Elements of a tensor that are compared.
const ELEMENTS: usize = 12;

/// Draws that may lie near a kink, where differences are of both sides.
const DRAWS: u32 = 4;

/// A small recurrent network with a rule that is a text.
fn network(rule: &RuleText) -> Network {
    Network {
        n_networks: 1,
        n_pre: 5,
        n_post: 5,
        recurrent: true,
        rule: Rule::Custom,
        activation: Activation::Tanh,
        loss: Loss::Squared,
        clip: None,
        alpha: AlphaSharing::PerConnection,
        eta: Sharing::PerNetwork,
        stages: Stages { rule: Some(rule.clone()), ..Stages::default() },
    }
}

/// A batch for such networks, and parameters near the start of training.
fn drawn(network: &Network, draw: u32) -> (Parameters<f64>, Episodes<f64>) {
    let mut stream = Stream::new(7, Purpose::Parameters, draw, 0);
    let (n, b, t) = (network.n_post, 2, 6);
    let mut parameters = Parameters::<f64>::zeros(network);
    for entry in parameters.layout().clone().entries() {
        let init = match (entry.tensor, &network.stages.rule) {
            (Tensor::OfRule(k), Some(rule)) => rule.program.parameters()[k].init,
            (Tensor::Leak, _) => 0.5,
            _ => 0.0,
        };
        for value in parameters.get_mut(0, entry.tensor) {
            *value = init + 0.2 * stream.normal();
        }
    }
    let mut normals = |len: usize| (0..len).map(|_| stream.normal()).collect::<Vec<f64>>();
    let every_step: Vec<u32> = [0, 1, 2, 3, 4, 5].repeat(b);
    let shape = Shape { n_batch: b, n_steps: t, n_stimuli: t, n_targets: t, clamped: false };
    let episodes = Episodes {
        shape,
        stimuli: normals(b * t * n),
        clamps: None,
        shown: every_step.clone(),
        targets: normals(b * t * n),
        loss_weights: vec![1.0; b * t * n],
        scored: every_step,
        pre: None,
        y0: Some(normals(b * n)),
        h0: Some(normals(b * n * n).iter().map(|v| 0.2 * v).collect()),
        e0: None,
        signals: Signals {
            v0: matches!(network.stages.leak, Some((Leak::Membrane, _))).then(|| vec![0.0; b * n]),
            ..Signals::default()
        },
    };
    (parameters, episodes)
}

/// The largest difference between the derived gradient of a rule and finite differences, on a small
/// random network, as a share of each gradient's norm.
///
/// # Errors
/// [`Error::Diverged`] where the rule gives numbers that are not finite; errors of the engine.
pub fn finite_differences(rule: &RuleText) -> Result<f64> {
    let network = network(rule);
    let mut least = f64::INFINITY;
    for draw in 0..DRAWS {
        let (parameters, episodes) = drawn(&network, draw);
        least = least.min(difference(&network, &parameters, &episodes)?);
        if least < TOLERANCE {
            break;
        }
    }
    if least.is_finite() {
        return Ok(least);
    }
    let what = format!("the rule {} on a small random network", rule.program.name());
    Err(Error::Diverged { what, update: None })
}

fn difference(
    network: &Network,
    parameters: &Parameters<f64>,
    episodes: &Episodes<f64>,
) -> Result<f64> {
    let mut engine = cpu::open::<f64>(network)?;
    let loss = |engine: &mut dyn Engine<f64>, at: &Parameters<f64>| -> Result<f64> {
        engine.set_parameters(at)?;
        Ok(engine.evaluate(episodes, Want::default())?.loss[0])
    };
    engine.set_parameters(parameters)?;
    let want = Want { gradients: true, ..Want::default() };
    let gradients = engine.evaluate(episodes, want)?.gradients.expect("wanted").parameters;
    let mut worst: f64 = 0.0;
    for entry in parameters.layout().entries() {
        let found = gradients.get(0, entry.tensor);
        let norm = found.iter().map(|g| g * g).sum::<f64>().sqrt().max(1e-3);
        for k in (0..entry.len).step_by(entry.len.div_ceil(ELEMENTS)) {
            let mut sides = [0.0; 2];
            for (side, sign) in sides.iter_mut().zip([1.0, -1.0]) {
                let mut moved = parameters.clone();
                moved.get_mut(0, entry.tensor)[k] += sign * STEP;
                *side = loss(&mut *engine, &moved)?;
            }
            let slope = (sides[0] - sides[1]) / (2.0 * STEP);
            let off = (slope - found[k]).abs() / norm;
            worst = if off.is_nan() { f64::INFINITY } else { worst.max(off) };
        }
    }
    Ok(worst)
}

/// Checks the derived gradient of a rule of one's own before it is trained with.
///
/// # Errors
/// [`Error::Value`] with the difference, if it is not that of finite differences; errors of the engine.
pub fn check_rule(rule: &RuleText) -> Result<()> {
    let off = finite_differences(rule)?;
    if off < TOLERANCE {
        return Ok(());
    }
    let found = format!("a gradient that is {off:.1e} off finite differences");
    Err(Error::value("rule", found, format!("at most {TOLERANCE:.0e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{Program, TEXTS};

    #[test]
    fn every_rule_that_comes_with_the_program_has_the_gradient_of_finite_differences() {
        for (name, text) in TEXTS {
            let rule = RuleText::new(Program::parse(text).unwrap(), true);
            let off = finite_differences(&rule).unwrap();
            println!("{name}: {:.2} of {TOLERANCE:e}", off / TOLERANCE);
            assert!(off < TOLERANCE, "{name}: {off:.1e}");
        }
    }
}
