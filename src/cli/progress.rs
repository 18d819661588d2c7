//! Progress of training: a bar on a terminal, plain lines otherwise.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::train::Record;

/// Between plain lines.
const PERIOD: Duration = Duration::from_secs(2);

/// Shows the latest record.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    error_name: &'static str,
    updates: u64,
    quiet: bool,
    shown: Instant,
}

impl Progress {
    pub(super) fn new(updates: u64, error_name: &'static str, quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let style = "{bar:30} {pos}/{len}  {msg}  {elapsed} (left {eta})";
            let style = ProgressStyle::with_template(style).expect("a valid template");
            ProgressBar::new(updates).with_style(style)
        });
        let shown = Instant::now();
        Progress { bar, error_name, updates, quiet, shown }
    }

    pub(super) fn show(&mut self, record: &Record) {
        let last = record.update == self.updates;
        let due = last || record.held_out.is_some() || self.shown.elapsed() >= PERIOD;
        if self.quiet || (self.bar.is_none() && !due) {
            return;
        }
        let n = record.loss.len();
        #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
        let rate = (record.episodes * n as u64) as f64 / record.seconds.max(1e-9);
        let loss = crate::train::mean(record.loss.iter().map(|&l| f64::from(l)));
        let mut text = format!("loss {loss:.4}");
        if !record.error.is_empty() {
            text += &format!(", {} {:.2} %", self.error_name, 100.0 * record.summary());
        }
        if let Some(held_out) = &record.held_out {
            let error = crate::train::mean(held_out.iter().copied());
            text += &format!(", held out {:.2} %", 100.0 * error);
        }
        text += &format!(", {rate:.0} episodes/s");
        match &self.bar {
            Some(bar) => {
                bar.set_position(record.update);
                bar.set_message(text);
            }
            None => {
                #[expect(clippy::cast_precision_loss, reason = "an estimate")]
                let left = record.seconds * (self.updates - record.update) as f64
                    / record.update.max(1) as f64;
                eprintln!("update {}/{}: {text}, {left:.0} s left", record.update, self.updates);
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
