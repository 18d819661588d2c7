//! Characters drawn by strokes, for a user without Omniglot: alphabets of characters, each drawn many
//! times by an unsteady hand.

use crate::numbers::{index, single};
use crate::random::{Purpose, Stream};
use crate::task::omniglot::data::Class;

/// Alphabets, characters of each, drawings of each character.
const ALPHABETS: u32 = 20;
const CHARACTERS: u32 = 20;
const DRAWINGS: u32 = 12;
/// Straight pieces that a stroke is drawn in.
const PIECES: u32 = 12;

/// Pixels from the middle of a stroke to where its ink ends.
const PEN: f64 = 1.25;

/// A point of a sheet whose sides are 1.
type Point = [f64; 2];

/// The characters, alike for all seeds, as drawings of `side` pixels.
pub(super) fn classes(side: usize) -> Vec<Class> {
    let mut classes = Vec::new();
    for alphabet in 0..ALPHABETS {
        for character in 0..CHARACTERS {
            let number = alphabet * CHARACTERS + character;
            let mut stream = Stream::new(0, Purpose::Data, 1, number);
            let strokes = character_of(&mut stream);
            let drawings = (0..DRAWINGS).map(|_| drawing(&strokes, side, &mut stream)).collect();
            let name = format!("Alphabet{:02}/character{:02}", alphabet + 1, character + 1);
            classes.push(Class { name, drawings });
        }
    }
    classes
}

/// One to three strokes, each a curve by four points (Bézier), often from where the last one ended.
fn character_of(stream: &mut Stream) -> Vec<[Point; 4]> {
    let n = 1 + stream.below(3);
    let anywhere = |stream: &mut Stream| [0, 1].map(|_| 0.15 + 0.7 * stream.uniform());
    let mut strokes: Vec<[Point; 4]> = Vec::new();
    for _ in 0..n {
        let last = strokes.last().map(|stroke| stroke[3]);
        let start = match last {
            Some(end) if stream.below(2) == 0 => end,
            _ => anywhere(stream),
        };
        // long enough to be seen
        let mut end = anywhere(stream);
        while (end[0] - start[0]).hypot(end[1] - start[1]) < 0.3 {
            end = anywhere(stream);
        }
        strokes.push([start, anywhere(stream), anywhere(stream), end]);
    }
    strokes
}

/// A drawing of strokes whose points are moved a little, on a sheet that is turned and scaled a little.
fn drawing(strokes: &[[Point; 4]], side: usize, stream: &mut Stream) -> Vec<f32> {
    let (turn, scale) = (0.12 * stream.normal(), 1.0 + 0.08 * stream.normal());
    let shift = [0.03 * stream.normal(), 0.03 * stream.normal()];
    let (sin, cos) = turn.sin_cos();
    let mut placed = |point: Point| {
        let [x, y] = point.map(|v| v - 0.5 + 0.025 * stream.normal());
        [0.5 + shift[0] + scale * (cos * x - sin * y), 0.5 + shift[1] + scale * (sin * x + cos * y)]
    };
    let mut points: Vec<(Point, Point)> = Vec::new();
    for stroke in strokes {
        let [a, b, c, d] = stroke.map(&mut placed);
        let at = |k: u32| {
            let t = f64::from(k) / f64::from(PIECES);
            let s = 1.0 - t;
            let weights = [s * s * s, 3.0 * s * s * t, 3.0 * s * t * t, t * t * t];
            [0, 1].map(|axis| {
                [a, b, c, d].iter().zip(weights).map(|(point, w)| w * point[axis]).sum::<f64>()
            })
        };
        points.extend((0..PIECES).map(|k| (at(k), at(k + 1))));
    }
    let pixel = 1.0 / f64::from(index(side));
    let center = |k: usize| (f64::from(index(k)) + 0.5) * pixel;
    let mut paper = vec![1.0_f32; side * side];
    for (from, to) in points {
        // pixels that the pen may reach
        let reach = |axis: usize| {
            let (low, high) = (from[axis].min(to[axis]), from[axis].max(to[axis]));
            let near =
                move |k: &usize| center(*k) > low - PEN * pixel && center(*k) < high + PEN * pixel;
            (0..side).filter(near)
        };
        for (y, x) in reach(1).flat_map(|y| reach(0).map(move |x| (y, x))) {
            let near = distance([center(x), center(y)], from, to) / pixel;
            let ink = single((PEN - near).clamp(0.0, 1.0));
            paper[y * side + x] = paper[y * side + x].min(1.0 - ink);
        }
    }
    paper
}

/// From a point to a straight piece.
fn distance(point: Point, from: Point, to: Point) -> f64 {
    let along = [to[0] - from[0], to[1] - from[1]];
    let off = [point[0] - from[0], point[1] - from[1]];
    let length = along[0] * along[0] + along[1] * along[1];
    let share = (off[0] * along[0] + off[1] * along[1]) / length.max(f64::MIN_POSITIVE);
    let share = share.clamp(0.0, 1.0);
    (off[0] - share * along[0]).hypot(off[1] - share * along[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawings_of_a_character_are_more_alike_than_those_of_others() {
        let classes = classes(31);
        assert_eq!(classes.len(), 400);
        let far =
            |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum() };
        let mut nearer = 0;
        for k in 0..200 {
            let (one, other) = (&classes[k].drawings, &classes[k + 200].drawings);
            let ink: f32 = one[0].iter().map(|v| 1.0 - v).sum();
            assert!((8.0..400.0).contains(&ink), "{ink}");
            assert_ne!(one[0], one[1]);
            nearer += u32::from(far(&one[0], &one[1]) < far(&one[0], &other[0]));
        }
        // pixels alone tell most of them apart, and not all
        assert!((150..=200).contains(&nearer), "{nearer}");
    }
}
