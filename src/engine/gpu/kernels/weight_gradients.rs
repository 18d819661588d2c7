//! `shaders/weight_gradients.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(WeightGradients, "weight_gradients", {
    Uniform job,
    Step now,
    Read trace,
    Read record,
    Read pre,
    Write d_connections,
});
