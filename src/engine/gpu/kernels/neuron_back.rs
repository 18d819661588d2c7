//! `shaders/neuron_back.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(NeuronBack, "neuron_back", {
    Uniform job,
    Step now,
    Read parameters,
    Read column_partial,
    Read row_partial,
    Read stimuli,
    Read shown,
    Write record,
    Write rule_bar,
    Write pre,
});
