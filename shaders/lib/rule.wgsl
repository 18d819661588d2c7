// Plasticity rules as O(N) calculations: the twins of `Rule::coefficients` and
// `Rule::adjoint` in `src/model/rule.rs`, which explains them.

struct RuleBack {
    y_bar: f32,
    d_eta: f32,
    m_bar: f32,
}

fn uses_eta() -> bool {
    return RULE == DECAY || RULE == OJA || RULE == RETROACTIVE;
}

fn uses_modulator() -> bool {
    return RULE == MODULATED || RULE == RETROACTIVE;
}

fn eta_of(network: u32, j: u32) -> f32 {
    return parameters[network + job.at_eta + min(j, job.n_eta - 1u)];
}

// m_j, given the modulator's signal tanh(mod.w . y + mod.b).
fn modulation(network: u32, j: u32, signal: f32) -> f32 {
    return parameters[network + job.at_fanout_w + j] * signal
        + parameters[network + job.at_fanout_b + j];
}

fn coefficients(network: u32, j: u32, y: f32, signal: f32) -> Coefficients {
    switch (RULE) {
        case DECAY: {
            let eta = eta_of(network, j);
            return Coefficients(1.0 - eta, eta * y, 0.0);
        }
        case OJA: {
            let eta = eta_of(network, j);
            return Coefficients(1.0 - eta * y * y, eta * y, 0.0);
        }
        case MODULATED: {
            return Coefficients(1.0, modulation(network, j, signal) * y, 0.0);
        }
        case RETROACTIVE: {
            let eta = eta_of(network, j);
            return Coefficients(1.0 - eta, eta * y, modulation(network, j, signal));
        }
        default: {
            return Coefficients(1.0, 0.0, 0.0);
        }
    }
}

// The step's share of dL/dy and dL/deta, and dL/dm, from the sweep's column sums.
fn rule_back(network: u32, j: u32, y: f32, signal: f32, q: f32, r: f32, e: f32) -> RuleBack {
    switch (RULE) {
        case DECAY: {
            return RuleBack(eta_of(network, j) * q, y * q - r, 0.0);
        }
        case OJA: {
            return RuleBack(eta_of(network, j) * (q - 2.0 * y * r), y * (q - y * r), 0.0);
        }
        case MODULATED: {
            return RuleBack(modulation(network, j, signal) * q, 0.0, y * q);
        }
        case RETROACTIVE: {
            return RuleBack(eta_of(network, j) * q, y * q - r, e);
        }
        default: {
            return RuleBack(0.0, 0.0, 0.0);
        }
    }
}
