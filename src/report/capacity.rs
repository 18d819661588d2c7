//! The capacity curve as SVG.

use std::fmt::Write;

use crate::report::chart::{Axis, Frame, WIDTH, X, alone, capital, percent, sheet};
use crate::report::page::escape;
use crate::report::style::{color, series};
use crate::train::{Capacity, Point};

/// Bottom and top of y.
const Y: [f64; 2] = [268.0, 60.0];

/// Error against the number of stimuli stored and against the delay, with 95 % confidence
/// intervals; `run` says under the title which run it is.
#[must_use]
pub fn capacity_curve(found: &Capacity, error_name: &str, run: &str) -> String {
    let Capacity { by_number, by_delay } = found;
    let title = format!("{}: how much the network holds, and for how long", capital(error_name));
    let ends = [by_number.first(), by_number.last()].map(|p| p.map_or(0.0, |p| p.scores.mean()));
    let description = format!(
        "{error_name} goes from {} with one stimulus to {} with {}",
        percent(ends[0]),
        percent(ends[1]),
        by_number.len()
    );
    let mut svg = sheet(2.0 * WIDTH + 20.0, 320.0, &title, &description);
    let unknown = by_number.iter().chain(by_delay).any(|p| p.scores.estimate().ci95.is_none());
    let bars = if unknown { "intervals unknown" } else { "bars: 95 % confidence" };
    let _ = writeln!(
        svg,
        "<text x=\"10\" y=\"20\" font-size=\"16\">{}</text><text x=\"10\" y=\"40\" \
         fill=\"{}\">{}; {bars}. Look where the line leaves the lowest error.</text>",
        escape(&title),
        color("soft"),
        escape(run),
    );
    let stimuli = by_delay.first().map_or(0, |p| p.stimuli);
    let all: Vec<f64> = by_number
        .iter()
        .chain(by_delay)
        .flat_map(|p| [p.scores.mean() + width(p), p.scores.mean()])
        .collect();
    let delays = format!("blank steps before the test, {stimuli} stimuli");
    for (at, points, name, x) in [
        (0.0, by_number, "stimuli shown", (|p| p.stimuli) as fn(&Point) -> usize),
        (WIDTH + 20.0, by_delay, &*delays, |p| p.delay),
    ] {
        panel(&mut svg, at, points, x, name, error_name, &all);
    }
    alone(&(svg + "</svg>\n"))
}

fn width(point: &Point) -> f64 {
    point.scores.estimate().ci95.unwrap_or(0.0)
}

#[expect(clippy::cast_precision_loss, reason = "small numbers on an axis")]
fn panel(
    svg: &mut String,
    at: f64,
    points: &[Point],
    x: fn(&Point) -> usize,
    name: &str,
    error_name: &str,
    all: &[f64],
) {
    let most = points.iter().map(x).max().unwrap_or(1) as f64;
    let frame = Frame {
        x: Axis::exact(0.0, most, X),
        y: Axis::linear(0.0, all.iter().copied().fold(0.0, f64::max), Y),
        x_name: name.into(),
        y_name: error_name.into(),
    };
    let _ = writeln!(svg, "<g transform=\"translate({at} 0)\">");
    frame.draw(svg, percent);
    let line: Vec<(f64, f64)> = points.iter().map(|p| (x(p) as f64, p.scores.mean())).collect();
    if line.len() > 1 {
        frame.line(svg, &line, series(0), 2.0);
    }
    for (point, (value, mean)) in points.iter().zip(line) {
        let place = frame.x.at(value);
        let _ = writeln!(
            svg,
            "<line x1=\"{place:.1}\" x2=\"{place:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{stroke}\"/>\
             <circle cx=\"{place:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{stroke}\"><title>{value}: \
             {}</title></circle>",
            frame.y.at(mean - width(point)),
            frame.y.at(mean + width(point)),
            frame.y.at(mean),
            percent(mean),
            stroke = series(0),
        );
    }
    let _ = writeln!(svg, "</g>");
}
