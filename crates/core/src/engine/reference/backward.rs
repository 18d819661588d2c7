//! An episode backward.

use super::forward::Step;
use super::{Adjoints, Episode, Found, loss_share};
use crate::model::activation::softmax_adjoint;
use crate::model::{Activation, Leak, Parameters, Tensor};
use crate::rule::Name;

/// dL by what goes from step to step: what the steps after have asked for so far.
#[derive(Clone, Debug)]
struct Carried {
    y: Vec<f64>,
    v: Vec<f64>,
    traces: Vec<Vec<f64>>,
    post: Vec<Vec<f64>>,
    pre: Vec<Vec<f64>>,
}

impl Carried {
    fn lists(&mut self) -> impl Iterator<Item = &mut Vec<f64>> {
        let states = self.traces.iter_mut().chain(&mut self.post).chain(&mut self.pre);
        [&mut self.y, &mut self.v].into_iter().chain(states)
    }

    fn clear(&mut self) {
        self.lists().for_each(|list| list.fill(0.0));
    }

    fn add(&mut self, other: &mut Self) {
        for (own, other) in self.lists().zip(other.lists()) {
            own.iter_mut().zip(other).for_each(|(own, other)| *own += *other);
        }
    }
}

impl Episode<'_> {
    /// The gradients of an episode's share of the loss.
    pub(super) fn backward(&self, steps: &[Step], found: &Found) -> Adjoints {
        let network = self.network();
        let (m, n) = (network.n_pre, network.n_post);
        let lengths = |list: &[Vec<f64>]| list.iter().map(|v| vec![0.0; v.len()]).collect();
        let mut carried = Carried {
            y: vec![0.0; n],
            v: vec![0.0; found.v.len()],
            traces: lengths(&found.traces),
            post: lengths(&found.post),
            pre: lengths(&found.pre),
        };
        // of the start values, to which every life adds
        let mut start = carried.clone();
        if let Some(dh) = &self.episodes.signals.dh {
            carried.traces[0].copy_from_slice(self.part(Some(dh), m * n));
        }
        let one = crate::model::Network { n_networks: 1, ..network.clone() };
        let mut out = Adjoints {
            parameters: Parameters::zeros(&one),
            input: vec![0.0; steps.len() * n],
            pre: vec![0.0; if network.recurrent { 0 } else { steps.len() * m }],
            y0: Vec::new(),
            v0: Vec::new(),
            traces: Vec::new(),
            post: Vec::new(),
            pre_variables: Vec::new(),
            m: vec![0.0; steps.len() * n],
            observed: Vec::new(),
        };
        out.observed = vec![0.0; steps.len() * network.stages.input.map_or(0, |layer| layer.size)];
        for t in (0..steps.len()).rev() {
            self.step_back(t, &steps[t], &mut carried, &mut out);
            if t == 0 || self.resets(t) {
                start.add(&mut carried);
                carried.clear();
            } else if self.cuts(t) {
                carried.clear();
            }
        }
        out.y0 = start.y;
        out.v0 = start.v;
        out.traces = start.traces;
        out.post = start.post;
        out.pre_variables = start.pre;
        out
    }

    /// Step t: `carried` goes from after it to before it.
    fn step_back(&self, t: usize, step: &Step, carried: &mut Carried, out: &mut Adjoints) {
        let network = self.network();
        let (m, n) = (network.n_pre, network.n_post);
        let share = loss_share(network, self.episodes);
        let mut y_bar = std::mem::replace(&mut carried.y, vec![0.0; n]);
        self.read_out_back(t, step, share, &mut y_bar, out);
        let dy = self.part(self.episodes.signals.dy.as_ref(), self.episodes.shape.n_steps * n);
        if !dy.is_empty() {
            y_bar.iter_mut().zip(&dy[t * n..]).for_each(|(bar, dy)| *bar += dy);
        }

        // the rule
        let mut bars = Bars { x: vec![0.0; m], y: y_bar, ..Bars::new(n) };
        let before = self.learn_back(step, carried, &mut bars, out);
        self.modulator_back(t, step, &mut bars, out);

        // y to z
        let clamped = |j: usize| self.clamped(t, j);
        for j in (0..n).filter(|&j| clamped(j)) {
            out.input[t * n + j] += bars.y[j] + share * step.seed_clamped[j];
            bars.y[j] = 0.0;
        }
        let k = |j: usize| self.of_neuron(Tensor::Leak, j);
        let leak = network.stages.leak.map(|(leak, _)| leak);
        let mut a_bar = bars.y;
        if leak == Some(Leak::Rate) {
            for j in (0..n).filter(|&j| !clamped(j)) {
                let y_bar = a_bar[j] + share * step.seed[j];
                add_shared(
                    &mut out.parameters,
                    Tensor::Leak,
                    j,
                    y_bar * (step.a[j] - step.y_before[j]),
                );
                carried.y[j] += (1.0 - k(j)) * y_bar;
                a_bar[j] = k(j) * y_bar;
            }
        }
        let mut delta = vec![0.0; n];
        if network.activation == Activation::Softmax {
            softmax_adjoint(&step.a, &a_bar, &mut delta);
        } else {
            (0..n).for_each(|j| delta[j] = a_bar[j] * step.slopes[j]);
        }
        if leak != Some(Leak::Rate) {
            (0..n).for_each(|j| delta[j] += share * step.seed[j]);
        }
        if leak == Some(Leak::Membrane) {
            for j in 0..n {
                let v_bar = carried.v[j] + delta[j];
                add_shared(
                    &mut out.parameters,
                    Tensor::Leak,
                    j,
                    v_bar * (step.z[j] - step.v_before[j]),
                );
                carried.v[j] = (1.0 - k(j)) * v_bar;
                delta[j] = k(j) * v_bar;
            }
        }
        (0..n).for_each(|j| delta[j] += bars.z[j]);

        self.drive_back(t, &delta, out);
        let mut x_bar = bars.x;
        let h = &step.traces[0];
        let (w, alpha) = (self.get(Tensor::W), self.get(Tensor::Alpha));
        carried.traces = before;
        for i in 0..m {
            for j in 0..n {
                let c = i * n + j;
                let (mask, at) = (self.mask(c), self.model.alpha_at(i, j));
                let through = mask * step.x[i] * delta[j];
                out.parameters.get_mut(0, Tensor::W)[c] += through;
                out.parameters.get_mut(0, Tensor::Alpha)[at] += h[c] * through;
                x_bar[i] += mask * (w[c] + alpha[at] * h[c]) * delta[j] + h[c] * bars.r[j];
                carried.traces[0][c] += alpha[at] * through + step.x[i] * bars.r[j];
            }
        }
        if network.recurrent {
            carried.y.iter_mut().zip(x_bar).for_each(|(bar, x_bar)| *bar += x_bar);
        } else {
            out.pre[t * m..][..m].copy_from_slice(&x_bar);
        }
    }

    /// The read-out: its gradients, and its share of dL/dy.
    fn read_out_back(
        &self,
        t: usize,
        step: &Step,
        share: f64,
        y_bar: &mut [f64],
        out: &mut Adjoints,
    ) {
        let Some(layer) = self.network().stages.output else { return };
        let n_steps = self.episodes.shape.n_steps;
        let given = self.part(self.episodes.signals.dout.as_ref(), n_steps * layer.size);
        for o in 0..layer.size {
            let given = given.get(t * layer.size + o).copied().unwrap_or(0.0);
            let bar = share * step.seed_out[o] + given;
            for j in 0..y_bar.len() {
                let at = j * layer.size + o;
                out.parameters.get_mut(0, Tensor::OutW)[at] += step.y[j] * bar;
                y_bar[j] += bar * self.get(Tensor::OutW)[at];
            }
            if layer.bias {
                out.parameters.get_mut(0, Tensor::OutB)[o] += bar;
            }
        }
    }

    /// The rule: from dL/dH' and those of the variables to what they were made of. Returns dL/dH
    /// before the step, as far as it comes from the rule.
    fn learn_back(
        &self,
        step: &Step,
        carried: &mut Carried,
        bars: &mut Bars,
        out: &mut Adjoints,
    ) -> Vec<Vec<f64>> {
        let (m, n) = (self.network().n_pre, self.network().n_post);
        let rule = &self.model.rule;
        let zeros = |list: &[Vec<f64>]| list.iter().map(|v| vec![0.0; v.len()]).collect::<Vec<_>>();
        let mut before = Carried {
            y: Vec::new(),
            v: Vec::new(),
            traces: zeros(&carried.traces),
            post: zeros(&carried.post),
            pre: zeros(&carried.pre),
        };
        let mut scratch = Vec::new();
        let mut give = |i: usize, j: usize, name: Name, bar: f64| match name {
            Name::X => bars.x[i] += bar,
            Name::Y => bars.y[j] += bar,
            Name::Z => bars.z[j] += bar,
            Name::R => bars.r[j] += bar,
            Name::M => bars.m[j] += bar,
            Name::Trace(k) => before.traces[k][i * n + j] += bar,
            Name::Post(k) => before.post[k][j] += bar,
            Name::Pre(k) => before.pre[k][i] += bar,
            Name::Parameter(k) => {
                let (tensor, per) = self.model.rule_parameters[k];
                out.parameters.get_mut(0, tensor)[self.model.place(per, i, j)] += bar;
            }
        };
        let names = &rule.trace_names;
        let mut slopes = vec![0.0; names.len() * carried.traces.len()];
        for i in 0..m {
            for j in 0..n {
                let value = |name: Name| self.value(step, i, j, name);
                rule.trace_slopes.run(&mut scratch, value, &mut slopes);
                for (lambda, slopes) in carried.traces.iter().zip(slopes.chunks(names.len().max(1)))
                {
                    for (&name, slope) in names.iter().zip(slopes) {
                        give(i, j, name, lambda[i * n + j] * slope);
                    }
                }
            }
        }
        let names = &rule.post_names;
        let mut slopes = vec![0.0; names.len() * carried.post.len()];
        for j in 0..n {
            rule.post_slopes.run(&mut scratch, |name| self.value(step, 0, j, name), &mut slopes);
            for (bar, slopes) in carried.post.iter().zip(slopes.chunks(names.len().max(1))) {
                names
                    .iter()
                    .zip(slopes)
                    .for_each(|(&name, slope)| give(0, j, name, bar[j] * slope));
            }
        }
        let names = &rule.pre_names;
        let mut slopes = vec![0.0; names.len() * carried.pre.len()];
        for i in 0..m {
            rule.pre_slopes.run(&mut scratch, |name| self.value(step, i, 0, name), &mut slopes);
            for (bar, slopes) in carried.pre.iter().zip(slopes.chunks(names.len().max(1))) {
                names
                    .iter()
                    .zip(slopes)
                    .for_each(|(&name, slope)| give(i, 0, name, bar[i] * slope));
            }
        }
        carried.post = before.post;
        carried.pre = before.pre;
        before.traces
    }

    /// m: what was given, the fan-out and the read-out, which sees y.
    fn modulator_back(&self, t: usize, step: &Step, bars: &mut Bars, out: &mut Adjoints) {
        let n = self.network().n_post;
        out.m[t * n..][..n].copy_from_slice(&bars.m);
        if !self.network().has_modulator() {
            return;
        }
        let fan_out = self.get(Tensor::FanoutW);
        let mut signal_bar = 0.0;
        for j in 0..n {
            out.parameters.get_mut(0, Tensor::FanoutW)[j] += bars.m[j] * step.signal;
            out.parameters.get_mut(0, Tensor::FanoutB)[j] += bars.m[j];
            signal_bar += bars.m[j] * fan_out[j];
        }
        let bar = signal_bar * (1.0 - step.signal * step.signal);
        for k in 0..n {
            out.parameters.get_mut(0, Tensor::ModW)[k] += bar * step.y[k];
            bars.y[k] += bar * self.get(Tensor::ModW)[k];
        }
        out.parameters.get_mut(0, Tensor::ModB)[0] += bar;
    }

    /// What is added to z beside the connections.
    fn drive_back(&self, t: usize, delta: &[f64], out: &mut Adjoints) {
        let n = delta.len();
        for (j, &delta) in delta.iter().enumerate() {
            out.input[t * n + j] += delta;
            if self.network().stages.bias.is_some() {
                add_shared(&mut out.parameters, Tensor::Bias, j, delta);
            }
        }
        let Some(layer) = self.network().stages.input else { return };
        let n_steps = self.episodes.shape.n_steps;
        let observed = self.part(self.episodes.signals.observed.as_ref(), n_steps * layer.size);
        for (k, &value) in observed[t * layer.size..][..layer.size].iter().enumerate() {
            for (j, &delta) in delta.iter().enumerate() {
                out.parameters.get_mut(0, Tensor::InW)[k * n + j] += value * delta;
                out.observed[t * layer.size + k] += delta * self.get(Tensor::InW)[k * n + j];
            }
        }
        if layer.bias {
            let sums = out.parameters.get_mut(0, Tensor::InB);
            sums.iter_mut().zip(delta).for_each(|(sum, delta)| *sum += delta);
        }
    }
}

/// dL by what a step's rule reads.
struct Bars {
    x: Vec<f64>,
    y: Vec<f64>,
    z: Vec<f64>,
    r: Vec<f64>,
    m: Vec<f64>,
}

impl Bars {
    fn new(n: usize) -> Self {
        let zeros = || vec![0.0; n];
        Bars { x: Vec::new(), y: Vec::new(), z: zeros(), r: zeros(), m: zeros() }
    }
}

/// Adds to the gradient of a number that neurons share or have each.
fn add_shared(parameters: &mut Parameters<f64>, tensor: Tensor, j: usize, value: f64) {
    let sums = parameters.get_mut(0, tensor);
    let at = if sums.len() == 1 { 0 } else { j };
    sums[at] += value;
}
