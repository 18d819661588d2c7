//! `shaders/share_alpha.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(ShareAlpha, "share_alpha", {
    Uniform job,
    Read alpha_quads,
    Write gradient,
});
