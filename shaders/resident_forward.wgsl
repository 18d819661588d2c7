// Some steps of a whole episode, the trace in registers (Miconi et al. 2018, equations 1
// and 2); each step is
//
//     z_j = sum_i x_i (w_ij + alpha_ij H_ij) + u_j,  y = activation(z)   (`lib/neuron_step.wgsl`)
//     H'  = clip(d_j H + c_j x_i)                                        (`lib/trace.wgsl`)
//
// Workgroup e owns episode e; its invocations share out the connections by
// `lib/resident.wgsl` and the neurons by 256. The trace is stored at every window's start,
// rounded as it is stored, and at the end where asked.
// record (z, y, d, c, m of the steps): =   y_last: = at the last step   trace: =
//!include lib/job.wgsl
//!include lib/math.wgsl
//!include lib/reduce.wgsl
//!include lib/rule.wgsl
//!include lib/neuron_step.wgsl
//!include lib/trace.wgsl
//!include lib/stored.wgsl
//!include lib/load.wgsl
//!include lib/weights.wgsl
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

var<workgroup> sh_x: array<f32, ROWS>;
var<workgroup> sh_d: array<f32, WIDTH>;
var<workgroup> sh_c: array<f32, WIDTH>;
var<workgroup> sh_m: array<f32, WIDTH>;

fn plastic_sum(episode: u32, j: u32) -> f32 {
    return column_total(j);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let episode = group.x;
    let network = network_at(episode);
    var w: array<vec4<f32>, OWN>;
    var alpha: array<vec4<f32>, OWN>;
    var at: array<Traces, OWN>;
    //!unroll c COLUMNS
    if (own_column(local, $c) < job.n_post) {
        let j = own_column(local, $c);
        //!unroll g ROW_GROUPS
        if (own_quad(local, $g) < n_quads()) {
            let quad = own_quad(local, $g);
            w[$g * COLUMNS + $c] = w_quad(network, quad, j);
            alpha[$g * COLUMNS + $c] = alpha_quad(network, quad, j);
            at[$g * COLUMNS + $c] = load_traces(slot_of(now.first / job.window), episode, quad, j);
        }
        //!end
    }
    //!end
    for (var i = local; i < ROWS; i = i + 256u) {
        sh_x[i] = x_at(episode, now.first, i);
    }
    workgroupBarrier();

    for (var t = now.first; t < now.first + now.n_steps; t = t + 1u) {
        var x: array<vec4<f32>, ROW_GROUPS>;
        var sums: array<f32, COLUMNS>;
        //!unroll g ROW_GROUPS
        {
            let i = 4u * own_quad(local, $g);
            x[$g] = vec4(sh_x[i], sh_x[i + 1u], sh_x[i + 2u], sh_x[i + 3u]);
        }
        //!end
        //!unroll c COLUMNS
        {
            var sum = vec4(0.0);
            //!unroll g ROW_GROUPS
            sum = sum
                + x[$g] * (w[$g * COLUMNS + $c] + alpha[$g * COLUMNS + $c] * at[$g * COLUMNS + $c].h);
            //!end
            sums[$c] = total_of(sum);
        }
        //!end
        put_columns(sums, local);
        workgroupBarrier();
        neuron_step(episode, t, local);
        for (var j = local; j < job.n_post; j = j + 256u) {
            sh_d[j] = record[row_at(D, episode, t) + j];
            sh_c[j] = record[row_at(C, episode, t) + j];
            if (two_traces()) {
                sh_m[j] = record[row_at(M, episode, t) + j];
            }
        }
        for (var i = local; i < job.n_pre; i = i + 256u) {
            sh_x[i] = x_at(episode, t + 1u, i);
        }
        workgroupBarrier();

        let ends = (t + 1u) % job.window == 0u && t + 1u < job.n_steps;
        let slot = slot_of((t + job.window) / job.window);
        let stores = ends || (t + 1u == job.n_steps && now.store == 1u);
        //!unroll c COLUMNS
        if (own_column(local, $c) < job.n_post) {
            let j = own_column(local, $c);
            let k = Coefficients(sh_d[j], sh_c[j], sh_m[j]);
            //!unroll g ROW_GROUPS
            at[$g * COLUMNS + $c] = clipped(evolve(at[$g * COLUMNS + $c], k, x[$g]));
            if (stores && own_quad(local, $g) < n_quads()) {
                let to = trace_at(slot, episode, own_quad(local, $g), j);
                let h = to_stored(at[$g * COLUMNS + $c].h);
                trace[to] = h;
                at[$g * COLUMNS + $c].h = from_stored(h);
                if (two_traces()) {
                    let e = to_stored(at[$g * COLUMNS + $c].e);
                    trace[to + trace_stride()] = e;
                    at[$g * COLUMNS + $c].e = from_stored(e);
                }
            }
            //!end
        }
        //!end
    }
}
