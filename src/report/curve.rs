//! Learning curves as SVG.

use std::fmt::Write;

use crate::train::Record;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 54.0;

/// Where a value lies on the sheet.
struct Axes {
    last_update: f64,
    top: f64,
}

impl Axes {
    fn x(&self, update: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * update / self.last_update
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value / self.top).clamp(0.0, 1.0);
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share
    }
}

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
pub fn learning_curve(records: &[Record], error_name: &str) -> String {
    curve(records, Measure::Error, error_name)
}

/// A measure against updates, as SVG: a thin line for each network, averaged over a fiftieth
/// of the run, the band between the quartiles over networks, the median thick, and the
/// held-out scores as dots.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a picture's coordinates")]
pub fn curve(records: &[Record], measure: Measure, title: &str) -> String {
    let values: Vec<Vec<f64>> = records.iter().map(|record| measure.of(record)).collect();
    let is_share = measure == Measure::Error && records.iter().all(|r| !r.error.is_empty());
    let n_networks = values.first().map_or(0, Vec::len);
    let span = (records.len() / 50).max(1);
    let smooth: Vec<Vec<f64>> = (0..n_networks)
        .map(|p| {
            let mut sum = 0.0;
            (0..values.len())
                .map(|k| {
                    sum += values[k][p];
                    if k >= span {
                        sum -= values[k - span][p];
                    }
                    sum / span.min(k + 1) as f64
                })
                .collect()
        })
        .collect();
    let highest = smooth.iter().flatten().copied().fold(0.0, f64::max);
    let axes = Axes {
        last_update: records.last().map_or(1.0, |r| r.update as f64),
        top: if is_share { highest.max(0.5) } else { round_up(highest) },
    };

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    let title = capital(title);
    let _ =
        writeln!(svg, "<text x=\"{LEFT}\" y=\"26\" font-size=\"16\">{title} over training</text>");
    for k in 0..=5 {
        let value = axes.top * f64::from(k) / 5.0;
        let y = axes.y(value);
        let label = if is_share { format!("{:.0} %", 100.0 * value) } else { short(value) };
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0,
        );
        let update = axes.last_update * f64::from(k) / 5.0;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{update:.0}</text>",
            axes.x(update),
            HEIGHT - BOTTOM + 20.0,
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">updates</text>",
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 12.0
    );

    let updates: Vec<f64> = records.iter().map(|r| r.update as f64).collect();
    let across = |share: f64| -> Vec<f64> {
        (0..records.len()).map(|k| quantile(smooth.iter().map(|line| line[k]), share)).collect()
    };
    if n_networks > 2 {
        band(&mut svg, &axes, &updates, &across(0.25), &across(0.75));
    }
    if n_networks > 1 {
        for line in &smooth {
            polyline(&mut svg, &axes, &updates, line, "#8fb3d9", 0.8);
        }
    }
    polyline(&mut svg, &axes, &updates, &across(0.5), "#1f5fa8", 2.5);
    let mut legend = vec![match n_networks {
        0 | 1 => "training episodes".to_string(),
        2 => "2 networks and their median, training episodes".to_string(),
        n => format!("{n} networks, their quartiles and median, training episodes"),
    }];
    let mut held_out = false;
    for record in records.iter().filter(|_| measure == Measure::Error) {
        for &error in record.held_out.iter().flatten() {
            held_out = true;
            let (x, y) = (axes.x(record.update as f64), axes.y(error));
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"#d1495b\" fill-opacity=\"0.7\"/>"
            );
        }
    }
    if held_out {
        legend.push("held-out episodes (dots)".into());
    }
    for (k, text) in legend.iter().enumerate() {
        let color = if k == 0 { "#1f5fa8" } else { "#d1495b" };
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{color}\">{text}</text>",
            WIDTH - RIGHT - 8.0,
            TOP + 22.0 + 20.0 * k as f64,
        );
    }
    svg + "</svg>\n"
}

fn polyline(svg: &mut String, axes: &Axes, updates: &[f64], line: &[f64], color: &str, width: f64) {
    // no more points than the sheet can show
    let every = (line.len() / 800).max(1);
    let points: Vec<String> = updates
        .iter()
        .zip(line)
        .step_by(every)
        .map(|(&update, &value)| format!("{:.1},{:.1}", axes.x(update), axes.y(value)))
        .collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\"/>",
        points.join(" ")
    );
}

/// The area between two lines.
fn band(svg: &mut String, axes: &Axes, updates: &[f64], low: &[f64], high: &[f64]) {
    let every = (low.len() / 400).max(1);
    let point =
        |k: &usize, line: &[f64]| format!("{:.1},{:.1}", axes.x(updates[*k]), axes.y(line[*k]));
    let at: Vec<usize> = (0..low.len()).step_by(every).collect();
    let there = at.iter().map(|k| point(k, high));
    let back = at.iter().rev().map(|k| point(k, low));
    let points: Vec<String> = there.chain(back).collect();
    let _ = writeln!(
        svg,
        "<polygon points=\"{}\" fill=\"#1f5fa8\" fill-opacity=\"0.18\"/>",
        points.join(" ")
    );
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

/// The next of 1, 2, 5 times a power of ten.
pub(super) fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    steps.iter().map(|s| s * power).find(|&s| s >= value).unwrap_or(10.0 * power)
}

pub(super) fn short(value: f64) -> String {
    if value == 0.0 || (0.01..10_000.0).contains(&value) {
        format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').into()
    } else {
        format!("{value:.1e}")
    }
}

pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |c| c.to_uppercase().chain(letters).collect())
}
