//! What rules do to H for a pair of spikes, as SVG.

use std::fmt::Write;

use crate::report::chart::{Axis, Frame, LEGEND, WIDTH, X, alone, legend, sheet, short};
use crate::report::page::escape;
use crate::report::style::{color, series};
use crate::rule::{Name, Program};

/// Steps of a picture, the step of x's spike, and how many later or earlier that of y comes.
const STEPS: i32 = 80;
const SPIKE: i32 = 30;
const APART: i32 = 6;
/// Half of a spike's width, in steps.
const WIDE: f64 = 3.0;
/// Where m is 1 for rules with a trace beside H: a signal that arrives later.
const LATER: std::ops::Range<i32> = 50..56;

/// Bottom and top of a panel's y, its height, and what stands above the first.
const Y: [f64; 2] = [154.0, 36.0];
const PANEL: f64 = 214.0;
const HEAD: f64 = 70.0 + 3.0 * LEGEND;

/// H of one connection over time, of each rule, for a spike of y after that of x, with it and before it.
/// Parameters are where training starts them.
#[must_use]
pub fn rules_picture(rules: &[Program]) -> String {
    let columns = rules.len().clamp(1, 2);
    let rows = rules.len().div_ceil(2).max(1);
    #[expect(clippy::cast_precision_loss, reason = "few panels")]
    let (width, height) = (columns as f64 * (WIDTH + 20.0), HEAD + rows as f64 * PANEL);
    let names: Vec<&str> = rules.iter().map(Program::name).collect();
    let title = "H of one connection for a pair of spikes";
    let mut svg = sheet(width, height, title, &format!("Rules: {}", names.join(", ")));
    let _ = writeln!(
        svg,
        "<text x=\"10\" y=\"22\" font-size=\"16\">{title}</text><text x=\"10\" y=\"42\" \
         fill=\"{}\">x spikes at step {SPIKE}. Look which order moves H, and which way.</text>",
        color("soft")
    );
    let lines = [(APART, "after"), (0, "with"), (-APART, "before")];
    let texts: Vec<(&str, String)> = lines
        .iter()
        .enumerate()
        .map(|(k, (apart, word))| (series(k), format!("y {word} x, at step {}", SPIKE + apart)))
        .collect();
    legend(&mut svg, 66.0, &texts);
    for (k, rule) in rules.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "few panels")]
        let at = ((k % 2) as f64 * (WIDTH + 20.0), HEAD + (k / 2) as f64 * PANEL);
        panel(&mut svg, at, rule, &lines.map(|(apart, _)| course(rule, apart)));
    }
    alone(&(svg + "</svg>\n"))
}

fn panel(svg: &mut String, at: (f64, f64), rule: &Program, courses: &[Vec<(f64, f64)>]) {
    let values = courses.iter().flatten().map(|(_, h)| *h);
    let (low, high) =
        values.fold((0.0, 0.0), |(low, high): (f64, f64), h| (low.min(h), high.max(h)));
    // a rule without effect has an axis too
    let high = if high > low { high } else { 1.0 };
    let frame = Frame {
        x: Axis::linear(0.0, f64::from(STEPS), X),
        y: Axis::linear(low, high, Y),
        x_name: "step".into(),
        y_name: "H".into(),
    };
    let m = match (rule.reads(Name::M), rule.traces().len()) {
        (false, _) => String::new(),
        (true, 1) => ", m = 1".into(),
        (true, _) => format!(", m = 1 in steps {} to {}", LATER.start, LATER.end - 1),
    };
    let _ = writeln!(
        svg,
        "<g transform=\"translate({} {})\"><text x=\"{}\" y=\"20\" font-weight=\"600\">{}{m}</text>",
        at.0,
        at.1,
        X[0],
        escape(rule.name())
    );
    frame.draw(svg, short);
    for (k, course) in courses.iter().enumerate() {
        frame.line(svg, course, series(k), 2.0);
    }
    *svg += "</g>\n";
}

/// H over time where y spikes `apart` steps after x.
fn course(rule: &Program, apart: i32) -> Vec<(f64, f64)> {
    let compiled = rule.compile();
    let spike = |t: i32, at: i32| (-(f64::from(t - at) / WIDE).powi(2)).exp();
    let starts = |states: &[crate::rule::State]| -> Vec<f64> {
        states.iter().map(|state| state.start).collect()
    };
    let (mut traces, mut post, mut pre) =
        (starts(rule.traces()), starts(rule.post()), starts(rule.pre()));
    let mut scratch = Vec::new();
    let mut course = vec![(0.0, traces[0])];
    for t in 0..STEPS {
        let (x, y) = (spike(t, SPIKE), spike(t, SPIKE + apart));
        let m = if rule.traces().len() == 1 || LATER.contains(&t) { 1.0 } else { 0.0 };
        let [mut traces_next, mut post_next, mut pre_next] =
            [traces.clone(), post.clone(), pre.clone()];
        let name = |name: Name| match name {
            Name::X => x,
            Name::Y | Name::Z => y,
            Name::R => x * traces[0],
            Name::M => m,
            Name::Trace(k) => traces[k],
            Name::Post(k) => post[k],
            Name::Pre(k) => pre[k],
            Name::Parameter(k) => rule.parameters()[k].init,
        };
        compiled.traces.run(&mut scratch, name, &mut traces_next);
        compiled.post.run(&mut scratch, name, &mut post_next);
        compiled.pre.run(&mut scratch, name, &mut pre_next);
        (traces, post, pre) = (traces_next, post_next, pre_next);
        course.push((f64::from(t + 1), traces[0]));
    }
    course
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_spikes_decides_where_a_rule_tells_them_apart() {
        let last = |name: &str, apart: i32| {
            course(&Program::built_in(name).unwrap(), apart).last().unwrap().1
        };
        assert!(last("pre-trace", APART) > 0.0 && last("pre-trace", -APART) < 0.0);
        assert!(last("decay", 0) > last("decay", APART));
        assert!((last("decay", APART) - last("decay", -APART)).abs() < 1e-3);
        assert!(last("retroactive", 0) > 0.0 && last("none", 0) == 0.0);
    }

    #[test]
    fn a_picture_has_a_panel_for_each_rule() {
        let rules = ["oja", "bcm", "delta"].map(|name| Program::built_in(name).unwrap());
        let svg = rules_picture(&rules);
        for name in ["oja", "bcm", "delta"] {
            assert!(svg.contains(&format!(">{name}")), "{name}");
        }
        assert_eq!(svg.matches("<polyline").count(), 9);
    }
}
