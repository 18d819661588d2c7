//! The engine as an operator: programs that are held, gradients that add up, steps of their own.

use crate::common::{ALL, relative_error};
use crate::random_case::{Kind, PLAIN, RandomCase, stream};
use hebbian::engine::cpu;
use hebbian::engine::gpu::{Context, GpuEngine, Options};
use hebbian::engine::{Engine, PlanChoice, Want};
use hebbian::model::{
    AlphaSharing, Episodes, Network, Optimiser, Parameters, Rule, Schedule, Shape, StepSize,
};

/// What f32 gives, a share of each tensor's largest element.
const BOUND: f64 = 2e-5;

fn step(rate: f64) -> StepSize {
    let schedule = Schedule { rate, decay: 1.0, every: 1, max_norm: 0.0 };
    StepSize::at(Optimiser::Sgd { momentum: 0.0 }, &schedule, 0)
}

/// Every engine in f32.
fn engines(context: &Context, network: &Network) -> Vec<Box<dyn Engine<f32>>> {
    let mut engines = vec![cpu::open::<f32>(network).unwrap()];
    for plan in [PlanChoice::Resident, PlanChoice::Streamed] {
        let context = context.with(plan, hebbian::engine::Storage::F32);
        engines.push(Box::new(GpuEngine::new(&context, network).unwrap()));
    }
    engines
}

fn context() -> Context {
    Context::new(Options { poison: true, ..Options::default() })
        .expect("a GPU test needs an adapter")
}

/// Batches of two shapes for one network, with what both give together in f64.
struct Two {
    network: Network,
    parameters: Parameters<f32>,
    batches: [Episodes<f32>; 2],
    /// Of both, added.
    gradients: Parameters<f64>,
    loss: Vec<f64>,
}

impl Two {
    fn new(kind: &Kind) -> Self {
        let mut stream = stream(71);
        let one = RandomCase::new(kind, (2, 3, 9, 7, 7), &mut stream);
        let other = RandomCase::new(kind, (2, 5, 4, 7, 7), &mut stream);
        let mut exact = cpu::open::<f64>(&one.network).unwrap();
        exact.set_parameters(&one.parameters).unwrap();
        let mut gradients = Parameters::<f64>::zeros(&one.network);
        let mut loss = vec![0.0; 2];
        for case in [&one, &other] {
            let out = exact.evaluate(&case.episodes, ALL).unwrap();
            let more = out.gradients.unwrap().parameters;
            gradients.values_mut().iter_mut().zip(more.values()).for_each(|(g, m)| *g += m);
            loss.iter_mut().zip(out.loss).for_each(|(sum, more)| *sum += more);
        }
        let (parameters, first) = one.single();
        let (_, second) = other.single();
        Two { network: one.network, parameters, batches: [first, second], gradients, loss }
    }

    /// The worst error of `found`, a share of each tensor's largest element.
    fn worst(&self, found: &Parameters<f32>) -> f64 {
        let mut worst: f64 = 0.0;
        for entry in found.layout().entries() {
            let of = |p: usize| found.get(p, entry.tensor).iter().map(|&v| f64::from(v));
            let found: Vec<f64> = (0..2).flat_map(of).collect();
            let exact: Vec<f64> =
                (0..2).flat_map(|p| self.gradients.get(p, entry.tensor).to_vec()).collect();
            worst = worst.max(relative_error(&found, &exact));
        }
        worst
    }
}

fn kinds() -> [Kind; 3] {
    [
        Kind { rule: Rule::Modulated, ..PLAIN },
        Kind { alpha: AlphaSharing::PerNeuron, clip: Some(0.6), ..PLAIN },
        Kind { alpha: AlphaSharing::PerNetwork, rule: Rule::Oja, ..PLAIN },
    ]
}

#[test]
fn gradients_of_several_batches_add_up_whatever_is_evaluated_between() {
    let context = context();
    let mut worst: f64 = 0.0;
    for two in kinds().iter().map(Two::new) {
        for mut engine in engines(&context, &two.network) {
            engine.set_parameters(&two.parameters).unwrap();
            assert!(engine.gradients().unwrap().values().iter().all(|&g| g == 0.0));
            let programs: Vec<_> = two
                .batches
                .iter()
                .map(|batch| engine.program(batch.shape, Want::UPDATE).unwrap())
                .collect();
            engine.backward(&programs[0], &two.batches[0]).unwrap();
            let before = engine.gradients().unwrap();
            // neither an evaluation with gradients of its own nor one without leaves a mark
            engine.evaluate(&two.batches[1], ALL).unwrap();
            engine.evaluate(&two.batches[0], Want::default()).unwrap();
            assert_eq!(engine.gradients().unwrap(), before);
            engine.backward(&programs[1], &two.batches[1]).unwrap();
            let y_last = engine.evaluate(&two.batches[1], Want::default()).unwrap().y_last;
            worst = worst.max(two.worst(&engine.gradients().unwrap()));
            // by the program of the last backward pass
            let mut other = two.batches[1].clone();
            other.stimuli.iter_mut().for_each(|v| *v = -*v);
            engine.evaluate(&other, Want::default()).unwrap();

            // a step of their whole: theta - 1 g
            engine.step(step(1.0)).unwrap();
            let report = engine.reports(true).unwrap().remove(0);
            let loss: Vec<f64> = report.loss.iter().map(|&l| f64::from(l)).collect();
            worst = worst.max(relative_error(&loss, &two.loss));
            assert_eq!(report.y_last, y_last);
            let mut moved = engine.parameters().unwrap();
            let start = two.parameters.values();
            moved.values_mut().iter_mut().zip(start).for_each(|(v, &start)| *v = start - *v);
            // parameters are rounded, of magnitude 1
            assert!(two.worst(&moved) < 1e-4);
            assert!(engine.gradients().unwrap().values().iter().all(|&g| g == 0.0));
        }
    }
    println!("worst: {:.2} of {BOUND:.0e}", worst / BOUND);
    assert!(worst < BOUND, "{worst:.1e}");
}

#[test]
fn gradients_can_be_replaced_as_a_sum_over_processes_replaces_them() {
    let context = context();
    let two = Two::new(&kinds()[0]);
    for mut engine in engines(&context, &two.network) {
        // half of the batches each, as two processes would
        let mut parts = Vec::new();
        for batch in &two.batches {
            engine.set_parameters(&two.parameters).unwrap();
            let program = engine.program(batch.shape, Want::UPDATE).unwrap();
            engine.backward(&program, batch).unwrap();
            parts.push(engine.gradients().unwrap());
        }
        let mut sum = parts[0].clone();
        sum.values_mut().iter_mut().zip(parts[1].values()).for_each(|(g, more)| *g += more);
        assert!(two.worst(&sum) < BOUND);
        engine.set_gradients(&sum).unwrap();
        assert_eq!(engine.gradients().unwrap(), sum);
        engine.step(step(1.0)).unwrap();
        let report = engine.reports(true).unwrap().remove(0);
        let norm = sum.network(1).iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        assert!((f64::from(report.gradient_norm[1]) / norm - 1.0).abs() < BOUND);
        // and with no backward pass before
        engine.set_parameters(&two.parameters).unwrap();
        engine.set_gradients(&sum).unwrap();
        engine.step(step(1.0)).unwrap();
        let report = engine.reports(true).unwrap().remove(0);
        assert_eq!((report.loss, report.y_last), (vec![0.0; 2], vec![]));
        for (k, (&now, &before)) in
            engine.parameters().unwrap().values().iter().zip(two.parameters.values()).enumerate()
        {
            let wanted = before - sum.values()[k];
            assert!((now - wanted).abs() <= 1e-6 * (1.0 + wanted.abs()), "{k}: {now} {wanted}");
        }
    }
}

#[test]
fn an_update_is_a_backward_pass_and_a_step_to_the_bit() {
    let context = context();
    let two = Two::new(&kinds()[1]);
    for (mut whole, mut parts) in
        engines(&context, &two.network).into_iter().zip(engines(&context, &two.network))
    {
        whole.set_parameters(&two.parameters).unwrap();
        parts.set_parameters(&two.parameters).unwrap();
        let programs: Vec<_> = two
            .batches
            .iter()
            .map(|batch| parts.program(batch.shape, Want::UPDATE).unwrap())
            .collect();
        // programs that take turns
        for k in [0, 1, 0, 0, 1] {
            whole.update(&two.batches[k], step(0.05)).unwrap();
            parts.backward(&programs[k], &two.batches[k]).unwrap();
            parts.step(step(0.05)).unwrap();
        }
        assert_eq!(whole.reports(true).unwrap(), parts.reports(true).unwrap());
        assert_eq!(whole.state().unwrap(), parts.state().unwrap());
    }
}

#[test]
fn what_does_not_fit_a_program_is_refused_by_name() {
    let context = context();
    let two = Two::new(&kinds()[0]);
    let [batch, other] = &two.batches;
    let strange = cpu::open::<f32>(&two.network).unwrap().program(batch.shape, ALL).unwrap();
    for mut engine in engines(&context, &two.network) {
        let said = |result: hebbian::error::Result<()>, words: &[&str]| {
            let message = result.unwrap_err().to_string();
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
        };
        let program = engine.program(batch.shape, Want::default()).unwrap();
        said(engine.run(&strange, batch, ALL).map(|_| ()), &["program", "one of engine"]);
        said(engine.backward(&strange, batch), &["program", "one of engine"]);
        said(engine.describe(&strange).map(|_| ()), &["program", "one of engine"]);
        said(
            engine.run(&program, other, Want::default()).map(|_| ()),
            &["5 episodes of 4 steps", "3 episodes of 9 steps"],
        );
        said(engine.backward(&program, batch), &["gradients: false", "gradients: true"]);
        said(engine.step(step(1.0)), &["step", "no gradients", "a backward pass"]);
        let fewer = Parameters::zeros(&Network { n_networks: 1, ..two.network.clone() });
        said(engine.set_gradients(&fewer), &["1 networks", "2 networks"]);
        let none = Shape { n_steps: 0, ..batch.shape };
        said(engine.program(none, ALL).map(|_| ()), &["steps", "at least 1"]);
        // and the engine goes on
        engine.run(&program, batch, Want::default()).unwrap();
        engine.update(batch, step(0.1)).unwrap();
    }
}
