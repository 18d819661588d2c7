// Adam (Kingma & Ba 2015), with g scaled to the norm allowed:
//
//     m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
//     theta -= rate m / (sqrt(v) second_scale + epsilon)
//
// where rate and second_scale hold the bias corrections.
// Workgroup (block, network) owns a block of BLOCK parameters; an invocation every 256th.
// first, second: =   parameters: -=   report (mark): =
//!include lib/optimiser.wgsl

@group(0) @binding(0) var<uniform> how: Update;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;         // [P, n_parameters]
@group(0) @binding(2) var<storage, read_write> first: array<f32>;      // [P, n_parameters]
@group(0) @binding(3) var<storage, read_write> second: array<f32>;     // [P, n_parameters]
@group(0) @binding(4) var<storage, read_write> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(5) var<storage, read_write> report: array<f32>;     // [P, 4]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let scale = shrink(report[group.y * 4u + 1u]);
    let last = min((group.x + 1u) * BLOCK, how.n_parameters);
    for (var k = group.x * BLOCK + local; k < last; k = k + 256u) {
        let at = group.y * how.n_parameters + k;
        let g = gradient[at] * scale;
        let m = how.beta1 * first[at] + how.gain1 * g;
        let v = how.beta2 * second[at] + how.gain2 * g * g;
        first[at] = m;
        second[at] = v;
        let root = sqrt(v) * how.second_scale + how.epsilon;
        parameters[at] = parameters[at] - how.rate * m / root;
    }
    if (group.x == 0u && local == 0u) {
        report[group.y * 4u + 3u] = how.mark;
    }
}
