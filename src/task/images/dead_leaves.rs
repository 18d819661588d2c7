//! Natural-looking grey images without any data: "dead leaves" (Matheron 1968). Discs of
//! random place, size and grey fall on a plane and hide each other. With radii whose
//! density falls as r^-3, as object sizes do in natural scenes, the pictures have their
//! edges, their regions of every size and their power spectrum of about 1/f^2 (Lee,
//! Mumford & Huang 2001).

use crate::random::Stream;

/// Samples along a pixel's side.
const FINE: usize = 2;

/// Leaves after which what is still bare takes the last leaf's grey.
const MOST_LEAVES: usize = 50_000;

/// Fills `image` `[side, side]` with greys in 0..1. Radii lie between a pixel and the
/// image's side.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "coordinates within an image"
)]
pub(super) fn draw(stream: &mut Stream, side: usize, image: &mut [f32]) {
    let n = side * FINE;
    let size = n as f64;
    let (least, most) = (FINE as f64, size);
    let mut fine = vec![f32::NAN; n * n];
    let mut bare = n * n;
    for leaf in 0..MOST_LEAVES {
        let (a, b) = (most.powi(-2), least.powi(-2));
        let radius = (b - (b - a) * stream.uniform()).powf(-0.5);
        // a leaf whose centre lies outside may still reach in
        let mut place = || (size + 2.0 * most) * stream.uniform() - most;
        let (x, y) = (place(), place());
        let grey = stream.uniform() as f32;
        let last = leaf + 1 == MOST_LEAVES;
        let radius = if last { 4.0 * size } else { radius };
        let rows = |centre: f64, reach: f64| {
            let first = (centre - reach).ceil().clamp(0.0, size) as usize;
            let end = (centre + reach).floor().clamp(-1.0, size - 1.0) + 1.0;
            first..end as usize
        };
        if x + radius < 0.0 || x - radius > size || y + radius < 0.0 || y - radius > size {
            continue;
        }
        for row in rows(y, radius) {
            let reach = (radius * radius - (row as f64 - y).powi(2)).max(0.0).sqrt();
            // the leaf that fell first lies on top: only what is bare takes the grey
            for value in &mut fine[row * n..][..n][rows(x, reach)] {
                if value.is_nan() {
                    *value = grey;
                    bare -= 1;
                }
            }
        }
        if bare == 0 {
            break;
        }
    }
    for (k, value) in image.iter_mut().enumerate() {
        let at = k / side * FINE * n + k % side * FINE;
        let samples = (0..FINE).flat_map(|dy| &fine[at + dy * n..][..FINE]);
        *value = samples.sum::<f32>() / (FINE * FINE) as f32;
    }
}
