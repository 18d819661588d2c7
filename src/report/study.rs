//! The page of a study: a table, the networks' scores side by side, and their learning curves.

use std::fmt::Write;

use crate::report::chart::{Axis, Frame, LEGEND, WIDTH, X, capital, legend, sheet, short};
use crate::report::curve::{Measure, medians, quantile};
use crate::report::page::{escape, few, figure, numbers, page};
use crate::report::style::{color, series};
use crate::study::Trained;
use crate::task::Task;
use crate::train::{TEST_TIME_STEPS, TestTime, mean};

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
        "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Members\"><table>\
         <tr><th>networks</th><th>{}, median [quartiles]</th><th>plasticity off</th>{p_head}\
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
            "<tr><th scope=\"row\">{}</th><td>{middle} [{low}, {high}]</td><td>{}</td>{p}<td>{}</td><td>{rate}</td>\
             <td>{seconds}</td></tr>",
            escape(&member.name),
            off.unwrap_or_default(),
            member.n_trained,
        );
    }
    body += "</table></div>\n";
    for (name, what) in *diverged {
        let _ = writeln!(body, "<p class=\"note\">{} diverged: {}</p>", escape(name), escape(what));
    }
    if *compared {
        body += "<p class=\"note\">p: Wilcoxon's rank-sum test over networks, two-sided.</p>\n";
    }
    let _ = writeln!(
        body,
        "<h2>Scores and learning</h2>\n<div class=\"charts\">{}{}</div>",
        scores(*task, members),
        curves(*task, members)
    );
    if !gradient_steps.is_empty() {
        body += "<h2>Gradient steps at test time</h2>\n<p class=\"note\">A copy of a network for each \
                 held-out episode takes steps of Adam on the stimuli that the episode shows, with random \
                 halves hidden, and is tested then. The plastic networks see the episode once.</p>\n";
        let _ = writeln!(body, "{}", steps_chart(report));
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

/// As [`show`], for an axis: without zeros at its end.
fn tick(task: &dyn Task, value: f64) -> String {
    let text = show(task, value);
    let (number, unit) = text.split_once(' ').map_or((&*text, None), |(n, unit)| (n, Some(unit)));
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    };
    unit.map_or(number.into(), |unit| format!("{number} {unit}"))
}

/// A row for each member: a dot for each network, the median, the quartiles.
fn scores(task: &dyn Task, members: &[Trained]) -> String {
    const ROW: f64 = 44.0;
    let rows = f64::from(u32::try_from(members.len()).unwrap_or(u32::MAX));
    let height = rows * ROW + 56.0;
    let each: Vec<Vec<f64>> = members
        .iter()
        .map(|m| m.scores.per_network().into_iter().map(|e| sign(task) * e).collect())
        .collect();
    let all = || each.iter().flatten().copied();
    let (low, high) = (all().fold(0.0, f64::min), all().fold(f64::MIN_POSITIVE, f64::max));
    let x = Axis::linear(low, high, [30.0, WIDTH - 30.0]);
    let title = format!("{} of each network", capital(task.error_name()));
    let mut svg =
        sheet(WIDTH, height, &title, "a row for each kind of network, a dot for each network");
    for value in x.ticks() {
        let at = x.at(value);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"8\" y2=\"{:.1}\" stroke=\"{}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            height - 44.0,
            color("line"),
            height - 28.0,
            tick(task, value)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        WIDTH / 2.0,
        height - 8.0,
        escape(task.error_name())
    );
    let mut y = 34.0;
    for (k, (member, each)) in members.iter().zip(&each).enumerate() {
        let color = series(k);
        let [low, middle, high] =
            [0.25, 0.5, 0.75].map(|share| x.at(quantile(each.iter().copied(), share)));
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{:.1}\">{}</text>\
             <line x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{color}\" \
             stroke-width=\"8\" stroke-opacity=\"0.3\"/><line x1=\"{middle:.1}\" x2=\"{middle:.1}\" \
             y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{color}\" stroke-width=\"3\"/>",
            y - 12.0,
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
    let head: Vec<String> = std::iter::once(task.error_name().to_string())
        .chain((0..each.iter().map(Vec::len).max().unwrap_or(0)).map(|p| format!("network {p}")))
        .collect();
    let table = members.iter().zip(&each).map(|(member, each)| {
        let scores = each.iter().map(|&value| show(task, value));
        std::iter::once(member.name.clone()).chain(scores).collect()
    });
    figure(
        &(svg + "</svg>"),
        "A dot for each network, a bar at the median, a band between the quartiles. Kinds whose bands \
         lie apart differ by more than their seeds do.",
        &numbers(&head, table),
    )
}

/// Medians over networks against updates.
fn curves(task: &dyn Task, members: &[Trained]) -> String {
    let measure = Measure::of_task(task);
    let trained = || members.iter().enumerate().filter(|(_, member)| !member.records.is_empty());
    let lines: Vec<(usize, Vec<(f64, f64)>)> =
        trained().map(|(k, member)| (k, medians(&member.records, measure))).collect();
    let points = || lines.iter().flat_map(|(_, line)| line);
    let frame = Frame {
        x: Axis::exact(0.0, points().map(|p| p.0).fold(1.0, f64::max), X),
        y: Axis::of(points().map(|p| p.1), [266.0, 16.0]),
        x_name: "updates".into(),
        y_name: measure.name(task, members.iter().flat_map(|member| &member.records)),
    };
    let title = format!("{} over training, medians over networks", capital(task.error_name()));
    let names: Vec<(&str, String)> =
        lines.iter().map(|(k, _)| (series(*k), members[*k].name.clone())).collect();
    let rows = f64::from(u32::try_from(lines.len()).unwrap_or(u32::MAX));
    let height = LEGEND.mul_add(rows, 310.0);
    let mut svg = sheet(WIDTH, height, &title, "a line for each kind of network");
    // of a task whose records hold the loss alone, the loss
    let is_loss = frame.y_name != task.error_name();
    let label = |value| if is_loss { short(value) } else { tick(task, value) };
    frame.draw(&mut svg, label);
    for (k, line) in &lines {
        frame.line(&mut svg, line, series(*k), 2.0);
    }
    legend(&mut svg, 326.0, &names);
    let head: Vec<String> = std::iter::once("update".to_string())
        .chain(names.iter().map(|(_, name)| name.clone()))
        .collect();
    let longest = lines.iter().max_by_key(|(_, line)| line.len()).map(|(_, line)| line);
    let table = longest.into_iter().flat_map(|longest| {
        few(longest.len()).map(|k| {
            let update = longest[k].0;
            let at = |line: &[(f64, f64)]| {
                let value = line.iter().find(|point| (point.0 - update).abs() < 0.5);
                value.map_or(String::new(), |point| match is_loss {
                    true => short(point.1),
                    false => show(task, point.1),
                })
            };
            let values = lines.iter().map(|(_, line)| at(line));
            std::iter::once(short(update)).chain(values).collect()
        })
    });
    figure(
        &(svg + "</svg>"),
        "Medians over networks, averaged over a fiftieth of training. A line that still falls at its end \
         would gain from more updates.",
        &numbers(&head, table),
    )
}

fn steps_table(task: &dyn Task, all: &[(&'static str, TestTime)]) -> String {
    let head =
        ["start", "steps", "error", "work, of one showing", "seconds an episode"].map(String::from);
    let rows = all.iter().flat_map(|(start, found)| {
        TEST_TIME_STEPS.iter().zip(&found.errors).zip(&found.seconds).map(
            move |((steps, errors), seconds)| {
                #[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
                let work = (steps * found.per_step) as f64 / found.per_showing as f64;
                let error = task.error_text(mean(errors.iter().copied()));
                vec![
                    (*start).to_string(),
                    steps.to_string(),
                    error,
                    format!("{work:.2}"),
                    format!("{seconds:.5}"),
                ]
            },
        )
    });
    numbers(&head, rows)
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
        x: Axis::exact(0.0, place(TEST_TIME_STEPS.len() - 1), X),
        y: Axis::linear(0.0, high, [266.0, 16.0]),
        x_name: "gradient steps".into(),
        y_name: task.error_name().into(),
    };
    let mut names = vec![(series(0), "plastic networks, one showing (dashed)".to_string())];
    names.extend(
        gradient_steps
            .iter()
            .enumerate()
            .map(|(k, (start, _))| (series(k + 1), (*start).to_string())),
    );
    let rows = f64::from(u32::try_from(names.len()).unwrap_or(u32::MAX));
    let height = LEGEND.mul_add(rows, 310.0);
    let mut svg =
        sheet(WIDTH, height, "Error after gradient steps at test time", "a line for each start");
    frame.draw_without_x(&mut svg, |value| tick(*task, value));
    for (k, steps) in TEST_TIME_STEPS.iter().enumerate() {
        let x = frame.x.at(place(k));
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"284\" text-anchor=\"middle\">{steps}</text>");
    }
    let y = frame.y.at(plastic);
    let _ = writeln!(
        svg,
        "<line x1=\"{}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{}\" stroke-width=\"2\" \
         stroke-dasharray=\"6 4\"/>",
        X[0],
        X[1],
        series(0),
    );
    for (k, (_, found)) in gradient_steps.iter().enumerate() {
        let line: Vec<(f64, f64)> = found
            .errors
            .iter()
            .enumerate()
            .map(|(k, errors)| (place(k), mean(errors.iter().copied())))
            .collect();
        frame.line(&mut svg, &line, series(k + 1), 2.0);
    }
    legend(&mut svg, 326.0, &names);
    figure(
        &(svg + "</svg>"),
        "Where a line crosses the dashed one, gradient steps have caught up with plasticity.",
        &steps_table(*task, gradient_steps),
    )
}
