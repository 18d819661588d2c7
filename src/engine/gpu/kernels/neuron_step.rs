//! `shaders/neuron_step.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(NeuronStep, "neuron_step", {
    Uniform job,
    Step now,
    Read parameters,
    Read partial,
    Read stimuli,
    Read shown,
    Write record,
    Write y_last,
});
