//! An open device that engines share, with the kernels compiled so far.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use crate::engine::gpu::device::Gpu;
use crate::engine::gpu::equations::Equations;
use crate::engine::gpu::kernels::{Kernel, Pipeline, Variant};
use crate::engine::gpu::shader::{Form, Source, used_overrides};
use crate::engine::{PlanChoice, Storage};
use crate::error::Result;

/// An open device with the kernels compiled so far; engines share it.
#[derive(Clone)]
pub struct Context {
    pub(super) gpu: Arc<Gpu>,
    compiled: Arc<Mutex<Compiled>>,
    pub(super) options: Options,
}

/// Pipelines by kernel and the constants that its outcome depends on.
#[derive(Default)]
struct Compiled {
    used: HashMap<(&'static str, Option<Arc<Equations>>), BTreeSet<String>>,
    pipelines: HashMap<(&'static str, Form, Vec<u64>), Arc<Pipeline>>,
}

/// How to open a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Index in [`super::list`]; none: the best adapter.
    pub index: Option<usize>,
    /// Ask for no more than every WebGPU device has.
    pub baseline: bool,
    /// Memory that a part of a batch may take; none: half of what is available, or 4 GiB
    /// where the system does not tell.
    pub part_bytes: Option<u64>,
    /// Fill new buffers, and workgroup memory at the start of every dispatch, with NaN, so that a
    /// kernel that reads what nobody wrote is found.
    pub poison: bool,
    /// Make every dispatch a pass of its own, but for those after a batch, so that each kernel is
    /// timed; updates take longer so.
    pub profile: bool,
    /// The plan asked for.
    pub plan: PlanChoice,
    /// How traces are stored between windows.
    pub traces: Storage,
}

impl Context {
    /// Opens a device.
    ///
    /// # Errors
    /// [`crate::error::Error::Device`] if there is none.
    pub fn new(options: Options) -> Result<Self> {
        let gpu = Arc::new(Gpu::open(options.index, options.baseline)?);
        Ok(Context { gpu, compiled: Arc::default(), options })
    }

    /// The adapter.
    #[must_use]
    pub fn info(&self) -> &wgpu::AdapterInfo {
        &self.gpu.info
    }

    /// The same device, with another plan or storage.
    #[must_use]
    pub fn with(&self, plan: PlanChoice, traces: Storage) -> Self {
        Context { options: Options { plan, traces, ..self.options }, ..self.clone() }
    }

    pub(super) fn pipeline(
        &self,
        kernel: &Kernel,
        form: &Form,
        variant: &Variant,
    ) -> Result<Arc<Pipeline>> {
        let of_rule = kernel.text.contains("//!include rule/");
        let form = Form { rule: form.rule.clone().filter(|_| of_rule), ..form.clone() };
        let form = &form;
        let mut compiled = self.compiled.lock().expect("no panic before");
        let text = (kernel.stem, form.rule.clone());
        if !compiled.used.contains_key(&text) {
            let (module, _) = Source::compose(kernel.stem, kernel.text, form)?.module()?;
            compiled.used.insert(text.clone(), used_overrides(&module));
        }
        let used = &compiled.used[&text];
        let values = variant.iter().filter(|(name, _)| used.contains(*name));
        let key = (kernel.stem, form.clone(), values.map(|(_, value)| value.to_bits()).collect());
        if let Some(pipeline) = compiled.pipelines.get(&key) {
            return Ok(Arc::clone(pipeline));
        }
        let pipeline =
            Arc::new(Pipeline::new(&self.gpu, kernel, form, variant, self.options.poison)?);
        compiled.pipelines.insert(key, Arc::clone(&pipeline));
        Ok(pipeline)
    }

    pub(super) fn buffer(&self, label: &str, len: usize) -> Result<wgpu::Buffer> {
        let buffer = self.gpu.buffer(label, len)?;
        if self.options.poison {
            self.gpu.fill(&buffer, 0x7fc0_0123);
        }
        Ok(buffer)
    }

    pub(super) fn uniform(&self, label: &str, size: usize) -> Result<wgpu::Buffer> {
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        self.gpu.create(label, size as u64, usage)
    }
}
