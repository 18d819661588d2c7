//! `shaders/window_gradients.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(WindowGradients, "window_gradients", {
    Uniform job,
    Step now,
    Read trace,
    Read record,
    Read pre,
    Write adjoint,
    Write gradient,
    Write d_alpha,
});
