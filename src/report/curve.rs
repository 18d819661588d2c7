//! Learning curves as SVG.

use std::fmt::Write;

use crate::report::chart::{Axis, Frame, capital, percent, sheet, short};
use crate::report::page::escape;
use crate::train::Record;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
/// Left and right ends of x, bottom and top of y.
const X: [f64; 2] = [78.0, 700.0];
const Y: [f64; 2] = [346.0, 64.0];
/// No more points than the sheet can show.
const POINTS: usize = 800;

const TRAINING: &str = "#1f5fa8";
const NETWORK: &str = "#8fb3d9";
const HELD_OUT: &str = "#d1495b";

/// What a curve shows of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The error, or the loss where a task has nothing else.
    Error,
    /// The loss.
    Loss,
    /// The norm of the gradient.
    GradientNorm,
    /// The mean plasticity rate.
    Eta,
}

impl Measure {
    fn of(self, record: &Record) -> Vec<f64> {
        let single = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect();
        match self {
            Measure::Error if !record.error.is_empty() => record.error.clone(),
            Measure::Error | Measure::Loss => single(&record.loss),
            Measure::GradientNorm => single(&record.gradient_norm),
            Measure::Eta => single(&record.eta),
        }
    }
}

/// Error (or loss, where a task has nothing else) against updates; see [`curve`].
#[must_use]
pub fn learning_curve(records: &[Record], error_name: &str, run: &str) -> String {
    curve(records, Measure::Error, error_name, run)
}

/// A measure, called `name`, against updates, as SVG: a thin line for each network, averaged over a
/// fiftieth of the run, the band between the quartiles over networks, the median thick, and the
/// held-out scores as dots. `run` says under the title which run it is.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a picture's coordinates")]
pub fn curve(records: &[Record], measure: Measure, name: &str, run: &str) -> String {
    let values: Vec<Vec<f64>> = records.iter().map(|record| measure.of(record)).collect();
    let is_share = measure == Measure::Error
        && records.iter().all(|r| !r.error.is_empty())
        && name != "squared error";
    let n_networks = values.first().map_or(0, Vec::len);
    let span = (records.len() / 50).max(1);
    let smooth: Vec<Vec<f64>> = (0..n_networks)
        .map(|p| {
            (0..values.len())
                .map(|k| {
                    let last = &values[(k + 1).saturating_sub(span)..=k];
                    last.iter().map(|networks| networks[p]).sum::<f64>() / last.len() as f64
                })
                .collect()
        })
        .collect();
    let dots: Vec<(f64, f64)> = records
        .iter()
        .filter(|_| measure == Measure::Error)
        .flat_map(|r| r.held_out.iter().flatten().map(|&error| (r.update as f64, error)))
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
    let mut svg = sheet(WIDTH, HEIGHT, &title, &description);
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"22\" font-size=\"16\">{}</text>\
         <text x=\"{x}\" y=\"40\" fill=\"#555\">{}</text>",
        escape(&title),
        escape(run),
        x = X[0],
    );
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
        for line in &smooth {
            frame.line(&mut svg, &points(&|k| line[k]), NETWORK, 0.8);
        }
    }
    frame.line(&mut svg, &across(0.5), TRAINING, 2.5);
    for &(update, error) in &dots {
        let (x, y) = (frame.x.at(update), frame.y.at(error));
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{HELD_OUT}\" fill-opacity=\"0.7\"/>"
        );
    }
    let smoothed = match span {
        1 => String::new(),
        span => format!(", mean of the last {span} records"),
    };
    let mut legend = vec![(
        TRAINING,
        match n_networks {
            0 | 1 => format!("training episodes{smoothed}"),
            2 => format!("median of 2 networks, training episodes{smoothed}"),
            n => format!("median and quartiles of {n} networks, training episodes{smoothed}"),
        },
    )];
    if n_networks > 1 {
        legend.push((NETWORK, "each network".into()));
    }
    if !dots.is_empty() {
        legend.push((HELD_OUT, "held-out episodes (dots)".into()));
    }
    for (k, (color, text)) in legend.iter().enumerate() {
        let y = Y[1] + 14.0 + 18.0 * k as f64;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"end\" fill=\"#222\">{text} \
             <tspan fill=\"{color}\">&#9632;</tspan></text>",
            X[1] - 8.0,
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
pub(super) fn quantile(values: impl Iterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    let at = share * last as f64;
    let below = at.floor() as usize;
    let above = (below + 1).min(last);
    values[below] + (at - at.floor()) * (values[above] - values[below])
}
