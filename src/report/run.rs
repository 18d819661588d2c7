//! The page of a run.

use crate::error::bytes;
use crate::report::curve::{Measure, capital, curve};
use crate::report::page::{escape, page, table};
use crate::report::picture::figures;
use crate::task::Picture;
use crate::train::{Config, Outcome, Record};

/// What the page of a run shows.
#[derive(Clone, Copy, Debug)]
pub struct RunReport<'a> {
    /// The task's name.
    pub task: &'a str,
    /// What its error measures.
    pub error_name: &'a str,
    /// The resolved configuration.
    pub config: &'a Config,
    /// `environment.json` of the run.
    pub environment: &'a serde_json::Value,
    /// Every record.
    pub records: &'a [Record],
    /// Held-out scores, where the run came to its end.
    pub outcome: Option<&'a Outcome>,
    /// The error of the task's guess, where it has one.
    pub guess: Option<(&'a str, f64)>,
    /// Held-out episodes as pictures.
    pub samples: &'a [Picture],
}

/// The page: scores, curves with quartiles over networks, samples, timing, configuration.
#[must_use]
pub fn run_report(report: &RunReport<'_>) -> String {
    let RunReport { task, error_name, config, environment, records, .. } = *report;
    let is_share = error_name != "loss";
    let show = |value: f64| {
        if is_share { format!("{:.2} %", 100.0 * value) } else { format!("{value:.5}") }
    };
    let mut body = String::new();
    match report.outcome {
        Some(outcome) => {
            let mut rows = Vec::new();
            for (name, scores) in
                [("plastic", &outcome.trained), ("plasticity off", &outcome.without_plasticity)]
            {
                let text = format!("{} \u{b1} {}", show(scores.mean()), show(scores.ci95()));
                rows.push((name.to_string(), text));
            }
            if let Some((name, error)) = report.guess {
                rows.push((name.into(), show(error)));
            }
            let each: Vec<String> = outcome.trained.per_network().into_iter().map(show).collect();
            if each.len() > 1 {
                rows.push(("each network".into(), each.join(", ")));
            }
            body += &format!(
                "<h2>{} on held-out episodes</h2>\n{}\n\
                 <p class=\"note\">Mean over networks and episodes, with its 95 % confidence \
                 interval over episodes.</p>\n",
                escape(&capital(error_name)),
                table(&rows)
            );
        }
        None => body += "<p>The run has not come to its end.</p>\n",
    }
    if !report.samples.is_empty() {
        body += "<h2>Held-out episodes</h2>\n\
                 <p class=\"note\">What was shown, what was left of it in the test, what the \
                 network made of that, and what was wanted.</p>\n";
        body.extend(report.samples.iter().map(|sample| figures(sample, 110)));
    }
    if records.len() > 1 {
        body += "<h2>Training</h2>\n<div class=\"pair\">\n";
        for (measure, title) in [
            (Measure::Error, error_name),
            (Measure::Loss, "loss"),
            (Measure::GradientNorm, "norm of the gradient"),
            (Measure::Eta, "plasticity rate eta"),
        ] {
            let doubled = measure == Measure::Loss && !is_share;
            let none = measure == Measure::Eta && records.iter().all(|r| r.eta == [0.0]);
            if !doubled && !none {
                body += &format!("<div>{}</div>\n", curve(records, measure, title));
            }
        }
        body += "</div>\n";
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
    page(&format!("{task}: training run"), &body)
}
