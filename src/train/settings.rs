//! What every setting means: one source for `--print-config`, the man page and the docs.

use std::fmt::Write;

use toml::{Table, Value};

use crate::train::config::{EVOLVED, TASKS, preset_names, resolve, resolve_evolution};

/// Key, meaning with unit and range. A key of a table stands after a dot.
const SETTINGS: [(&str, &str); 80] = [
    ("seed", "every random number follows from it; a whole number"),
    ("networks", "P, independent networks trained side by side; at least 1"),
    (
        "batch",
        "B, episodes per network and update; at least 1, of a case 0: all that are trained on",
    ),
    ("updates", "updates of the optimiser; at least 1"),
    ("log_every", "a record in metrics.jsonl every so many updates; at least 1"),
    ("eval_every", "held-out episodes are scored every so many updates; 0: at the end only"),
    ("eval_episodes", "held-out episodes per network; at least 1"),
    ("device", "auto (the best hardware GPU, else the CPU), cpu, gpu or gpu:INDEX"),
    ("plan", "how a GPU lays out its work: auto, resident or streamed"),
    ("traces", "how a GPU stores traces: f32, or f16 in half the memory"),
    ("first_network", "the number of the first network among all that the seed makes"),
    ("init", "a safetensors file whose tensors training starts from; empty: the task's own start"),
    ("init_sha256", "SHA-256 of that file; filled in"),
    (
        "network.rule",
        "plasticity rule: a name of `hebbian rule list`, or a file with a rule's text",
    ),
    ("network.rule_text", "the text of a rule that does not come with the program; filled in"),
    ("network.activation", "tanh, sigmoid, relu, linear, softmax, softplus or gelu"),
    ("network.alpha", "alpha is one a connection, neuron or network"),
    ("network.eta_per", "eta is one a neuron or network"),
    ("network.eta", "initial plasticity rate, per step"),
    ("network.spread", "standard deviation of the initial w and alpha, or the end of their range"),
    ("network.start", "how w and alpha are drawn: normal, or uniform from 0 on"),
    ("network.clip", "bound on the trace H; 0: none"),
    ("network.bias", "a trained bias: none, or one a neuron or network"),
    ("network.leak", "how neurons leak: none, rate or membrane"),
    ("network.leak_per", "the leak is one a neuron or network"),
    ("network.leak_rate", "initial leak, above 0 and at most 1, which forgets at once"),
    ("network.extra", "neurons beyond those of the task, which are shown nothing"),
    ("network.frozen", "tensors that training leaves as they are, such as [\"w\", \"eta\"]"),
    ("task.name", "patterns, images, omniglot, maze, cue-reward, copy or custom"),
    ("task.neurons", "N, neurons of the plastic layer; at least 1"),
    ("task.size", "cells along a side of the maze, walls included; an odd number from 5 on"),
    ("task.steps", "T, steps of an episode; at least 1, with cues 5"),
    ("task.wall_penalty", "what running into a wall costs; the reward is 10"),
    ("task.cues", "cues an episode, one of which is the target; at least 2"),
    ("task.fixed", "whether all episodes share their cues: true or false"),
    ("task.blanks", "the most blank steps that a trial of five steps has beside"),
    ("task.length", "vectors of a sequence; at least 1"),
    ("task.delay", "blank steps between the sequence and its answer"),
    ("task.objective.discount", "weight of a reward a step later; 0 to 1"),
    ("task.objective.value", "weight of the squared error of the value"),
    ("task.objective.concentration", "weight of the sum of squared probabilities of actions"),
    ("task.patterns", "patterns an episode; at least 1"),
    (
        "task.bits",
        "bits a pattern (an even number; the network has one neuron more), a cue or a vector",
    ),
    ("task.images", "images an episode; at least 1"),
    (
        "task.side",
        "pixels along a side: of images even, with CIFAR-10 a divisor of 32; of drawings from 31",
    ),
    (
        "task.data",
        "a folder with CIFAR-10 in its binary layout, or with Omniglot's zip files; empty: generated",
    ),
    ("task.ways", "characters an episode; at least 2"),
    ("task.shots", "labelled drawings of each; at least 1"),
    ("task.held_out_classes", "characters that are never trained on, the same for every seed"),
    ("task.rotations", "characters are turned by quarters: episode (at random), class or none"),
    ("task.inverted", "whether ink is 1 and paper 0, else the other way: true or false"),
    ("task.channels", "maps of every convolution"),
    ("task.sha256", "SHA-256 of the data; filled in, other data are refused"),
    ("task.cycles", "how often every stimulus is shown; at least 1"),
    ("task.shown", "steps that a stimulus is shown for; at least 1"),
    ("task.blank", "blank steps after each"),
    ("task.test", "steps that the degraded stimulus is shown for at the end; at least 1"),
    ("task.gain", "current that a bit feeds its neuron; not 0"),
    ("task.case", "a case file, or a folder of them"),
    ("task.held_out", "episodes scored and never trained on: a share, or a case file; empty: none"),
    ("task.held_out_sha256", "SHA-256 of that file; filled in"),
    ("task.init", "w and alpha of a case: file (its own) or random (as wide as its own)"),
    ("optimiser.name", "adam or sgd"),
    ("optimiser.beta1", "Adam's decay of the mean gradient; 0 to below 1"),
    ("optimiser.beta2", "Adam's decay of the mean square; 0 to below 1"),
    ("optimiser.epsilon", "added to the root of the mean square; above 1.2e-38"),
    ("optimiser.momentum", "of sgd; 0 to below 1"),
    ("schedule.rate", "learning rate of the first update"),
    ("schedule.decay", "the learning rate is multiplied by this ..."),
    ("schedule.every", "... every so many updates; at least 1"),
    ("schedule.max_norm", "a network's gradient is scaled down to this norm; 0: never"),
    ("checkpoint.updates", "a checkpoint every so many updates; 0: by time only"),
    ("checkpoint.seconds", "a checkpoint every so many seconds; 0: by updates only"),
    ("divergence.policy", "when numbers stop being finite: stop, or rollback"),
    ("divergence.factor", "each rollback multiplies the learning rate by this; 0 to below 1"),
    ("divergence.tries", "rollbacks after which the run stops"),
    ("evolution.members", "networks of a generation; an even number, each has its opposite"),
    ("evolution.noise", "sigma, how far a member's numbers are from the network's; above 0"),
    ("evolution.weight_decay", "times a trained number, added to its gradient"),
    (
        "evolution.at_once",
        "members that run at a time, whatever the result; 0: as many as suit the caches of a CPU",
    ),
];

/// What a setting means; nothing for an unknown key.
fn meaning(key: &str) -> Option<&'static str> {
    SETTINGS.iter().find(|(known, _)| *known == key).map(|(_, meaning)| *meaning)
}

/// Settings as TOML with a comment above every one.
#[must_use]
pub fn commented(toml: &str) -> String {
    let mut out = String::new();
    let (mut table, mut inside) = (String::new(), false);
    for line in toml.lines() {
        let name = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let (Some(name), false) = (name, inside) {
            table = format!("{name}.");
        }
        if let (Some((key, value)), false) = (line.split_once(" = "), inside) {
            if let Some(meaning) = meaning(&format!("{table}{key}")) {
                let _ = writeln!(out, "# {meaning}");
            }
            inside = value.matches("\"\"\"").count() == 1;
        } else if line.contains("\"\"\"") {
            inside = false;
        }
        let _ = writeln!(out, "{line}");
    }
    out
}

/// The reference of all settings: meaning and the default of each task.
#[must_use]
pub fn reference() -> String {
    let defaults: Vec<Table> = TASKS
        .iter()
        .map(|task| {
            let preset = Some(preset_names(task)[0]);
            let config = resolve(task, preset, None, &[], Table::new());
            let mut config = config.expect("a preset resolves");
            if EVOLVED.contains(task) {
                let evolved = resolve_evolution(task, preset, None, &[], Table::new());
                config.evolution = evolved.expect("a preset resolves").evolution;
            }
            Table::try_from(&config).expect("a configuration is a table")
        })
        .collect();
    let mut out = String::from(
        "# Settings\n\nA run's settings are `config.toml` in its folder. `--set KEY=VALUE` changes one, \
         `--config FILE.toml` some, and `hebbian train TASK --print-config` prints all. A preset comes \
         first, then the file, then `--set`, then the flags. `hebbian evolve TASK` has settings of its \
         own: `batch`, `updates`, `optimiser`, `schedule` and `evolution`.\n\n| key | meaning |",
    );
    TASKS.iter().for_each(|task| out += &format!(" {task} |"));
    out += &format!("\n| --- | --- |{}\n", " --- |".repeat(TASKS.len()));
    for (key, meaning) in SETTINGS {
        let value = |table: &Table| {
            let mut at: Option<&Value> = None;
            for part in key.split('.') {
                at = match at {
                    None => table.get(part),
                    Some(value) => value.get(part),
                };
                at?;
            }
            at.map(|value| format!("`{value}`"))
        };
        let values: Vec<String> =
            defaults.iter().map(|table| value(table).unwrap_or_else(|| "-".into())).collect();
        let _ = writeln!(out, "| `{key}` | {meaning} | {} |", values.join(" | "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Resolve;

    fn keys(table: &Table, path: &str, out: &mut Vec<String>) {
        for (key, value) in table {
            match value {
                Value::Table(inner) => keys(inner, &format!("{path}{key}."), out),
                _ => out.push(format!("{path}{key}")),
            }
        }
    }

    #[test]
    fn every_setting_has_its_meaning_and_nothing_else_has() {
        let mut found = Vec::new();
        let other = ("patterns", vec!["optimiser.name=sgd".to_string()]);
        for (task, sets) in TASKS.map(|task| (task, vec![])).into_iter().chain([other]) {
            let evolved = EVOLVED.contains(&task);
            let resolve: Resolve = if evolved { resolve_evolution } else { resolve };
            let config = resolve(task, None, None, &sets, Table::new()).unwrap();
            keys(&Table::try_from(&config).unwrap(), "", &mut found);
        }
        found.sort();
        found.dedup();
        let mut known: Vec<String> = SETTINGS.iter().map(|(key, _)| (*key).into()).collect();
        known.sort();
        assert_eq!(found, known);
    }

    #[test]
    fn a_commented_configuration_is_that_configuration() {
        let config = resolve("patterns", None, None, &[], Table::new()).unwrap();
        let text = commented(&config.to_toml());
        assert_eq!(crate::train::Config::parse(&text).unwrap(), config);
        let comments = text.lines().filter(|line| line.starts_with("# ")).count();
        let values =
            text.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count();
        assert_eq!(comments, values);
    }

    #[test]
    fn the_docs_hold_the_reference() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
        let held = std::fs::read_to_string(path).unwrap_or_default();
        assert!(held == reference(), "write it anew: hebbian settings > docs/settings.md");
    }
}
