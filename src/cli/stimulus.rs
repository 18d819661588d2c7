//! Stimuli that a user brings: pictures, patterns as text, numbers in safetensors.

use std::path::Path;

use crate::error::{Error, Result};
use crate::files;
use crate::task::Recall;
use crate::tensors::{Source, Tensors};

/// Numbers from -1 to 1, 0 where nothing is shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stimulus {
    /// The numbers.
    pub(super) values: Vec<f32>,
    /// Which of them its file hides.
    pub(super) hidden: Vec<bool>,
    /// Of a picture: the grey that became 0, and what its deviations were divided by.
    pub(super) scale: Option<(f64, f64)>,
}

/// Reads a stimulus for a network as `recall` says; a picture in its own scale or in one given.
///
/// PNG: grey or colour, taken to the task's size by averaging, colours weighed by how opaque they
/// are; what is mostly transparent is hidden. Text: `1 0`, `+ -` or `# .` for on and off, `?` for
/// hidden; anything blank is skipped. Safetensors: the tensor `stimulus`, of numbers from -1 to 1,
/// 0 for hidden.
pub(super) fn read(path: &Path, recall: &Recall, scale: Option<(f64, f64)>) -> Result<Stimulus> {
    let bytes = files::read(path)?;
    let kind = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let stimulus = match kind.to_ascii_lowercase().as_str() {
        "png" => picture(path, &bytes, recall, scale)?,
        "safetensors" => numbers(path, Tensors::parse(path, &bytes)?.read("stimulus")?, recall)?,
        "txt" => pattern(path, &bytes)?,
        _ => {
            let found = format!("a file of kind \"{kind}\"");
            return Err(Error::file(path, found, "a .png, .txt or .safetensors file"));
        }
    };
    let n = stimulus.values.len();
    if n != recall.numbers {
        let wanted = format!("{}, as the network was trained on", recall.numbers);
        return Err(Error::file(path, format!("{n} numbers"), wanted));
    }
    if stimulus.hidden.iter().all(|&hidden| hidden) {
        return Err(Error::file(path, "nothing that is not hidden", "something to be seen"));
    }
    Ok(stimulus)
}

/// Numbers as they are: of another range than the networks were trained on they would mean nothing.
fn numbers(path: &Path, values: Vec<f32>, recall: &Recall) -> Result<Stimulus> {
    let known = |v: f32| if recall.binary { v.abs() == 1.0 || v == 0.0 } else { v.abs() <= 1.0 };
    if let Some(k) = values.iter().position(|&v| !known(v)) {
        let wanted = if recall.binary { "-1 or 1 (0: hidden)" } else { "from -1 to 1 (0: hidden)" };
        let found = format!("element {k} of stimulus: {}", values[k]);
        return Err(Error::file(path, found, format!("numbers {wanted}")));
    }
    Ok(Stimulus { hidden: values.iter().map(|&v| v == 0.0).collect(), values, scale: None })
}

fn pattern(path: &Path, bytes: &[u8]) -> Result<Stimulus> {
    const SIGNS: [(char, char); 3] = [('1', '0'), ('+', '-'), ('#', '.')];
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let characters = || text.chars().filter(|c| !c.is_whitespace());
    let wanted = "one pair of signs: 1 and 0, + and -, or # and .; ? where hidden";
    let kinds = |pair: &&(char, char)| characters().any(|c| c == pair.0 || c == pair.1);
    let pairs: Vec<_> = SIGNS.iter().filter(kinds).collect();
    if let [(on, off), (other, another), ..] = pairs[..] {
        // -1 is not two bits
        let found = format!("signs of two pairs, {on} {off} and {other} {another}");
        return Err(Error::file(path, found, wanted));
    }
    let values: Vec<f32> = characters()
        .map(|c| match c {
            '1' | '+' | '#' => Ok(1.0),
            '0' | '-' | '.' => Ok(-1.0),
            '?' => Ok(0.0),
            _ => Err(Error::file(path, format!("the character '{c}'"), wanted)),
        })
        .collect::<Result<_>>()?;
    Ok(Stimulus { hidden: values.iter().map(|&v| v == 0.0).collect(), values, scale: None })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "grey levels")]
fn picture(
    path: &Path,
    bytes: &[u8],
    recall: &Recall,
    scale: Option<(f64, f64)>,
) -> Result<Stimulus> {
    let broken = |e: png::DecodingError| Error::file(path, format!("{e}"), "a PNG picture");
    let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(broken)?;
    let size = reader.output_buffer_size().filter(|&size| size <= 1 << 28);
    let size = size.ok_or_else(|| Error::file(path, "a huge picture", "at most 256 MiB of it"))?;
    let mut data = vec![0; size];
    let info = reader.next_frame(&mut data).map_err(broken)?;
    let channels = info.color_type.samples();
    let (columns, rows) = (info.width as usize, info.height as usize);
    let width = recall.width;
    let height = recall.numbers.div_ceil(width);
    if columns < width || rows < height {
        let found = format!("{columns} x {rows} pixels");
        return Err(Error::file(path, found, format!("{width} x {height} pixels or more")));
    }
    let mut values = Vec::with_capacity(recall.numbers);
    let mut seen = Vec::with_capacity(recall.numbers);
    for k in 0..recall.numbers {
        let range = |at: usize, of: usize, n: usize| at * n / of..(at + 1) * n / of;
        let (mut sum, mut opaque, mut count) = (0.0, 0.0, 0.0);
        for y in range(k / width, height, rows) {
            for x in range(k % width, width, columns) {
                let pixel = &data[(y * columns + x) * channels..][..channels];
                let (colour, alpha) = match channels {
                    2 | 4 => (&pixel[..channels - 1], pixel[channels - 1]),
                    _ => (pixel, 255),
                };
                let grey: f64 = colour.iter().map(|&c| f64::from(c)).sum();
                let weight = f64::from(alpha) / 255.0;
                sum += weight * grey / colour.len() as f64 / 255.0;
                opaque += weight;
                count += 1.0;
            }
        }
        values.push(if opaque > 0.0 { sum / opaque } else { 0.0 });
        seen.push(opaque / count > 0.5);
    }
    let shown = |values: &[f64]| -> Vec<f64> {
        values.iter().zip(&seen).filter(|(_, seen)| **seen).map(|(v, _)| *v).collect()
    };
    let visible = shown(&values);
    let mean = visible.iter().sum::<f64>() / visible.len().max(1) as f64;
    let most = visible.iter().map(|v| (v - mean).abs()).fold(0.0, f64::max);
    let scale = scale.unwrap_or((mean, 1e-8 + most));
    let (centre, most) = if recall.binary { (0.5, 1.0) } else { scale };
    let number = |(&value, &seen): (&f64, &bool)| match (seen, recall.binary) {
        (false, _) => 0.0,
        (true, true) if value >= centre => 1.0,
        (true, true) => -1.0,
        (true, false) => ((value - centre) / most).clamp(-1.0, 1.0) as f32,
    };
    let values = values.iter().zip(&seen).map(number).collect();
    Ok(Stimulus { values, hidden: seen.iter().map(|seen| !seen).collect(), scale: Some(scale) })
}
