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

// w and alpha of the invocation's connections of a tile.
struct Weights {
    w: array<vec4<f32>, OWN>,
    alpha: array<vec4<f32>, OWN>,
}

// Of the tile that starts at quad `base` and column `left`; of columns beyond N, another's.
fn load_weights(network: u32, base: u32, left: u32, local: u32) -> Weights {
    var own: Weights;
    //!unroll c COLUMNS
    {
        let j = near_column(left, local, $c);
        //!unroll g ROW_GROUPS
        own.w[$g * COLUMNS + $c] = w_quad(network, base + own_quad(local, $g), j);
        own.alpha[$g * COLUMNS + $c] = alpha_quad(network, base + own_quad(local, $g), j);
        //!end
    }
    //!end
    return own;
}
