//! From a device's name to an engine.

use crate::engine::Engine;
use crate::engine::cpu::Cpu;
use crate::engine::gpu;
use crate::error::{Error, Result};
use crate::model::Network;

/// The device that a user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The best hardware GPU, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The best adapter of any kind, or the one of that index in `hebbian devices`.
    Gpu(Option<usize>),
}

impl Device {
    /// Reads auto, cpu, gpu or gpu:INDEX.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            "gpu" => Ok(Device::Gpu(None)),
            _ => name
                .strip_prefix("gpu:")
                .and_then(|index| index.parse().ok())
                .map(|index| Device::Gpu(Some(index)))
                .ok_or_else(|| {
                    Error::value("device", format!("\"{name}\""), "auto, cpu, gpu or gpu:INDEX")
                }),
        }
    }
}

/// An f32 engine for `network` on `device`.
///
/// # Errors
/// [`Error::Device`] if there is no such device; errors of the engine.
pub fn open(device: Device, network: &Network) -> Result<Box<dyn Engine<f32>>> {
    let index = match device {
        Device::Cpu => None,
        Device::Auto => gpu::list().iter().find(|a| !a.is_software()).map(|a| a.index),
        Device::Gpu(index) => Some(index.unwrap_or(0)),
    };
    match index {
        None => Ok(Box::new(Cpu::<f32>::new(network)?)),
        index => {
            let context = gpu::Context::new(gpu::Options { index, ..gpu::Options::default() })?;
            Ok(Box::new(gpu::GpuEngine::new(&context, network)?))
        }
    }
}
