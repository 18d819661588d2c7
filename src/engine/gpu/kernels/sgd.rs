//! `shaders/sgd.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(Sgd, "sgd", {
    Uniform how,
    Read gradient,
    Write first,
    Write parameters,
    Write report,
});
