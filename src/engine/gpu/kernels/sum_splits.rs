//! `shaders/sum_splits.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(SumSplits, "sum_splits", {
    Uniform job,
    Read parameters,
    Read d_connections,
    Write gradient,
    Write alpha_quads,
});
