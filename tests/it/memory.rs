//! Life after training: memories that go on, and the pages that say what was learned.

use std::path::Path;

use crate::common::{ALL, hebbian, relative_error};
use crate::random_case::{Kind, PLAIN, RandomCase, stream};
use hebbian::engine::cpu;
use hebbian::engine::gpu::{Context, GpuEngine, Options};
use hebbian::engine::{Engine, PlanChoice, Storage};
use hebbian::memory::{Memory, Stretch};
use hebbian::model::{Rule, Sharing};

const KIND: Kind = Kind { eta: Sharing::PerNeuron, clamped: true, ..PLAIN };

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

#[test]
fn a_memory_fed_step_by_step_lives_the_same_episode() {
    let context = Context::new(Options::default()).expect("a GPU test needs an adapter");
    let mut stream = stream(21);
    let (p, b, t, n) = (2, 3, 14, 19);
    for kind in [
        KIND,
        Kind { rule: Rule::Oja, clamped: false, ..KIND },
        Kind { rule: Rule::Modulated, clip: Some(0.5), ..KIND },
        Kind { rule: Rule::Retroactive, clip: Some(1.0), ..KIND },
    ] {
        let case = RandomCase::new(&kind, (p, b, t, 1, n), &mut stream);
        let (parameters, episodes) = case.single();
        let on_gpu = |plan| {
            let context = context.with(plan, Storage::F32);
            Box::new(GpuEngine::new(&context, &case.network).unwrap()) as Box<dyn Engine<f32>>
        };
        // a GPU evolves traces step by step, wherever a window starts
        let engines: [(Box<dyn Engine<f32>>, f64); 3] = [
            (cpu::open(&case.network).unwrap(), 2e-5),
            (on_gpu(PlanChoice::Resident), 0.0),
            (on_gpu(PlanChoice::Streamed), 0.0),
        ];
        for (mut engine, bound) in engines {
            engine.set_parameters(&parameters).unwrap();
            let whole = engine.evaluate(&episodes, ALL).unwrap();
            let mut memory = Memory::new(&case.network, b).unwrap();
            let mut life = memory.wake(&mut *engine).unwrap();
            for step in 0..t {
                // the row of that step of every episode
                let pick = |table: &Vec<f32>| -> Vec<f32> {
                    table.chunks(t * n).flat_map(|e| &e[step * n..][..n]).copied().collect()
                };
                let clamp = episodes.clamps.as_ref().map(pick);
                let stimulus = pick(&episodes.stimuli);
                let stretch = Stretch { n_steps: 1, stimulus: &stimulus, clamp: clamp.as_deref() };
                let y = life.live(&stretch).unwrap();
                let wanted = pick(&whole.y);
                let error = relative_error(&wide(&y), &wide(&wanted));
                assert!(error <= bound, "{kind:?}, step {step}: {error:e}");
            }
            life.rest().unwrap();
            assert_eq!(memory.steps(), t as u64);
            for (name, found, wanted) in [("h", memory.h(), &whole.h), ("e", memory.e(), &whole.e)]
            {
                let error = relative_error(&wide(found), &wide(wanted));
                assert!(error <= bound, "{kind:?} {name}: {error:e}");
            }
        }
    }
}

/// Steps of a life move what is asked for, and no trace: traces come when the memory rests.
#[test]
fn a_life_on_a_device_moves_no_trace() {
    const STEPS: u64 = 200;
    let n = 41;
    let context = Context::new(Options::default()).expect("a GPU test needs an adapter");
    let kind = Kind { clamped: false, ..KIND };
    let case = RandomCase::new(&kind, (1, 1, 1, 1, n), &mut stream(27));
    let (parameters, _) = case.single();
    let stimulus = vec![0.3; n];
    let stretch = Stretch { n_steps: 1, stimulus: &stimulus, clamp: None };
    for plan in [PlanChoice::Resident, PlanChoice::Streamed] {
        for storage in [Storage::F32, Storage::F16] {
            let mut engine = GpuEngine::new(&context.with(plan, storage), &case.network).unwrap();
            engine.set_parameters(&parameters).unwrap();
            let before = engine.bytes_read();
            let mut memory = Memory::new(&case.network, 1).unwrap();
            let mut life = memory.wake(&mut engine).unwrap();
            for _ in 0..STEPS {
                life.live(&stretch).unwrap();
            }
            life.rest().unwrap();
            let activity = STEPS * 2 * 4 * n as u64;
            let traces = 3 * 4 * (n.next_multiple_of(4) * n + n) as u64;
            let read = engine.bytes_read() - before;
            assert!(read <= activity + traces, "{read} bytes, {plan:?} {storage:?}");
            // the same life as the CPU's
            let mut own = cpu::open::<f32>(&case.network).unwrap();
            own.set_parameters(&parameters).unwrap();
            let mut wanted = Memory::new(&case.network, 1).unwrap();
            let long = Stretch { n_steps: STEPS as usize, ..stretch };
            wanted.live(&mut *own, &long).unwrap();
            let error = relative_error(&wide(memory.h()), &wide(wanted.h()));
            let bound = if storage == Storage::F16 { 2e-3 } else { 2e-5 };
            assert!(error < bound, "{error:e}, {plan:?} {storage:?}");
        }
    }
}

#[test]
fn a_life_belongs_to_its_engine() {
    use hebbian::engine::{Held, Want};
    // more steps than a life takes in place, which rounds otherwise
    let case = RandomCase::new(&KIND, (1, 2, 6, 1, 5), &mut stream(28));
    let (parameters, episodes) = case.single();
    let mut engines = [0, 1].map(|_| cpu::open::<f32>(&case.network).unwrap());
    engines.iter_mut().for_each(|engine| engine.set_parameters(&parameters).unwrap());
    let held = Held { n_memories: 2, y: vec![0.0; 10], h: vec![0.0; 50], ..Held::default() };
    let [a, b] = &mut engines;
    let life = a.wake(&held).unwrap();
    let other = b.held(life).unwrap_err().to_string();
    assert!(other.contains("another engine"), "{other}");
    let whole = a.evaluate(&episodes, ALL).unwrap();
    let lived = a.live(life, &episodes, Want { activity: true, ..Want::default() }).unwrap();
    assert_eq!((lived.y, lived.y_last), (whole.y, whole.y_last));
    assert_eq!(a.held(life).unwrap().h, whole.h);
    // another number of episodes; episodes with a start of their own; one that has ended
    let few = episodes.pick(&[vec![0]]);
    assert!(a.live(life, &few, Want::default()).unwrap_err().to_string().contains("one for each"));
    let mut own = episodes.clone();
    own.y0 = Some(vec![0.0; 10]);
    assert!(a.live(life, &own, Want::default()).unwrap_err().to_string().contains("start"));
    a.rest(life).unwrap();
    assert!(a.held(life).unwrap_err().to_string().contains("ended"));
    // its number does not come again
    a.wake(&held).unwrap();
    assert!(a.held(life).unwrap_err().to_string().contains("ended"));
    let none = Held { n_memories: 0, y: vec![], h: vec![], ..held.clone() };
    assert!(a.wake(&none).unwrap_err().to_string().contains("at least 1"));
    let short = Held { y: vec![0.0; 9], ..held };
    assert!(a.wake(&short).unwrap_err().to_string().contains("y"));
}

#[test]
fn some_memories_go_back_and_the_others_go_on() {
    let clipped = Kind { clip: Some(1.0), clamped: false, ..KIND };
    for kind in [clipped, Kind { rule: Rule::Retroactive, ..clipped }] {
        memories_go_back(&kind);
    }
}

fn memories_go_back(kind: &Kind) {
    use hebbian::engine::{Held, Want};
    let context = Context::new(Options::default()).expect("a GPU test needs an adapter");
    let (p, b, n) = (2, 3, 9);
    let case = RandomCase::new(kind, (p, b, 2, 1, n), &mut stream(29));
    let traces_in_e = if kind.rule == Rule::Retroactive { p * b * n * n } else { 0 };
    let (parameters, mut episodes) = case.single();
    (episodes.y0, episodes.h0, episodes.e0) = (None, None, None);
    let numbers =
        |n: usize, f: f32| (0..n).map(|k| (k as f32 * f).sin() / 2.0).collect::<Vec<f32>>();
    let start = Held {
        n_memories: b,
        y: numbers(p * b * n, 0.7),
        h: numbers(p * b * n * n, 0.3),
        e: numbers(traces_in_e, 0.9),
        ..Held::default()
    };
    let on_gpu = |plan, storage| {
        let context = context.with(plan, storage);
        Box::new(GpuEngine::new(&context, &case.network).unwrap()) as Box<dyn Engine<f32>>
    };
    let mut engines: Vec<Box<dyn Engine<f32>>> = vec![
        cpu::open(&case.network).unwrap(),
        on_gpu(PlanChoice::Resident, Storage::F32),
        on_gpu(PlanChoice::Streamed, Storage::F32),
    ];
    // no f16 for an E that may grow
    if kind.rule == Rule::Decay {
        engines.push(on_gpu(PlanChoice::Streamed, Storage::F16));
    }
    for mut engine in engines {
        engine.set_parameters(&parameters).unwrap();
        let lived = |engine: &mut dyn Engine<f32>, back: Option<&[usize]>, stretches: usize| {
            let life = engine.wake(&start).unwrap();
            for k in 0..stretches {
                if let (1, Some(back)) = (k, back) {
                    engine.set_back(life, back, &start).unwrap();
                }
                engine.live(life, &episodes, Want::default()).unwrap();
            }
            engine.held(life).unwrap()
        };
        let back = [1, 5];
        let found = lived(&mut *engine, Some(&back), 2);
        let (once, twice) = (lived(&mut *engine, None, 1), lived(&mut *engine, None, 2));
        for memory in 0..p * b {
            let wanted = if back.contains(&memory) { &once } else { &twice };
            for (found, wanted) in
                [(&found.y, &wanted.y), (&found.h, &wanted.h), (&found.e, &wanted.e)]
            {
                let one = found.len() / (p * b);
                let range = memory * one..(memory + 1) * one;
                assert_eq!(found[range.clone()], wanted[range], "memory {memory}");
            }
        }
        let life = engine.wake(&start).unwrap();
        let error = engine.set_back(life, &[p * b], &start).unwrap_err().to_string();
        assert!(error.contains("below 6"), "{error}");
    }
}

#[test]
fn a_memory_comes_back_from_its_file_and_no_other() {
    let kind = Kind { rule: Rule::Retroactive, clamped: false, ..KIND };
    let case = RandomCase::new(&kind, (2, 1, 1, 1, 7), &mut stream(22));
    let (parameters, _) = case.single();
    let mut engine = cpu::open::<f32>(&case.network).unwrap();
    engine.set_parameters(&parameters).unwrap();
    let mut memory = Memory::new(&case.network, 2).unwrap();
    let stimulus: Vec<f32> = (0..2 * 2 * 7).map(|k| (k as f32).sin()).collect();
    let stretch = Stretch { n_steps: 9, stimulus: &stimulus, clamp: None };
    memory.live(&mut *engine, &stretch).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory.safetensors");
    memory.write(&path, "mine").unwrap();
    let read = |owner| Memory::read(&path, &case.network, owner);
    let mut back = read("mine").unwrap();
    assert_eq!(back, memory);
    assert!(read("yours").unwrap_err().to_string().contains("other parameters"));
    // both go on alike
    assert_eq!(
        back.live(&mut *engine, &stretch).unwrap(),
        memory.live(&mut *engine, &stretch).unwrap()
    );
    back.forget();
    assert_eq!(back, Memory::new(&case.network, 2).unwrap());
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 4]).unwrap();
    assert!(read("mine").unwrap_err().to_string().contains("safetensors"));
}

fn json(arguments: &[&str]) -> serde_json::Value {
    let answer = hebbian(&[arguments, &["--json"]].concat());
    let message = String::from_utf8_lossy(&answer.stderr).into_owned();
    assert_eq!(answer.status.code(), Some(0), "{arguments:?}: {message}");
    serde_json::from_slice(&answer.stdout).unwrap()
}

/// A page that asks for nothing: no script, no address but the name of SVG, pictures inline. Each chart has
/// its numbers one click away.
fn check_page(path: &Path) -> String {
    let page = std::fs::read_to_string(path).unwrap();
    let addresses = page.matches("http").count();
    assert_eq!(addresses, page.matches("http://www.w3.org/2000/svg").count(), "{path:?}");
    assert!(!page.contains("<script"));
    let sources = page.matches("src=").count();
    assert_eq!(sources, page.matches("src=\"data:image/png;base64,").count(), "{path:?}");
    assert!(page.ends_with("</html>\n"));
    let charts = page.split("<figure class=\"chart\">").skip(1);
    assert_eq!(charts.clone().count(), page.matches("<svg").count(), "{path:?}");
    for chart in charts {
        let (chart, _) = chart.split_once("</figure>").unwrap();
        assert!(chart.contains("<figcaption>"), "no caption: {chart}");
        let numbers = chart.contains("<details>") || chart.contains("download=");
        assert!(numbers, "no numbers: {chart}");
    }
    page
}

#[test]
fn a_trained_run_remembers_in_a_file_over_processes() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let run = out.to_str().unwrap();
    let answer = hebbian(&[
        "train",
        "patterns",
        "--device",
        "cpu",
        "--updates",
        "150",
        "--networks",
        "2",
        "--set",
        "task.bits=64",
        "--quiet",
        "--out",
        run,
    ]);
    assert_eq!(answer.status.code(), Some(0));
    let page = check_page(&out.join("report.html"));
    assert!(page.contains("plasticity off") && page.contains("data:image/png"));
    let events = std::fs::read(out.join("events.out.tfevents.hebbian")).unwrap();
    assert!(events.windows(13).any(|w| w == b"gradient_norm"));

    // a balanced pattern as text, and as a picture
    let bits: Vec<bool> = (0..64).map(|k: usize| k * k % 7 < 3).collect();
    let text: String = bits.iter().map(|&on| if on { '#' } else { '.' }).collect();
    let pattern = folder.path().join("pattern.txt");
    std::fs::write(&pattern, text).unwrap();
    let picture = folder.path().join("pattern.png");
    let rgb: Vec<u8> = bits.iter().flat_map(|&on| [if on { 250 } else { 5 }; 3]).collect();
    std::fs::write(&picture, hebbian::report::png(8, &rgb)).unwrap();
    let (pattern, picture) = (pattern.to_str().unwrap(), picture.to_str().unwrap());

    let complete = |what: &str| -> f64 {
        let answer = json(&["recall", run, "complete", what, "--hide", "bottom"]);
        assert_eq!(answer["hidden"], 32);
        answer["error"].as_f64().unwrap()
    };
    let blank = complete(pattern);
    let presented = json(&["recall", run, "present", picture]);
    assert_eq!(presented["steps"], 20);
    assert!(presented["trace_norm"].as_f64().unwrap() > 0.0);
    let (first, second) = (complete(pattern), complete(picture));
    assert!(first < 0.1 && blank > 0.25, "{first} with the memory, {blank} without");
    assert!((first - second).abs() < 1e-12, "the cue left the memory as it was");
    assert!(out.join("recall-pattern.png").is_file());
    // the memory belongs to network 0
    let own = out.join("memory-0.safetensors");
    let own = own.to_str().unwrap();
    let answer = hebbian(&["recall", run, "status", "--network", "1", "--memory", own]);
    assert_eq!(answer.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&answer.stderr).contains("other parameters"));
    let parameters = out.join("checkpoints/final.safetensors");
    let file = parameters.to_str().unwrap();
    let answer = hebbian(&["recall", run, "forget", "--memory", file]);
    assert_eq!(answer.status.code(), Some(2), "only a memory is forgotten");
    json(&["recall", run, "forget"]);
    assert!((complete(pattern) - blank).abs() < 1e-12);

    let curve =
        json(&["recall", run, "capacity", "--most", "3", "--delays", "5", "--episodes", "9"]);
    let points = curve["points"].as_array().unwrap();
    assert_eq!(points.len(), 4);
    assert!(points[0]["error"].as_f64().unwrap() < 0.1, "{curve}");
    let picture = std::fs::read_to_string(out.join("capacity.svg")).unwrap();
    assert_eq!(picture.matches("<circle").count(), 4);

    let refused = hebbian(&["inspect", run, "--plan", "nonsense"]);
    assert_eq!(refused.status.code(), Some(2));
    let found = json(&["inspect", run]);
    for key in ["same_sign", "over_time", "by_size", "spectrum", "eta", "drift_w", "drift_alpha"] {
        assert!(!found[key].is_null(), "{key}");
    }
    for effect in found["over_time"].as_array().unwrap() {
        let sum: f64 = ["amplifies", "attenuates", "turns"]
            .iter()
            .map(|key| effect[key].as_f64().unwrap())
            .sum();
        assert!((0.0..=1.0 + 1e-9).contains(&sum), "{effect}");
    }
    check_page(&out.join("inspect.html"));
    let mut bytes = std::fs::read(&parameters).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&parameters, bytes).unwrap();
    let answer = hebbian(&["eval", run]);
    assert_eq!(answer.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&answer.stderr).contains("damaged"));
}

#[test]
fn an_images_run_shows_held_out_images() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let run = out.to_str().unwrap();
    let score = json(&[
        "train",
        "images",
        "--device",
        "cpu",
        "--updates",
        "120",
        "--set",
        "task.side=8",
        "--set",
        "task.images=1",
        "--quiet",
        "--out",
        run,
    ]);
    let number = |key: &str| score[key].as_f64().unwrap();
    assert!(number("error") < 0.5 * number("error_without_plasticity"), "{score}");
    assert!(number("error") < 0.5 * number("error_of_guess"), "{score}");
    let page = check_page(&out.join("report.html"));
    assert!(page.matches("data:image/png").count() >= 6 * 4, "six episodes of four tiles");
    assert!(page.contains("reconstructed") && page.contains("the image's mean"));
}

#[test]
fn completions_and_man_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let answer = hebbian(&["completions", shell]);
        assert_eq!(answer.status.code(), Some(0));
        let text = String::from_utf8(answer.stdout).unwrap();
        assert!(text.contains("recall") && text.contains("resume"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let answer = hebbian(&["man", folder.path().to_str().unwrap()]);
    assert_eq!(answer.status.code(), Some(0));
    let page = std::fs::read_to_string(folder.path().join("hebbian-train.1")).unwrap();
    assert!(page.contains("resume"));
}

#[test]
fn the_doctor_finds_every_device_right() {
    let found = json(&["doctor", "--quick"]);
    assert_eq!(found["right"], true, "{found}");
    let devices = found["devices"].as_array().unwrap();
    assert!(devices.len() > 1, "a GPU test needs an adapter: {found}");
    for device in devices {
        let worst = device["worst_error"].as_f64().unwrap();
        // no difference at all would mean that nothing was compared
        assert!(worst > 0.0 && worst < 2e-5, "{device}");
    }
}

#[test]
fn the_doctor_writes_the_composed_shaders_of_every_plan() {
    let folder = tempfile::tempdir().unwrap();
    let answer = json(&["doctor", "--shaders", folder.path().to_str().unwrap()]);
    let files = answer["files"].as_array().unwrap();
    for name in
        ["streamed/backward_sweep.wgsl", "resident/resident_back.wgsl", "general/general_back.wgsl"]
    {
        let path = files.iter().filter_map(|file| file.as_str()).find(|file| file.ends_with(name));
        let text = std::fs::read_to_string(path.expect("each plan has its own")).unwrap();
        assert!(text.contains("@compute") && !text.contains("//!include"), "{name}");
    }
}
