// w and alpha of a quad; 0 for rows beyond M. Loads are made in any case, at a row that there
// is, so that they need no branch and all are on their way at once.

fn w_quad(network: u32, quad: u32, j: u32) -> vec4<f32> {
    let i = vec4(4u * quad) + vec4(0u, 1u, 2u, 3u);
    let at = vec4(network + job.at_w + j) + min(i, vec4(job.n_pre - 1u)) * job.n_post;
    let w = vec4(parameters[at.x], parameters[at.y], parameters[at.z], parameters[at.w]);
    return select(vec4(0.0), w, i < vec4(job.n_pre));
}

fn alpha_quad(network: u32, quad: u32, j: u32) -> vec4<f32> {
    let i = vec4(4u * quad) + vec4(0u, 1u, 2u, 3u);
    let row = min(i, vec4(job.n_pre - 1u)) * job.alpha_row;
    let at = vec4(network + job.at_alpha + j * job.alpha_column) + row;
    let alpha = vec4(parameters[at.x], parameters[at.y], parameters[at.z], parameters[at.w]);
    return select(vec4(0.0), alpha, i < vec4(job.n_pre));
}
