//! Plastic neural networks, trained on GPUs and CPUs.

pub mod case;
pub mod engine;
pub mod error;
pub mod files;
pub mod model;
pub mod random;
pub mod report;
pub mod task;
pub mod train;
mod tensors;
pub mod cli;
