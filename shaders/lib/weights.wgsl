// w and alpha of a quad; 0 for rows beyond M.

fn w_quad(network: u32, quad: u32, j: u32) -> vec4<f32> {
    var w = vec4(0.0);
    for (var k = 0u; k < 4u; k = k + 1u) {
        if (4u * quad + k < job.n_pre) {
            w[k] = parameters[network + job.at_w + (4u * quad + k) * job.n_post + j];
        }
    }
    return w;
}

fn alpha_quad(network: u32, quad: u32, j: u32) -> vec4<f32> {
    let at = network + job.at_alpha + j * job.alpha_column;
    var alpha = vec4(0.0);
    for (var k = 0u; k < 4u; k = k + 1u) {
        if (4u * quad + k < job.n_pre) {
            alpha[k] = parameters[at + (4u * quad + k) * job.alpha_row];
        }
    }
    return alpha;
}
