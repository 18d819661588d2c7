// A stored trace: four rows of a column in f32.

alias Stored = vec4<f32>;

const ROUNDED = false;

fn to_stored(x: vec4<f32>) -> Stored {
    return x;
}

fn from_stored(x: Stored) -> vec4<f32> {
    return x;
}

fn h_from_stored(x: Stored) -> vec4<f32> {
    return x;
}
