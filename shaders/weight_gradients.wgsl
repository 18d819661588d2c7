// The weight gradients of some windows, from the vectors of their steps and the traces at
// their starts:
//
//     d_w_ij     = sum over episodes and steps of x_i delta_j
//     d_alpha_ij = sum over episodes and steps of H_ij x_i delta_j
//
// Windows need nothing of each other. Workgroup (column, row, (network, split)) owns a tile
// (`lib/tile.wgsl`) for a split of the network's episodes; it adds window after window and
// episode after episode to what it left the time before, so that the sums do not depend on
// how many windows a dispatch takes.
// d_connections: +=
//!include lib/job.wgsl
//!include lib/rows.wgsl
//!include lib/trace.wgsl
//!include lib/stored.wgsl
//!include lib/tile.wgsl
//!include lib/load.wgsl
//!include lib/fetch.wgsl
//!include lib/window.wgsl

// 1 where registers hold, beside the traces at hand, those that come next.
//!constant AHEAD

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> trace: array<Stored>; // [slots, E, traces, quads, N]
@group(0) @binding(3) var<storage, read> record: array<f32>;   // [slots, E, T+1, N]
@group(0) @binding(4) var<storage, read> pre: array<f32>;      // [1 or 2, E, T, M]
@group(0) @binding(5) var<storage, read_write> d_connections: array<f32>; // [P, splits, 2, M, N]

// A window of an episode: the windows in turn, of each all episodes of the split.
struct Part {
    slot: u32,
    episode: u32,
    first: u32,
    n_steps: u32,
}

fn part_of(k: u32, first_episode: u32, n_own: u32) -> Part {
    let window = k / n_own;
    let done = WINDOW * window;
    return Part(
        now.slot + window, first_episode + k % n_own, now.first + done,
        min(WINDOW, now.n_steps - done),
    );
}

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
    let left = group.x * WIDTH;
    let base = group.y * QUADS;
    let owns = local < LANES * PLACES;
    let connections = job.n_pre * job.n_post;
    let w_at = ((job.first_network + network) * job.n_splits + split) * 2u * connections;
    let alpha_at = w_at + connections;
    var sum_w: array<vec4<f32>, OWN>;
    var sum_alpha: array<vec4<f32>, OWN>;
    if (owns) {
        //!unroll c COLUMNS
        if (has_column(local, $c) && left + own_column(local, $c) < job.n_post) {
            let j = left + own_column(local, $c);
            //!unroll g ROW_GROUPS
            if (has_quad(local, $g) && base + own_quad(local, $g) < n_quads()) {
                let w = vec4(w_at + j) + rows_of(base + own_quad(local, $g)) * job.n_post;
                let alpha = vec4(alpha_at + j) + rows_of(base + own_quad(local, $g)) * job.n_post;
                sum_w[$g * COLUMNS + $c] = vec4(
                    d_connections[w.x], d_connections[w.y],
                    d_connections[w.z], d_connections[w.w],
                );
                sum_alpha[$g * COLUMNS + $c] = vec4(
                    d_connections[alpha.x], d_connections[alpha.y],
                    d_connections[alpha.z], d_connections[alpha.w],
                );
            }
            //!end
        }
        //!end
    }
    let n_own = last - first;
    let n_parts = (now.n_steps + WINDOW - 1u) / WINDOW * n_own;
    var coming: array<Kept, OWN>;
    var fetched: Fetched;
    // where AHEAD, a part is summed while the next is on its way; at first there is none to sum
    for (var ahead = 0u; ahead < n_parts + AHEAD; ahead = ahead + 1u) {
        var at = traces_of_tile(coming);
        var here = fetched;
        if (ahead < n_parts) {
            let next = part_of(ahead, network * job.n_batch + first, n_own);
            if (AHEAD == 1u) {
                coming = load_tile(next.slot, next.episode, base, left, local);
            }
            fetched = fetch(next.episode, base, left, next.first, next.n_steps, true, local);
        }
        if (AHEAD == 0u) {
            here = fetched;
        }
        if (ahead < AHEAD) {
            continue;
        }
        let part = part_of(ahead - AHEAD, network * job.n_batch + first, n_own);
        workgroupBarrier();
        put_fetched(here, base, part.first, part.n_steps, local);
        if (AHEAD == 0u) {
            at = traces_of_tile(load_tile(part.slot, part.episode, base, left, local));
        }
        workgroupBarrier();
        if (owns) {
            for (var r = 0u; r < part.n_steps; r = r + 1u) {
                var x = array<vec4<f32>, ROW_GROUPS>();
                //!unroll g ROW_GROUPS
                x[$g] = sh_x[r][$g][local / PLACES];
                //!end
                //!unroll c COLUMNS
                {
                    let all = sh_k[r][$c][local % PLACES];
                    let k = coefficients_of(all);
                    //!unroll g ROW_GROUPS
                    {
                        let gain = all.w * x[$g];
                        sum_w[$g * COLUMNS + $c] = sum_w[$g * COLUMNS + $c] + gain;
                        sum_alpha[$g * COLUMNS + $c] =
                            sum_alpha[$g * COLUMNS + $c] + at[$g * COLUMNS + $c].h * gain;
                        at[$g * COLUMNS + $c] =
                            clipped(evolve(at[$g * COLUMNS + $c], k, x[$g]));
                    }
                    //!end
                }
                //!end
            }
        }
    }
    if (owns) {
        //!unroll c COLUMNS
        if (has_column(local, $c) && left + own_column(local, $c) < job.n_post) {
            let j = left + own_column(local, $c);
            //!unroll g ROW_GROUPS
            if (has_quad(local, $g)) {
                let quad = base + own_quad(local, $g);
                let w = vec4(w_at + j) + rows_of(quad) * job.n_post;
                let alpha = vec4(alpha_at + j) + rows_of(quad) * job.n_post;
                for (var k = 0u; k < 4u; k = k + 1u) {
                    if (4u * quad + k < job.n_pre) {
                        d_connections[w[k]] = sum_w[$g * COLUMNS + $c][k];
                        d_connections[alpha[k]] = sum_alpha[$g * COLUMNS + $c][k];
                    }
                }
            }
            //!end
        }
        //!end
    }
}
