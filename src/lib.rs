//! Plastic neural networks, trained on GPUs and CPUs.

pub mod case;
pub mod cli;
pub mod engine;
pub mod error;
pub mod files;
pub mod model;
pub mod random;
pub mod report;
pub mod task;
mod tensors;
pub mod train;
