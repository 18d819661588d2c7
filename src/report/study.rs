//! The page of a study: a table, the networks' scores side by side, and their learning curves.

use std::fmt::Write;

use crate::report::chart::{Axis, Frame, capital, sheet, short};
use crate::report::curve::{Measure, medians, quantile};
use crate::report::page::{escape, page};
use crate::study::Trained;
use crate::task::Task;
use crate::train::{TEST_TIME_STEPS, TestTime, mean};

/// Colours that differ to colour-blind eyes (Okabe & Ito 2008), without the yellow.
const COLORS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444"];
const WIDTH: f64 = 1040.0;

/// What the page of a study shows.
#[derive(Clone)]
pub struct StudyReport<'a> {
    /// The heading.
    pub title: String,
    /// What all members share, as a sentence.
    pub note: String,
    /// What they are trained on.
    pub task: &'a dyn Task,
    /// The members.
    pub members: &'a [Trained],
    /// Those whose training diverged: their names, and what was not finite.
    pub diverged: &'a [(String, String)],
    /// Whether the others are tested against the first.
    pub compared: bool,
    /// Gradient steps at test time, with where they start.
    pub gradient_steps: &'a [(&'static str, TestTime)],
}

/// The page.
#[must_use]
pub fn study_report(report: &StudyReport<'_>) -> String {
    let StudyReport { title, note, task, members, diverged, compared, gradient_steps } = report;
    let mut body = format!("<p class=\"note\">{}</p>\n", escape(note));
    let first = &members[0];
    let p_head = if *compared { "<th>p against the first</th>" } else { "" };
    let _ = writeln!(
        body,
        "<table><tr><th>networks</th><th>{}, median [quartiles]</th><th>plasticity off</th>{p_head}\
         <th>trained numbers</th><th>learning rate</th><th>seconds</th></tr>",
        escape(task.error_name())
    );
    for member in *members {
        let [low, middle, high] = member.quartiles().map(|error| task.error_text(error));
        let p = member.p_value(first).filter(|_| !std::ptr::eq(first, member));
        let p = p.map_or(String::new(), |p| format!("{p:.3}"));
        let p = if *compared { format!("<td>{p}</td>") } else { String::new() };
        let off = member.without_plasticity.as_ref().map(|off| task.error_text(off.mean()));
        let is_trained = member.folder.is_some();
        let rate = if is_trained { short(member.config.schedule.rate) } else { String::new() };
        let seconds = member.records.last().map_or(String::new(), |r| format!("{:.1}", r.seconds));
        let _ = writeln!(
            body,
            "<tr><td>{}</td><td>{middle} [{low}, {high}]</td><td>{}</td>{p}<td>{}</td><td>{rate}</td>\
             <td>{seconds}</td></tr>",
            escape(&member.name),
            off.unwrap_or_default(),
            member.n_trained,
        );
    }
    body += "</table>\n";
    for (name, what) in *diverged {
        let _ = writeln!(body, "<p class=\"note\">{} diverged: {}</p>", escape(name), escape(what));
    }
    if *compared {
        body += "<p class=\"note\">p: Wilcoxon's rank-sum test over networks, two-sided.</p>\n";
    }
    let _ = writeln!(body, "<h2>Scores</h2>\n{}", scores(*task, members));
    let _ = writeln!(body, "<h2>Learning</h2>\n{}", curves(*task, members));
    if !gradient_steps.is_empty() {
        body += "<h2>Gradient steps at test time</h2>\n<p class=\"note\">A copy of a network for each \
                 held-out episode takes steps of Adam on the stimuli that the episode shows, with random \
                 halves hidden, and is tested then. The dashed line is the plastic networks, which see the \
                 episode once.</p>\n";
        let _ = writeln!(body, "{}\n{}", steps_table(*task, gradient_steps), steps_chart(report));
    }
    page(title, &body)
}

/// The sign of a measure: a reward is minus the error.
fn sign(task: &dyn Task) -> f64 {
    if task.world().is_some() { -1.0 } else { 1.0 }
}

/// A number of the measure as a person reads it.
fn show(task: &dyn Task, value: f64) -> String {
    task.error_text(sign(task) * value)
}

/// A row for each member: a dot for each network, the median, the quartiles.
fn scores(task: &dyn Task, members: &[Trained]) -> String {
    const ROW: f64 = 26.0;
    let rows = f64::from(u32::try_from(members.len()).unwrap_or(u32::MAX));
    let height = rows * ROW + 60.0;
    let each: Vec<Vec<f64>> = members
        .iter()
        .map(|m| m.scores.per_network().into_iter().map(|e| sign(task) * e).collect())
        .collect();
    let all = || each.iter().flatten().copied();
    let (low, high) = (all().fold(0.0, f64::min), all().fold(f64::MIN_POSITIVE, f64::max));
    let x = Axis::linear(low, high, [300.0, WIDTH - 40.0]);
    let title = format!("{} of each network", capital(task.error_name()));
    let mut svg =
        sheet(WIDTH, height, &title, "a row for each kind of network, a dot for each network");
    for value in x.ticks() {
        let at = x.at(value);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"8\" y2=\"{:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            height - 44.0,
            height - 28.0,
            show(task, value)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        f64::midpoint(300.0, WIDTH - 40.0),
        height - 8.0,
        escape(task.error_name())
    );
    let mut y = 8.0 + ROW / 2.0;
    for (k, (member, each)) in members.iter().zip(&each).enumerate() {
        let color = COLORS[k % COLORS.len()];
        let [low, middle, high] =
            [0.25, 0.5, 0.75].map(|share| x.at(quantile(each.iter().copied(), share)));
        let _ = writeln!(
            svg,
            "<text x=\"290\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <line x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{color}\" \
             stroke-width=\"8\" stroke-opacity=\"0.3\"/><line x1=\"{middle:.1}\" x2=\"{middle:.1}\" \
             y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{color}\" stroke-width=\"3\"/>",
            y + 4.0,
            escape(&member.name),
            y - 9.0,
            y + 9.0,
        );
        for &value in each {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{color}\" fill-opacity=\"0.7\"/>",
                x.at(value)
            );
        }
        y += ROW;
    }
    svg + "</svg>"
}

/// Medians over networks against updates.
fn curves(task: &dyn Task, members: &[Trained]) -> String {
    let measure = Measure::of_task(task);
    let trained = || members.iter().enumerate().filter(|(_, member)| !member.records.is_empty());
    let lines: Vec<(usize, Vec<(f64, f64)>)> =
        trained().map(|(k, member)| (k, medians(&member.records, measure))).collect();
    let points = || lines.iter().flat_map(|(_, line)| line);
    let frame = Frame {
        x: Axis::exact(0.0, points().map(|p| p.0).fold(1.0, f64::max), [78.0, 760.0]),
        y: Axis::of(points().map(|p| p.1), [346.0, 20.0]),
        x_name: "updates".into(),
        y_name: measure.name(task, members.iter().flat_map(|member| &member.records)),
    };
    let title = format!("{} over training, medians over networks", capital(task.error_name()));
    // as high as the legend
    let height = f64::from(u32::try_from(lines.len()).unwrap_or(u32::MAX)).mul_add(18.0, 40.0);
    let mut svg = sheet(WIDTH, height.max(400.0), &title, "a line for each kind of network");
    frame.draw(&mut svg, short);
    let mut y = 34.0;
    for (k, line) in &lines {
        let color = COLORS[k % COLORS.len()];
        frame.line(&mut svg, line, color, 2.0);
        let _ = writeln!(
            svg,
            "<text x=\"780\" y=\"{y:.1}\"><tspan fill=\"{color}\">&#9632;</tspan> {}</text>",
            escape(&members[*k].name)
        );
        y += 18.0;
    }
    svg + "</svg>"
}

fn steps_table(task: &dyn Task, all: &[(&'static str, TestTime)]) -> String {
    let mut table = String::from(
        "<table><tr><th>start</th><th>steps</th><th>error</th><th>work, of one showing</th>\
         <th>seconds an episode</th></tr>\n",
    );
    for (start, found) in all {
        for ((steps, errors), seconds) in
            TEST_TIME_STEPS.iter().zip(&found.errors).zip(&found.seconds)
        {
            #[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
            let work = (steps * found.per_step) as f64 / found.per_showing as f64;
            let error = task.error_text(mean(errors.iter().copied()));
            let _ = writeln!(
                table,
                "<tr><td>{start}</td><td>{steps}</td><td>{error}</td><td>{work:.2}</td>\
                 <td>{seconds:.5}</td></tr>"
            );
        }
    }
    table + "</table>"
}

/// Error against gradient steps, the plastic networks as a dashed line.
fn steps_chart(report: &StudyReport<'_>) -> String {
    let StudyReport { task, members, gradient_steps, .. } = report;
    let plastic = members[0].scores.mean();
    let most = |found: &TestTime| found.errors.iter().flatten().copied().fold(0.0, f64::max);
    let high = gradient_steps.iter().map(|(_, found)| most(found)).fold(plastic, f64::max);
    // one place for each number of steps
    let place = |k: usize| f64::from(u32::try_from(k).unwrap_or(u32::MAX));
    let frame = Frame {
        x: Axis::exact(0.0, place(TEST_TIME_STEPS.len() - 1), [78.0, 640.0]),
        y: Axis::linear(0.0, high, [266.0, 20.0]),
        x_name: "gradient steps".into(),
        y_name: task.error_name().into(),
    };
    let mut svg =
        sheet(WIDTH, 320.0, "Error after gradient steps at test time", "a line for each start");
    frame.draw_without_x(&mut svg, |value| task.error_text(value));
    for (k, steps) in TEST_TIME_STEPS.iter().enumerate() {
        let x = frame.x.at(place(k));
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"284\" text-anchor=\"middle\">{steps}</text>");
    }
    let y = frame.y.at(plastic);
    let _ = writeln!(
        svg,
        "<line x1=\"78\" x2=\"640\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{}\" stroke-width=\"2\" \
         stroke-dasharray=\"6 4\"/><text x=\"650\" y=\"{:.1}\">plastic, one showing</text>",
        COLORS[0],
        y + 4.0
    );
    let mut y = 34.0;
    for (k, (start, found)) in gradient_steps.iter().enumerate() {
        let color = COLORS[(k + 1) % COLORS.len()];
        let line: Vec<(f64, f64)> = found
            .errors
            .iter()
            .enumerate()
            .map(|(k, errors)| (place(k), mean(errors.iter().copied())))
            .collect();
        frame.line(&mut svg, &line, color, 2.0);
        let _ = writeln!(
            svg,
            "<text x=\"780\" y=\"{y:.1}\"><tspan fill=\"{color}\">&#9632;</tspan> {start}</text>"
        );
        y += 18.0;
    }
    svg + "</svg>"
}
