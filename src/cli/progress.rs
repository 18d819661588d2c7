//! Progress of training: a bar on a terminal, plain lines otherwise.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::talk;
use crate::task::Task;
use crate::train::{Config, Record};

/// Between plain lines.
const PERIOD: Duration = Duration::from_secs(2);

/// Shows the latest record.
pub(super) struct Progress<'a> {
    bar: Option<ProgressBar>,
    task: &'a dyn Task,
    updates: u64,
    /// The update that this process goes on from, and when.
    from: (u64, Instant),
    quiet: bool,
    shown: Instant,
}

impl<'a> Progress<'a> {
    pub(super) fn new(config: &Config, from: u64, task: &'a dyn Task, quiet: bool) -> Self {
        let updates = config.updates;
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            // the message is cut where the terminal ends
            let style = "{bar:16} {pos}/{len}  {wide_msg}";
            let style = ProgressStyle::with_template(style).expect("a valid template");
            ProgressBar::new(updates).with_style(style)
        });
        let now = Instant::now();
        Progress { bar, task, updates, from: (from, now), quiet, shown: now }
    }

    pub(super) fn show(&mut self, record: &Record) {
        let last = record.update == self.updates;
        let due = last || record.held_out.is_some() || self.shown.elapsed() >= PERIOD;
        if self.quiet || (self.bar.is_none() && !due) {
            return;
        }
        let (from, begun) = self.from;
        let seconds = begun.elapsed().as_secs_f64().max(1e-9);
        #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
        let rate = record.update.saturating_sub(from) as f64 / seconds;
        #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
        let per_update = (record.episodes / record.update * record.loss.len() as u64) as f64;
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let left = (self.updates - record.update) as f64 / rate.max(1e-9);
        let loss = crate::train::mean(record.loss.iter().map(|&l| f64::from(l)));
        let mut text = format!("loss {loss:.4}");
        if !record.error.is_empty() {
            let error = self.task.error_text(record.summary());
            text += &format!(", {} {error}", self.task.error_name());
        }
        if let Some(held_out) = &record.held_out {
            let error = crate::train::mean(held_out.iter().copied());
            let name = if self.task.own_episodes().is_none() { "held out" } else { "evaluated" };
            text += &format!(", {name} {}", self.task.error_text(error));
        }
        text += &format!(", {:.0} episodes/s, {left:.0} s left", rate * per_update);
        match &self.bar {
            Some(bar) => {
                bar.set_position(record.update);
                bar.set_message(text);
            }
            None => {
                talk(format_args!("update {}/{}: {text}", record.update, self.updates));
                self.shown = Instant::now();
            }
        }
    }

    pub(super) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.abandon();
        }
    }
}
