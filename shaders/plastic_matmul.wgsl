// The O(N^2) product of one step (Miconi et al. 2018, equation 1):
//
//     partial_j (chunk) = sum over the chunk's rows i of x_i(t) (w_ij + alpha_ij H_ij(t))
//
// H is read as it was at the window's first step and evolved in registers; the sweep after
// a window's last step stores it for the next window, and what rounding takes from it.
// Workgroup (column, row, part of a network's episodes) owns a tile (`lib/tile.wgsl`) of
// `n_tiles` by `n_chunks` and takes its episodes one after the other.
// partial: =   trace_out, residual: = where asked
//!include lib/job.wgsl
//!include lib/rows.wgsl
//!include lib/trace.wgsl
//!include lib/stored.wgsl
//!include lib/tile.wgsl
//!include lib/load.wgsl
//!include lib/residual.wgsl
//!include lib/quads.wgsl
//!include lib/weights.wgsl
//!include lib/sums.wgsl
//!include lib/fetch.wgsl
//!include lib/window.wgsl
//!include lib/together.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(3) var<storage, read> trace: array<Stored>;   // [E, traces, quads, N]
@group(0) @binding(4) var<storage, read> record: array<f32>;     // [slots, E, T+1, N]
@group(0) @binding(5) var<storage, read> pre: array<f32>;        // [1 or 2, E, T, M]
@group(0) @binding(6) var<storage, read_write> partial: array<f32>; // [chunks, E, N]
@group(0) @binding(7) var<storage, read_write> trace_out: array<Stored>; // as trace
@group(0) @binding(8) var<storage, read_write> residual: array<vec4<f32>>; // [E, traces, quads, N]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let episodes = together(group.z);
    let left = group.x * WIDTH;
    let base = group.y * QUADS;
    let lane = local / PLACES;
    let place = local % PLACES;
    let n = now.n_steps;
    let network = network_at(episodes.first);
    let weights = load_weights(network, base, left, local);
    let w = weights.w;
    let alpha = weights.alpha;

    // an episode is summed while the next is on its way; at first there is none to sum
    var coming: array<Kept, OWN>;
    var part: Fetched;
    for (var ahead = episodes.first; ahead <= episodes.end; ahead = ahead + 1u) {
        var at = traces_of_tile(coming);
        let here = part;
        if (ahead < episodes.end) {
            coming = load_tile(0u, ahead, base, left, local);
            part = fetch(ahead, base, left, now.first, n + 1u, false, local);
        }
        if (ahead == episodes.first) {
            continue;
        }
        let episode = ahead - 1u;
        if (ROUNDED && now.store == 1u) {
            //!unroll c COLUMNS
            //!unroll g ROW_GROUPS
            at[$g * COLUMNS + $c] = with_residual(
                at[$g * COLUMNS + $c], own_trace_at(0u, episode, base, left, $g, $c, local));
            //!end
            //!end
        }
        workgroupBarrier();
        put_fetched(here, base, now.first, n + 1u, local);
        workgroupBarrier();
        for (var r = 0u; r < n; r = r + 1u) {
            //!unroll c COLUMNS
            {
                let k = coefficients_of(sh_k[r][$c][place]);
                //!unroll g ROW_GROUPS
                at[$g * COLUMNS + $c] =
                    clipped(evolve(at[$g * COLUMNS + $c], k, sh_x[r][$g][lane]));
                //!end
            }
            //!end
        }
        //!unroll c COLUMNS
        {
            let j = left + own_column(local, $c);
            var sum = vec4(0.0);
            //!unroll g ROW_GROUPS
            if (now.store == 1u && base + own_quad(local, $g) < n_quads() && j < job.n_post) {
                let to = trace_at(0u, episode, base + own_quad(local, $g), j);
                let exact = at[$g * COLUMNS + $c];
                let kept = kept_of(exact);
                trace_out[to] = kept.h;
                if (two_traces()) {
                    trace_out[to + trace_stride()] = kept.e;
                }
                at[$g * COLUMNS + $c] = traces_of(kept);
                keep_residual(exact, at[$g * COLUMNS + $c], to);
            }
            sum = sum + sh_x[n][$g][lane]
                * (w[$g * COLUMNS + $c] + alpha[$g * COLUMNS + $c] * at[$g * COLUMNS + $c].h);
            //!end
            sh_sums[lane][$c][place] = total_of(sum);
        }
        //!end
        workgroupBarrier();
        if (local < WIDTH && left + local < job.n_post) {
            let to = (group.y * n_episodes() + episode) * job.n_post + left + local;
            partial[to] = sum_of(local);
        }
    }
}
