// Reductions over a workgroup of 256 in a fixed order. Every invocation calls them, in
// uniform control flow; every invocation gets the result.

var<workgroup> sh_reduce: array<f32, 256>;

fn reduce_sum(local: u32, value: f32) -> f32 {
    sh_reduce[local] = value;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half = half / 2u) {
        if (local < half) {
            sh_reduce[local] = sh_reduce[local] + sh_reduce[local + half];
        }
        workgroupBarrier();
    }
    let sum = sh_reduce[0];
    workgroupBarrier();
    return sum;
}

fn reduce_max(local: u32, value: f32) -> f32 {
    sh_reduce[local] = value;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half = half / 2u) {
        if (local < half) {
            sh_reduce[local] = max(sh_reduce[local], sh_reduce[local + half]);
        }
        workgroupBarrier();
    }
    let top = sh_reduce[0];
    workgroupBarrier();
    return top;
}
