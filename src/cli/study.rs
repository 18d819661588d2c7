//! Studies: several runs in one folder, one table, one page, one JSON object.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::cli::progress::Progress;
use crate::cli::signals::Stop;
use crate::cli::{number, quietly_open, shown, talk};
use crate::error::{Error, Result};
use crate::files;
use crate::report::{StudyReport, study_report};
use crate::study::{Found, Member, Trained, train_all};
use crate::task::Task;
use crate::train::{Config, Run};

/// The folder of a study, and how it talks.
pub(super) struct Study {
    folder: PathBuf,
    quiet: bool,
}

impl Study {
    /// A study in `out`, or in the first free `runs/NAME-N`.
    pub(super) fn new(out: Option<&Path>, name: &str, quiet: bool) -> Result<Self> {
        let folder = match out {
            Some(out) if out.join("config.toml").is_file() => {
                return Err(Error::file(out, "a run", "a new folder, or one of such a study"));
            }
            Some(out) => out.to_path_buf(),
            None => Run::first_free(name)?,
        };
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, "create", e))?;
        Ok(Study { folder, quiet })
    }

    pub(super) fn say(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            talk(text);
        }
    }

    /// Trains the members; none where it was stopped.
    pub(super) fn train(&self, members: &[Member], stop: &Stop) -> Result<Option<Found>> {
        let mut progress: Option<(usize, Progress)> = None;
        let found =
            train_all(&self.folder, members, &quietly_open, &stop.asked, &mut |k, task, record| {
                if progress.as_ref().is_none_or(|(at, _)| *at != k) {
                    if let Some((_, before)) = progress.take() {
                        before.finish();
                    }
                    let Member { name, config } = &members[k];
                    self.say(format_args!("{} of {}: {name}", k + 1, members.len()));
                    progress = Some((k, Progress::new(config, record.update - 1, self.quiet)));
                }
                if let Some((_, progress)) = &mut progress {
                    progress.show(task, record);
                }
                Ok(())
            });
        if let Some((_, last)) = progress {
            last.finish();
        }
        let found = found?;
        match &found {
            None => self.stopped(stop),
            Some(found) => {
                for (name, what) in &found.diverged {
                    self.say(format_args!("warning: {name} diverged: {what}"));
                }
            }
        }
        Ok(found)
    }

    /// Says how to go on after a stop.
    pub(super) fn stopped(&self, stop: &Stop) {
        stop.saved.store(true, Ordering::Relaxed);
        self.say(format_args!(
            "stopped with everything saved; the same command with --out {} goes on",
            files::quoted(&self.folder)
        ));
    }

    /// The settings of a member that was begun before.
    pub(super) fn begun(&self, member: &Member) -> Result<Option<Config>> {
        let folder = member.folder(&self.folder);
        let there = folder.join("config.toml").is_file();
        there.then(|| Run::open(&folder)?.config()).transpose()
    }

    /// Writes the page and prints the table, or `answer` with the members where JSON is asked for.
    pub(super) fn finish(
        &self,
        report: &StudyReport<'_>,
        json: bool,
        mut answer: Value,
        print: impl FnOnce(),
    ) -> Result<()> {
        let path = self.folder.join("study.html");
        files::write(&path, study_report(report).as_bytes())?;
        let StudyReport { task, members, compared, diverged, .. } = report;
        let each: Vec<Value> = members
            .iter()
            .map(|member| member_json(*task, member, compared.then(|| &members[0])))
            .collect();
        answer["task"] = task.name().into();
        answer["measure"] = task.error_name().into();
        answer["page"] = shown(&path).into();
        answer["members"] = each.into();
        let lost = |(name, what): &(String, String)| json!({ "name": name, "what": what });
        answer["diverged"] = diverged.iter().map(lost).collect();
        files::write(&self.folder.join("study.json"), format!("{answer:#}\n").as_bytes())?;
        if json {
            put!("{answer}");
            return Ok(());
        }
        put!("{}, median over networks and quartiles", task.error_name());
        let width = members.iter().map(|m| m.name.chars().count()).max().unwrap_or(0);
        for member in *members {
            let [low, middle, high] = member.quartiles().map(|error| task.error_text(error));
            let off = member.without_plasticity.as_ref().map_or(String::new(), |off| {
                format!(", plasticity off {}", task.error_text(off.mean()))
            });
            let p = compared.then(|| against(member, &members[0])).flatten();
            let p = p.map_or(String::new(), |p| format!(", p = {p:.3}"));
            let rate = member.config.schedule.rate;
            let cost = member.folder.as_ref().map_or(String::new(), |_| {
                format!(", {} numbers trained at rate {rate:.1e}", member.n_trained)
            });
            put!("  {:width$}  {middle} [{low}, {high}]{off}{p}{cost}", member.name);
        }
        print();
        self.say(format_args!("more: {}", path.display()));
        Ok(())
    }
}

/// The p value against the first member, which is not compared with itself.
fn against(member: &Trained, first: &Trained) -> Option<f64> {
    (!std::ptr::eq(member, first)).then(|| member.p_value(first))?
}

fn member_json(task: &dyn Task, member: &Trained, first: Option<&Trained>) -> Value {
    let Trained { name, folder, config, scores, without_plasticity, records, n_trained, .. } =
        member;
    let [low, middle, high] = member.quartiles();
    let off = without_plasticity.as_ref().map(|off| number(off.mean()));
    let reward = task.world().map(|_| number(-scores.mean()));
    json!({
        "name": name,
        "run": folder.as_deref().map(shown),
        "networks": scores.per_network().len(),
        "updates": folder.as_ref().map(|_| config.updates),
        "batch": folder.as_ref().map(|_| config.batch),
        "learning_rate": folder.as_ref().map(|_| config.schedule.rate),
        "trained_numbers": n_trained,
        "seconds": records.last().map(|last| last.seconds),
        "error": number(scores.mean()),
        "error_ci95": scores.estimate().ci95.map(number),
        "error_median": number(middle),
        "error_quartiles": [number(low), number(high)],
        "error_without_plasticity": off,
        "reward": reward,
        "per_network": scores.per_network().into_iter().map(number).collect::<Vec<_>>(),
        "p_rank_sum": first.and_then(|first| against(member, first)),
    })
}
