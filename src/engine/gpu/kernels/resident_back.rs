//! `shaders/resident_back.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(ResidentBack, "resident_back", {
    Uniform job,
    Step now,
    Read parameters,
    Read trace,
    Write adjoint,
    Read stimuli,
    Read shown,
    Write record,
    Write rule_bar,
    Write pre,
});
