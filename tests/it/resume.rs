//! Runs that survive: bits after going on, damaged checkpoints, kills, numbers that stop
//! being finite, a device that dies.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::common::{described, hebbian};
use hebbian::engine::cpu;
use hebbian::engine::gpu::{Context, GpuEngine, Options};
use hebbian::engine::{Description, Engine, Held, LifeId, Outputs, Program, Report, State, Want};
use hebbian::error::Result;
use hebbian::model::{Episodes, Network, Parameters, Shape, StepSize, Tensor};
use hebbian::random::{Purpose, Stream};
use hebbian::train::{Checkpoint, Config, Method, Position, Record, Run, fit, resolve, resume};

type Open<'a> = &'a dyn Fn(&Network) -> Box<dyn Engine<f32>>;

fn config(sets: &[&str]) -> Config {
    let mut all = vec!["task.bits=24", "batch=3", "networks=2", "updates=11"];
    all.extend(sets);
    let sets: Vec<String> = all.into_iter().map(String::from).collect();
    resolve("patterns", None, None, &sets, toml::Table::new()).unwrap()
}

/// Starts or goes on with the run in `folder`.
fn run(folder: &Path, mut config: Config, open: Open<'_>) -> Result<Vec<Record>> {
    let task = config.task()?;
    let mut engine = open(&task.network());
    let (mut run, from) = if folder.join("config.toml").exists() {
        let (mut run, _, checkpoint) = resume(folder)?;
        let checkpoint = checkpoint.expect("a checkpoint");
        engine.set_state(&checkpoint.state(&task.network())?)?;
        run.go_on(&config, &*task, &checkpoint.position)?;
        (run, checkpoint.position)
    } else {
        let mut run = Run::create(Some(folder), "patterns")?;
        let description = described(&mut *engine, task.shape(config.batch));
        run.begin(&config, &*task, &description)?;
        engine.set_parameters(&task.initial(config.seed))?;
        (run, Position::start())
    };
    let stop = AtomicBool::new(false);
    let what = (&config, &*task, &mut Method::Backward);
    let done = fit(&mut run, what, &mut *engine, from, &stop, &mut |_| Ok(()))?;
    run.save(&engine.parameters()?, done.update)?;
    let records = run.records()?;
    Ok(records.into_iter().map(|record| Record { seconds: 0.0, ..record }).collect())
}

fn cpu(network: &Network) -> Box<dyn Engine<f32>> {
    cpu::open(network).unwrap()
}

#[test]
fn a_resumed_run_ends_with_the_same_bytes() {
    let context = Context::new(Options::default()).expect("a GPU test needs an adapter");
    let gpu = |network: &Network| -> Box<dyn Engine<f32>> {
        Box::new(GpuEngine::new(&context, network).unwrap())
    };
    for open in [&cpu as Open<'_>, &gpu] {
        for sets in [
            &["checkpoint.updates=4", "eval_every=3", "eval_episodes=4"][..],
            &["optimiser.name=sgd", "network.rule=retroactive", "schedule.every=3"],
        ] {
            let folder = tempfile::tempdir().unwrap();
            let (calm, stopped) = (folder.path().join("calm"), folder.path().join("stopped"));
            let whole = run(&calm, config(sets), open).unwrap();
            let mut records = Vec::new();
            for updates in [5, 6, 11] {
                records = run(&stopped, Config { updates, ..config(sets) }, open).unwrap();
                // as a killed process leaves it: records that no checkpoint knows of
                let metrics = stopped.join("metrics.jsonl");
                let text = std::fs::read_to_string(&metrics).unwrap();
                std::fs::write(&metrics, text + "{\"update\":99,\"epis").unwrap();
            }
            assert_eq!(records, whole);
            assert_eq!(records.len(), 11);
            let file = "checkpoints/final.safetensors";
            let bytes = |run: &Path| std::fs::read(run.join(file)).unwrap();
            assert!(bytes(&calm) == bytes(&stopped), "{sets:?}: other bytes");
        }
    }
}

/// A small checkpoint.
fn checkpoint_bytes() -> Vec<u8> {
    let mut config = config(&["task.bits=4", "networks=1"]);
    let task = config.task().unwrap();
    let mut engine = cpu(&task.network());
    engine.set_parameters(&task.initial(1)).unwrap();
    let position = Position { update: 7, rollbacks: 99, ..Position::start() };
    Checkpoint::serialise(&config, &engine.state().unwrap(), &position)
}

#[test]
fn a_checkpoint_altered_in_any_byte_is_refused() {
    let bytes = checkpoint_bytes();
    let parse = |bytes: Vec<u8>| Checkpoint::parse(Path::new("altered"), bytes);
    assert_eq!(parse(bytes.clone()).unwrap().position.rollbacks, 99);
    let mut stream = Stream::new(1, Purpose::Training, 0, 0);
    for at in 0..bytes.len() {
        let flips = [1 << stream.below(8), 0x20, 0xff];
        for flip in flips {
            let mut altered = bytes.clone();
            altered[at] ^= flip;
            assert!(parse(altered).is_err(), "byte {at} of {} ^ {flip}", bytes.len());
        }
        assert!(parse(bytes[..at].to_vec()).is_err(), "cut to {at} bytes");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(parse(longer).is_err());
}

#[test]
fn a_checkpoint_of_another_version_is_refused() {
    let bytes = checkpoint_bytes();
    for (from, to, words) in [
        ("hebbian.checkpoint/1", "hebbian.checkpoint/2", "hebbian.checkpoint/2"),
        (env!("CARGO_PKG_VERSION"), "9.9.9", "version 9.9.9"),
    ] {
        let mut other = bytes.clone();
        let at = other.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        other[at..at + to.len()].copy_from_slice(to.as_bytes());
        Checkpoint::seal(&mut other);
        let message = Checkpoint::parse(Path::new("c"), other).unwrap_err().to_string();
        assert!(message.contains(words) && message.contains("wanted"), "{message}");
    }
}

/// How many mutated files of each kind are tried; HEBBIAN_MUTATIONS asks for more.
fn n_mutations() -> usize {
    let asked = std::env::var("HEBBIAN_MUTATIONS").ok();
    asked.map_or(4000, |text| text.parse().expect("a number"))
}

/// A few bytes of `good` changed, and sometimes its end cut off.
fn mutated(good: &[u8], stream: &mut Stream) -> Vec<u8> {
    let mut bytes = good.to_vec();
    // most of the damage goes where the structure is
    let header = 8 + u64::from_le_bytes(*good.first_chunk().unwrap()).min(4000);
    for _ in 0..=stream.below(3) {
        let reach = if stream.below(4) == 0 { bytes.len() } else { header as usize };
        let at = stream.below(reach.min(bytes.len()) as u32) as usize;
        bytes[at] = match stream.below(3) {
            0 => stream.next_u32().to_le_bytes()[0],
            1 => b"0123456789[]{},:\"-."[stream.below(19) as usize],
            _ => bytes[at] ^ (1 << stream.below(8)),
        };
    }
    if stream.below(8) == 0 {
        bytes.truncate(stream.below(bytes.len() as u32) as usize);
    }
    bytes
}

#[test]
fn no_mutated_checkpoint_panics_even_with_a_right_checksum() {
    let good = checkpoint_bytes();
    let network = config(&["task.bits=4", "networks=1"]).task().unwrap().network();
    let mut stream = Stream::new(2, Purpose::Training, 0, 0);
    let mut read = 0;
    for _ in 0..n_mutations() {
        let mut bytes = mutated(&good, &mut stream);
        Checkpoint::seal(&mut bytes);
        if let Ok(checkpoint) = Checkpoint::parse(Path::new("mutated"), bytes) {
            // either answer is right; a panic is not
            read += usize::from(checkpoint.state(&network).is_ok());
        }
    }
    println!("{read} of {} mutated checkpoints were still good", n_mutations());
    assert!(read > 0, "some damage must get past the checksum, or this tests nothing");
}

#[test]
fn no_mutated_case_or_image_file_panics() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let case = std::fs::read(fixtures.join("decay.case.safetensors")).unwrap();
    let mut stream = Stream::new(3, Purpose::Training, 0, 0);
    let folder = tempfile::tempdir().unwrap();
    let image = [&[3][..], &[90; 3072]].concat();
    std::fs::write(folder.path().join("test_batch.bin"), image.repeat(3)).unwrap();
    for k in 0..n_mutations() {
        let bytes = mutated(&case, &mut stream);
        let _ = hebbian::case::Case::<f32>::parse(Path::new("mutated"), &bytes);
        if k % 20 == 0 {
            let mut data = image.repeat(3);
            let at = stream.below(data.len() as u32) as usize;
            data[at] = stream.next_u32().to_le_bytes()[0];
            data.truncate(stream.below(2 * data.len() as u32) as usize);
            std::fs::write(folder.path().join("data_batch_1.bin"), data).unwrap();
            let mut task = hebbian::task::ImagesConfig::quick();
            task.data = folder.path().into();
            let _ = hebbian::task::Images::new(&task, &hebbian::task::NetworkConfig::paper(), 1, 0);
        }
    }
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const SMALL: [&str; 8] =
    ["train", "patterns", "--preset", "small", "--device", "cpu", "--quiet", "--json"];

#[test]
fn a_damaged_checkpoint_is_named_the_older_one_offered_and_nothing_changed() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let path = out.to_str().unwrap();
    let arguments = ["--updates", "20", "--set", "checkpoint.updates=8", "--out", path];
    let answer = hebbian(&[&SMALL[..], &arguments].concat());
    assert_eq!(answer.status.code(), Some(0), "{}", words(&answer));
    let final_path = out.join("checkpoints/final.safetensors");
    let good = std::fs::read(&final_path).unwrap();

    let last = out.join("checkpoints/update-20.safetensors");
    let whole = std::fs::read(&last).unwrap();
    std::fs::write(&last, &whole[..whole.len() - 1]).unwrap();
    let before = std::fs::read(out.join("metrics.jsonl")).unwrap();
    let answer = hebbian(&["train", "--resume", path, "--quiet"]);
    assert_eq!(answer.status.code(), Some(2), "{}", words(&answer));
    for word in
        ["update-20.safetensors", "wanted", "update-16.safetensors is whole", "--from 16 --out NEW"]
    {
        assert!(words(&answer).contains(word), "no '{word}' in {}", words(&answer));
    }
    assert_eq!(std::fs::read(out.join("metrics.jsonl")).unwrap(), before);
    assert_eq!(std::fs::read(&last).unwrap(), &whole[..whole.len() - 1]);

    // a branch begins in a folder of its own, with the records so far
    let new = folder.path().join("new");
    let branch = ["train", "--resume", path, "--from", "16", "--quiet", "--out"];
    let branch = || hebbian(&[&branch[..], &[new.to_str().unwrap()]].concat());
    let answer = branch();
    assert_eq!(answer.status.code(), Some(0), "{}", words(&answer));
    let end = std::fs::read(new.join("checkpoints/final.safetensors")).unwrap();
    assert!(end == good, "the same end from the older one");
    let records = std::fs::read_to_string(new.join("metrics.jsonl")).unwrap();
    assert_eq!(records.lines().count(), 20, "{records}");
    assert_eq!(std::fs::read(out.join("metrics.jsonl")).unwrap(), before, "the run stays");
    assert_eq!(std::fs::read(&last).unwrap(), &whole[..whole.len() - 1], "the run stays");
    assert_eq!(branch().status.code(), Some(2), "nothing is overwritten");
}

#[test]
fn settings_changed_under_a_run_and_settings_given_to_it_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let path = out.to_str().unwrap();
    let answer = hebbian(&[&SMALL[..], &["--updates", "3", "--out", path]].concat());
    assert_eq!(answer.status.code(), Some(0), "{}", words(&answer));
    let answer = hebbian(&["train", "--resume", path, "--seed", "3"]);
    assert_eq!(answer.status.code(), Some(2));
    assert!(words(&answer).contains("--seed"), "{}", words(&answer));
    let config = std::fs::read_to_string(out.join("config.toml")).unwrap();
    std::fs::write(out.join("config.toml"), config.replace("seed = 0", "seed = 1")).unwrap();
    let answer = hebbian(&["train", "--resume", path]);
    assert_eq!(answer.status.code(), Some(2));
    assert!(words(&answer).contains("other settings"), "{}", words(&answer));
}

#[cfg(unix)]
#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_older_one() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let path = out.to_str().unwrap();
    let answer = hebbian(&[&SMALL[..], &["--updates", "5", "--out", path]].concat());
    assert_eq!(answer.status.code(), Some(0), "{}", words(&answer));
    // no file may grow past 20 KiB, and the write that tries fails as on a full disk
    let script = format!(
        "trap '' XFSZ; ulimit -f 40; exec {} train --resume {path} --updates 9 --quiet",
        env!("CARGO_BIN_EXE_hebbian")
    );
    let answer = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(answer.status.code(), Some(2), "{}", words(&answer));
    for word in ["update-9.safetensors", "cannot write", "update-5.safetensors", "--resume"] {
        assert!(words(&answer).contains(word), "no '{word}' in {}", words(&answer));
    }
    let mut left: Vec<String> = std::fs::read_dir(out.join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    let kept = ["final.safetensors", "update-0.safetensors", "update-5.safetensors"];
    assert_eq!(left, kept);
    let answer = hebbian(&["train", "--resume", path, "--updates", "9", "--quiet"]);
    assert_eq!(answer.status.code(), Some(0), "{}", words(&answer));
}

#[test]
fn killed_runs_go_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let start = |out: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hebbian"));
        command.args(["train", "patterns", "--updates", "150", "--device", "cpu", "--quiet"]);
        command.args(["--set", "task.bits=100", "--set", "checkpoint.updates=5", "--out"]);
        command.arg(out).stdout(std::process::Stdio::null());
        command
    };
    let (calm, killed) = (folder.path().join("calm"), folder.path().join("killed"));
    assert!(start(&calm).status().unwrap().success());
    let mut stream = Stream::new(4, Purpose::Training, 0, 0);
    for kill in 0..6 {
        let mut child = if killed.join("config.toml").exists() {
            let mut command = Command::new(env!("CARGO_BIN_EXE_hebbian"));
            command.args(["train", "--resume", killed.to_str().unwrap(), "--quiet"]);
            command.stdout(std::process::Stdio::null()).spawn().unwrap()
        } else {
            start(&killed).spawn().unwrap()
        };
        let size = |path: &str| std::fs::metadata(killed.join(path)).map_or(0, |m| m.len());
        let begun = size("metrics.jsonl");
        // some kills fall into the start, most into training
        let wait = Duration::from_millis(u64::from(stream.below(200)));
        let end = Instant::now() + Duration::from_secs(60);
        while kill > 1 && size("metrics.jsonl") <= begun && Instant::now() < end {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(wait);
        let _ = child.kill();
        let status = child.wait().unwrap();
        assert!(status.success() || status.code().is_none(), "{status}");
    }
    let answer = hebbian(&["train", "--resume", killed.to_str().unwrap(), "--quiet"]);
    assert_eq!(answer.status.code(), Some(0), "{}", words(&answer));
    let bytes = |run: &Path| std::fs::read(run.join("checkpoints/final.safetensors")).unwrap();
    assert!(bytes(&calm) == bytes(&killed), "other bytes");
    let records = |run: &Path| -> Vec<Record> {
        let records = Run::open(run).unwrap().records().unwrap();
        records.into_iter().map(|record| Record { seconds: 0.0, ..record }).collect()
    };
    assert_eq!(records(&calm), records(&killed));
    let left = std::fs::read_dir(killed.join("checkpoints")).unwrap().count();
    assert!(left <= 4, "{left} files: the last two, the best and the final ones");
}

#[cfg(unix)]
#[test]
fn a_run_at_work_cannot_be_resumed_by_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let path = out.to_str().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_hebbian"))
        .args(["train", "patterns", "--updates", "100000", "--device", "cpu", "--quiet"])
        .args(["--out", path])
        .spawn()
        .unwrap();
    while std::fs::metadata(out.join("metrics.jsonl")).map_or(0, |m| m.len()) < 500 {
        assert!(child.try_wait().unwrap().is_none(), "training ended by itself");
        std::thread::sleep(Duration::from_millis(20));
    }
    let answer = hebbian(&["train", "--resume", path, "--device", "cpu"]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(answer.status.code(), Some(2));
    assert!(words(&answer).contains("at work in another process"), "{}", words(&answer));
}

/// Where a number stops being finite.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Parameter,
    Moment,
    Rate,
    Trace,
    Stimulus,
    Target,
}

/// An engine in which a number stops being finite just before update `at`, once or always.
struct Faulty {
    inner: Box<dyn Engine<f32>>,
    fault: Fault,
    at: u64,
    always: bool,
}

impl Engine<f32> for Faulty {
    fn network(&self) -> &Network {
        self.inner.network()
    }
    fn program(&mut self, shape: Shape, want: Want) -> Result<Program> {
        self.inner.program(shape, want)
    }
    fn describe(&mut self, program: &Program) -> Result<Description> {
        self.inner.describe(program)
    }
    fn gradients(&mut self) -> Result<Parameters<f32>> {
        self.inner.gradients()
    }
    fn set_gradients(&mut self, gradients: &Parameters<f32>) -> Result<()> {
        self.inner.set_gradients(gradients)
    }
    fn step(&mut self, step: StepSize) -> Result<()> {
        self.inner.step(step)
    }
    fn set_parameters(&mut self, parameters: &Parameters<f32>) -> Result<()> {
        self.inner.set_parameters(parameters)
    }
    fn parameters(&mut self) -> Result<Parameters<f32>> {
        self.inner.parameters()
    }
    fn state(&mut self) -> Result<State<f32>> {
        self.inner.state()
    }
    fn set_state(&mut self, state: &State<f32>) -> Result<()> {
        self.inner.set_state(state)
    }
    fn run(
        &mut self,
        program: &Program,
        episodes: &Episodes<f32>,
        want: Want,
    ) -> Result<Outputs<f32>> {
        let spoilt = self.spoilt(episodes)?;
        if self.inner.state()?.update == self.at && !self.always {
            self.at = u64::MAX;
        }
        self.inner.run(program, &spoilt, want)
    }
    fn backward(&mut self, program: &Program, episodes: &Episodes<f32>) -> Result<()> {
        let spoilt = self.spoilt(episodes)?;
        if self.inner.state()?.update == self.at && !self.always {
            self.at = u64::MAX;
        }
        self.inner.backward(program, &spoilt)
    }
    fn wake(&mut self, held: &Held<f32>) -> Result<LifeId> {
        self.inner.wake(held)
    }
    fn live(&mut self, life: LifeId, episodes: &Episodes<f32>, want: Want) -> Result<Outputs<f32>> {
        self.inner.live(life, episodes, want)
    }
    fn held(&mut self, life: LifeId) -> Result<Held<f32>> {
        self.inner.held(life)
    }
    fn set_back(&mut self, life: LifeId, memories: &[usize], to: &Held<f32>) -> Result<()> {
        self.inner.set_back(life, memories, to)
    }

    fn rest(&mut self, life: LifeId) -> Result<()> {
        self.inner.rest(life)
    }
    fn reports(&mut self, wait: bool) -> Result<Vec<Report<f32>>> {
        self.inner.reports(wait)
    }
}

impl Faulty {
    fn spoilt(&mut self, episodes: &Episodes<f32>) -> Result<Episodes<f32>> {
        let mut episodes = episodes.clone();
        let mut state = self.inner.state()?;
        if state.update != self.at {
            return Ok(episodes);
        }
        let n = self.inner.network().n_post;
        match self.fault {
            Fault::Parameter => state.parameters.get_mut(1, Tensor::Alpha)[3] = f32::NAN,
            Fault::Moment => state.first.get_mut(1, Tensor::W)[5] = f32::INFINITY,
            Fault::Rate => state.parameters.get_mut(1, Tensor::Eta)[0] = f32::NAN,
            // network 1, episode 2 of 3
            Fault::Trace => {
                let mut h0 = vec![0.0; 6 * n * n];
                h0[5 * n * n + 3 * n + 4] = f32::INFINITY;
                episodes.h0 = Some(h0);
            }
            // network 1, episode 2 of 3, the row that is shown first
            Fault::Stimulus => {
                let e = 5;
                let row = episodes.shown[e * episodes.shape.n_steps] as usize;
                episodes.stimuli[(e * episodes.shape.n_stimuli + row) * n + 4] = f32::NAN;
            }
            Fault::Target => episodes.targets[2 * n + 4] = f32::INFINITY,
        }
        self.inner.set_state(&state)?;
        Ok(episodes)
    }
}

#[test]
fn a_number_that_is_not_finite_is_named_within_one_update() {
    for clip in ["network.clip=0", "network.clip=0.5"] {
        for (fault, at_most, words) in [
            (Fault::Parameter, 8, &["alpha of network 1, element 3, NaN"][..]),
            (Fault::Moment, 9, &["w of network 1, element 5"]),
            (Fault::Rate, 8, &["eta of network 1, element 0, NaN"]),
            (Fault::Trace, 8, &["y of network 1, episode 2 of its batch, step 0, neuron 4"]),
            (Fault::Stimulus, 8, &["y of network 1, episode 2 of its batch, step 0, neuron 4"]),
            (Fault::Target, 8, &["the loss of network 0"]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let open = |network: &Network| -> Box<dyn Engine<f32>> {
                Box::new(Faulty { inner: cpu::open(network).unwrap(), fault, at: 7, always: true })
            };
            let sets = [clip, "checkpoint.updates=4"];
            let error = run(folder.path(), config(&sets), &open).unwrap_err();
            assert_eq!(error.exit_code(), 1);
            let message = error.to_string();
            let named = (8..=at_most).any(|update| message.contains(&format!("update {update}:")));
            assert!(named, "{fault:?}: {message}");
            for words in words {
                assert!(message.contains(words), "{fault:?}: no '{words}' in {message}");
            }
        }
    }
}

#[test]
fn a_rollback_goes_on_from_the_last_checkpoint_with_a_lower_rate() {
    let folder = tempfile::tempdir().unwrap();
    // in an update, and when held-out episodes are scored after one
    for (name, at, fault) in [("update", 7, Fault::Stimulus), ("score", 8, Fault::Rate)] {
        let open = |network: &Network| -> Box<dyn Engine<f32>> {
            let inner = cpu::open(network).unwrap();
            Box::new(Faulty { inner, fault, at, always: false })
        };
        let sets = [
            "checkpoint.updates=4",
            "divergence.policy=rollback",
            "divergence.factor=0.25",
            "eval_every=8",
            "eval_episodes=3",
        ];
        let records = run(&folder.path().join(name), config(&sets), &open).unwrap();
        let updates: Vec<u64> = records.iter().map(|record| record.update).collect();
        assert_eq!(updates, (1..=11).collect::<Vec<u64>>(), "no record missing or double");
        for record in &records {
            let wanted = if record.update <= 4 { 1e-3 } else { 0.25e-3 };
            assert!((record.rate - wanted).abs() < 1e-12, "{name}: {record:?}");
        }
    }
}

#[test]
fn a_device_that_dies_ends_in_an_error_and_the_run_goes_on_to_the_same_bytes() {
    let context = Context::new(Options::default()).expect("a GPU test needs an adapter");
    let folder = tempfile::tempdir().unwrap();
    let gpu = |network: &Network| -> Box<dyn Engine<f32>> {
        Box::new(GpuEngine::new(&context, network).unwrap())
    };
    let sets = ["checkpoint.updates=3"];
    let calm = folder.path().join("calm");
    run(&calm, config(&sets), &gpu).unwrap();

    let lost = folder.path().join("lost");
    {
        let dying = Context::new(Options::default()).unwrap();
        let mut config = config(&sets);
        let task = config.task().unwrap();
        let mut engine = GpuEngine::new(&dying, &task.network()).unwrap();
        let killer = GpuEngine::new(&dying, &task.network()).unwrap();
        let mut run = Run::create(Some(&lost), "patterns").unwrap();
        let description = described(&mut engine, task.shape(config.batch));
        run.begin(&config, &*task, &description).unwrap();
        engine.set_parameters(&task.initial(config.seed)).unwrap();
        let stop = AtomicBool::new(false);
        let mut died = None;
        let mut watch = |record: &Record| {
            if record.update == 5 {
                killer.destroy_device();
                died = Some(Instant::now());
            }
            Ok(())
        };
        let from = Position::start();
        let what = (&config, &*task, &mut Method::Backward);
        let error = fit(&mut run, what, &mut engine, from, &stop, &mut watch);
        let waited = died.expect("update 5 was reached").elapsed();
        assert_eq!(error.unwrap_err().exit_code(), 3);
        assert!(waited < Duration::from_secs(5), "{waited:?}");
    }
    run(&lost, config(&sets), &gpu).unwrap();
    let bytes = |run: &Path| std::fs::read(run.join("checkpoints/final.safetensors")).unwrap();
    assert!(bytes(&calm) == bytes(&lost), "other bytes");
}
