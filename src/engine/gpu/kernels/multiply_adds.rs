//! `shaders/multiply_adds.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(MultiplyAdds, "multiply_adds", {
    Read source,
    Write to,
});
