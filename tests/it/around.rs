//! What stands around the core, drawn at random, on every engine that runs it against the plain version.

use hebbian::engine::gpu::{Context, GpuEngine, Options};
use hebbian::engine::{Engine, Outputs, cpu, reference};
use hebbian::model::{
    Activation, Leak, Linear, Loss, OutputLoss, Parameters, Rule, Scalar, Sharing, Stages, Tensor,
};
use hebbian::random::Stream;

use crate::common::{ALL, relative_error};
use crate::random_case::{Kind, PLAIN, RandomCase, stream};

/// Every number that a batch gives, by name.
pub(crate) fn named<S: Scalar>(out: &Outputs<S>) -> Vec<(String, Vec<f64>)> {
    let wide = |values: &[S]| values.iter().map(|v| v.to_f64()).collect::<Vec<f64>>();
    let g = out.gradients.as_ref().expect("wanted");
    let layout = g.parameters.layout();
    let mut all: Vec<(String, Vec<f64>)> = layout
        .entries()
        .iter()
        .map(|entry| {
            let each =
                (0..g.parameters.n_networks()).flat_map(|p| g.parameters.get(p, entry.tensor));
            (entry.name.clone(), wide(&each.copied().collect::<Vec<S>>()))
        })
        .collect();
    let signals = [&g.signals.m, &g.signals.observed, &g.signals.v0];
    let signals = signals.map(|list| list.as_deref().unwrap_or_default());
    for (name, values) in [
        ("loss", &out.loss),
        ("y", &out.y),
        ("y_last", &out.y_last),
        ("h", &out.h),
        ("e", &out.e),
        ("v", &out.v),
        ("out", &out.out),
        ("d input", &g.input),
        ("d pre", &g.pre),
        ("d y0", &g.y0),
        ("d h0", &g.h0),
        ("d e0", &g.e0),
    ] {
        all.push((name.into(), wide(values)));
    }
    for (k, values) in out.rule.iter().enumerate() {
        all.push((format!("rule {k}"), wide(values)));
    }
    for (k, values) in g.signals.rule0.iter().enumerate() {
        all.push((format!("d rule0 {k}"), wide(values.as_deref().unwrap_or_default())));
    }
    for (name, values) in ["d m", "d obs", "d v0"].iter().zip(signals) {
        all.push(((*name).into(), wide(values)));
    }
    all
}

/// Adds drawn stages to a case.
pub(crate) fn surround(case: &mut RandomCase, k: usize, stream: &mut Stream) {
    let shape = case.episodes.shape;
    let network = &mut case.network;
    let (p, m, n) = (network.n_networks, network.n_pre, network.n_post);
    let mut draw = |most: u32| stream.below(most) as usize;
    let sharing = [Sharing::PerNeuron, Sharing::PerNetwork];
    network.stages = Stages {
        bias: [None, Some(sharing[0]), Some(sharing[1])][draw(3)],
        leak: [
            None,
            Some((Leak::Rate, sharing[draw(2)])),
            Some((Leak::Membrane, sharing[draw(2)])),
        ][k % 3],
        masked: draw(3) == 0,
        input: (draw(2) == 0).then(|| Linear { size: 1 + draw(5), bias: draw(2) == 0 }),
        output: (draw(2) == 0).then(|| Linear { size: 1 + draw(4), bias: draw(2) == 0 }),
        given_m: network.reads_m() && draw(3) == 0,
        rule: network.stages.rule.take(),
        ..Stages::default()
    };
    let stages = &mut network.stages;
    stages.cotangents = draw(4) == 0;
    if stages.output.is_some() && !stages.cotangents {
        stages.output_loss = [
            None,
            Some(OutputLoss::Squared),
            Some(OutputLoss::BceLogits),
            Some(OutputLoss::CrossEntropyLogits),
        ][draw(4)];
    }
    network.activation = [Activation::Softplus, Activation::Gelu, network.activation][draw(3)];
    if !matches!(network.activation, Activation::Sigmoid | Activation::Softmax) {
        network.loss = Loss::Squared;
    }
    let network = case.network.clone();
    let mut short = |size: f64| f64::from((size * stream.normal()) as f32);
    let before = case.parameters.clone();
    let mut parameters = Parameters::<f64>::zeros(&network);
    for q in 0..p {
        for entry in parameters.layout().clone().entries() {
            let old = before.get(q, entry.tensor).to_vec();
            for (at, value) in parameters.get_mut(q, entry.tensor).iter_mut().enumerate() {
                *value = match (old.get(at), entry.tensor) {
                    (Some(&old), _) => old,
                    (None, Tensor::Leak) => f64::from(0.55f32 + 0.4 * short(1.0).tanh() as f32),
                    (None, _) => short(0.4),
                };
            }
        }
    }
    let mut many = |len: usize| -> Vec<f64> { (0..len).map(|_| short(0.7)).collect() };
    let total = p * shape.n_batch;
    let steps = total * shape.n_steps;
    let (stages, signals) = (&network.stages, &mut case.episodes.signals);
    if stages.masked {
        parameters.mask = many(p * m * n).iter().map(|&v| f64::from(u8::from(v > -0.4))).collect();
    }
    case.parameters = parameters;
    if network.reads_m() && (stages.given_m || k.is_multiple_of(2)) {
        signals.m = Some(many(if k % 4 < 2 { steps } else { steps * n }));
    }
    signals.observed = stages.input.map(|layer| many(steps * layer.size));
    if matches!(stages.leak, Some((Leak::Membrane, _))) && k % 2 == 1 {
        signals.v0 = Some(many(total * n));
    }
    let outputs = stages.output.map_or(0, |layer| layer.size);
    if stages.cotangents {
        signals.dy = Some(many(steps * n));
        signals.dout = (outputs > 0).then(|| many(steps * outputs));
    }
    if stages.output_loss.is_some() {
        let bits = |list: Vec<f64>| list.iter().map(|&v| f64::from(u8::from(v > 0.0))).collect();
        signals.output_targets = Some([bits(many(steps * outputs)), bits(many(steps * outputs))]);
    }
}

/// A case with a drawn rule and drawn stages.
pub(crate) fn drawn(k: usize, stream: &mut Stream) -> RandomCase {
    let kind = Kind {
        rule: Rule::ALL[k % 5],
        clip: k.is_multiple_of(7).then_some(0.4),
        clamped: k.is_multiple_of(3),
        recurrent: !k.is_multiple_of(4),
        start: k.is_multiple_of(2),
        activation: Activation::ALL[k % 5],
        ..PLAIN
    };
    // few episodes lie one by one, many side by side in the lanes of vectors
    let mut draw = |most: u32| 1 + stream.below(most) as usize;
    let size =
        (draw(2), if k % 3 == 1 { 16 + draw(9) } else { draw(4) }, draw(13), draw(19), draw(19));
    let mut case = RandomCase::new(&kind, size, stream);
    surround(&mut case, k, stream);
    case
}

/// What the plain version gives where the stimuli move by 2e-6, some 30 roundings of a number of 1.
pub(crate) fn near(case: &RandomCase) -> Vec<(String, Vec<f64>)> {
    let mut moved = RandomCase {
        network: case.network.clone(),
        parameters: case.parameters.clone(),
        episodes: case.episodes.clone(),
    };
    moved.episodes.stimuli.iter_mut().enumerate().for_each(|(k, v)| {
        *v += if k % 2 == 0 { 2e-6 } else { -2e-6 };
    });
    let RandomCase { network, parameters, episodes } = &moved;
    named(&reference::run(network, parameters, episodes, ALL).unwrap())
}

/// Whether no value lies near a kink, where two engines may differ: what moves as little as rounding
/// moves nothing by more than it should.
pub(crate) fn is_smooth(exact: &[(String, Vec<f64>)], near: &[(String, Vec<f64>)]) -> bool {
    let finite = |values: &[f64]| values.iter().all(|v| v.abs() < 1e3);
    exact
        .iter()
        .zip(near)
        .all(|((_, a), (_, b))| finite(a) && finite(b) && relative_error(a, b) < 1e-3)
}

#[test]
fn what_stands_around_the_core_agrees_with_the_plain_version() {
    let mut stream = stream(53);
    let (mut worst, mut n) = ([(0.0, String::new()), (0.0, String::new())], 0);
    let mut failures = Vec::new();
    for k in 0..240 {
        let case = drawn(k, &mut stream);
        let RandomCase { network, parameters, episodes } = &case;
        let exact = named(&reference::run(network, parameters, episodes, ALL).unwrap());
        if !is_smooth(&exact, &near(&case)) {
            continue;
        }
        n += 1;
        let (single_parameters, single) = case.single();
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let found = pool.install(|| {
                let mut double = cpu::open::<f64>(network).unwrap();
                double.set_parameters(parameters).unwrap();
                let mut float = cpu::open::<f32>(network).unwrap();
                float.set_parameters(&single_parameters).unwrap();
                // twice: nothing is left of the first
                float.evaluate(&single, ALL).unwrap();
                [
                    named(&double.evaluate(episodes, ALL).unwrap()),
                    named(&float.evaluate(&single, ALL).unwrap()),
                ]
            });
            for ((found, worst), bound) in found.iter().zip(&mut worst).zip([1e-10, 2e-5]) {
                for ((name, found), (_, exact)) in found.iter().zip(&exact) {
                    let error = relative_error(found, exact);
                    let at = format!("{k} {name}, {:?} {network:?}", episodes.shape);
                    if error > bound {
                        failures.push(format!("{error:.1e} {at}"));
                    }
                    if error >= worst.0 {
                        *worst = (error, at);
                    }
                }
            }
        }
    }
    assert!(n > 180, "{n} cases are enough");
    for ((error, at), bound) in worst.iter().zip([1e-10, 2e-5]) {
        println!("{n} networks: worst {:.2} of {bound:e} at {at}", error / bound);
    }
    assert!(
        failures.is_empty(),
        "{} of {n}: {:#?}",
        failures.len(),
        &failures[..failures.len().min(8)]
    );
}

/// On a device, in whole batches and in parts, and twice: nothing is left of the first.
#[test]
fn a_gpu_agrees_with_the_plain_version_around_the_core() {
    const BOUND: f64 = 2e-5;
    let options = Options { poison: true, ..Options::default() };
    let context = Context::new(options).expect("a GPU test needs an adapter");
    let parts = Options { part_bytes: Some(1 << 16), ..options };
    let in_parts = Context::new(parts).expect("a GPU test needs an adapter");
    let mut stream = stream(61);
    let (mut worst, mut n, mut k) = ((0.0, String::new()), 0, 0);
    while n < 20 {
        k += 1;
        let case = drawn(k, &mut stream);
        let RandomCase { network, parameters, episodes } = &case;
        let exact = named(&reference::run(network, parameters, episodes, ALL).unwrap());
        if !is_smooth(&exact, &near(&case)) {
            continue;
        }
        n += 1;
        let (single_parameters, single) = case.single();
        let context = if n % 3 == 0 { &in_parts } else { &context };
        let mut engine = GpuEngine::new(context, network).unwrap();
        engine.set_parameters(&single_parameters).unwrap();
        assert_eq!(engine.parameters().unwrap(), single_parameters);
        engine.evaluate(&single, ALL).unwrap();
        let found = named(&engine.evaluate(&single, ALL).unwrap());
        for ((name, found), (_, exact)) in found.iter().zip(&exact) {
            let error = relative_error(found, exact);
            let at = format!("{k} {name}, {:?} {network:?}", episodes.shape);
            assert!(error <= BOUND, "{error:.1e} {at}");
            if error >= worst.0 {
                worst = (error, at);
            }
        }
    }
    println!("{n} networks: worst {:.2} of {BOUND:e} at {}", worst.0 / BOUND, worst.1);
}

/// Neurons that leak take their v along.
#[test]
fn a_life_of_leaking_neurons_goes_on_where_it_is() {
    use hebbian::engine::{Held, Want};
    let context = Context::new(Options::default()).expect("a GPU test needs an adapter");
    let mut case = RandomCase::new(&PLAIN, (2, 3, 5, 1, 7), &mut stream(67));
    case.network.stages.leak = Some((Leak::Membrane, Sharing::PerNetwork));
    let mut parameters = Parameters::zeros(&case.network);
    for p in 0..2 {
        for tensor in [Tensor::W, Tensor::Alpha, Tensor::Eta] {
            parameters.get_mut(p, tensor).copy_from_slice(case.parameters.get(p, tensor));
        }
        parameters.get_mut(p, Tensor::Leak)[0] = 0.3;
    }
    case.parameters = parameters;
    let (parameters, episodes) = case.single();
    let zeros = |len: usize| vec![0.0; 6 * len];
    let held = Held { n_memories: 3, y: zeros(7), v: zeros(7), h: zeros(49), ..Held::default() };
    let gpu: Box<dyn Engine<f32>> = Box::new(GpuEngine::new(&context, &case.network).unwrap());
    let [found, wanted] = [gpu, cpu::open(&case.network).unwrap()].map(|mut engine| {
        engine.set_parameters(&parameters).unwrap();
        let life = engine.wake(&held).unwrap();
        engine.live(life, &episodes, Want::default()).unwrap();
        let out = engine.live(life, &episodes, Want::default()).unwrap();
        assert!(out.v.is_empty(), "v stays where it is");
        engine.held(life).unwrap()
    });
    for (found, wanted) in [(found.y, wanted.y), (found.v, wanted.v), (found.h, wanted.h)] {
        let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        assert!(relative_error(&wide(&found), &wide(&wanted)) < 2e-5);
    }
}

/// A step's outputs are read in one workgroup, and a software device ends loops that take long.
#[test]
fn a_read_out_that_a_software_device_would_cut_short_is_refused() {
    use hebbian::engine::Want;
    let context = Context::new(Options::default()).expect("a GPU test needs an adapter");
    let mut case = RandomCase::new(&PLAIN, (1, 1, 1, 1, 301), &mut stream(71));
    for (size, fits) in [(10_000, true), (20_000, false)] {
        case.network.stages.output = Some(Linear { size, bias: false });
        let mut engine = GpuEngine::new(&context, &case.network).unwrap();
        match engine.program(case.episodes.shape, Want::default()) {
            Ok(program) => {
                assert!(fits || !engine.describe(&program).unwrap().software);
            }
            Err(error) => {
                let words = error.to_string();
                assert!(!fits && words.contains("20000 outputs"), "{words}");
            }
        }
    }
}

/// Updates move every parameter as the gradient says, masked connections excepted.
#[test]
fn an_update_moves_what_stands_around_the_core() {
    use hebbian::model::{Optimiser, Schedule, StepSize};
    let context = Context::new(Options::default()).expect("a GPU test needs an adapter");
    let mut stream = stream(59);
    for k in [6, 8, 13, 31] {
        let case = drawn(k, &mut stream);
        let mut engine = cpu::open::<f64>(&case.network).unwrap();
        engine.set_parameters(&case.parameters).unwrap();
        let gradients = engine.evaluate(&case.episodes, ALL).unwrap().gradients.unwrap();
        let schedule = Schedule { rate: 0.01, decay: 1.0, every: 1, max_norm: 0.0 };
        let step = StepSize::at(Optimiser::Sgd { momentum: 0.0 }, &schedule, 0);
        engine.update(&case.episodes, step).unwrap();
        let after = engine.parameters().unwrap();
        assert_eq!(after.mask, case.parameters.mask);
        let all = after.values().iter().zip(case.parameters.values());
        for ((after, before), gradient) in all.zip(gradients.parameters.values()) {
            assert!((after - (before - 0.01 * gradient)).abs() < 1e-12);
        }
        let (single_parameters, single) = case.single();
        let mut engine = GpuEngine::new(&context, &case.network).unwrap();
        engine.set_parameters(&single_parameters).unwrap();
        engine.update(&single, step).unwrap();
        let found = engine.parameters().unwrap();
        assert_eq!(found.mask, single_parameters.mask);
        for (k, (found, after)) in found.values().iter().zip(after.values()).enumerate() {
            assert!((f64::from(*found) - after).abs() < 2e-5 * (1.0 + after.abs()), "{k}");
        }
    }
}
