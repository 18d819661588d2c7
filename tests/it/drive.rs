//! Environments: what is played is what is trained on, on every engine and in every batch.

use crate::common::{hebbian, relative_error};
use hebbian::drive::{ActorCritic, CueRewardConfig, MazeConfig, Numbers, Played, play};
use hebbian::engine::gpu::{Context, GpuEngine, Options};
use hebbian::engine::{Engine, Want, cpu};
use hebbian::random::Purpose;
use hebbian::task::{NetworkConfig, Rewarded, Task};
use serde_json::Value;

/// Two networks of each task of environments, with a read-out that decides something.
fn tasks() -> Vec<Rewarded> {
    let networks = |rule: &str| NetworkConfig {
        rule: rule.into(),
        clip: 0.5,
        eta: 0.2,
        spread: 0.3,
        ..NetworkConfig::paper()
    };
    let maze = MazeConfig { size: 7, steps: 23, neurons: 19, ..MazeConfig::paper_2018() };
    let cues = CueRewardConfig { bits: 5, steps: 31, neurons: 13, ..CueRewardConfig::paper() };
    vec![
        Rewarded::maze(&maze, &networks("modulated"), 2, 0).unwrap(),
        Rewarded::cue_reward(&cues, &networks("retroactive"), 2, 0).unwrap(),
    ]
}

fn ready<'a>(task: &Rewarded, engine: &'a mut dyn Engine<f32>) -> &'a mut dyn Engine<f32> {
    let mut parameters = task.initial(3);
    let mut draws = hebbian::random::Stream::new(9, Purpose::Shared, 0, 0);
    for p in 0..2 {
        for value in parameters.get_mut(p, hebbian::model::Tensor::OutW) {
            *value = f32::from(i8::try_from(draws.below(17)).unwrap() - 8) / 8.0;
        }
    }
    engine.set_parameters(&parameters).unwrap();
    engine
}

fn played(task: &Rewarded, engine: &mut dyn Engine<f32>, first: u32, n_batch: usize) -> Played {
    let world = task.world().unwrap();
    let numbers = Numbers { first, ..world.numbers(5, Purpose::Training, first, n_batch) };
    play(engine, world.drive, world.objective, &numbers).unwrap()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

#[test]
fn what_was_played_is_what_the_episode_gives_on_cpu_and_gpu() {
    for task in tasks() {
        let mut engine = cpu::open::<f32>(&task.network()).unwrap();
        let engine = ready(&task, &mut *engine);
        let on_cpu = played(&task, engine, 4, 3);
        let outputs = engine.evaluate(&on_cpu.episodes, Want::default()).unwrap();
        let error = relative_error(&wide(&outputs.out), &wide(&on_cpu.out));
        println!("{} played again: {:.3} of 2e-5", task.name(), error / 2e-5);
        assert!(error <= 2e-5, "{error}");

        let context = Context::new(Options { poison: true, ..Options::default() });
        let context = context.expect("a GPU test needs an adapter");
        let mut gpu = GpuEngine::new(&context, &task.network()).unwrap();
        let on_gpu = played(&task, ready(&task, &mut gpu), 4, 3);
        assert_eq!(on_gpu.actions, on_cpu.actions);
        assert_eq!(on_gpu.rewards, on_cpu.rewards);
        assert_eq!(on_gpu.episodes.signals.observed, on_cpu.episodes.signals.observed);
        let error = relative_error(&wide(&on_gpu.out), &wide(&on_cpu.out));
        println!("{} on the GPU: {:.3} of 2e-5", task.name(), error / 2e-5);
        assert!(error <= 2e-5, "{error}");
    }
}

#[test]
fn an_episode_is_played_alike_in_every_batch() {
    for task in tasks() {
        let mut engine = cpu::open::<f32>(&task.network()).unwrap();
        let engine = ready(&task, &mut *engine);
        let whole = played(&task, engine, 0, 6);
        let n_steps = task.shape(1).n_steps;
        for part in 0..3 {
            let few = played(&task, engine, 2 * part, 2);
            for p in 0..2 {
                let at = (p * 6 + 2 * part as usize) * n_steps;
                assert_eq!(
                    few.actions[p * 2 * n_steps..][..2 * n_steps],
                    whole.actions[at..][..2 * n_steps]
                );
                assert_eq!(
                    few.rewards[p * 2 * n_steps..][..2 * n_steps],
                    whole.rewards[at..][..2 * n_steps]
                );
            }
        }
        assert!(whole.actions.contains(&0) && whole.actions.contains(&1));
        assert!(whole.rewards.iter().any(|&r| r != 0.0));
    }
}

/// Each network's cotangents and loss are the objective's, of its own episodes and their mean.
#[test]
fn cotangents_and_losses_are_those_of_each_networks_episodes() {
    let task = &tasks()[0];
    let mut engine = cpu::open::<f32>(&task.network()).unwrap();
    let engine = ready(task, &mut *engine);
    let played = played(task, engine, 0, 4);
    let objective: ActorCritic = *task.world().unwrap().objective;
    let (n_steps, o) = (23, 5);
    let dout = played.episodes.signals.dout.as_ref().unwrap();
    for p in 0..2 {
        let mut loss = 0.0;
        for e in p * 4..(p + 1) * 4 {
            let mut own = vec![0.0; n_steps * o];
            let out = &played.out[e * n_steps * o..][..n_steps * o];
            let steps = e * n_steps..(e + 1) * n_steps;
            let (actions, rewards) = (&played.actions[steps.clone()], &played.rewards[steps]);
            loss += 0.25 * objective.gradient(out, actions, rewards, 0.25, &mut own);
            assert_eq!(own, dout[e * n_steps * o..][..n_steps * o]);
        }
        assert!((loss - f64::from(played.loss[p])).abs() <= 1e-6 * loss.abs(), "{loss}");
    }
}

fn json(arguments: &[&str]) -> Value {
    let out = hebbian(arguments);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{arguments:?}: {said}");
    serde_json::from_slice(&out.stdout).unwrap()
}

/// The bytes of a run's last parameters.
fn parameters(run: &std::path::Path) -> Vec<u8> {
    std::fs::read(run.join("checkpoints/final.safetensors")).unwrap()
}

#[test]
fn a_task_of_environments_trains_goes_on_and_is_scored_by_its_reward() {
    let folder = tempfile::tempdir().unwrap();
    for (task, sets) in [
        ("maze", ["task.size=5", "task.steps=30", "task.neurons=17"]),
        ("cue-reward", ["task.bits=3", "task.steps=25", "task.neurons=11"]),
    ] {
        let whole = folder.path().join(format!("{task}-whole"));
        let parts = folder.path().join(format!("{task}-parts"));
        let path = |p: &std::path::Path| p.to_str().unwrap().to_string();
        let (whole_path, parts_path) = (path(&whole), path(&parts));
        let mut arguments = vec!["train", task, "--device", "cpu", "--json", "--networks", "2"];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        let trained = json(&[&arguments[..], &["--updates", "6", "--out", &whole_path]].concat());
        assert_eq!(trained["reward"].as_f64(), trained["error"].as_f64().map(|error| -error));
        json(&[&arguments[..], &["--updates", "3", "--out", &parts_path]].concat());
        json(&["train", "--resume", &parts_path, "--updates", "6", "--device", "cpu", "--json"]);
        assert!(parameters(&whole) == parameters(&parts), "{task}: other bits after going on");
        let scored = json(&["eval", &whole_path, "--json", "--device", "cpu", "--episodes", "7"]);
        assert_eq!(scored["episodes"], 7);
        assert!(scored["reward_without_plasticity"].is_number());
        json(&["inspect", &whole_path, "--json", "--device", "cpu"]);
        let page = std::fs::read_to_string(whole.join("report.html")).unwrap();
        assert!(page.contains(trained["measure"].as_str().unwrap()));
        assert_eq!(page.contains("quarter 4"), task == "maze");
    }
}

#[test]
fn a_short_sequence_is_learned_and_said_again() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let run = run.to_str().unwrap();
    let sets = ["task.length=3", "task.delay=5", "network.spread=0.1", "network.clip=0"];
    let sets = sets.map(|set| ["--set", set]).concat();
    let start = [
        "train",
        "copy",
        "--device",
        "cpu",
        "--json",
        "--out",
        run,
        "--updates",
        "100",
        "--rule",
        "decay",
    ];
    let trained = json(&[&start[..], &sets[..]].concat());
    assert!(trained["error"].as_f64().unwrap() < 0.01, "{trained}");
    let curve = std::fs::read_to_string(folder.path().join("run/learning_curve.svg")).unwrap();
    assert!(curve.contains("held-out episodes"));
}

#[test]
fn a_sweep_trains_every_combination_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("sweep");
    let arguments = [
        "train",
        "patterns",
        "--preset",
        "small",
        "--device",
        "cpu",
        "--json",
        "--updates",
        "5",
        "--networks",
        "3",
        "--sweep",
        "network.eta=0.01,0.1",
        "--sweep",
        "schedule.rate=1e-3,1e-2",
        "--out",
        out.to_str().unwrap(),
    ];
    let found = json(&arguments);
    let names: Vec<&str> =
        found["members"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "network.eta=0.01 schedule.rate=1e-3",
            "network.eta=0.01 schedule.rate=1e-2",
            "network.eta=0.1 schedule.rate=1e-3",
            "network.eta=0.1 schedule.rate=1e-2",
        ]
    );
    let first = &found["members"][0];
    assert_eq!(first["per_network"].as_array().unwrap().len(), 3);
    assert!(
        std::fs::read_to_string(out.join("study.html")).unwrap().contains("schedule.rate=1e-2")
    );
    // a member is a run like any other, and is not trained twice
    let run = out.join(names[2]);
    let before = parameters(&run);
    let again = json(&arguments);
    assert_eq!(again["members"], found["members"]);
    assert!(parameters(&run) == before);
    // a member that diverges does not stop the others
    let lost = folder.path().join("lost");
    let mut arguments = arguments.to_vec();
    arguments.truncate(arguments.len() - 6);
    arguments.extend(["--sweep", "schedule.rate=1e38,1e-3", "--out", lost.to_str().unwrap()]);
    let found = json(&arguments);
    assert_eq!(found["diverged"][0]["name"], "schedule.rate=1e38", "{found:#}");
    assert_eq!(found["members"][0]["name"], "schedule.rate=1e-3");
    for (wrong, words) in [
        (vec!["--sweep", "network.eta"], "KEY=VALUE"),
        (vec!["--sweep", "network.eta=0.1"], "KEY=VALUE"),
        (vec!["--sweep", "network.etta=1,2"], "nearest: eta"),
        (vec!["--sweep", "seed=1,2", "--seed", "3"], "no flag sets"),
    ] {
        let out = hebbian(&[&["train", "patterns"][..], &wrong].concat());
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn plastic_networks_are_compared_with_baselines_and_gradient_steps() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("study");
    let arguments = [
        "compare",
        "patterns",
        "--preset",
        "small",
        "--device",
        "cpu",
        "--json",
        "--quiet",
        "--updates",
        "250",
        "--networks",
        "4",
        "--set",
        "eval_episodes=20",
        "--out",
        out.to_str().unwrap(),
    ];
    let found = json(&arguments);
    let members = found["members"].as_array().unwrap();
    let of = |name: &str| members.iter().find(|m| m["name"] == name).unwrap();
    let error = |name: &str| of(name)["error"].as_f64().unwrap();
    assert_eq!(members.len(), 7);
    assert!(error("plastic") < 0.25 && error("not plastic") > 0.4, "{found:#}");
    let (equal, more) = (of("plastic"), of("not plastic, more neurons"));
    assert!(more["trained_numbers"].as_u64() >= equal["trained_numbers"].as_u64());
    // four against four, fully apart: 2 of 70 choices
    let p = of("not plastic")["p_rank_sum"].as_f64().unwrap();
    assert!((p - 2.0 / 70.0).abs() < 1e-12, "{p}");
    assert!(of("Hopfield (H alone, untrained)")["updates"].is_null());
    let steps = found["gradient_steps"].as_array().unwrap();
    assert_eq!(steps.len(), 2);
    for start in steps {
        let errors: Vec<f64> =
            start["error"].as_array().unwrap().iter().map(|e| e.as_f64().unwrap()).collect();
        assert!(errors[0] > 0.4 && errors[5] < 0.05, "{errors:?}");
        // 3 x 2 stimuli x 3 steps x 51 x 51
        assert_eq!(start["multiply_adds_of_a_step"], 18 * 2601);
    }
    let out = hebbian(&["compare", "custom"]);
    assert_eq!(out.status.code(), Some(2));
}

#[test]
fn one_shot_classification_trains_goes_on_and_says_what_was_held_out() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let path = run.to_str().unwrap();
    let small = ["--set", "task.channels=4", "--set", "eval_episodes=30", "--batch", "8"];
    let start = ["train", "omniglot", "--device", "cpu", "--json", "--updates", "4", "--out", path];
    let trained = json(&[&start[..], &small[..]].concat());
    let right = trained["accuracy"].as_f64().unwrap();
    assert!((right - (1.0 - trained["error"].as_f64().unwrap())).abs() < 1e-12);
    let classes = std::fs::read_to_string(run.join("classes.txt")).unwrap();
    let (training, held_out) = classes.split_once("# held out").unwrap();
    assert_eq!((training.lines().count(), held_out.trim().lines().count()), (351, 50));
    assert!(held_out.trim().lines().all(|class| !training.lines().any(|other| other == class)));
    json(&["train", "--resume", path, "--updates", "6", "--device", "cpu", "--json"]);
    let page = std::fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("said to be"));
    let out = hebbian(&["eval", path, "--one-shot-runs", "nothing.zip"]);
    assert_eq!(out.status.code(), Some(2));
    let out = hebbian(&["train", "omniglot", "--device", "gpu", "--set", "task.channels=4"]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("an embedding"), "{said}");
}

#[test]
#[cfg_attr(not(has_omniglot), ignore = "this machine has no Omniglot in ../shared/data")]
fn published_drawings_and_runs_are_read() {
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/omniglot");
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let (path, data) = (run.to_str().unwrap(), data.to_str().unwrap());
    let trained = json(&[
        "train",
        "omniglot",
        "--device",
        "cpu",
        "--json",
        "--updates",
        "2",
        "--batch",
        "2",
        "--out",
        path,
        "--data",
        data,
        "--set",
        "task.channels=3",
        "--set",
        "task.ways=20",
    ]);
    assert_eq!(trained["measure"], "wrong answers");
    let classes = std::fs::read_to_string(run.join("classes.txt")).unwrap();
    // 242 characters, Greek and Latin counted once
    assert_eq!(classes.lines().count(), 242 + 2);
    assert!(classes.contains("Greek/character01") && !classes.contains("run01"));
    let runs = format!("{data}/all_runs.zip");
    let scored = json(&["eval", path, "--one-shot-runs", &runs, "--json", "--device", "cpu"]);
    assert_eq!(scored["scored"], "published one-shot");
    assert_eq!(scored["episodes"], 400);
}

#[test]
fn updates_of_a_task_are_timed() {
    let sets = ["--set", "task.size=5", "--set", "task.steps=20", "--set", "batch=3"];
    let start = ["bench", "--task", "maze", "--json", "--device", "cpu", "--updates", "2"];
    let timed = json(&[&start[..], &sets[..]].concat());
    assert_eq!((&timed["steps"], &timed["batch"]), (&20.into(), &3.into()));
    let (rate, seconds) = (&timed["episodes_per_second"], &timed["seconds_per_update"]);
    let updates = rate.as_f64().unwrap() * seconds.as_f64().unwrap();
    assert!((updates - 3.0).abs() < 1e-9, "{timed}");
    for wrong in [&["--task", "custom"][..], &["--task", "maze", "--neurons", "9"]] {
        assert_eq!(hebbian(&[&["bench"][..], wrong].concat()).status.code(), Some(2));
    }
}

#[test]
fn numbers_that_make_no_task_are_refused_by_name() {
    for (task, set, words) in [
        ("maze", "task.size=8", "an odd number"),
        ("maze", "task.steps=0", "at least 1"),
        ("maze", "task.neurons=0", "task.neurons"),
        ("maze", "task.objective.discount=1.5", "task.objective.discount"),
        ("maze", "task.wall_penalty=-1", "task.wall_penalty"),
        ("cue-reward", "task.cues=1", "task.cues"),
        ("cue-reward", "task.steps=4", "task.steps"),
        ("cue-reward", "task.bit=4", "nearest: bits"),
        ("copy", "task.length=0", "task.length"),
        ("copy", "network.extra=99999999", "network.extra"),
        ("copy", "network.start=wide", "normal, uniform"),
        ("omniglot", "network.extra=1", "network.extra"),
        ("omniglot", "task.ways=1", "task.ways"),
    ] {
        let out = hebbian(&["train", task, "--set", set]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{set}: {said}");
        assert!(said.contains(words), "{set}: {said}");
    }
}
