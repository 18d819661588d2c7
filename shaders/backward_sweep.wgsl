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
//!include lib/rows.wgsl
//!include lib/trace.wgsl
//!include lib/stored.wgsl
//!include lib/tile.wgsl
//!include lib/load.wgsl
//!include lib/quads.wgsl
//!include lib/weights.wgsl
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

// Each place's part of each row's dL/dx; then each lane's part of each column's q, r and e, as
// sh_parts[lane * COLUMNS + c][place] (of the tile that is used there are enough).
var<workgroup> sh_parts: array<array<vec4<f32>, PLACES>, QUADS>;

// Each row's sum over a quarter of the places.
var<workgroup> sh_quarters: array<f32, 4u * ROWS>;

fn quarter_of(i: u32, quarter: u32) -> f32 {
    var sum = vec2(0.0);
    //!unroll k PLACES_OF_QUARTER
    sum[$k % 2u] = sum[$k % 2u] + sh_parts[i / 4u][quarter + 4u * $k][i % 4u];
    //!end
    return sum.x + sum.y;
}

fn column_of(j: u32) -> vec4<f32> {
    let spot = spot_of_column(j);
    var sum = vec4(0.0);
    //!unroll lane LANES
    sum = sum + sh_parts[min($lane * COLUMNS + spot.x, QUADS - 1u)][spot.y];
    //!end
    return sum;
}

// Where a quad was not clipped, a bit a row; and back.
fn to_bits(mask: vec4<f32>) -> u32 {
    return u32(mask.x) | (u32(mask.y) << 1u) | (u32(mask.z) << 2u) | (u32(mask.w) << 3u);
}

fn mask_of(bits: u32, r: u32) -> vec4<f32> {
    let four = (vec4(bits) >> (vec4(4u * r) + vec4(0u, 1u, 2u, 3u))) & vec4(1u);
    return vec4<f32>(four);
}

// Takes the traces over step r of the window.
fn evolve_tile(
    at: ptr<function, array<Traces, OWN>>,
    bits: ptr<function, array<u32, OWN>>,
    r: u32,
    local: u32,
) {
    //!unroll c COLUMNS
    {
        let k = coefficients_of(sh_k[r][$c][local % PLACES]);
        //!unroll g ROW_GROUPS
        {
            let after = evolve((*at)[$g * COLUMNS + $c], k, sh_x[r][$g][local / PLACES]);
            (*at)[$g * COLUMNS + $c] = clipped(after);
            if (CLIPPED == 1u) {
                (*bits)[$g * COLUMNS + $c] =
                    (*bits)[$g * COLUMNS + $c] | (to_bits(inside(after.h)) << (4u * r));
            }
        }
        //!end
    }
    //!end
}

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
    // steps of the window: `b` is propagated, `b - 1` collected
    let b = now.row - 1u - now.first;
    let weights = load_weights(network, base, left, local);
    let w = weights.w;
    let alpha = weights.alpha;

    // an episode is summed while the next is on its way; at first there is none to sum
    var coming: array<Kept, OWN>;
    var p_coming: array<Traces, OWN>;
    var part: Fetched;
    for (var ahead = episodes.first; ahead <= episodes.end; ahead = ahead + 1u) {
        var at = traces_of_tile(coming);
        var p = p_coming;
        let here = part;
        if (ahead < episodes.end) {
            coming = load_tile(0u, ahead, base, left, local);
            //!unroll c COLUMNS
            //!unroll g ROW_GROUPS
            {
                let at_p = own_trace_at(0u, ahead, base, left, $g, $c, local);
                p_coming[$g * COLUMNS + $c].h = adjoint[at_p];
                if (two_traces()) {
                    p_coming[$g * COLUMNS + $c].e = adjoint[at_p + trace_stride()];
                }
            }
            //!end
            //!end
            part = fetch(ahead, base, left, now.first, n, true, local);
        }
        if (ahead == episodes.first) {
            continue;
        }
        let episode = ahead - 1u;
        workgroupBarrier();
        put_fetched(here, base, now.first, n, local);
        workgroupBarrier();
        // not clipped, a bit for each row and step
        var bits = array<u32, OWN>();
        // the traces before step b - 1
        for (var r = 0u; r + 1u < b; r = r + 1u) {
            evolve_tile(&at, &bits, r, local);
        }
        if (CLIPPED == 1u) {
            var later = at;
            for (var r = max(b, 1u) - 1u; r < n; r = r + 1u) {
                evolve_tile(&later, &bits, r, local);
            }
        }
        for (var r = n; r > b + now.propagate; r = r - 1u) {
            //!unroll c COLUMNS
            {
                let all = sh_k[r - 1u][$c][place];
                //!unroll g ROW_GROUPS
                p[$g * COLUMNS + $c] = evolve_back(
                    p[$g * COLUMNS + $c], mask_of(bits[$g * COLUMNS + $c], r - 1u),
                    coefficients_of(all), all.w, sh_x[r - 1u][$g][lane],
                );
                //!end
            }
            //!end
        }
        var rows = array<vec4<f32>, ROW_GROUPS>();
        var columns = array<vec4<f32>, COLUMNS>();
        let before_b = max(b, 1u) - 1u;
        //!unroll c COLUMNS
        if (left + own_column(local, $c) < job.n_post) {
            let k_before = coefficients_of(sh_k[before_b][$c][place]);
            let all = sh_k[min(b, WINDOW - 1u)][$c][place];
            let k = coefficients_of(all);
            var sums = Collected(vec4(0.0), vec4(0.0), vec4(0.0));
            //!unroll g ROW_GROUPS
            {
                let before = at[$g * COLUMNS + $c];
                let x_before = sh_x[before_b][$g][lane];
                if (now.propagate == 1u) {
                    var at_b = before;
                    if (b > 0u) {
                        at_b = clipped(evolve(before, k_before, x_before));
                    }
                    let mask = mask_of(bits[$g * COLUMNS + $c], b);
                    rows[$g] = add_x_bar(
                        rows[$g], w[$g * COLUMNS + $c], alpha[$g * COLUMNS + $c], at_b.h,
                        p[$g * COLUMNS + $c], mask, k.c, all.w,
                    );
                    p[$g * COLUMNS + $c] =
                        evolve_back(p[$g * COLUMNS + $c], mask, k, all.w, sh_x[b][$g][lane]);
                }
                if (now.collect == 1u) {
                    let mask = mask_of(bits[$g * COLUMNS + $c], before_b);
                    let one = collect(
                        alpha[$g * COLUMNS + $c], before, p[$g * COLUMNS + $c], mask, x_before);
                    sums = Collected(sums.q + one.q, sums.r + one.r, sums.e + one.e);
                }
            }
            //!end
            columns[$c] = vec4(total_of(sums.q), total_of(sums.r), total_of(sums.e), 0.0);
        }
        //!end
        if (now.store == 1u) {
            //!unroll c COLUMNS
            if (left + own_column(local, $c) < job.n_post) {
                //!unroll g ROW_GROUPS
                if (base + own_quad(local, $g) < n_quads()) {
                    let to = trace_at(
                        0u, episode, base + own_quad(local, $g), left + own_column(local, $c));
                    adjoint[to] = p[$g * COLUMNS + $c].h;
                    if (two_traces()) {
                        adjoint[to + trace_stride()] = p[$g * COLUMNS + $c].e;
                    }
                }
                //!end
            }
            //!end
        }

        if (now.propagate == 1u) {
            //!unroll g ROW_GROUPS
            sh_parts[own_quad(local, $g)][place] = rows[$g];
            //!end
        }
        workgroupBarrier();
        if (now.propagate == 1u) {
            sh_quarters[local] = quarter_of(local / 4u, local % 4u);
        }
        workgroupBarrier();
        //!unroll c COLUMNS
        sh_parts[lane * COLUMNS + $c][place] = columns[$c];
        //!end
        workgroupBarrier();
        let i = group.y * ROWS + local;
        if (now.propagate == 1u && local < ROWS && i < job.n_pre) {
            let at = 4u * local;
            row_partial[(group.x * n_episodes() + episode) * job.n_pre + i] = total_of(vec4(
                sh_quarters[at], sh_quarters[at + 1u],
                sh_quarters[at + 2u], sh_quarters[at + 3u]));
        }
        // of the invocations after those of the rows
        let j = left + local - ROWS;
        if (now.collect == 1u && local >= ROWS && local < ROWS + WIDTH && j < job.n_post) {
            let sums = column_of(local - ROWS);
            let stride = job.n_chunks * n_episodes() * job.n_post;
            let to = (group.y * n_episodes() + episode) * job.n_post + j;
            column_partial[to] = sums.x;
            column_partial[to + stride] = sums.y;
            if (two_traces()) {
                column_partial[to + 2u * stride] = sums.z;
            }
        }
    }
}
