//! Faults found by using the program, each with what is right.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::cli::CaseFile;
use crate::common::{hebbian, load};

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that does its work; returns its JSON.
fn json(arguments: &[&str]) -> serde_json::Value {
    let answer = hebbian(&[arguments, &["--device", "cpu", "--json", "--quiet"]].concat());
    assert_eq!(answer.status.code(), Some(0), "{arguments:?}: {}", words(&answer));
    serde_json::from_slice(&answer.stdout).unwrap()
}

/// A command that must be refused with exit code 2 and all of these words.
fn refused(arguments: &[&str], wanted: &[&str]) {
    let answer = hebbian(arguments);
    assert_eq!(answer.status.code(), Some(2), "{arguments:?}: {}", words(&answer));
    for word in wanted {
        assert!(words(&answer).contains(word), "no '{word}' in {}", words(&answer));
    }
}

/// A run of small patterns in `folder`.
fn patterns(folder: &Path, more: &[&str]) -> PathBuf {
    let out = folder.join("run");
    let run = out.to_str().unwrap();
    let small = ["train", "patterns", "--set", "task.bits=20", "--updates", "12", "--out", run];
    json(&[&small[..], more].concat());
    out
}

/// A case of as many episodes, whose inputs and targets differ.
fn case(path: &Path, episodes: usize) {
    let mut case = CaseFile::good();
    for name in ["input", "target", "loss_weight"] {
        case.put(name, &[1, episodes, 3, 4], 1.0);
    }
    for name in ["input", "target"] {
        let values = (0..episodes * 12).map(|k| ((k * k + k / 12) % 19) as f32 / 10.0 - 0.9);
        case.set(name, values.flat_map(f32::to_le_bytes).collect());
    }
    let w = (0..16).map(|k| (k * k % 7) as f32 / 10.0 - 0.2);
    case.set("w", w.flat_map(f32::to_le_bytes).collect());
    std::fs::write(path, case.bytes()).unwrap();
}

fn updates(run: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let update = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["update"].as_u64().unwrap()
    };
    text.lines().map(update).collect()
}

#[test]
fn seeds_draw_the_episodes_of_a_case_and_their_start_where_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.safetensors");
    case(&path, 7);
    let file = path.to_str().unwrap();
    let losses = |name: &str, more: &[&str]| -> String {
        let out = folder.path().join(name);
        let out_text = out.to_str().unwrap();
        let train = ["train", "custom", "--case", file, "--updates", "7", "--out", out_text];
        json(&[&train[..], &["--set", "schedule.rate=0", "--batch", "1"], more].concat());
        let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        let loss = |line: &str| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"][0].to_string()
        };
        text.lines().map(loss).collect::<Vec<_>>().join(" ")
    };
    let sorted = |text: &str| {
        let mut parts: Vec<String> = text.split(' ').map(String::from).collect();
        parts.sort();
        parts.dedup();
        parts
    };
    let (one, two) = (losses("one", &["--seed", "1"]), losses("two", &["--seed", "2"]));
    assert_ne!(one, two, "another seed, another order");
    assert_eq!(one, losses("again", &["--seed", "1"]), "the seed decides");
    assert_eq!(sorted(&one).len(), 7, "each once before any comes again");
    assert_eq!(sorted(&one), sorted(&two), "the file's start values");
    let random = losses("random", &["--seed", "1", "--init", "random"]);
    assert_ne!(sorted(&one), sorted(&random), "a start of its own");
    let environment = |name: &str| -> serde_json::Value {
        let file = folder.path().join(name).join("environment.json");
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
    };
    assert_eq!(environment("one")["seeds_share_start"], true);
    assert_eq!(environment("random")["seeds_share_start"], false);
    refused(&["train", "custom", "--case", file, "--batch", "8"], &["batch", "8", "7"]);
}

#[test]
fn what_is_held_out_of_a_case_is_never_trained_on_and_nothing_else_is_called_so() {
    let folder = tempfile::tempdir().unwrap();
    let [all, other] =
        ["all", "other"].map(|name| folder.path().join(name).with_extension("safetensors"));
    case(&all, 10);
    case(&other, 3);
    let file = all.to_str().unwrap();
    let score = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let out = out.to_str().unwrap();
        let train = ["train", "custom", "--case", file, "--updates", "2", "--out", out];
        json(&[&train[..], more].concat())
    };
    let moved = folder.path().join("moved.safetensors");
    let plain = score("plain", &[]);
    assert_eq!((&plain["held_out"], &plain["episodes"]), (&false.into(), &10.into()));
    let share = score("share", &["--held-out", "0.3"]);
    assert_eq!((&share["held_out"], &share["episodes"]), (&true.into(), &3.into()));
    let config = std::fs::read_to_string(folder.path().join("share/config.toml")).unwrap();
    assert!(config.contains("batch = 7"), "seven are left to train on: {config}");
    let by_file = score("file", &["--held-out", other.to_str().unwrap()]);
    assert_eq!((&by_file["held_out"], &by_file["episodes"]), (&true.into(), &3.into()));
    std::fs::rename(&other, &moved).unwrap();
    let run = folder.path().join("file");
    let there = ["--held-out", moved.to_str().unwrap(), "--case", file];
    let scored = json(&[&["eval", run.to_str().unwrap()], &there[..]].concat());
    assert_eq!(scored["error"], by_file["error"]);
    for (more, wanted) in [
        (&["--held-out", "1.5"][..], "held-out"),
        (&["--set", "eval_every=2"], "eval_every"),
        (&["--held-out", "nowhere.safetensors"], "nowhere"),
    ] {
        refused(&[&["train", "custom", "--case", file], more].concat(), &[wanted]);
    }
    refused(&["train", "patterns", "--held-out", "0.2"], &["--held-out", "patterns"]);
}

#[test]
fn another_case_is_scored_a_folder_is_one_case_and_every_loss_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    case(&at("all.safetensors"), 6);
    case(&at("other.safetensors"), 4);
    let (file, run) = (at("all.safetensors"), at("run"));
    let (file, run) = (file.to_str().unwrap(), run.to_str().unwrap());
    let train = ["train", "custom", "--case", file, "--updates", "3", "--out", run];
    let own = json(&train);
    assert_eq!(own["scored"], "training");
    assert_eq!(own["error"], own["loss"], "without a measure the error is the loss");
    assert!(own["error_ci95"].is_f64(), "a loss an episode gives an interval over episodes");
    let other = at("other.safetensors");
    let scored = json(&["eval", run, "--case", other.to_str().unwrap()]);
    assert_eq!((&scored["scored"], &scored["episodes"]), (&"given".into(), &4.into()));
    assert_ne!(scored["loss"], own["loss"]);
    // networks that the run has not
    let mut wrong = CaseFile::good();
    wrong.metadata.insert("activation".into(), "relu".into());
    std::fs::write(at("wrong.safetensors"), wrong.bytes()).unwrap();
    let wrong = at("wrong.safetensors");
    refused(&["eval", run, "--case", wrong.to_str().unwrap()], &["relu", "tanh"]);

    let mut open = CaseFile::good().meta("loss", "cotangent").with("dy", &[1, 2, 3, 4], 0.5);
    ["target", "loss_weight"].iter().for_each(|name| _ = open.tensors.remove(name));
    std::fs::write(at("open.safetensors"), open.bytes()).unwrap();
    let open = at("open.safetensors");
    refused(&["train", "custom", "--case", open.to_str().unwrap()], &["loss", "cotangent"]);

    // two files of a folder, taken together
    std::fs::create_dir(at("cases")).unwrap();
    std::fs::rename(at("all.safetensors"), at("cases/a.safetensors")).unwrap();
    std::fs::rename(at("other.safetensors"), at("cases/b.safetensors")).unwrap();
    let (cases, both) = (at("cases"), at("both"));
    let train = ["train", "custom", "--updates", "2", "--out", both.to_str().unwrap(), "--case"];
    let both = json(&[&train[..], &[cases.to_str().unwrap()]].concat());
    assert_eq!(both["episodes"], 10);
    std::fs::rename(wrong, at("cases/c.safetensors")).unwrap();
    refused(&[&train[..4], &["--case", cases.to_str().unwrap()]].concat(), &["c.safetensors"]);
}

#[test]
fn networks_can_share_one_set_of_data() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut case = CaseFile::good();
    for (name, shape) in [("w", [2, 4, 4]), ("alpha", [2, 4, 4])] {
        case.put(name, &shape, 0.1);
    }
    let w = (0..32).map(|k| (k * k % 13) as f32 / 20.0 - 0.3);
    case.set("w", w.flat_map(f32::to_le_bytes).collect());
    case.put("eta", &[2, 1], 0.1);
    std::fs::write(at("shared.safetensors"), case.bytes()).unwrap();
    for name in ["input", "target", "loss_weight"] {
        case.put(name, &[2, 2, 3, 4], 0.5);
    }
    std::fs::write(at("each.safetensors"), case.bytes()).unwrap();
    for name in ["shared", "each"] {
        let (file, out) = (at(&format!("{name}.safetensors")), at(&format!("{name}.out")));
        let files = [file.to_str().unwrap(), "--out", out.to_str().unwrap()];
        json(&[&["grad"], &files[..]].concat());
    }
    let (shared, each) = (load(&at("shared.out")), load(&at("each.out")));
    for (name, values) in &each {
        if name != "grad.input" {
            assert_eq!(&shared[name], values, "{name}");
        }
    }
    let both = each["grad.input"].split_at(24);
    let sums: Vec<f64> =
        both.0.iter().zip(both.1).map(|(a, b)| f64::from((a + b) as f32)).collect();
    assert_eq!(shared["grad.input"], sums);
    case.put("input", &[3, 2, 3, 4], 0.5);
    std::fs::write(at("wrong.safetensors"), case.bytes()).unwrap();
    let (file, out) = (at("wrong.safetensors"), at("none"));
    refused(
        &["grad", file.to_str().unwrap(), "--out", out.to_str().unwrap()],
        &["input", "[3, 2, 3, 4]", "[2, 2, 3, 4] or [1, 2, 3, 4]"],
    );
}

#[test]
fn training_starts_from_weights_of_any_source_and_networks_can_be_trained_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let first_loss = |out: &Path| -> Vec<f64> {
        let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        let record: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        serde_json::from_value(record["loss"].clone()).unwrap()
    };
    let small = ["train", "patterns", "--set", "task.bits=20", "--batch", "2"];
    let train = |name: &str, more: &[&str]| {
        let out = at(name);
        json(&[&small[..], &["--updates", "2", "--out", out.to_str().unwrap()], more].concat());
        out
    };
    let whole = train("whole", &["--networks", "6"]);
    let part = train("part", &["--networks", "3", "--first-network", "2"]);
    assert_eq!(first_loss(&part), first_loss(&whole)[2..5], "the same networks");
    let [a, b] =
        [&whole, &part].map(|run| load(&run.join("checkpoints/final.safetensors"))["w"].clone());
    assert_eq!(a[2 * 441..5 * 441], b, "to the bit");

    let finished = whole.join("checkpoints/final.safetensors");
    let again = train("again", &["--networks", "6", "--init", finished.to_str().unwrap()]);
    assert_ne!(first_loss(&again), first_loss(&whole));
    assert!(
        std::fs::read_to_string(again.join("config.toml")).unwrap().contains("init_sha256 = \"")
    );
    json(&["inspect", again.to_str().unwrap()]);
    // of one network, for all; of other sizes; of nothing
    let one = train("one", &[]);
    let one = one.join("checkpoints/final.safetensors");
    train("all", &["--networks", "3", "--init", one.to_str().unwrap()]);
    let init = ["--init", one.to_str().unwrap()];
    refused(&[&small[..2], &["--set", "task.bits=22"], &init].concat(), &["tensor", "[1, 21, 21]"]);
    let mut none = CaseFile::good();
    for name in ["w", "alpha", "eta"] {
        none.tensors.remove(name);
    }
    std::fs::write(at("none.safetensors"), none.bytes()).unwrap();
    let none = at("none.safetensors");
    refused(
        &[&small[..], &["--init", none.to_str().unwrap()]].concat(),
        &["none.safetensors", "alpha"],
    );
}

#[test]
fn a_run_moves_with_its_data() {
    let folder = tempfile::tempdir().unwrap();
    let before = folder.path().join("before");
    std::fs::create_dir(&before).unwrap();
    case(&before.join("task.safetensors"), 4);
    let (file, run) = (before.join("task.safetensors"), before.join("run"));
    let train = ["train", "custom", "--case", file.to_str().unwrap(), "--updates", "2", "--out"];
    json(&[&train[..], &[run.to_str().unwrap()]].concat());
    let after = folder.path().join("after");
    std::fs::rename(before, &after).unwrap();
    let run = after.join("run");
    json(&["eval", run.to_str().unwrap()]);
    json(&["train", "--resume", run.to_str().unwrap(), "--updates", "4"]);
    assert_eq!(updates(&run), [1, 2, 3, 4]);
    // nothing in a run changes when it is looked at
    let seen = |folder: &Path| -> Vec<(PathBuf, std::time::SystemTime)> {
        let mut all: Vec<_> = ["", "checkpoints"]
            .iter()
            .flat_map(|inner| std::fs::read_dir(folder.join(inner)).unwrap())
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.path(), entry.metadata().unwrap().modified().unwrap()))
            .collect();
        all.sort();
        all
    };
    let own = tempfile::tempdir().unwrap();
    let patterns = patterns(own.path(), &[]);
    let before = seen(&patterns);
    let run = patterns.to_str().unwrap();
    let memory = own.path().join("memory");
    let page = own.path().join("page.html");
    json(&["eval", run]);
    json(&["inspect", run, "--out", page.to_str().unwrap()]);
    json(&["recall", run, "--memory", memory.to_str().unwrap(), "status"]);
    assert_eq!(seen(&patterns), before);
}

#[test]
fn data_are_found_wherever_a_run_or_a_settings_file_names_them_from() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for inner in ["data", "deep", "deep/er", "runs"] {
        std::fs::create_dir(at(inner)).unwrap();
    }
    case(&at("data/task.safetensors"), 4);
    let program = |arguments: &[&str], current: &str| {
        let answer = Command::new(env!("CARGO_BIN_EXE_hebbian"))
            .args(arguments)
            .args(["--device", "cpu", "--json", "--quiet"])
            .current_dir(at(current))
            .output()
            .unwrap();
        assert_eq!(answer.status.code(), Some(0), "{arguments:?}: {}", words(&answer));
    };
    // both with "..", from a folder that a later command does not start in
    let [case, out] = ["../../data/task.safetensors", "../../runs/one"];
    let train = ["train", "custom", "--case", case, "--updates", "2", "--out", out];
    program(&train, "deep/er");
    program(&["eval", "../runs/one"], "data");
    let queued = ["train", "custom", "--case", "../data/../data/task.safetensors", "--or-resume"];
    program(&[&queued[..], &["--updates", "2", "--out", "one"]].concat(), "runs");
    // the settings of a run are read from where the run is
    program(&["train", "custom", "--config", "runs/one/config.toml", "--out", "two"], "");
    assert_eq!(updates(&at("two")), [1, 2]);
}

#[test]
fn a_setting_takes_along_what_was_filled_in_for_the_former_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let trace = |text: &str| format!("name = \"mine\"\n[trace]\nH = \"{text}\"\n");
    std::fs::write(at("a.toml"), trace("0.5 * H + x * y")).unwrap();
    std::fs::write(at("b.toml"), trace("0.9 * H - x * y")).unwrap();
    let [a, b, one, two, three] = ["a.toml", "b.toml", "one", "two", "three"]
        .map(|name| at(name).to_str().unwrap().to_string());
    let small = ["train", "patterns", "--set", "task.bits=8", "--updates", "1", "--rule"];
    json(&[&small[..], &[&a, "--out", &one]].concat());
    let config = format!("{one}/config.toml");
    let again = ["train", "patterns", "--config", &config, "--rule", &b, "--out", &two];
    json(&again);
    let text = std::fs::read_to_string(at("two/config.toml")).unwrap();
    assert!(text.contains("0.9 * H - x * y") && !text.contains("0.5 * H"), "{text}");
    // start values of another file: its own digest
    let start = |run: &str| format!("{run}/checkpoints/final.safetensors");
    let from = ["--config", &config, "--out", &three, "--init"];
    json(&[&["train", "patterns"], &from[..], &[&start(&one)]].concat());
    let config = format!("{three}/config.toml");
    let four = at("four");
    let from = ["--config", &config, "--out", four.to_str().unwrap(), "--init"];
    json(&[&["train", "patterns"], &from[..], &[&start(&two), "--rule", &b]].concat());
}

#[test]
fn a_case_of_other_networks_is_refused_whatever_they_lack() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let write = |name: &str, case: CaseFile| {
        std::fs::write(at(name), case.bytes()).unwrap();
        at(name).to_str().unwrap().to_string()
    };
    let full = || {
        let mut case = CaseFile::good().with("bias", &[1, 4], 0.1).with("mask", &[1, 4, 4], 1.0);
        case.set("mask", (0..16).flat_map(|k| f32::from(u8::from(k != 1)).to_le_bytes()).collect());
        case
    };
    let file = write("full.safetensors", full());
    let run = at("run");
    let run = run.to_str().unwrap();
    json(&["train", "custom", "--case", &file, "--updates", "1", "--out", run]);
    json(&["eval", run, "--case", &file]);
    for (gone, wanted) in [("bias", "as in the run, bias"), ("mask", "networks that have it")] {
        let mut other = full();
        other.tensors.remove(gone);
        let other = write(&format!("no_{gone}.safetensors"), other);
        refused(&["eval", run, "--case", &other], &[gone, wanted]);
    }
    // --init: neither another mask nor a leak that is none
    let mut start = CaseFile::good();
    start.put("mask", &[1, 4, 4], 1.0);
    let start = write("start.safetensors", start);
    refused(&["train", "custom", "--case", &file, "--init", &start], &["mask"]);
    let leaky = |leak: f32| CaseFile::good().meta("leak", "rate").with("leak", &[1, 4], leak);
    let file = write("leaky.safetensors", leaky(0.5));
    for leak in [0.0, 1.5] {
        let start = write("leak.safetensors", leaky(leak));
        refused(&["train", "custom", "--case", &file, "--init", &start], &["leak", "at most 1"]);
    }
}

#[test]
fn what_a_gpu_cannot_run_runs_on_the_cpu_or_is_refused_before_a_run_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let small = ["--updates", "1", "--set", "task.channels=4", "--set", "eval_episodes=4"];
    let train = [&["train", "omniglot", "--quiet"][..], &small, &["--out"]].concat();
    let [refused, out] = ["refused", "run"].map(at);
    let answer = hebbian(&[&train[..], &[&refused, "--device", "gpu"]].concat());
    assert_eq!(answer.status.code(), Some(3), "{}", words(&answer));
    assert!(words(&answer).contains("--device cpu"), "{}", words(&answer));
    assert!(!Path::new(&refused).exists());
    let answer = hebbian(&[&train[..], &[&out, "--device", "auto"]].concat());
    assert_eq!(answer.status.code(), Some(0), "{}", words(&answer));
    assert!(Path::new(&out).join("checkpoints/final.safetensors").exists());
}

#[test]
fn a_gpu_runs_episodes_with_resets() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let [file, plain] = ["case.safetensors", "plain.safetensors"].map(at);
    std::fs::write(&file, CaseFile::good().with("gate.reset", &[1, 2, 3], 1.0).bytes()).unwrap();
    std::fs::write(&plain, CaseFile::good().bytes()).unwrap();
    let out = at("run");
    let train = ["train", "custom", "--case", &file, "--updates", "1", "--out", &out];
    let answer = hebbian(&[&train[..], &["--device", "gpu"]].concat());
    assert_eq!(answer.status.code(), Some(0), "{}", words(&answer));
    // what is held out counts as well
    let out = at("held_out");
    let train = ["train", "custom", "--case", &plain, "--held-out", &file, "--updates", "1"];
    let answer = hebbian(&[&train[..], &["--out", &out, "--device", "gpu"]].concat());
    assert_eq!(answer.status.code(), Some(0), "{}", words(&answer));
}

#[test]
fn tensorboard_has_each_network_and_the_measures_name() {
    let folder = tempfile::tempdir().unwrap();
    let run = patterns(folder.path(), &["--networks", "2", "--set", "eval_every=12"]);
    let events = std::fs::read(run.join("events.out.tfevents.hebbian")).unwrap();
    for tag in ["loss/network 1", "hidden-bit error", "held-out hidden-bit error/network 0"] {
        assert!(events.windows(tag.len()).any(|w| w == tag.as_bytes()), "{tag}");
    }
    let curve = std::fs::read_to_string(run.join("learning_curve.svg")).unwrap();
    for word in ["seed 0", "<desc>", "role=\"img\"", "updates"] {
        assert!(curve.contains(word), "no {word}");
    }
}

#[test]
fn a_network_without_a_trace_or_with_one_alpha_has_no_empty_panels() {
    for (rule, alpha, gone, there) in [
        ("none", "connection", "over an episode", "does nothing to w"),
        ("decay", "network", "Joint density", "alpha is one number a network"),
        ("modulated", "connection", "does nothing to w", "The neuromodulator"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let sets = [format!("network.rule={rule}"), format!("network.alpha={alpha}")];
        let run = patterns(folder.path(), &["--set", &sets[0], "--set", &sets[1]]);
        json(&["inspect", run.to_str().unwrap()]);
        let page = std::fs::read_to_string(run.join("inspect.html")).unwrap();
        assert!(!page.contains(gone) && page.contains(there), "{rule} {alpha}");
    }
}

#[test]
fn what_a_task_fixes_can_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let small = ["train", "patterns", "--set", "task.bits=20", "--batch", "2", "--updates", "3"];
    let train = |name: &str, sets: &[&str]| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let out = at(name);
        json(&[&small[..], &["--out", out.to_str().unwrap()], &sets[..]].concat());
        load(&out.join("checkpoints/final.safetensors"))
    };
    let start = train("still", &["schedule.rate=0"]);
    let frozen = train("frozen", &["network.frozen=[\"w\", \"eta\"]"]);
    assert_eq!((&frozen["w"], &frozen["eta"]), (&start["w"], &start["eta"]));
    assert_ne!(frozen["alpha"], start["alpha"]);
    let all = [
        "network.activation=sigmoid",
        "network.eta_per=neuron",
        "network.bias=neuron",
        "network.leak=membrane",
    ];
    let other = train("other", &all);
    assert_eq!((other["eta"].len(), other["bias"].len(), other["leak"].len()), (21, 21, 21));
    assert!(other["bias"].iter().any(|&b| b != 0.0) && other["leak"].iter().any(|&k| k != 0.5));
    for (set, wanted) in [
        ("network.frozen=[\"v\"]", &["network.frozen", "\"v\"", "alpha"][..]),
        ("network.leak_rate=0", &[]),
        ("network.activation=tan", &["network.activation", "\"tan\"", "tanh"]),
        ("network.alpha=all", &["network.alpha", "\"all\"", "connection"]),
    ] {
        if !wanted.is_empty() {
            refused(&[&small[..2], &["--set", set]].concat(), wanted);
        }
    }
    refused(
        &[&small[..2], &["--set", "network.leak=rate", "--set", "network.leak_rate=2"]].concat(),
        &["network.leak_rate"],
    );
    let shown = hebbian(&["train", "patterns", "--print-config"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("# initial plasticity rate, per step\neta = 0.01"), "{shown}");
    let bash = String::from_utf8(hebbian(&["completions", "bash"]).stdout).unwrap();
    let tasks = "patterns images omniglot maze cue-reward copy custom";
    assert!(bash.contains("auto resident streamed") && bash.contains(tasks));
    let pages = at("man");
    assert_eq!(hebbian(&["man", pages.to_str().unwrap()]).status.code(), Some(0));
    assert!(
        std::fs::read_to_string(pages.join("hebbian-settings.5")).unwrap().contains("network.rule")
    );
}

#[test]
fn a_case_says_what_its_error_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.safetensors");
    let good = CaseFile::good().with("target", &[1, 2, 3, 4], 0.5);
    std::fs::write(&path, good.meta("error", "sign").bytes()).unwrap();
    let out = folder.path().join("run");
    let [file, run] = [&path, &out].map(|path| path.to_str().unwrap());
    let score = json(&["train", "custom", "--case", file, "--updates", "2", "--out", run]);
    assert_eq!(score["measure"], "wrong signs");
    assert_eq!(score["error"], 0.0, "inputs and targets are positive");
    let none = CaseFile::good().with("loss_weight", &[1, 2, 3, 4], 0.0).meta("error", "sign");
    std::fs::write(&path, none.bytes()).unwrap();
    let out_of_none = folder.path().join("none");
    let to = out_of_none.to_str().unwrap();
    refused(&["grad", file, "--out", to], &["loss_weight", "last step"]);
    std::fs::write(&path, CaseFile::good().meta("error", "signs").bytes()).unwrap();
    let out = folder.path().join("out");
    let wanted = ["error", "sign, accuracy, squared"];
    refused(&["grad", file, "--out", out.to_str().unwrap()], &wanted);
}

#[test]
fn keys_of_other_writers_pass_and_slips_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.safetensors");
    let out = folder.path().join("out");
    let [file, to] = [&path, &out].map(|path| path.to_str().unwrap());
    std::fs::write(&path, CaseFile::good().meta("format", "pt").bytes()).unwrap();
    let answer = hebbian(&["grad", file, "--out", to, "--device", "cpu"]);
    assert_eq!(answer.status.code(), Some(0), "{}", words(&answer));
    assert!(words(&answer).contains("format"), "{}", words(&answer));
    for slip in ["Rule", "los", "activaton", "clp"] {
        std::fs::write(&path, CaseFile::good().meta(slip, "1").bytes()).unwrap();
        refused(&["grad", file, "--out", to], &[slip, "nearest"]);
    }
}

#[test]
fn a_name_that_comes_twice_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.safetensors");
    let good = CaseFile::good().bytes();
    let len = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&good[8..8 + len]).unwrap();
    let eta = header.find("\"eta\":").unwrap();
    let entry = &header[eta..=eta + header[eta..].find('}').unwrap()];
    let twice = format!("{{{entry},{}", &header[1..]);
    let bytes = [&(twice.len() as u64).to_le_bytes(), twice.as_bytes(), &good[8 + len..]].concat();
    std::fs::write(&path, bytes).unwrap();
    let out = folder.path().join("out");
    refused(&["grad", path.to_str().unwrap(), "--out", out.to_str().unwrap()], &["eta", "twice"]);
}

#[test]
fn one_episode_has_no_interval_and_several_networks_have_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let run = patterns(folder.path(), &["--networks", "3"]);
    let run = run.to_str().unwrap();
    let score = json(&["eval", run, "--episodes", "1"]);
    assert_eq!(score["ci95_over"], "networks");
    let values: Vec<f64> =
        score["per_network"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let mean = values.iter().sum::<f64>() / 3.0;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    // Student's t of two degrees of freedom
    let wanted = 4.302_653 * (squares / 2.0 / 3.0).sqrt();
    assert!((score["error_ci95"].as_f64().unwrap() - wanted).abs() < 1e-6, "{score}");
    let alone = tempfile::tempdir().unwrap();
    let run = patterns(alone.path(), &[]);
    let score = json(&["eval", run.to_str().unwrap(), "--episodes", "1"]);
    assert!(score["error_ci95"].is_null(), "{score}");
}

#[test]
fn capacity_keeps_its_two_series_apart_and_takes_no_flag_that_it_does_not_use() {
    let folder = tempfile::tempdir().unwrap();
    let run = patterns(folder.path(), &[]);
    let run = run.to_str().unwrap();
    let few = ["recall", run, "capacity", "--most", "2", "--delays", "5", "--episodes", "2"];
    let found = json(&few);
    let by: Vec<&str> =
        found["points"].as_array().unwrap().iter().map(|p| p["by"].as_str().unwrap()).collect();
    assert_eq!(by, ["number", "number", "delay"]);
    for flag in [["--network", "0"], ["--memory", "m.safetensors"]] {
        refused(&[&few[..], &flag].concat(), &[flag[0], "capacity"]);
    }
}

#[test]
fn stimuli_are_of_the_networks_range_and_know_what_they_hide() {
    let folder = tempfile::tempdir().unwrap();
    let run = patterns(folder.path(), &[]);
    let run = run.to_str().unwrap();
    let file = |name: &str, bytes: &[u8]| -> String {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().into()
    };
    let numbers = |name: &str, value: f32| {
        let data: Vec<u8> = std::iter::repeat_n(value.to_le_bytes(), 20).flatten().collect();
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![20], &data);
        file(name, &safetensors::serialize([("stimulus", view.unwrap())], None).unwrap())
    };
    refused(&["recall", run, "present", &numbers("a.safetensors", 255.0)], &["255", "-1 or 1"]);
    refused(&["recall", run, "present", &numbers("b.safetensors", 0.0)], &["hidden"]);
    let marked = file("bom.txt", "\u{feff}10101010101010101010\n".as_bytes());
    json(&["recall", run, "present", &marked]);
    let odd = file("odd.txt", "-1 1 ".repeat(10).as_bytes());
    refused(&["recall", run, "complete", &odd], &["1 0", "+ -"]);
    let cue = file("cue.txt", b"1010101010??????????");
    let answer = json(&["recall", run, "complete", &cue]);
    assert_eq!((&answer["hidden"], &answer["hidden_known"]), (&10.into(), &0.into()));
    assert!(answer["error"].is_null(), "{answer}");
    let answer = json(&["recall", run, "complete", &cue, "--truth", &marked]);
    assert_eq!(answer["hidden_known"], 10);
    assert!(answer["error"].is_number(), "{answer}");
    let pictures = ["recall-cue.png", "recall-cue-2.png"].map(|name| Path::new(run).join(name));
    assert!(pictures.iter().all(|path| path.is_file()), "none is overwritten");
    let plain = hebbian(&["recall", run, "complete", &cue, "--device", "cpu"]);
    let first = String::from_utf8(plain.stdout).unwrap();
    let first = first.lines().next().unwrap();
    assert!(first.len() == 20 && first.chars().all(|c| "01".contains(c)), "{first}");
}

#[test]
fn see_through_pixels_colour_nothing_and_nothing_to_see_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let run = out.to_str().unwrap();
    let small = ["--set", "task.side=4", "--set", "eval_episodes=2", "--updates", "2"];
    json(&[&["train", "images", "--out", run], &small[..]].concat());
    // 8 x 8, four pixels a number: white but for one black, see-through pixel of the first number,
    // and a black lower half
    let rgba: Vec<u8> = (0..64)
        .flat_map(|k| match k {
            0 => [0, 0, 0, 0],
            _ if k < 32 => [255, 255, 255, 255],
            _ => [0, 0, 0, 255],
        })
        .collect();
    let write = |name: &str, rgba: &[u8]| -> String {
        let path = folder.path().join(name);
        let file = std::fs::File::create(&path).unwrap();
        let mut encoder = png::Encoder::new(file, 8, 8);
        encoder.set_color(png::ColorType::Rgba);
        encoder.write_header().unwrap().write_image_data(rgba).unwrap();
        path.to_str().unwrap().into()
    };
    let answer = json(&["recall", run, "complete", &write("edge.png", &rgba)]);
    let y = |k: usize| answer["y"][k].as_f64().unwrap();
    assert!((y(0) - y(1)).abs() < 1e-6, "{} beside {}", y(0), y(1));
    let clear = write("clear.png", &[255, 255, 255, 0].repeat(64));
    refused(&["recall", run, "complete", &clear], &["hidden"]);
}

#[test]
fn a_memory_belongs_to_a_network_and_parallel_presents_are_all_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let out = patterns(folder.path(), &["--networks", "2"]);
    let run = out.to_str().unwrap();
    let stimulus = folder.path().join("p.txt");
    std::fs::write(&stimulus, "10".repeat(10)).unwrap();
    let stimulus = stimulus.to_str().unwrap();
    let one = json(&["recall", run, "present", stimulus])["steps"].as_u64().unwrap();
    let children: Vec<_> = (0..6)
        .map(|_| {
            Command::new(env!("CARGO_BIN_EXE_hebbian"))
                .args(["recall", run, "present", stimulus, "--device", "cpu", "--quiet"])
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(json(&["recall", run, "status"])["steps"], 7 * one);
    assert_eq!(json(&["recall", run, "status", "--network", "1"])["steps"], 0, "its own file");
    let first = out.join("memory-0.safetensors");
    let first = first.to_str().unwrap();
    let before = std::fs::read(first).unwrap();
    let other = ["recall", run, "forget", "--network", "1", "--memory", first];
    refused(&other, &["other parameters"]);
    // nor is a file that is no memory made one
    let stray = out.join("memory-1.safetensors");
    let bytes = std::fs::read(out.join("checkpoints/final.safetensors")).unwrap();
    std::fs::write(&stray, &bytes).unwrap();
    refused(&["recall", run, "forget", "--network", "1"], &["a memory to forget"]);
    assert_eq!(std::fs::read(&stray).unwrap(), bytes);
    assert_eq!(std::fs::read(first).unwrap(), before, "nothing was changed");
}

#[test]
fn other_data_are_refused_and_moved_data_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("cifar");
    std::fs::create_dir(&data).unwrap();
    let batch = |seed: usize| -> Vec<u8> {
        (0..12 * 3073)
            .map(|k| ((k * 31 + k / 7 * seed) % 251) as u8 % if k % 3073 == 0 { 10 } else { 251 })
            .collect()
    };
    std::fs::write(data.join("data_batch_1.bin"), batch(3)).unwrap();
    std::fs::write(data.join("test_batch.bin"), batch(5)).unwrap();
    let out = folder.path().join("run");
    let run = out.to_str().unwrap();
    let small = ["--set", "task.side=4", "--set", "eval_episodes=2", "--updates", "2"];
    let train = ["train", "images", "--data", data.to_str().unwrap(), "--out", run];
    json(&[&train[..], &small].concat());
    std::fs::write(data.join("data_batch_2.bin"), batch(9)).unwrap();
    refused(&["train", "--resume", run, "--updates", "4"], &["SHA-256", "cifar"]);
    refused(&["eval", run], &["SHA-256"]);
    std::fs::remove_file(data.join("data_batch_2.bin")).unwrap();
    let moved = folder.path().join("moved");
    std::fs::rename(&data, &moved).unwrap();
    let there = ["--data", moved.to_str().unwrap()];
    json(&[&["eval", run], &there[..]].concat());
    json(&[&["train", "--resume", run, "--updates", "4"], &there[..]].concat());
    json(&["train", "--resume", run, "--updates", "5"]);
    let own = tempfile::tempdir().unwrap();
    let generated = patterns(own.path(), &[]);
    refused(&[&["eval", generated.to_str().unwrap()], &there[..]].concat(), &["--data"]);
}

#[test]
fn records_are_looked_at_before_they_are_cut() {
    let folder = tempfile::tempdir().unwrap();
    let run = patterns(folder.path(), &[]);
    let (path, metrics) = (run.to_str().unwrap(), run.join("metrics.jsonl"));
    let resume = |updates: &str| {
        hebbian(&["train", "--resume", path, "--updates", updates, "--device", "cpu", "--quiet"])
    };
    // other line ends: every record is still one
    let text = std::fs::read_to_string(&metrics).unwrap();
    std::fs::write(&metrics, text.replace('\n', "\r\n")).unwrap();
    assert_eq!(resume("14").status.code(), Some(0));
    assert_eq!(updates(&run), (1..=14).collect::<Vec<_>>());
    // a record that is none, and records that are missing
    let good = std::fs::read(&metrics).unwrap();
    let cut = good.len() / 2;
    let lines: Vec<&[u8]> = good.split_inclusive(|&byte| byte == b'\n').collect();
    let without = [&lines[..4], &lines[6..]].concat().concat();
    for bad in [&good[..cut], &[&good[..cut], &good[cut + 9..]].concat(), &without[..]] {
        std::fs::write(&metrics, bad).unwrap();
        let answer = resume("16");
        assert_eq!(answer.status.code(), Some(2), "{}", words(&answer));
        assert!(words(&answer).contains("nothing was changed"), "{}", words(&answer));
        assert_eq!(std::fs::read(&metrics).unwrap(), bad);
    }
    // a last record without its end: the next one has a line of its own
    std::fs::write(&metrics, &good[..good.len() - 1]).unwrap();
    assert_eq!(resume("15").status.code(), Some(0));
    assert_eq!(updates(&run), (1..=15).collect::<Vec<_>>());
    // none at all: the checkpoint still serves, also where later records are all there are
    std::fs::remove_file(&metrics).unwrap();
    assert_eq!(resume("16").status.code(), Some(0));
    assert_eq!(updates(&run), [16]);
    std::fs::remove_file(run.join("checkpoints/update-16.safetensors")).unwrap();
    assert_eq!(resume("16").status.code(), Some(0));
    assert_eq!(updates(&run), [16]);
    // records, but no checkpoint
    for entry in std::fs::read_dir(run.join("checkpoints")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let answer = resume("18");
    assert_eq!(answer.status.code(), Some(2), "{}", words(&answer));
    assert_eq!(updates(&run), [16]);
}

#[test]
fn a_rollback_is_told_in_every_record_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let run = out.to_str().unwrap();
    // a rate that overflows at once, until it was halved some times
    let sets = [
        "task.bits=20",
        "optimiser.name=sgd",
        "schedule.rate=1e38",
        "divergence.policy=rollback",
        "divergence.factor=1e-38",
        "checkpoint.seconds=0",
    ];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let train = ["train", "patterns", "--updates", "4", "--device", "cpu", "--out", run];
    let answer = hebbian(&[&train[..], &sets].concat());
    assert_eq!(answer.status.code(), Some(0), "{}", words(&answer));
    assert!(words(&answer).contains("back to update 0"), "{}", words(&answer));
    let metrics = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    assert_eq!(first["rollbacks"][0]["to"], 0, "{first}");
    assert_eq!(metrics.matches("rollbacks").count(), 1, "told once");
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("<h2>Rollbacks</h2>"));
    let events = std::fs::read(out.join("events.out.tfevents.hebbian")).unwrap();
    assert!(events.windows(9).any(|word| word == b"rollbacks"));
}

#[test]
fn parameters_of_any_checkpoint_can_be_scored_and_every_start_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let out = patterns(folder.path(), &["--set", "checkpoint.updates=5"]);
    let run = out.to_str().unwrap();
    let error = |moment: &str| json(&["eval", run, "--update", moment])["error"].clone();
    assert_eq!(error("last"), error("final"), "the last is the end");
    assert_eq!(error("12"), error("final"));
    assert!(error("best").is_number());
    refused(&["eval", run, "--update", "7"], &["update-7"]);
    refused(&["eval", run, "--update", "first"], &["final, last, best"]);
    std::fs::remove_file(out.join("checkpoints/final.safetensors")).unwrap();
    refused(&["eval", run], &["--update last"]);
    assert!(error("last").is_number(), "a run that was killed");
    json(&["train", "--resume", run, "--updates", "13"]);
    let text = std::fs::read(out.join("environment.json")).unwrap();
    let environment: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let starts = environment["starts"].as_array().unwrap();
    assert_eq!(starts.len(), 2);
    assert!(starts[1]["command"].as_str().unwrap().contains("--resume"), "{environment}");
    assert!(starts[0]["date"].as_str().unwrap().starts_with("20"), "{environment}");
}

#[test]
fn a_job_that_is_queued_again_goes_on_with_its_own_run_only() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let run = out.to_str().unwrap();
    let train = |bits: &str, updates: &str, threads: &str| {
        let set = format!("task.bits={bits}");
        let train = ["train", "patterns", "--set", &set, "--updates", updates, "--device", "cpu"];
        hebbian(&[&train[..], &["--or-resume", "--threads", threads, "--out", run]].concat())
    };
    for wanted in ["5", "9", "9"] {
        let answer = train("20", wanted, "1");
        assert_eq!(answer.status.code(), Some(0), "{}", words(&answer));
        assert_eq!(updates(&out), (1..=wanted.parse().unwrap()).collect::<Vec<_>>());
    }
    let answer = train("22", "9", "1");
    assert_eq!(answer.status.code(), Some(2), "{}", words(&answer));
    assert!(words(&answer).contains("other settings"), "{}", words(&answer));
    let answer = train("20", "11", "2");
    assert!(words(&answer).contains("it was on cpu, 1 threads"), "{}", words(&answer));
}

#[test]
fn settings_that_f32_cannot_hold_and_faults_of_toml_are_refused_with_their_place() {
    for epsilon in ["0", "1e-50", "-1", "1e39"] {
        let set = format!("optimiser.epsilon={epsilon}");
        refused(&["train", "patterns", "--set", &set, "--print-config"], &["epsilon"]);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, "seed = 1\n\n[task]\npatterns = = 2\n").unwrap();
    let file = path.to_str().unwrap();
    refused(&["train", "patterns", "--config", file, "--print-config"], &["line 4, column 12"]);
}

#[test]
fn an_unknown_instruction_set_and_no_threads_are_refused() {
    let with = |value: &str| {
        let small = ["train", "patterns", "--set", "task.bits=20", "--updates", "1", "--quiet"];
        let folder = tempfile::tempdir().unwrap();
        Command::new(env!("CARGO_BIN_EXE_hebbian"))
            .args(small)
            .args(["--device", "cpu", "--out"])
            .arg(folder.path().join("run"))
            .env("HEBBIAN_SIMD", value)
            .output()
            .unwrap()
    };
    let answer = with("avx3");
    assert_eq!(answer.status.code(), Some(2), "{}", words(&answer));
    assert!(words(&answer).contains("HEBBIAN_SIMD"), "{}", words(&answer));
    assert_eq!(with("scalar").status.code(), Some(0));
    let many = hebbian(&["devices", "--threads", "3"]);
    assert!(String::from_utf8_lossy(&many.stdout).contains("3 threads"), "{many:?}");
    refused(&["devices", "--threads", "0"], &["--threads"]);
    let one = hebbian(&["devices", "--threads", "1"]);
    assert!(String::from_utf8_lossy(&one.stdout).contains("1 threads"), "{one:?}");
}

#[cfg(unix)]
mod unix {
    use super::*;

    /// Starts a long training, with flags, from a shell's words.
    fn start(out: &Path, before: &str, flags: &str) -> std::process::Child {
        let program = env!("CARGO_BIN_EXE_hebbian");
        let line = format!(
            "{before} exec {program} train patterns --updates 100000 --device cpu {flags} --out '{}'",
            out.display()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &line]).stderr(Stdio::piped()).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        let begun = Instant::now();
        let metrics = out.join("metrics.jsonl");
        while std::fs::metadata(&metrics).map_or(0, |m| m.len()) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "training did not begin");
            std::thread::sleep(Duration::from_millis(20));
        }
        child
    }

    fn send(child: &std::process::Child, signal: &str) {
        let id = child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    #[test]
    fn signals_save_once_end_at_once_the_second_time_and_stay_ignored() {
        for signal in ["-USR1", "-XCPU", "-TERM"] {
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("my run");
            let child = start(&out, "", "");
            send(&child, signal);
            let answer = child.wait_with_output().unwrap();
            assert_eq!(answer.status.code(), Some(75), "{signal}: {}", words(&answer));
            assert!(out.join("checkpoints/final.safetensors").is_file());
            let quoted = format!("hebbian train --resume '{}'", out.display());
            assert!(words(&answer).contains(&quoted), "{}", words(&answer));
        }
        // two at once are one request, as `timeout` makes it
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let mut child = start(&out, "", "");
        send(&child, "-TERM");
        send(&child, "-TERM");
        assert_eq!(child.wait().unwrap().code(), Some(75));
        assert!(out.join("checkpoints/final.safetensors").is_file());
        // a second one, while an update still takes long
        let folder = tempfile::tempdir().unwrap();
        let mut child =
            start(&folder.path().join("run"), "", "--preset paper --batch 256 --threads 1");
        send(&child, "-TERM");
        std::thread::sleep(Duration::from_millis(1400));
        send(&child, "-TERM");
        assert_eq!(child.wait().unwrap().code(), Some(143), "at once");
        // nohup
        let folder = tempfile::tempdir().unwrap();
        let mut child = start(&folder.path().join("run"), "trap '' HUP;", "");
        send(&child, "-HUP");
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!(child.try_wait().unwrap(), None, "it goes on");
        send(&child, "-TERM");
        assert_eq!(child.wait().unwrap().code(), Some(75));
    }

    #[test]
    fn files_follow_the_umask_and_keep_the_mode_they_had() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let (program, run) = (env!("CARGO_BIN_EXE_hebbian"), out.display());
        let line = format!(
            "umask 077; {program} train patterns --set task.bits=20 --updates 2 --device cpu \
             --quiet --out {run}; umask 022; chmod 640 {run}/report.html; {program} train \
             --resume {run} --updates 3 --quiet"
        );
        let answer = Command::new("sh").args(["-c", &line]).output().unwrap();
        assert!(answer.status.success(), "{}", words(&answer));
        let mode =
            |name: &str| std::fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("config.toml"), 0o600, "as the umask asks");
        assert_eq!(mode("report.html"), 0o640, "as it was");
        assert_eq!(mode("checkpoints/update-3.safetensors"), 0o644, "new under another umask");
    }

    #[test]
    fn what_drivers_print_is_not_our_error() {
        for arguments in
            [&["devices"][..], &["bench", "--neurons", "5", "--steps", "3", "--device", "gpu"]]
        {
            let program = env!("CARGO_BIN_EXE_hebbian");
            let answer =
                Command::new(program).args(arguments).env_remove("XDG_RUNTIME_DIR").output();
            let answer = answer.unwrap();
            assert_eq!(answer.status.code(), Some(0), "{}", words(&answer));
            assert!(!words(&answer).contains("XDG_RUNTIME_DIR"), "{}", words(&answer));
        }
    }

    #[test]
    fn a_job_that_fits_in_blocks_is_put_in_blocks() {
        let plan = |limit: &str| {
            let line = format!(
                "{limit} exec {} bench --neurons 201 --steps 6000 --updates 1 --device cpu --json",
                env!("CARGO_BIN_EXE_hebbian"),
            );
            let answer = Command::new("sh").args(["-c", &line]).output().unwrap();
            assert_eq!(answer.status.code(), Some(0), "{}", words(&answer));
            let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
            answer["plan"].as_str().unwrap().to_string()
        };
        assert!(!plan("").contains("blocks"), "all traces are kept where there is room");
        assert!(plan("ulimit -v 550000;").contains("blocks"), "{}", plan("ulimit -v 550000;"));
    }

    /// The general plan keeps about 2 sqrt(T) traces for a backward pass.
    #[test]
    fn a_rule_of_ones_own_is_refused_where_its_steps_do_not_fit() {
        let folder = tempfile::tempdir().unwrap();
        let rule = folder.path().join("rule.toml");
        std::fs::write(&rule, "name = \"a\"\n[trace]\nH = \"0.9 * H + x * y\"\n").unwrap();
        let line = |neurons: u32, steps: u32| {
            let line = format!(
                "ulimit -v 900000; exec {} bench --neurons {neurons} --steps {steps} --batch 1 \
                 --updates 1 --device cpu --json --quiet --rule {}",
                env!("CARGO_BIN_EXE_hebbian"),
                rule.display()
            );
            Command::new("sh").args(["-c", &line]).output().unwrap()
        };
        // every step would take 160 MB
        let answer = line(101, 4000);
        assert_eq!(answer.status.code(), Some(0), "{}", words(&answer));
        let found: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
        assert!(found["peak_memory_bytes"].as_u64().unwrap() < 60 << 20, "{found}");
        let answer = line(1001, 20_000);
        assert_eq!(answer.status.code(), Some(3), "{}", words(&answer));
        assert!(words(&answer).contains("available"), "{}", words(&answer));
    }

    #[test]
    fn too_little_address_space_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let line = format!(
            "ulimit -v 300000; exec {} train patterns --preset paper --batch 4 --updates 1 --out \
             {}/run --device cpu --quiet",
            env!("CARGO_BIN_EXE_hebbian"),
            folder.path().display()
        );
        let answer = Command::new("sh").args(["-c", &line]).output().unwrap();
        assert_eq!(answer.status.code(), Some(3), "{}", words(&answer));
        assert!(words(&answer).contains("available"), "{}", words(&answer));
    }
}
