// Some steps of a whole episode, the trace in registers (Miconi et al. 2018, equations 1
// and 2); each step is
//
//     z_j = sum_i x_i (w_ij + alpha_ij H_ij) + u_j,  y = activation(z), y = u where clamped
//     H'  = clip(d_j H + c_j x_i)                                        (`lib/trace.wgsl`)
//
// Workgroup e owns episode e; `lib/tile.wgsl` says what its invocations own. The trace is
// stored at every window's start, and at the end where asked; what rounding takes from the last one
// that a dispatch stores goes on to the next dispatch.
// record (z, y, d, c, m of the steps): =   y_last: = at the last step   trace, residual: =
//!include lib/job.wgsl
//!include lib/math.wgsl
//!include lib/reduce.wgsl
//!include lib/rule.wgsl
//!include lib/rows.wgsl
//!include lib/trace.wgsl
//!include lib/stored.wgsl
//!include lib/tile.wgsl
//!include lib/load.wgsl
//!include lib/residual.wgsl
//!include lib/quads.wgsl
//!include lib/weights.wgsl
//!include lib/sums.wgsl
//!include lib/resident.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(3) var<storage, read> stimuli: array<f32>;    // [1 or 2, E, n_stimuli, N]
@group(0) @binding(4) var<storage, read> shown: array<u32>;      // [E, T]
@group(0) @binding(5) var<storage, read> pre: array<f32>;        // [1 or 2, E, T, M]
@group(0) @binding(6) var<storage, read_write> trace: array<Stored>; // [slots, E, traces, quads, N]
@group(0) @binding(7) var<storage, read_write> record: array<f32>; // [slots, E, T+1, N]
@group(0) @binding(8) var<storage, read_write> y_last: array<f32>; // [P B, N]
@group(0) @binding(9) var<storage, read_write> residual: array<vec4<f32>>; // [E, traces, quads, N]

var<workgroup> sh_x: array<f32, 4u * QUADS>;
var<workgroup> sh_dc: array<array<vec2<f32>, PLACES>, COLUMNS>;
var<workgroup> sh_m: array<array<f32, PLACES>, COLUMNS>;

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
    var at = traces_of_tile(load_tile(slot_of(now.first / WINDOW), episode, 0u, 0u, local));
    if (ROUNDED) {
        //!unroll c COLUMNS
        //!unroll g ROW_GROUPS
        at[$g * COLUMNS + $c] = with_residual(
            at[$g * COLUMNS + $c], own_trace_at(0u, episode, 0u, 0u, $g, $c, local));
        //!end
        //!end
    }
    let is_neuron = local < POST;
    var own = RuleParameters(0.0, 0.0, 0.0);
    var mod_w = 0.0;
    if (is_neuron) {
        own = rule_parameters(network, local);
        if (uses_modulator()) {
            mod_w = parameters[network + job.at_mod_w + local];
        }
    }
    if (local < 4u * QUADS) {
        sh_x[local] = x_at(episode, now.first, local);
    }
    var stimulus = shown[episode * job.n_steps + now.first];
    workgroupBarrier();

    for (var t = now.first; t < now.first + now.n_steps; t = t + 1u) {
        // what the neuron needs of memory is on its way while the sums are formed
        var u = 0.0;
        var is_clamped = false;
        var x_next = 0.0;
        if (is_neuron) {
            let u_at = (episode * job.n_stimuli + stimulus) * POST + local;
            u = stimuli[u_at];
            if (CLAMPED == 1u) {
                is_clamped = stimuli[n_episodes() * job.n_stimuli * POST + u_at] != 0.0;
            }
        }
        if (RECURRENT == 0u && local < PRE) {
            x_next = x_at(episode, t + 1u, local);
        }
        stimulus = shown[episode * job.n_steps + min(t + 1u, job.n_steps - 1u)];

        var x = array<vec4<f32>, ROW_GROUPS>();
        if (owns) {
            //!unroll g ROW_GROUPS
            let quad_$g = 4u * min(own_quad(local, $g), QUADS - 1u);
            x[$g] = vec4(
                sh_x[quad_$g], sh_x[quad_$g + 1u], sh_x[quad_$g + 2u], sh_x[quad_$g + 3u]);
            //!end
            //!unroll c COLUMNS
            {
                var sum = vec4(0.0);
                //!unroll g ROW_GROUPS
                sum = sum + x[$g]
                    * (w[$g * COLUMNS + $c] + alpha[$g * COLUMNS + $c] * at[$g * COLUMNS + $c].h);
                //!end
                sh_sums[local / PLACES][$c][local % PLACES] = total_of(sum);
            }
            //!end
        }
        workgroupBarrier();

        var z = -3.0e38;
        if (is_neuron) {
            z = sum_of(local) + u;
        }
        var y = activate(z);
        if (ACTIVATION == SOFTMAX) {
            let share = exp_neg(z - reduce_max(local, z));
            y = share / reduce_sum(local, share);
        }
        if (is_clamped) {
            y = u;
        }
        var signal = 0.0;
        if (uses_modulator()) {
            let read_out = reduce_sum(local, select(0.0, mod_w * y, is_neuron));
            signal = tanh_own(read_out + parameters[network + job.at_mod_b]);
        }
        if (is_neuron) {
            let k = coefficients(own, y, modulation(own, signal));
            let spot = spot_of_column(local);
            sh_dc[spot.x][spot.y] = vec2(k.d, k.c);
            if (two_traces()) {
                sh_m[spot.x][spot.y] = k.m;
                record[row_at(M, episode, t) + local] = k.m;
            }
            if (RECURRENT == 1u) {
                sh_x[local] = y;
            }
            record[row_at(Z, episode, t) + local] = z;
            record[row_at(Y, episode, t + 1u) + local] = y;
            record[row_at(D, episode, t) + local] = k.d;
            record[row_at(C, episode, t) + local] = k.c;
            if (t + 1u == job.n_steps) {
                y_last[(job.first_episode + episode) * POST + local] = y;
            }
        }
        if (RECURRENT == 0u && local < PRE) {
            sh_x[local] = x_next;
        }
        workgroupBarrier();

        if (owns) {
            //!unroll c COLUMNS
            {
                let dc = sh_dc[$c][local % PLACES];
                let k = Coefficients(dc.x, dc.y, sh_m[$c][local % PLACES]);
                //!unroll g ROW_GROUPS
                at[$g * COLUMNS + $c] = clipped(evolve(at[$g * COLUMNS + $c], k, x[$g]));
                //!end
            }
            //!end
        }
        let ends = (t + 1u) % WINDOW == 0u && t + 1u < job.n_steps;
        if (owns && (ends || (t + 1u == job.n_steps && now.store == 1u))) {
            let slot = slot_of((t + WINDOW) / WINDOW);
            //!unroll c COLUMNS
            if (has_column(local, $c)) {
                let j = own_column(local, $c);
                //!unroll g ROW_GROUPS
                if (has_quad(local, $g)) {
                    let to = trace_at(slot, episode, own_quad(local, $g), j);
                    let kept = kept_of(at[$g * COLUMNS + $c]);
                    trace[to] = kept.h;
                    if (two_traces()) {
                        trace[to + trace_stride()] = kept.e;
                    }
                    if (ROUNDED && t + 1u == now.first + now.n_steps) {
                        let at_residual = trace_at(0u, episode, own_quad(local, $g), j);
                        keep_residual(at[$g * COLUMNS + $c], traces_of(kept), at_residual);
                    }
                }
                //!end
            }
            //!end
        }
    }
}
