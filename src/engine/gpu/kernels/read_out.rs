//! `shaders/read_out.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(ReadOut, "read_out", {
    Uniform job,
    Read parameters,
    Read asked,
    Write record,
    Write outer,
    Write loss_rows,
});
