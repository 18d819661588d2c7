// The adjoint of the trace, as P (lambda = alpha P):
//
//     P(t) = d mask P(t+1) + x(t) delta(t)
//
// and with two traces, G = mask P_H(t+1):  P_E(t) = d P_E(t+1) + m G,  P_H(t) = G + x delta

// P_H where the trace was not clipped.
fn unmasked(p: Traces, mask: vec4<f32>) -> vec4<f32> {
    if (CLIPPED == 1u) {
        return mask * p.h;
    }
    return p.h;
}

// P of the trace that receives x y.
fn hebbian_adjoint(p: Traces, mask: vec4<f32>) -> vec4<f32> {
    if (two_traces()) {
        return p.e;
    }
    return unmasked(p, mask);
}

// One step back, from after a step to before it.
fn evolve_back(
    p: Traces,
    mask: vec4<f32>,
    k: Coefficients,
    delta: f32,
    x: vec4<f32>,
) -> Traces {
    let g = unmasked(p, mask);
    let gain = delta * x;
    if (two_traces()) {
        return Traces(g + gain, k.d * p.e + k.m * g);
    }
    return Traces(k.d * g + gain, p.e);
}

// Adds a step's share of dL/dx: w delta + alpha (H delta + G c).
fn add_x_bar(
    sum: vec4<f32>,
    w: vec4<f32>,
    alpha: vec4<f32>,
    h: vec4<f32>,
    p: Traces,
    mask: vec4<f32>,
    c: f32,
    delta: f32,
) -> vec4<f32> {
    return (sum + w * delta) + alpha * (h * delta + hebbian_adjoint(p, mask) * c);
}

// What the rule's adjoint asks for, a quad's share of the column sums:
//
//     q = alpha G x,   r = alpha G trace,   e = alpha P^H E   (two traces)
//
// with the trace that receives x y, its G, and E as they were before the step.
struct Collected {
    q: vec4<f32>,
    r: vec4<f32>,
    e: vec4<f32>,
}

fn collect(
    alpha: vec4<f32>,
    before: Traces,
    p: Traces,
    mask: vec4<f32>,
    x: vec4<f32>,
) -> Collected {
    let lambda = alpha * hebbian_adjoint(p, mask);
    var e = vec4(0.0);
    if (two_traces()) {
        e = alpha * unmasked(p, mask) * before.e;
    }
    return Collected(lambda * x, lambda * hebbian(before), e);
}
