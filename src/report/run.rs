//! The page of a run.

use crate::error::bytes;
use crate::picture::Picture;
use crate::report::chart::capital;
use crate::report::curve::{Measure, curve_figure};
use crate::report::page::{escape, page, table};
use crate::report::picture::figures;
use crate::task::Task;
use crate::train::{Config, Outcome, Record};

/// What the page of a run shows.
#[derive(Clone, Copy)]
pub struct RunReport<'a> {
    /// What it is trained on.
    pub task: &'a dyn Task,
    /// The resolved configuration.
    pub config: &'a Config,
    /// `environment.json` of the run.
    pub environment: &'a serde_json::Value,
    /// Every record.
    pub records: &'a [Record],
    /// Scores, where the run came to its end.
    pub outcome: Option<&'a Outcome>,
    /// The error of the task's guess, where it has one.
    pub guess: Option<(&'a str, f64)>,
    /// Which run it is: its folder, date and seed.
    pub run: &'a str,
    /// Held-out episodes as pictures.
    pub samples: &'a [Picture],
}

/// The page: scores, curves with quartiles over networks, samples, timing, configuration.
#[must_use]
pub fn run_report(report: &RunReport<'_>) -> String {
    let RunReport { task, config, environment, records, .. } = *report;
    let show = |error: f64| task.error_text(error);
    let mut body = format!("<p class=\"note\">{}</p>\n", escape(report.run));
    match report.outcome {
        Some(outcome) => {
            let mut rows = Vec::new();
            for (name, scores) in
                [("plastic", &outcome.trained), ("plasticity off", &outcome.without_plasticity)]
            {
                rows.push((name.to_string(), scores.text(task)));
            }
            if let Some((name, error)) = report.guess {
                rows.push((name.into(), show(error)));
            }
            let each: Vec<String> = outcome.trained.per_network().into_iter().map(show).collect();
            if each.len() > 1 {
                rows.push(("each network".into(), each.join(", ")));
            }
            let episodes = task.scored_name();
            let note = match outcome.trained.interval_over() {
                "unknown" => String::new(),
                over => format!(", with its 95 % confidence interval over {over} (Student's t)"),
            };
            body += &format!(
                "<h2>{} on {episodes} episodes</h2>\n{}\n\
                 <p class=\"note\">Mean over networks and episodes{note}.</p>\n",
                escape(&capital(task.error_name())),
                table(&rows)
            );
        }
        None => body += "<p>The run has not come to its end.</p>\n",
    }
    if !report.samples.is_empty() {
        body += &format!(
            "<h2>Held-out episodes</h2>\n<p class=\"note\">{}</p>\n",
            escape(task.picture_caption())
        );
        body.extend(report.samples.iter().map(figures));
    }
    if records.len() > 1 {
        body += "<h2>Training</h2>\n<div class=\"charts\">\n";
        for (measure, title) in [
            (Measure::of_task(task), task.error_name()),
            (Measure::Loss, "loss"),
            (Measure::GradientNorm, "norm of the gradient"),
            (Measure::Eta, "plasticity rate eta"),
        ] {
            let is_loss = records.iter().all(|r| r.error.is_empty() && r.held_out.is_none());
            let doubled = measure == Measure::Loss && is_loss;
            let none = measure == Measure::Eta && records.iter().all(|r| r.eta == [0.0]);
            if !doubled && !none {
                body += &curve_figure(records, measure, title);
            }
        }
        body += "</div>\n";
    }
    let rollbacks: Vec<String> = records
        .iter()
        .flat_map(|record| &record.rollbacks)
        .map(|rollback| format!("<li>{}</li>", escape(&rollback.to_string())))
        .collect();
    if !rollbacks.is_empty() {
        body += &format!("<h2>Rollbacks</h2>\n<ul>{}</ul>\n", rollbacks.join("\n"));
    }
    let word = |key: &str| environment[key].as_str().unwrap_or("unknown").to_string();
    let mut rows = vec![
        ("device".to_string(), word("device")),
        ("driver".into(), word("driver")),
        ("plan".into(), word("plan")),
        (
            "memory needed".into(),
            environment["memory_needed"].as_u64().map_or("unknown".into(), bytes),
        ),
        ("system".into(), word("system")),
        ("version".into(), word("version")),
    ];
    if let Some(last) = records.last() {
        #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
        let episodes = last.episodes as f64 * last.loss.len() as f64;
        rows.push(("updates".into(), format!("{} of {}", last.update, config.updates)));
        rows.push(("seconds".into(), format!("{:.1}", last.seconds)));
        let pace = episodes / last.seconds.max(1e-9);
        rows.push(("pace".into(), format!("{pace:.1} episodes/s over all networks")));
    }
    body += &format!("<h2>Timing and device</h2>\n{}\n", table(&rows));
    body += &format!("<h2>Configuration</h2>\n<pre>{}</pre>\n", escape(&config.to_toml()));
    page(&format!("{}: training run", task.name()), &body)
}
