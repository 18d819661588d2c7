//! CIFAR-10 (Krizhevsky 2009) in its binary layout: for each image a label byte, then
//! 1024 bytes each of red, green and blue, row by row.

use std::path::Path;

use crate::error::{Error, Result};
use crate::files;
use crate::numbers::index;
use crate::random::{Purpose, Stream};

/// Pixels along a side of an image.
pub(super) const SIDE: usize = 32;
const PIXELS: usize = SIDE * SIDE;
const IMAGE: usize = 1 + 3 * PIXELS;
const LABELS: u8 = 10;

/// Grey images, R + G + B of each pixel.
#[derive(Clone, Debug)]
pub(super) struct Cifar {
    training: Vec<u16>,
    held_out: Vec<u16>,
    /// Of the bytes of all files, in order.
    pub(super) sha256: String,
}

impl Cifar {
    /// Reads `data_batch_1.bin` to `data_batch_5.bin`, as many as there are, to train on,
    /// and `test_batch.bin` to hold out; each must hold `least` images or more.
    pub(super) fn read(folder: &Path, least: usize) -> Result<Self> {
        let (mut training, mut all) = (Vec::new(), Vec::new());
        for k in 1..=5 {
            let path = folder.join(format!("data_batch_{k}.bin"));
            if path.exists() {
                all.push(files::read(&path)?);
                training.extend(parse(&path, &all[all.len() - 1], least)?);
            }
        }
        if training.is_empty() {
            let wanted = "data_batch_1.bin to data_batch_5.bin of CIFAR-10's binary version";
            return Err(Error::file(folder, "no training images", wanted));
        }
        let path = folder.join("test_batch.bin");
        all.push(files::read(&path)?);
        let held_out = parse(&path, &all[all.len() - 1], least)?;
        // a file that moves its images to another counts as changed: its length is part of it
        let lengths: Vec<[u8; 8]> =
            all.iter().map(|file| (file.len() as u64).to_le_bytes()).collect();
        let parts = lengths.iter().zip(&all).flat_map(|(len, file)| [&len[..], &file[..]]);
        Ok(Cifar { training, held_out, sha256: files::sha256(parts) })
    }

    /// The most different images of an episode.
    pub(super) fn most(&self) -> usize {
        self.training.len().min(self.held_out.len()) / PIXELS
    }

    /// Draws different images, at most so many, averaged over squares of pixels where `side` asks for fewer.
    pub(super) fn draw(
        &self,
        purpose: Purpose,
        stream: &mut Stream,
        side: usize,
        images: &mut [&mut [f32]],
    ) {
        let all = if purpose == Purpose::HeldOut { &self.held_out } else { &self.training };
        let n = index(all.len() / PIXELS);
        let mut chosen = Vec::new();
        while chosen.len() < images.len() {
            let one = stream.below(n) as usize;
            if !chosen.contains(&one) {
                chosen.push(one);
            }
        }
        let width = SIDE / side;
        for (&one, image) in chosen.iter().zip(images) {
            let grey = &all[one * PIXELS..][..PIXELS];
            image.fill(0.0);
            for (k, &value) in grey.iter().enumerate() {
                let (row, column) = (k / SIDE / width, k % SIDE / width);
                image[row * side + column] += f32::from(value);
            }
        }
    }
}

fn parse(path: &Path, bytes: &[u8], least: usize) -> Result<Vec<u16>> {
    let images = bytes.chunks_exact(IMAGE);
    if !images.remainder().is_empty() || images.len() < least {
        let found = format!("{} bytes", bytes.len());
        let wanted = format!("a multiple of {IMAGE} bytes, {least} images or more");
        return Err(Error::file(path, found, wanted));
    }
    let mut grey = Vec::with_capacity(images.len() * PIXELS);
    for (k, image) in images.enumerate() {
        if image[0] >= LABELS {
            let found = format!("label {} of image {k}", image[0]);
            return Err(Error::file(path, found, "labels from 0 to 9"));
        }
        let (red, rest) = image[1..].split_at(PIXELS);
        let (green, blue) = rest.split_at(PIXELS);
        let sum = |p: usize| u16::from(red[p]) + u16::from(green[p]) + u16::from(blue[p]);
        grey.extend((0..PIXELS).map(sum));
    }
    Ok(grey)
}
