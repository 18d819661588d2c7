//! `shaders/general_neurons_back.wgsl`.

use crate::engine::gpu::kernels::kernel;

kernel!(GeneralNeuronsBack, "general_neurons_back", {
    Uniform job,
    Step now,
    Read parameters,
    Read column_partial,
    Read pre,
    Write row_partial,
    Write record,
    Write state,
    Write rule_bar,
});
