// Some windows of a whole episode backward, P in registers. Each sweep propagates step t
// and collects the step before it, as `backward_sweep.wgsl` does, with H evolved from the
// start of its window; between sweeps the workgroup does the neurons' part.
//
// Workgroup e owns episode e; its invocations share out the connections by
// `lib/resident.wgsl` and the neurons by 256.
// record (y_bar): =   record (delta, d_input): +=   rule_bar: +=   pre (dL/dx): =
// adjoint (P at the first window's start): =
//!include lib/job.wgsl
//!include lib/math.wgsl
//!include lib/reduce.wgsl
//!include lib/rule.wgsl
//!include lib/neuron_back.wgsl
//!include lib/trace.wgsl
//!include lib/stored.wgsl
//!include lib/load.wgsl
//!include lib/weights.wgsl
//!include lib/adjoint.wgsl
//!include lib/resident.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(3) var<storage, read> trace: array<Stored>;   // [slots, E, traces, quads, N]
@group(0) @binding(4) var<storage, read_write> adjoint: array<vec4<f32>>; // [E, traces, quads, N]
@group(0) @binding(5) var<storage, read> stimuli: array<f32>;    // [1 or 2, E, n_stimuli, N]
@group(0) @binding(6) var<storage, read> shown: array<u32>;      // [E, T]
@group(0) @binding(7) var<storage, read_write> record: array<f32>; // [slots, E, T+1, N]
@group(0) @binding(8) var<storage, read_write> rule_bar: array<f32>; // [E, n_parameters - at_rule]
@group(0) @binding(9) var<storage, read_write> pre: array<f32>;  // [2, E, T, M]

// A window of the resident plan.
const STEPS = 4u;

var<workgroup> sh_x: array<f32, STEPS * ROWS>;
var<workgroup> sh_d: array<f32, STEPS * WIDTH>;
var<workgroup> sh_c: array<f32, STEPS * WIDTH>;
var<workgroup> sh_m: array<f32, 1u + (TRACES - 1u) * STEPS * WIDTH>;
var<workgroup> sh_delta: array<f32, WIDTH>;
// q, r and e of the step collected
var<workgroup> sh_sums: array<f32, 3u * WIDTH>;

fn collected(which: u32, episode: u32, j: u32) -> f32 {
    return sh_sums[which * WIDTH + j];
}

fn sum_columns(which: u32, value: array<f32, COLUMNS>, local: u32) {
    put_columns(value, local);
    workgroupBarrier();
    if (local < job.n_post) {
        sh_sums[which * WIDTH + local] = column_total(local);
    }
    workgroupBarrier();
}

// dL/dx of step t, from each invocation's part.
fn sum_rows(value: array<vec4<f32>, ROW_GROUPS>, episode: u32, t: u32, local: u32) {
    //!unroll g ROW_GROUPS
    for (var k = 0u; k < 4u; k = k + 1u) {
        sh_part[(4u * own_quad(local, $g) + k) * ROW_PITCH + local % 16u] = value[$g][k];
    }
    //!end
    workgroupBarrier();
    if (local < job.n_pre) {
        var sum = 0.0;
        for (var place = 0u; place < 16u; place = place + 1u) {
            sum = sum + sh_part[local * ROW_PITCH + place];
        }
        if (RECURRENT == 1u) {
            record[row_at(Y_BAR, episode, t) + local] = sum;
        } else {
            pre[((n_episodes() + episode) * job.n_steps + t) * job.n_pre + local] = sum;
        }
    }
    workgroupBarrier();
}

fn x_in_window(r: u32, quad: u32) -> vec4<f32> {
    let at = r * ROWS + 4u * quad;
    return vec4(sh_x[at], sh_x[at + 1u], sh_x[at + 2u], sh_x[at + 3u]);
}

fn k_in_window(r: u32, j: u32) -> Coefficients {
    let at = r * WIDTH + j;
    var m = 0.0;
    if (two_traces()) {
        m = sh_m[at];
    }
    return Coefficients(sh_d[at], sh_c[at], m);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let episode = group.x;
    let network = network_at(episode);
    let n = job.n_post;
    var w: array<vec4<f32>, OWN>;
    var alpha: array<vec4<f32>, OWN>;
    var p: array<Traces, OWN>;
    //!unroll c COLUMNS
    if (own_column(local, $c) < n) {
        let j = own_column(local, $c);
        //!unroll g ROW_GROUPS
        if (own_quad(local, $g) < n_quads()) {
            let quad = own_quad(local, $g);
            let at_p = trace_at(0u, episode, quad, j);
            w[$g * COLUMNS + $c] = w_quad(network, quad, j);
            alpha[$g * COLUMNS + $c] = alpha_quad(network, quad, j);
            p[$g * COLUMNS + $c].h = adjoint[at_p];
            if (two_traces()) {
                p[$g * COLUMNS + $c].e = adjoint[at_p + trace_stride()];
            }
        }
        //!end
    }
    //!end

    let end = now.first + now.n_steps;
    if (end == job.n_steps) {
        for (var j = local; j < n; j = j + 256u) {
            record[row_at(Y_BAR, episode, end) + j] = 0.0;
        }
    }
    for (var v = (now.n_steps + STEPS - 1u) / STEPS; v > 0u; v = v - 1u) {
        let first = now.first + (v - 1u) * STEPS;
        let steps = min(STEPS, end - first);
        workgroupBarrier();
        for (var k = local; k < steps * ROWS; k = k + 256u) {
            sh_x[k] = x_at(episode, first + k / ROWS, k % ROWS);
        }
        for (var k = local; k < steps * n; k = k + 256u) {
            let one = coefficients_at(episode, first + k / n, k % n);
            let to = k / n * WIDTH + k % n;
            sh_d[to] = one.d;
            sh_c[to] = one.c;
            if (two_traces()) {
                sh_m[to] = one.m;
            }
        }
        workgroupBarrier();

        // step b of the window is propagated, step b - 1 collected; after the last step of
        // the episode P is zero
        for (var up = 0u; up <= steps; up = up + 1u) {
            let b = steps - up;
            let propagates = b < steps;
            let collects = b > 0u && (propagates || first + steps < job.n_steps);
            var rows: array<vec4<f32>, ROW_GROUPS>;
            var q: array<f32, COLUMNS>;
            var r_sum: array<f32, COLUMNS>;
            var e_sum: array<f32, COLUMNS>;
            if (propagates || collects) {
                let n_evolved = b + select(0u, 1u, CLIPPED == 1u && propagates);
                //!unroll c COLUMNS
                if (own_column(local, $c) < n) {
                    let j = own_column(local, $c);
                    var at: array<Traces, ROW_GROUPS>;
                    //!unroll g ROW_GROUPS
                    if (own_quad(local, $g) < n_quads()) {
                        at[$g] =
                            load_traces(slot_of(first / STEPS), episode, own_quad(local, $g), j);
                    }
                    //!end
                    // the trace before step b - 1 and before step b, and their masks
                    var before = at;
                    var at_b = at;
                    var mask_before: array<vec4<f32>, ROW_GROUPS>;
                    var mask: array<vec4<f32>, ROW_GROUPS>;
                    for (var r = 0u; r < n_evolved; r = r + 1u) {
                        let k = k_in_window(r, j);
                        if (r + 1u == b) {
                            before = at;
                        }
                        //!unroll g ROW_GROUPS
                        at[$g] = evolve(at[$g], k, x_in_window(r, own_quad(local, $g)));
                        if (CLIPPED == 1u) {
                            mask_before[$g] = mask[$g];
                            mask[$g] = inside(at[$g].h);
                            at[$g] = clipped(at[$g]);
                        }
                        //!end
                        if (r + 1u == b) {
                            at_b = at;
                        }
                    }
                    if (!propagates) {
                        mask_before = mask;
                    }
                    if (propagates) {
                        let k = k_in_window(b, j);
                        let delta = sh_delta[j];
                        //!unroll g ROW_GROUPS
                        rows[$g] = rows[$g] + x_bar(
                            w[$g * COLUMNS + $c], alpha[$g * COLUMNS + $c], at_b[$g].h,
                            p[$g * COLUMNS + $c], mask[$g], k.c, delta,
                        );
                        p[$g * COLUMNS + $c] = evolve_back(
                            p[$g * COLUMNS + $c], mask[$g], k, delta,
                            x_in_window(b, own_quad(local, $g)),
                        );
                        //!end
                    }
                    if (collects) {
                        var sums = Collected(vec4(0.0), vec4(0.0), vec4(0.0));
                        //!unroll g ROW_GROUPS
                        {
                            let one = collect(
                                alpha[$g * COLUMNS + $c], before[$g], p[$g * COLUMNS + $c],
                                mask_before[$g], x_in_window(b - 1u, own_quad(local, $g)),
                            );
                            sums = Collected(sums.q + one.q, sums.r + one.r, sums.e + one.e);
                        }
                        //!end
                        q[$c] = total_of(sums.q);
                        r_sum[$c] = total_of(sums.r);
                        e_sum[$c] = total_of(sums.e);
                    }
                }
                //!end
            }
            if (propagates) {
                sum_rows(rows, episode, first + b, local);
                if (RECURRENT == 0u) {
                    for (var j = local; j < n; j = j + 256u) {
                        record[row_at(Y_BAR, episode, first + b) + j] = 0.0;
                    }
                }
            }
            if (collects) {
                sum_columns(0u, q, local);
                sum_columns(1u, r_sum, local);
                if (two_traces()) {
                    sum_columns(2u, e_sum, local);
                }
            }
            if (b > 0u) {
                neuron_back(episode, first + b - 1u, collects, local);
                for (var j = local; j < n; j = j + 256u) {
                    sh_delta[j] = record[row_at(DELTA, episode, first + b - 1u) + j];
                }
                workgroupBarrier();
            }
        }
    }
    //!unroll c COLUMNS
    if (own_column(local, $c) < n) {
        //!unroll g ROW_GROUPS
        if (own_quad(local, $g) < n_quads()) {
            let to = trace_at(0u, episode, own_quad(local, $g), own_column(local, $c));
            adjoint[to] = p[$g * COLUMNS + $c].h;
            if (two_traces()) {
                adjoint[to + trace_stride()] = p[$g * COLUMNS + $c].e;
            }
        }
        //!end
    }
    //!end
}
