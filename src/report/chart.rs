//! Axes of charts in SVG: ticks at 1, 2 or 5 times a power of ten, linear or logarithmic.

use std::fmt::Write;

use crate::report::page::escape;
use crate::report::style::{color, dark};

/// From a value to its place on the sheet.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    log: bool,
    /// Where `low` and `high` lie, in pixels.
    place: [f64; 2],
}

/// Values of at least this many powers of ten ask for a logarithmic axis.
const DECADES: f64 = 1.7;

impl Axis {
    /// From `low` to the next tick at or above `high`.
    pub(super) fn linear(low: f64, high: f64, place: [f64; 2]) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        let step = step(low, high, 6.0);
        Axis { low, high: (high / step - 1e-9).ceil() * step, log: false, place }
    }

    /// From `low` to `high` themselves.
    pub(super) fn exact(low: f64, high: f64, place: [f64; 2]) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Axis { low, high, log: false, place }
    }

    /// From 0, or logarithmic where the values are positive and span many powers of ten.
    pub(super) fn of(values: impl Iterator<Item = f64> + Clone, place: [f64; 2]) -> Self {
        let finite = values.filter(|v| v.is_finite());
        let most = finite.clone().fold(0.0, f64::max);
        let least = finite.fold(f64::INFINITY, f64::min);
        if least > 0.0 && most > least && (most / least).log10() > DECADES {
            let (low, high) = (least.log10().floor(), most.log10().ceil());
            return Axis { low: 10f64.powf(low), high: 10f64.powf(high), log: true, place };
        }
        Axis::linear(least.min(0.0), most, place)
    }

    /// Where a value lies; past the ends at the ends.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        let share = if share.is_nan() { 1.0 } else { share.clamp(0.0, 1.0) };
        self.place[0] + share * (self.place[1] - self.place[0])
    }

    /// The values that are marked.
    pub(super) fn ticks(&self) -> Vec<f64> {
        if self.log {
            let mut ticks = Vec::new();
            let mut power = self.low;
            while power <= self.high * 1.001 {
                ticks.push(power);
                power *= 10.0;
            }
            return ticks;
        }
        let step = step(self.low, self.high, 6.0);
        let first = (self.low / step - 1e-9).ceil();
        let n = ((self.high / step + 1e-9).floor() - first).max(0.0);
        (0..64).map(f64::from).take_while(|k| *k <= n).map(|k| (first + k) * step).collect()
    }

    /// Whether it is logarithmic.
    pub(super) fn is_log(&self) -> bool {
        self.log
    }
}

/// 1, 2 or 5 times a power of ten, so that at most `most` of them lie between.
fn step(low: f64, high: f64, most: f64) -> f64 {
    let least = ((high - low) / most).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|s| s * power)
        .into_iter()
        .find(|s| *s >= least * 0.999)
        .unwrap_or(power)
}

/// Width of a chart: as a phone shows it, its letters are still read.
pub(super) const WIDTH: f64 = 480.0;
/// Left and right ends of x in a chart.
pub(super) const X: [f64; 2] = [76.0, WIDTH - 16.0];

/// The frame of a chart: x from left to right along `bottom`, y upwards along the left side.
pub(super) struct Frame {
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) x_name: String,
    pub(super) y_name: String,
}

impl Frame {
    /// Lines and numbers of both axes; `show` writes a number of y.
    pub(super) fn draw(&self, svg: &mut String, show: impl Fn(f64) -> String) {
        self.draw_without_x(svg, show);
        self.draw_x(svg);
    }

    /// The axes of a map, whose rows count from the top and whose ticks lie outside.
    pub(super) fn draw_down(&self, svg: &mut String) {
        let [bottom, top] = self.y.place;
        let down = Axis { place: [top, bottom], ..self.y.clone() };
        for value in down.ticks() {
            let y = down.at(value);
            let left = self.x.place[0];
            let _ = writeln!(
                svg,
                "<line x1=\"{:.1}\" x2=\"{left:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 4.0,
                color("soft"),
                left - 8.0,
                y + 4.0,
                short(value),
            );
        }
        self.names(svg);
        self.draw_x(svg);
    }

    /// Numbers below.
    fn draw_x(&self, svg: &mut String) {
        let bottom = self.y.place[0];
        for value in self.x.ticks() {
            let x = self.x.at(value);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom:.1}\" y2=\"{:.1}\" stroke=\"{}\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 4.0,
                color("soft"),
                bottom + 18.0,
                short(value),
            );
        }
    }

    /// As [`Frame::draw`], without the numbers of x.
    pub(super) fn draw_without_x(&self, svg: &mut String, show: impl Fn(f64) -> String) {
        let [left, right] = self.x.place;
        for value in self.y.ticks() {
            let y = self.y.at(value);
            let _ = writeln!(
                svg,
                "<line x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" \
                 stroke=\"{}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                color("line"),
                left - 8.0,
                y + 4.0,
                show(value),
            );
        }
        self.names(svg);
    }

    /// What the axes show.
    fn names(&self, svg: &mut String) {
        let [left, right] = self.x.place;
        let [bottom, top] = self.y.place;
        let log = if self.y.is_log() { ", logarithmic" } else { "" };
        let _ = writeln!(
            svg,
            "<line x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{bottom:.1}\" y2=\"{bottom:.1}\" \
             stroke=\"{}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text x=\"14\" y=\"{:.1}\" text-anchor=\"middle\" \
             transform=\"rotate(-90 14 {:.1})\">{}{log}</text>",
            color("soft"),
            f64::midpoint(left, right),
            bottom + 36.0,
            escape(&self.x_name),
            f64::midpoint(top, bottom),
            f64::midpoint(top, bottom),
            escape(&self.y_name),
        );
    }

    /// A line through points.
    pub(super) fn line(&self, svg: &mut String, points: &[(f64, f64)], color: &str, width: f64) {
        if let [(x, y)] = points {
            let (x, y) = (self.x.at(*x), self.y.at(*y));
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{color}\"/>");
            return;
        }
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\"/>",
            self.path(points.iter())
        );
    }

    /// The area between two lines.
    pub(super) fn band(&self, svg: &mut String, low: &[(f64, f64)], high: &[(f64, f64)]) {
        let _ = writeln!(
            svg,
            "<polygon points=\"{}\" fill=\"{}\" fill-opacity=\"0.18\"/>",
            self.path(high.iter().chain(low.iter().rev())),
            color("low")
        );
    }

    fn path<'a>(&self, points: impl Iterator<Item = &'a (f64, f64)>) -> String {
        let points: Vec<String> =
            points.map(|(x, y)| format!("{:.1},{:.1}", self.x.at(*x), self.y.at(*y))).collect();
        points.join(" ")
    }
}

/// The beginning of a sheet that says what it shows to who cannot see it.
pub(super) fn sheet(width: f64, height: f64, title: &str, description: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         font-family=\"system-ui, 'Liberation Sans', sans-serif\" font-size=\"14\" fill=\"{}\">\n\
         <title>{}</title><desc>{}</desc>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"{}\"/>\n",
        color("ink"),
        escape(title),
        escape(description),
        color("panel"),
    )
}

/// A chart as a file of its own.
pub(super) fn alone(svg: &str) -> String {
    svg.replacen("<desc>", &format!("<style>{}</style><desc>", dark()), 1)
}

/// Lines that say what colours mean, from `y` on, one below another.
pub(super) fn legend(svg: &mut String, mut y: f64, lines: &[(&str, String)]) {
    for (color, text) in lines {
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" rx=\"2\" fill=\"{color}\"/>\
             <text x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
            y - 11.0,
            X[0] + 20.0,
            escape(text),
            x = X[0],
        );
        y += LEGEND;
    }
}

/// Height of a line of a legend.
pub(super) const LEGEND: f64 = 20.0;

/// A number in few digits.
pub(super) fn short(value: f64) -> String {
    if value.abs() < 1e-300 {
        return "0".into();
    }
    if (0.001..100_000.0).contains(&value.abs()) {
        format!("{value:.4}").trim_end_matches('0').trim_end_matches('.').into()
    } else {
        format!("{value:.1e}").replace(".0e", "e")
    }
}

/// A share as a percentage.
pub(super) fn percent(share: f64) -> String {
    format!("{} %", short(100.0 * share))
}

/// With a capital letter.
pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |c| c.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_1_2_or_5_times_a_power_of_ten_at_true_places() {
        let axis = Axis::linear(0.0, 4000.0, [70.0, 700.0]);
        assert_eq!(axis.ticks(), [0.0, 1000.0, 2000.0, 3000.0, 4000.0]);
        assert!((axis.at(1000.0) - 227.5).abs() < 1e-9);
        let axis = Axis::linear(0.0, 0.47, [300.0, 40.0]);
        let wanted = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5];
        assert!(axis.ticks().iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12));
        assert_eq!(axis.ticks().len(), 6);
        let axis = Axis::exact(-0.3, 0.3, [0.0, 100.0]);
        assert_eq!(axis.ticks().len(), 7);
        assert!((axis.at(0.0) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn a_wide_range_is_logarithmic_and_zero_is_not() {
        let axis = Axis::of([0.5, 0.002].into_iter(), [0.0, 300.0]);
        assert!(axis.is_log());
        assert_eq!(axis.ticks().len(), 4);
        assert!((axis.at(0.1) - 200.0).abs() < 1e-6);
        assert!(!Axis::of([0.5, 0.0].into_iter(), [0.0, 1.0]).is_log());
        assert!(!Axis::of([0.5, 0.4].into_iter(), [0.0, 1.0]).is_log());
        // nothing at all, or numbers that are none
        assert!(Axis::of(std::iter::empty(), [0.0, 1.0]).at(0.5).is_finite());
        assert!(Axis::of([f64::NAN].into_iter(), [0.0, 1.0]).at(f64::NAN).is_finite());
    }
}
