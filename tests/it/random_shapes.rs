//! The GPU engine and the CPU in f32 against the CPU in f64, over random shapes and kinds,
//! with every fresh buffer poisoned and the device held to WebGPU's baseline limits.

use crate::common::{described, relative_error};
use crate::random_case::{Kind, PLAIN, RandomCase, Size, stream};
use hebbian::engine::gpu::{Context, GpuEngine, Options};
use hebbian::engine::{Engine, Outputs, PlanChoice, Storage};
use hebbian::engine::{cpu, reference};
use hebbian::model::{
    Activation, AlphaSharing, Episodes, Loss, Parameters, Rule, Scalar, Sharing, Tensor,
};
use hebbian::random::Stream;

/// The contract for every output and gradient in f32.
const BOUND: f64 = 2e-5;

/// Shapes drawn; every size from 1 up, seldom a multiple of anything.
const N_SHAPES: usize = 320;

fn named<S: Scalar>(out: &Outputs<S>) -> Vec<(&'static str, Vec<f64>)> {
    let wide = |values: &[S]| values.iter().map(|v| v.to_f64()).collect::<Vec<f64>>();
    let g = out.gradients.as_ref().expect("wanted");
    vec![
        ("loss", wide(&out.loss)),
        ("y", wide(&out.y)),
        ("y_last", wide(&out.y_last)),
        ("h", wide(&out.h)),
        ("e", wide(&out.e)),
        ("parameters", wide(g.parameters.values())),
        ("input", wide(&g.input)),
        ("pre", wide(&g.pre)),
        ("y0", wide(&g.y0)),
        ("h0", wide(&g.h0)),
        ("e0", wide(&g.e0)),
    ]
}

/// Everything that an engine gives for a case.
fn all<S: Scalar>(
    engine: &mut dyn Engine<S>,
    parameters: &Parameters<S>,
    episodes: &Episodes<S>,
) -> Vec<(&'static str, Vec<f64>)> {
    engine.set_parameters(parameters).unwrap();
    named(&engine.evaluate(episodes, crate::common::ALL).unwrap())
}

/// What the plain version gives for it.
fn exact(case: &RandomCase) -> Vec<(&'static str, Vec<f64>)> {
    let RandomCase { network, parameters, episodes } = case;
    named(&reference::run(network, parameters, episodes, crate::common::ALL).unwrap())
}

/// One of few variants, so that pipelines are compiled once: the shapes vary freely.
fn kind(k: usize, stream: &mut Stream) -> Kind {
    let activation = Activation::ALL[(k / 5) % 7];
    let bounded = matches!(activation, Activation::Sigmoid | Activation::Softmax);
    Kind {
        rule: Rule::ALL[k % 5],
        activation,
        loss: if bounded { Loss::ALL[(k / 5) % 3] } else { Loss::Squared },
        alpha: AlphaSharing::ALL[stream.below(3) as usize],
        eta: [Sharing::PerNeuron, Sharing::PerNetwork][stream.below(2) as usize],
        clip: k.is_multiple_of(2).then_some(0.3),
        clamped: (k / 5) % 2 == 1,
        recurrent: !k.is_multiple_of(3),
        start: stream.below(2) == 0,
    }
}

fn size(kind: &Kind, stream: &mut Stream) -> Size {
    let mut draw = |most: u32| 1 + stream.below(most) as usize;
    loop {
        let (p, b, t) = (draw(3), draw(4), draw(26));
        // now and then more than a tile of columns and a chunk of rows
        let most = if draw(5) == 1 { 150 } else { 40 };
        let (m, n) = (draw(most), draw(most));
        // y is 1 there, and ln(1 - y) infinite
        if kind.activation == Activation::Softmax && kind.loss == Loss::Bce && n == 1 {
            continue;
        }
        if suits(kind, (p, b, t, m, n)) {
            return (p, b, t, m, n);
        }
    }
}

fn has_kinks(kind: &Kind) -> bool {
    (kind.clip.is_some() && kind.rule != Rule::None) || kind.activation == Activation::Relu
}

/// Where there are kinks, whether values are few enough that none need fall next to one.
fn suits(kind: &Kind, (p, b, t, m, n): Size) -> bool {
    let rows = if kind.recurrent { n } else { m };
    !has_kinks(kind) || p * b * t * rows * n <= 60_000
}

#[test]
fn engines_agree_with_the_oracle_on_random_shapes() {
    let options = Options { poison: true, baseline: true, ..Options::default() };
    let context = Context::new(options).expect("a GPU test needs an adapter");
    let mut stream = stream(23);
    let contexts = [PlanChoice::Auto, PlanChoice::Streamed].map(|p| context.with(p, Storage::F32));
    let mut worst = [(0.0, String::new()), (0.0, String::new()), (0.0, String::new())];
    let mut failures = Vec::new();
    for k in 0..N_SHAPES {
        let kind = kind(k % 35, &mut stream);
        // f32 rounds z and H by some 1e-6; nearer to a kink it may fall on the other side
        let (size, case) = loop {
            let size = size(&kind, &mut stream);
            let case = RandomCase::new(&kind, size, &mut stream);
            if case.kink_distance() > 2e-6 {
                break (size, case);
            }
        };
        let (parameters, episodes) = case.single();
        if k % 40 == 39 {
            println!("{} of {N_SHAPES} shapes", k + 1);
        }
        let exact = exact(&case);
        let engines: [Box<dyn Engine<f32>>; 3] = [
            Box::new(GpuEngine::new(&contexts[0], &case.network).unwrap()),
            Box::new(GpuEngine::new(&contexts[1], &case.network).unwrap()),
            cpu::open::<f32>(&case.network).unwrap(),
        ];
        for (mut engine, worst) in engines.into_iter().zip(&mut worst) {
            let found = all(&mut *engine, &parameters, &episodes);
            for ((name, found), (_, exact)) in found.iter().zip(&exact) {
                let error = relative_error(found, exact);
                if error > BOUND {
                    failures.push(format!("{k} {name}: {error:.1e}, {size:?} {kind:?}"));
                }
                if error > worst.0 {
                    *worst = (error, format!("{name}, {size:?} {kind:?}"));
                }
            }
        }
    }
    for (engine, (error, at)) in
        ["gpu, resident where it fits", "gpu, streamed", "cpu f32"].iter().zip(&worst)
    {
        println!("{engine}, {N_SHAPES} shapes: worst {:.2} of {BOUND:e} at {at}", error / BOUND);
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Episodes side by side in the lanes of vectors, the last vectors partly filled, against the
/// same episodes one by one: two orders of the same sums.
#[test]
fn episodes_side_by_side_agree_with_episodes_alone() {
    let mut stream = stream(29);
    let mut worst = [(0.0, String::new()), (0.0, String::new())];
    for k in 0..60 {
        let kind = kind(k % 30, &mut stream);
        // some lanes without an episode in every instruction set and in f32 and f64
        let (case, exact) = loop {
            let mut draw = |most: u32| 1 + stream.below(most) as usize;
            let size = (draw(2), 27, draw(20), draw(23), draw(23));
            if !suits(&kind, size) {
                continue;
            }
            let case = RandomCase::new(&kind, size, &mut stream);
            let exact = exact(&case);
            // without a clip an activation without a bound may grow beyond f32
            let bounded = exact.iter().all(|(_, values)| values.iter().all(|v| v.abs() < 1e3));
            if bounded && (!has_kinks(&kind) || case.kink_distance() > 2e-6) {
                break (case, exact);
            }
        };
        let (parameters, episodes) = case.single();
        let double = || cpu::open::<f64>(&case.network).unwrap();
        let single = || cpu::open::<f32>(&case.network).unwrap();
        let found = [
            on_threads(1, "episodes", double, &case.parameters, &case.episodes),
            on_threads(1, "episodes", single, &parameters, &episodes),
        ];
        for (found, worst) in found.iter().zip(&mut worst) {
            for ((name, found), (_, exact)) in found.iter().zip(&exact) {
                let error = relative_error(found, exact);
                if error >= worst.0 {
                    *worst = (error, format!("{k} {name}, {:?} {kind:?}", case.episodes.shape));
                }
            }
        }
    }
    for ((error, at), bound) in worst.iter().zip([1e-12, BOUND]) {
        println!("side by side: worst {:.2} of {bound:e} at {at}", error / bound);
        assert!(*error <= bound, "{error:e} at {at}");
    }
}

/// Everything that an engine gives on so many threads; its lanes are as told where it has any.
fn on_threads<S: Scalar>(
    threads: usize,
    lanes: &str,
    make: impl Fn() -> Box<dyn Engine<S>> + Sync,
    parameters: &Parameters<S>,
    episodes: &Episodes<S>,
) -> Vec<(&'static str, Vec<f64>)> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let mut engine = make();
        let plan = described(&mut *engine, episodes.shape).plan.to_string();
        if cpu::instructions() != "scalar" {
            assert!(plan.ends_with(&format!("lanes over {lanes}")), "{plan}");
        }
        all(&mut *engine, parameters, episodes)
    })
}

/// Stored in f16, a trace is off by 2^-11 of itself at each window's start, and the old error
/// fades as the trace does: outputs and gradients stay within a few times that.
#[test]
fn traces_in_f16_stay_within_their_rounding() {
    const BOUND: f64 = 4.0 / 2048.0;
    let options = Options { poison: true, traces: Storage::F16, ..Options::default() };
    let context = Context::new(options).expect("a GPU test needs an adapter");
    let mut stream = stream(29);
    let decay = Kind { clamped: true, ..PLAIN };
    let mut worst = (0.0, String::new());
    for k in 0..40 {
        let kind = Kind { recurrent: k % 2 == 0, ..decay };
        let size = size(&kind, &mut stream);
        let case = RandomCase::new(&kind, size, &mut stream);
        let (parameters, episodes) = case.single();
        let exact = exact(&case);
        for plan in [PlanChoice::Auto, PlanChoice::Streamed] {
            let context = context.with(plan, Storage::F16);
            let mut engine = GpuEngine::new(&context, &case.network).unwrap();
            let found = all(&mut engine, &parameters, &episodes);
            for ((name, found), (_, exact)) in found.iter().zip(&exact) {
                let error = relative_error(found, exact);
                assert!(error < BOUND, "{name}: {error:.1e}, {size:?} {kind:?} {plan:?}");
                if error > worst.0 {
                    worst = (error, format!("{name}, {size:?} {plan:?}"));
                }
            }
        }
    }
    println!("f16: worst {:.2} of {BOUND:.1e} at {}", worst.0 / BOUND, worst.1);
    // what is stored in f32 gives other bits
    let case = RandomCase::new(&decay, (1, 2, 20, 9, 9), &mut stream);
    let (parameters, episodes) = case.single();
    for plan in [PlanChoice::Resident, PlanChoice::Streamed] {
        let [half, single] = [Storage::F16, Storage::F32].map(|storage| {
            let mut engine = GpuEngine::new(&context.with(plan, storage), &case.network).unwrap();
            all(&mut engine, &parameters, &episodes)
        });
        assert_ne!(half, single, "was anything stored in f16?");
    }
    // a clip bounds one of two traces
    for kind in [
        Kind { rule: Rule::Oja, ..decay },
        Kind { rule: Rule::Retroactive, clip: Some(0.5), ..decay },
    ] {
        let case = RandomCase::new(&kind, (1, 1, 9, 4, 4), &mut stream);
        let refused = GpuEngine::new(&context, &case.network)
            .unwrap()
            .program(case.episodes.shape, crate::common::ALL);
        assert!(refused.unwrap_err().to_string().contains("may grow"));
    }
}

/// Each window's growth of a slow trace is below what f16 keeps of it: what rounding takes is carried
/// in f32 from window to window.
#[test]
fn slow_traces_in_f16_move() {
    const BOUND: f64 = 4.0 / 2048.0;
    let context =
        Context::new(Options { poison: true, traces: Storage::F16, ..Options::default() })
            .expect("a GPU test needs an adapter");
    let mut stream = stream(37);
    let mut worst = (0.0, String::new());
    let slow = [1e-3, 1e-4, 1e-6];
    let kinds = [
        Kind { start: true, ..PLAIN },
        PLAIN,
        Kind { rule: Rule::Modulated, clip: Some(0.7), ..PLAIN },
        // never forgets what it starts from
        Kind { rule: Rule::Modulated, clip: Some(0.7), start: true, ..PLAIN },
    ];
    for (kind, eta) in kinds.iter().flat_map(|kind| slow.map(|eta| (kind, eta))) {
        let case = RandomCase::new(kind, (1, 2, 400, 7, 7), &mut stream);
        let (mut parameters, mut episodes) = (case.parameters.clone(), case.episodes.clone());
        for tensor in [Tensor::Eta, Tensor::FanoutW, Tensor::FanoutB] {
            parameters.get_mut(0, tensor).fill(eta);
        }
        // a constant drive, so that what is lost does not average out
        episodes.stimuli.fill(0.7);
        let case = RandomCase { parameters, episodes, ..case };
        let (parameters, episodes) = case.single();
        let exact = exact(&case);
        for plan in [PlanChoice::Resident, PlanChoice::Streamed] {
            let mut engine =
                GpuEngine::new(&context.with(plan, Storage::F16), &case.network).unwrap();
            let found = all(&mut engine, &parameters, &episodes);
            for ((name, found), (_, exact)) in found.iter().zip(&exact) {
                let error = relative_error(found, exact);
                assert!(error < BOUND, "{name}: {error:.1e}, eta {eta} {kind:?} {plan:?}");
                if error > worst.0 {
                    worst = (error, format!("{name}, eta {eta} {plan:?}"));
                }
            }
        }
    }
    println!("slow f16: worst {:.2} of {BOUND:.1e} at {}", worst.0 / BOUND, worst.1);
    let kind = Kind { start: true, ..PLAIN };
    let case = RandomCase::new(&kind, (1, 1, 3, 4, 4), &mut stream);
    let (parameters, mut episodes) = case.single();
    episodes.h0.as_mut().unwrap()[5] = 7e4;
    let mut engine = GpuEngine::new(&context, &case.network).unwrap();
    engine.set_parameters(&parameters).unwrap();
    let refused = engine.evaluate(&episodes, crate::common::ALL).unwrap_err().to_string();
    assert!(refused.contains("h0") && refused.contains("element 5"), "{refused}");
}

/// f16 has no 0.3: the nearest above is past a clip of 0.3, and a trace that was within it must
/// not count as clipped.
#[test]
fn traces_in_f16_do_not_round_past_the_clip() {
    const BOUND: f64 = 4.0 / 2048.0;
    let options = Options { traces: Storage::F16, ..Options::default() };
    let context = Context::new(options).expect("a GPU test needs an adapter");
    let mut stream = stream(31);
    // a modulator of 0 leaves the trace as it is
    let kind = Kind { rule: Rule::Modulated, clip: Some(0.3), start: true, ..PLAIN };
    for recurrent in [true, false] {
        let mut case = RandomCase::new(&Kind { recurrent, ..kind }, (1, 2, 9, 5, 6), &mut stream);
        for h0 in case.episodes.h0.iter_mut().flatten() {
            *h0 = f64::from(0.299_95_f32.copysign(*h0 as f32));
        }
        for p in 0..case.network.n_networks {
            for fanout in [Tensor::FanoutW, Tensor::FanoutB] {
                case.parameters.get_mut(p, fanout).fill(0.0);
            }
        }
        assert!(case.kink_distance() > 4e-5, "the trace stays within the clip");
        let (parameters, episodes) = case.single();
        let exact = exact(&case);
        for plan in [PlanChoice::Resident, PlanChoice::Streamed] {
            let context = context.with(plan, Storage::F16);
            let mut engine = GpuEngine::new(&context, &case.network).unwrap();
            let found = all(&mut engine, &parameters, &episodes);
            for ((name, found), (_, exact)) in found.iter().zip(&exact) {
                let error = relative_error(found, exact);
                assert!(error < BOUND, "{name}: {error:.1e} {plan:?}");
            }
            let (_, h) = found.iter().find(|(name, _)| *name == "h").unwrap();
            assert!(h.iter().all(|h| h.abs() <= f64::from(0.3_f32)), "{h:?}");
        }
    }
}

#[test]
fn an_episode_of_5000_steps_agrees_by_every_plan() {
    long_episode(Kind { eta: Sharing::PerNeuron, start: true, ..PLAIN }, (1, 1, 5000, 7, 7));
    long_episode(Kind { rule: Rule::Oja, ..PLAIN }, (1, 1, 5000, 5, 5));
}

/// More rows than a dispatch has workgroups in one dimension, by quads.
#[test]
fn a_layer_of_very_many_inputs_agrees_by_every_plan() {
    let shared = AlphaSharing::PerNeuron;
    let kind = Kind { recurrent: false, alpha: shared, ..PLAIN };
    let case = RandomCase::new(&kind, (1, 1, 2, 263_001, 1), &mut stream(41));
    let (parameters, episodes) = case.single();
    let exact = exact(&case);
    let context = Context::new(Options::default()).expect("a GPU test needs an adapter");
    let mut engine = GpuEngine::new(&context, &case.network).unwrap();
    for ((name, found), (_, exact)) in all(&mut engine, &parameters, &episodes).iter().zip(&exact) {
        let error = relative_error(found, exact);
        assert!(error < BOUND, "{name}: {error:.1e}");
    }
}

/// Matrices of which the CPU takes a part at a time, for they do not fit a core's own cache. In
/// f64 they are larger still; the GPU knows no such parts.
#[test]
fn networks_beyond_the_caches_agree() {
    let context = Context::new(Options::default()).expect("a GPU test needs an adapter");
    let plain = Kind { start: true, ..PLAIN };
    let layer = Kind { recurrent: false, ..plain };
    let oja = Kind { rule: Rule::Oja, eta: Sharing::PerNeuron, clamped: true, ..layer };
    for (kind, size) in [
        (plain, (1, 1, 14, 1, 787)),
        (Kind { rule: Rule::Retroactive, ..layer }, (1, 2, 8, 1357, 533)),
        (oja, (1, 2, 9, 701, 517)),
    ] {
        let case = RandomCase::new(&kind, size, &mut stream(47));
        let (parameters, episodes) = case.single();
        // among more threads each one's share might be small
        let two = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let (exact, cpu) = two.install(|| {
            let mut cpu = cpu::open::<f32>(&case.network).unwrap();
            (exact(&case), all(&mut *cpu, &parameters, &episodes))
        });
        let mut gpu = GpuEngine::new(&context, &case.network).unwrap();
        let gpu = all(&mut gpu, &parameters, &episodes);
        for (what, found) in [("gpu", gpu), ("cpu", cpu)] {
            let errors = found.iter().zip(&exact).map(|((name, found), (_, exact))| {
                let error = relative_error(found, exact);
                assert!(error < BOUND, "{what}, {name}: {error:.1e}, {size:?}");
                error
            });
            let worst = errors.fold(0.0, f64::max);
            println!("{what} {size:?}: worst {:.2} of {BOUND:e}", worst / BOUND);
        }
    }
}

/// An episode's traces in blocks, of which the backward pass forms all but the first again; the GPU
/// keeps all. Side by side in vectors, and shared by threads.
#[test]
fn traces_that_the_cpu_forms_again_agree_with_the_gpu() {
    let context = Context::new(Options::default()).expect("a GPU test needs an adapter");
    let mut stream = stream(43);
    let mut worst = (0.0, String::new());
    for (rule, recurrent, size) in [
        (Rule::Decay, true, (1, 32, 93, 1, 60)),
        (Rule::Retroactive, false, (1, 31, 103, 39, 41)),
        (Rule::Decay, true, (1, 1, 251, 1, 150)),
        (Rule::Oja, false, (2, 1, 151, 201, 190)),
    ] {
        for start in [false, true] {
            let kind = Kind { rule, recurrent, start, ..PLAIN };
            // which episodes lie side by side depends on the number of threads, and how long
            // ones have their traces in blocks on the width of the vectors
            let two = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
            let (p, b, t, m, n) = size;
            let (case, plan) = (t..8 * t)
                .step_by(t / 4)
                .map(|t| {
                    let case = RandomCase::new(&kind, (p, b, t, m, n), &mut stream);
                    let mut cpu = cpu::open::<f32>(&case.network).unwrap();
                    let shape = case.single().1.shape;
                    let plan = two.install(|| described(&mut *cpu, shape)).plan.to_string();
                    (case, plan)
                })
                .find(|(case, plan)| {
                    plan.contains("traces in blocks") && case.kink_distance() > 0.0
                })
                .expect("long episodes have their traces in blocks");
            let (parameters, episodes) = case.single();
            let wanted = two.install(|| {
                let mut cpu = cpu::open::<f32>(&case.network).unwrap();
                all(&mut *cpu, &parameters, &episodes)
            });
            let mut gpu = GpuEngine::new(&context, &case.network).unwrap();
            let found = all(&mut gpu, &parameters, &episodes);
            for ((name, found), (_, wanted)) in found.iter().zip(&wanted) {
                let error = relative_error(found, wanted);
                assert!(error < 2.0 * BOUND, "{name}: {error:.1e}, {size:?} {kind:?} {plan}");
                if error > worst.0 {
                    worst = (error, format!("{name}, {size:?}"));
                }
            }
        }
    }
    println!(
        "formed again: worst {:.2} of {:.0e} at {}",
        worst.0 / 2.0 / BOUND,
        2.0 * BOUND,
        worst.1
    );
}

fn long_episode(kind: Kind, size: Size) {
    let context = Context::new(Options::default()).expect("a GPU test needs an adapter");
    let case = RandomCase::new(&kind, size, &mut stream(37));
    let (parameters, episodes) = case.single();
    let exact = exact(&case);
    let engine = |plan| {
        let context = context.with(plan, Storage::F32);
        Box::new(GpuEngine::new(&context, &case.network).unwrap()) as Box<dyn Engine<f32>>
    };
    let cpu = cpu::open::<f32>(&case.network).unwrap();
    for mut engine in [cpu, engine(PlanChoice::Resident), engine(PlanChoice::Streamed)] {
        let plan = described(&mut *engine, episodes.shape).plan.to_string();
        let found = all(&mut *engine, &parameters, &episodes);
        for ((name, found), (_, exact)) in found.iter().zip(&exact) {
            let error = relative_error(found, exact);
            assert!(error < BOUND, "{plan}: {name} {error:.1e}");
        }
    }
}

#[test]
fn the_largest_resident_networks_agree() {
    let plan = PlanChoice::Resident;
    let options = Options { poison: true, plan, ..Options::default() };
    let context = Context::new(options).expect("a GPU test needs an adapter");
    let mut stream = stream(43);
    let mut worst = (0.0, String::new());
    // neurons before and behind the layer, as shares of the largest that the device takes
    for (k, (before, behind)) in
        [(1.0, 1.0), (1.0, 0.86), (0.5, 1.0), (1.0, 1.0)].into_iter().enumerate()
    {
        let kind = Kind {
            rule: [Rule::Retroactive, Rule::Oja, Rule::Modulated, Rule::Decay][k],
            alpha: AlphaSharing::ALL[k % 3],
            eta: Sharing::PerNeuron,
            clamped: k == 1,
            recurrent: before == behind,
            start: true,
            ..PLAIN
        };
        let fit = |n: usize| {
            let share = |of: f64| (of * n as f64).ceil() as usize;
            let size = (2, 2, 7, share(before), share(behind));
            let case = RandomCase::new(&kind, size, &mut stream);
            let mut engine = GpuEngine::new(&context, &case.network).unwrap();
            match engine.program(case.episodes.shape, crate::common::ALL) {
                Ok(_) => Some((size, case, engine)),
                Err(e) => {
                    assert!(e.to_string().contains("bytes of workgroup memory"), "{e}");
                    None
                }
            }
        };
        let (size, case, mut engine) = (1..=256).rev().find_map(fit).expect("one neuron fits");
        assert!(size.3.max(size.4) > 64, "{size:?}");
        let (parameters, episodes) = case.single();
        let exact = exact(&case);
        let found = all(&mut engine, &parameters, &episodes);
        for ((name, found), (_, exact)) in found.iter().zip(&exact) {
            let error = relative_error(found, exact);
            assert!(error < BOUND, "{name}: {error:.1e}, {size:?} {kind:?}");
            if error > worst.0 {
                worst = (error, format!("{name}, {size:?}"));
            }
        }
        println!("{:?}: {size:?}", kind.rule);
    }
    println!("largest resident: worst {:.2} of {BOUND:e} at {}", worst.0 / BOUND, worst.1);
}
