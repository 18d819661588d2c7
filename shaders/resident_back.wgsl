// Some windows of a whole episode backward, P in registers. Going back, iteration t
// *propagates* step t, whose delta is known, and *collects* the column sums q, r, e of the
// step before it, s = t - 1 (`lib/adjoint.wgsl`), with H evolved from the stored traces; then
// each neuron takes dL/dx(t) and the sums to delta(s):
//
//     dL/dy_i(s) = sum_j dL/dx_ij(t) + the rule's share of q, r, e     (`lib/rule.wgsl`)
//     delta(s)   = activation'(z) dL/dy where free                     (`lib/math.wgsl`)
//
// The episode's last delta needs no sums. The last step before those at hand is done here too:
// the next dispatch starts with its delta.
//
// Workgroup e owns episode e; `lib/tile.wgsl` says what its invocations own.
// record (y_bar): =   record (delta, d_input): +=   rule_bar: +=
// pre (dL/dx): =   adjoint (P at the first window's start): =
//!include lib/job.wgsl
//!include lib/math.wgsl
//!include lib/reduce.wgsl
//!include lib/rule.wgsl
//!include lib/rows.wgsl
//!include lib/trace.wgsl
//!include lib/stored.wgsl
//!include lib/tile.wgsl
//!include lib/load.wgsl
//!include lib/quads.wgsl
//!include lib/weights.wgsl
//!include lib/adjoint.wgsl
//!include lib/resident.wgsl
//!include lib/fetch.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(3) var<storage, read> trace: array<Stored>;   // [slots, E, traces, quads, N]
@group(0) @binding(4) var<storage, read_write> adjoint: array<vec4<f32>>; // [E, traces, quads, N]
@group(0) @binding(5) var<storage, read> stimuli: array<f32>;    // [1 or 2, E, n_stimuli, N]
@group(0) @binding(6) var<storage, read> shown: array<u32>;      // [E, T]
@group(0) @binding(7) var<storage, read_write> record: array<f32>; // [slots, E, T+1, N]
@group(0) @binding(8) var<storage, read_write> rule_bar: array<f32>; // [E, n_rule]
@group(0) @binding(9) var<storage, read_write> pre: array<f32>;  // [2, E, T, M]

// x, (d, c) and m of step t lie in row t % RING: those of a window and of the step after it.
const RING = WINDOW + 1u;
var<workgroup> sh_x: array<array<array<vec4<f32>, LANES>, ROW_GROUPS>, RING>;
var<workgroup> sh_dc: array<array<array<vec2<f32>, PLACES>, COLUMNS>, RING>;
var<workgroup> sh_m: array<array<array<f32, PLACES_OF_TWO>, COLUMNS_OF_TWO>, RING>;
var<workgroup> sh_delta: array<array<f32, PLACES>, COLUMNS>;

// Of what only the rule with two traces has next to nothing is kept for the others.
const COLUMNS_OF_TWO = select(1u, COLUMNS, TRACES == 2u);
const PLACES_OF_TWO = select(1u, PLACES, TRACES == 2u);

// Each lane's part of each column's q and r, and of e; each place's part of each row's dL/dx.
var<workgroup> sh_qr: array<array<array<vec2<f32>, PLACES>, COLUMNS>, LANES>;
var<workgroup> sh_e: array<array<array<f32, PLACES_OF_TWO>, COLUMNS_OF_TWO>, LANES>;
var<workgroup> sh_rows: array<array<vec4<f32>, QUADS + 1u>, PLACES>;

fn q_and_r_of(j: u32) -> vec2<f32> {
    let spot = spot_of_column(j);
    var sum: array<vec2<f32>, 2>;
    //!unroll lane LANES
    sum[$lane % 2u] = sum[$lane % 2u] + sh_qr[$lane][spot.x][spot.y];
    //!end
    return sum[0] + sum[1];
}

fn e_of(j: u32) -> f32 {
    let spot = spot_of_column(j);
    var sum = vec2(0.0);
    //!unroll lane LANES
    sum[$lane % 2u] = sum[$lane % 2u] + sh_e[$lane][spot.x][spot.y];
    //!end
    return sum.x + sum.y;
}

fn put_e(value: f32, lane: u32, c: u32, place: u32) {
    sh_e[lane][c][place] = value;
}

fn row_of(i: u32) -> f32 {
    var sum = vec2(0.0);
    //!unroll place PLACES
    sum[$place % 2u] = sum[$place % 2u] + sh_rows[$place][i / 4u][i % 4u];
    //!end
    return sum.x + sum.y;
}

// d, c and m from a row of the ring.
fn k_in(row: u32, c: u32, place: u32) -> Coefficients {
    let dc = sh_dc[row][c][place];
    var m = 0.0;
    if (two_traces()) {
        m = sh_m[row][c][place];
    }
    return Coefficients(dc.x, dc.y, m);
}

// Puts what was fetched of steps first..first + n_steps into the ring.
fn put_fetched(part: Fetched, first: u32, n_steps: u32, local: u32) {
    if (local / QUADS < n_steps) {
        let spot = spot_of_quad(local % QUADS);
        sh_x[(first + local / QUADS) % RING][spot.x][spot.y] = x_fetched(part, 0u, first, local);
    }
    //!unroll f FETCHES
    if ((local + 256u * $f) / POST < n_steps) {
        let i = local + 256u * $f;
        let row = (first + i / POST) % RING;
        let spot = spot_of_column(i % POST);
        sh_dc[row][spot.x][spot.y] = part.k[$f].xy;
        if (two_traces()) {
            sh_m[row][spot.x][spot.y] = part.k[$f].z;
        }
    }
    //!end
}

// The traces at a window's start of an invocation's column c.
fn load_column(c: u32, window: u32, episode: u32, local: u32) -> array<Kept, ROW_GROUPS> {
    var at: array<Kept, ROW_GROUPS>;
    //!unroll g ROW_GROUPS
    at[$g] = load_traces(own_trace_at(slot_of(window), episode, 0u, 0u, $g, c, local));
    //!end
    return at;
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let episode = group.x;
    let network = network_at(episode);
    let owns = local < LANES * PLACES;
    let weights = load_weights(network, 0u, 0u, local);
    let w = weights.w;
    let alpha = weights.alpha;
    var p: array<Traces, OWN>;
    //!unroll c COLUMNS
    //!unroll g ROW_GROUPS
    {
        let at_p = own_trace_at(0u, episode, 0u, 0u, $g, $c, local);
        p[$g * COLUMNS + $c].h = adjoint[at_p];
        if (two_traces()) {
            p[$g * COLUMNS + $c].e = adjoint[at_p + trace_stride()];
        }
    }
    //!end
    //!end

    let end = now.first + now.n_steps;
    let is_last = end == job.n_steps;
    let is_neuron = local < POST;
    let spot = spot_of_column(local);
    let rule_at = episode * job.n_rule;
    let eta_at = rule_at + job.at_eta - job.at_rule;
    // a shared eta's gradient waits by neurons, in a row that delta has no step for
    let waiting_at = row_at(DELTA, episode, job.n_steps) + local;
    var own = RuleParameters(0.0, 0.0, 0.0);
    var mod_w = 0.0;
    var eta_bar = 0.0;
    if (is_neuron) {
        own = rule_parameters(network, local);
        if (!is_last) {
            sh_delta[spot.x][spot.y] = record[row_at(DELTA, episode, end - 1u) + local];
        }
        if (uses_eta()) {
            if (job.n_eta > 1u) {
                eta_bar = rule_bar[eta_at + local];
            } else if (!is_last) {
                eta_bar = record[waiting_at];
            }
        }
        if (uses_modulator()) {
            mod_w = parameters[network + job.at_mod_w + local];
        }
    }
    // the traces at a window's start of the column that comes next: of its first column while
    // the neurons are at work, of another while the one before it is summed
    var coming: array<Kept, ROW_GROUPS>;
    // (in a branch, though there are always steps: a compiler keeps in registers what it computes
    // here and could use again in the loop)
    if (now.n_steps > 0u) {
        // the last step and the window of the step before it
        let first = (max(end, 2u) - 2u) / WINDOW * WINDOW;
        let n_window = min(WINDOW, end - first);
        let rest = end - first - n_window;
        put_fetched(fetch(episode, 0u, 0u, first, n_window, false, local), first, n_window, local);
        put_fetched(
            fetch(episode, 0u, 0u, first + n_window, rest, false, local),
            first + n_window, rest, local);
        // quads that are not there stay zero
        for (var k = local; k < RING * (LANES * ROW_GROUPS - QUADS); k = k + 256u) {
            let nowhere = spot_of_quad(QUADS + k / RING);
            sh_x[k % RING][nowhere.x][nowhere.y] = vec4(0.0);
        }
        coming = load_column(0u, first / WINDOW, episode, local);
    }
    workgroupBarrier();

    for (var up = select(1u, 0u, is_last); up <= now.n_steps; up = up + 1u) {
        let t = end - up;
        let s = max(t, 1u) - 1u;
        let first = s / WINDOW * WINDOW;
        // step t starts a window: its trace is stored, and s is of the window before
        let starts = t % WINDOW == 0u;

        if (owns && up > 0u) {
            let row_t = t % RING;
            let row_s = s % RING;
            //!unroll r BEFORE
            let row_$r = (first + $r) % RING;
            //!end
            let lane = local / PLACES;
            let place = local % PLACES;
            var rows = array<vec4<f32>, ROW_GROUPS>();
            //!unroll c COLUMNS
            {
                // the trace before step s
                var before = array<Traces, ROW_GROUPS>();
                //!unroll g ROW_GROUPS
                before[$g] = traces_of(coming[$g]);
                //!end
                if ($c + 1u < COLUMNS) {
                    coming = load_column($c + 1u, s / WINDOW, episode, local);
                } else {
                    coming = load_column(0u, (max(s, 1u) - 1u) / WINDOW, episode, local);
                }
                if (has_column(local, $c)) {
                    //!unroll r BEFORE
                    if (first + $r < s) {
                        let k = k_in(row_$r, $c, place);
                        //!unroll g ROW_GROUPS
                        before[$g] =
                            clipped(evolve(before[$g], k, sh_x[row_$r][$g][lane]));
                        //!end
                    }
                    //!end
                    let k_s = k_in(row_s, $c, place);
                    let k = k_in(row_t, $c, place);
                    let delta_t = sh_delta[$c][place];
                    var sums = Collected(vec4(0.0), vec4(0.0), vec4(0.0));
                    //!unroll g ROW_GROUPS
                    {
                        let here = p[$g * COLUMNS + $c];
                        let own_alpha = alpha[$g * COLUMNS + $c];
                        let x_t = sh_x[row_t][$g][lane];
                        let x_s = sh_x[row_s][$g][lane];
                        // the trace before step t, as it was stored where a window starts
                        let after = evolve(before[$g], k_s, x_s);
                        var at_t = clipped(after);
                        if (starts) {
                            at_t = traces_of(kept_of(at_t));
                        }
                        if (t == 0u) {
                            at_t = before[$g];
                        }
                        // 1 where steps s and t were not clipped
                        var mask_s = vec4(1.0);
                        var mask_t = vec4(1.0);
                        if (CLIPPED == 1u) {
                            mask_s = inside(after.h);
                            mask_t = inside(evolve(at_t, k, x_t).h);
                        }
                        rows[$g] = add_x_bar(
                            rows[$g], w[$g * COLUMNS + $c], own_alpha, at_t.h, here, mask_t,
                            k.c, delta_t,
                        );
                        let back = evolve_back(here, mask_t, k, delta_t, x_t);
                        let one = collect(own_alpha, before[$g], back, mask_s, x_s);
                        sums = Collected(sums.q + one.q, sums.r + one.r, sums.e + one.e);
                        p[$g * COLUMNS + $c] = back;
                    }
                    //!end
                    sh_qr[lane][$c][place] = vec2(total_of(sums.q), total_of(sums.r));
                    if (two_traces()) {
                        put_e(total_of(sums.e), lane, $c, place);
                    }
                }
            }
            //!end
            //!unroll g ROW_GROUPS
            if (has_quad(local, $g)) {
                sh_rows[place][own_quad(local, $g)] = rows[$g];
            }
            //!end
        }
        // what the neuron needs of memory, and what the window before asks for
        var y = 0.0;
        var z = 0.0;
        var delta = 0.0;
        var input_bar = 0.0;
        var is_clamped = false;
        if (is_neuron && t > 0u) {
            y = record[row_at(Y, episode, t) + local];
            z = record[row_at(Z, episode, s) + local];
            delta = record[row_at(DELTA, episode, s) + local];
            input_bar = record[row_at(D_INPUT, episode, s) + local];
            if (CLAMPED == 1u) {
                let stimulus = n_episodes() * job.n_stimuli + episode * job.n_stimuli
                    + shown[episode * job.n_steps + s];
                is_clamped = stimuli[stimulus * POST + local] != 0.0;
            }
        }
        let fetches = s % WINDOW == 0u && s > 0u && up > 0u && t > now.first;
        var fetched = Fetched();
        if (fetches) {
            fetched = fetch(episode, 0u, 0u, s - WINDOW, WINDOW, false, local);
        }
        workgroupBarrier();

        var y_bar = 0.0;
        if (up > 0u) {
            if (RECURRENT == 1u && is_neuron) {
                y_bar = row_of(local);
            }
            if (RECURRENT == 0u && local < PRE) {
                pre[((n_episodes() + episode) * job.n_steps + t) * PRE + local] = row_of(local);
            }
        }
        // P after the last step is zero
        if (RULE != NONE && up > 0u && t > 0u) {
            var signal = 0.0;
            if (uses_modulator()) {
                signal = tanh_own(
                    reduce_sum(local, mod_w * y) + parameters[network + job.at_mod_b]);
            }
            var back = RuleBack(0.0, 0.0, 0.0);
            if (is_neuron) {
                var e = 0.0;
                if (two_traces()) {
                    e = e_of(local);
                }
                let qr = q_and_r_of(local);
                back = rule_back(own, y, modulation(own, signal), qr.x, qr.y, e);
            }
            y_bar = y_bar + back.y_bar;
            eta_bar = eta_bar + back.d_eta;
            if (uses_modulator()) {
                let a_bar = (1.0 - signal * signal) * reduce_sum(local, back.m_bar * own.fanout_w);
                y_bar = y_bar + a_bar * mod_w;
                if (is_neuron) {
                    let w_at = rule_at + job.at_mod_w - job.at_rule + local;
                    let fanout_w_at = rule_at + job.at_fanout_w - job.at_rule + local;
                    let fanout_b_at = rule_at + job.at_fanout_b - job.at_rule + local;
                    rule_bar[w_at] = rule_bar[w_at] + a_bar * y;
                    rule_bar[fanout_w_at] = rule_bar[fanout_w_at] + back.m_bar * signal;
                    rule_bar[fanout_b_at] = rule_bar[fanout_b_at] + back.m_bar;
                }
                if (local == 0u) {
                    let b_at = rule_at + job.at_mod_b - job.at_rule;
                    rule_bar[b_at] = rule_bar[b_at] + a_bar;
                }
            }
        }
        if (t == 0u) {
            if (is_neuron) {
                record[row_at(Y_BAR, episode, 0u) + local] = y_bar;
            }
        } else {
            let free = select(y_bar, 0.0, is_clamped);
            let clamped_bar = select(0.0, y_bar, is_clamped);
            if (ACTIVATION == SOFTMAX) {
                // it mixes neurons, and y is no softmax where clamped: form it again from z
                let z_here = select(-3.0e38, z, is_neuron);
                var share = exp_neg(z_here - reduce_max(local, z_here));
                share = share / reduce_sum(local, share);
                delta = delta + share * (free - reduce_sum(local, free * share));
            } else {
                delta = delta + slope(z) * free;
            }
            if (is_neuron) {
                sh_delta[spot.x][spot.y] = delta;
                record[row_at(DELTA, episode, s) + local] = delta;
                record[row_at(D_INPUT, episode, s) + local] = input_bar + clamped_bar + delta;
            }
        }
        if (fetches) {
            put_fetched(fetched, s - WINDOW, WINDOW, local);
        }
        workgroupBarrier();
    }

    if (owns) {
        //!unroll c COLUMNS
        if (has_column(local, $c)) {
            //!unroll g ROW_GROUPS
            if (has_quad(local, $g)) {
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
    if (is_neuron) {
        if (uses_eta() && job.n_eta > 1u) {
            rule_bar[eta_at + local] = eta_bar;
        }
        if (uses_eta() && job.n_eta == 1u) {
            record[waiting_at] = eta_bar;
        }
    }
    if (uses_eta() && job.n_eta == 1u && now.first == 0u) {
        let total = reduce_sum(local, eta_bar);
        if (local == 0u) {
            rule_bar[eta_at] = total;
        }
    }
}
