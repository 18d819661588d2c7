#![doc = include_str!("../README.md")]

pub mod case;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod drive;
pub mod engine;
pub mod export;
pub mod files;
pub mod memory;
mod numbers;
pub mod picture;

pub mod random;
pub mod report;
pub mod session;
pub mod study;
pub mod task;
mod tensors;
pub mod train;
pub mod verify;

pub use hebbian_core::{error, model, rule};
