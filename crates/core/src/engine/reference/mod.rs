//! The plain version: every equation as loops over steps t, pre-synaptic neurons i and post-synaptic
//! neurons j, in f64, forward and backward. It is what every engine is held to.
//!
//! Forward, with H and the rule's variables as they are before step t:
//!
//! ```text
//! z_j  = sum_i x_i mask_ij (w_ij + alpha_ij H_ij) + bias_j + input_j + sum_k obs_k in.w_kj + in.b_j
//! y    = act(z), or with a leak k:  y = (1 - k) y(t-1) + k act(z)     (rate)
//!                                   v = (1 - k) v(t-1) + k z, y = act(v)     (membrane)
//! y_j  = input_j where clamped
//! r_j  = sum_i x_i H_ij
//! m_j  = fanout.w_j tanh(sum_k mod.w_k y_k + mod.b) + fanout.b_j + m.input_j
//! H'   = F(x_i, y_j, z_j, r_j, m_j, H, ...), and so the rule's other traces and variables
//! out  = y out.w + out.b
//! ```
//!
//! Backward, from the last step to the first, with lambda = dL/dH', sbar and ubar those of the post and
//! pre variables, and subscripts of F, S and U for derivatives:
//!
//! ```text
//! ybar_j += sum_i lambda_ij F_y + sum sbar_j S_y        likewise zbar by z, rbar by r, mbar by m
//! delta_j = dL/dz_j: ybar through the activation and the leak, plus zbar_j
//! d_w_ij += mask_ij x_i delta_j        d_alpha_ij += mask_ij H_ij x_i delta_j
//! xbar_i  = sum_j mask_ij (w_ij + alpha_ij H_ij) delta_j + sum_j lambda_ij F_x + sum_j H_ij rbar_j + ubar_i U_x
//! lambda  <- lambda F_H + mask alpha x_i delta_j + x_i rbar_j
//! ```

#[expect(clippy::needless_range_loop, reason = "equations are stated by their indices")]
mod backward;
mod forward;

use rayon::prelude::*;

use crate::engine::{Gradients, Outputs, Want};
use crate::error::Result;
use crate::model::{Episodes, Network, Parameters, Rule, Scalar, Tensor};
use crate::rule::{Compiled, Name, Per, Program};

use forward::Step;

/// A population with its rule, ready to run.
pub(super) struct Model<'a> {
    network: &'a Network,
    parameters: &'a Parameters<f64>,
    program: Program,
    rule: Compiled,
    /// What each of the rule's parameters is, and what it is one number of.
    rule_parameters: Vec<(Tensor, Per)>,
}

/// One episode's part of a batch.
struct Episode<'a> {
    model: &'a Model<'a>,
    episodes: &'a Episodes<f64>,
    /// Its number in the batch, and its network.
    e: usize,
    p: usize,
}

/// What one episode gave.
struct Found {
    loss: f64,
    y: Vec<f64>,
    out: Vec<f64>,
    v: Vec<f64>,
    /// Traces after the last step, then post and pre variables.
    traces: Vec<Vec<f64>>,
    post: Vec<Vec<f64>>,
    pre: Vec<Vec<f64>>,
    gradients: Option<Adjoints>,
}

/// What one episode adds to the gradients.
struct Adjoints {
    parameters: Parameters<f64>,
    input: Vec<f64>,
    pre: Vec<f64>,
    y0: Vec<f64>,
    v0: Vec<f64>,
    /// Of the traces, the post and the pre variables before the first step.
    traces: Vec<Vec<f64>>,
    post: Vec<Vec<f64>>,
    pre_variables: Vec<Vec<f64>>,
    /// `[T, N]`.
    m: Vec<f64>,
    observed: Vec<f64>,
}

impl<'a> Model<'a> {
    fn new(network: &'a Network, parameters: &'a Parameters<f64>) -> Result<Self> {
        let (program, rule_parameters) = network.program()?;
        let rule = program.compile();
        Ok(Model { network, parameters, program, rule, rule_parameters })
    }

    /// Where the number of a rule's parameter at a connection lies in its tensor.
    fn place(&self, per: Per, i: usize, j: usize) -> usize {
        match per {
            Per::Network => 0,
            Per::Neuron => j,
            Per::Pre => i,
            Per::Connection => i * self.network.n_post + j,
        }
    }

    /// alpha of a connection lies there.
    fn alpha_at(&self, i: usize, j: usize) -> usize {
        let (row, column) = self.network.alpha.strides(self.network.n_post);
        i * row + j * column
    }
}

impl Episode<'_> {
    fn network(&self) -> &Network {
        self.model.network
    }

    fn get(&self, tensor: Tensor) -> &[f64] {
        self.model.parameters.get(self.p, tensor)
    }

    /// A number that neurons share or have each.
    fn of_neuron(&self, tensor: Tensor, j: usize) -> f64 {
        let values = self.get(tensor);
        if values.len() == 1 { values[0] } else { values[j] }
    }

    /// Whether connection k is there.
    fn mask(&self, k: usize) -> f64 {
        let mask = &self.model.parameters.mask;
        if mask.is_empty() { 1.0 } else { mask[self.p * self.network().n_connections() + k] }
    }

    /// This episode's part of a list; empty where there is none.
    fn part<'b>(&self, list: Option<&'b Vec<f64>>, len: usize) -> &'b [f64] {
        list.map_or(&[], |list| &list[self.e * len..(self.e + 1) * len])
    }

    /// The drive of step t.
    fn input(&self, t: usize) -> &[f64] {
        let (shape, n) = (&self.episodes.shape, self.network().n_post);
        let row = self.episodes.shown[self.e * shape.n_steps + t] as usize;
        &self.episodes.stimuli[(self.e * shape.n_stimuli + row) * n..][..n]
    }

    fn clamped(&self, t: usize, j: usize) -> bool {
        let (shape, n) = (&self.episodes.shape, self.network().n_post);
        let row = self.episodes.shown[self.e * shape.n_steps + t] as usize;
        let clamps = self.episodes.clamps.as_ref();
        clamps.is_some_and(|c| c[(self.e * shape.n_stimuli + row) * n + j] != 0.0)
    }

    /// Whether the network starts anew before step t.
    fn resets(&self, t: usize) -> bool {
        let reset = self.episodes.signals.reset.as_ref();
        reset.is_some_and(|reset| reset[self.e * self.episodes.shape.n_steps + t] != 0.0)
    }

    /// Whether no gradient passes to before step t.
    fn cuts(&self, t: usize) -> bool {
        self.episodes.signals.truncate.is_some_and(|k| t > 0 && t.is_multiple_of(k))
    }

    /// What a name stands for at a connection and step; of a neuron's own equations i or j counts for
    /// nothing.
    fn value(&self, step: &Step, i: usize, j: usize, name: Name) -> f64 {
        let n = self.network().n_post;
        match name {
            Name::X => step.x[i],
            Name::Y => step.y[j],
            Name::Z => step.z[j],
            Name::R => step.r[j],
            Name::M => step.m[j],
            Name::Trace(k) => step.traces[k][i * n + j],
            Name::Post(k) => step.post[k][j],
            Name::Pre(k) => step.pre[k][i],
            Name::Parameter(k) => {
                let (tensor, per) = self.model.rule_parameters[k];
                self.get(tensor)[self.model.place(per, i, j)]
            }
        }
    }
}

/// Runs a batch, in f64 whatever S is; see [`crate::engine::Engine::evaluate`].
///
/// # Errors
/// A rule that is not known.
pub fn run<S: Scalar>(
    network: &Network,
    parameters: &Parameters<S>,
    episodes: &Episodes<S>,
    want: Want,
) -> Result<Outputs<S>> {
    let (parameters, episodes) = (parameters.widened(), episodes.widened());
    let model = Model::new(network, &parameters)?;
    let n_batch = episodes.shape.n_batch;
    let found: Vec<Found> = (0..network.n_networks * n_batch)
        .into_par_iter()
        .map(|e| {
            let episode = Episode { model: &model, episodes: &episodes, e, p: e / n_batch };
            let (steps, mut found) = episode.forward(want.gradients);
            if want.gradients {
                found.gradients = Some(episode.backward(&steps, &found));
            }
            found
        })
        .collect();
    Ok(collect(network, &episodes, found, want))
}

/// All that the episodes gave, as an engine tells it.
fn collect<S: Scalar>(
    network: &Network,
    episodes: &Episodes<f64>,
    found: Vec<Found>,
    want: Want,
) -> Outputs<S> {
    let narrow = |values: Vec<f64>| values.into_iter().map(S::from_f64).collect::<Vec<S>>();
    let all =
        |part: &dyn Fn(&Found) -> &[f64]| narrow(found.iter().flat_map(part).copied().collect());
    let (n, n_batch) = (network.n_post, episodes.shape.n_batch);
    let share = loss_share(network, episodes);
    let loss = found.chunks(n_batch).map(|batch| batch.iter().map(|f| f.loss).sum::<f64>() * share);
    let states = |f: &Found| -> Vec<Vec<f64>> {
        f.traces[1..].iter().chain(&f.post).chain(&f.pre).cloned().collect()
    };
    let mut outputs = Outputs {
        loss: narrow(loss.collect()),
        y_last: all(&|f| &f.y[f.y.len() - n..]),
        out: all(&|f| &f.out),
        v: all(&|f| &f.v),
        ..Outputs::default()
    };
    if want.activity {
        outputs.y = all(&|f| &f.y);
    }
    if want.traces {
        outputs.h = all(&|f| &f.traces[0]);
        if network.rule == Rule::Retroactive {
            outputs.e = all(&|f| &f.traces[1]);
        }
        let n_states = match network.stages.rule {
            Some(_) => found.first().map_or(0, |f| states(f).len()),
            None => 0,
        };
        outputs.rule = (0..n_states)
            .map(|k| narrow(found.iter().flat_map(|f| states(f).swap_remove(k)).collect()))
            .collect();
    }
    if want.gradients {
        outputs.gradients = Some(gradients(network, episodes, &found));
    }
    outputs
}

/// The gradients of the sum over networks of the loss.
fn gradients<S: Scalar>(
    network: &Network,
    episodes: &Episodes<f64>,
    found: &[Found],
) -> Gradients<S> {
    let narrow = |values: Vec<f64>| values.into_iter().map(S::from_f64).collect::<Vec<S>>();
    let adjoints: Vec<&Adjoints> = found.iter().filter_map(|f| f.gradients.as_ref()).collect();
    let all = |part: &dyn Fn(&Adjoints) -> &[f64]| {
        narrow(adjoints.iter().flat_map(|&a| part(a)).copied().collect())
    };
    let mut parameters = Parameters::<f64>::zeros(network);
    let len = parameters.layout().len();
    for (e, adjoint) in adjoints.iter().enumerate() {
        let p = e / episodes.shape.n_batch;
        let sums = &mut parameters.values_mut()[p * len..(p + 1) * len];
        let own = &adjoint.parameters.network(0)[..len];
        sums.iter_mut().zip(own).for_each(|(sum, &value)| *sum += value);
    }
    let mut own = Parameters::<S>::zeros(network);
    let values = parameters.values().iter().map(|&v| S::from_f64(v));
    own.values_mut().iter_mut().zip(values).for_each(|(own, value)| *own = value);

    let given = &episodes.signals;
    let mut signals = crate::model::Signals::default();
    if let Some(m) = &given.m {
        // one number for all neurons
        let shared = m.len() * network.n_post == adjoints.iter().map(|a| a.m.len()).sum::<usize>();
        signals.m = Some(if shared && network.n_post > 1 {
            let sum = |row: &[f64]| row.iter().sum::<f64>();
            narrow(adjoints.iter().flat_map(|a| a.m.chunks(network.n_post).map(sum)).collect())
        } else {
            all(&|a| &a.m)
        });
    }
    signals.observed = given.observed.as_ref().map(|_| all(&|a| &a.observed));
    signals.v0 = given.v0.as_ref().map(|_| all(&|a| &a.v0));
    signals.rule0 = given
        .rule0
        .iter()
        .enumerate()
        .map(|(k, list)| {
            list.as_ref().map(|_| {
                all(&|a: &Adjoints| {
                    let mut states = a.traces[1..].iter().chain(&a.post).chain(&a.pre_variables);
                    states.nth(k).map_or(&[][..], |state| &state[..])
                })
            })
        })
        .collect();
    Gradients {
        parameters: own,
        input: all(&|a| &a.input),
        pre: all(&|a| &a.pre),
        y0: all(&|a| &a.y0),
        h0: all(&|a| &a.traces[0]),
        e0: if network.rule == Rule::Retroactive { all(&|a| &a.traces[1]) } else { Vec::new() },
        signals,
    }
}

/// What an episode's loss is multiplied by: 1/B, or 1 where cotangents are given.
fn loss_share(network: &Network, episodes: &Episodes<f64>) -> f64 {
    if network.stages.cotangents {
        return 1.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let n = episodes.shape.n_batch as f64;
    1.0 / n
}
