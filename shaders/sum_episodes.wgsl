// Adds up the episodes of each network in a fixed order:
//
//     loss_p += sum over episodes and steps of loss_rows,
//     gradient of the rule's parameters += sum over episodes of rule_bar
//
// Workgroup (p, k) owns part k of network p's parameters, the first of them its loss too; an
// invocation a parameter of each part, every 256th loss row.
// gradient: +=   report (loss): +=
//!include lib/job.wgsl
//!include lib/eight.wgsl
//!include lib/reduce.wgsl

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> loss_rows: array<f32>; // [E, T]
@group(0) @binding(2) var<storage, read> rule_bar: array<f32>;  // [E, n_rule]
@group(0) @binding(3) var<storage, read_write> gradient: array<f32>; // [P, n_parameters]
@group(0) @binding(4) var<storage, read_write> report: array<f32>;   // [P, 4]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let network = job.first_network + group.x;
    let n_rule = job.n_rule;
    for (var k = group.y * 256u + local; k < n_rule; k = k + groups.y * 256u) {
        var sum = 0.0;
        for (var b = 0u; b < job.n_batch; b = b + 8u) {
            var part = array<f32, 8>();
            //!unroll e 8
            part[$e] =
                rule_bar[(group.x * job.n_batch + min(b + $e, job.n_batch - 1u)) * n_rule + k];
            //!end
            sum = add_eight(sum, part, job.n_batch - b);
        }
        let at = network * job.n_parameters + job.at_rule + k;
        gradient[at] = gradient[at] + sum;
    }
    if (group.y > 0u) {
        return;
    }
    let n_rows = job.n_batch * job.n_steps;
    var sum = 0.0;
    for (var k = local; k < n_rows; k = k + 2048u) {
        var part = array<f32, 8>();
        //!unroll e 8
        part[$e] = loss_rows[group.x * n_rows + min(k + 256u * $e, n_rows - 1u)];
        //!end
        sum = add_eight(sum, part, (n_rows - k + 255u) / 256u);
    }
    let loss = reduce_sum(local, sum);
    if (local == 0u) {
        report[network * 4u] = report[network * 4u] + loss;
    }
}
