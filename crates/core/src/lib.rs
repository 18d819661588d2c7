//! Plastic networks as plain data, and the engine that runs them on the CPU. `hebbian` is built on
//! it and shows all of it under its own name.
//!
//! This is a crate of its own for the sake of build time: its kernels are compiled for every
//! instruction set, scalar type and width as one unit, which takes as long as all the rest, and
//! only a change in here compiles them again. Generic engines do not leave it, or who uses one
//! would compile its kernels too: [`engine::cpu::open`] gives one behind its trait.

pub mod engine;
pub mod error;
pub mod model;
pub mod rule;
