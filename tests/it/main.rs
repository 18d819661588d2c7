//! Tests of the engines, training and the commands, in one program: engines against
//! float64 and each other, files and exit codes as users meet them.

#![expect(
    clippy::cast_possible_truncation,
    clippy::needless_range_loop,
    reason = "tests narrow numbers on purpose and state equations by their indices"
)]

mod around;
mod cli;
mod common;
mod drive;
mod embedding;
mod evolve;
mod export;
mod faults;
mod finite_differences;
mod fixtures;
mod general;
mod memory;
mod operator;
mod random_case;
mod random_shapes;
mod resume;
mod rules;
mod training;
