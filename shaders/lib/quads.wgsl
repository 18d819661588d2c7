// w and alpha of a quad; 0 for rows beyond M. Loads are made in any case, at a row that there
// is, so that they need no branch and all are on their way at once.

// Of rows that there are: 0 where a connection is missing.
fn mask_quad(network: u32, quad: u32, j: u32) -> vec4<f32> {
    if (MASKED == 0u) {
        return vec4(1.0);
    }
    let at = vec4(network + job.at_mask + j) + rows_of(quad) * job.n_post;
    return vec4(parameters[at.x], parameters[at.y], parameters[at.z], parameters[at.w]);
}

fn w_quad(network: u32, quad: u32, j: u32) -> vec4<f32> {
    let at = vec4(network + job.at_w + j) + rows_of(quad) * job.n_post;
    let w = vec4(parameters[at.x], parameters[at.y], parameters[at.z], parameters[at.w]);
    return select(vec4(0.0), w * mask_quad(network, quad, j), are_rows(quad));
}

fn alpha_quad(network: u32, quad: u32, j: u32) -> vec4<f32> {
    let first = network + job.at_alpha + j * job.alpha_column;
    let at = vec4(first) + rows_of(quad) * job.alpha_row;
    let alpha = vec4(parameters[at.x], parameters[at.y], parameters[at.z], parameters[at.w]);
    return select(vec4(0.0), alpha * mask_quad(network, quad, j), are_rows(quad));
}
