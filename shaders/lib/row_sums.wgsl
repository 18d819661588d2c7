// Index in `row_partial` of what a tile, or the last one, left of sum `r` of row i.
fn row_at_tile(r: u32, tile: u32, episode: u32, i: u32) -> u32 {
    let row = r * job.n_tiles + min(tile, job.n_tiles - 1u);
    return (row * n_episodes() + episode) * job.n_pre + i;
}

// Sum number `r` of a row over the tiles of a sweep.
fn row_sum(r: u32, episode: u32, i: u32) -> f32 {
    var sum = 0.0;
    for (var tile = 0u; tile < job.n_tiles; tile = tile + 8u) {
        var part = array<f32, 8>();
        //!unroll k 8
        part[$k] = row_partial[row_at_tile(r, tile + $k, episode, i)];
        //!end
        sum = add_eight(sum, part, job.n_tiles - tile);
    }
    return sum;
}
