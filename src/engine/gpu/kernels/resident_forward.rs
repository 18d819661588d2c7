//! `shaders/resident_forward.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(ResidentForward, "resident_forward", {
    Uniform job,
    Step now,
    Read parameters,
    Read stimuli,
    Read shown,
    Read pre,
    Write trace,
    Write record,
    Write y_last,
    Write residual,
});
