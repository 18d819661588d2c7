//! Every engine against float64 automatic differentiation
//! (`tests/reference/make_*.py`), through the files that a user reads and writes.

use hebbian::engine::cpu;
use hebbian::engine::gpu::{Context, GpuEngine, Options};
use hebbian::engine::{Engine, PlanChoice, Storage};
use hebbian::model::{
    Activation, AlphaSharing, Episodes, Loss, Network, Parameters, Rule, Scalar, Shape, Sharing,
    Signals, Stages, Tensor,
};

use crate::common::{ALL, check_fixtures};

#[test]
fn cpu_f64_agrees_with_automatic_differentiation_to_1e_11() {
    check_fixtures::<f64>(1e-11, |case| Some(cpu::open(&case.network).unwrap()));
}

#[test]
fn cpu_f32_agrees_with_automatic_differentiation_to_2e_5() {
    check_fixtures::<f32>(2e-5, |case| Some(cpu::open(&case.network).unwrap()));
}

/// Small fixtures run resident, the wide one and those with more than a core streamed; then all cores
/// streamed.
#[test]
fn gpu_agrees_with_automatic_differentiation_to_2e_5() {
    let options = Options { poison: true, ..Options::default() };
    let context = Context::new(options).expect("a GPU test needs an adapter");
    println!("{:?}", context.info());
    for plan in [PlanChoice::Auto, PlanChoice::Streamed] {
        let context = context.with(plan, Storage::F32);
        let mut n_refused = 0;
        check_fixtures::<f32>(2e-5, |case| {
            if plan == PlanChoice::Streamed && !case.network.is_core() {
                return None;
            }
            let engine = match GpuEngine::new(&context, &case.network) {
                Ok(engine) => engine,
                Err(error) => {
                    assert!(
                        !GpuEngine::runs(&case.network)
                            && error.to_string().contains("--device cpu")
                    );
                    n_refused += 1;
                    return None;
                }
            };
            Some(Box::new(engine))
        });
        println!("{n_refused} fixtures run on the CPU alone");
    }
}

/// A layer of one connection, two steps: H is `h` + m x y = `h` + 2 m after the first, y of the second
/// is the clipped H, the loss its square. dL/dm is 4 H where the gradient passes the clip, else 0.
fn gradient_through_clip<S: Scalar>(
    open: impl Fn(&Network) -> Box<dyn Engine<S>>,
    rule: Rule,
    (h, m): (f64, f64),
) -> f64 {
    let network = Network {
        n_networks: 1,
        n_pre: 1,
        n_post: 1,
        recurrent: false,
        rule,
        activation: Activation::Linear,
        loss: Loss::Squared,
        clip: Some(1.0),
        alpha: AlphaSharing::PerConnection,
        eta: Sharing::PerNetwork,
        stages: Stages::default(),
    };
    let of = |values: &[f64]| values.iter().map(|&v| S::from_f64(v)).collect::<Vec<S>>();
    let mut parameters = Parameters::<S>::zeros(&network);
    for (tensor, value) in [(Tensor::Alpha, 1.0), (Tensor::FanoutB, m)] {
        parameters.get_mut(0, tensor)[0] = S::from_f64(value);
    }
    let retroactive = rule == Rule::Retroactive;
    let episodes = Episodes {
        shape: Shape { n_batch: 1, n_steps: 2, n_stimuli: 2, n_targets: 2, clamped: false },
        // y of the first step is 2 whatever h
        stimuli: of(&[2.0 - h, 0.0]),
        clamps: None,
        shown: vec![0, 1],
        targets: of(&[0.0, 0.0]),
        loss_weights: of(&[0.0, 1.0]),
        scored: vec![0, 1],
        pre: Some(of(&[1.0, 1.0])),
        y0: None,
        h0: Some(of(&[h])),
        e0: retroactive.then(|| of(&[2.0])),
        signals: Signals::default(),
    };
    let mut engine = open(&network);
    engine.set_parameters(&parameters).unwrap();
    let gradients = engine.evaluate(&episodes, ALL).unwrap().gradients.unwrap();
    gradients.parameters.get(0, Tensor::FanoutB)[0].to_f64()
}

/// The derivative of the clip is 1 in the closed interval (other libraries have 0 or 1/2 on its
/// bounds), by every engine and plan.
#[test]
fn on_the_clips_bound_the_gradient_passes() {
    let options = Options { poison: true, ..Options::default() };
    let context = Context::new(options).expect("a GPU test needs an adapter");
    for rule in [Rule::Modulated, Rule::Retroactive] {
        // within, on the upper and the lower bound, beyond both
        for (start, wanted) in [
            ((0.0, 0.25), 2.0),
            ((0.0, 0.5), 4.0),
            ((0.0, -0.5), -4.0),
            ((0.5, 0.25), 4.0),
            ((0.0, 0.5 + 1.0 / 1024.0), 0.0),
            ((0.0, -0.75), 0.0),
        ] {
            let mut found = vec![
                gradient_through_clip::<f64>(|n| cpu::open(n).unwrap(), rule, start),
                gradient_through_clip::<f32>(|n| cpu::open(n).unwrap(), rule, start),
            ];
            for plan in [PlanChoice::Resident, PlanChoice::Streamed] {
                let context = context.with(plan, Storage::F32);
                let open = |network: &Network| -> Box<dyn Engine<f32>> {
                    Box::new(GpuEngine::new(&context, network).unwrap())
                };
                found.push(gradient_through_clip(open, rule, start));
            }
            assert_eq!(found, [wanted; 4], "{rule:?} from {start:?}");
        }
    }
}
