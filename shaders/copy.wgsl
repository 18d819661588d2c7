// Copies a buffer: what the device's memory can do.   to: =
//
// An invocation owns every (256 x workgroups)th group of four numbers.

@group(0) @binding(0) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> to: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    for (var k = id.x; k < arrayLength(&to); k = k + 256u * groups.x) {
        to[k] = source[k];
    }
}
