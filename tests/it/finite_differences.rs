//! The oracle's gradients against finite differences of its own loss, in f64.

use crate::common::relative_error;
use crate::random_case::{Kind, RandomCase, stream};
use hebbian::engine::cpu;
use hebbian::engine::{Engine, Want};
use hebbian::model::{Activation, AlphaSharing, Episodes, Loss, Parameters, Rule, Sharing};

/// Half the spacing of the points. The error of the four-point formula is of order h^4
/// (1e-16) and rounding adds about 1e-16 / h (1e-12), both relative to a loss of order 1.
const H: f64 = 1e-4;

/// One array of a case that a gradient exists for.
type Pick = fn(&mut (Parameters<f64>, Episodes<f64>)) -> Option<&mut [f64]>;

fn derivative(
    engine: &mut dyn Engine<f64>,
    case: &(Parameters<f64>, Episodes<f64>),
    pick: Pick,
    k: usize,
) -> f64 {
    let mut loss_at = |offset: f64| {
        let mut moved = case.clone();
        pick(&mut moved).expect("there before")[k] += offset;
        engine.set_parameters(&moved.0).unwrap();
        engine.evaluate(&moved.1, Want::default()).unwrap().loss.iter().sum::<f64>()
    };
    (8.0 * (loss_at(H) - loss_at(-H)) - (loss_at(2.0 * H) - loss_at(-2.0 * H))) / (12.0 * H)
}

#[test]
fn gradients_agree_with_finite_differences_to_1e_6() {
    let mut stream = stream(11);
    let mut worst = (0.0, String::new());
    let mut n_cases = 0;
    for rule in Rule::ALL {
        for activation in Activation::ALL {
            for alpha in AlphaSharing::ALL {
                for eta in [Sharing::PerNeuron, Sharing::PerNetwork] {
                    for clamped in [false, true] {
                        for clip in [None, Some(0.25)] {
                            let bounded =
                                matches!(activation, Activation::Sigmoid | Activation::Softmax);
                            let loss = if bounded { Loss::ALL[n_cases % 3] } else { Loss::Squared };
                            let kind = Kind {
                                rule,
                                activation,
                                loss,
                                alpha,
                                eta,
                                clip,
                                clamped,
                                recurrent: n_cases % 4 != 3,
                                start: n_cases % 2 == 0,
                            };
                            let (error, at) = worst_error(&kind, &mut stream);
                            assert!(error < 1e-6, "{kind:?} {at}: {error:e}");
                            if error > worst.0 {
                                worst = (error, format!("{kind:?} {at}"));
                            }
                            n_cases += 1;
                        }
                    }
                }
            }
        }
    }
    println!("{n_cases} cases: worst {:.1e}, {:.4} of 1e-6, {}", worst.0, worst.0 / 1e-6, worst.1);
}

fn worst_error(kind: &Kind, stream: &mut hebbian::random::Stream) -> (f64, &'static str) {
    let case = RandomCase::away_from_kinks(kind, (2, 2, 4, 2, 3), 20.0 * H, stream);
    let mut engine = cpu::open::<f64>(&case.network).unwrap();
    engine.set_parameters(&case.parameters).unwrap();
    let gradients =
        engine.evaluate(&case.episodes, crate::common::ALL).unwrap().gradients.expect("wanted");
    let arrays: [(&str, Pick, &[f64]); 6] = [
        ("parameters", |c| Some(c.0.values_mut()), gradients.parameters.values()),
        ("input", |c| Some(&mut c.1.stimuli), &gradients.input),
        ("pre", |c| c.1.pre.as_deref_mut(), &gradients.pre),
        ("y0", |c| c.1.y0.as_deref_mut(), &gradients.y0),
        ("h0", |c| c.1.h0.as_deref_mut(), &gradients.h0),
        ("e0", |c| c.1.e0.as_deref_mut(), &gradients.e0),
    ];
    let mut point = (case.parameters, case.episodes);
    let mut worst = (0.0, "");
    for (name, pick, exact) in arrays {
        if pick(&mut point).is_none() {
            continue;
        }
        let differences: Vec<f64> =
            (0..exact.len()).map(|k| derivative(&mut *engine, &point, pick, k)).collect();
        let error = relative_error(exact, &differences);
        if error > worst.0 {
            worst = (error, name);
        }
    }
    worst
}
