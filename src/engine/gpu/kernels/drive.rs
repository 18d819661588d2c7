//! `shaders/drive.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(Drive, "drive", {
    Uniform job,
    Read parameters,
    Read observed,
    Write record,
});
