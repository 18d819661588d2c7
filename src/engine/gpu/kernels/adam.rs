//! `shaders/adam.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(Adam, "adam", {
    Uniform how,
    Read gradient,
    Write first,
    Write second,
    Write parameters,
    Write report,
});
