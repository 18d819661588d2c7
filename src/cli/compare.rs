//! `hebbian compare`.

use std::path::PathBuf;

use serde_json::json;

use crate::cli::flags::SettingFlags;
use crate::cli::signals::Stop;
use crate::cli::study::Study;
use crate::cli::{STOPPED, number, quietly_open};
use crate::model::Network;
use crate::report::StudyReport;
use crate::study::{Trained, baselines, choose_rate, hopfield};
use crate::train::{Config, TEST_TIME_STEPS, TestTime, mean, test_time};

/// Tasks with baselines.
const TASKS: [&str; 5] = ["patterns", "images", "maze", "cue-reward", "copy"];

/// Networks of each member where nothing else is asked for.
const NETWORKS: usize = 5;

/// Compares plastic networks with their baselines on the same episodes
///
/// Trains networks with alpha shared, with eta fixed, without plasticity, and without plasticity but with
/// as many trained numbers, each with the best of three learning rates. Networks without plasticity then
/// take gradient steps on what a test episode shows, for tasks that show stimuli.
#[derive(clap::Args)]
pub(super) struct Compare {
    /// patterns, images, maze, cue-reward or copy
    #[arg(value_parser = TASKS, hide_possible_values = true)]
    task: String,
    #[command(flatten)]
    settings: SettingFlags,
    /// Folder of the runs and the page; default: the first free runs/TASK-compare-N. The same command on
    /// a folder that is there goes on with it
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
    /// No talk on standard error
    #[arg(long)]
    quiet: bool,
}

impl Compare {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let mut config = self.settings.resolve(&self.task, &[])?;
        if self.settings.networks.is_none() && config.networks == 1 {
            config.networks = NETWORKS;
        }
        let mut members = baselines(&config)?;
        let name = format!("{}-compare", self.task);
        let study = Study::new(self.out.as_deref(), &name, self.quiet)?;
        let stop = Stop::listen()?;
        for member in &mut members {
            study.say(format_args!("{}: a learning rate for {}", self.task, member.name));
            let rate = choose_rate(&member.config, &quietly_open, &stop.asked)?;
            member.config.schedule.rate = rate;
        }
        let Some(mut trained) = study.train(&members, &stop)? else { return Ok(STOPPED) };
        let task = config.task()?;
        let steps = self.gradient_steps(&config, &trained)?;
        trained.extend(hopfield(&config, &quietly_open)?);
        let answer = json!({
            "schema": "hebbian.compare/1",
            "gradient_steps": steps.iter().map(|(start, found)| json!({
                "start": start,
                "learning_rate": found.rate,
                "steps": TEST_TIME_STEPS,
                "error": found.errors.iter().map(|e| number(mean(e.iter().copied()))).collect::<Vec<_>>(),
                "per_network": found.errors,
                "seconds": found.seconds,
                "multiply_adds_of_a_step": found.per_step,
                "multiply_adds_of_a_showing": found.per_showing,
            })).collect::<Vec<_>>(),
        });
        let note = format!(
            "{} networks of each kind, {} updates of {} episodes, seed {}; the learning rate of each is the \
             best of three.",
            config.networks, config.updates, config.batch, config.seed
        );
        let report = StudyReport {
            title: format!("{}: plastic networks and their baselines", self.task),
            note,
            task: &*task,
            members: &trained,
            compared: true,
            gradient_steps: &steps,
        };
        let print = || {
            for (start, found) in &steps {
                put!("gradient steps at test time, {start}");
                for (steps, errors) in TEST_TIME_STEPS.iter().zip(&found.errors) {
                    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
                    let cost = (steps * found.per_step) as f64 / found.per_showing as f64;
                    let error = task.error_text(mean(errors.iter().copied()));
                    put!("  {steps:4} steps  {error}, {cost:.2} times the work of a showing");
                }
            }
        };
        study.finish(&report, self.json, answer, print)?;
        Ok(0)
    }

    /// Gradient steps at test time: of the networks without plasticity, and from the plastic ones' w.
    fn gradient_steps(
        &self,
        config: &Config,
        trained: &[Trained],
    ) -> anyhow::Result<Vec<(&'static str, TestTime)>> {
        let mut all = Vec::new();
        for (start, member) in [
            ("from networks without plasticity", "not plastic"),
            ("from w of the plastic", "plastic"),
        ] {
            let member =
                trained.iter().find(|t| t.name == member).expect("a baseline of every task");
            let mut own = member.config.clone();
            let task = own.task()?;
            if task.recall().is_none() {
                return Ok(Vec::new());
            }
            let copies = Network { n_networks: config.eval_episodes, ..task.network() };
            let mut engine = quietly_open(&own, &copies)?;
            let rate = own.schedule.rate;
            let found = test_time(&*task, &member.parameters, &mut *engine, config.seed, rate)?;
            all.push((start, found));
        }
        Ok(all)
    }
}
