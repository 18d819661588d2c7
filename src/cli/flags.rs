//! Flags that are settings of a run, of every command that trains.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::cli::{DataFlags, Layout};
use crate::error::Error;
use crate::train::{Config, find_from, parse_table, resolve};

/// Settings of a run: preset, file, `--set` and flags, each over the one before.
#[derive(clap::Args)]
pub(super) struct SettingFlags {
    #[command(flatten)]
    pub(super) places: DataFlags,
    /// Where parameters start: at those of a safetensors file that has tensors of their names; of a
    /// case also file (its own, whatever the seed) or random (w and alpha drawn by the seed, as wide
    /// as the case's)
    #[arg(long, value_name = "FILE|file|random")]
    pub(super) init: Option<String>,
    /// A plasticity rule by its name (`hebbian rule list`), or a file with a rule's text
    #[arg(long, value_name = "NAME|FILE")]
    pub(super) rule: Option<String>,
    /// quick (default) or paper; of patterns also small, of omniglot long, of maze paper-2018
    #[arg(long)]
    pub(super) preset: Option<String>,
    /// A TOML file with settings to change
    #[arg(long, value_name = "FILE.toml")]
    pub(super) config: Option<PathBuf>,
    /// Changes one setting, such as task.bits=100
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
    /// Every random number follows from it
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// Independent networks trained side by side
    #[arg(long)]
    pub(super) networks: Option<usize>,
    /// The number of the first of them, so that several jobs train parts of one population: networks 8
    /// to 15 of 40 by --networks 8 --first-network 8, as --networks 40 trains them
    #[arg(long, value_name = "K")]
    pub(super) first_network: Option<u32>,
    /// Episodes per network and update
    #[arg(long)]
    pub(super) batch: Option<usize>,
    /// Updates of the optimiser
    #[arg(long)]
    pub(super) updates: Option<u64>,
    /// auto (the best hardware GPU, else the CPU), cpu, gpu or gpu:INDEX
    #[arg(long)]
    pub(super) device: Option<String>,
    #[command(flatten)]
    pub(super) layout: Layout,
}

/// Preset, file, `--set` and flags.
pub(super) type Layers<'a> = (Option<&'a str>, Option<Table>, Vec<String>, Table);

impl SettingFlags {
    /// The settings that preset, file and flags make.
    pub(super) fn resolve(&self, task: &str) -> anyhow::Result<Config> {
        let (preset, file, sets, flags) = self.layers(task)?;
        Ok(resolve(task, preset, file, &sets, flags)?)
    }

    /// Their layers: preset, file, `--set` and flags.
    pub(super) fn layers(&self, task: &str) -> anyhow::Result<Layers<'_>> {
        let file = match &self.config {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "read", e))?;
                let table =
                    parse_table(&text).map_err(|e| Error::file(path, e.to_string(), "settings"));
                let mut table = table?;
                find_from(&mut table, path.parent().unwrap_or(Path::new("")));
                Some(table)
            }
            None => None,
        };
        Ok((self.preset.as_deref(), file, self.set.clone(), self.flags(task)?))
    }

    /// The flags as settings.
    fn flags(&self, given: &str) -> anyhow::Result<Table> {
        let whole = |key: &str, value: u64| {
            i64::try_from(value)
                .map(Value::Integer)
                .map_err(|_| Error::value(key, value.to_string(), "at most 2^63 - 1"))
        };
        let mut flags = Table::new();
        for (key, value) in [
            ("seed", self.seed),
            ("networks", self.networks.map(|n| n as u64)),
            ("first_network", self.first_network.map(u64::from)),
            ("batch", self.batch.map(|n| n as u64)),
            ("updates", self.updates),
        ] {
            if let Some(value) = value {
                flags.insert(key.into(), whole(key, value)?);
            }
        }
        for (key, value) in
            [("device", &self.device), ("plan", &self.layout.plan), ("traces", &self.layout.traces)]
        {
            if let Some(value) = value {
                flags.insert(key.into(), Value::String(value.clone()));
            }
        }
        let mut of_task = Table::new();
        let mut task_flag = |key: &str, value: &str| {
            of_task.insert(key.into(), Value::String(value.into()));
        };
        for (flag, key, tasks, path) in [
            ("--case", "case", &["custom"][..], &self.places.case),
            ("--data", "data", &["images", "omniglot"], &self.places.data),
        ] {
            let Some(path) = path else { continue };
            if !tasks.contains(&given) {
                let wanted = format!("the task {}", tasks.join(" or "));
                return Err(Error::value(flag, format!("task {given}"), wanted).into());
            }
            let text = path.to_str().ok_or_else(|| {
                Error::value(flag, format!("{}", path.display()), "a path in Unicode")
            })?;
            task_flag(key, text);
        }
        if let Some(value) = &self.places.held_out {
            if given != "custom" {
                let wanted = "the task custom";
                return Err(Error::value("--held-out", format!("task {given}"), wanted).into());
            }
            task_flag("held_out", value);
        }
        if let Some(rule) = &self.rule {
            let table = Table::from_iter([("rule".to_string(), Value::String(rule.clone()))]);
            flags.insert("network".into(), Value::Table(table));
        }
        match self.init.as_deref() {
            Some(start @ ("file" | "random")) if given == "custom" => task_flag("init", start),
            Some(file) => _ = flags.insert("init".into(), Value::String(file.into())),
            None => {}
        }
        if !of_task.is_empty() {
            flags.insert("task".into(), Value::Table(of_task));
        }
        Ok(flags)
    }
}
