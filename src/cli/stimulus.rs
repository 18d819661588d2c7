//! Stimuli that a user brings: pictures, patterns as text, numbers in safetensors.

use std::path::Path;

use crate::error::{Error, Result};
use crate::files;
use crate::task::Recall;
use crate::tensors::Tensors;

/// Reads a stimulus: numbers from -1 to 1, 0 where nothing is shown.
///
/// PNG: grey or colour, taken to the task's size by averaging; transparent pixels are
/// hidden. Text: `1`, `+`, `#` are 1; `0`, `-`, `.` are -1; `?` is hidden; anything blank is
/// skipped. Safetensors: the tensor `stimulus`.
pub(super) fn read(path: &Path, recall: &Recall) -> Result<Vec<f32>> {
    let bytes = files::read(path)?;
    let kind = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let values = match kind.to_ascii_lowercase().as_str() {
        "png" => picture(path, &bytes, recall)?,
        "safetensors" => Tensors::parse(path, &bytes)?.read("stimulus")?,
        "txt" => pattern(path, &bytes)?,
        _ => {
            let found = format!("a file of kind \"{kind}\"");
            return Err(Error::file(path, found, "a .png, .txt or .safetensors file"));
        }
    };
    if values.len() != recall.numbers {
        let wanted = format!("{}, as the network was trained on", recall.numbers);
        return Err(Error::file(path, format!("{} numbers", values.len()), wanted));
    }
    Ok(values)
}

fn pattern(path: &Path, bytes: &[u8]) -> Result<Vec<f32>> {
    let text = String::from_utf8_lossy(bytes);
    let characters = text.chars().filter(|c| !c.is_whitespace());
    characters
        .map(|c| match c {
            '1' | '+' | '#' => Ok(1.0),
            '0' | '-' | '.' => Ok(-1.0),
            '?' => Ok(0.0),
            _ => {
                let wanted = "1, + or # for on; 0, - or . for off; ? for hidden";
                Err(Error::file(path, format!("the character '{c}'"), wanted))
            }
        })
        .collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "grey levels")]
fn picture(path: &Path, bytes: &[u8], recall: &Recall) -> Result<Vec<f32>> {
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
                sum += grey / colour.len() as f64 / 255.0;
                opaque += f64::from(alpha) / 255.0;
                count += 1.0;
            }
        }
        values.push(sum / count);
        seen.push(opaque / count > 0.5);
    }
    let shown = |values: &[f64]| -> Vec<f64> {
        values.iter().zip(&seen).filter(|(_, seen)| **seen).map(|(v, _)| *v).collect()
    };
    let visible = shown(&values);
    let mean = visible.iter().sum::<f64>() / visible.len().max(1) as f64;
    let centre = if recall.binary { 0.5 } else { mean };
    let most = visible.iter().map(|v| (v - mean).abs()).fold(0.0, f64::max);
    Ok(values
        .iter()
        .zip(&seen)
        .map(|(&value, &seen)| match (seen, recall.binary) {
            (false, _) => 0.0,
            (true, true) => {
                if value >= centre {
                    1.0
                } else {
                    -1.0
                }
            }
            (true, false) => ((value - centre) / (1e-8 + most)) as f32,
        })
        .collect())
}
