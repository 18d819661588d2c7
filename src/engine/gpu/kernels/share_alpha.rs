//! `shaders/share_alpha.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(ShareAlpha, "share_alpha", {
    Uniform job,
    Read d_alpha,
    Write gradient,
});
