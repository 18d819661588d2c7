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
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    updates: u64,
    /// Times that each episode is played.
    members: u64,
    /// The update that this process goes on from, and when.
    from: (u64, Instant),
    quiet: bool,
    shown: Instant,
    /// The loss, smoothed over some records.
    loss: Option<f64>,
    /// The last held-out score.
    held_out: Option<f64>,
}

/// The share of the loss at chance above which nothing has been learned yet.
const AT_CHANCE: f64 = 0.97;

/// The weight of a record in the smoothed loss.
const NEWEST: f64 = 0.1;

/// A time as a person reads it, in its two largest units.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days} d {} h", hours % 24),
        () if hours > 0 => format!("{hours} h {} min", minutes % 60),
        () if minutes > 0 => format!("{minutes} min {} s", seconds % 60),
        () => format!("{seconds} s"),
    }
}

impl Progress {
    pub(super) fn new(config: &Config, from: u64, quiet: bool) -> Self {
        let updates = config.updates;
        let members = config.evolution.as_ref().map_or(1, |e| e.members as u64);
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            // the message is cut where the terminal ends
            let style = "{bar:16} {pos}/{len}  {wide_msg}";
            let style = ProgressStyle::with_template(style).expect("a valid template");
            ProgressBar::new(updates).with_style(style)
        });
        let now = Instant::now();
        Progress {
            bar,
            updates,
            members,
            from: (from, now),
            quiet,
            shown: now,
            loss: None,
            held_out: None,
        }
    }

    pub(super) fn show(&mut self, task: &dyn Task, record: &Record) {
        for rollback in record.rollbacks.iter().filter(|_| !self.quiet) {
            match &self.bar {
                Some(bar) => bar.println(format!("warning: {rollback}")),
                None => talk(format_args!("warning: {rollback}")),
            }
        }
        let loss = crate::train::mean(record.loss.iter().map(|&l| f64::from(l)));
        let smooth = self.loss.map_or(loss, |before| before + NEWEST * (loss - before));
        self.loss = Some(smooth);
        if let Some(held_out) = &record.held_out {
            self.held_out = Some(crate::train::mean(held_out.iter().copied()));
        }
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
        let per_update =
            (record.episodes / record.update * self.members * record.loss.len() as u64) as f64;
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let left = (self.updates - record.update) as f64 / rate.max(1e-9);
        let mut text = format!("loss {smooth:.4}");
        if task.chance().is_some_and(|chance| smooth > AT_CHANCE * chance) {
            let norm = crate::train::mean(record.gradient_norm.iter().map(|&n| f64::from(n)));
            text += &format!(" (still at chance, as is usual at first; gradient norm {norm:.1e})");
        }
        if !record.error.is_empty() {
            let error = task.error_text(record.summary());
            text += &format!(", {} {error}", task.error_name());
        }
        if let Some(error) = self.held_out {
            text += &format!(", held out {}", task.error_text(error));
        }
        text += &format!(", {:.0} episodes/s, {} left", rate * per_update, duration(left));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_their_two_largest_units() {
        for (seconds, text) in
            [(0.4, "0 s"), (59.6, "1 min 0 s"), (4000.0, "1 h 6 min"), (90_000.0, "1 d 1 h")]
        {
            assert_eq!(duration(seconds), text);
        }
    }
}
