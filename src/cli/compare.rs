//! `hebbian compare`.

use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;

use crate::cli::flags::SettingFlags;
use crate::cli::signals::Stop;
use crate::cli::study::Study;
use crate::cli::{STOPPED, number, quietly_open};
use crate::engine::Want;
use crate::error::Error;
use crate::random::Purpose;
use crate::report::StudyReport;
use crate::study::{Found, Trained, baselines, choose_rate, hopfield};
use crate::train::{Config, TEST_TIME_STEPS, TestTime, copies, mean, test_time};

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
        let mut config = self.settings.resolve(&self.task)?;
        let asked = self.settings.networks.is_some()
            || self.settings.config.is_some()
            || self.settings.set.iter().any(|set| set.trim_start().starts_with("networks"));
        if !asked {
            config.networks = NETWORKS;
        }
        let mut members = baselines(&config)?;
        let name = format!("{}-compare", self.task);
        let study = Study::new(self.out.as_deref(), &name, self.quiet)?;
        let stop = Stop::listen()?;
        for member in &mut members {
            if let Some(begun) = study.begun(member)? {
                member.config.schedule.rate = begun.schedule.rate;
                continue;
            }
            study.say(format_args!("{}: a learning rate for {}", self.task, member.name));
            let Some(rate) = choose_rate(&member.config, &quietly_open, &stop.asked)? else {
                study.stopped(&stop);
                return Ok(STOPPED);
            };
            member.config.schedule.rate = rate;
        }
        let Some(Found { mut trained, diverged }) = study.train(&members, &stop)? else {
            return Ok(STOPPED);
        };
        if let Some((_, what)) = diverged.iter().find(|(name, _)| *name == members[0].name) {
            return Err(Error::Diverged { what: what.clone(), update: None }.into());
        }
        let task = config.task()?;
        let Some(steps) = self.gradient_steps(&config, &trained, &stop)? else {
            study.stopped(&stop);
            return Ok(STOPPED);
        };
        trained.extend(hopfield(&config, &quietly_open)?);
        let answer = json!({
            "schema": "hebbian.compare/1",
            "gradient_steps": steps.iter().map(|(start, found)| json!({
                "start": start,
                "learning_rates": found.rates,
                "steps": TEST_TIME_STEPS,
                "error": found.errors.iter().map(|e| number(mean(e.iter().copied()))).collect::<Vec<_>>(),
                "per_network": found.errors,
                "seconds": found.seconds,
                "seconds_of_a_showing": found.seconds_of_showing,
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
            diverged: &diverged,
            compared: true,
            gradient_steps: &steps,
        };
        let print = || {
            for (start, found) in &steps {
                let seconds = found.seconds_of_showing;
                put!("gradient steps at test time, {start} (a showing takes {seconds:.2e} s)");
                for ((steps, errors), seconds) in
                    TEST_TIME_STEPS.iter().zip(&found.errors).zip(&found.seconds)
                {
                    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
                    let cost = (steps * found.per_step) as f64 / found.per_showing as f64;
                    let error = task.error_text(mean(errors.iter().copied()));
                    put!(
                        "  {steps:4} steps  {error}, {cost:.2} times the work of a showing, {seconds:.2e} s"
                    );
                }
            }
        };
        study.finish(&report, self.json, answer, print)?;
        Ok(0)
    }

    /// Gradient steps at test time, of networks that are not plastic: from where they were trained to, and
    /// from w of the plastic ones. None where it was stopped; empty for a task that shows no stimuli.
    fn gradient_steps(
        &self,
        config: &Config,
        trained: &[Trained],
        stop: &Stop,
    ) -> anyhow::Result<Option<Vec<(&'static str, TestTime)>>> {
        let of = |name: &str| trained.iter().find(|member| member.name == name);
        let (Some(plain), Some(plastic)) = (of("not plastic"), of("plastic")) else {
            return Ok(Some(Vec::new()));
        };
        let mut own = plain.config.clone();
        let task = own.task()?;
        if task.recall().is_none() {
            return Ok(Some(Vec::new()));
        }
        let (seed, n_episodes) = (config.seed, config.eval_episodes);
        let seconds_of_showing = self.showing(plastic)?;
        let mut all = Vec::new();
        for (start, member) in
            [("from networks without plasticity", plain), ("from w of the plastic ones", plastic)]
        {
            let mut engine = quietly_open(&own, &copies(&*task, n_episodes))?;
            let (rate, engine) = (own.schedule.rate, &mut *engine);
            let numbers = (seed, n_episodes);
            let found = test_time(&*task, &member.parameters, engine, numbers, rate, &stop.asked)?;
            let Some(found) = found else { return Ok(None) };
            all.push((start, TestTime { seconds_of_showing, ..found }));
        }
        Ok(Some(all))
    }

    /// Seconds that an episode of a plastic network takes, forward, of as many at a time as copies take
    /// their steps.
    fn showing(&self, plastic: &Trained) -> anyhow::Result<f64> {
        let mut own = plastic.config.clone();
        let task = own.task()?;
        let mut engine = quietly_open(&own, &task.network())?;
        engine.set_parameters(&plastic.parameters)?;
        let n_batch = copies(&*task, own.eval_episodes).n_networks;
        let episodes = task.episodes(own.seed, Purpose::HeldOut, 0, n_batch);
        // the first time makes buffers
        engine.evaluate(&episodes, Want::default())?;
        let begun = Instant::now();
        engine.evaluate(&episodes, Want::default())?;
        #[expect(clippy::cast_precision_loss, reason = "few episodes")]
        Ok(begun.elapsed().as_secs_f64() / (n_batch * own.networks) as f64)
    }
}
