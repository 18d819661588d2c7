//! Grey and coloured pictures as PNG.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use font8x8::UnicodeFonts;

use crate::picture::Picture;
use crate::report::page::escape;
use crate::report::style::rgb as named;

/// A PNG of `width` pixels a row, three bytes (R, G, B) a pixel.
///
/// # Panics
/// If `rgb` is empty or no whole number of rows.
#[must_use]
pub fn png(width: usize, rgb: &[u8]) -> Vec<u8> {
    encode(width, png::ColorType::Rgb, rgb)
}

/// A PNG whose ground shows through: four bytes (R, G, B, opacity) a pixel.
pub(super) fn clear(width: usize, rgba: &[u8]) -> Vec<u8> {
    encode(width, png::ColorType::Rgba, rgba)
}

fn encode(width: usize, color: png::ColorType, bytes: &[u8]) -> Vec<u8> {
    let row = color.samples() * width;
    assert!(width > 0 && !bytes.is_empty() && bytes.len().is_multiple_of(row), "whole rows");
    let size = |n: usize| u32::try_from(n).expect("a picture's side");
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, size(width), size(bytes.len() / row));
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().expect("a vector takes all");
    writer.write_image_data(bytes).expect("whole rows");
    writer.finish().expect("a vector takes all");
    out
}

/// From -1 (black) to 1 (white).
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a level of grey")]
fn grey(value: f32) -> [u8; 3] {
    if value.is_nan() {
        return named("bad");
    }
    [(127.5 * (value.clamp(-1.0, 1.0) + 1.0)).round() as u8; 3]
}

/// From -1 (low) over 0 (the ground) to 1 (high). Opacity grows as the root, so that small numbers are
/// seen too.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a level of colour")]
pub(super) fn diverging(value: f64) -> [u8; 4] {
    let [red, green, blue] = named(if value < 0.0 { "low" } else { "high" });
    [red, green, blue, (255.0 * value.abs().min(1.0).sqrt()).round() as u8]
}

/// Pixels that a caption takes above its tile: eight of its letters and a gap.
const CAPTION: usize = 12;

/// Draws a caption, cut where its tile ends; letters that the font has not are left out.
fn caption(text: &str, mut put: impl FnMut(usize, usize), most: usize) {
    let letters = text.chars().filter_map(|c| font8x8::BASIC_FONTS.get(c));
    for (k, letter) in letters.enumerate().take(most / 8) {
        for (y, row) in letter.iter().enumerate() {
            (0..8).filter(|x| row >> x & 1 == 1).for_each(|x| put(8 * k + x, y));
        }
    }
}

/// As [`montage`], with the captions above the tiles.
#[must_use]
pub fn labelled(picture: &Picture, zoom: usize) -> Vec<u8> {
    draw(picture, zoom, CAPTION)
}

/// The tiles of a picture side by side, each pixel `zoom` pixels wide, as PNG.
#[must_use]
pub fn montage(picture: &Picture, zoom: usize) -> Vec<u8> {
    draw(picture, zoom, 0)
}

fn draw(picture: &Picture, zoom: usize, above: usize) -> Vec<u8> {
    const GAP: usize = 4;
    let tiles: Vec<&Vec<f32>> = picture.tiles.iter().map(|(_, tile)| tile).collect();
    let rows = tiles.iter().map(|tile| tile.len().div_ceil(picture.width)).max().unwrap_or(1);
    let step = picture.width * zoom + GAP;
    let width = (step * tiles.len()).saturating_sub(GAP).max(1);
    let mut rgb = named("panel").repeat(width * (rows * zoom + above));
    for (k, tile) in tiles.iter().enumerate() {
        if above > 0 {
            let put = |x: usize, y: usize| {
                let place = 3 * (y * width + k * step + x);
                rgb[place..place + 3].copy_from_slice(&named("ink"));
            };
            caption(&picture.tiles[k].0, put, picture.width * zoom);
        }
        for (at, &value) in tile.iter().enumerate() {
            let (row, column) = (at / picture.width, at % picture.width);
            for dy in 0..zoom {
                for dx in 0..zoom {
                    let x = k * step + column * zoom + dx;
                    let place = 3 * ((above + row * zoom + dy) * width + x);
                    rgb[place..place + 3].copy_from_slice(&grey(value));
                }
            }
        }
    }
    png(width, &rgb)
}

/// A PNG as an address that holds it.
pub(super) fn data_url(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}

/// A PNG inside a page.
pub(super) fn inline(png: &[u8], alternative: &str) -> String {
    format!("<img alt=\"{}\" src=\"{}\">", escape(alternative), data_url(png))
}

/// The tiles of a picture as figures with their captions.
pub(super) fn figures(picture: &Picture) -> String {
    let tiles = picture.tiles.iter().map(|(caption, tile)| {
        let one = Picture { width: picture.width, tiles: vec![(caption.clone(), tile.clone())] };
        format!(
            "<figure>{}<figcaption>{}</figcaption></figure>",
            inline(&montage(&one, 1), caption),
            escape(caption)
        )
    });
    format!("<div class=\"tiles\">{}</div>\n", tiles.collect::<String>())
}
