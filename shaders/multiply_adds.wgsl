// Sixteen chains of 4,096 multiply-adds in each invocation: what the device's arithmetic
// can do.   to: =
//
// Four chains of vectors hide the latency; the results are kept so that none is left out.

@group(0) @binding(0) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> to: array<vec4<f32>>;

const TIMES = 4096u;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let a = source[id.x % arrayLength(&source)];
    let b = a.wzyx;
    var s0 = a;
    var s1 = b;
    var s2 = a.yxwz;
    var s3 = b.yxwz;
    for (var k = 0u; k < TIMES; k = k + 16u) {
        //!unroll k 16
        s0 = fma(s0, a, b);
        s1 = fma(s1, a, b);
        s2 = fma(s2, a, b);
        s3 = fma(s3, a, b);
        //!end
    }
    to[id.x % arrayLength(&to)] = (s0 + s1) + (s2 + s3);
}
