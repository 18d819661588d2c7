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
