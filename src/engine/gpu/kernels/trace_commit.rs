//! `shaders/trace_commit.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(TraceCommit, "trace_commit", {
    Uniform job,
    Step now,
    Read trace,
    Read record,
    Read pre,
    Write trace_out,
});
