//! The page of `hebbian inspect`.

use std::fmt::Write;

use crate::model::{AlphaSharing, Network, Parameters, Rule, Tensor};
use crate::report::chart::{Axis, Frame, percent, sheet, short};
use crate::report::page::{escape, page, table};
use crate::report::picture::{data_url, diverging, png};
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
    body += "<h2>Distributions</h2>\n<p class=\"note\">How the connections' numbers lie before \
             training (line) and after it (bars).</p>\n<div class=\"pair\">\n";
    let tensors = [("alpha", Tensor::Alpha), ("w", Tensor::W)];
    for (name, tensor) in tensors.into_iter().skip(usize::from(shared)) {
        let (before, after) = (all(initial, tensor), all(parameters, tensor));
        let _ = writeln!(body, "<div>{}</div>", histogram(name, &before, &after));
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
        let _ = writeln!(
            body,
            "<h2>Joint density of w and alpha</h2>\n<figure>{}<figcaption>Each connection lies at its \
             w and alpha. A cloud along one diagonal means that both tend to have the same sign (or \
             the opposite one).</figcaption></figure>",
            joint(&w, &alpha),
        );
    }

    if network.rule == Rule::None {
        body += "<p>The rule is none: the trace H stays 0, and alpha H does nothing to w.</p>\n";
    } else {
        body += "<h2>What the plastic part alpha H does to w</h2>\n<p class=\"note\">Shares of all \
                 connections, over held-out episodes: alpha H has the sign of w and adds to it, has \
                 the other sign and takes from it, or is larger than w and turns its sign.</p>\n\
                 <div class=\"pair\">\n";
        let moments: Vec<String> = found.moments.iter().map(|t| format!("{t}")).collect();
        let over_time = effects("over an episode", "after step", &moments, &found.over_time);
        let _ = writeln!(body, "<div>{over_time}</div>");
        let n = found.by_size.len();
        let classes: Vec<String> =
            (1..=n).map(|k| format!("{}-{} %", 100 * (k - 1) / n, 100 * k / n)).collect();
        let name = "connections by |w|, the smallest first";
        let by_size = effects("at the end of an episode", name, &classes, &found.by_size);
        let _ = writeln!(body, "<div>{by_size}</div>\n</div>");
    }
    if !found.modulator.is_empty() {
        let _ = writeln!(
            body,
            "<h2>The neuromodulator</h2>\n<figure>{}<figcaption>m(t), the mean over the neurons of \
             network 0, in held-out episodes. Where it is 0 nothing is written into H; its sign turns \
             what is written.</figcaption></figure>",
            modulator(&found.modulator)
        );
    }

    if !shared {
        body += "<h2>Where alpha sits</h2>\n";
        let alpha = alpha_matrix(network, parameters, 0);
        let (m, n) = (network.n_pre, network.n_post);
        let _ = writeln!(
            body,
            "<figure>{}<figcaption>alpha of network 0: which connections are plastic. Rows are \
             pre-synaptic neurons, columns post-synaptic ones.</figcaption></figure>",
            map(&heat(&alpha, n), "post neuron", "pre neuron", n, m, reach(&alpha), 480.0, "alpha"),
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
                let _ = writeln!(
                    body,
                    "<figure>{}<figcaption>alpha from every pixel to the one at row {}, column {} \
                     ({name}): what that pixel is rebuilt from.</figcaption></figure>",
                    map(&image, "column", "row", width, rows, reach(&into), 240.0, "alpha"),
                    pixel / width,
                    pixel % width,
                );
            }
        }
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
        x: Axis::exact(-reach, reach, [78.0, 460.0]),
        y: Axis::linear(0.0, most, [206.0, 44.0]),
        x_name: name.into(),
        y_name: "connections".into(),
    };
    let mut svg = sheet(480.0, 256.0, &format!("{name} before and after training"), "A histogram.");
    let note = match beyond {
        0 => String::new(),
        n => format!("; {n} beyond \u{b1}{} not drawn", short(reach)),
    };
    let _ = writeln!(
        svg,
        "<text x=\"20\" y=\"18\" font-size=\"14\">{name}: before (line), after (bars){note}</text>"
    );
    frame.draw(&mut svg, percent);
    let edge = |k: usize| reach * (2.0 * k as f64 / BINS as f64 - 1.0);
    for (k, &share) in after.iter().enumerate() {
        let (left, right, y) = (frame.x.at(edge(k)), frame.x.at(edge(k + 1)), frame.y.at(share));
        let _ = writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
             fill=\"#1f5fa8\"/>",
            right - left - 0.6,
            frame.y.at(0.0) - y
        );
    }
    let middle = |k: usize| f64::midpoint(edge(k), edge(k + 1));
    let line: Vec<(f64, f64)> = before.iter().enumerate().map(|(k, &s)| (middle(k), s)).collect();
    frame.line(&mut svg, &line, "#d1495b", 2.0);
    svg + "</svg>"
}

/// m(t) of some episodes.
#[expect(clippy::cast_precision_loss, reason = "steps of a picture")]
fn modulator(episodes: &[Vec<f64>]) -> String {
    let steps = episodes.iter().map(Vec::len).max().unwrap_or(0);
    let all = || episodes.iter().flatten().copied();
    let (least, most) = (all().fold(0.0, f64::min), all().fold(0.0, f64::max));
    let frame = Frame {
        x: Axis::exact(0.0, steps as f64, [78.0, 700.0]),
        y: Axis::linear(least, most, [206.0, 20.0]),
        x_name: "step".into(),
        y_name: "m".into(),
    };
    let mut svg =
        sheet(720.0, 256.0, "The neuromodulator m over an episode", "One line an episode.");
    frame.draw(&mut svg, short);
    let colors = ["#1f5fa8", "#d1495b", "#2a7f62", "#b07a10"];
    for (episode, color) in episodes.iter().zip(colors.iter().cycle()) {
        let line: Vec<(f64, f64)> =
            episode.iter().enumerate().map(|(t, &m)| ((t + 1) as f64, m)).collect();
        frame.line(&mut svg, &line, color, 1.5);
    }
    svg + "</svg>"
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a level of grey"
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
    let rgb: Vec<u8> = counts
        .iter()
        .flat_map(|&count| [(255.0 - 230.0 * (1.0 + count as f64).ln() / scale) as u8; 3])
        .collect();
    let (x, y) = ([78.0, 478.0], [420.0, 20.0]);
    let frame = Frame {
        x: Axis::exact(-reach_w, reach_w, x),
        y: Axis::exact(-reach_alpha, reach_alpha, y),
        x_name: "w".into(),
        y_name: "alpha".into(),
    };
    let mut svg =
        sheet(580.0, 470.0, "Joint density of w and alpha", "Connections by w and alpha.");
    frame.draw(&mut svg, short);
    image(&mut svg, &png(BINS, &rgb), [x[0], y[1], x[1] - x[0], y[0] - y[1]]);
    bar(
        &mut svg,
        x[1] + 24.0,
        [y[1], y[0]],
        &["#191919", "#ffffff"],
        &[format!("{most}"), "0".into()],
    );
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"10\">connections (log)</text>",
        x[1] + 10.0,
        y[0] + 16.0
    );
    svg + "</svg>"
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

/// A colour bar from its top colour to its bottom one, with the numbers at its ends and between.
#[expect(clippy::cast_precision_loss, reason = "a few numbers")]
fn bar(svg: &mut String, x: f64, [top, bottom]: [f64; 2], colors: &[&str], numbers: &[String]) {
    let id = format!("bar{}", colors.len());
    let last = (colors.len() - 1) as f64;
    let stops = colors.iter().enumerate().map(|(k, color)| {
        format!("<stop offset=\"{:.2}\" stop-color=\"{color}\"/>", k as f64 / last)
    });
    let _ = writeln!(
        svg,
        "<defs><linearGradient id=\"{id}\" x1=\"0\" y1=\"0\" x2=\"0\" y2=\"1\">{}\
         </linearGradient></defs><rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"12\" height=\"{:.1}\" \
         fill=\"url(#{id})\" stroke=\"#888\"/>",
        stops.collect::<String>(),
        bottom - top
    );
    let last = (numbers.len() - 1) as f64;
    for (k, number) in numbers.iter().enumerate() {
        let y = top + (bottom - top) * k as f64 / last;
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{number}</text>", x + 16.0, y + 4.0);
    }
}

/// A matrix with `n` columns in colours, averaged where it is larger than a screen.
fn heat(values: &[f32], n: usize) -> Vec<u8> {
    const MOST: usize = 512;
    let scale = n.div_ceil(MOST);
    let rows = values.len() / n;
    let full = reach(values);
    let (wide, high) = (n.div_ceil(scale), rows.div_ceil(scale));
    let mut rgb = Vec::with_capacity(3 * wide * high);
    for y in 0..high {
        for x in 0..wide {
            let (mut sum, mut count) = (0.0, 0.0);
            for row in y * scale..((y + 1) * scale).min(rows) {
                for value in &values[row * n + x * scale..row * n + ((x + 1) * scale).min(n)] {
                    sum += f64::from(*value);
                    count += 1.0;
                }
            }
            rgb.extend(diverging(sum / count / full));
        }
    }
    png(wide, &rgb)
}

/// A map of `columns` by `rows` numbers, row 0 at the top, with its axes and colours.
#[expect(clippy::cast_precision_loss, reason = "a picture's coordinates")]
#[expect(clippy::too_many_arguments, reason = "what a map says")]
fn map(
    png: &[u8],
    x_name: &str,
    y_name: &str,
    columns: usize,
    rows: usize,
    reach: f64,
    width: f64,
    what: &str,
) -> String {
    let height = width * rows as f64 / columns as f64;
    let (x, y) = ([60.0, 60.0 + width], [16.0 + height, 16.0]);
    let frame = Frame {
        x: Axis::exact(0.0, columns as f64, x),
        y: Axis::exact(0.0, rows as f64, [y[1], y[0]]),
        x_name: x_name.into(),
        y_name: y_name.into(),
    };
    let title = format!("{what} by {y_name} and {x_name}");
    let description = format!("Red positive, blue negative, full at {}.", short(reach));
    let mut svg = sheet(width + 140.0, height + 66.0, &title, &description);
    // as wide on the page as it is drawn
    svg = svg.replacen("<svg ", &format!("<svg width=\"{}\" ", width + 140.0), 1);
    image(&mut svg, png, [x[0], y[1], width, height]);
    Frame { y: Axis::exact(0.0, rows as f64, [y[0], y[1]]), ..frame }.draw_down(&mut svg);
    let numbers = [format!("+{}", short(reach)), "0".into(), format!("-{}", short(reach))];
    bar(&mut svg, x[1] + 18.0, [y[1], y[0]], &["#be2d3c", "#ffffff", "#1f5fa8"], &numbers);
    svg + "</svg>"
}

/// Stacked bars.
#[expect(clippy::cast_precision_loss, reason = "a few bars")]
fn effects(title: &str, x_name: &str, names: &[String], effects: &[Effect]) -> String {
    let frame = Frame {
        x: Axis::exact(0.0, effects.len().max(1) as f64, [78.0, 470.0]),
        y: Axis::exact(0.0, 1.0, [206.0, 56.0]),
        x_name: x_name.into(),
        y_name: "connections".into(),
    };
    let mut svg = sheet(480.0, 256.0, &format!("alpha H and w {title}"), "Stacked shares.");
    let _ = writeln!(svg, "<text x=\"20\" y=\"18\" font-size=\"14\">{title}</text>");
    frame.draw_without_x(&mut svg, percent);
    let parts =
        [("#2a7f62", "adds to w"), ("#e0a030", "takes from it"), ("#d1495b", "turns its sign")];
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
            "<text x=\"{:.1}\" y=\"222\" text-anchor=\"middle\" font-size=\"10\">{name}</text>",
            f64::midpoint(left, right)
        );
    }
    for (k, (color, what)) in parts.iter().enumerate() {
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"40\"><tspan fill=\"{color}\">&#9632;</tspan> {what}</text>",
            80 + 120 * k
        );
    }
    svg + "</svg>"
}
