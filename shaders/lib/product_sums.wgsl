// A product of a sweep for neuron j over its chunks: plane 0 with w + alpha H, plane 1 with H.
fn product_sum(plane: u32, episode: u32, j: u32) -> f32 {
    var sum = 0.0;
    for (var chunk = 0u; chunk < job.n_chunks; chunk = chunk + 8u) {
        var part = array<f32, 8>();
        //!unroll k 8
        part[$k] = partial[
            ((plane * job.n_chunks + min(chunk + $k, job.n_chunks - 1u)) * n_episodes() + episode)
                * job.n_post + j];
        //!end
        sum = add_eight(sum, part, job.n_chunks - chunk);
    }
    return sum;
}
