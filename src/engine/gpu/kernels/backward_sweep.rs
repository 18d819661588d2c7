//! `shaders/backward_sweep.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(BackwardSweep, "backward_sweep", {
    Uniform job,
    Step now,
    Read parameters,
    Read trace,
    Write adjoint,
    Read record,
    Read pre,
    Write column_partial,
    Write row_partial,
});
