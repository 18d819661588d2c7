// Rows of connections by quads.

fn n_quads() -> u32 {
    return (job.n_pre + 3u) / 4u;
}

// The rows of a quad; of those beyond M, the last there is, so that they can be loaded.
fn rows_of(quad: u32) -> vec4<u32> {
    return min(vec4(4u * quad) + vec4(0u, 1u, 2u, 3u), vec4(job.n_pre - 1u));
}

// Which of them there are.
fn are_rows(quad: u32) -> vec4<bool> {
    return vec4(4u * quad) + vec4(0u, 1u, 2u, 3u) < vec4(job.n_pre);
}
