//! Engines: the same work on the CPU and on a GPU, behind one trait.

pub mod gpu;
mod open;

pub use hebbian_core::engine::*;

#[cfg(feature = "cli")]
pub(crate) use open::check_cpu;
pub use open::{Device, Devices, PlanChoice, Storage, open, open_with};
