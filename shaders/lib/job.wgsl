// What every kernel knows: the sizes of the batch at hand (`Job`), the step being run
// (`Step`), the variant compiled for (overrides), and where vectors of each step lie.

override RULE: u32 = 0;       // none, decay, oja, modulated, retroactive, a text
override ACTIVATION: u32 = 0; // tanh, sigmoid, relu, linear, softmax, softplus, gelu
override LOSS: u32 = 0;       // squared, bce, cross_entropy
override RECURRENT: u32 = 0;  // 1: x(t) = y(t-1)
override CLIPPED: u32 = 0;    // 1: the trace is clipped to +-job.clip
override CLAMPED: u32 = 0;    // 1: stimuli come with clamps
override MODULATOR: u32 = 1;  // 1: the network reads m out of its activity
override MASKED: u32 = 0;     // 1: connections are missing where a mask is 0
override LEAK: u32 = 0;       // no_leak, rate, membrane
override READ_LOSS: u32 = 0;  // of the read-out: no_loss, squared, bce and cross_entropy of logits

const NONE = 0u;
const DECAY = 1u;
const OJA = 2u;
const MODULATED = 3u;
const RETROACTIVE = 4u;
const TEXT = 5u;

const TANH = 0u;
const SIGMOID = 1u;
const RELU = 2u;
const LINEAR = 3u;
const SOFTMAX = 4u;
const SOFTPLUS = 5u;
const GELU = 6u;

const NO_LEAK = 0u;
const RATE = 1u;
const MEMBRANE = 2u;

const SQUARED = 0u;
const BCE = 1u;
const CROSS_ENTROPY = 2u;

const NO_ROW = 0xffffffffu;

struct Job {
    n_networks: u32,
    n_batch: u32,
    n_steps: u32,
    n_pre: u32,
    n_post: u32,
    n_stimuli: u32,
    n_targets: u32,
    // the network of the first episode, among those whose parameters are bound
    first_network: u32,
    // parameters of one network, and where each tensor lies in them
    n_parameters: u32,
    at_w: u32,
    at_alpha: u32,
    at_rule: u32,
    at_eta: u32,
    n_eta: u32,
    at_mod_w: u32,
    at_mod_b: u32,
    at_fanout_w: u32,
    at_fanout_b: u32,
    at_bias: u32,
    n_bias: u32,
    at_leak: u32,
    n_leak: u32,
    at_in_w: u32,
    // NO_ROW: the layer has no bias
    at_in_b: u32,
    at_out_w: u32,
    at_out_b: u32,
    at_mask: u32,
    // parameters that each episode has a gradient of, from `at_rule` on
    n_rule: u32,
    // inputs of the input layer, outputs of the read-out
    n_observed: u32,
    n_outputs: u32,
    // alpha_ij = parameters[at_alpha + i alpha_row + j alpha_column]
    alpha_row: u32,
    alpha_column: u32,
    // parts of a sweep: chunks of rows, tiles of columns
    n_chunks: u32,
    n_tiles: u32,
    // episodes of a network that a sweep's workgroup takes, one after the other, with the
    // same w and alpha
    n_together: u32,
    // parts of a batch whose weight gradients are summed apart
    n_splits: u32,
    // stored traces that a buffer holds
    n_slots: u32,
    // episodes before this part of the batch
    first_episode: u32,
    clip: f32,
    // 1 / (episodes of the whole batch)
    share: f32,
}

struct Step {
    // the steps at hand, or those of the window that have happened
    first: u32,
    n_steps: u32,
    // the step at hand is `row` - 1, its y is row `row`; 0: before the first step
    row: u32,
    // backward sweep: 1 to propagate the step at hand; 1 to collect the one before
    propagate: u32,
    collect: u32,
    // backward neurons: 1 if the step after was propagated, 1 if this one was collected
    propagated: u32,
    collected: u32,
    // sweep: 1 to store the trace, or P, that it has evolved
    store: u32,
    // the stored trace before the first step at hand, in the buffer bound
    slot: u32,
}

// Vectors of each step, `record[slot][episode][row][N]`, T + 1 rows. Row t + 1 belongs to
// step t for y and dL/dy (row 0: before the first step), row t for the others.
const Y = 0u;
const Y_BAR = 1u;
const Z = 2u;
const D = 3u;
const C = 4u;
const M = 5u;
const DELTA = 6u;
const D_INPUT = 7u;
// Those that some networks have, by the number of the slot; 0: none.
override DRIVE: u32 = 0;  // row t: what z gains of a bias and an input layer
override GIVEN: u32 = 0;  // row t: m that the episodes bring; in the next slot dL/dm
override LEAKED: u32 = 0; // rate: row t, activation(z); membrane: row t + 1, v after the step
override D_Y: u32 = 0;    // row t: dL/dy beside what comes from other steps
override BARS: u32 = 0;   // row t: dL/dy through a rule's text; in the next slots dL/dz and dL/dm
override MARKS: u32 = 0;  // number t: the mark of a step (`lib/marks.wgsl`); in the next slot, rows 0 and
                          // 1: dL/dy(0) and dL/dv(0) of resets

fn n_episodes() -> u32 {
    return job.n_networks * job.n_batch;
}

// Index in `record` of the first neuron of a row.
fn row_at(slot: u32, episode: u32, row: u32) -> u32 {
    return ((slot * n_episodes() + episode) * (job.n_steps + 1u) + row) * job.n_post;
}

// Index in `record` of what the activation of step t is applied to.
fn argument_at(episode: u32, t: u32) -> u32 {
    if (LEAK == MEMBRANE) {
        return row_at(LEAKED, episode, t + 1u);
    }
    return row_at(Z, episode, t);
}

// What a rule asks of the trace at one step: H' = d H + c x, or with two traces
// H' = H + m E, E' = d E + c x.
struct Coefficients {
    d: f32,
    c: f32,
    m: f32,
}

// Index in `parameters` of the first parameter of an episode's network.
fn network_at(episode: u32) -> u32 {
    return (job.first_network + episode / job.n_batch) * job.n_parameters;
}
