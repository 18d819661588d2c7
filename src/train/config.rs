//! What a run does: presets, files, `--set` and flags, each over the one before.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::case::Case;
use crate::drive::{CueRewardConfig, MazeConfig};
use crate::error::{Error, Result, one_of};
use crate::files;
use crate::model::{Optimiser, Parameters, Schedule};
use crate::task::{
    Copy, CopyConfig, Custom, Images, ImagesConfig, NetworkConfig, Omniglot, OmniglotConfig,
    Patterns, PatternsConfig, Rewarded, Start, Task,
};
use crate::train::{EvolutionConfig, start_from};

/// A fully resolved run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Every random number of the run follows from it.
    pub seed: u64,
    /// P, independent networks trained side by side.
    pub networks: usize,
    /// B, episodes per network and update.
    pub batch: usize,
    /// Updates of the optimiser.
    pub updates: u64,
    /// A record in `metrics.jsonl` every so many updates.
    pub log_every: u64,
    /// Held-out episodes are scored every so many updates; 0: only at the end.
    pub eval_every: u64,
    /// Held-out episodes per network.
    pub eval_episodes: usize,
    /// auto, cpu, gpu or gpu:INDEX.
    pub device: String,
    /// How a GPU lays out its work: auto, resident or streamed.
    pub plan: String,
    /// How a GPU stores traces: f32 or f16.
    pub traces: String,
    /// The number of the first network among all that the seed makes: 8 and `networks` = 8 train
    /// networks 8 to 15 of as many as there may be.
    pub first_network: u32,
    /// A file whose tensors w, alpha, eta, ... training starts from, whatever wrote it: a case, a
    /// checkpoint, one's own; empty: the task's own start.
    pub init: PathBuf,
    /// SHA-256 of that file.
    pub init_sha256: String,
    /// What the networks are.
    pub network: NetworkConfig,
    /// The task and its numbers.
    pub task: TaskConfig,
    /// How parameters move.
    pub optimiser: Optimiser,
    /// How fast.
    pub schedule: Schedule,
    /// When all is saved.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    /// What to do when numbers stop being finite.
    #[serde(default)]
    pub divergence: DivergenceConfig,
    /// Gradients by evolution; none: by the backward pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evolution: Option<EvolutionConfig>,
}

/// When a run saves all it needs to go on; it also does at its start, its end and when it
/// is asked to stop. A process that is killed loses what it did since.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Every so many updates; 0: by time only.
    pub updates: u64,
    /// Every so many seconds; 0: by updates only.
    pub seconds: f64,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        CheckpointConfig { updates: 0, seconds: 60.0 }
    }
}

/// What to do when a loss, a gradient, a parameter or the trace is not finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DivergenceConfig {
    /// stop, or rollback: go on from the last checkpoint with a lower learning rate.
    pub policy: String,
    /// Each rollback multiplies the learning rate by this.
    pub factor: f64,
    /// Rollbacks after which the run stops.
    pub tries: u32,
}

/// Names of divergence policies.
const POLICIES: [&str; 2] = ["stop", "rollback"];

impl Default for DivergenceConfig {
    fn default() -> Self {
        DivergenceConfig { policy: POLICIES[0].into(), factor: 0.5, tries: 5 }
    }
}

impl DivergenceConfig {
    /// Whether a run may go back after `rollbacks` earlier times.
    #[must_use]
    pub fn goes_back(&self, rollbacks: u32) -> bool {
        self.policy == POLICIES[1] && rollbacks < self.tries
    }
}

/// A task and its numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum TaskConfig {
    /// Binary patterns.
    Patterns(PatternsConfig),
    /// Grey images.
    Images(ImagesConfig),
    /// One-shot classification.
    Omniglot(OmniglotConfig),
    /// A grid maze.
    Maze(MazeConfig),
    /// Cue-reward association.
    CueReward(CueRewardConfig),
    /// Copying over delays.
    Copy(CopyConfig),
    /// A case file.
    Custom(CustomConfig),
}

/// A case file as training data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomConfig {
    /// The case file, or a folder of case files whose episodes are taken together.
    pub case: PathBuf,
    /// SHA-256 of its bytes; empty before the run begins. Another file is refused.
    pub sha256: String,
    /// Episodes that are scored and never trained on: a share of the file's, drawn by the seed,
    /// or another case file of the same networks; empty: none.
    #[serde(default)]
    pub held_out: String,
    /// SHA-256 of that file.
    #[serde(default)]
    pub held_out_sha256: String,
    /// file: parameters start at the file's values, whatever the seed; random: w and alpha are
    /// drawn by the seed, as wide as the file's.
    #[serde(default)]
    pub init: Start,
}

impl CustomConfig {
    fn task(&mut self, case: Case<f32>, seed: u64) -> Result<Custom> {
        let task = Custom::new(case, self.init);
        if self.held_out.is_empty() {
            return Ok(task);
        }
        if let Ok(share) = self.held_out.parse() {
            return task.hold_out_share(share, seed);
        }
        let path = PathBuf::from(&self.held_out);
        let (other, found) = Case::read_all(&path)?;
        files::check_sha256(&path, &self.held_out_sha256, &found)?;
        self.held_out_sha256 = found;
        if let Some(path) = lasting(&path).to_str() {
            self.held_out = path.into();
        }
        task.hold_out(&path, other)
    }
}

impl TaskConfig {
    /// Where its data lie; none for a task that makes its own.
    #[must_use]
    pub fn data(&self) -> Option<&Path> {
        match self {
            TaskConfig::Custom(custom) => Some(&custom.case),
            TaskConfig::Images(ImagesConfig { data, .. })
            | TaskConfig::Omniglot(OmniglotConfig { data, .. })
                if !data.as_os_str().is_empty() =>
            {
                Some(data)
            }
            _ => None,
        }
    }

    /// Takes data that the task makes instead of given ones, where it can: its networks are the same.
    pub(crate) fn make_data(&mut self) {
        if let TaskConfig::Images(ImagesConfig { data, sha256, .. })
        | TaskConfig::Omniglot(OmniglotConfig { data, sha256, .. }) = self
        {
            *data = PathBuf::new();
            *sha256 = String::new();
        }
    }

    /// The file of its held-out episodes; none where there is none.
    #[must_use]
    pub fn held_out(&self) -> Option<&str> {
        match self {
            TaskConfig::Custom(custom) if !custom.held_out_sha256.is_empty() => {
                Some(&custom.held_out)
            }
            _ => None,
        }
    }

    /// Looks for that file there; it must be the one that it began with.
    pub fn find_held_out_at(&mut self, path: Option<&str>) {
        if let (TaskConfig::Custom(custom), Some(path)) = (self, path)
            && !custom.held_out_sha256.is_empty()
        {
            custom.held_out = path.into();
        }
    }

    /// The paths of its data.
    fn paths(&mut self) -> Vec<PathOf<'_>> {
        match self {
            TaskConfig::Custom(custom) => {
                let held_out = Some(&mut custom.held_out);
                let held_out = held_out.filter(|_| !custom.held_out_sha256.is_empty());
                let case = PathOf::Path(&mut custom.case);
                std::iter::once(case).chain(held_out.map(PathOf::Text)).collect()
            }
            TaskConfig::Images(ImagesConfig { data, .. })
            | TaskConfig::Omniglot(OmniglotConfig { data, .. }) => vec![PathOf::Path(data)],
            _ => Vec::new(),
        }
    }

    /// Looks for its data there, where it has any; they must be those that it began with.
    pub fn find_data_at(&mut self, path: Option<&Path>) {
        match (self, path) {
            (TaskConfig::Custom(custom), Some(path)) => custom.case = path.into(),
            (
                TaskConfig::Images(ImagesConfig { data, .. })
                | TaskConfig::Omniglot(OmniglotConfig { data, .. }),
                Some(path),
            ) if !data.as_os_str().is_empty() => *data = path.into(),
            _ => {}
        }
    }
}

/// A path among the settings.
enum PathOf<'a> {
    Path(&'a mut PathBuf),
    Text(&'a mut String),
}

impl PathOf<'_> {
    /// Changes a path that is not empty, where the new one is text.
    fn change(self, new: impl Fn(&Path) -> PathBuf) {
        let path = match &self {
            PathOf::Path(path) => path.to_path_buf(),
            PathOf::Text(text) => PathBuf::from(text.as_str()),
        };
        let changed = new(&path);
        match (self, changed.to_str()) {
            _ if path.as_os_str().is_empty() => {}
            (PathOf::Path(path), Some(_)) => *path = changed,
            (PathOf::Text(text), Some(new)) => *text = new.into(),
            _ => {}
        }
    }
}

/// `path` as seen from `folder`, both absolute: through the folders that they share, if they share
/// any but the root.
fn seen_from(folder: &Path, path: &Path) -> PathBuf {
    let (from, to): (Vec<_>, Vec<_>) = (folder.components().collect(), path.components().collect());
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    if shared < 2 {
        return path.into();
    }
    let up = std::iter::repeat_n(std::path::Component::ParentDir, from.len() - shared);
    up.chain(to[shared..].iter().copied()).collect()
}

/// The tasks.
pub const TASKS: [&str; 7] =
    ["patterns", "images", "omniglot", "maze", "cue-reward", "copy", "custom"];

/// The presets of a task, the default first.
#[must_use]
pub fn preset_names(task: &str) -> &'static [&'static str] {
    match task {
        "patterns" => &["quick", "paper", "small"],
        "images" | "cue-reward" | "copy" => &["quick", "paper"],
        "omniglot" => &["quick", "paper", "long"],
        "maze" => &["quick", "paper", "paper-2018"],
        _ => &["default"],
    }
}

/// The modulated networks of the tasks with rewards (2019): those of the paper start uniform.
fn reward_network(preset: &str, eta: f64) -> NetworkConfig {
    let own = NetworkConfig { rule: "modulated".into(), clip: 1.0, eta, ..NetworkConfig::paper() };
    match preset {
        "paper" => NetworkConfig { start: "uniform".into(), spread: 0.001, ..own },
        _ => own,
    }
}

fn preset(task: &str, preset: Option<&str>) -> Result<Config> {
    if !TASKS.contains(&task) {
        return Err(Error::value("task", format!("\"{task}\""), one_of(task, &TASKS)));
    }
    let known = preset_names(task);
    let name = preset.unwrap_or(known[0]);
    if !known.contains(&name) {
        return Err(Error::value("--preset", format!("\"{name}\""), one_of(name, known)));
    }
    let config = |task, batch, updates, schedule, eval_every| Config {
        seed: 0,
        networks: 1,
        batch,
        updates,
        log_every: 1,
        eval_every,
        eval_episodes: 100,
        device: "auto".into(),
        plan: "auto".into(),
        traces: "f32".into(),
        first_network: 0,
        init: PathBuf::new(),
        init_sha256: String::new(),
        network: match task {
            TaskConfig::Custom(_) => NetworkConfig::default(),
            _ => NetworkConfig::paper(),
        },
        task,
        optimiser: Optimiser::adam(),
        schedule,
        checkpoint: CheckpointConfig::default(),
        divergence: DivergenceConfig::default(),
        evolution: None,
    };
    let steady = |rate| Schedule { rate, decay: 1.0, every: 1, max_norm: 0.0 };
    let halving = |rate, every| Schedule { decay: 0.5, every, ..steady(rate) };
    Ok(match (task, name) {
        ("patterns", "paper") => {
            config(TaskConfig::Patterns(PatternsConfig::paper()), 1, 2000, steady(3e-4), 500)
        }
        ("patterns", "small") => {
            config(TaskConfig::Patterns(PatternsConfig::small()), 1, 4000, steady(3e-4), 0)
        }
        ("patterns", _) => {
            config(TaskConfig::Patterns(PatternsConfig::quick()), 16, 300, halving(1e-3, 100), 0)
        }
        ("images", "paper") => {
            config(TaskConfig::Images(ImagesConfig::paper()), 1, 100_000, steady(1e-4), 5000)
        }
        ("omniglot", "paper") => Config {
            network: NetworkConfig::omniglot(),
            ..config(
                TaskConfig::Omniglot(OmniglotConfig::paper()),
                1,
                5_000_000,
                Schedule { decay: 2.0 / 3.0, every: 1_000_000, ..steady(3e-5) },
                50_000,
            )
        },
        ("omniglot", name) => Config {
            network: NetworkConfig { eta: 0.5, spread: 0.1, ..NetworkConfig::omniglot() },
            ..match name {
                "long" => config(
                    TaskConfig::Omniglot(OmniglotConfig {
                        channels: 64,
                        ..OmniglotConfig::quick()
                    }),
                    32,
                    9000,
                    halving(1e-3, 4000),
                    1000,
                ),
                _ => config(
                    TaskConfig::Omniglot(OmniglotConfig::quick()),
                    32,
                    3000,
                    halving(1e-3, 1500),
                    0,
                ),
            }
        },
        ("maze", "paper-2018") => Config {
            network: NetworkConfig {
                rule: "oja".into(),
                start: "uniform".into(),
                ..NetworkConfig::paper()
            },
            optimiser: Optimiser::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-4 },
            ..config(
                TaskConfig::Maze(MazeConfig::paper_2018()),
                30,
                200_000,
                Schedule { max_norm: 4.0, ..steady(1e-4) },
                10_000,
            )
        },
        ("maze", name) => Config {
            network: reward_network(name, 0.01),
            optimiser: Optimiser::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-4 },
            ..match name {
                "paper" => config(
                    TaskConfig::Maze(MazeConfig::paper()),
                    30,
                    200_000,
                    Schedule { max_norm: 4.0, ..steady(1e-4) },
                    10_000,
                ),
                _ => config(
                    TaskConfig::Maze(MazeConfig::quick()),
                    30,
                    1500,
                    Schedule { max_norm: 4.0, ..halving(1e-3, 500) },
                    0,
                ),
            }
        },
        ("cue-reward", name) => Config {
            network: reward_network(name, 0.1),
            optimiser: Optimiser::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-6 },
            ..match name {
                "paper" => config(
                    TaskConfig::CueReward(CueRewardConfig::paper()),
                    30,
                    200_000,
                    Schedule { max_norm: 2.0, ..steady(1e-4) },
                    10_000,
                ),
                _ => config(
                    TaskConfig::CueReward(CueRewardConfig::quick()),
                    30,
                    6000,
                    Schedule { max_norm: 2.0, ..steady(1e-3) },
                    0,
                ),
            }
        },
        ("copy", name) => Config {
            network: NetworkConfig {
                rule: "modulated".into(),
                clip: 1.0,
                eta: 0.1,
                spread: 0.05,
                ..NetworkConfig::paper()
            },
            ..match name {
                "paper" => {
                    config(TaskConfig::Copy(CopyConfig::paper()), 64, 10_000, steady(1e-3), 500)
                }
                _ => config(TaskConfig::Copy(CopyConfig::quick()), 32, 1500, steady(2e-3), 100),
            }
        },
        ("images", _) => {
            config(TaskConfig::Images(ImagesConfig::quick()), 16, 2400, halving(1e-3, 800), 0)
        }
        _ => {
            let case = CustomConfig::default();
            config(TaskConfig::Custom(case), 0, 100, steady(1e-3), 0)
        }
    })
}

/// The configuration of a run of `task`: preset, then `file`, then `sets` (each
/// `a.b=value`), then `flags`.
///
/// # Errors
/// [`Error::Value`] naming an unknown task, preset or key, with the nearest known name.
pub fn resolve(
    task: &str,
    preset_name: Option<&str>,
    file: Option<Table>,
    sets: &[String],
    flags: Table,
) -> Result<Config> {
    layered(&preset(task, preset_name)?, file, sets, flags)
}

/// [`resolve`] or [`resolve_evolution`].
pub type Resolve = fn(&str, Option<&str>, Option<Table>, &[String], Table) -> Result<Config>;

/// The tasks that evolution trains.
pub const EVOLVED: [&str; 5] = ["patterns", "maze", "cue-reward", "copy", "custom"];

/// The configuration of a run of `task` by evolution, in the layers of [`resolve`].
///
/// # Errors
/// As [`resolve`]; a task that evolution does not train.
pub fn resolve_evolution(
    task: &str,
    preset_name: Option<&str>,
    file: Option<Table>,
    sets: &[String],
    flags: Table,
) -> Result<Config> {
    if !EVOLVED.contains(&task) {
        return Err(Error::value("task", format!("\"{task}\""), one_of(task, &EVOLVED)));
    }
    layered(&evolved(preset(task, preset_name)?), file, sets, flags)
}

/// A preset for evolution: fewer, larger updates, whose episodes every member plays.
fn evolved(config: Config) -> Config {
    let (noise, batch, rate) = match config.task {
        TaskConfig::Maze(_) | TaskConfig::CueReward(_) => (0.05, 16, 0.004),
        TaskConfig::Custom(_) => (0.01, config.batch, 0.003),
        _ => (0.01, 8, 0.003),
    };
    Config {
        batch,
        updates: 1000,
        optimiser: Optimiser::adam(),
        schedule: Schedule { rate, decay: 0.5, every: 400, max_norm: 0.0 },
        eval_every: 0,
        evolution: Some(EvolutionConfig { members: 256, noise, weight_decay: 0.0, at_once: 0 }),
        ..config
    }
}

/// A preset with a file, sets and flags over it.
fn layered(preset: &Config, file: Option<Table>, sets: &[String], flags: Table) -> Result<Config> {
    let mut table = Table::try_from(preset).expect("a preset is a table");
    if let Some(file) = file {
        merge(&mut table, file, "")?;
    }
    for set in sets {
        merge(&mut table, parse_set(set)?, "")?;
    }
    merge(&mut table, flags, "")?;
    let mut config = read(table)?;
    config.network.read_rule()?;
    Ok(config)
}

fn read(table: Table) -> Result<Config> {
    let config: Config = table.try_into().map_err(|e: toml::de::Error| {
        Error::value("configuration", e.message().to_string(), "a value of the right type")
    })?;
    config.validate()?;
    Ok(config)
}

/// Finds the data and the rule that a settings file in `folder` names: as seen from there, where it is there, as a
/// run's own file has it; else from the current folder.
pub fn find_from(table: &mut Table, folder: &Path) {
    let find = |value: &mut Value| {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            let path = folder.join(text);
            if let (true, Some(path)) = (path.exists(), path.to_str()) {
                *value = Value::String(path.into());
            }
        }
    };
    table.get_mut("init").map(find);
    if let Some(Value::Table(task)) = table.get_mut("task") {
        for key in ["case", "data", "held_out"] {
            task.get_mut(key).map(find);
        }
    }
    if let Some(Value::Table(network)) = table.get_mut("network") {
        // a name is no file
        let is_file = |value: &&mut Value| value.as_str().is_some_and(|v| v.ends_with(".toml"));
        network.get_mut("rule").filter(is_file).map(find);
    }
}

/// `a.b=value` as a table. A value that is no TOML is taken as a string.
fn parse_set(set: &str) -> Result<Table> {
    let Some((key, text)) = set.split_once('=') else {
        return Err(Error::value(
            "--set",
            format!("\"{set}\""),
            "KEY=VALUE, such as task.bits=100",
        ));
    };
    let text = text.trim();
    let value = format!("value = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.into()));
    let value = key
        .trim()
        .rsplit('.')
        .fold(value, |value, part| Value::Table(Table::from_iter([(part.to_string(), value)])));
    match value {
        Value::Table(table) => Ok(table),
        _ => unreachable!("a key has at least one part"),
    }
}

/// Settings that are filled in for another one, and mean nothing beside another value of it.
const FILLED_IN: [(&str, &str); 5] = [
    ("rule", "rule_text"),
    ("init", "init_sha256"),
    ("case", "sha256"),
    ("data", "sha256"),
    ("held_out", "held_out_sha256"),
];

/// Puts the values of `over` into `base`, whose keys are all there are.
fn merge(base: &mut Table, over: Table, path: &str) -> Result<()> {
    for (key, filled_in) in FILLED_IN {
        let changed = over.contains_key(key) && !over.contains_key(filled_in);
        if let (true, Some(value)) = (changed, base.get_mut(filled_in)) {
            *value = Value::String(String::new());
        }
    }
    for (key, value) in over {
        let name = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if name == "optimiser"
            && let Some(other) = other_optimiser(&base[&key], &value)?
        {
            base.insert(key.clone(), other);
        }
        let known: Vec<&str> = base.keys().map(String::as_str).collect();
        let wanted = one_of(&key, &known);
        match (base.get_mut(&key), value) {
            (None, _) => return Err(Error::value(&name, "an unknown key", wanted)),
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over, &name)?,
            (Some(Value::Float(base)), Value::Integer(over)) => {
                #[expect(clippy::cast_precision_loss, reason = "settings are small")]
                {
                    *base = over as f64;
                }
            }
            (Some(Value::Integer(_)), Value::Integer(over)) if over < 0 => {
                return Err(Error::value(&name, over.to_string(), "0 or more"));
            }
            (Some(base), over) if base.same_type(&over) => {
                if name == "task.name" && *base != over {
                    return Err(Error::value(&name, over.to_string(), base.to_string()));
                }
                *base = over;
            }
            (Some(base), over) => {
                let wanted = format!("{} such as {base}", base.type_str());
                return Err(Error::value(&name, over.to_string(), wanted));
            }
        }
    }
    Ok(())
}

/// The defaults of another optimiser, if `over` asks for one.
fn other_optimiser(base: &Value, over: &Value) -> Result<Option<Value>> {
    let Some(name) = over.get("name").and_then(Value::as_str) else { return Ok(None) };
    if base.get("name").and_then(Value::as_str) == Some(name) {
        return Ok(None);
    }
    let other = match name {
        "adam" => Optimiser::adam(),
        "sgd" => Optimiser::Sgd { momentum: 0.9 },
        _ => {
            let wanted = one_of(name, &["adam", "sgd"]);
            return Err(Error::value("optimiser.name", format!("\"{name}\""), wanted));
        }
    };
    Ok(Some(Value::try_from(other).expect("an optimiser is a table")))
}

impl Config {
    /// Reads a `config.toml`.
    ///
    /// # Errors
    /// [`Error::Value`] for what does not fit.
    pub fn parse(text: &str) -> Result<Self> {
        read(parse_table(text)?)
    }

    /// These settings as a file in `folder` keeps them: paths as seen from there, so that a run moves
    /// with its data.
    #[must_use]
    pub(super) fn as_seen_from(&self, folder: &Path) -> Self {
        let folder = lasting(folder);
        self.with_paths(|path| seen_from(&folder, path))
    }

    /// The settings that a file in `folder` keeps.
    #[must_use]
    pub(super) fn kept_in(&self, folder: &Path) -> Self {
        let folder = lasting(folder);
        self.with_paths(|path| lasting(&folder.join(path)))
    }

    fn with_paths(&self, new: impl Fn(&Path) -> PathBuf) -> Self {
        let mut config = self.clone();
        config.task.paths().into_iter().for_each(|path| path.change(&new));
        PathOf::Path(&mut config.init).change(&new);
        config
    }

    /// The configuration as TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a configuration is a table")
    }

    /// The task with this configuration; reads its case file, and fills in what follows
    /// from it.
    ///
    /// # Errors
    /// Numbers that make no sense, a case file that cannot be read.
    pub fn task(&mut self) -> Result<Box<dyn Task>> {
        match &mut self.task {
            TaskConfig::Patterns(patterns) => Ok(Box::new(Patterns::new(
                patterns,
                &self.network,
                self.networks,
                self.first_network,
            )?)),
            TaskConfig::Omniglot(omniglot) => {
                let (networks, first) = (self.networks, self.first_network);
                let task = Omniglot::new(omniglot, &self.network, networks, first)?;
                if !omniglot.data.as_os_str().is_empty() {
                    omniglot.data = lasting(&omniglot.data);
                    omniglot.sha256 = task.sha256().into();
                }
                Ok(Box::new(task))
            }
            TaskConfig::Maze(maze) => {
                let (networks, first) = (self.networks, self.first_network);
                Ok(Box::new(Rewarded::maze(maze, &self.network, networks, first)?))
            }
            TaskConfig::CueReward(cues) => {
                let (networks, first) = (self.networks, self.first_network);
                Ok(Box::new(Rewarded::cue_reward(cues, &self.network, networks, first)?))
            }
            TaskConfig::Copy(copy) => {
                let (networks, first) = (self.networks, self.first_network);
                Ok(Box::new(Copy::new(copy, &self.network, networks, first)?))
            }
            TaskConfig::Images(images) => {
                let task = Images::new(images, &self.network, self.networks, self.first_network)?;
                if !images.data.as_os_str().is_empty() {
                    images.data = lasting(&images.data);
                    images.sha256 = task.sha256().into();
                }
                Ok(Box::new(task))
            }
            TaskConfig::Custom(custom) => {
                if custom.case.as_os_str().is_empty() {
                    return Err(Error::value("--case", "nothing", "a case file to train on"));
                }
                let (mut case, found) = Case::read_all(&custom.case)?;
                files::check_sha256(&custom.case, &custom.sha256, &found)?;
                custom.sha256 = found;
                let (given, held) = (self.networks, case.network.n_networks);
                if given != held && given != 1 {
                    let wanted = format!("{held}, as the case file holds");
                    return Err(Error::value("networks", given.to_string(), wanted));
                }
                if self.first_network > 0 {
                    let wanted = "0: a case file holds all of its networks";
                    let found = self.first_network.to_string();
                    return Err(Error::value("first_network", found, wanted));
                }
                self.networks = held;
                self.network.agree(&case.network)?;
                self.network.freeze(&mut case.network)?;
                custom.case = lasting(&custom.case);
                let task = custom.task(case, self.seed)?;
                let n = task.n_training();
                if self.batch == 0 {
                    self.batch = n;
                }
                if self.batch > n {
                    let wanted = format!("at most {n}, the episodes that the case file trains on");
                    return Err(Error::value("batch", self.batch.to_string(), wanted));
                }
                if self.eval_every > 0 && task.own_episodes().is_some() {
                    let wanted = "0, for nothing is held out (task.held_out, --held-out)";
                    return Err(Error::value("eval_every", self.eval_every.to_string(), wanted));
                }
                Ok(Box::new(task))
            }
        }
    }

    /// The parameters that training starts from: the task's, or those of [`Config::init`].
    ///
    /// # Errors
    /// As [`start_from`](crate::train::start_from); a file that is not the one that the run began with.
    pub fn initial(&mut self, task: &dyn Task) -> Result<Parameters<f32>> {
        let mut parameters = task.initial(self.seed);
        if !self.init.as_os_str().is_empty() {
            let bytes = files::read(&self.init)?;
            let found = files::sha256([&bytes[..]]);
            files::check_sha256(&self.init, &self.init_sha256, &found)?;
            start_from(&self.init, &bytes, &task.network(), &mut parameters)?;
            self.init = lasting(&self.init);
            self.init_sha256 = found;
        }
        Ok(parameters)
    }

    fn validate(&self) -> Result<()> {
        let whole_file = matches!(self.task, TaskConfig::Custom(_));
        for (key, value, allowed) in [
            ("networks", self.networks as u64, false),
            ("batch", self.batch as u64, whole_file),
            ("updates", self.updates, false),
            ("log_every", self.log_every, false),
            ("eval_episodes", self.eval_episodes as u64, false),
            ("schedule.every", self.schedule.every, false),
        ] {
            if value == 0 && !allowed {
                return Err(Error::value(key, "0", "at least 1"));
            }
        }
        for (key, value) in [
            ("schedule.rate", self.schedule.rate),
            ("schedule.decay", self.schedule.decay),
            ("schedule.max_norm", self.schedule.max_norm),
            ("checkpoint.seconds", self.checkpoint.seconds),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::value(key, value.to_string(), "a number of at least 0"));
            }
        }
        let below_one = |key, value: f64| {
            if (0.0..1.0).contains(&value) {
                Ok(())
            } else {
                Err(Error::value(key, value.to_string(), "a number from 0 to below 1"))
            }
        };
        let policy = &self.divergence.policy;
        if !POLICIES.contains(&policy.as_str()) {
            let wanted = one_of(policy, &POLICIES);
            return Err(Error::value("divergence.policy", format!("\"{policy}\""), wanted));
        }
        below_one("divergence.factor", self.divergence.factor)?;
        self.evolution.as_ref().map_or(Ok(()), EvolutionConfig::validate)?;
        match self.optimiser {
            Optimiser::Adam { beta1, beta2, epsilon } => {
                below_one("optimiser.beta1", beta1)?;
                below_one("optimiser.beta2", beta2)?;
                // with none a gradient of 0 would be divided by 0
                let held = f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX);
                if !held.contains(&epsilon) {
                    let wanted = "a number above 0 that f32 can hold, 1.2e-38 or more";
                    return Err(Error::value("optimiser.epsilon", format!("{epsilon:e}"), wanted));
                }
            }
            Optimiser::Sgd { momentum } => below_one("optimiser.momentum", momentum)?,
        }
        Ok(())
    }
}

/// The settings in which two differ, as each has them: `key = value` after another.
#[must_use]
pub fn differing<T: Serialize>(one: &T, other: &T) -> [String; 2] {
    fn walk(path: &str, one: Option<&Value>, other: Option<&Value>, found: &mut [Vec<String>; 2]) {
        if let (Some(Value::Table(a)), Some(Value::Table(b))) = (one, other) {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(&path, a.get(key), b.get(key), found);
            }
        } else if one != other {
            for (list, value) in found.iter_mut().zip([one, other]) {
                let value = value.map_or("none".into(), Value::to_string);
                list.push(format!("{path} = {value}"));
            }
        }
    }
    let table = |settings| Value::try_from(settings).ok();
    let mut found = [Vec::new(), Vec::new()];
    walk("", table(one).as_ref(), table(other).as_ref(), &mut found);
    found.map(|list| list.join(", "))
}

/// The path for later runs, which may start in another folder: the real one, or where nothing is there
/// the absolute one without `.` and `..`.
fn lasting(path: &Path) -> PathBuf {
    if let Ok(real) = std::fs::canonicalize(path) {
        return real;
    }
    let mut out = PathBuf::new();
    for part in std::path::absolute(path).unwrap_or_else(|_| path.into()).components() {
        match part {
            std::path::Component::ParentDir => _ = out.pop(),
            part => out.push(part),
        }
    }
    out
}

/// Parses a configuration file.
///
/// # Errors
/// [`Error::Value`] with the place and the parser's words.
pub fn parse_table(text: &str) -> Result<Table> {
    text.parse::<Table>().map_err(|e| {
        let before = &text[..e.span().map_or(0, |span| span.start.min(text.len()))];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        let found = format!("line {line}, column {column}: {}", e.message());
        Error::value("configuration", found, "TOML")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(sets: &[&str]) -> Result<Config> {
        let sets: Vec<String> = sets.iter().map(|&s| s.into()).collect();
        resolve("patterns", None, None, &sets, Table::new())
    }

    #[test]
    fn a_later_layer_wins() {
        let file = parse_table("batch = 3\nupdates = 5\nseed = 9").unwrap();
        let flags = Table::from_iter([("seed".to_string(), Value::Integer(1))]);
        let sets = ["updates=7".to_string()];
        let config = resolve("patterns", Some("small"), Some(file), &sets, flags).unwrap();
        assert_eq!((config.batch, config.updates, config.seed), (3, 7, 1));
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let message = patterns(&["task.bit=4"]).unwrap_err().to_string();
        assert!(message.contains("task.bit:") && message.contains("nearest: bits"), "{message}");
        let message = patterns(&["task.bits=many"]).unwrap_err().to_string();
        assert!(message.contains("integer such as 200"), "{message}");
    }

    #[test]
    fn the_optimiser_can_be_changed() {
        let config = patterns(&["optimiser.name=sgd", "optimiser.momentum=0.5"]).unwrap();
        assert_eq!(config.optimiser, Optimiser::Sgd { momentum: 0.5 });
        assert!(patterns(&["optimiser.name=sgd", "optimiser.beta1=0.5"]).is_err());
        assert!(patterns(&["optimiser.name=adamw"]).is_err());
    }

    #[test]
    fn a_written_configuration_reads_back_the_same() {
        let config = patterns(&["schedule.max_norm=2"]).unwrap();
        assert_eq!(Config::parse(&config.to_toml()).unwrap(), config);
    }
}
