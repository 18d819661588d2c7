// The O(N) part of a rule's text backward. Of the step at row `row`, which was propagated: what the pre
// variables get, and x through them. Of the step before, which was collected: what y, z, r and m get, the
// post variables and the parameters of neurons and network. What crosses a step that is reset belongs
// to the start values; what crosses one that no gradient passes is gone.
//
// Workgroup (e, k) owns a part of episode e, all of it where the network has a parameter of its own.
// record (dL/dy, dL/dz, dL/dm by the text): =   state (dL/dr, dL by variables): =   rule_bar: +=
// row_partial (dL/dx): +=
//!include lib/job.wgsl
//!include lib/eight.wgsl
//!include lib/math.wgsl
//!include lib/reduce.wgsl
//!include lib/column_sums.wgsl
//!include lib/row_sums.wgsl
//!include lib/marks.wgsl
//!include rule/values.wgsl
//!include lib/rows.wgsl
//!include lib/general_traces.wgsl
//!include lib/general.wgsl
//!include rule/variables_back.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> now: Step;
@group(0) @binding(2) var<storage, read> parameters: array<f32>; // [P, n_parameters]
@group(0) @binding(3) var<storage, read> column_partial: array<f32>; // [COLUMN_SUMS, chunks, E, N]
@group(0) @binding(4) var<storage, read> pre: array<f32>;        // [1 or 2, E, T, M]
@group(0) @binding(5) var<storage, read_write> row_partial: array<f32>; // [ROW_SUMS, tiles, E, M]
@group(0) @binding(6) var<storage, read_write> record: array<f32>; // [slots, E, T+1, N]
@group(0) @binding(7) var<storage, read_write> state: array<f32>; // [E, state_stride]
@group(0) @binding(8) var<storage, read_write> rule_bar: array<f32>; // [E, n_rule]

// Adds to the gradients of this episode.
fn add_rule_bar(episode: u32, at: u32, value: f32) {
    let to = episode * job.n_rule + at - job.at_rule;
    rule_bar[to] = rule_bar[to] + value;
}

// What goes on to the step before a step with such a mark.
fn carried(mark: f32, value: f32) -> f32 {
    return select(0.0, value, mark == 0.0);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let episode = group.x;
    let own = group.y * 256u + local;
    let stride = groups.y * 256u;
    let network = network_at(episode);
    let is_last = now.row == job.n_steps;
    var of_network = array<f32, NETWORK_SUMS>();

    for (var i = own; i < job.n_pre; i = i + stride) {
        if (is_last) {
            for (var k: u32 = 0u; k < 2u * PRES; k = k + 1u) {
                state[pre_bar_at(episode, k) + i] = 0.0;
            }
            continue;
        }
        var v = Values();
        pre_values(&v, network, episode, now.row, i);
        var bar = array<f32, PRE_SPACE>();
        for (var k: u32 = 0u; k < PRES; k = k + 1u) {
            bar[k] = state[pre_bar_at(episode, k) + i];
        }
        let terms = pre_terms(v, bar, &of_network);
        let x_at = row_at_tile(0u, 0u, episode, i);
        row_partial[x_at] = row_partial[x_at] + terms[0];
        let mark = select(mark(episode, now.row), RESET, now.row == 0u);
        for (var k: u32 = 0u; k < PRES; k = k + 1u) {
            let found = terms[1u + k] + row_sum(1u + k, episode, i);
            state[pre_bar_at(episode, k) + i] = carried(mark, found);
            if (mark == RESET) {
                let at = pre_start_bar_at(episode, k) + i;
                state[at] = state[at] + found;
            }
        }
        for (var k: u32 = 1u + PRES; k < ROW_SUMS; k = k + 1u) {
            add_rule_bar(episode, row_parameter(k) + i, terms[k] + row_sum(k, episode, i));
        }
    }
    if (now.row > 0u) {
        let t = now.row - 1u;
        let mark = select(mark(episode, t), RESET, t == 0u);
        for (var j = own; j < job.n_post; j = j + stride) {
            var v = Values();
            post_values(&v, network, episode, t, j);
            var bar = array<f32, POST_SPACE>();
            for (var k: u32 = 0u; k < POSTS; k = k + 1u) {
                if (is_last) {
                    state[post_start_bar_at(episode, k) + j] = 0.0;
                } else {
                    bar[k] = state[post_bar_at(episode, k) + j];
                }
            }
            var found = post_terms(v, bar);
            for (var c: u32 = 0u; c < COLUMN_SUMS; c = c + 1u) {
                found[c] = found[c] + collected(c, episode, j);
            }
            let given = give_columns(found, episode, j, &of_network);
            record[row_at(BARS, episode, t) + j] = given.y;
            record[row_at(BARS + 1u, episode, t) + j] = given.z;
            record[row_at(BARS + 2u, episode, t) + j] = given.m;
            if (READS_R == 1u) {
                state[r_bar_at(episode) + j] = given.r;
            }
            for (var k: u32 = 0u; k < POSTS; k = k + 1u) {
                state[post_bar_at(episode, k) + j] = carried(mark, given.s[k]);
                if (mark == RESET) {
                    let at = post_start_bar_at(episode, k) + j;
                    state[at] = state[at] + given.s[k];
                }
            }
        }
    }
    for (var k: u32 = 0u; k < NETWORK_PARAMETERS; k = k + 1u) {
        workgroupBarrier();
        let sum = reduce_sum(local, of_network[k]);
        if (local == 0u) {
            add_rule_bar(episode, network_parameter(k), sum);
        }
    }
}
