//! What tasks share that show a few stimuli and then test one of them.

use crate::error::{Error, Result};
use crate::numbers::{index, single};
use crate::random::Stream;

/// The most of anything that a configuration may ask for: products stay below 2^64.
pub(super) const MOST: usize = 1_000_000;

/// How the stimuli of an episode follow each other. Rows `0..stimuli` of the table are
/// shown, row `stimuli` is the blank, the next one the test.
pub(super) struct Order {
    pub(super) stimuli: usize,
    pub(super) cycles: usize,
    pub(super) shown: usize,
    pub(super) blank: usize,
    pub(super) test: usize,
}

impl Order {
    pub(super) fn n_steps(&self) -> usize {
        self.cycles * self.stimuli * (self.shown + self.blank) + self.test
    }

    /// Checks that no number is zero or beyond reason.
    pub(super) fn validate(&self, stimuli: &str) -> Result<()> {
        for (key, value, least) in [
            (stimuli, self.stimuli, 1),
            ("task.cycles", self.cycles, 1),
            ("task.shown", self.shown, 1),
            ("task.blank", self.blank, 0),
            ("task.test", self.test, 1),
        ] {
            if value < least || value > MOST {
                return Err(Error::value(key, value.to_string(), format!("{least} to {MOST}")));
            }
        }
        Ok(())
    }

    /// Appends the row of every step: each cycle shows every stimulus in an order of its
    /// own.
    pub(super) fn draw(&self, stream: &mut Stream, rows: &mut Vec<u32>) {
        let blank = index(self.stimuli);
        let mut order: Vec<u32> = (0..blank).collect();
        for _ in 0..self.cycles {
            stream.shuffle(&mut order);
            for &row in &order {
                rows.extend(std::iter::repeat_n(row, self.shown));
                rows.extend(std::iter::repeat_n(blank, self.blank));
            }
        }
        rows.extend(std::iter::repeat_n(blank + 1, self.test));
    }
}

/// Checks that f32 can hold each number.
pub(super) fn check_numbers(numbers: &[(&str, f64)]) -> Result<()> {
    match numbers.iter().find(|(_, value)| !single(*value).is_finite()) {
        Some((key, value)) => {
            Err(Error::value(key, value.to_string(), "a number that f32 can hold"))
        }
        None => Ok(()),
    }
}
