// The episodes, all of one network, that a workgroup of a sweep takes one after the other with
// the same tile of w and alpha.
struct Together {
    first: u32,
    end: u32,
}

fn together(z: u32) -> Together {
    let n_parts = (job.n_batch + job.n_together - 1u) / job.n_together;
    let start = z / n_parts * job.n_batch;
    let first = z % n_parts * job.n_together;
    return Together(start + first, start + min(first + job.n_together, job.n_batch));
}
