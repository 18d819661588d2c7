// exp, ln, tanh of our own: drivers' differ, lose digits or give NaN. Term by term the
// functions of `src/model/scalar.rs`, a few units in the last place each. Polynomials:
// Cephes (Moshier 1989).

const LN2_HIGH = 0.6933594;
const LN2_LOW = -2.1219444e-4;
const LOG2_E = 1.442695;

// e^x for x <= 0.
fn exp_neg(x: f32) -> f32 {
    if (x < -87.0) {
        return 0.0;
    }
    let n = floor(x * LOG2_E + 0.5);
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    var p = 1.9875691e-4;
    p = p * r + 1.3981999e-3;
    p = p * r + 8.333452e-3;
    p = p * r + 4.1665796e-2;
    p = p * r + 1.6666665e-1;
    p = p * r + 0.5;
    return (p * r * r + r + 1.0) * bitcast<f32>(u32(i32(n) + 127) << 23u);
}

// Natural logarithm; of 0 minus infinity, of less NaN (constants may be neither).
fn ln(x: f32) -> f32 {
    if (x <= 0.0) {
        return bitcast<f32>(bitcast<u32>(x) | 0xff800000u);
    }
    let shifted = bitcast<u32>(x) - 0x3f3504f3u;
    let e = f32(bitcast<i32>(shifted) >> 23u);
    let m = bitcast<f32>((shifted & 0x007fffffu) + 0x3f3504f3u);
    let z = m - 1.0;
    var p = 7.0376836e-2;
    p = p * z - 1.151461e-1;
    p = p * z + 1.1676999e-1;
    p = p * z - 1.2420141e-1;
    p = p * z + 1.4249323e-1;
    p = p * z - 1.6668058e-1;
    p = p * z + 2.0000715e-1;
    p = p * z - 2.4999994e-1;
    p = p * z + 3.333333e-1;
    let y = z * z * z * p + e * LN2_LOW - 0.5 * z * z;
    return z + y + e * LN2_HIGH;
}

// ln(1 + x) for 0 <= x <= 1, as 2 atanh(x / (2 + x)).
fn ln_1p(x: f32) -> f32 {
    let s = x / (2.0 + x);
    let s2 = s * s;
    var p = 1.0 / 15.0;
    p = p * s2 + 1.0 / 13.0;
    p = p * s2 + 1.0 / 11.0;
    p = p * s2 + 1.0 / 9.0;
    p = p * s2 + 1.0 / 7.0;
    p = p * s2 + 1.0 / 5.0;
    p = p * s2 + 1.0 / 3.0;
    p = p * s2 + 1.0;
    return 2.0 * s * p;
}

fn tanh_own(x: f32) -> f32 {
    let a = abs(x);
    if (a < 0.625) {
        let z = x * x;
        var p = -5.7049887e-3;
        p = p * z + 2.0639089e-2;
        p = p * z - 5.3739716e-2;
        p = p * z + 1.3331442e-1;
        p = p * z - 3.333328e-1;
        return x + x * z * p;
    }
    let e = exp_neg(-2.0 * a);
    let y = (1.0 - e) / (1.0 + e);
    return select(y, -y, x < 0.0);
}

// 1 / (1 + e^-z), accurate on both sides.
fn sigmoid(z: f32) -> f32 {
    let e = exp_neg(-abs(z));
    return select(1.0, e, z < 0.0) / (1.0 + e);
}

// The normal distribution's share below z. erfc by a rational fit with a relative error of 1.2e-7
// (Press et al. 1992, section 6.2).
fn normal_below(z: f32) -> f32 {
    let x = abs(z) * 0.70710678;
    let t = 1.0 / (1.0 + 0.5 * x);
    var p = 0.17087277;
    p = p * t - 0.82215223;
    p = p * t + 1.48851587;
    p = p * t - 1.13520398;
    p = p * t + 0.27886807;
    p = p * t - 0.18628806;
    p = p * t + 0.09678418;
    p = p * t + 0.37409196;
    p = p * t + 1.00002368;
    p = p * t - 1.26551223;
    let above = 0.5 * t * exp_neg(min(p - x * x, 0.0));
    return select(above, 1.0 - above, z > 0.0);
}

// An element-wise activation.
fn activate(z: f32) -> f32 {
    switch (ACTIVATION) {
        case TANH: { return tanh_own(z); }
        case SIGMOID: { return sigmoid(z); }
        case RELU: { return max(z, 0.0); }
        case SOFTPLUS: { return max(z, 0.0) + ln_1p(exp_neg(-abs(z))); }
        case GELU: { return z * normal_below(z); }
        default: { return z; }
    }
}

// Its derivative, accurate also where it saturates.
fn slope(z: f32) -> f32 {
    switch (ACTIVATION) {
        case TANH: {
            let e = exp_neg(-2.0 * abs(z));
            let half = 2.0 / (1.0 + e);
            return half * half * e;
        }
        case SIGMOID: {
            let e = exp_neg(-abs(z));
            let y = 1.0 / (1.0 + e);
            return y * y * e;
        }
        case RELU: { return select(0.0, 1.0, z > 0.0); }
        case SOFTPLUS: { return sigmoid(z); }
        case GELU: {
            return normal_below(z) + 0.39894228 * z * exp_neg(-0.5 * z * z);
        }
        default: { return 1.0; }
    }
}

// e^x, of more than 60 that of 60: infinity would make slopes no numbers. The twin of `exp` of rules in
// `crates/core/src/engine/cpu/general/code.rs`.
fn exp_any(x: f32) -> f32 {
    let e = exp_neg(-min(abs(x), 60.0));
    return select(1.0 / e, exp_neg(min(x, 0.0)), x <= 0.0);
}

// x to a whole power, by squares.
fn whole_power(x: f32, n: u32) -> f32 {
    var square = x;
    var product = 1.0;
    for (var bits = n; bits > 0u; bits = bits >> 1u) {
        if ((bits & 1u) == 1u) {
            product = product * square;
        }
        square = square * square;
    }
    return product;
}
