//! The look of all that the program draws: reports, charts, pictures, and the page of `hebbian export`. It
//! stands here and in `style.css` alone.

/// Name of a colour, and what it is on light and on dark ground. Low, high and s3 to s7 differ to
/// colour-blind eyes (Okabe & Ito 2008); on dark ground they are lighter ones of the same hues.
const COLORS: [(&str, &str, &str); 16] = [
    ("ground", "#f6f4ef", "#0d1015"),
    ("panel", "#ffffff", "#161a21"),
    ("ink", "#1c2026", "#e9ebee"),
    ("soft", "#555c66", "#a7afbb"),
    ("line", "#d9d5cb", "#2b323d"),
    ("accent", "#a34a00", "#ffa032"),
    ("accent-ink", "#fffefc", "#1a1206"),
    ("focus", "#005caf", "#7cc4ff"),
    ("bad", "#a3161b", "#ff9a94"),
    ("low", "#0072b2", "#56b4e9"),
    ("high", "#d55e00", "#e69f00"),
    ("s3", "#009e73", "#1db88a"),
    ("s4", "#b8608f", "#d98fb8"),
    ("s5", "#b37c00", "#f0e442"),
    ("s6", "#3c8fc0", "#e8702a"),
    ("s7", "#444444", "#b8c0cc"),
];

/// Colours of lines and rows, which come again after the last.
const SERIES: [&str; 7] = ["low", "high", "s3", "s4", "s5", "s6", "s7"];

/// Fonts, tables, figures and charts.
const SHEET: &str = include_str!("style.css");

/// A colour on light ground; [`dark`] turns it where the reader prefers dark.
///
/// # Panics
/// If there is none of that name.
pub(super) fn color(name: &str) -> &'static str {
    let found = COLORS.iter().find(|(of, _, _)| *of == name);
    found.unwrap_or_else(|| panic!("no colour {name}")).1
}

/// The colour of line or row `k`.
pub(super) fn series(k: usize) -> &'static str {
    color(SERIES[k % SERIES.len()])
}

/// Red, green and blue of a colour on light ground.
pub(super) fn rgb(name: &str) -> [u8; 3] {
    let hex = color(name);
    [1, 3, 5].map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits of a colour"))
}

/// The rules that turn the colours of a drawing where the reader prefers dark.
pub(super) fn dark() -> String {
    let rule = |(_, light, dark): &(&str, &str, &str)| {
        ["fill", "stroke"].map(|key| format!("[{key}=\"{light}\"]{{{key}:{dark}}}")).concat()
    };
    let rules: String = COLORS.iter().map(rule).collect();
    format!("@media (prefers-color-scheme: dark) {{ {rules} }}\n")
}

/// The style of every page.
pub(crate) fn style() -> String {
    let all = |of: fn(&(&'static str, &'static str, &'static str)) -> &'static str| -> String {
        COLORS.iter().map(|color| format!("--{}: {}; ", color.0, of(color))).collect()
    };
    format!(
        ":root {{ color-scheme: light dark; {}}}\n\
         @media (prefers-color-scheme: dark) {{ :root {{ {}}} }}\n{}{SHEET}",
        all(|color| color.1),
        all(|color| color.2),
        dark()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share of white's light (WCAG 2.2, relative luminance).
    fn luminance(hex: &str) -> f64 {
        let linear = |at: usize| {
            let value = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(1) + 0.7152 * linear(3) + 0.0722 * linear(5)
    }

    #[test]
    fn text_and_lines_stand_out_from_what_they_stand_on() {
        for is_dark in [false, true] {
            let of = |name: &str| {
                let (_, light, dark) = COLORS.iter().find(|c| c.0 == name).unwrap();
                if is_dark { *dark } else { *light }
            };
            let contrast = |a: &str, b: &str| {
                let (a, b) = (luminance(of(a)), luminance(of(b)));
                (a.max(b) + 0.05) / (a.min(b) + 0.05)
            };
            for ground in ["ground", "panel"] {
                for (name, least) in ["ink", "soft", "bad"].map(|name| (name, 4.5)) {
                    assert!(contrast(name, ground) >= least, "{name} on {ground}");
                }
            }
            for name in SERIES.into_iter().chain(["focus"]) {
                assert!(contrast(name, "panel") >= 3.0, "{name}: {}", contrast(name, "panel"));
            }
            assert!(contrast("accent-ink", "accent") >= 4.5);
        }
    }

    #[test]
    fn no_two_names_share_a_colour_on_light_ground() {
        for (k, (name, light, _)) in COLORS.iter().enumerate() {
            let other = COLORS[..k].iter().find(|(_, other, _)| other == light);
            assert!(other.is_none(), "{name} and {other:?}: the dark rules cannot tell them apart");
        }
    }
}
