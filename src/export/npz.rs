//! NumPy's archive of arrays: a ZIP file, its members as they are, each an array by the format's version 1.

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

/// A ZIP file in the making.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    /// The members once more, as the file ends with them.
    directory: Vec<u8>,
    n_members: u16,
}

impl Archive {
    /// Adds the array `name`.
    pub(super) fn add(&mut self, name: &str, file: &[u8]) -> Result<()> {
        let name = format!("{name}.npy");
        let (at, size) = (offset(self.bytes.len())?, offset(file.len())?);
        // version 2.0, no flags, stored, midnight of 1 January 1980; twice the size; the name's length
        let mut entry = Vec::new();
        for half in [20_u16, 0, 0, 0, 0x21] {
            entry.extend_from_slice(&half.to_le_bytes());
        }
        for word in [crc32(file), size, size] {
            entry.extend_from_slice(&word.to_le_bytes());
        }
        entry.extend_from_slice(&u16::try_from(name.len()).expect("short names").to_le_bytes());
        entry.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(b"PK\x03\x04");
        self.bytes.extend_from_slice(&entry);
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(file);
        // made by version 2.0; no comment, first disk, no attributes
        self.directory.extend_from_slice(b"PK\x01\x02\x14\x00");
        self.directory.extend_from_slice(&entry);
        self.directory.extend_from_slice(&[0; 10]);
        self.directory.extend_from_slice(&at.to_le_bytes());
        self.directory.extend_from_slice(name.as_bytes());
        self.n_members += 1;
        Ok(())
    }

    /// The file.
    pub(super) fn finish(mut self) -> Result<Vec<u8>> {
        let (at, size) = (offset(self.bytes.len())?, offset(self.directory.len())?);
        self.bytes.append(&mut self.directory);
        self.bytes.extend_from_slice(b"PK\x05\x06\x00\x00\x00\x00");
        for _ in 0..2 {
            self.bytes.extend_from_slice(&self.n_members.to_le_bytes());
        }
        self.bytes.extend_from_slice(&size.to_le_bytes());
        self.bytes.extend_from_slice(&at.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 2]);
        Ok(self.bytes)
    }
}

/// A place in the file or a size.
fn offset(bytes: usize) -> Result<u32> {
    u32::try_from(bytes).map_err(|_| {
        let found = format!("{bytes} bytes");
        Error::value("--npz", found, "at most 4 GiB; --safetensors FILE holds more")
    })
}

/// The checksum of ZIP files.
fn crc32(bytes: &[u8]) -> u32 {
    let table: [u32; 256] = std::array::from_fn(|k| {
        let start = u32::try_from(k).expect("below 256");
        (0..8).fold(start, |c, _| (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg()))
    });
    let next = |c: u32, &byte: &u8| (c >> 8) ^ table[usize::from(c.to_le_bytes()[0] ^ byte)];
    !bytes.iter().fold(u32::MAX, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_zip_files() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn numbers_begin_at_a_multiple_of_64_bytes() {
        for shape in [&[][..], &[7], &[300, 300]] {
            let file = header("<f4", shape);
            assert!(file.len().is_multiple_of(64) && file.ends_with(b"\n"));
            assert_eq!(usize::from(u16::from_le_bytes([file[8], file[9]])), file.len() - 10);
        }
    }
}
