//! Plastic neural networks, trained on GPUs and CPUs.

pub mod case;
pub mod engine;
pub mod error;
pub mod files;
pub mod model;
mod tensors;
pub mod cli;
