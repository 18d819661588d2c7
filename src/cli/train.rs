//! `hebbian train`.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use toml::{Table, Value};

use crate::cli::progress::Progress;
use crate::cli::{Common, Layout, STOPPED, Stop, eval};
use crate::engine::Want;
use crate::error::{Error, bytes};
use crate::files;
use crate::report::learning_curve;
use crate::train::{Outcome, Run, parse_table, resolve, train};

/// Trains a population of plastic networks
#[derive(clap::Args)]
pub(super) struct Train {
    /// patterns, or custom (a case file as training data)
    task: String,
    /// The case file to train on (custom)
    #[arg(long)]
    case: Option<PathBuf>,
    /// patterns: quick (default), paper, small
    #[arg(long)]
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

impl Train {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let file = match &self.config {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "read", e))?;
                Some(parse_table(&text)?)
            }
            None => None,
        };
        let flags = self.flags()?;
        let mut config = resolve(&self.task, self.preset.as_deref(), file, &self.set, flags)?;
        let task = config.task()?;
        if self.print_config {
            print!("{}", config.to_toml());
            return Ok(0);
        }
        let layout = self.layout.clone();
        let common =
            Common { device: config.device.clone(), layout, json: self.json, quiet: self.quiet };

        let network = task.network();
        let mut engine = common.open(&network)?;
        let shape = task.shape(config.batch);
        let want = Want { gradients: true, ..Want::default() };
        let description = engine.prepare(shape, want)?;
        engine.set_parameters(&task.initial(config.seed))?;
        let mut run = Run::create(self.out.as_deref(), task.name())?;
        run.begin(&config, &description)?;

        common.warn_if_software(&description);
        let available = description.memory_available.map_or("unknown".into(), bytes);
        common.say(format_args!(
            "{} network{} of {} neurons, {} episodes of {} steps each, {} updates\n\
             device  {}\nplan    {}\nmemory  {} needed, {available} available\nrun     {}",
            network.n_networks,
            if network.n_networks == 1 { "" } else { "s" },
            network.n_post,
            shape.n_batch,
            shape.n_steps,
            config.updates,
            description.device,
            description.plan,
            bytes(description.memory_needed),
            run.folder().display(),
        ));

        let stop = Stop::listen()?;
        let mut progress = Progress::new(config.updates, task.error_name(), self.quiet);
        let mut recorded = 0;
        let result = train(&config, &*task, &mut *engine, &stop.asked, |record| {
            progress.show(record);
            recorded = record.update;
            run.record(record)
        });
        progress.finish();
        let parameters = engine.parameters()?;
        let done = match result {
            Ok(done) => done,
            Err(error) => {
                common
                    .say(format_args!("parameters so far in {}", run.parameters_path().display()));
                run.save(&parameters, recorded)?;
                return Err(error.into());
            }
        };
        run.save(&parameters, done)?;
        stop.saved.store(true, Ordering::Relaxed);
        let curve = learning_curve(&run.records()?, task.error_name());
        files::write(&run.curve_path(), curve.as_bytes())?;
        if stop.asked.load(Ordering::Relaxed) && done < config.updates {
            common.say(format_args!(
                "stopped after {done} updates; parameters so far in {}",
                run.parameters_path().display()
            ));
            return Ok(STOPPED);
        }
        let outcome =
            Outcome::measure(&*task, &mut *engine, &parameters, config.seed, config.eval_episodes)?;
        eval::print(&run, &*task, &outcome, config.eval_episodes, &common);
        common.say(format_args!("more: hebbian eval {}", run.folder().display()));
        Ok(0)
    }

    /// The flags as settings.
    fn flags(&self) -> anyhow::Result<Table> {
        let whole = |key: &str, value: u64| {
            i64::try_from(value)
                .map(Value::Integer)
                .map_err(|_| Error::value(key, value.to_string(), "at most 2^63 - 1"))
        };
        let mut flags = Table::new();
        for (key, value) in [
            ("seed", self.seed),
            ("networks", self.networks.map(|n| n as u64)),
            ("batch", self.batch.map(|n| n as u64)),
            ("updates", self.updates),
        ] {
            if let Some(value) = value {
                flags.insert(key.into(), whole(key, value)?);
            }
        }
        if let Some(device) = &self.device {
            flags.insert("device".into(), Value::String(device.clone()));
        }
        if let Some(case) = &self.case {
            if self.task != "custom" {
                let wanted = "the task custom";
                return Err(Error::value("--case", format!("task {}", self.task), wanted).into());
            }
            let path = case.to_str().ok_or_else(|| {
                Error::value("--case", format!("{}", case.display()), "a path in Unicode")
            })?;
            let case = Table::from_iter([("case".to_string(), Value::String(path.into()))]);
            flags.insert("task".into(), Value::Table(case));
        }
        Ok(flags)
    }
}
