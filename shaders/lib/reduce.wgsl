// Reductions over a workgroup of 256 in a fixed order. Every invocation calls them, in
// uniform control flow; every invocation gets the result.

var<workgroup> sh_reduce: array<f32, 256>;
var<workgroup> sh_sixteen: array<f32, 16>;

fn reduce_sum(local: u32, value: f32) -> f32 {
    sh_reduce[local] = value;
    workgroupBarrier();
    if (local < 16u) {
        var sum = 0.0;
        //!unroll k 16
        sum = sum + sh_reduce[local + 16u * $k];
        //!end
        sh_sixteen[local] = sum;
    }
    workgroupBarrier();
    var sum = 0.0;
    //!unroll k 16
    sum = sum + sh_sixteen[$k];
    //!end
    return sum;
}

fn reduce_max(local: u32, value: f32) -> f32 {
    sh_reduce[local] = value;
    workgroupBarrier();
    if (local < 16u) {
        var top = sh_reduce[local];
        //!unroll k 16
        top = max(top, sh_reduce[local + 16u * $k]);
        //!end
        sh_sixteen[local] = top;
    }
    workgroupBarrier();
    var top = sh_sixteen[0];
    //!unroll k 16
    top = max(top, sh_sixteen[$k]);
    //!end
    return top;
}
