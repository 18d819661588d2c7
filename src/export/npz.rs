//! NumPy's archive of arrays: a ZIP file, its members as they are, each an array by the format's version 1.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;

use crate::error::{Error, Result};

/// An array of f32 as a `.npy` file.
pub(super) fn numbers(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let mut file = header("<f4", shape);
    file.extend_from_slice(bytemuck::cast_slice(values));
    file
}

/// A text as a `.npy` file: an array of no axes.
pub(super) fn text(text: &str) -> Vec<u8> {
    let letters: Vec<u32> = text.chars().map(u32::from).collect();
    let mut file = header(&format!("<U{}", letters.len()), &[]);
    file.extend_from_slice(bytemuck::cast_slice(&letters));
    file
}

fn header(kind: &str, shape: &[usize]) -> Vec<u8> {
    let axes: String = shape.iter().map(|n| format!("{n}, ")).collect();
    let mut words = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({axes}), }}");
    // magic, version and length take 10 bytes, the end of the line one; numbers begin at 64 bytes
    let padding = (words.len() + 11).next_multiple_of(64) - words.len() - 11;
    words.extend(std::iter::repeat_n(' ', padding));
    words.push('\n');
    let length = u16::try_from(words.len()).expect("few axes");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend_from_slice(&length.to_le_bytes());
    file.extend_from_slice(words.as_bytes());
    file
}

/// A ZIP file in the making, its members stored as they are.
pub(super) struct Archive(zip::ZipWriter<Cursor<Vec<u8>>>);

impl Archive {
    /// An archive without members.
    pub(super) fn new() -> Self {
        Archive(zip::ZipWriter::new(Cursor::new(Vec::new())))
    }

    /// Adds the array `name`.
    pub(super) fn add(&mut self, name: &str, file: &[u8]) -> Result<()> {
        // a date that does not change, so that the same run gives the same bytes
        let options = SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .last_modified_time(zip::DateTime::default())
            .large_file(u32::try_from(file.len()).is_err());
        self.0.start_file(format!("{name}.npy"), options).map_err(failed)?;
        self.0.write_all(file).map_err(failed)
    }

    /// The file.
    pub(super) fn finish(self) -> Result<Vec<u8>> {
        Ok(self.0.finish().map_err(failed)?.into_inner())
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::value("--npz", error.to_string(), "an archive; --safetensors FILE holds more")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_begin_at_a_multiple_of_64_bytes() {
        for shape in [&[][..], &[7], &[300, 300]] {
            let file = header("<f4", shape);
            assert!(file.len().is_multiple_of(64) && file.ends_with(b"\n"));
            assert_eq!(usize::from(u16::from_le_bytes([file[8], file[9]])), file.len() - 10);
        }
    }
}
