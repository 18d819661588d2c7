//! The capacity curve as SVG.

use std::fmt::Write;

use crate::report::curve::{capital, round_up, short};
use crate::train::{Capacity, Point};

const WIDTH: f64 = 420.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const BASE: f64 = 260.0;

/// Error against the number of stimuli stored and against the delay, with 95 % confidence
/// intervals.
#[must_use]
pub fn capacity_curve(found: &Capacity, error_name: &str) -> String {
    let Capacity { by_number, by_delay } = found;
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 880 310\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"880\" height=\"310\" fill=\"#fff\"/>\n",
    );
    let width = |p: &Point| p.scores.estimate().ci95.unwrap_or(0.0);
    let highest =
        by_number.iter().chain(by_delay).map(|p| p.scores.mean() + width(p)).fold(0.0, f64::max);
    let top = round_up(highest);
    let title = capital(error_name);
    #[expect(clippy::cast_precision_loss, reason = "small numbers on an axis")]
    let pairs = |points: &[Point], x: fn(&Point) -> usize| -> Vec<(f64, f64, f64)> {
        points.iter().map(|p| (x(p) as f64, p.scores.mean(), width(p))).collect()
    };
    let stimuli = by_delay.first().map_or(0, |p| p.stimuli);
    panel(
        &mut svg,
        0.0,
        &format!("{title} by stimuli stored"),
        top,
        &pairs(by_number, |p| p.stimuli),
    );
    let text = format!("{title} by blank steps before the test, {stimuli} stimuli");
    panel(&mut svg, 440.0, &text, top, &pairs(by_delay, |p| p.delay));
    svg + "</svg>\n"
}

fn panel(svg: &mut String, at: f64, title: &str, top: f64, points: &[(f64, f64, f64)]) {
    let most = points.iter().map(|p| p.0).fold(1.0, f64::max);
    let x = |value: f64| at + LEFT + (WIDTH - LEFT - 20.0) * value / most;
    let y = |value: f64| BASE - (BASE - TOP) * (value / top).clamp(0.0, 1.0);
    let _ = writeln!(svg, "<text x=\"{:.0}\" y=\"22\" font-size=\"14\">{title}</text>", at + 10.0);
    for k in 0..=4 {
        let value = top * f64::from(k) / 4.0;
        let _ = writeln!(
            svg,
            "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{} %</text>",
            at + LEFT,
            at + WIDTH - 10.0,
            at + LEFT - 8.0,
            y(value) + 4.0,
            short(100.0 * value),
            y = y(value),
        );
    }
    let line: Vec<String> = points.iter().map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#1f5fa8\" stroke-width=\"2\"/>",
        line.join(" ")
    );
    for &(value, mean, ci) in points {
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#1f5fa8\"/>\
             <circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"#1f5fa8\"/>\
             <text x=\"{x:.1}\" y=\"280\" text-anchor=\"middle\" font-size=\"10\">{value}</text>",
            y(mean - ci),
            y(mean + ci),
            y(mean),
            x = x(value),
        );
    }
}
