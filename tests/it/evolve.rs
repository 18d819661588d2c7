//! Evolution: its estimate beside the exact gradient, bits that depend on no grouping, runs that go on.

use std::path::{Path, PathBuf};

use crate::common::hebbian;
use hebbian::engine::{Engine, Want, cpu};
use hebbian::error::Result;
use hebbian::model::{Network, Tensor};
use hebbian::random::Purpose;
use hebbian::session::Session;
use hebbian::train::{Config, Evolution, Moment, Noise, Run, resolve_evolution};

/// Small patterns, or another task, with more settings.
fn config(task: &str, sets: &[&str]) -> Config {
    let small: &[&str] = match task {
        "patterns" => &["task.bits=6", "task.patterns=2", "task.cycles=1", "batch=2"],
        _ => &["task.neurons=6", "task.steps=7", "batch=2"],
    };
    let sets: Vec<String> = small.iter().chain(sets).map(|&set| set.into()).collect();
    resolve_evolution(task, None, None, &sets, toml::Table::new()).unwrap()
}

fn open(_: &Config, network: &Network) -> Result<Box<dyn Engine<f32>>> {
    cpu::open(network)
}

/// Starts a run by the command, with settings that make it small, and returns its final parameters.
fn evolved(folder: &Path, name: &str, task: &str, more: &[&str]) -> Vec<u8> {
    let out = folder.join(name);
    let mut arguments = vec!["evolve", task, "--device", "cpu", "--quiet"];
    arguments.extend(["--members", "10", "--set", "eval_episodes=1"]);
    arguments.extend(["--out", out.to_str().unwrap()]);
    arguments.extend(more);
    let answer = hebbian(&arguments);
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    finals(&out)
}

fn finals(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("checkpoints/final.safetensors")).unwrap()
}

fn fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    folder.join(format!("{name}.case.safetensors"))
}

#[test]
fn the_mean_of_many_estimates_is_the_exact_gradient() {
    let sigma = 0.004;
    let sets = ["evolution.members=16384", &format!("evolution.noise={sigma}")];
    // where the loss bends
    let mut config = config("patterns", &[&sets[..], &["network.spread=0.3"]].concat());
    let task = config.task().unwrap();
    let episodes = task.episodes(config.seed, Purpose::Training, 0, config.batch);
    let parameters = task.initial(config.seed);
    let mut evolution = Evolution::open(&config, &*task, open).unwrap();
    let fitness = evolution.fitness(&config, &*task, &episodes, &parameters, (0, 3)).unwrap();
    let noise = Noise::of(&config, config.evolution.as_ref().unwrap(), 0, 3);
    let mut found = vec![0.0; parameters.values().len()];
    noise.gradient(&fitness, sigma, &mut found);

    let mut engine = cpu::open::<f64>(&task.network()).unwrap();
    engine.set_parameters(&parameters.widened()).unwrap();
    let outputs = engine.evaluate(&episodes.widened(), Want::UPDATE).unwrap();
    let exact = outputs.gradients.unwrap().parameters;
    // A pair's estimate of number i is s_i sum_j g_j s_j: its mean is g_i, its variance |g|^2 - g_i^2.
    let n_pairs = 8192.0_f64;
    let square: f64 = exact.values().iter().map(|g| g * g).sum();
    assert!(square > 0.01, "{square}");
    let mut worst = 0.0_f64;
    for (&found, &g) in found.iter().zip(exact.values()) {
        let deviation = ((square - g * g) / n_pairs).sqrt();
        worst = worst.max((f64::from(found) - g).abs() / deviation);
    }
    // the largest of some 100 normal numbers is above 5 once in 20,000 times
    assert!(worst < 5.0, "{worst} standard deviations");
    // and all together: the squared error has the mean (d - 1) |g|^2 / n
    let error: f64 =
        found.iter().zip(exact.values()).map(|(&f, g)| (f64::from(f) - g).powi(2)).sum();
    let wanted = square / n_pairs * (found.len() - 1) as f64;
    assert!((0.5 * wanted..2.0 * wanted).contains(&error), "{error:e} for {wanted:e}");
}

#[test]
fn a_generation_has_the_same_bits_whatever_its_groups_and_threads() {
    let folder = tempfile::tempdir().unwrap();
    // a rule that runs as a text
    let text =
        ["--case", fixture("net_text").to_str().unwrap(), "--updates", "2"].map(String::from);
    let text = text.each_ref().map(String::as_str);
    let case = fixture("net_mask");
    let case = ["--case", case.to_str().unwrap(), "--updates", "2"];
    // columns of so many neurons are shared by threads
    let large = ["--set", "task.bits=400", "--set", "task.cycles=1", "--set", "task.shown=1"];
    let large = [&large[..], &["--updates", "1", "--batch", "1"]].concat();
    let reward = ["--set", "task.neurons=9", "--set", "task.steps=12", "--updates", "2"];
    let copy = ["--set", "task.neurons=9", "--updates", "1", "--batch", "2"];
    let small = ["--set", "task.bits=20", "--updates", "2", "--networks", "2"];
    for (k, (task, sets)) in [
        ("patterns", &small[..]),
        ("patterns", &large),
        ("custom", &case),
        ("custom", &text),
        ("cue-reward", &reward),
        ("maze", &reward),
        ("copy", &copy),
    ]
    .into_iter()
    .enumerate()
    {
        let run = |at_once: &str, threads: &str| {
            let name = format!("{k}-{at_once}-{threads}");
            let more = ["--members-at-once", at_once, "--threads", threads];
            evolved(folder.path(), &name, task, &[sets, &more].concat())
        };
        let all = run("10", "2");
        for (at_once, threads) in [("1", "2"), ("3", "1"), ("3", "2"), ("0", "1")] {
            assert_eq!(
                run(at_once, threads),
                all,
                "{task}: {at_once} at a time, {threads} threads"
            );
        }
    }
}

#[test]
fn a_run_that_goes_on_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for task in ["patterns", "cue-reward"] {
        let sets = match task {
            "patterns" => ["--set", "task.bits=20"],
            _ => ["--set", "task.neurons=9"],
        };
        let whole = evolved(
            folder.path(),
            &format!("{task}-6"),
            task,
            &[&sets[..], &["--updates", "6"]].concat(),
        );
        let name = format!("{task}-2");
        let part = evolved(folder.path(), &name, task, &[&sets[..], &["--updates", "2"]].concat());
        assert_ne!(part, whole);
        let out = folder.path().join(&name);
        // either command goes on with it
        for (command, updates) in [("evolve", "4"), ("train", "6")] {
            let arguments =
                [command, "--resume", out.to_str().unwrap(), "--updates", updates, "--quiet"];
            assert!(hebbian(&arguments).status.success(), "{arguments:?}");
        }
        assert_eq!(finals(&out), whole, "{task}");
        let records = |name: &str| {
            let records = Run::open(&folder.path().join(name)).unwrap().records().unwrap();
            records.into_iter().map(|record| (record.update, record.loss)).collect::<Vec<_>>()
        };
        assert_eq!(records(&name), records(&format!("{task}-6")));
    }
}

#[test]
fn what_is_switched_off_neither_varies_nor_moves() {
    // members that differ in nothing that is trained are equal, to the bit
    let mut all = config("patterns", &["network.frozen=[\"w\", \"alpha\", \"eta\"]"]);
    let task = all.task().unwrap();
    let episodes = task.episodes(1, Purpose::Training, 0, 2);
    let parameters = task.initial(1);
    let mut evolution = Evolution::open(&all, &*task, open).unwrap();
    let fitness = evolution.fitness(&all, &*task, &episodes, &parameters, (0, 0)).unwrap();
    assert!(fitness.iter().all(|f| *f == fitness[0]), "{fitness:?}");

    let folder = tempfile::tempdir().unwrap();
    for (name, sets, still) in [
        ("w", "network.frozen=[\"w\"]", Tensor::W),
        ("eta", "network.frozen=[\"eta\"]", Tensor::Eta),
        ("alpha", "network.rule=none", Tensor::Alpha),
    ] {
        let sets = [sets, "evolution.weight_decay=0.5", "updates=2", "eval_episodes=1"];
        let mut config = config("patterns", &sets);
        let task = config.task().unwrap();
        let before = task.initial(config.seed);
        let out = folder.path().join(name);
        let mut session = Session::start(config, Some(&out), open).unwrap();
        session.train(&false.into(), |_, _| Ok(())).unwrap();
        let after = session.run().parameters(&task.network(), Moment::End).unwrap();
        for entry in before.layout().entries() {
            let moved = before.get(0, entry.tensor) != after.get(0, entry.tensor);
            assert_eq!(moved, entry.tensor != still, "{name}: {}", entry.name);
        }
    }
    // connections that are missing
    let case = fixture("net_mask");
    let more = ["--case", case.to_str().unwrap(), "--updates", "2", "--weight-decay", "0.5"];
    evolved(folder.path(), "masked", "custom", &more);
    let mut config = Run::open(&folder.path().join("masked")).unwrap().config().unwrap();
    let task = config.task().unwrap();
    let before = task.initial(config.seed);
    let after = Run::open(&folder.path().join("masked")).unwrap();
    let after = after.parameters(&task.network(), Moment::End).unwrap();
    assert!(after.mask.contains(&0.0) && after.mask.contains(&1.0));
    let moved = before.get(0, Tensor::W).iter().zip(after.get(0, Tensor::W)).map(|(a, b)| a != b);
    for (moved, mask) in moved.zip(&after.mask) {
        assert_eq!(moved, *mask == 1.0);
    }
}

#[test]
fn memory_holds_no_trace_of_a_step_and_no_noise_of_a_member() {
    let needed = |sets: &[&str]| {
        let sets = [&["task.bits=100", "evolution.at_once=8"], sets].concat();
        let mut config = config("patterns", &sets);
        let task = config.task().unwrap();
        let mut evolution = Evolution::open(&config, &*task, open).unwrap();
        (evolution.describe().unwrap().memory_needed, task.shape(1).n_steps as u64)
    };
    let (few, short) = needed(&["evolution.members=64", "task.shown=3"]);
    assert_eq!(needed(&["evolution.members=4096", "task.shown=3"]).0, few);
    // a thread keeps some rows of activity of a step of its episode, and no trace; and there is what each
    // step shows the members of a group
    let (many, long) = needed(&["evolution.members=64", "task.shown=90"]);
    let per_step = (many - few) / (long - short);
    println!("{few} bytes, {per_step} more for each step");
    let row = 4 * 101_u64.next_multiple_of(16);
    let most = 6 * row * rayon::current_num_threads() as u64 + 8 * 8;
    assert!(per_step <= most, "{per_step} {most}");
}

#[test]
fn patterns_are_learned_in_a_few_generations() {
    let sets = [
        "task.bits=20",
        "updates=60",
        "batch=4",
        "evolution.members=64",
        "evolution.noise=0.02",
        "schedule.rate=0.01",
        "eval_episodes=50",
    ];
    let config = config("patterns", &sets);
    let folder = tempfile::tempdir().unwrap();
    let mut session = Session::start(config, Some(&folder.path().join("run")), open).unwrap();
    session.train(&false.into(), |_, _| Ok(())).unwrap();
    let outcome = session.finish().unwrap().unwrap();
    let (plastic, off) = (outcome.trained.mean(), outcome.without_plasticity.mean());
    assert!(plastic < 0.25 && off > 0.35, "{plastic} {off}");
}

#[test]
fn bad_input_is_refused_by_name() {
    let cotangents = fixture("net_dy");
    let cotangents = cotangents.to_str().unwrap();
    for (arguments, words) in [
        (vec!["omniglot"], vec!["omniglot", "patterns"]),
        (vec!["patterns", "--members", "7"], vec!["evolution.members", "7", "even"]),
        (vec!["patterns", "--members", "0"], vec!["evolution.members", "0", "from 2"]),
        (vec!["patterns", "--noise", "0"], vec!["evolution.noise", "above 0"]),
        (vec!["patterns", "--noise", "nan"], vec!["evolution.noise", "NaN"]),
        (vec!["patterns", "--noise", "1e-60"], vec!["evolution.noise", "f32"]),
        (vec!["patterns", "--weight-decay=-1"], vec!["evolution.weight_decay", "-1"]),
        (vec!["patterns", "--rate", "inf"], vec!["schedule.rate", "inf"]),
        (vec!["patterns", "--set", "evolution.member=4"], vec!["member", "nearest: members"]),
        (vec!["custom"], vec!["--case"]),
        (vec!["custom", "--case", cotangents], vec!["cotangent", "a loss"]),
        (vec!["--resume", "nowhere", "--members", "4"], vec!["--members"]),
        (vec!["--resume", "nowhere"], vec!["no run"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let mut all = vec!["evolve"];
        all.extend(&arguments);
        if arguments[0] != "--resume" {
            all.extend(["--out", out.to_str().unwrap()]);
        }
        let answer = hebbian(&all);
        let message = String::from_utf8_lossy(&answer.stderr);
        assert_eq!(answer.status.code(), Some(2), "{arguments:?}: {message}");
        for word in words {
            assert!(message.contains(word), "{arguments:?}: no '{word}' in {message}");
        }
    }
}
