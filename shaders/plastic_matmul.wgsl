// The O(N^2) product of one step (Miconi et al. 2018, equation 1):
//
//     partial_j (chunk) = sum over the chunk's rows i of x_i(t) (w_ij + alpha_ij H_ij(t))
//
// H is read as it was at the window's first step and evolved in registers; the sweep after
// a window's last step stores it for the next window.
// Workgroup (column, row, part of a network's episodes) owns a tile (`lib/tile.wgsl`) of
// `n_tiles` by `n_chunks` and takes its episodes one after the other.
// partial: =   trace_out: = where asked
//!include lib/job.wgsl
//!include lib/trace.wgsl
//!include lib/stored.wgsl
//!include lib/load.wgsl
//!include lib/weights.wgsl
//!include lib/tile.wgsl
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

var<workgroup> sh_sum: array<f32, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let episodes = together(group.z);
    let j = group.x * WIDTH + local % PLACES;
    let here = j < job.n_post;
    let n = now.n_steps;
    let base = group.y * QUADS;
    let network = network_at(episodes.first);

    var w: array<vec4<f32>, ROW_GROUPS>;
    var alpha: array<vec4<f32>, ROW_GROUPS>;
    if (here) {
        //!unroll g ROW_GROUPS
        w[$g] = w_quad(network, base + own_quad(local, $g), j);
        alpha[$g] = alpha_quad(network, base + own_quad(local, $g), j);
        //!end
    }
    for (var episode = episodes.first; episode < episodes.end; episode = episode + 1u) {
        var at = load_quads(0u, episode, base, j, local);
        let part = fetch(episode, base, group.x * WIDTH, now.first, n + 1u, false, local);
        workgroupBarrier();
        put_fetched(part, n + 1u, local);
        workgroupBarrier();
        var sum = vec4(0.0);
        if (here) {
            for (var r = 0u; r < n; r = r + 1u) {
                let k = coefficients_of(sh_k[r][0][local % PLACES]);
                //!unroll g ROW_GROUPS
                at[$g] = clipped(evolve(at[$g], k, sh_x[r][$g][local / PLACES]));
                //!end
            }
            //!unroll g ROW_GROUPS
            if (now.store == 1u && base + own_quad(local, $g) < n_quads()) {
                let to = trace_at(0u, episode, base + own_quad(local, $g), j);
                let h = to_stored(at[$g].h);
                trace_out[to] = h;
                at[$g].h = h_from_stored(h);
                if (two_traces()) {
                    trace_out[to + trace_stride()] = to_stored(at[$g].e);
                }
            }
            sum = sum + sh_x[n][$g][local / PLACES] * (w[$g] + alpha[$g] * at[$g].h);
            //!end
        }
        sh_sum[local] = total_of(sum);
        workgroupBarrier();
        if (local < PLACES && here) {
            let total = (sh_sum[local] + sh_sum[local + PLACES])
                + (sh_sum[local + 2u * PLACES] + sh_sum[local + 3u * PLACES]);
            partial[(group.y * n_episodes() + episode) * job.n_post + j] = total;
        }
    }
}
