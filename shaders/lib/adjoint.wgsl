// The adjoint of the trace, as P (lambda = alpha P), over a window:
//
//     P(t) = d mask P(t+1) + x(t) delta(t)
//
// and with two traces, G = mask P_H(t+1):  P_E(t) = d P_E(t+1) + m G,  P_H(t) = G + x delta

var<private> k_delta: array<f32, 16>;
var<private> masks: array<vec4<f32>, 16>;

fn load_deltas(episode: u32, j: u32, first: u32, n_steps: u32) {
    for (var r = 0u; r < n_steps; r = r + 1u) {
        k_delta[r] = record[row_at(DELTA, episode, first + r) + j];
    }
}

// P_H after step r where its trace was not clipped.
fn unmasked(p: Traces, r: u32) -> vec4<f32> {
    if (CLIPPED == 1u) {
        return masks[r] * p.h;
    }
    return p.h;
}

// One step back, from after step r to before it.
fn evolve_back(p: Traces, r: u32, x: vec4<f32>) -> Traces {
    let g = unmasked(p, r);
    let gain = k_delta[r] * x;
    if (two_traces()) {
        return Traces(g + gain, k_d[r] * p.e + k_m[r] * g);
    }
    return Traces(k_d[r] * g + gain, p.e);
}
