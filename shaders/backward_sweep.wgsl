// The O(N^2) work of one backward step. With P known after step t, *propagate* step t:
//
//     row_partial_i (tile) = sum over the tile's columns j of dL/dx_i (`lib/adjoint.wgsl`)
//
// and *collect* the step before, s = t - 1, whose delta waits for the column sums q, r, e.
// P is read as it was at the window's end and H as at its start; both are evolved in
// registers; the sweep of a window's first step stores P for the window before.
// Workgroup (column, row, part of a network's episodes) owns a tile (`lib/tile.wgsl`) of
// `n_tiles` by `n_chunks` and takes its episodes one after the other.
// column_partial: =   row_partial: =   adjoint: = where asked
//!include lib/job.wgsl
//!include lib/trace.wgsl
//!include lib/stored.wgsl
//!include lib/load.wgsl
//!include lib/weights.wgsl
//!include lib/tile.wgsl
//!include lib/fetch.wgsl
//!include lib/window.wgsl
//!include lib/together.wgsl
//!include lib/adjoint.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(3) var<storage, read> trace: array<Stored>;   // [E, traces, quads, N]
@group(0) @binding(4) var<storage, read_write> adjoint: array<vec4<f32>>; // as trace
@group(0) @binding(5) var<storage, read> record: array<f32>;     // [slots, E, T+1, N]
@group(0) @binding(6) var<storage, read> pre: array<f32>;        // [1 or 2, E, T, M]
@group(0) @binding(7) var<storage, read_write> column_partial: array<f32>; // [3, chunks, E, N]
@group(0) @binding(8) var<storage, read_write> row_partial: array<f32>;    // [tiles, E, M]

const PITCH = 65u;

var<workgroup> sh_tile: array<f32, 1040>; // 16 rows of PITCH
var<workgroup> sh_part: array<f32, 256>;

// Sums `value` over the workgroup's lanes into column_partial[which].
fn put_column(which: u32, value: vec4<f32>, chunk: u32, episode: u32, j: u32, local: u32) {
    sh_part[local] = total_of(value);
    workgroupBarrier();
    if (local < PLACES && j < job.n_post) {
        let total = (sh_part[local] + sh_part[local + PLACES])
            + (sh_part[local + 2u * PLACES] + sh_part[local + 3u * PLACES]);
        let at = (which * job.n_chunks + chunk) * n_episodes() + episode;
        column_partial[at * job.n_post + j] = total;
    }
    workgroupBarrier();
}

// Sums the 16 rows of group g of the chunk over the tile's columns.
fn put_rows(g: u32, value: vec4<f32>, tile: u32, chunk: u32, episode: u32, local: u32) {
    for (var k = 0u; k < 4u; k = k + 1u) {
        sh_tile[(local / PLACES * 4u + k) * PITCH + local % PLACES] = value[k];
    }
    workgroupBarrier();
    let from_row = (local / 16u) * PITCH + (local % 16u) * 4u;
    sh_part[local] = (sh_tile[from_row] + sh_tile[from_row + 1u])
        + (sh_tile[from_row + 2u] + sh_tile[from_row + 3u]);
    workgroupBarrier();
    let row = chunk * ROWS + g * 16u + local;
    if (local < 16u && row < job.n_pre) {
        var sum = 0.0;
        for (var k = 0u; k < 16u; k = k + 1u) {
            sum = sum + sh_part[local * 16u + k];
        }
        row_partial[(tile * n_episodes() + episode) * job.n_pre + row] = sum;
    }
    workgroupBarrier();
}

// Where a quad was not clipped, a bit a row; and back.
fn to_bits(mask: vec4<f32>) -> u32 {
    return u32(mask.x) | (u32(mask.y) << 1u) | (u32(mask.z) << 2u) | (u32(mask.w) << 3u);
}

fn mask_of(bits: u32, r: u32) -> vec4<f32> {
    let four = (vec4(bits) >> (vec4(4u * r) + vec4(0u, 1u, 2u, 3u))) & vec4(1u);
    return vec4<f32>(four);
}

// Takes the quads over step r of the window.
fn evolve_quads(
    at: ptr<function, array<Traces, ROW_GROUPS>>,
    bits: ptr<function, array<u32, ROW_GROUPS>>,
    r: u32,
    local: u32,
) {
    let k = coefficients_of(sh_k[r][0][local % PLACES]);
    //!unroll g ROW_GROUPS
    {
        let after = evolve((*at)[$g], k, sh_x[r][$g][local / PLACES]);
        (*at)[$g] = clipped(after);
        if (CLIPPED == 1u) {
            (*bits)[$g] = (*bits)[$g] | (to_bits(inside(after.h)) << (4u * r));
        }
    }
    //!end
}

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
    // steps of the window: `b` is propagated, `b - 1` collected
    let b = now.row - 1u - now.first;

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
        var p: array<Traces, ROW_GROUPS>;
        if (here) {
            //!unroll g ROW_GROUPS
            if (base + own_quad(local, $g) < n_quads()) {
                let at_p = trace_at(0u, episode, base + own_quad(local, $g), j);
                p[$g].h = adjoint[at_p];
                if (two_traces()) {
                    p[$g].e = adjoint[at_p + trace_stride()];
                }
            }
            //!end
        }
        let part = fetch(episode, base, group.x * WIDTH, now.first, n, true, local);
        workgroupBarrier();
        put_fetched(part, n, local);
        workgroupBarrier();
        var rows: array<vec4<f32>, ROW_GROUPS>;
        var sums = Collected(vec4(0.0), vec4(0.0), vec4(0.0));
        if (here) {
            // not clipped, a bit for each row and step
            var bits: array<u32, ROW_GROUPS>;
            // the trace before step b - 1 and before step b
            for (var r = 0u; r + 1u < b; r = r + 1u) {
                evolve_quads(&at, &bits, r, local);
            }
            let before = at;
            if (b > 0u) {
                evolve_quads(&at, &bits, b - 1u, local);
            }
            let at_b = at;
            for (var r = b; CLIPPED == 1u && r < n; r = r + 1u) {
                evolve_quads(&at, &bits, r, local);
            }
            for (var r = n; r > b + now.propagate; r = r - 1u) {
                let all = sh_k[r - 1u][0][local % PLACES];
                //!unroll g ROW_GROUPS
                p[$g] = evolve_back(
                    p[$g], mask_of(bits[$g], r - 1u), coefficients_of(all), all.w,
                    sh_x[r - 1u][$g][local / PLACES],
                );
                //!end
            }
            if (now.propagate == 1u) {
                let all = sh_k[b][0][local % PLACES];
                let k = coefficients_of(all);
                //!unroll g ROW_GROUPS
                {
                    let mask = mask_of(bits[$g], b);
                    rows[$g] = add_x_bar(
                        vec4(0.0), w[$g], alpha[$g], at_b[$g].h, p[$g], mask, k.c, all.w,
                    );
                    let x = sh_x[b][$g][local / PLACES];
                    p[$g] = evolve_back(p[$g], mask, k, all.w, x);
                }
                //!end
            }
            if (now.collect == 1u) {
                //!unroll g ROW_GROUPS
                {
                    let x = sh_x[b - 1u][$g][local / PLACES];
                    let mask = mask_of(bits[$g], b - 1u);
                    let one = collect(alpha[$g], before[$g], p[$g], mask, x);
                    sums = Collected(sums.q + one.q, sums.r + one.r, sums.e + one.e);
                }
                //!end
            }
            if (now.store == 1u) {
                //!unroll g ROW_GROUPS
                if (base + own_quad(local, $g) < n_quads()) {
                    let to = trace_at(0u, episode, base + own_quad(local, $g), j);
                    adjoint[to] = p[$g].h;
                    if (two_traces()) {
                        adjoint[to + trace_stride()] = p[$g].e;
                    }
                }
                //!end
            }
        }
        if (now.propagate == 1u) {
            //!unroll g ROW_GROUPS
            put_rows($g, rows[$g], group.x, group.y, episode, local);
            //!end
        }
        if (now.collect == 1u) {
            put_column(0u, sums.q, group.y, episode, j, local);
            put_column(1u, sums.r, group.y, episode, j, local);
            if (two_traces()) {
                put_column(2u, sums.e, group.y, episode, j, local);
            }
        }
    }
}
