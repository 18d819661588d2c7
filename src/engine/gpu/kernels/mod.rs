//! The kernels. Each is two files, `shaders/STEM.wgsl` and `STEM.rs` here, and a line in
//! [`ALL`]. A kernel's Rust side is a struct with a field for each binding, in the order
//! of the shader's binding numbers; a test compares names, access and struct layout.

mod adam;
mod backward_sweep;
mod copy;
mod drive;
mod finish_report;
mod general_back;
mod general_collect;
mod general_neurons;
mod general_neurons_back;
mod general_sweep;
mod general_weights;
mod gradient_norm;
mod loss;
mod multiply_adds;
mod neuron_back;
mod neuron_step;
mod observed_back;
mod outer_gradients;
mod plastic_matmul;
mod read_out;
mod resident_back;
mod resident_forward;
mod sgd;
mod share_alpha;
mod sum_episodes;
mod sum_splits;
mod weight_gradients;

pub(crate) use adam::Adam;
pub(crate) use backward_sweep::BackwardSweep;
pub(crate) use copy::Copy;
pub(crate) use drive::Drive;
pub(crate) use finish_report::FinishReport;
pub(crate) use general_back::GeneralBack;
pub(crate) use general_collect::GeneralCollect;
pub(crate) use general_neurons::GeneralNeurons;
pub(crate) use general_neurons_back::GeneralNeuronsBack;
pub(crate) use general_sweep::GeneralSweep;
pub(crate) use general_weights::GeneralWeights;
pub(crate) use gradient_norm::GradientNorm;
pub(crate) use loss::Loss;
pub(crate) use multiply_adds::MultiplyAdds;
pub(crate) use neuron_back::NeuronBack;
pub(crate) use neuron_step::NeuronStep;
pub(crate) use observed_back::ObservedBack;
pub(crate) use outer_gradients::OuterGradients;
pub(crate) use plastic_matmul::PlasticMatmul;
pub(crate) use read_out::ReadOut;
pub(crate) use resident_back::ResidentBack;
pub(crate) use resident_forward::ResidentForward;
pub(crate) use sgd::Sgd;
pub(crate) use share_alpha::ShareAlpha;
pub(crate) use sum_episodes::SumEpisodes;
pub(crate) use sum_splits::SumSplits;
pub(crate) use weight_gradients::WeightGradients;

use crate::engine::gpu::device::Gpu;
use crate::engine::gpu::shader::{Form, Source};
use crate::error::Result;

/// Every kernel.
pub(crate) const ALL: [&Kernel; 27] = [
    &Adam::KERNEL,
    &BackwardSweep::KERNEL,
    &Copy::KERNEL,
    &Drive::KERNEL,
    &FinishReport::KERNEL,
    &GeneralBack::KERNEL,
    &GeneralCollect::KERNEL,
    &GeneralNeurons::KERNEL,
    &GeneralNeuronsBack::KERNEL,
    &GeneralSweep::KERNEL,
    &GeneralWeights::KERNEL,
    &GradientNorm::KERNEL,
    &Loss::KERNEL,
    &MultiplyAdds::KERNEL,
    &NeuronBack::KERNEL,
    &NeuronStep::KERNEL,
    &ObservedBack::KERNEL,
    &OuterGradients::KERNEL,
    &PlasticMatmul::KERNEL,
    &ReadOut::KERNEL,
    &ResidentBack::KERNEL,
    &ResidentForward::KERNEL,
    &Sgd::KERNEL,
    &ShareAlpha::KERNEL,
    &SumEpisodes::KERNEL,
    &SumSplits::KERNEL,
    &WeightGradients::KERNEL,
];

/// How a shader sees a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// A uniform struct.
    Uniform,
    /// A uniform struct of [`Step`], chosen by an offset at each dispatch.
    Step,
    /// A storage array.
    Read,
    /// A storage array.
    Write,
}

/// A kernel: its shader and what it binds.
pub(crate) struct Kernel {
    pub(crate) stem: &'static str,
    pub(crate) text: &'static str,
    pub(crate) bindings: &'static [(&'static str, Access)],
}

/// Declares a kernel's struct: a field for each binding.
macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident, $stem:literal, { $($access:ident $field:ident,)* }) => {
        $(#[$doc])*
        pub(crate) struct $name<'a> {
            $(pub(crate) $field: &'a wgpu::Buffer,)*
        }

        impl $name<'_> {
            pub(crate) const KERNEL: $crate::engine::gpu::kernels::Kernel =
                $crate::engine::gpu::kernels::Kernel {
                    stem: $stem,
                    text: include_str!(concat!("../../../../shaders/", $stem, ".wgsl")),
                    bindings: &[$((
                        stringify!($field),
                        $crate::engine::gpu::kernels::Access::$access,
                    ),)*],
                };

            /// Binds the buffers to the kernel's pipeline.
            pub(crate) fn bind(
                self,
                gpu: &$crate::engine::gpu::device::Gpu,
                pipeline: &$crate::engine::gpu::kernels::Pipeline,
            ) -> wgpu::BindGroup {
                debug_assert_eq!(pipeline.stem, $stem);
                pipeline.bind(gpu, &[$(self.$field,)*])
            }
        }
    };
}
pub(crate) use kernel;

/// Sizes of the part of a batch at hand; `Job` of `shaders/lib/job.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Job {
    pub(crate) n_networks: u32,
    pub(crate) n_batch: u32,
    pub(crate) n_steps: u32,
    pub(crate) n_pre: u32,
    pub(crate) n_post: u32,
    pub(crate) n_stimuli: u32,
    pub(crate) n_targets: u32,
    pub(crate) first_network: u32,
    pub(crate) n_parameters: u32,
    pub(crate) at_w: u32,
    pub(crate) at_alpha: u32,
    pub(crate) at_rule: u32,
    pub(crate) at_eta: u32,
    pub(crate) n_eta: u32,
    pub(crate) at_mod_w: u32,
    pub(crate) at_mod_b: u32,
    pub(crate) at_fanout_w: u32,
    pub(crate) at_fanout_b: u32,
    pub(crate) at_bias: u32,
    pub(crate) n_bias: u32,
    pub(crate) at_leak: u32,
    pub(crate) n_leak: u32,
    pub(crate) at_in_w: u32,
    pub(crate) at_in_b: u32,
    pub(crate) at_out_w: u32,
    pub(crate) at_out_b: u32,
    pub(crate) at_mask: u32,
    pub(crate) n_rule: u32,
    pub(crate) n_observed: u32,
    pub(crate) n_outputs: u32,
    pub(crate) alpha_row: u32,
    pub(crate) alpha_column: u32,
    pub(crate) n_chunks: u32,
    pub(crate) n_tiles: u32,
    pub(crate) n_together: u32,
    pub(crate) n_splits: u32,
    pub(crate) n_slots: u32,
    pub(crate) first_episode: u32,
    pub(crate) clip: f32,
    pub(crate) share: f32,
}

/// The step at hand; `Step` of `shaders/lib/job.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Step {
    pub(crate) first: u32,
    pub(crate) n_steps: u32,
    pub(crate) row: u32,
    pub(crate) propagate: u32,
    pub(crate) collect: u32,
    pub(crate) propagated: u32,
    pub(crate) collected: u32,
    pub(crate) store: u32,
    pub(crate) slot: u32,
}

/// An optimiser's update; `Update` of `shaders/lib/optimiser.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Update {
    pub(crate) n_parameters: u32,
    pub(crate) at_eta: u32,
    pub(crate) n_eta: u32,
    pub(crate) n_blocks: u32,
    pub(crate) mark: f32,
    pub(crate) rate: f32,
    pub(crate) max_norm: f32,
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) gain1: f32,
    pub(crate) gain2: f32,
    pub(crate) epsilon: f32,
    pub(crate) second_scale: f32,
}

/// Columns of a workgroup of `shaders/sum_splits.wgsl`, `SUM_COLUMNS` there.
pub(crate) const SUM_COLUMNS: usize = 64;
/// Parameters of an optimiser's workgroup: `BLOCK` of `shaders/lib/optimiser.wgsl`.
pub(crate) const BLOCK: usize = 4096;

/// The override constants of `shaders/lib/job.wgsl`, by name.
pub(crate) type Variant = [(&'static str, f64); 16];

/// A compiled kernel.
pub(crate) struct Pipeline {
    stem: &'static str,
    pub(crate) pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    bindings: &'static [(&'static str, Access)],
}

impl Pipeline {
    /// Compiles a kernel for a variant; with `dirty`, one that finds NaN in its workgroup memory.
    #[expect(unsafe_code, reason = "wgpu trusts shaders only so")]
    pub(crate) fn new(
        gpu: &Gpu,
        kernel: &Kernel,
        form: &Form,
        variant: &Variant,
        dirty: bool,
    ) -> Result<Self> {
        let source = Source::compose(kernel.stem, kernel.text, form)?;
        let (module, _) = source.module()?;
        let declared = |name: &str| {
            module.overrides.iter().any(|(_, constant)| constant.name.as_deref() == Some(name))
        };
        let constants: Vec<(&str, f64)> =
            variant.iter().copied().filter(|(name, _)| declared(name)).collect();
        let entry = |(binding, &(_, access)): (usize, &(&str, Access))| {
            let kind = match access {
                Access::Uniform | Access::Step => wgpu::BufferBindingType::Uniform,
                Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
                Access::Write => wgpu::BufferBindingType::Storage { read_only: false },
            };
            wgpu::BindGroupLayoutEntry {
                binding: u32::try_from(binding).expect("few bindings"),
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: kind,
                    has_dynamic_offset: access == Access::Step,
                    min_binding_size: None,
                },
                count: None,
            }
        };
        let entries: Vec<_> = kernel.bindings.iter().enumerate().map(entry).collect();
        let device = &gpu.device;
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(kernel.stem),
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(kernel.stem),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let text = if dirty { source.with_dirty_workgroup() } else { source.text };
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(kernel.stem),
            source: wgpu::ShaderSource::Wgsl(text.into()),
        };
        // Counters that bound every loop keep drivers from unrolling it. Array bounds are
        // still checked.
        let checks = wgpu::ShaderRuntimeChecks {
            force_loop_bounding: false,
            ..wgpu::ShaderRuntimeChecks::checked()
        };
        // SAFETY: every loop of our shaders counts towards a bound.
        let shader = unsafe { device.create_shader_module_trusted(descriptor, checks) };
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.stem),
            layout: Some(&pipeline_layout),
            module: &shader,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        gpu.check()?;
        Ok(Pipeline { stem: kernel.stem, pipeline, layout, bindings: kernel.bindings })
    }

    fn bind(&self, gpu: &Gpu, buffers: &[&wgpu::Buffer]) -> wgpu::BindGroup {
        let step = wgpu::BufferSize::new(size_of::<Step>() as u64);
        let entries: Vec<_> = buffers
            .iter()
            .zip(self.bindings)
            .enumerate()
            .map(|(binding, (buffer, &(_, access)))| wgpu::BindGroupEntry {
                binding: u32::try_from(binding).expect("few bindings"),
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer,
                    offset: 0,
                    size: if access == Access::Step { step } else { None },
                }),
            })
            .collect();
        gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(self.stem),
            layout: &self.layout,
            entries: &entries,
        })
    }
}

/// A grid of at least `n` workgroups in one dimension's limit: shaders number them
/// y x-groups + x.
pub(crate) fn grid(n: usize) -> [u32; 3] {
    const MOST: usize = 65_535;
    let y = n.div_ceil(MOST).max(1);
    let size = |n: usize| u32::try_from(n).expect("grids fit 32 bits");
    [size(n.div_ceil(y)), size(y), 1]
}

#[cfg(test)]
mod alone_tests;
#[cfg(test)]
mod browser_jobs;
#[cfg(test)]
mod register_tests;
#[cfg(test)]
mod shader_tests;
