//! `shaders/general_weights.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(GeneralWeights, "general_weights", {
    Uniform job,
    Step now,
    Read trace,
    Read record,
    Read pre,
    Write d_connections,
});
