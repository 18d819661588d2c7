// The weight gradients of some windows, from the vectors of their steps and the traces at
// their starts:
//
//     d_w_ij     = sum over episodes and steps of x_i delta_j
//     d_alpha_ij = sum over episodes and steps of H_ij x_i delta_j
//
// Windows need nothing of each other. Workgroup (tile, chunk, (network, split)) owns a tile
// of columns and a chunk of rows (`lib/tile.wgsl`) of a split of the network's episodes; it
// adds window after window and episode after episode to what it left the time before, so
// that the sums do not depend on how many windows a dispatch takes.
// d_connections: +=
//!include lib/job.wgsl
//!include lib/trace.wgsl
//!include lib/stored.wgsl
//!include lib/load.wgsl
//!include lib/tile.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> trace: array<Stored>; // [slots, E, traces, quads, N]
@group(0) @binding(3) var<storage, read> record: array<f32>;   // [slots, E, T+1, N]
@group(0) @binding(4) var<storage, read> pre: array<f32>;      // [1 or 2, E, T, M]
@group(0) @binding(5) var<storage, read_write> d_connections: array<f32>; // [P, splits, 2, M, N]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let network = group.z / job.n_splits;
    let split = group.z % job.n_splits;
    let per_split = (job.n_batch + job.n_splits - 1u) / job.n_splits;
    let first = min(split * per_split, job.n_batch);
    let last = min(first + per_split, job.n_batch);
    let j = group.x * TILE + local % TILE;
    let here = j < job.n_post;
    let base = group.y * QUADS;
    let connections = job.n_pre * job.n_post;
    let w_at = ((job.first_network + network) * job.n_splits + split) * 2u * connections;
    var sum_w: array<vec4<f32>, GROUPS>;
    var sum_alpha: array<vec4<f32>, GROUPS>;
    if (here) {
        //!unroll g GROUPS
        for (var k = 0u; k < 4u; k = k + 1u) {
            let i = 4u * (base + quad_in_chunk(local, $g)) + k;
            if (i < job.n_pre) {
                sum_w[$g][k] = d_connections[w_at + i * job.n_post + j];
                sum_alpha[$g][k] = d_connections[w_at + connections + i * job.n_post + j];
            }
        }
        //!end
    }
    for (var done = 0u; done < now.n_steps; done = done + job.window) {
        let start = now.first + done;
        let n = min(job.window, now.n_steps - done);
        let slot = now.slot + done / job.window;
        for (var batch = first; batch < last; batch = batch + 1u) {
            let episode = network * job.n_batch + batch;
            var at = load_quads(slot, episode, base, j, local);
            workgroupBarrier();
            load_x(episode, group.y, start, n, local);
            load_k(episode, group.x, start, n, true, local);
            workgroupBarrier();
            if (here) {
                for (var r = 0u; r < n; r = r + 1u) {
                    let all = sh_k[r][local % TILE];
                    let k = coefficients_of(all);
                    //!unroll g GROUPS
                    {
                        let x = sh_x[r][quad_in_chunk(local, $g)];
                        let gain = all.w * x;
                        sum_w[$g] = sum_w[$g] + gain;
                        sum_alpha[$g] = sum_alpha[$g] + at[$g].h * gain;
                        at[$g] = clipped(evolve(at[$g], k, x));
                    }
                    //!end
                }
            }
        }
    }
    if (here) {
        //!unroll g GROUPS
        for (var k = 0u; k < 4u; k = k + 1u) {
            let i = 4u * (base + quad_in_chunk(local, $g)) + k;
            if (i < job.n_pre) {
                d_connections[w_at + i * job.n_post + j] = sum_w[$g][k];
                d_connections[w_at + connections + i * job.n_post + j] = sum_alpha[$g][k];
            }
        }
        //!end
    }
}
