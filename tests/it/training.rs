//! Training: the same bits twice, the same path on every engine, batches in parts, long
//! episodes.

use std::sync::atomic::AtomicBool;

use crate::common::{described, relative_error};
use crate::random_case::{Kind, PLAIN, RandomCase, stream};
use hebbian::engine::cpu;
use hebbian::engine::gpu::{Context, GpuEngine, Options};
use hebbian::engine::{Engine, PlanChoice, Want};
use hebbian::model::{
    AlphaSharing, Optimiser, Parameters, Rule, Scalar, Schedule, StepSize, Tensor,
};
use hebbian::train::{Record, resolve, train};

fn context(options: Options) -> Context {
    Context::new(Options { poison: true, ..options }).expect("a GPU test needs an adapter")
}

/// Parameters' bits and records after a few updates of a small patterns task.
fn short_run(
    mut make: impl FnMut(&hebbian::model::Network) -> Box<dyn Engine<f32>>,
) -> (Vec<u32>, Vec<Record>) {
    let sets = ["task.bits=70", "batch=5", "networks=3", "updates=9", "schedule.max_norm=30"]
        .map(String::from);
    let mut config = resolve("patterns", None, None, &sets, toml::Table::new()).unwrap();
    let task = config.task().unwrap();
    let mut engine = make(&task.network());
    engine.set_parameters(&task.initial(config.seed)).unwrap();
    let mut records = Vec::new();
    let done = train(&config, &*task, &mut *engine, &AtomicBool::new(false), |record| {
        records.push(Record { seconds: 0.0, ..record.clone() });
        Ok(())
    });
    assert_eq!(done.unwrap(), 9);
    let bits = engine.parameters().unwrap().values().iter().map(|v| v.to_bits()).collect();
    (bits, records)
}

#[test]
fn the_same_seed_gives_the_same_bits_twice() {
    let cpu = || short_run(|network| cpu::open(network).unwrap());
    let (first, second) = (cpu(), cpu());
    assert_eq!(first, second);
    let gpu = || {
        let context = context(Options::default());
        short_run(move |network| Box::new(GpuEngine::new(&context, network).unwrap()))
    };
    let (third, fourth) = (gpu(), gpu());
    assert_eq!(third, fourth);
    assert_eq!(third.1.len(), 9, "a record for each update");
    assert!(third.1.iter().all(|record| record.error.len() == 3), "an error for each network");
}

/// Parameters after five updates on the same batch.
fn five_updates<S: Scalar>(
    engine: &mut dyn Engine<S>,
    parameters: &Parameters<S>,
    episodes: &hebbian::model::Episodes<S>,
    optimiser: Optimiser,
    schedule: &Schedule,
) -> (Vec<f64>, Vec<f64>) {
    engine.set_parameters(parameters).unwrap();
    for update in 0..5 {
        engine.update(episodes, StepSize::at(optimiser, schedule, update)).unwrap();
    }
    let reports = engine.reports(true).unwrap();
    assert_eq!(reports.len(), 5);
    let norms = reports.iter().flat_map(|r| r.gradient_norm.iter().map(|n| n.to_f64())).collect();
    let values = engine.parameters().unwrap().values().iter().map(|v| v.to_f64()).collect();
    (values, norms)
}

#[test]
fn optimisers_follow_the_same_path_on_every_engine() {
    let context = context(Options::default());
    let mut stream = stream(5);
    let kind = Kind { rule: Rule::Retroactive, alpha: AlphaSharing::PerNeuron, ..PLAIN };
    for kind in [PLAIN, kind] {
        for (optimiser, max_norm) in [
            // a large epsilon, so that Adam's quotient keeps the digits of small gradients
            (Optimiser::Adam { beta1: 0.9, beta2: 0.99, epsilon: 0.1 }, 0.0),
            (Optimiser::Adam { beta1: 0.8, beta2: 0.95, epsilon: 0.1 }, 0.5),
            (Optimiser::Sgd { momentum: 0.0 }, 0.0),
            (Optimiser::Sgd { momentum: 0.9 }, 1.0),
        ] {
            let schedule = Schedule { rate: 0.01, decay: 0.5, every: 2, max_norm };
            let mut case = RandomCase::new(&kind, (2, 3, 7, 1, 13), &mut stream);
            if max_norm > 0.0 {
                case.network.stages.frozen = vec![Tensor::W, Tensor::Eta];
            }
            let (parameters, episodes) = case.single();
            let mut oracle = cpu::open::<f64>(&case.network).unwrap();
            let (exact, exact_norms) =
                five_updates(&mut *oracle, &case.parameters, &case.episodes, optimiser, &schedule);
            let engines: [Box<dyn Engine<f32>>; 2] = [
                cpu::open(&case.network).unwrap(),
                Box::new(GpuEngine::new(&context, &case.network).unwrap()),
            ];
            for mut engine in engines {
                let (found, norms) =
                    five_updates(&mut *engine, &parameters, &episodes, optimiser, &schedule);
                // the contract for one gradient; each of five updates moves less than that
                for error in [relative_error(&found, &exact), relative_error(&norms, &exact_norms)]
                {
                    assert!(error < 2e-5, "{optimiser:?}: {error:e}");
                }
                let after = engine.parameters().unwrap();
                for (p, &tensor) in
                    (0..2).flat_map(|p| case.network.stages.frozen.iter().map(move |t| (p, t)))
                {
                    assert_eq!(after.get(p, tensor), parameters.get(p, tensor), "{tensor:?}");
                }
            }
        }
    }
}

#[test]
fn a_batch_in_parts_gives_the_same_gradients() {
    let mut stream = stream(6);
    for (kind, size) in [
        (PLAIN, (2, 7, 11, 1, 21)),
        (
            Kind { rule: Rule::Retroactive, clamped: true, start: true, recurrent: false, ..PLAIN },
            (5, 2, 9, 12, 17),
        ),
    ] {
        let case = RandomCase::new(&kind, size, &mut stream);
        let (parameters, episodes) = case.single();
        // the second time: a smaller last part once left its dL/dy0 as y(0) of the next batch
        let run = |part_bytes, plan| {
            let context = context(Options { part_bytes, plan, ..Options::default() });
            let mut engine = GpuEngine::new(&context, &case.network).unwrap();
            engine.set_parameters(&parameters).unwrap();
            let plan = described(&mut engine, episodes.shape).plan.to_string();
            engine.evaluate(&episodes, crate::common::ALL).unwrap();
            (plan, engine.evaluate(&episodes, crate::common::ALL).unwrap())
        };
        for (bytes, layout) in [
            (60_000, PlanChoice::Streamed),
            (90_000, PlanChoice::Streamed),
            (60_000, PlanChoice::Resident),
            (90_000, PlanChoice::Resident),
        ] {
            let (plan, whole) = run(None, layout);
            assert!(!plan.contains("parts"), "{plan}");
            let (plan, parts) = run(Some(bytes), layout);
            assert!(plan.contains("parts"), "{plan}");
            let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
            assert_eq!(whole.y, parts.y);
            assert_eq!(whole.h, parts.h);
            let (whole, parts) = (whole.gradients.unwrap(), parts.gradients.unwrap());
            assert_eq!(whole.input, parts.input);
            assert_eq!(whole.h0, parts.h0);
            let error =
                relative_error(&wide(parts.parameters.values()), &wide(whole.parameters.values()));
            // sums over at most 7 episodes in another order
            assert!(error < 7.0 * f32::ROUNDOFF * 10.0, "{error:e}");
        }
    }
}

/// Threads that shared an episode went on to the next one while its results were still
/// being read: they waited for each other for ever.
#[test]
fn threads_that_share_episodes_agree_with_one_thread() {
    let mut stream = stream(11);
    let start = Kind { start: true, ..PLAIN };
    let clipped = Kind { rule: Rule::Modulated, clip: Some(0.5), ..start };
    // large enough that the threads share an episode, several episodes and networks
    for kind in [start, clipped, Kind { rule: Rule::Retroactive, ..start }] {
        let case = RandomCase::new(&kind, (2, 3, 8, 1, 373), &mut stream);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut engine = cpu::open::<f64>(&case.network).unwrap();
                engine.set_parameters(&case.parameters).unwrap();
                let plan = described(&mut *engine, case.episodes.shape).plan.to_string();
                assert_eq!(plan.contains("over columns"), threads > 1, "{plan}");
                engine.evaluate(&case.episodes, crate::common::ALL).unwrap()
            })
        };
        let (one, three) = (run(1), run(3));
        assert_eq!(one.y, three.y);
        assert_eq!(one.h, three.h);
        let (one, three) = (one.gradients.unwrap(), three.gradients.unwrap());
        for (name, found, wanted) in [
            ("parameters", three.parameters.values(), one.parameters.values()),
            ("h0", &three.h0, &one.h0),
            ("e0", &three.e0, &one.e0),
            ("input", &three.input, &one.input),
        ] {
            let error = relative_error(found, wanted);
            assert!(error < 1e-12, "{kind:?} {name}: {error:e}");
        }
    }
}

/// Windows of 5 steps, which only networks too large for a core's cache take, against traces
/// taken step by step: those have a clip, here one that nothing reaches.
#[test]
fn long_windows_agree_with_single_steps() {
    let mut stream = stream(14);
    // a clip means nothing to a rule that never writes H
    for rule in Rule::ALL.into_iter().filter(|&rule| rule != Rule::None) {
        let case =
            RandomCase::new(&Kind { rule, start: true, ..PLAIN }, (1, 2, 14, 1, 373), &mut stream);
        let run = |clip: Option<f64>, windows: &str| {
            let network = hebbian::model::Network { clip, ..case.network.clone() };
            let mut engine = cpu::open::<f64>(&network).unwrap();
            engine.set_parameters(&case.parameters).unwrap();
            let plan = described(&mut *engine, case.episodes.shape).plan.to_string();
            assert!(plan.starts_with(windows), "{plan}");
            engine.evaluate(&case.episodes, crate::common::ALL).unwrap()
        };
        let lazy = run(None, "lazy, windows of 5");
        let stepped = run(Some(1e6), "stepped");
        let (found, wanted) = (lazy.gradients.unwrap(), stepped.gradients.unwrap());
        for (name, found, wanted) in [
            ("y", &lazy.y, &stepped.y),
            ("h", &lazy.h, &stepped.h),
            ("h0", &found.h0, &wanted.h0),
            ("e0", &found.e0, &wanted.e0),
            ("y0", &found.y0, &wanted.y0),
            ("input", &found.input, &wanted.input),
        ] {
            let error = relative_error(found, wanted);
            assert!(error < 1e-11, "{rule:?} {name}: {error:e}");
        }
        for tensor in hebbian::model::Tensor::ALL {
            let (found, wanted) = (&found.parameters, &wanted.parameters);
            let error = relative_error(found.get(0, tensor), wanted.get(0, tensor));
            assert!(error < 1e-11, "{rule:?} {tensor:?}: {error:e}");
        }
    }
}

/// Traces that start at zero are not cleared: whatever an earlier batch left there, were it
/// not a number, is not read.
#[test]
fn a_batch_leaves_nothing_to_the_next() {
    let mut stream = stream(15);
    // lanes that are neurons, lanes that are episodes (not all of them in use), threads that
    // share columns
    for (threads, b, n, plan) in [
        (1, 3, 21, "over episodes, lanes over neurons"),
        (1, 13, 21, "over episodes, lanes over episodes"),
        (2, 1, 369, "over columns, lanes over neurons"),
    ] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let kind = Kind { rule: Rule::Retroactive, start: true, ..PLAIN };
        let case = RandomCase::new(&kind, (1, b, 14, 1, n), &mut stream);
        let (parameters, given) = case.single();
        let mut empty = given.clone();
        (empty.h0, empty.e0) = (None, None);
        let mut half = given.clone();
        half.e0 = None;
        let mut lost = given.clone();
        for trace in [&mut lost.h0, &mut lost.e0] {
            trace.as_mut().unwrap().fill(f32::NAN);
        }
        let new = || {
            let mut engine = cpu::open::<f32>(&case.network).unwrap();
            engine.set_parameters(&parameters).unwrap();
            engine
        };
        let (mut kept, back) = (new(), crate::common::ALL);
        let found = pool.install(|| described(&mut *kept, given.shape)).plan.to_string();
        // a processor without vectors has but one lane
        let scalar = cpu::instructions() == "scalar";
        assert!(scalar || found.ends_with(plan), "{found}, not {plan}");
        let forward = Want { gradients: false, ..back };
        let order = [&empty, &given, &empty, &half, &lost, &half, &lost, &empty, &empty];
        for (k, episodes) in order.into_iter().enumerate() {
            for want in [forward, back] {
                if std::ptr::eq(episodes, &raw const lost) {
                    let found = pool.install(|| kept.evaluate(episodes, want).unwrap());
                    assert!(found.h.iter().all(|h| h.is_nan()));
                    continue;
                }
                let (found, wanted) = pool.install(|| {
                    let found = kept.evaluate(episodes, want).unwrap();
                    (found, new().evaluate(episodes, want).unwrap())
                });
                assert_eq!((&found.y, &found.h), (&wanted.y, &wanted.h), "{k}, {b} x {n}");
                let both = found.gradients.zip(wanted.gradients);
                assert_eq!(both.is_some(), want.gradients);
                if let Some((found, wanted)) = both {
                    assert_eq!(found.parameters, wanted.parameters, "{k}, {b} x {n}");
                    assert_eq!(found.input, wanted.input, "{k}, {b} x {n}");
                }
            }
        }
    }
}

#[test]
fn reports_outlive_a_change_of_shape() {
    let context = context(Options::default());
    let mut stream = stream(9);
    let case = RandomCase::new(&PLAIN, (2, 3, 5, 1, 7), &mut stream);
    let (parameters, few) = case.single();
    let (_, many) = RandomCase::new(&PLAIN, (2, 6, 5, 1, 7), &mut stream).single();
    let mut engine = GpuEngine::new(&context, &case.network).unwrap();
    engine.set_parameters(&parameters).unwrap();
    let schedule = Schedule { rate: 1e-3, decay: 1.0, every: 1, max_norm: 0.0 };
    let mut n_reports = 0;
    for update in 0..8 {
        let episodes = if update < 3 { &few } else { &many };
        let step = StepSize::at(Optimiser::adam(), &schedule, update);
        engine.update(episodes, step).unwrap();
        if update == 3 {
            n_reports += engine.reports(true).unwrap().len();
        }
    }
    n_reports += engine.reports(true).unwrap().len();
    assert_eq!(n_reports, 8);
}

#[test]
fn an_update_is_timed_by_the_device() {
    let (p, b, t, n) = (2, 3, 14, 19);
    let case = RandomCase::new(&PLAIN, (p, b, t, 1, n), &mut stream(12));
    let (parameters, episodes) = case.single();
    let schedule = Schedule { rate: 1e-3, decay: 1.0, every: 1, max_norm: 0.0 };
    let plans = [
        (PlanChoice::Resident, false, "resident_back"),
        (PlanChoice::Streamed, false, "plastic_matmul"),
        (PlanChoice::Resident, true, "resident_back"),
        (PlanChoice::Streamed, true, "plastic_matmul"),
    ];
    for (plan, profile, kernel) in plans {
        let context = context(Options { plan, profile, ..Options::default() });
        let mut engine = GpuEngine::new(&context, &case.network).unwrap();
        engine.set_parameters(&parameters).unwrap();
        assert_eq!(engine.device_time(), None, "nothing ran");
        for update in 0..3 {
            let start = std::time::Instant::now();
            engine.update(&episodes, StepSize::at(Optimiser::adam(), &schedule, update)).unwrap();
            engine.reports(true).unwrap();
            let wall = start.elapsed().as_secs_f64();
            let Some(time) = engine.device_time() else {
                let name = &context.info().name;
                assert!(!name.contains("llvmpipe"), "{name} has a clock");
                continue;
            };
            // a device's clock and the host's need not run at quite the same rate
            let order = [0.0, time.in_passes, time.seconds, 1.05 * wall];
            assert!(order.is_sorted(), "{plan:?}, update {update}: {order:?}");
            assert!(time.in_passes > 0.0);
            assert_eq!(time.kernels.is_empty(), !profile);
            if profile {
                // every dispatch by itself, but those after the batch
                let found = time.kernels.iter().find(|k| k.kernel == kernel).unwrap();
                let spans = if plan == PlanChoice::Streamed { t } else { 1 };
                assert_eq!(found.passes as usize, spans, "{:?}", time.kernels);
                let sum: f64 = time.kernels.iter().map(|k| k.seconds).sum();
                assert!((sum - time.in_passes).abs() <= 1e-9 * sum, "{:?}", time.kernels);
            }
        }
    }
}

#[test]
fn an_evaluation_between_updates_leaves_them_alone() {
    let case = RandomCase::new(&PLAIN, (2, 3, 14, 1, 19), &mut stream(13));
    let (parameters, episodes) = case.single();
    let schedule = Schedule { rate: 1e-2, decay: 1.0, every: 1, max_norm: 0.0 };
    let want = Want { activity: true, ..Want::default() };
    for plan in [PlanChoice::Resident, PlanChoice::Streamed] {
        let context = context(Options { plan, ..Options::default() });
        let run = |evaluates: bool| {
            let mut engine = GpuEngine::new(&context, &case.network).unwrap();
            engine.set_parameters(&parameters).unwrap();
            let mut seen = Vec::new();
            for update in 0..4 {
                let step = StepSize::at(Optimiser::adam(), &schedule, update);
                engine.update(&episodes, step).unwrap();
                if evaluates {
                    let outputs = engine.evaluate(&episodes, want).unwrap();
                    seen.push((engine.parameters().unwrap(), outputs));
                }
            }
            (engine.parameters().unwrap(), seen)
        };
        let ((alone, _), (between, seen)) = (run(false), run(true));
        assert_eq!(alone, between, "{plan:?}");
        for (parameters, outputs) in seen {
            let mut fresh = GpuEngine::new(&context, &case.network).unwrap();
            fresh.set_parameters(&parameters).unwrap();
            let wanted = fresh.evaluate(&episodes, want).unwrap();
            assert_eq!((outputs.y, outputs.loss), (wanted.y, wanted.loss), "{plan:?}");
        }
    }
}

#[test]
fn too_little_memory_is_said_before_it_is_asked_for() {
    let context = context(Options { part_bytes: Some(1000), ..Options::default() });
    let case = RandomCase::new(&PLAIN, (1, 1, 5, 1, 30), &mut stream(7));
    let mut engine = GpuEngine::new(&context, &case.network).unwrap();
    let error = engine.program(case.episodes.shape, crate::common::ALL).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("needs"), "{error}");
}

#[test]
fn parameters_of_other_networks_are_refused() {
    let of = |n| RandomCase::new(&PLAIN, (2, 1, 3, 1, n), &mut stream(9));
    let (case, other) = (of(7), of(6));
    let context = context(Options::default());
    let engines: [Box<dyn Engine<f32>>; 2] = [
        cpu::open(&case.network).unwrap(),
        Box::new(GpuEngine::new(&context, &case.network).unwrap()),
    ];
    for mut engine in engines {
        let error = engine.set_parameters(&other.single().0).unwrap_err().to_string();
        assert!(error.contains("36 w") && error.contains("49 w"), "{error}");
    }
}
