//! `shaders/observed_back.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(ObservedBack, "observed_back", {
    Uniform job,
    Read parameters,
    Read record,
    Write d_observed,
});
