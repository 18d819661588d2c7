// What an update of the parameters needs beside the gradient.

struct Update {
    n_parameters: u32,
    at_eta: u32,
    n_eta: u32, // 0 where the rule has none
    // blocks of BLOCK parameters in a network
    n_blocks: u32,
    // the number of the update, as the report shows it when all is done
    mark: f32,
    rate: f32,
    max_norm: f32,
    beta1: f32,
    beta2: f32,
    // 1 - beta
    gain1: f32,
    gain2: f32,
    epsilon: f32,
    second_scale: f32,
}

const BLOCK = 4096u;

// The factor that brings a gradient of this norm to `max_norm` at the most.
fn shrink(norm: f32) -> f32 {
    if (how.max_norm > 0.0 && norm > how.max_norm) {
        return how.max_norm / norm;
    }
    return 1.0;
}
