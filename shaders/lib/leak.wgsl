// The rate k of a neuron that leaks.
fn leak_of(network: u32, j: u32) -> f32 {
    return parameters[network + job.at_leak + min(j, job.n_leak - 1u)];
}
