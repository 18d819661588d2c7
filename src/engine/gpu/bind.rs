//! Pipelines and bind groups: which kernel runs over which buffers.

use std::collections::HashMap;
use std::sync::Arc;

use crate::engine::gpu::GpuEngine;
use crate::engine::gpu::Group;
use crate::engine::gpu::buffers::{Buffers, Sums};
use crate::engine::gpu::device::Gpu;
use crate::engine::gpu::kernels::{
    Adam, BackwardSweep, Drive, FinishReport, GeneralBack, GeneralCollect, GeneralNeurons,
    GeneralNeuronsBack, GeneralSweep, GeneralWeights, GradientNorm, Kernel, Loss, NeuronBack,
    NeuronStep, ObservedBack, OuterGradients, Pipeline, PlasticMatmul, ReadOut, ResidentBack,
    ResidentForward, Sgd, ShareAlpha, SumEpisodes, SumSplits, WeightGradients,
};
use crate::engine::gpu::plan::{Layout, Plan};
use crate::engine::gpu::slots::needs;
use crate::error::Result;
use crate::model::Network;

/// The kernels of an engine, compiled.
pub(super) struct Pipelines {
    pub(super) loss: Arc<Pipeline>,
    pub(super) around: Around<Arc<Pipeline>>,
    pub(super) sum_episodes: Arc<Pipeline>,
    pub(super) sum_splits: Arc<Pipeline>,
    pub(super) share_alpha: Arc<Pipeline>,
    pub(super) steps: StepPipelines,
}

/// Of the kernels around a core; none that the network does not need.
pub(super) struct Around<T> {
    pub(super) drive: Option<T>,
    pub(super) read_out: Option<T>,
    pub(super) outer_gradients: Option<T>,
    pub(super) observed_back: Option<T>,
}

/// Kernels of one plan or another.
pub(super) enum StepPipelines {
    Streamed {
        plastic_matmul: Arc<Pipeline>,
        neuron_step: Arc<Pipeline>,
        backward_sweep: Arc<Pipeline>,
        neuron_back: Arc<Pipeline>,
        weight_gradients: Arc<Pipeline>,
    },
    Resident {
        forward: Arc<Pipeline>,
        back: Arc<Pipeline>,
        weight_gradients: Arc<Pipeline>,
    },
    General {
        sweep: Arc<Pipeline>,
        neuron_step: Arc<Pipeline>,
        neurons: Arc<Pipeline>,
        collect: Arc<Pipeline>,
        neurons_back: Arc<Pipeline>,
        neuron_back: Arc<Pipeline>,
        weights: Arc<Pipeline>,
        back: Arc<Pipeline>,
    },
}

/// The kernels that move parameters along their gradients, over each group's buffers: no batch's shape
/// is in them.
pub(super) struct Optimisers {
    pub(super) pipelines: OptimiserKernels<Arc<Pipeline>>,
    pub(super) bound: Vec<OptimiserKernels<wgpu::BindGroup>>,
}

/// One thing for each of them.
pub(super) struct OptimiserKernels<T> {
    pub(super) gradient_norm: T,
    pub(super) finish_report: T,
    pub(super) adam: T,
    pub(super) sgd: T,
}

/// Bind groups over one group's buffers.
pub(super) struct Bound {
    pub(super) loss: wgpu::BindGroup,
    pub(super) around: Around<wgpu::BindGroup>,
    pub(super) sum_episodes: wgpu::BindGroup,
    pub(super) sum_splits: wgpu::BindGroup,
    pub(super) share_alpha: wgpu::BindGroup,
    pub(super) steps: BoundSteps,
}

/// Of the kernels of [`StepPipelines`]; a list has one for each window, or each buffer of traces.
pub(super) enum BoundSteps {
    Streamed {
        plastic_matmul: Vec<wgpu::BindGroup>,
        neuron_step: wgpu::BindGroup,
        backward_sweep: Vec<wgpu::BindGroup>,
        neuron_back: wgpu::BindGroup,
        weight_gradients: Vec<wgpu::BindGroup>,
    },
    Resident {
        forward: wgpu::BindGroup,
        back: wgpu::BindGroup,
        weight_gradients: Vec<wgpu::BindGroup>,
    },
    General {
        /// By the slots that a sweep reads and writes.
        sweep: HashMap<(usize, usize), wgpu::BindGroup>,
        neuron_step: wgpu::BindGroup,
        neurons: wgpu::BindGroup,
        collect: Vec<wgpu::BindGroup>,
        neurons_back: wgpu::BindGroup,
        neuron_back: wgpu::BindGroup,
        weights: Vec<wgpu::BindGroup>,
        back: Vec<wgpu::BindGroup>,
    },
}

impl Pipelines {
    /// Compiles the kernels that a plan of `layout` needs, and those around the network's core.
    pub(super) fn compile(
        network: &Network,
        layout: Layout,
        compile: impl Fn(&Kernel) -> Result<Arc<Pipeline>>,
    ) -> Result<Self> {
        Ok(Pipelines {
            loss: compile(&Loss::KERNEL)?,
            around: {
                let of = |kernel: &Kernel| match needs(network, kernel.stem) {
                    true => compile(kernel).map(Some),
                    false => Ok(None),
                };
                Around {
                    drive: of(&Drive::KERNEL)?,
                    read_out: of(&ReadOut::KERNEL)?,
                    outer_gradients: of(&OuterGradients::KERNEL)?,
                    observed_back: of(&ObservedBack::KERNEL)?,
                }
            },
            sum_episodes: compile(&SumEpisodes::KERNEL)?,
            sum_splits: compile(&SumSplits::KERNEL)?,
            share_alpha: compile(&ShareAlpha::KERNEL)?,
            steps: match layout {
                Layout::Streamed { .. } => StepPipelines::Streamed {
                    plastic_matmul: compile(&PlasticMatmul::KERNEL)?,
                    neuron_step: compile(&NeuronStep::KERNEL)?,
                    backward_sweep: compile(&BackwardSweep::KERNEL)?,
                    neuron_back: compile(&NeuronBack::KERNEL)?,
                    weight_gradients: compile(&WeightGradients::KERNEL)?,
                },
                Layout::Resident(_) => StepPipelines::Resident {
                    forward: compile(&ResidentForward::KERNEL)?,
                    back: compile(&ResidentBack::KERNEL)?,
                    weight_gradients: compile(&WeightGradients::KERNEL)?,
                },
                Layout::General { .. } => StepPipelines::General {
                    sweep: compile(&GeneralSweep::KERNEL)?,
                    neuron_step: compile(&NeuronStep::KERNEL)?,
                    neurons: compile(&GeneralNeurons::KERNEL)?,
                    collect: compile(&GeneralCollect::KERNEL)?,
                    neurons_back: compile(&GeneralNeuronsBack::KERNEL)?,
                    neuron_back: compile(&NeuronBack::KERNEL)?,
                    weights: compile(&GeneralWeights::KERNEL)?,
                    back: compile(&GeneralBack::KERNEL)?,
                },
            },
        })
    }
}

impl Optimisers {
    /// Compiles and binds them; `how` is what a step needs beside gradients.
    pub(super) fn new(
        gpu: &Gpu,
        groups: &[Group],
        how: &wgpu::Buffer,
        compile: impl Fn(&Kernel) -> Result<Arc<Pipeline>>,
    ) -> Result<Self> {
        let pipelines = OptimiserKernels {
            gradient_norm: compile(&GradientNorm::KERNEL)?,
            finish_report: compile(&FinishReport::KERNEL)?,
            adam: compile(&Adam::KERNEL)?,
            sgd: compile(&Sgd::KERNEL)?,
        };
        let bind = |group: &Group| {
            let Group { parameters, gradient, squares, report, .. } = group;
            let (first, second) = (&group.first_moment, &group.second_moment);
            OptimiserKernels {
                gradient_norm: GradientNorm { how, gradient, squares }
                    .bind(gpu, &pipelines.gradient_norm),
                finish_report: FinishReport { how, squares, parameters, report }
                    .bind(gpu, &pipelines.finish_report),
                adam: Adam { how, gradient, first, second, parameters, report }
                    .bind(gpu, &pipelines.adam),
                sgd: Sgd { how, gradient, first, parameters, report }.bind(gpu, &pipelines.sgd),
            }
        };
        Ok(Optimisers { bound: groups.iter().map(bind).collect(), pipelines })
    }
}

impl GpuEngine {
    /// Binds one group's buffers.
    pub(super) fn bind(
        &self,
        group: &Group,
        sums: &Sums,
        plan: &Plan,
        job: &wgpu::Buffer,
        b: &Buffers,
        pipelines: &Pipelines,
    ) -> Bound {
        let gpu = self.gpu();
        let now = &b.steps;
        let Buffers { record, residual, adjoint, stimuli, shown, pre, rule_bar, y_last, .. } = b;
        let Buffers { observed, asked, outer, .. } = b;
        let Group { parameters, gradient, report, .. } = group;
        let Sums { d_connections, alpha_quads } = sums;
        let (column_partial, row_partial) = (&b.column_partial, &b.row_partial);
        let (partial, state) = (&b.partial, &b.state);
        let of_traces = |bind: &dyn Fn(&wgpu::Buffer) -> wgpu::BindGroup| -> Vec<wgpu::BindGroup> {
            b.traces.iter().map(bind).collect()
        };
        let weight_gradients = |pipeline: &Pipeline| {
            of_traces(&|trace| {
                WeightGradients { job, now, trace, record, pre, d_connections }.bind(gpu, pipeline)
            })
        };
        let neuron_step = |pipeline: &Pipeline| {
            NeuronStep { job, now, parameters, partial, stimuli, shown, record, y_last }
                .bind(gpu, pipeline)
        };
        let neuron_back = |pipeline: &Pipeline| {
            NeuronBack {
                job,
                now,
                parameters,
                column_partial,
                row_partial,
                stimuli,
                shown,
                record,
                rule_bar,
                pre,
            }
            .bind(gpu, pipeline)
        };
        Bound {
            loss: Loss {
                job,
                stimuli,
                shown,
                targets: &b.targets,
                scored: &b.scored,
                record,
                loss_rows: &b.loss_rows,
            }
            .bind(gpu, &pipelines.loss),
            around: {
                let around = &pipelines.around;
                let (loss_rows, d_observed) = (&b.loss_rows, &b.d_observed);
                Around {
                    drive: around.drive.as_ref().map(|pipeline| {
                        Drive { job, parameters, observed, record }.bind(gpu, pipeline)
                    }),
                    read_out: around.read_out.as_ref().map(|pipeline| {
                        ReadOut { job, parameters, asked, record, outer, loss_rows }
                            .bind(gpu, pipeline)
                    }),
                    outer_gradients: around.outer_gradients.as_ref().map(|pipeline| {
                        OuterGradients { job, now, record, observed, outer, rule_bar }
                            .bind(gpu, pipeline)
                    }),
                    observed_back: around.observed_back.as_ref().map(|pipeline| {
                        ObservedBack { job, parameters, record, d_observed }.bind(gpu, pipeline)
                    }),
                }
            },
            sum_episodes: SumEpisodes { job, loss_rows: &b.loss_rows, rule_bar, gradient, report }
                .bind(gpu, &pipelines.sum_episodes),
            sum_splits: SumSplits { job, parameters, d_connections, gradient, alpha_quads }
                .bind(gpu, &pipelines.sum_splits),
            share_alpha: ShareAlpha { job, alpha_quads, gradient }
                .bind(gpu, &pipelines.share_alpha),
            steps: match &pipelines.steps {
                StepPipelines::Streamed {
                    plastic_matmul,
                    neuron_step: step,
                    backward_sweep,
                    neuron_back: back,
                    weight_gradients: weights,
                } => BoundSteps::Streamed {
                    plastic_matmul: (0..plan.n_windows)
                        .map(|w| {
                            let trace = &b.traces[plan.slot(w)];
                            let trace_out = &b.traces[plan.slot(w + 1)];
                            PlasticMatmul {
                                job,
                                now,
                                parameters,
                                trace,
                                record,
                                pre,
                                partial,
                                trace_out,
                                residual,
                            }
                            .bind(gpu, plastic_matmul)
                        })
                        .collect(),
                    neuron_step: neuron_step(step),
                    backward_sweep: (0..plan.n_windows)
                        .map(|w| {
                            BackwardSweep {
                                job,
                                now,
                                parameters,
                                trace: &b.traces[plan.slot(w)],
                                adjoint,
                                record,
                                pre,
                                column_partial,
                                row_partial,
                            }
                            .bind(gpu, backward_sweep)
                        })
                        .collect(),
                    neuron_back: neuron_back(back),
                    weight_gradients: weight_gradients(weights),
                },
                StepPipelines::General {
                    sweep,
                    neuron_step: step,
                    neurons,
                    collect,
                    neurons_back,
                    neuron_back: step_back,
                    weights,
                    back,
                } => BoundSteps::General {
                    sweep: plan
                        .general_slots()
                        .map(|(from, to)| {
                            let (start, trace) = (&b.traces[0], &b.traces[from]);
                            let trace_out = &b.traces[to];
                            let bound = GeneralSweep {
                                job,
                                now,
                                parameters,
                                start,
                                trace,
                                record,
                                state,
                                pre,
                                partial,
                                trace_out,
                            };
                            ((from, to), bound.bind(gpu, sweep))
                        })
                        .collect(),
                    neuron_step: neuron_step(step),
                    neurons: GeneralNeurons { job, now, parameters, partial, record, pre, state }
                        .bind(gpu, neurons),
                    collect: of_traces(&|trace| {
                        GeneralCollect {
                            job,
                            now,
                            parameters,
                            trace,
                            adjoint,
                            record,
                            state,
                            pre,
                            column_partial,
                        }
                        .bind(gpu, collect)
                    }),
                    neurons_back: GeneralNeuronsBack {
                        job,
                        now,
                        parameters,
                        column_partial,
                        pre,
                        row_partial,
                        record,
                        state,
                        rule_bar,
                    }
                    .bind(gpu, neurons_back),
                    neuron_back: neuron_back(step_back),
                    weights: of_traces(&|trace| {
                        GeneralWeights { job, now, trace, record, pre, d_connections }
                            .bind(gpu, weights)
                    }),
                    back: of_traces(&|trace| {
                        GeneralBack {
                            job,
                            now,
                            parameters,
                            trace,
                            record,
                            state,
                            pre,
                            adjoint,
                            row_partial,
                            rule_bar,
                        }
                        .bind(gpu, back)
                    }),
                },
                StepPipelines::Resident { forward, back, weight_gradients: weights } => {
                    let trace = &b.traces[0];
                    BoundSteps::Resident {
                        forward: ResidentForward {
                            job,
                            now,
                            parameters,
                            stimuli,
                            shown,
                            pre,
                            trace,
                            record,
                            y_last,
                            residual,
                        }
                        .bind(gpu, forward),
                        back: ResidentBack {
                            job,
                            now,
                            parameters,
                            trace,
                            adjoint,
                            stimuli,
                            shown,
                            record,
                            rule_bar,
                            pre,
                        }
                        .bind(gpu, back),
                        weight_gradients: weight_gradients(weights),
                    }
                }
            },
        }
    }
}
