//! `hebbian train` and `hebbian evolve`.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use serde_json::json;

use crate::cli::flags::SettingFlags;
use crate::cli::progress::Progress;
use crate::cli::signals::Stop;
use crate::cli::study::Study;
use crate::cli::{Common, Layout, STOPPED, eval, quietly_open};
use crate::error::{Error, bytes};
use crate::files;
use crate::report::StudyReport;
use crate::session::Session;
use crate::study::{Found, Member};
use crate::train::{Config, EVOLVED, Resolve, TASKS, commented, resolve, resolve_evolution};

/// Trains a population of plastic networks
#[derive(clap::Args)]
pub(super) struct Train {
    /// patterns, images, omniglot, maze, cue-reward, copy, or custom (a case file as training data)
    #[arg(required_unless_present = "resume", conflicts_with = "resume")]
    #[arg(value_parser = TASKS, hide_possible_values = true)]
    task: Option<String>,
    #[command(flatten)]
    training: Training,
}

impl Train {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        self.training.run(self.task.as_deref(), &[], resolve)
    }
}

/// Trains a population of plastic networks forward only, by evolution
///
/// Members of a generation differ from their network by noise, and play the same episodes; the ranks of
/// their fitness say where the network moves. Nothing is kept over time for a backward pass.
#[derive(clap::Args)]
pub(super) struct Evolve {
    /// patterns, maze, cue-reward, copy, or custom (a case file as training data)
    #[arg(required_unless_present = "resume", conflicts_with = "resume")]
    #[arg(value_parser = EVOLVED, hide_possible_values = true)]
    task: Option<String>,
    /// Members of a generation for each network, an even number
    #[arg(long, value_name = "N", conflicts_with = "resume")]
    members: Option<usize>,
    /// sigma: how far each trained number of a member is from the network's
    #[arg(long, value_name = "SIGMA", conflicts_with = "resume")]
    noise: Option<f64>,
    /// Learning rate
    #[arg(long, conflicts_with = "resume")]
    rate: Option<f64>,
    /// Times a trained number, added to its gradient
    #[arg(long, value_name = "W", conflicts_with = "resume")]
    weight_decay: Option<f64>,
    /// Members that run at a time, whatever the result [default: as many as suit the caches of a CPU]
    #[arg(long, value_name = "N", conflicts_with = "resume")]
    members_at_once: Option<usize>,
    #[command(flatten)]
    training: Training,
}

impl Evolve {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let whole = |n: Option<usize>| n.map(|n| n.to_string());
        // a float in TOML, whatever its value
        let float = |x: Option<f64>| x.map(|x| format!("{x:?}"));
        let sets = [
            ("evolution.members", whole(self.members)),
            ("evolution.noise", float(self.noise)),
            ("schedule.rate", float(self.rate)),
            ("evolution.weight_decay", float(self.weight_decay)),
            ("evolution.at_once", whole(self.members_at_once)),
        ];
        let given = |(key, value): (&str, Option<String>)| value.map(|v| format!("{key}={v}"));
        let sets: Vec<String> = sets.into_iter().filter_map(given).collect();
        self.training.run(self.task.as_deref(), &sets, resolve_evolution)
    }
}

/// What every training takes, beside its task.
#[derive(clap::Args)]
struct Training {
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
    settings: SettingFlags,
    /// Trains every value, separated by commas, as a run of its own in --out, one after another; given for
    /// several settings, every combination
    #[arg(long, value_name = "KEY=V1,V2", conflicts_with_all = ["resume", "or_resume", "print_config"])]
    sweep: Vec<String>,
    /// Run directory; default: the first free runs/TASK-N
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print the resolved configuration and stop
    #[arg(long)]
    print_config: bool,
    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
    /// No talk on standard error
    #[arg(long)]
    quiet: bool,
}

/// The settings of a task, with more like `--set`.
type Resolved<'a> = &'a dyn Fn(&str, &[String]) -> anyhow::Result<Config>;

/// What ends the name of so many.
fn plural<T: PartialEq + From<u8>>(n: T) -> &'static str {
    if n == T::from(1) { "" } else { "s" }
}

impl Training {
    /// Trains `task`, or goes on; `sets` are like `--set` after it.
    fn run(self, task: Option<&str>, sets: &[String], resolve: Resolve) -> anyhow::Result<u8> {
        let resolved = |task: &str, more: &[String]| {
            let (preset, file, mut given, flags) = self.settings.layers(task)?;
            given.extend([sets, more].concat());
            Ok(resolve(task, preset, file, &given, flags)?)
        };
        if let (false, Some(task)) = (self.sweep.is_empty(), task) {
            return self.swept(task, &resolved);
        }
        let session = match (&self.resume, task) {
            (Some(folder), _) => {
                self.refuse_settings()?;
                self.resumed(folder)?
            }
            (None, Some(task)) => match self.started_or_resumed(task, &resolved)? {
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

    /// A run for every combination of the values that are swept.
    fn swept(&self, task: &str, resolved: Resolved<'_>) -> anyhow::Result<u8> {
        let mut choices = vec![Vec::new()];
        for sweep in &self.sweep {
            let wrong = || Error::value("--sweep", format!("\"{sweep}\""), "KEY=VALUE,VALUE");
            let (key, values) = sweep.split_once('=').ok_or_else(wrong)?;
            let values: Vec<String> =
                values.split(',').map(|value| format!("{}={}", key.trim(), value.trim())).collect();
            if values.len() < 2 || values.iter().any(|value| value.ends_with('=')) {
                return Err(wrong().into());
            }
            let longer = |choice: Vec<String>| {
                values
                    .iter()
                    .map(move |value| [&choice[..], std::slice::from_ref(value)].concat())
                    .collect::<Vec<_>>()
            };
            choices = choices.into_iter().flat_map(longer).collect();
        }
        let mut members: Vec<Member> = Vec::with_capacity(choices.len());
        for choice in choices {
            let mut config = resolved(task, &choice)?;
            config.task()?;
            if members.iter().any(|member| member.config == config) {
                let wanted = "settings that no flag sets, and values that differ";
                return Err(Error::value("--sweep", choice.join(" "), wanted).into());
            }
            members.push(Member { name: choice.join(" "), config });
        }
        let study = Study::new(self.out.as_deref(), &format!("{task}-sweep"), self.quiet)?;
        let stop = Stop::listen()?;
        let Some(Found { trained, diverged }) = study.train(&members, &stop)? else {
            return Ok(STOPPED);
        };
        if trained.is_empty() {
            let what = "the training of every member".into();
            return Err(Error::Diverged { what, update: None }.into());
        }
        let mut config = members[0].config.clone();
        let of = config.task()?;
        let report = StudyReport {
            title: format!("{task}: a sweep over {} settings", self.sweep.len()),
            note: "Each row is a run of its own; settings that are not named are the same.".into(),
            task: &*of,
            members: &trained,
            diverged: &diverged,
            compared: false,
            gradient_steps: &[],
        };
        study.finish(&report, self.json, json!({ "schema": "hebbian.sweep/1" }), || {})?;
        Ok(0)
    }

    /// A new run; none if only its configuration was asked for.
    fn started(&self, task: &str, resolved: Resolved<'_>) -> anyhow::Result<Option<Session>> {
        let mut config = resolved(task, &[])?;
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
    fn started_or_resumed(
        &self,
        task: &str,
        resolved: Resolved<'_>,
    ) -> anyhow::Result<Option<Session>> {
        let there = self.out.as_ref().filter(|out| out.join("config.toml").is_file());
        let Some(folder) = there.filter(|_| self.or_resume && !self.print_config) else {
            return self.started(task, resolved);
        };
        let session = Session::start_or_resume(resolved(task, &[])?, folder, quietly_open)?;
        self.introduce_resumed(&session);
        Ok(Some(session))
    }

    /// Refuses flags that a run which goes on does not take.
    fn refuse_settings(&self) -> anyhow::Result<()> {
        let given = &self.settings;
        let fixed = [
            ("--print-config", self.print_config),
            ("--init", given.init.is_some()),
            ("--rule", given.rule.is_some()),
            ("--preset", given.preset.is_some()),
            ("--config", given.config.is_some()),
            ("--set", !given.set.is_empty()),
            ("--seed", given.seed.is_some()),
            ("--networks", given.networks.is_some()),
            ("--first-network", given.first_network.is_some()),
            ("--batch", given.batch.is_some()),
            ("--out", self.out.is_some() && self.from.is_none()),
            ("--plan", given.layout.plan.is_some()),
            ("--traces", given.layout.traces.is_some()),
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
            let given = &self.settings;
            given.places.find(&mut config.task)?;
            config.updates = given.updates.unwrap_or(config.updates);
            config.device = given.device.clone().unwrap_or_else(|| config.device.clone());
            Ok(())
        };
        let session = Session::resume(folder, branch, change, quietly_open)?;
        self.introduce_resumed(&session);
        Ok(session)
    }

    /// What is known of a run that goes on.
    fn introduce_resumed(&self, session: &Session) {
        self.introduce(session);
        let common = self.common(session.config());
        common.say(format_args!("from    update {}", session.position().update));
        if let Some(before) = session.moved_from() {
            common.say(format_args!("note: it was on {before}; the bits will be others here"));
        }
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
        let members = config.evolution.as_ref();
        let members = members.map_or(String::new(), |e| format!(", {} members each", e.members));
        common.say(format_args!(
            "{} network{} of {} neurons{members}, {} episode{} of {} steps each, {} update{}\n\
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
}
