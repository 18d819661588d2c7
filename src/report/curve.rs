//! Learning curves as SVG.

use std::fmt::Write;

use crate::report::chart::{
    Axis, Frame, LEGEND, WIDTH, X, alone, capital, legend, percent, sheet, short,
};
use crate::report::page::{escape, few, figure, numbers};
use crate::report::style::{color, series};
use crate::task::Task;
use crate::train::{Record, mean};

/// Bottom and top of y.
const Y: [f64; 2] = [266.0, 58.0];
/// No more points than the sheet can show.
const POINTS: usize = 800;

/// What a curve shows of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The error, or the loss where a task has nothing else.
    Error,
    /// The reward, which is minus the error.
    Reward,
    /// The loss.
    Loss,
    /// The norm of the gradient.
    GradientNorm,
    /// The mean plasticity rate.
    Eta,
}

impl Measure {
    /// What tells best how well a task is done.
    #[must_use]
    pub fn of_task(task: &dyn Task) -> Self {
        if task.world().is_some() { Measure::Reward } else { Measure::Error }
    }

    /// What an axis of it says: of a task whose training records hold the loss alone, the loss.
    pub(super) fn name<'a>(
        self,
        task: &dyn Task,
        mut records: impl Iterator<Item = &'a Record>,
    ) -> String {
        let known = records.any(|r| !r.error.is_empty() || r.held_out.is_some());
        if known { task.error_name().into() } else { "loss".into() }
    }

    /// Of held-out episodes.
    fn of_held_out(self, error: f64) -> Option<f64> {
        match self {
            Measure::Error => Some(error),
            Measure::Reward => Some(-error),
            _ => None,
        }
    }

    fn of(self, record: &Record) -> Vec<f64> {
        let single = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect();
        match self {
            Measure::Error if !record.error.is_empty() => record.error.clone(),
            Measure::Error if let Some(held_out) = &record.held_out => held_out.clone(),
            Measure::Reward => record.error.iter().map(|error| -error).collect(),
            Measure::Error | Measure::Loss => single(&record.loss),
            Measure::GradientNorm => single(&record.gradient_norm),
            Measure::Eta => single(&record.eta),
        }
    }
}

/// A measure over training.
struct Lines<'a> {
    /// The records that have it.
    records: Vec<&'a Record>,
    /// Whether only the error of held-out episodes is known.
    held_out_only: bool,
    /// Records that are averaged over.
    span: usize,
    /// For each network the averages, one a record.
    smooth: Vec<Vec<f64>>,
}

#[expect(clippy::cast_precision_loss, reason = "few records")]
fn lines(records: &[Record], measure: Measure) -> Lines<'_> {
    let held_out_only = measure == Measure::Error
        && records.iter().all(|r| r.error.is_empty())
        && records.iter().any(|r| r.held_out.is_some());
    let records: Vec<&Record> =
        records.iter().filter(|r| !held_out_only || r.held_out.is_some()).collect();
    let values: Vec<Vec<f64>> = records.iter().map(|record| measure.of(record)).collect();
    let n_networks = values.first().map_or(0, Vec::len);
    let span = (records.len() / 50).max(1);
    let average = |p: usize, k: usize| {
        let last = &values[(k + 1).saturating_sub(span)..=k];
        last.iter().map(|networks| networks[p]).sum::<f64>() / last.len() as f64
    };
    let smooth =
        (0..n_networks).map(|p| (0..values.len()).map(|k| average(p, k)).collect()).collect();
    Lines { records, held_out_only, span, smooth }
}

/// Updates and the median over networks, averaged over a fiftieth of the run; no more points than a
/// sheet can show.
#[expect(clippy::cast_precision_loss, reason = "a picture's coordinates")]
pub(super) fn medians(records: &[Record], measure: Measure) -> Vec<(f64, f64)> {
    let Lines { records, smooth, .. } = lines(records, measure);
    let (every, last) = ((records.len() / POINTS).max(1), records.len().saturating_sub(1));
    let at = (0..records.len()).filter(|k| k % every == 0 || *k == last);
    let median = |k: usize| quantile(smooth.iter().map(|line| line[k]), 0.5);
    at.map(|k| (records[k].update as f64, median(k))).collect()
}

/// What tells best how well a task is done, against updates, as a file of SVG; see [`curve`].
#[must_use]
pub fn learning_curve(records: &[Record], task: &dyn Task, run: &str) -> String {
    alone(&curve(records, Measure::of_task(task), task.error_name(), run))
}

/// A curve with what to look for in it, and its numbers.
pub(super) fn curve_figure(records: &[Record], measure: Measure, name: &str) -> String {
    let Lines { records: kept, span, smooth, .. } = &lines(records, measure);
    let look = match measure {
        Measure::Error => {
            "Falls while networks learn. Where dots stay above the line, networks know episodes of their \
             training better than new ones."
        }
        Measure::Reward => "Rises while networks learn.",
        Measure::Loss => {
            "What training makes smaller. Leaps and long flat stretches are worth a look."
        }
        Measure::GradientNorm => {
            "Lone peaks are steep places. A norm that goes on growing comes before divergence."
        }
        Measure::Eta => "How fast a trace takes up what happens; 0 is no plasticity.",
    };
    let averaged = match span {
        1 => String::new(),
        span => format!(" Means of the last {span} records."),
    };
    let all = " metrics.jsonl in the run's folder holds every record.";
    let mut head: Vec<String> = vec!["update".into()];
    match smooth.len() {
        n @ 0..=2 => head.extend((0..n).map(|p| format!("network {p}"))),
        _ => head.extend(["lower quartile", "median", "upper quartile"].map(String::from)),
    }
    head.push("held out, mean".into());
    let rows = few(kept.len()).map(|k| {
        let at = || smooth.iter().map(|line| line[k]);
        let values: Vec<f64> = match smooth.len() {
            0..=2 => at().collect(),
            _ => [0.25, 0.5, 0.75].map(|share| quantile(at(), share)).to_vec(),
        };
        let held_out = kept[k].held_out.as_ref();
        let held_out = held_out.and_then(|each| measure.of_held_out(mean(each.iter().copied())));
        let mut row = vec![kept[k].update.to_string()];
        row.extend(values.into_iter().map(short));
        row.push(held_out.map_or(String::new(), short));
        row
    });
    figure(
        &curve(records, measure, name, ""),
        &format!("{look}{averaged}{all}"),
        &numbers(&head, rows),
    )
}

/// A measure, called `name`, against updates, as SVG: a thin line for each network, averaged over a
/// fiftieth of the run, the band between the quartiles over networks, the median thick, and the
/// held-out scores as dots. `run` says under the title which run it is.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a picture's coordinates")]
pub fn curve(records: &[Record], measure: Measure, name: &str, run: &str) -> String {
    let Lines { records, held_out_only, smooth, .. } = &lines(records, measure);
    let held_out_only = *held_out_only;
    let n_networks = smooth.len();
    let is_share = measure == Measure::Error
        && (held_out_only || records.iter().all(|r| !r.error.is_empty()))
        && name != "squared error";
    let dots: Vec<(f64, f64)> = records
        .iter()
        .filter(|_| !held_out_only)
        .flat_map(|r| r.held_out.iter().flatten().map(|&error| (r.update as f64, error)))
        .filter_map(|(update, error)| Some((update, measure.of_held_out(error)?)))
        .collect();
    let shown = smooth.iter().flatten().copied().chain(dots.iter().map(|dot| dot.1));
    let frame = Frame {
        x: Axis::exact(0.0, records.last().map_or(1.0, |r| r.update as f64), X),
        y: Axis::of(shown, Y),
        x_name: "updates".into(),
        y_name: name.into(),
    };

    let title = format!("{} over training", capital(name));
    let last = records.last().map_or(0, |record| record.update);
    let end = quantile(smooth.iter().filter_map(|line| line.last().copied()), 0.5);
    let end = if is_share { percent(end) } else { short(end) };
    let description = format!(
        "{name} against updates of {n_networks} networks; the median is {end} at update {last}"
    );
    let episodes = if held_out_only { "held-out" } else { "training" };
    let mut lines = vec![(
        series(0),
        match n_networks {
            0 | 1 => format!("{episodes} episodes"),
            2 => format!("median, {episodes} episodes"),
            _ => format!("median and quartiles, {episodes} episodes"),
        },
    )];
    if n_networks > 1 {
        lines.push((color("soft"), "each network".into()));
    }
    if !dots.is_empty() {
        lines.push((series(1), "held-out episodes (dots)".into()));
    }
    let height = Y[0] + 44.0 + LEGEND * lines.len() as f64;
    let mut svg = sheet(WIDTH, height, &title, &description);
    let _ = writeln!(
        svg,
        "<text x=\"10\" y=\"22\" font-size=\"16\">{}</text>\
         <text x=\"10\" y=\"42\" fill=\"{}\">{}</text>",
        escape(&title),
        color("soft"),
        escape(run),
    );
    legend(&mut svg, Y[0] + 60.0, &lines);
    frame.draw(&mut svg, |value| if is_share { percent(value) } else { short(value) });

    let every = (records.len() / POINTS).max(1);
    let points = |line: &dyn Fn(usize) -> f64| -> Vec<(f64, f64)> {
        let last = records.len().saturating_sub(1);
        let at = (0..records.len()).filter(|k| k % every == 0 || *k == last);
        at.map(|k| (records[k].update as f64, line(k))).collect()
    };
    let across = |share: f64| points(&|k| quantile(smooth.iter().map(|line| line[k]), share));
    if n_networks > 2 {
        frame.band(&mut svg, &across(0.25), &across(0.75));
    }
    if n_networks > 1 {
        for line in smooth {
            frame.line(&mut svg, &points(&|k| line[k]), color("soft"), 0.7);
        }
    }
    frame.line(&mut svg, &across(0.5), series(0), 2.5);
    for &(update, error) in &dots {
        let (x, y) = (frame.x.at(update), frame.y.at(error));
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{}\" fill-opacity=\"0.7\"/>",
            series(1)
        );
    }
    svg + "</svg>\n"
}

/// The quantile of that share, between neighbours in proportion; 0 of nothing.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index among few"
)]
pub(crate) fn quantile(values: impl Iterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    let at = share * last as f64;
    let below = at.floor() as usize;
    let above = (below + 1).min(last);
    values[below] + (at - at.floor()) * (values[above] - values[below])
}
