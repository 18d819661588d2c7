//! `shaders/finish_report.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(FinishReport, "finish_report", {
    Uniform how,
    Read squares,
    Read parameters,
    Write report,
});
