//! The page of `hebbian inspect`.

use std::fmt::Write;

use crate::model::{AlphaSharing, Network, Parameters, Rule, Tensor};
use crate::report::chart::{Axis, Frame, LEGEND, WIDTH, X, legend, percent, sheet, short};
use crate::report::page::{csv, escape, few, figure, numbers, page, table};
use crate::report::picture::{clear, data_url, diverging};
use crate::report::style::{color, rgb, series};
use crate::train::{Effect, Estimate, Inspection, alpha_matrix};

const BINS: usize = 61;

/// The page: distributions of alpha and w before and after, their joint density, agreement
/// of signs, what the plastic part does to w in real episodes, where alpha sits, eta, the
/// spectrum of H. `width` is the width of the pictures that the neurons stand for, if they
/// do.
#[must_use]
pub fn inspect_report(
    title: &str,
    run: &str,
    network: &Network,
    parameters: &Parameters<f32>,
    initial: &Parameters<f32>,
    found: &Inspection,
    width: Option<usize>,
) -> String {
    let mut body = format!(
        "<p class=\"note\">{}. {}</p>\n",
        escape(run),
        match network.n_networks {
            1 => "One network, so there are no intervals over networks.".into(),
            n => format!("{n} networks; intervals are of 95 % over networks (Student's t)."),
        }
    );
    body += "<h2>Do w and alpha point the same way?</h2>\n";
    let estimate = |e: Estimate| e.text(|share| format!("{:.2} %", 100.0 * share));
    body += &table(&[
        ("same sign".into(), estimate(found.same_sign)),
        ("were the signs independent".into(), estimate(found.same_sign_if_independent)),
        ("weighted by |w alpha|".into(), estimate(found.same_sign_weighted)),
        ("were the signs independent".into(), estimate(found.same_sign_weighted_if_independent)),
    ]);

    let all = |of: &Parameters<f32>, tensor| -> Vec<f32> {
        (0..network.n_networks).flat_map(|p| of.get(p, tensor)).copied().collect()
    };
    let shared = network.alpha == AlphaSharing::PerNetwork;
    body += "<h2>Distributions</h2>\n<div class=\"charts\">\n";
    let tensors = [("alpha", Tensor::Alpha), ("w", Tensor::W)];
    for (name, tensor) in tensors.into_iter().skip(usize::from(shared)) {
        let (before, after) = (all(initial, tensor), all(parameters, tensor));
        let _ = writeln!(body, "{}", histogram(name, &before, &after));
    }
    body += "</div>\n";
    let w: Vec<f32> = all(parameters, Tensor::W);
    if shared {
        let alphas = all(parameters, Tensor::Alpha);
        let alphas: Vec<String> = alphas.iter().map(|&v| short(f64::from(v))).collect();
        let list = alphas.join(", ");
        let _ = writeln!(body, "<p>alpha is one number a network: {list}.</p>");
    } else {
        let alpha: Vec<f32> =
            (0..network.n_networks).flat_map(|p| alpha_matrix(network, parameters, p)).collect();
        let _ = writeln!(body, "<h2>Joint density of w and alpha</h2>\n{}", joint(&w, &alpha),);
    }

    if network.rule == Rule::None {
        body += "<p>The rule is none: the trace H stays 0, and alpha H does nothing to w.</p>\n";
    } else {
        body += "<h2>What the plastic part alpha H does to w</h2>\n<p class=\"note\">Shares of all \
                 connections, over held-out episodes: alpha H has the sign of w and adds to it, has \
                 the other sign and takes from it, or is larger than w and turns its sign.</p>\n\
                 <div class=\"charts\">\n";
        let moments: Vec<String> = found.moments.iter().map(|t| format!("{t}")).collect();
        body += &effects("over an episode", "after step", &moments, &found.over_time);
        let n = found.by_size.len();
        let classes: Vec<String> =
            (1..=n).map(|k| format!("{}-{} %", 100 * (k - 1) / n, 100 * k / n)).collect();
        let name = "connections by |w|, the smallest first";
        body += &effects("at the end of an episode", name, &classes, &found.by_size);
        body += "</div>\n";
    }
    if !found.modulator.is_empty() {
        let _ = writeln!(body, "<h2>The neuromodulator</h2>\n{}", modulator(&found.modulator));
    }

    if !shared {
        body += "<h2>Where alpha sits</h2>\n";
        let alpha = alpha_matrix(network, parameters, 0);
        let (m, n) = (network.n_pre, network.n_post);
        body += "<div class=\"charts\">\n";
        body += &figure(
            &map(&heat(&alpha, n), "post neuron", "pre neuron", n, m, reach(&alpha), "alpha"),
            "alpha of network 0: the connections in full colour are the plastic ones. Rows are pre-synaptic \
             neurons, columns post-synaptic ones; stripes are neurons that all others write to or read. \
             hebbian export RUN --npz FILE holds every number.",
            &numbers(&["share of connections".into(), "alpha below".into()], quantiles(&alpha)),
        );
        if let Some(width) = width {
            let pixels = n - 1;
            for (name, pixel) in [
                ("in the middle", pixels / 2 + width / 2),
                ("a quarter down", pixels / 4 / width * width + width / 4),
            ] {
                let into: Vec<f32> = (0..pixels.min(m)).map(|pre| alpha[pre * n + pixel]).collect();
                let rows = into.len().div_ceil(width);
                let image = heat(&into, width);
                let (row, column) = (pixel / width, pixel % width);
                let values = into.chunks(width);
                let values = values.map(|row| row.iter().map(f32::to_string).collect());
                body += &figure(
                    &map(&image, "column", "row", width, rows, reach(&into), "alpha"),
                    &format!(
                        "alpha from every pixel to the one at row {row}, column {column} ({name}): that \
                         pixel is rebuilt from what stands in full colour."
                    ),
                    &csv(&format!("alpha-to-{row}-{column}"), values),
                );
            }
        }
        body += "</div>\n";
    }

    body += "<h2>Eta, drift, spectrum of H</h2>\n";
    let list = |values: &[f64]| values.iter().map(|&v| short(v)).collect::<Vec<_>>().join(", ");
    let shares: Vec<String> =
        found.spectrum.iter().map(|s| format!("{:.1} %", 100.0 * s)).collect();
    body += &table(&[
        ("eta of each network".into(), list(&found.eta)),
        ("|w - w0| / |w0|".into(), list(&found.drift_w)),
        ("|alpha - alpha0| / |alpha0|".into(), list(&found.drift_alpha)),
        (
            "largest singular values of H at the end of an episode, over its norm".into(),
            shares.join(", "),
        ),
    ]);
    page(title, &body)
}

/// The size that 99.5 % of the values stay below, so that a few do not squeeze the rest.
fn reach(values: &[f32]) -> f64 {
    let mut sizes: Vec<f32> = values.iter().map(|v| v.abs()).collect();
    sizes.sort_by(f32::total_cmp);
    let at = (sizes.len() * 995 / 1000).min(sizes.len().saturating_sub(1));
    sizes.get(at).map_or(1.0, |&v| f64::from(v)).max(1e-12)
}

/// Some quantiles of a tensor, a row each.
fn quantiles(values: &[f32]) -> impl Iterator<Item = Vec<String>> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    [0, 5, 50, 250, 500, 750, 950, 995, 1000].into_iter().map(move |thousandths: usize| {
        let at = sorted.len().saturating_sub(1) * thousandths / 1000;
        let value = sorted.get(at).map_or(0.0, |&v| f64::from(v));
        vec![format!("{} %", thousandths as f64 / 10.0), short(value)]
    })
}

/// The bin of a value among [`BINS`] from -reach to reach; none of one beyond.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a bin"
)]
fn bin(value: f32, reach: f64) -> Option<usize> {
    let share = f64::from(value) / reach;
    let at = ((share + 1.0) / 2.0 * BINS as f64).floor();
    (share.abs() <= 1.0).then(|| (at as usize).min(BINS - 1))
}

#[expect(clippy::cast_precision_loss, reason = "counts in a picture")]
fn histogram(name: &str, before: &[f32], after: &[f32]) -> String {
    let reach = reach(after).max(reach(before));
    let count = |values: &[f32]| {
        let mut bins = [0.0; BINS];
        let inside = values.iter().filter_map(|&v| bin(v, reach));
        inside.for_each(|k| bins[k] += 1.0 / values.len() as f64);
        bins
    };
    let beyond = after.iter().filter(|&&v| bin(v, reach).is_none()).count();
    let (before, after) = (count(before), count(after));
    let most = before.iter().chain(&after).copied().fold(1e-12, f64::max);
    let frame = Frame {
        x: Axis::exact(-reach, reach, X),
        y: Axis::linear(0.0, most, [226.0, 16.0]),
        x_name: name.into(),
        y_name: "share of connections".into(),
    };
    let mut svg = sheet(
        WIDTH,
        LEGEND.mul_add(2.0, 270.0),
        &format!("{name} before and after training"),
        "A histogram.",
    );
    legend(
        &mut svg,
        286.0,
        &[(series(1), "before training (line)".into()), (series(0), "after it (bars)".into())],
    );
    frame.draw(&mut svg, percent);
    let edge = |k: usize| reach * (2.0 * k as f64 / BINS as f64 - 1.0);
    for (k, &share) in after.iter().enumerate() {
        let (left, right, y) = (frame.x.at(edge(k)), frame.x.at(edge(k + 1)), frame.y.at(share));
        let _ = writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
             fill=\"{}\"/>",
            right - left - 0.6,
            frame.y.at(0.0) - y,
            series(0)
        );
    }
    let middle = |k: usize| f64::midpoint(edge(k), edge(k + 1));
    let line: Vec<(f64, f64)> = before.iter().enumerate().map(|(k, &s)| (middle(k), s)).collect();
    frame.line(&mut svg, &line, series(1), 2.0);
    let note = match beyond {
        0 => String::new(),
        n => format!(" {n} beyond \u{b1}{} are not drawn.", short(reach)),
    };
    let rows = (0..BINS).map(|k| {
        let [from, to] = [edge(k), edge(k + 1)].map(short);
        vec![format!("{from} to {to}"), percent(before[k]), percent(after[k])]
    });
    figure(
        &(svg + "</svg>"),
        &format!("What training moved: tails that grew are connections that it made use of.{note}"),
        &numbers(&[name, "before", "after"].map(String::from), rows),
    )
}

/// m(t) of some episodes.
#[expect(clippy::cast_precision_loss, reason = "steps of a picture")]
fn modulator(episodes: &[Vec<f64>]) -> String {
    let steps = episodes.iter().map(Vec::len).max().unwrap_or(0);
    let all = || episodes.iter().flatten().copied();
    let (least, most) = (all().fold(0.0, f64::min), all().fold(0.0, f64::max));
    let frame = Frame {
        x: Axis::exact(0.0, steps as f64, X),
        y: Axis::linear(least, most, [226.0, 16.0]),
        x_name: "step".into(),
        y_name: "m".into(),
    };
    let mut svg =
        sheet(WIDTH, 272.0, "The neuromodulator m over an episode", "One line an episode.");
    frame.draw(&mut svg, short);
    for (k, episode) in episodes.iter().enumerate() {
        let line: Vec<(f64, f64)> =
            episode.iter().enumerate().map(|(t, &m)| ((t + 1) as f64, m)).collect();
        frame.line(&mut svg, &line, series(k), 1.5);
    }
    let head: Vec<String> = std::iter::once("step".to_string())
        .chain((1..=episodes.len()).map(|k| format!("episode {k}")))
        .collect();
    let rows = few(steps).map(|t| {
        let values =
            episodes.iter().map(|episode| episode.get(t).map_or(String::new(), |&m| short(m)));
        std::iter::once((t + 1).to_string()).chain(values).collect()
    });
    figure(
        &(svg + "</svg>"),
        "m(t), the mean over the neurons of network 0, in held-out episodes, a line each. Where it is 0 \
         nothing is written into H; its sign turns what is written.",
        &numbers(&head, rows),
    )
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a level of colour"
)]
fn joint(w: &[f32], alpha: &[f32]) -> String {
    let (reach_w, reach_alpha) = (reach(w), reach(alpha));
    let mut counts = vec![0usize; BINS * BINS];
    for (&w, &alpha) in w.iter().zip(alpha) {
        if let (Some(row), Some(column)) = (bin(alpha, reach_alpha), bin(w, reach_w)) {
            counts[(BINS - 1 - row) * BINS + column] += 1;
        }
    }
    let most = counts.iter().copied().max().unwrap_or(0);
    let scale = (1.0 + most as f64).ln();
    let [red, green, blue] = rgb("low");
    let dots: Vec<u8> = counts
        .iter()
        .flat_map(|&count| {
            let opacity = 255.0 * (1.0 + count as f64).ln() / scale;
            [red, green, blue, opacity as u8]
        })
        .collect();
    let (x, y) = ([X[0], 400.0], [340.0, 16.0]);
    let frame = Frame {
        x: Axis::exact(-reach_w, reach_w, x),
        y: Axis::exact(-reach_alpha, reach_alpha, y),
        x_name: "w".into(),
        y_name: "alpha".into(),
    };
    let mut svg =
        sheet(WIDTH, 386.0, "Joint density of w and alpha", "Connections by w and alpha.");
    frame.draw(&mut svg, short);
    image(&mut svg, &clear(BINS, &dots), [x[0], y[1], x[1] - x[0], y[0] - y[1]]);
    bar(
        &mut svg,
        x[1] + 14.0,
        [y[1], y[0]],
        &[("low", 1.0), ("low", 0.0)],
        &[format!("{most}"), "0".into()],
    );
    let cells = counts.chunks(BINS).map(|row| row.iter().map(usize::to_string).collect());
    figure(
        &(svg + "</svg>"),
        "Each connection lies at its w and alpha; colours count them, logarithmically. A cloud along one \
         diagonal means that both tend to have the same sign (or the opposite one).",
        &csv("w-alpha", cells),
    )
}

/// A picture in a sheet, at left, top, width and height.
fn image(svg: &mut String, png: &[u8], [x, y, width, height]: [f64; 4]) {
    let _ = writeln!(
        svg,
        "<image x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" \
         preserveAspectRatio=\"none\" style=\"image-rendering: pixelated\" href=\"{}\"/>",
        data_url(png)
    );
}

/// A bar of colours and opacities from its top to its bottom, with the numbers at its ends and between. Its
/// colours stay on dark ground, as those of the pictures beside it do.
#[expect(clippy::cast_precision_loss, reason = "a few numbers")]
fn bar(
    svg: &mut String,
    x: f64,
    [top, bottom]: [f64; 2],
    stops: &[(&str, f64)],
    numbers: &[String],
) {
    let id = format!("bar{}", stops.len());
    let last = (stops.len() - 1) as f64;
    let stops = stops.iter().enumerate().map(|(k, (name, opacity))| {
        format!(
            "<stop offset=\"{:.2}\" style=\"stop-color:{};stop-opacity:{opacity}\"/>",
            k as f64 / last,
            color(name)
        )
    });
    let _ = writeln!(
        svg,
        "<defs><linearGradient id=\"{id}\" x1=\"0\" y1=\"0\" x2=\"0\" y2=\"1\">{}\
         </linearGradient></defs><rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"12\" height=\"{:.1}\" \
         fill=\"url(#{id})\" stroke=\"{}\"/>",
        stops.collect::<String>(),
        bottom - top,
        color("line"),
    );
    let last = (numbers.len() - 1) as f64;
    for (k, number) in numbers.iter().enumerate() {
        let y = top + (bottom - top) * k as f64 / last;
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{number}</text>", x + 16.0, y + 5.0);
    }
}

/// A matrix with `n` columns in colours, averaged where it is larger than a screen.
fn heat(values: &[f32], n: usize) -> Vec<u8> {
    const MOST: usize = 512;
    let scale = n.div_ceil(MOST);
    let rows = values.len() / n;
    let full = reach(values);
    let (wide, high) = (n.div_ceil(scale), rows.div_ceil(scale));
    let mut dots = Vec::with_capacity(4 * wide * high);
    for y in 0..high {
        for x in 0..wide {
            let (mut sum, mut count) = (0.0, 0.0);
            for row in y * scale..((y + 1) * scale).min(rows) {
                for value in &values[row * n + x * scale..row * n + ((x + 1) * scale).min(n)] {
                    sum += f64::from(*value);
                    count += 1.0;
                }
            }
            dots.extend(diverging(sum / count / full));
        }
    }
    clear(wide, &dots)
}

/// A map of `columns` by `rows` numbers, row 0 at the top, with its axes and colours.
#[expect(clippy::cast_precision_loss, reason = "a picture's coordinates")]
fn map(
    png: &[u8],
    x_name: &str,
    y_name: &str,
    columns: usize,
    rows: usize,
    reach: f64,
    what: &str,
) -> String {
    let x = [60.0, 384.0];
    let width = x[1] - x[0];
    let height = width * rows as f64 / columns as f64;
    let y = [16.0 + height, 16.0];
    let frame = Frame {
        x: Axis::exact(0.0, columns as f64, x),
        y: Axis::exact(0.0, rows as f64, [y[1], y[0]]),
        x_name: x_name.into(),
        y_name: y_name.into(),
    };
    let title = format!("{what} by {y_name} and {x_name}");
    let description = format!("Orange positive, blue negative, full at {}.", short(reach));
    let mut svg = sheet(WIDTH, height + 66.0, &title, &description);
    image(&mut svg, png, [x[0], y[1], width, height]);
    Frame { y: Axis::exact(0.0, rows as f64, [y[0], y[1]]), ..frame }.draw_down(&mut svg);
    let numbers = [format!("+{}", short(reach)), "0".into(), format!("-{}", short(reach))];
    // opacity grows as the root
    let stops: Vec<(&str, f64)> = (-8..=8)
        .map(|k: i32| {
            let share = f64::from(k) / 8.0;
            (if share > 0.0 { "low" } else { "high" }, share.abs().sqrt())
        })
        .collect();
    bar(&mut svg, x[1] + 14.0, [y[1], y[0]], &stops, &numbers);
    svg + "</svg>"
}

/// Stacked bars.
#[expect(clippy::cast_precision_loss, reason = "a few bars")]
fn effects(title: &str, x_name: &str, names: &[String], effects: &[Effect]) -> String {
    let frame = Frame {
        x: Axis::exact(0.0, effects.len().max(1) as f64, X),
        y: Axis::exact(0.0, 1.0, [226.0, 36.0]),
        x_name: x_name.into(),
        y_name: "share of connections".into(),
    };
    let height = LEGEND.mul_add(3.0, 270.0);
    let mut svg = sheet(WIDTH, height, &format!("alpha H and w {title}"), "Stacked shares.");
    let _ = writeln!(svg, "<text x=\"10\" y=\"22\" font-size=\"16\">alpha H and w {title}</text>");
    frame.draw_without_x(&mut svg, percent);
    let parts =
        [(series(0), "adds to w"), (series(3), "takes from it"), (series(1), "turns its sign")];
    for (k, (name, effect)) in names.iter().zip(effects).enumerate() {
        let (left, right) = (frame.x.at(k as f64), frame.x.at((k + 1) as f64));
        let mut below = 0.0;
        let shares = [effect.amplifies, effect.attenuates, effect.turns];
        for (share, (color, what)) in shares.into_iter().zip(parts) {
            let (top, bottom) = (frame.y.at(below + share), frame.y.at(below));
            below += share;
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
                 fill=\"{color}\"><title>{name}: {} {what}</title></rect>",
                left + 3.0,
                right - left - 6.0,
                bottom - top,
                percent(share)
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"244\" text-anchor=\"middle\" font-size=\"12\">{name}</text>",
            f64::midpoint(left, right)
        );
    }
    legend(&mut svg, 286.0, &parts.map(|(color, what)| (color, what.to_string())));
    let head = [x_name, parts[0].1, parts[1].1, parts[2].1].map(String::from);
    let rows = names.iter().zip(effects).map(|(name, effect)| {
        let shares = [effect.amplifies, effect.attenuates, effect.turns].map(percent);
        std::iter::once(name.clone()).chain(shares).collect()
    });
    figure(
        &(svg + "</svg>"),
        "Where the lowest part is above a half, the memory works with w rather than against it. What turns \
         signs is stronger than w: the network is another one for a while.",
        &numbers(&head, rows),
    )
}
