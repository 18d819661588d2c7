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

fn uses_m() -> bool {
    return RULE == MODULATED || RULE == RETROACTIVE || RULE == TEXT;
}

// Whether the network itself reads m out of its activity.
fn uses_modulator() -> bool {
    return uses_m() && MODULATOR == 1u;
}

// What a rule's coefficients for neuron j take from the parameters; 0 what it does not use.
struct RuleParameters {
    eta: f32,
    fanout_w: f32,
    fanout_b: f32,
}

fn rule_parameters(network: u32, j: u32) -> RuleParameters {
    var own = RuleParameters(0.0, 0.0, 0.0);
    if (uses_eta()) {
        own.eta = parameters[network + job.at_eta + min(j, job.n_eta - 1u)];
    }
    if (uses_modulator()) {
        own.fanout_w = parameters[network + job.at_fanout_w + j];
        own.fanout_b = parameters[network + job.at_fanout_b + j];
    }
    return own;
}

// m_j, given the modulator's signal tanh(mod.w . y + mod.b).
fn modulation(own: RuleParameters, signal: f32) -> f32 {
    return own.fanout_w * signal + own.fanout_b;
}

fn coefficients(own: RuleParameters, y: f32, m: f32) -> Coefficients {
    switch (RULE) {
        case DECAY: {
            return Coefficients(1.0 - own.eta, own.eta * y, 0.0);
        }
        case OJA: {
            return Coefficients(1.0 - own.eta * y * y, own.eta * y, 0.0);
        }
        case MODULATED: {
            return Coefficients(1.0, m * y, 0.0);
        }
        case RETROACTIVE: {
            return Coefficients(1.0 - own.eta, own.eta * y, m);
        }
        default: {
            return Coefficients(1.0, 0.0, 0.0);
        }
    }
}

// The step's share of dL/dy and dL/deta, and dL/dm, from the sweep's column sums.
fn rule_back(own: RuleParameters, y: f32, m: f32, q: f32, r: f32, e: f32) -> RuleBack {
    switch (RULE) {
        case DECAY: {
            return RuleBack(own.eta * q, y * q - r, 0.0);
        }
        case OJA: {
            return RuleBack(own.eta * (q - 2.0 * y * r), y * (q - y * r), 0.0);
        }
        case MODULATED: {
            return RuleBack(m * q, 0.0, y * q);
        }
        case RETROACTIVE: {
            return RuleBack(own.eta * q, y * q - r, e);
        }
        default: {
            return RuleBack(0.0, 0.0, 0.0);
        }
    }
}
