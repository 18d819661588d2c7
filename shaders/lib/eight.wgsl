// Long sums load eight terms, then add those that there are, in order: eight loads are on their
// way at once.
fn add_eight(sum: f32, part: array<f32, 8>, n_terms: u32) -> f32 {
    var total = sum;
    //!unroll k 8
    total = total + select(0.0, part[$k], $k < n_terms);
    //!end
    return total;
}
