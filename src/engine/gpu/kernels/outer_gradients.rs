//! `shaders/outer_gradients.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(OuterGradients, "outer_gradients", {
    Uniform job,
    Step now,
    Read record,
    Read observed,
    Read outer,
    Write rule_bar,
});
