//! `shaders/general_back.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(GeneralBack, "general_back", {
    Uniform job,
    Step now,
    Read parameters,
    Read trace,
    Read record,
    Read state,
    Read pre,
    Write adjoint,
    Write row_partial,
    Write rule_bar,
});
