//! `hebbian train`.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use toml::{Table, Value};

use crate::cli::progress::Progress;
use crate::cli::signals::Stop;
use crate::cli::{Common, DataFlags, Layout, STOPPED, eval, quietly};
use crate::engine::Engine;
use crate::error::{Error, bytes};
use crate::files;
use crate::model::Network;
use crate::session::{self, Session};
use crate::train::{Config, Run, commented, differing, find_from, parse_table, resolve};

/// Trains a population of plastic networks
#[derive(clap::Args)]
pub(super) struct Train {
    /// patterns, images, or custom (a case file as training data)
    #[arg(required_unless_present = "resume", conflicts_with = "resume")]
    #[arg(value_parser = ["patterns", "images", "custom"], hide_possible_values = true)]
    task: Option<String>,
    /// Goes on exactly where this run stopped
    #[arg(long, value_name = "RUN")]
    resume: Option<PathBuf>,
    /// Goes on from this checkpoint instead of the last, in the new folder --out; the run itself
    /// stays as it is
    #[arg(long, value_name = "UPDATE", requires = "resume", requires = "out")]
    from: Option<u64>,
    /// Goes on with the run in --out where there is one of these settings, else starts it: for jobs
    /// that are queued again
    #[arg(long, requires = "out", requires = "task")]
    or_resume: bool,
    #[command(flatten)]
    places: DataFlags,
    /// Where parameters start: at those of a safetensors file that has tensors of their names; of a
    /// case also file (its own, whatever the seed) or random (w and alpha drawn by the seed, as wide
    /// as the case's)
    #[arg(long, value_name = "FILE|file|random")]
    init: Option<String>,
    /// A plasticity rule by its name (`hebbian rule list`), or a file with a rule's text
    #[arg(long, value_name = "NAME|FILE")]
    rule: Option<String>,
    /// patterns: quick (default), paper, small; images: quick (default), paper
    #[arg(long, value_parser = ["quick", "paper", "small", "default"], hide_possible_values = true)]
    preset: Option<String>,
    /// A TOML file with settings to change
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Changes one setting, such as task.bits=100
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Every random number follows from it
    #[arg(long)]
    seed: Option<u64>,
    /// Independent networks trained side by side
    #[arg(long)]
    networks: Option<usize>,
    /// The number of the first of them, so that several jobs train parts of one population: networks 8
    /// to 15 of 40 by --networks 8 --first-network 8, as --networks 40 trains them
    #[arg(long, value_name = "K")]
    first_network: Option<u32>,
    /// Episodes per network and update
    #[arg(long)]
    batch: Option<usize>,
    /// Updates of the optimiser
    #[arg(long)]
    updates: Option<u64>,
    /// Run directory; default: the first free runs/TASK-N
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print the resolved configuration and stop
    #[arg(long)]
    print_config: bool,
    /// auto (the best hardware GPU, else the CPU), cpu, gpu or gpu:INDEX
    #[arg(long)]
    device: Option<String>,
    #[command(flatten)]
    layout: Layout,
    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
    /// No talk on standard error
    #[arg(long)]
    quiet: bool,
}

/// [`session::open`], where drivers print nothing.
fn quietly_open(config: &Config, network: &Network) -> crate::error::Result<Box<dyn Engine<f32>>> {
    quietly(|| session::open(config, network))
}

/// What ends the name of so many.
fn plural<T: PartialEq + From<u8>>(n: T) -> &'static str {
    if n == T::from(1) { "" } else { "s" }
}

impl Train {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let session = match (&self.resume, &self.task) {
            (Some(folder), _) => {
                self.refuse_settings()?;
                self.resumed(folder)?
            }
            (None, Some(task)) => match self.started_or_resumed(task)? {
                Some(session) => session,
                None => return Ok(0),
            },
            (None, None) => unreachable!("the parser asks for one of them"),
        };
        let mut session = session;
        let config = session.config().clone();
        let common = self.common(&config);
        let stop = Stop::listen()?;
        let mut progress = Progress::new(&config, session.position().update, self.quiet);
        let result = session.train(&stop.asked, |task, record| {
            progress.show(task, record);
            Ok(())
        });
        progress.finish();
        let done = result.inspect_err(|_| {
            let saved = session.run().saved().ok().and_then(|mut saved| saved.pop());
            if let Some((update, path)) = saved {
                common.say(format_args!("saved as of update {update}: {}", path.display()));
            }
        })?;
        stop.saved.store(true, Ordering::Relaxed);
        if done < config.updates {
            common.say(format_args!(
                "stopped after {done} updates with everything saved; to go on: \
                 hebbian train --resume {}",
                files::quoted(session.run().folder())
            ));
        }
        let Some(outcome) = session.finish()? else { return Ok(STOPPED) };
        let scored = (config.seed, config.eval_episodes);
        eval::print(session.run(), session.task(), &outcome, scored, &common);
        common.say(format_args!("more: {}", session.run().report_path().display()));
        Ok(0)
    }

    /// The settings that preset, file and flags make.
    fn resolve(&self, task: &str) -> anyhow::Result<Config> {
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
        let flags = self.flags(task)?;
        Ok(resolve(task, self.preset.as_deref(), file, &self.set, flags)?)
    }

    /// A new run; none if only its configuration was asked for.
    fn started(&self, task: &str) -> anyhow::Result<Option<Session>> {
        let mut config = self.resolve(task)?;
        if self.print_config {
            config.task()?;
            put!("{}", commented(&config.to_toml()).trim_end());
            return Ok(None);
        }
        let session = Session::start(config, self.out.as_deref(), quietly_open)?;
        self.introduce(&session);
        Ok(Some(session))
    }

    /// A run that is new, or goes on where that is asked for.
    fn started_or_resumed(&self, task: &str) -> anyhow::Result<Option<Session>> {
        let there = self.out.as_ref().filter(|out| out.join("config.toml").is_file());
        let Some(folder) = there.filter(|_| self.or_resume && !self.print_config) else {
            return self.started(task);
        };
        let mut config = self.resolve(task)?;
        let task = config.task()?;
        config.initial(&*task)?;
        let mut own = Run::open(folder)?.config()?;
        (own.updates, own.device) = (config.updates, config.device.clone());
        if own != config {
            let [found, wanted] = differing(&own, &config);
            let found = format!("a run of other settings: {found}");
            return Err(Error::file(folder, found, format!("{wanted}, or another folder")).into());
        }
        self.resumed(folder).map(Some)
    }

    /// Refuses flags that a run which goes on does not take.
    fn refuse_settings(&self) -> anyhow::Result<()> {
        let fixed = [
            ("--print-config", self.print_config),
            ("--init", self.init.is_some()),
            ("--rule", self.rule.is_some()),
            ("--preset", self.preset.is_some()),
            ("--config", self.config.is_some()),
            ("--set", !self.set.is_empty()),
            ("--seed", self.seed.is_some()),
            ("--networks", self.networks.is_some()),
            ("--first-network", self.first_network.is_some()),
            ("--batch", self.batch.is_some()),
            ("--out", self.out.is_some() && self.from.is_none()),
            ("--plan", self.layout.plan.is_some()),
            ("--traces", self.layout.traces.is_some()),
        ];
        if let Some((flag, _)) = fixed.into_iter().find(|(_, given)| *given) {
            let wanted = "a run goes on with its own settings; only --updates, --device and where \
                          its data lie change";
            return Err(Error::value(flag, "a setting with --resume", wanted).into());
        }
        Ok(())
    }

    /// A run that goes on.
    fn resumed(&self, folder: &Path) -> anyhow::Result<Session> {
        let branch = self.from.zip(self.out.as_deref());
        let change = |config: &mut Config| {
            self.places.find(&mut config.task)?;
            config.updates = self.updates.unwrap_or(config.updates);
            config.device = self.device.clone().unwrap_or_else(|| config.device.clone());
            Ok(())
        };
        let session = Session::resume(folder, branch, change, quietly_open)?;
        self.introduce(&session);
        let common = self.common(session.config());
        common.say(format_args!("from    update {}", session.position().update));
        if let Some(before) = session.moved_from() {
            common.say(format_args!("note: it was on {before}; the bits will be others here"));
        }
        Ok(session)
    }

    fn common(&self, config: &Config) -> Common {
        let layout =
            Layout { plan: Some(config.plan.clone()), traces: Some(config.traces.clone()) };
        Common { device: config.device.clone(), layout, json: self.json, quiet: self.quiet }
    }

    /// What is known before the first update.
    fn introduce(&self, session: &Session) {
        let (config, description) = (session.config(), session.description());
        let (network, shape) = (session.task().network(), session.task().shape(config.batch));
        let common = self.common(config);
        common.warn_if_software(description);
        for warning in session.run().warnings() {
            common.say(format_args!("warning: {warning}"));
        }
        let available = description.memory_available.map_or("unknown".into(), bytes);
        common.say(format_args!(
            "{} network{} of {} neurons, {} episode{} of {} steps each, {} update{}\n\
             device  {}\nplan    {}\nmemory  {} needed, {available} available\nrun     {}",
            network.n_networks,
            plural(network.n_networks),
            network.n_post,
            shape.n_batch,
            plural(shape.n_batch),
            shape.n_steps,
            config.updates,
            plural(config.updates),
            description.device,
            description.plan,
            bytes(description.memory_needed),
            session.run().folder().display(),
        ));
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
        for (flag, key, task, path) in [
            ("--case", "case", "custom", &self.places.case),
            ("--data", "data", "images", &self.places.data),
        ] {
            let Some(path) = path else { continue };
            if given != task {
                let wanted = format!("the task {task}");
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
