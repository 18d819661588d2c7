//! The general plan of the CPU and of GPUs against the plain version: rules as texts, resets, truncation and cotangents of
//! H, with whatever else a network may have.

use std::collections::BTreeSet;

use hebbian::engine::gpu::{Context, GpuEngine, Options};
use hebbian::engine::{Engine, Held, PlanDescription, Want, cpu, reference};
use hebbian::model::{Parameters, Rule, RuleText, Tensor};
use hebbian::random::Stream;
use hebbian::rule::{Program, TEXTS};

use crate::around::{is_smooth, named, near, surround};
use crate::common::{ALL, described, relative_error};
use crate::random_case::{Kind, PLAIN, RandomCase, stream};

/// A rule with its parameters one number of any of the things that the text allows.
fn rule(k: usize, stream: &mut Stream) -> RuleText {
    let text = match TEXTS.get(k % (2 * TEXTS.len())) {
        Some((_, text)) => (*text).into(),
        None => crate::rules::drawn(stream),
    };
    let program = Program::parse(&text).unwrap();
    let mut rule = RuleText::new(program, false);
    for (per, parameter) in rule.per.iter_mut().zip(rule.program.parameters()) {
        let n = u32::try_from(parameter.per.len()).unwrap();
        *per = parameter.per[stream.below(n) as usize];
    }
    rule
}

/// A case that the general plan runs: with a rule's text, or with a built-in rule and a life that is cut.
fn drawn(
    k: usize,
    size: Option<(usize, usize, usize, usize, usize)>,
    stream: &mut Stream,
) -> RandomCase {
    let own = !k.is_multiple_of(3);
    let kind = Kind {
        rule: if own { Rule::Decay } else { Rule::ALL[k / 3 % 5] },
        clip: (!own && k.is_multiple_of(2)).then_some(0.4),
        clamped: k.is_multiple_of(4),
        recurrent: !k.is_multiple_of(5),
        start: k.is_multiple_of(2),
        ..PLAIN
    };
    let mut draw = |most: u32| 1 + stream.below(most) as usize;
    let size = size.unwrap_or_else(|| (draw(2), draw(4), draw(13), draw(19), draw(19)));
    let mut case = RandomCase::new(&kind, size, stream);
    if own {
        let rule = rule(k, stream);
        (case.network.rule, case.network.stages.rule) = (Rule::Custom, Some(rule));
    }
    surround(&mut case, k, stream);
    let shape = case.episodes.shape;
    let (m, n) = (case.network.n_pre, case.network.n_post);
    let total = case.network.n_networks * shape.n_batch;
    let signals = &mut case.episodes.signals;
    let mut numbers = |len: usize| -> Vec<f64> {
        (0..len).map(|_| f64::from((0.3 * stream.normal()) as f32)).collect()
    };
    if !own || k.is_multiple_of(4) {
        let resets = numbers(total * shape.n_steps);
        signals.reset = Some(resets.iter().map(|&v| f64::from(u8::from(v > 0.25))).collect());
        signals.truncate = k.is_multiple_of(2).then_some(1 + k % 5);
    }
    if case.network.stages.cotangents {
        signals.dh = Some(numbers(total * m * n));
    }
    if let Some(rule) = case.network.stages.rule.as_ref().filter(|_| k.is_multiple_of(2)) {
        let traces = rule.program.traces().iter().skip(1).map(|_| m * n);
        let post = rule.program.post().iter().map(|_| n);
        let sizes = traces.chain(post).chain(rule.program.pre().iter().map(|_| m));
        signals.rule0 = sizes.map(|len| Some(numbers(total * len))).collect();
    }
    case
}

/// What f32 and f64 may be off, a share of each tensor's largest element. Where moving the stimuli by
/// some 30 roundings changes a tensor by more, f32 cannot know it better than that.
const DOUBLE: f64 = 1e-10;
const SINGLE: f64 = 2e-5;

/// The worst error of what an engine gave, a share of what is allowed, with the tensor's name.
fn worst_share(
    [exact, near, found]: [&[(String, Vec<f64>)]; 3],
    allowed: impl Fn(f64) -> f64,
) -> (f64, String) {
    assert_eq!(found.len(), exact.len());
    let mut worst = (0.0, String::new());
    for (((name, found), (_, exact)), (_, near)) in found.iter().zip(exact).zip(near) {
        assert_eq!(found.len(), exact.len(), "{name}");
        // below what f32 can hold nothing is told
        if exact.iter().all(|v| v.abs() < 1e-30) {
            continue;
        }
        let share = relative_error(found, exact) / allowed(relative_error(near, exact));
        if share > worst.0 {
            worst = (share, name.clone());
        }
    }
    worst
}

fn check(cases: impl Iterator<Item = (usize, RandomCase)>, least: usize) {
    let (mut n, mut worst) = (0, [(0.0, String::new()), (0.0, String::new())]);
    for (k, case) in cases {
        let RandomCase { network, parameters, episodes } = &case;
        let exact = named(&reference::run(network, parameters, episodes, ALL).unwrap());
        let near = near(&case);
        if !is_smooth(&exact, &near) {
            continue;
        }
        n += 1;
        let mut double = cpu::open::<f64>(network).unwrap();
        double.set_parameters(parameters).unwrap();
        // buffers that another batch used
        double.evaluate(episodes, ALL).unwrap();
        let double = named(&double.evaluate(episodes, ALL).unwrap());
        let (parameters, episodes) = case.single();
        let mut single = cpu::open::<f32>(network).unwrap();
        single.set_parameters(&parameters).unwrap();
        let single = named(&single.evaluate(&episodes, ALL).unwrap());
        let shares = [
            worst_share([&exact, &near, &double], |_| DOUBLE),
            worst_share([&exact, &near, &single], |moved| moved.max(SINGLE)),
        ];
        for (worst, (share, name)) in worst.iter_mut().zip(shares) {
            if share > worst.0 {
                let rule = network.stages.rule.as_ref();
                let rule = rule.map_or(network.rule.name(), |rule| rule.program.name());
                *worst = (share, format!("{name}, case {k}, {rule}, {}", episodes.shape));
            }
        }
    }
    let [double, single] = worst;
    println!("{n} cases, f64: worst {:.2} of {DOUBLE:e} ({})", double.0, double.1);
    println!("{n} cases, f32: worst {:.2} of {SINGLE:e} or more ({})", single.0, single.1);
    assert!(n >= least, "{n} away from kinks");
    assert!(double.0 < 1.0 && single.0 < 1.0);
}

#[test]
fn any_rule_and_any_life_agree_with_the_plain_version() {
    let mut stream = stream(101);
    check((0..260).map(|k| (k, drawn(k, None, &mut stream))), 200);
}

/// How many cases a GPU runs; HEBBIAN_RULES asks for more.
fn gpu_cases() -> usize {
    let asked = std::env::var("HEBBIAN_RULES").ok();
    asked.map_or(24, |n| n.parse().expect("HEBBIAN_RULES is a number"))
}

/// Cases on a GPU, whose buffers hold no numbers before they are written.
fn check_on_gpu(cases: impl Iterator<Item = (usize, RandomCase)>) {
    let options = Options { poison: true, ..Options::default() };
    let context = Context::new(options).expect("a GPU test needs an adapter");
    println!("{:?}", context.info());
    let (mut n_drawn, mut n, mut rules) = (0, 0, BTreeSet::new());
    let mut worst = (0.0, String::new());
    for (k, mut case) in cases {
        n_drawn += 1;
        case.network.stages.general = true;
        let RandomCase { network, parameters, episodes } = &case;
        let exact = named(&reference::run(network, parameters, episodes, ALL).unwrap());
        let near = near(&case);
        if !is_smooth(&exact, &near) {
            continue;
        }
        n += 1;
        let (parameters, episodes) = case.single();
        let mut engine = GpuEngine::new(&context, network).unwrap();
        engine.set_parameters(&parameters).unwrap();
        // buffers that another batch used
        engine.evaluate(&episodes, ALL).unwrap();
        let found = named(&engine.evaluate(&episodes, ALL).unwrap());
        let program = network.program().unwrap().0;
        rules.insert(program.text().to_string());
        let (share, name) = worst_share([&exact, &near, &found], |moved| moved.max(SINGLE));
        if share > worst.0 {
            worst = (share, format!("{name}, case {k}, {}, {}", program.name(), episodes.shape));
        }
    }
    let (share, place) = worst;
    println!("{n} cases, {} rules: worst {share:.2} of {SINGLE:e} or more ({place})", rules.len());
    assert!(10 * n >= 6 * n_drawn, "{n} of {n_drawn} away from kinks");
    assert!(share < 1.0, "{share} at {place}");
}

#[test]
fn any_rule_and_any_life_agree_on_a_gpu() {
    let mut stream = stream(107);
    check_on_gpu((0..gpu_cases()).map(|k| (k, drawn(k, None, &mut stream))));
}

/// Layers of several tiles, and episodes of which the traces of a window's steps alone are kept.
#[test]
fn wide_layers_and_long_episodes_agree_on_a_gpu() {
    let mut stream = stream(113);
    let sizes = [(1, 2, 3, 37, 131), (2, 1, 5, 70, 70), (1, 2, 131, 3, 5)];
    let each =
        sizes.iter().enumerate().flat_map(|(s, size)| [1, 4, 25].map(|k| (k + 5 * s, *size)));
    check_on_gpu(each.map(|(k, size)| (k, drawn(k, Some(size), &mut stream))));
}

/// Episodes that bring resets and truncation to a rule's text without an announcement, and an exponential
/// that f32 does not hold: a GPU computes what the CPU does.
#[test]
fn unannounced_resets_and_large_exponentials_agree_on_a_gpu() {
    let context = Context::new(Options { poison: true, ..Options::default() });
    let context = context.expect("a GPU test needs an adapter");
    let mut stream = stream(127);
    let steep = "name = \"steep\"\n[parameters]\ns = { per = \"network\" }\n\
                 [trace]\nH = \"0.9 * H + x * y / (1 + exp(s * z))\"\n";
    for (text, s) in [(steep, 300.0), (TEXTS[6].1, 0.1)] {
        let mut case = RandomCase::new(&PLAIN, (1, 2, 6, 5, 5), &mut stream);
        let rule = RuleText::new(Program::parse(text).unwrap(), false);
        (case.network.rule, case.network.stages.rule) = (Rule::Custom, Some(rule));
        let (old, mut parameters) = (case.parameters, Parameters::zeros(&case.network));
        for entry in parameters.layout().clone().entries() {
            let values = parameters.get_mut(0, entry.tensor);
            match entry.tensor {
                Tensor::OfRule(_) => values.fill(s),
                other => values.copy_from_slice(old.get(0, other)),
            }
        }
        case.parameters = parameters;
        if s < 1.0 {
            case.episodes.signals.reset =
                Some(vec![1., 0., 1., 0., 0., 0., 0., 0., 0., 1., 0., 0.]);
            case.episodes.signals.truncate = Some(2);
        }
        assert!(!case.network.stages.general);
        let (parameters, episodes) = case.single();
        let engines: [Box<dyn Engine<f32>>; 2] = [
            cpu::open(&case.network).unwrap(),
            Box::new(GpuEngine::new(&context, &case.network).unwrap()),
        ];
        let [wanted, found] = engines.map(|mut engine| {
            engine.set_parameters(&parameters).unwrap();
            named(&engine.evaluate(&episodes, ALL).unwrap())
        });
        for ((name, found), (_, wanted)) in found.iter().zip(&wanted) {
            if wanted.iter().any(|&v| v != 0.0) {
                assert!(relative_error(found, wanted) < SINGLE, "{name}, s {s}");
            }
        }
    }
}

/// Lives of rules with traces and variables of every kind, with a reset and a memory that is replaced by its
/// start values: a GPU keeps the traces, variables and activity that the CPU keeps.
#[test]
fn memories_of_a_rules_text_live_alike_on_a_gpu() {
    let options = Options { poison: true, ..Options::default() };
    let context = Context::new(options).expect("a GPU test needs an adapter");
    let mut stream = stream(109);
    let mut worst: f64 = 0.0;
    for name in ["pre-trace", "bcm", "retroactive"] {
        let built_in = Rule::from_name(name).ok();
        let kind = Kind { rule: built_in.unwrap_or(Rule::Decay), ..PLAIN };
        let mut case = RandomCase::new(&kind, (2, 3, 7, 13, 13), &mut stream);
        if built_in.is_none() {
            let rule = RuleText::new(Program::built_in(name).unwrap(), true);
            (case.network.rule, case.network.stages.rule) = (Rule::Custom, Some(rule));
            surround(&mut case, 0, &mut stream);
        }
        case.network.stages.general = true;
        let network = &case.network;
        let (parameters, mut episodes) = case.single();
        (episodes.y0, episodes.h0, episodes.e0) = (None, None, None);
        let steps = episodes.shape.n_steps;
        let mut first = vec![0.0; 6 * steps];
        first[2 * steps + 4] = 1.0;
        let mut engines: [Box<dyn Engine<f32>>; 2] =
            [cpu::open(network).unwrap(), Box::new(GpuEngine::new(&context, network).unwrap())];
        let held = engines.each_mut().map(|engine| {
            engine.set_parameters(&parameters).unwrap();
            let newborn = Held::newborn(network, 3);
            let life = engine.wake(&newborn).unwrap();
            let mut episodes = episodes.clone();
            engine.live(life, &episodes, Want::default()).unwrap();
            episodes.signals.reset = Some(first.clone());
            engine.live(life, &episodes, Want::default()).unwrap();
            engine.set_back(life, &[4], &newborn).unwrap();
            let held = engine.held(life).unwrap();
            [vec![held.y, held.h, held.e, held.v], held.rule].concat()
        });
        let [one, other] = &held;
        assert_eq!(one.len(), other.len());
        assert!(one[1].iter().any(|&h| h != 0.0), "{name} learns");
        for (one, other) in one.iter().zip(other) {
            let wide = |list: &[f32]| list.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
            if one.iter().any(|&v| v != 0.0) {
                worst = worst.max(relative_error(&wide(other), &wide(one)));
            }
            assert_eq!(one.len(), other.len(), "{name}");
        }
    }
    println!("worst {:.2} of {SINGLE:e}", worst / SINGLE);
    assert!(worst < SINGLE, "{worst:e}");
}

/// Rows of more than a block, and traces of which the steps of a window alone are kept.
#[test]
fn wide_layers_and_long_episodes_agree_with_the_plain_version() {
    let mut stream = stream(103);
    let sizes = [(1, 2, 3, 5, 301), (1, 1, 41, 257, 257), (1, 1, 330, 1, 81), (1, 1, 2, 600, 3)];
    let mut cases = Vec::new();
    for (s, size) in sizes.into_iter().enumerate() {
        for k in [1, 2, 4, 6, 25, 34] {
            cases.push((100 * s + k, drawn(k + 5 * s, Some(size), &mut stream)));
        }
    }
    let (_, case) = cases
        .iter()
        .find(|(_, case)| case.network.n_post == 257 && case.network.rule == Rule::Custom)
        .unwrap();
    let mut engine = cpu::open::<f64>(&case.network).unwrap();
    let plan = described(&mut *engine, case.episodes.shape).plan;
    assert!(matches!(plan, PlanDescription::General { window: 6, .. }), "{plan}");
    check(cases.into_iter(), 12);
}
