//! `shaders/general_neurons.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(GeneralNeurons, "general_neurons", {
    Uniform job,
    Step now,
    Read parameters,
    Read partial,
    Read record,
    Read pre,
    Write state,
});
