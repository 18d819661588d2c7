//! The commands as a user types them: exit codes, messages, files.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::hebbian;
use safetensors::tensor::{Dtype, TensorView};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A case file to spoil: name -> (dtype, shape, bytes), and metadata.
pub(crate) struct CaseFile {
    pub(crate) tensors: HashMap<&'static str, (Dtype, Vec<usize>, Vec<u8>)>,
    pub(crate) metadata: HashMap<String, String>,
}

impl CaseFile {
    /// P = 1, B = 2, T = 3, N = 4, decay, tanh.
    pub(crate) fn good() -> Self {
        let mut case = CaseFile { tensors: HashMap::new(), metadata: HashMap::new() };
        case.put("w", &[1, 4, 4], 0.1);
        case.put("alpha", &[1, 4, 4], 0.1);
        case.put("eta", &[1, 4], 0.1);
        for name in ["input", "target", "loss_weight"] {
            case.put(name, &[1, 2, 3, 4], 0.5);
        }
        case.meta("rule", "decay").meta("activation", "tanh")
    }

    pub(crate) fn put(&mut self, name: &'static str, shape: &[usize], value: f32) {
        let n: usize = shape.iter().product();
        let bytes = std::iter::repeat_n(value.to_le_bytes(), n).flatten().collect();
        self.tensors.insert(name, (Dtype::F32, shape.to_vec(), bytes));
    }

    /// Other elements of a tensor that is there.
    pub(crate) fn set(&mut self, name: &str, bytes: Vec<u8>) {
        self.tensors.get_mut(name).unwrap().2 = bytes;
    }

    pub(crate) fn with(mut self, name: &'static str, shape: &[usize], value: f32) -> Self {
        self.put(name, shape, value);
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.tensors.remove(name);
        self
    }

    fn dtype(mut self, name: &'static str, dtype: Dtype) -> Self {
        self.tensors.get_mut(name).unwrap().0 = dtype;
        self
    }

    pub(crate) fn meta(mut self, key: &str, value: &str) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let views = self.tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        safetensors::serialize(views, Some(self.metadata.clone())).unwrap()
    }
}

/// Runs `grad` on these bytes and expects a refusal that says `words`; no file is left.
fn refused(what: &str, bytes: &[u8], words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let case = folder.path().join("case.safetensors");
    std::fs::write(&case, bytes).unwrap();
    let out = folder.path().join("out.safetensors");
    let answer = hebbian(&[
        "grad",
        case.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
        "--device",
        "cpu",
    ]);
    let message = text(&answer.stderr);
    assert_eq!(answer.status.code(), Some(2), "{what}: {message}");
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.len(), 1, "{what}: {message}");
    for word in words.iter().chain(&["hebbian: ", "found", "wanted"]) {
        assert!(message.contains(word), "{what}: no '{word}' in: {message}");
    }
    assert!(answer.stdout.is_empty());
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1, "{what}: a file was left");
}

#[test]
fn a_good_case_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let case = folder.path().join("case.safetensors");
    std::fs::write(&case, CaseFile::good().bytes()).unwrap();
    let out = folder.path().join("out.safetensors");
    for precision in ["f32", "f64"] {
        let answer = hebbian(&[
            "grad",
            case.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
            "--precision",
            precision,
            "--device",
            "cpu",
            "--json",
        ]);
        assert_eq!(answer.status.code(), Some(0), "{}", text(&answer.stderr));
        let json: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
        assert_eq!(json["schema"], "hebbian.grad/1");
        let bytes = std::fs::read(&out).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let dtype = if precision == "f64" { Dtype::F64 } else { Dtype::F32 };
        assert_eq!(tensors.tensor("grad.w").unwrap().dtype(), dtype);
        assert_eq!(tensors.tensor("grad.eta").unwrap().shape(), [1, 4]);
    }
}

#[test]
fn bad_cases_are_refused_with_what_was_found_and_wanted() {
    let good = CaseFile::good;
    for (what, case, words) in [
        (
            "shape of alpha",
            good().with("alpha", &[1, 3, 4], 0.1),
            vec!["alpha", "[1, 3, 4]", "[1, 1, 4]"],
        ),
        ("shape of input", good().with("input", &[1, 2, 3, 5], 0.1), vec!["input", "[1, 2, 3, 4]"]),
        ("axes of w", good().with("w", &[4, 4], 0.1), vec!["w", "P, M, N"]),
        ("not square", good().with("w", &[1, 3, 4], 0.1), vec!["w", "recurrent"]),
        ("populations", good().with("eta", &[2, 4], 0.1), vec!["eta", "[2, 4]"]),
        ("zero size", good().with("input", &[1, 2, 0, 4], 0.1), vec!["input", "zero"]),
        ("dtype", good().dtype("w", Dtype::I32), vec!["w", "I32", "float32"]),
        ("missing w", good().without("w"), vec!["w", "no such tensor"]),
        ("missing eta", good().without("eta"), vec!["eta", "no such tensor"]),
        ("missing target", good().without("target"), vec!["target"]),
        ("missing modulator", good().meta("rule", "modulated"), vec!["mod.w"]),
        ("unknown tensor", good().with("etas", &[1], 0.1), vec!["etas", "nearest: eta"]),
        ("unknown rule", good().meta("rule", "hebb"), vec!["rule", "hebb", "decay"]),
        ("unknown activation", good().meta("activation", "tan"), vec!["tan", "nearest: tanh"]),
        ("unknown loss", good().meta("loss", "l2"), vec!["loss", "l2", "squared"]),
        ("unknown key", good().meta("clips", "1"), vec!["clips", "nearest: clip"]),
        ("clip 0", good().meta("clip", "0"), vec!["clip", "positive"]),
        ("clip text", good().meta("clip", "one"), vec!["clip", "one", "positive"]),
        ("clip infinite", good().meta("clip", "inf"), vec!["clip", "positive"]),
        ("NaN", good().with("w", &[1, 4, 4], f32::NAN), vec!["w", "NaN", "finite"]),
        ("infinity", good().with("target", &[1, 2, 3, 4], f32::INFINITY), vec!["target", "inf"]),
        ("clamp", good().with("clamp", &[1, 2, 3, 4], 0.5), vec!["clamp", "0.5", "0 or 1"]),
    ] {
        refused(what, &case.bytes(), &words);
    }
    let mut no_rule = good();
    no_rule.metadata.remove("rule");
    refused("no rule", &no_rule.bytes(), &["rule"]);
    let bytes = good().bytes();
    refused("truncated", &bytes[..bytes.len() - 5], &["case.safetensors"]);
    refused("trailing bytes", &[&bytes[..], &[0; 8]].concat(), &["case.safetensors"]);
    refused("no safetensors", b"hello", &["case.safetensors"]);
    refused("empty", b"", &["case.safetensors"]);
}

#[test]
fn bad_usage_exits_2_and_missing_devices_exit_3() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let out = out.to_str().unwrap();
    let taken = folder.path().join("file");
    std::fs::write(&taken, "").unwrap();
    let under_a_file = taken.join("run");
    let under_a_file = under_a_file.to_str().unwrap();
    for (code, arguments, words) in [
        (2, vec!["train", "pattern"], vec!["pattern", "similar value exists: 'patterns'"]),
        (2, vec!["train", "patterns", "--preset", "fast"], vec!["fast", "quick"]),
        (2, vec!["train", "patterns", "--set", "task.bit=3"], vec!["task.bit", "nearest: bits"]),
        (2, vec!["train", "patterns", "--set", "task.bits=3"], vec!["task.bits", "even"]),
        (2, vec!["train", "patterns", "--set", "network.rule=hebb"], vec!["rule", "hebb", "oja"]),
        (2, vec!["train", "patterns", "--networks", "0"], vec!["networks", "at least 1"]),
        (2, vec!["train", "patterns", "--updates", "0"], vec!["updates", "at least 1"]),
        (2, vec!["train", "patterns", "--device", "tpu"], vec!["tpu", "auto, cpu, gpu"]),
        (2, vec!["train", "patterns", "--config", "nowhere.toml"], vec!["nowhere.toml"]),
        (2, vec!["train", "patterns", "--case", "x"], vec!["--case"]),
        (2, vec!["train", "custom"], vec!["--case"]),
        (2, vec!["train", "custom", "--case", "nowhere"], vec!["nowhere"]),
        (2, vec!["train", "patterns", "--out", under_a_file], vec!["file"]),
        (2, vec!["eval", out], vec!["no run"]),
        (2, vec!["grad", "nowhere", "--out", out], vec!["nowhere"]),
        (2, vec!["frobnicate"], vec!["frobnicate"]),
        (2, vec!["bench", "--neurons", "0"], vec!["at least 1"]),
        (2, vec!["bench", "--updates", "0"], vec!["--updates", "at least 1"]),
        (2, vec!["bench", "--count", "--traces", "f8"], vec!["f8", "f32, f16"]),
        (2, vec!["train", "patterns", "--set", "networks=-1"], vec!["networks", "-1", "0 or more"]),
        (2, vec!["bench", "--count", "--plan", "resident"], vec!["1001 x 1001", "streamed"]),
        (2, vec!["bench", "--neurons", "5", "--steps", "999999999999"], vec!["2^40", "steps"]),
        (3, vec!["bench", "--neurons", "5", "--steps", "9999999999"], vec!["memory"]),
        (2, vec!["train", "patterns", "--set", "task.gain=0"], vec!["task.gain"]),
        (2, vec!["train", "patterns", "--set", "network.eta=1e39"], vec!["network.eta", "f32"]),
        (3, vec!["train", "patterns", "--device", "gpu:99", "--out", out], vec!["adapter 99"]),
        (3, vec!["train", "patterns", "--set", "task.bits=900000", "--out", out], vec!["memory"]),
        (3, vec!["train", "patterns", "--batch", "30000000", "--out", out], vec!["memory"]),
        (2, vec!["train", "patterns", "--batch", "90000000000000", "--out", out], vec!["2^40"]),
    ] {
        let answer = hebbian(&arguments);
        let message = text(&answer.stderr);
        assert_eq!(answer.status.code(), Some(code), "{arguments:?}: {message}");
        assert!(!message.contains("panicked"), "{arguments:?}: {message}");
        for word in words {
            assert!(message.contains(word), "{arguments:?}: no '{word}' in {message}");
        }
        assert!(answer.stdout.is_empty());
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

const SMALL: [&str; 10] = [
    "train",
    "patterns",
    "--preset",
    "small",
    "--updates",
    "12",
    "--device",
    "cpu",
    "--quiet",
    "--json",
];

#[test]
fn a_run_leaves_what_the_readme_says_and_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let path = out.to_str().unwrap();
    let arguments = [&SMALL[..], &["--networks", "3", "--out", path]].concat();
    let answer = hebbian(&arguments);
    assert_eq!(answer.status.code(), Some(0), "{}", text(&answer.stderr));
    assert!(answer.stderr.is_empty(), "quiet: {}", text(&answer.stderr));
    let score: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(score["per_network"].as_array().unwrap().len(), 3);

    let metrics = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let updates: Vec<u64> = metrics
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["update"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(updates, (1..=12).collect::<Vec<u64>>());
    for file in [
        "config.toml",
        "environment.json",
        "events.out.tfevents.hebbian",
        "learning_curve.svg",
        "report.html",
        "checkpoints/final.safetensors",
        "checkpoints/update-12.safetensors",
    ] {
        assert!(out.join(file).is_file(), "{file}");
    }

    let again = hebbian(&arguments);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("nothing is overwritten"));

    let answer = hebbian(&["eval", path, "--device", "cpu", "--json"]);
    assert_eq!(answer.status.code(), Some(0), "{}", text(&answer.stderr));
    let evaluated: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    for key in
        ["task", "episodes", "error", "error_ci95", "error_without_plasticity", "per_network"]
    {
        assert!(!evaluated[key].is_null(), "{key}");
    }
    assert_eq!(evaluated["error"], score["error"], "eval scores what train scored");
}

#[test]
fn numbers_that_are_not_finite_are_named_and_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let case = folder.path().join("case.safetensors");
    // y, h and the loss are finite, dL/dinput of the first step is not
    let good = CaseFile::good().with("w", &[1, 4, 4], 1e20).with("input", &[1, 2, 3, 4], 0.0);
    let good = good.meta("activation", "linear").with("loss_weight", &[1, 2, 3, 4], 1e30);
    std::fs::write(&case, good.bytes()).unwrap();
    let out = folder.path().join("out.safetensors");
    let files = [&case, &out].map(|path| path.to_str().unwrap());
    let answer = hebbian(&["grad", files[0], "--out", files[1], "--device", "cpu"]);
    let message = text(&answer.stderr);
    assert_eq!(answer.status.code(), Some(1), "{message}");
    assert!(message.contains("grad.") && message.contains("not finite"), "{message}");
    assert!(!out.exists());
    let answer = hebbian(&["grad", files[0], "--out", files[0], "--device", "cpu"]);
    assert_eq!(answer.status.code(), Some(2));
    assert!(text(&answer.stderr).contains("the case itself"), "{}", text(&answer.stderr));
}

#[cfg(unix)]
#[test]
fn an_output_that_takes_nothing_ends_no_work() {
    let folder = tempfile::tempdir().unwrap();
    let program = || Command::new(env!("CARGO_BIN_EXE_hebbian"));
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let answer = program().arg("devices").stdout(full()).output().unwrap();
    assert_eq!(answer.status.code(), Some(2));
    assert!(text(&answer.stderr).contains("standard output"), "{}", text(&answer.stderr));
    // a reader that is gone, and an error stream that is full
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let answer = program().arg("devices").stdout(writer).output().unwrap();
    assert_eq!(answer.status.code(), Some(0), "{}", text(&answer.stderr));
    let run = folder.path().join("run");
    let small = ["train", "patterns", "--preset", "small", "--updates", "3", "--device", "cpu"];
    let mut train = program();
    train.args(small).arg("--out").arg(&run).stdout(Stdio::null()).stderr(full());
    assert_eq!(train.status().unwrap().code(), Some(0));
    assert!(run.join("checkpoints/final.safetensors").is_file());
}

#[test]
fn runs_that_start_together_get_folders_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let start = |seed: &str| {
        Command::new(env!("CARGO_BIN_EXE_hebbian"))
            .current_dir(&folder)
            .args(["train", "patterns", "--preset", "small", "--updates", "2", "--device", "cpu"])
            .args(["--quiet", "--seed", seed])
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let seeds = ["1", "2", "3", "4", "5", "6"];
    for mut child in seeds.map(start) {
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    for n in 1..=seeds.len() {
        let run = folder.path().join(format!("runs/patterns-{n}"));
        let answer = hebbian(&["train", "--resume", run.to_str().unwrap(), "--quiet"]);
        assert_eq!(answer.status.code(), Some(0), "{}", text(&answer.stderr));
    }
}

#[test]
fn diverged_training_exits_1() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    for updates in ["1", "5"] {
        let out = out.join(updates);
        let answer = hebbian(&[
            "train",
            "patterns",
            "--preset",
            "small",
            "--updates",
            updates,
            "--device",
            "cpu",
            "--quiet",
            "--json",
            "--set",
            "schedule.rate=1e38",
            "--out",
            out.to_str().unwrap(),
        ]);
        assert_eq!(answer.status.code(), Some(1), "{}", text(&answer.stderr));
        assert!(text(&answer.stderr).contains("not finite"));
        assert!(answer.stdout.is_empty());
    }
}

#[test]
fn a_case_file_can_be_trained_on_and_the_loss_falls() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decay.case.safetensors");
    let answer = hebbian(&[
        "train",
        "custom",
        "--case",
        case.to_str().unwrap(),
        "--updates",
        "60",
        "--device",
        "cpu",
        "--set",
        "schedule.rate=0.02",
        "--out",
        out.to_str().unwrap(),
    ]);
    assert_eq!(answer.status.code(), Some(0), "{}", text(&answer.stderr));
    let metrics = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let loss: Vec<f64> = metrics
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"][0].as_f64().unwrap()
        })
        .collect();
    assert!(loss[59] < 0.9 * loss[0], "{} {}", loss[0], loss[59]);
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("training episodes") && !page.contains("held-out"), "none are held out");
}

#[test]
fn a_task_without_held_out_episodes_is_scored_by_its_loss() {
    let folder = tempfile::tempdir().unwrap();
    // more episodes than are scored at a time, no multiple, and no two alike
    let mut case = CaseFile::good();
    for name in ["input", "target", "loss_weight"] {
        case.put(name, &[1, 23, 3, 4], 0.5);
    }
    let targets = (0..23 * 3 * 4).flat_map(|k| (0.01 * k as f32).to_le_bytes());
    case.tensors.get_mut("target").unwrap().2 = targets.collect();
    let path = folder.path().join("case.safetensors");
    std::fs::write(&path, case.bytes()).unwrap();
    let (out, run) = (folder.path().join("out.safetensors"), folder.path().join("run"));
    let [path, out, run] = [&path, &out, &run].map(|path| path.to_str().unwrap());
    let json = |arguments: &[&str]| -> serde_json::Value {
        let answer = hebbian(&[arguments, &["--device", "cpu", "--json", "--quiet"]].concat());
        assert_eq!(answer.status.code(), Some(0), "{}", text(&answer.stderr));
        serde_json::from_slice(&answer.stdout).unwrap()
    };
    let wanted = json(&["grad", path, "--out", out])["loss"][0].as_f64().unwrap();
    let still = ["--set", "schedule.rate=0", "--updates", "1"];
    let score = json(&[&["train", "custom", "--case", path, "--out", run], &still[..]].concat());
    let found = score["error"].as_f64().unwrap();
    assert!((found / wanted - 1.0).abs() < 1e-6, "{found}, wanted {wanted}");
    assert!(score["error_ci95"].is_f64(), "each episode has its loss");
}

#[test]
fn a_run_does_not_go_on_with_another_case_file() {
    let folder = tempfile::tempdir().unwrap();
    let (case, out) = (folder.path().join("case.safetensors"), folder.path().join("run"));
    let bytes = CaseFile::good().bytes();
    std::fs::write(&case, &bytes).unwrap();
    let [case_path, run] = [&case, &out].map(|path| path.to_str().unwrap());
    let train = ["train", "custom", "--device", "cpu", "--quiet", "--updates", "3"];
    let answer = hebbian(&[&train[..], &["--case", case_path, "--out", run]].concat());
    assert_eq!(answer.status.code(), Some(0), "{}", text(&answer.stderr));
    let resume = || hebbian(&["train", "--resume", run, "--updates", "5", "--quiet"]);
    std::fs::write(&case, CaseFile::good().with("target", &[1, 2, 3, 4], 0.7).bytes()).unwrap();
    let answer = resume();
    assert_eq!(answer.status.code(), Some(2), "{}", text(&answer.stderr));
    assert!(text(&answer.stderr).contains("SHA-256"), "{}", text(&answer.stderr));
    std::fs::write(&case, &bytes).unwrap();
    assert_eq!(resume().status.code(), Some(0));
}

#[cfg(unix)]
#[test]
fn a_signal_saves_the_parameters_and_exits_75() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut child = Command::new(env!("CARGO_BIN_EXE_hebbian"))
        .args(["train", "patterns", "--updates", "100000", "--device", "cpu", "--quiet"])
        .arg("--out")
        .arg(&out)
        .spawn()
        .unwrap();
    let metrics = out.join("metrics.jsonl");
    while std::fs::metadata(&metrics).map_or(0, |m| m.len()) < 500 {
        assert!(child.try_wait().unwrap().is_none(), "training ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(75));
    let answer = hebbian(&["eval", out.to_str().unwrap(), "--episodes", "4", "--device", "cpu"]);
    assert_eq!(answer.status.code(), Some(0), "{}", text(&answer.stderr));

    // it goes on where it stopped: the checkpoint's update is the last record's
    let records = std::fs::read_to_string(&metrics).unwrap().lines().count();
    assert!(out.join(format!("checkpoints/update-{records}.safetensors")).is_file(), "{records}");
    let more = (records + 3).to_string();
    let folder = out.to_str().unwrap();
    let answer = hebbian(&["train", "--resume", folder, "--updates", &more, "--quiet"]);
    assert_eq!(answer.status.code(), Some(0), "{}", text(&answer.stderr));
    assert_eq!(std::fs::read_to_string(&metrics).unwrap().lines().count(), records + 3);
}
