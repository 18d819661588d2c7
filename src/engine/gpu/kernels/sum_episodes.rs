//! `shaders/sum_episodes.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(SumEpisodes, "sum_episodes", {
    Uniform job,
    Read loss_rows,
    Read rule_bar,
    Write gradient,
    Write report,
});
