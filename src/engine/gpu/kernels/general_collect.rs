//! `shaders/general_collect.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(GeneralCollect, "general_collect", {
    Uniform job,
    Step now,
    Read parameters,
    Read trace,
    Read adjoint,
    Read record,
    Read state,
    Read pre,
    Write column_partial,
});
