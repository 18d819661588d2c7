//! `shaders/plastic_matmul.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(PlasticMatmul, "plastic_matmul", {
    Uniform job,
    Step now,
    Read parameters,
    Read trace,
    Read record,
    Read pre,
    Write partial,
    Write trace_out,
    Write residual,
});
