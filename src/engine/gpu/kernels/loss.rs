//! `shaders/loss.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(Loss, "loss", {
    Uniform job,
    Read stimuli,
    Read shown,
    Read targets,
    Read scored,
    Write record,
    Write loss_rows,
});
