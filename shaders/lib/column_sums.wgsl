// Sum number `which` of a neuron's column over the chunks of a sweep.
fn collected(which: u32, episode: u32, j: u32) -> f32 {
    var sum = 0.0;
    for (var chunk = 0u; chunk < job.n_chunks; chunk = chunk + 8u) {
        var part = array<f32, 8>();
        //!unroll k 8
        part[$k] = column_partial[
            ((which * job.n_chunks + min(chunk + $k, job.n_chunks - 1u)) * n_episodes() + episode)
                * job.n_post + j];
        //!end
        sum = add_eight(sum, part, job.n_chunks - chunk);
    }
    return sum;
}
