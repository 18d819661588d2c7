// A stored trace: four rows of a column in f16, rounded as the platform does.

alias Stored = vec2<u32>;

fn to_stored(x: vec4<f32>) -> Stored {
    return vec2(pack2x16float(x.xy), pack2x16float(x.zw));
}

fn from_stored(x: Stored) -> vec4<f32> {
    return vec4(unpack2x16float(x.x), unpack2x16float(x.y));
}
