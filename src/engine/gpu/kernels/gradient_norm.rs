//! `shaders/gradient_norm.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(GradientNorm, "gradient_norm", {
    Uniform how,
    Read gradient,
    Write squares,
});
