// A stored trace: four rows of a column in f16, rounded as the platform does.

alias Stored = vec2<u32>;

const ROUNDED = true;

fn to_stored(x: vec4<f32>) -> Stored {
    return vec2(pack2x16float(x.xy), pack2x16float(x.zw));
}

fn from_stored(x: Stored) -> vec4<f32> {
    return vec4(unpack2x16float(x.x), unpack2x16float(x.y));
}

// H: what rounding took past the clip lies on it, or it would count as clipped.
fn h_from_stored(x: Stored) -> vec4<f32> {
    let h = from_stored(x);
    if (CLIPPED == 1u) {
        let rounded = abs(h) <= vec4(job.clip * ROUNDED_PAST + LEAST_HALF);
        return select(h, clamp(h, vec4(-job.clip), vec4(job.clip)), rounded);
    }
    return h;
}

// 1 + 2^-10, and 2^-24: more than any rounding to f16 adds.
const ROUNDED_PAST = 1.0009765625;
const LEAST_HALF = 5.9604644775390625e-8;
