//! `shaders/copy.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(Copy, "copy", {
    Read source,
    Write to,
});
