//! `shaders/general_sweep.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(GeneralSweep, "general_sweep", {
    Uniform job,
    Step now,
    Read parameters,
    Read start,
    Read trace,
    Read record,
    Read state,
    Read pre,
    Write partial,
    Write trace_out,
});
