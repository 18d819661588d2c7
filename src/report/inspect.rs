//! The page of `hebbian inspect`.

use std::fmt::Write;

use crate::model::{Network, Parameters, Tensor};
use crate::report::curve::short;
use crate::report::page::{page, table};
use crate::report::picture::{diverging, inline, png};
use crate::train::{Effect, Estimate, Inspection, alpha_matrix};

const BINS: usize = 61;

/// The page: distributions of alpha and w before and after, their joint density, agreement
/// of signs, what the plastic part does to w in real episodes, where alpha sits, eta, the
/// spectrum of H. `width` is the width of the pictures that the neurons stand for, if they
/// do.
#[must_use]
pub fn inspect_report(
    task: &str,
    network: &Network,
    parameters: &Parameters<f32>,
    initial: &Parameters<f32>,
    found: &Inspection,
    width: Option<usize>,
) -> String {
    let mut body = format!(
        "<p class=\"note\">{}</p>\n",
        match network.n_networks {
            1 => "One network, so there are no intervals over networks.".into(),
            n => format!("{n} networks; intervals are of 95 % over networks (Student's t)."),
        }
    );
    body += "<h2>Do w and alpha point the same way?</h2>\n";
    let percent = |e: Estimate| e.text(|share| format!("{:.2} %", 100.0 * share));
    body += &table(&[
        ("same sign".into(), percent(found.same_sign)),
        ("were the signs independent".into(), percent(found.same_sign_if_independent)),
        ("weighted by |w alpha|".into(), percent(found.same_sign_weighted)),
        ("were the signs independent".into(), percent(found.same_sign_weighted_if_independent)),
    ]);

    let all = |of: &Parameters<f32>, tensor| -> Vec<f32> {
        (0..network.n_networks).flat_map(|p| of.get(p, tensor)).copied().collect()
    };
    body += "<h2>Distributions</h2>\n<div class=\"pair\">\n";
    for (name, tensor) in [("alpha", Tensor::Alpha), ("w", Tensor::W)] {
        let (before, after) = (all(initial, tensor), all(parameters, tensor));
        let _ = writeln!(body, "<div>{}</div>", histogram(name, &before, &after));
    }
    body += "</div>\n";
    let w: Vec<f32> = all(parameters, Tensor::W);
    let alpha: Vec<f32> =
        (0..network.n_networks).flat_map(|p| alpha_matrix(network, parameters, p)).collect();
    let _ = writeln!(
        body,
        "<h2>Joint density of w and alpha</h2>\n<figure>{}<figcaption>w from left (-{}) to right, \
         alpha from bottom (-{}) to top; darker: more connections, on a logarithmic scale\
         </figcaption></figure>",
        joint(&w, &alpha),
        short(reach(&w)),
        short(reach(&alpha)),
    );

    body += "<h2>What the plastic part alpha H does to w</h2>\n<div class=\"pair\">\n";
    let moments: Vec<String> = found.moments.iter().map(|t| format!("step {t}")).collect();
    let _ = writeln!(body, "<div>{}</div>", effects("over an episode", &moments, &found.over_time));
    let classes: Vec<String> = (1..=found.by_size.len())
        .map(|k| {
            format!("{}-{} %", 100 * (k - 1) / found.by_size.len(), 100 * k / found.by_size.len())
        })
        .collect();
    let title = "at the end, by |w| from the smallest to the largest";
    let _ = writeln!(body, "<div>{}</div>\n</div>", effects(title, &classes, &found.by_size));

    body += "<h2>Where alpha sits</h2>\n";
    let alpha = alpha_matrix(network, parameters, 0);
    let (m, n) = (network.n_pre, network.n_post);
    let _ = writeln!(
        body,
        "<figure>{}<figcaption>alpha of network 0, pre neuron by row, post neuron by column; red \
         positive, blue negative, full at \u{b1}{}</figcaption></figure>",
        heat(&alpha, n, 480),
        short(reach(&alpha)),
    );
    if let Some(width) = width {
        let pixels = n - 1;
        for (name, pixel) in [
            ("in the middle", pixels / 2 + width / 2),
            ("a quarter down", pixels / 4 / width * width + width / 4),
        ] {
            let into: Vec<f32> = (0..pixels.min(m)).map(|pre| alpha[pre * n + pixel]).collect();
            let _ = writeln!(
                body,
                "<figure>{}<figcaption>alpha from every pixel to the one at row {}, column {} \
                 ({name})</figcaption></figure>",
                heat(&into, width, 220),
                pixel / width,
                pixel % width,
            );
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
    page(&format!("{task}: what was learned"), &body)
}

/// The size that 99.5 % of the values stay below, so that a few do not squeeze the rest.
fn reach(values: &[f32]) -> f64 {
    let mut sizes: Vec<f32> = values.iter().map(|v| v.abs()).collect();
    sizes.sort_by(f32::total_cmp);
    let at = (sizes.len() * 995 / 1000).min(sizes.len().saturating_sub(1));
    sizes.get(at).map_or(1.0, |&v| f64::from(v)).max(1e-12)
}

/// The bin of a value among [`BINS`] from -reach to reach; the ends take what is beyond.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a bin"
)]
fn bin(value: f32, reach: f64) -> usize {
    let share = (f64::from(value) / reach).clamp(-1.0, 1.0);
    (((share + 1.0) / 2.0) * (BINS - 1) as f64).round() as usize
}

#[expect(clippy::cast_precision_loss, reason = "counts in a picture")]
fn histogram(name: &str, before: &[f32], after: &[f32]) -> String {
    let reach = reach(after).max(reach(before));
    let count = |values: &[f32]| {
        let mut bins = [0.0; BINS];
        values.iter().for_each(|&v| bins[bin(v, reach)] += 1.0 / values.len() as f64);
        bins
    };
    let (before, after) = (count(before), count(after));
    let most = before.iter().chain(&after).copied().fold(1e-12, f64::max);
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 480 220\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n",
    );
    for (k, &share) in after.iter().enumerate() {
        let height = 160.0 * share / most;
        let x = 20.0 + 440.0 * k as f64 / BINS as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"6.6\" height=\"{height:.1}\" fill=\"#1f5fa8\"/>",
            190.0 - height
        );
    }
    let line: Vec<String> = before
        .iter()
        .enumerate()
        .map(|(k, share)| {
            let x = 23.0 + 440.0 * k as f64 / BINS as f64;
            format!("{x:.1},{:.1}", 190.0 - 160.0 * share / most)
        })
        .collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#d1495b\" stroke-width=\"2\"/>\
         <text x=\"20\" y=\"16\" font-size=\"14\">{name}: before (line), after (bars)</text>\
         <text x=\"20\" y=\"208\">-{r}</text><text x=\"236\" y=\"208\">0</text>\
         <text x=\"460\" y=\"208\" text-anchor=\"end\">{r}</text></svg>",
        line.join(" "),
        r = short(reach),
    );
    svg
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
        counts[(BINS - 1 - bin(alpha, reach_alpha)) * BINS + bin(w, reach_w)] += 1;
    }
    let most = (1.0 + counts.iter().copied().max().unwrap_or(0) as f64).ln();
    let rgb: Vec<u8> = counts
        .iter()
        .flat_map(|&count| [(255.0 - 230.0 * (1.0 + count as f64).ln() / most) as u8; 3])
        .collect();
    inline(&png(BINS, &rgb), "joint density of w and alpha", 420)
}

/// A matrix with `n` columns in colours, averaged where it is larger than a screen.
fn heat(values: &[f32], n: usize, width: usize) -> String {
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
    inline(&png(wide, &rgb), "alpha in colours", width)
}

/// Stacked bars.
#[expect(clippy::cast_precision_loss, reason = "a few bars")]
fn effects(title: &str, names: &[String], effects: &[Effect]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 480 240\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <text x=\"10\" y=\"16\" font-size=\"14\">{title}</text>\n"
    );
    let step = 460.0 / effects.len().max(1) as f64;
    for (k, (name, effect)) in names.iter().zip(effects).enumerate() {
        let x = 10.0 + step * k as f64;
        let mut y = 200.0;
        for (share, color) in [
            (effect.amplifies, "#2a7f62"),
            (effect.attenuates, "#e0a030"),
            (effect.turns, "#d1495b"),
        ] {
            let height = 150.0 * share;
            y -= height;
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" \
                 fill=\"{color}\"><title>{:.1} %</title></rect>",
                step - 6.0,
                100.0 * share
            );
        }
        let middle = x + step / 2.0 - 3.0;
        let _ = writeln!(
            svg,
            "<text x=\"{middle:.1}\" y=\"216\" text-anchor=\"middle\" font-size=\"10\">{name}</text>"
        );
    }
    svg + "<text x=\"10\" y=\"36\" fill=\"#2a7f62\">amplifies w</text>\
           <text x=\"110\" y=\"36\" fill=\"#b07a10\">attenuates it</text>\
           <text x=\"220\" y=\"36\" fill=\"#d1495b\">turns its sign</text></svg>"
}
