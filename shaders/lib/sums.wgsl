// Each lane's part of each column's sum, and the sum.

var<workgroup> sh_sums: array<array<array<f32, PLACES>, COLUMNS>, LANES>;

fn sum_of(j: u32) -> f32 {
    let spot = spot_of_column(j);
    var sum = vec4(0.0);
    //!unroll lane LANES
    sum[$lane % 4u] = sum[$lane % 4u] + sh_sums[$lane][spot.x][spot.y];
    //!end
    return total_of(sum);
}
