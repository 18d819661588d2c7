//! From a device's name to an engine.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::engine::{Engine, cpu, gpu};
use crate::error::{Error, Result, one_of};
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

    /// The number of its adapter, where it is a GPU.
    pub(crate) fn adapter(self) -> Option<usize> {
        match self {
            Device::Cpu => None,
            Device::Auto => gpu::list().iter().find(|a| !a.is_software()).map(|a| a.index),
            Device::Gpu(index) => Some(index.unwrap_or(0)),
        }
    }
}

/// The plan that a user asks for: how a GPU lays an episode over its workgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlanChoice {
    /// Resident where the device can hold it, else streamed.
    #[default]
    Auto,
    /// One workgroup runs a whole episode, the trace in its registers.
    Resident,
    /// A dispatch a step; traces stream through all workgroups.
    Streamed,
}

impl PlanChoice {
    /// Reads auto, resident or streamed.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(PlanChoice::Auto),
            "resident" => Ok(PlanChoice::Resident),
            "streamed" => Ok(PlanChoice::Streamed),
            _ => {
                let wanted = one_of(name, &["auto", "resident", "streamed"]);
                Err(Error::value("plan", format!("\"{name}\""), wanted))
            }
        }
    }
}

/// How a GPU stores the traces that it keeps between windows of steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Storage {
    /// Exactly.
    #[default]
    F32,
    /// In half the memory, rounded to 11 bits at each window's start. For traces that stay
    /// within f16's range: of the decay rule with a bounded activation, or with a clip.
    F16,
}

impl Storage {
    /// Reads f32 or f16.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Storage::F32),
            "f16" => Ok(Storage::F16),
            _ => Err(Error::value("traces", format!("\"{name}\""), "f32 or f16")),
        }
    }
}

/// An f32 engine for `network` on `device`.
///
/// # Errors
/// [`Error::Device`] if there is no such device; errors of the engine.
pub fn open(device: Device, network: &Network) -> Result<Box<dyn Engine<f32>>> {
    open_with(device, network, PlanChoice::Auto, Storage::F32)
}

/// The devices of a process that opens engines again and again: each GPU is opened once.
#[derive(Default)]
pub struct Devices {
    /// The adapter that [`Device::Auto`] means, once that was asked.
    best: Option<Option<usize>>,
    gpus: HashMap<usize, gpu::Context>,
}

impl Devices {
    /// As [`open`].
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(&mut self, device: Device, network: &Network) -> Result<Box<dyn Engine<f32>>> {
        let on_cpu = device == Device::Auto && !gpu::GpuEngine::runs(network);
        let adapter = match device {
            _ if on_cpu => None,
            Device::Auto => *self.best.get_or_insert_with(|| device.adapter()),
            _ => device.adapter(),
        };
        let Some(index) = adapter else { return cpu::open(network) };
        let context = match self.gpus.entry(index) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => {
                let options = gpu::Options { index: Some(index), ..gpu::Options::default() };
                place.insert(gpu::Context::new(options)?)
            }
        };
        Ok(Box::new(gpu::GpuEngine::new(context, network)?))
    }

    /// Whether a GPU was opened.
    #[must_use]
    pub fn has_gpu(&self) -> bool {
        !self.gpus.is_empty()
    }
}

/// As [`open`], with a plan and a storage of one's own on a GPU.
///
/// # Errors
/// As [`open`]; [`Error::Value`] for a plan or storage that the device or network cannot
/// have.
pub fn open_with(
    device: Device,
    network: &Network,
    plan: PlanChoice,
    traces: Storage,
) -> Result<Box<dyn Engine<f32>>> {
    match device.adapter() {
        None => {
            check_cpu(plan, traces)?;
            cpu::open(network)
        }
        // what the CPU alone runs
        Some(_) if device == Device::Auto && !gpu::GpuEngine::runs(network) => cpu::open(network),
        index => {
            let options = gpu::Options { index, plan, traces, ..gpu::Options::default() };
            let context = gpu::Context::new(options)?;
            Ok(Box::new(gpu::GpuEngine::new(&context, network)?))
        }
    }
}

/// Refuses a plan or storage that only a GPU has.
pub(crate) fn check_cpu(plan: PlanChoice, traces: Storage) -> Result<()> {
    match (plan, traces) {
        (PlanChoice::Auto, Storage::F32) => Ok(()),
        (PlanChoice::Auto, Storage::F16) => {
            Err(Error::value("traces", "f16", "f32: the CPU stores no other"))
        }
        _ => Err(Error::value("plan", "one of a GPU's", "auto: the CPU has but one")),
    }
}
