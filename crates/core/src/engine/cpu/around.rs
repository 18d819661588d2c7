//! What stands around the core of an episode, O(N) a step: bias and input layer, leaks, m as data,
//! read-out and its loss, cotangents. A network without them has none of these rows.

use crate::engine::cpu::buffer::{Aligned, Buffers};
use crate::engine::cpu::panels::{Rows, padded};
use crate::engine::cpu::simd::Lanes;
use crate::engine::cpu::task::{Task, put_lane, take_lane};
use crate::model::{Adjoint, Leak, Network, Rule, Shape, Tensor};

/// Rows `[N, lanes]` of every step; empty where a network has no use for them.
pub(crate) struct Around<S: Lanes> {
    leak: Option<Leak>,
    /// Whether z gains a bias or an input layer, and whether the episodes bring m.
    driven: bool,
    modulated: bool,
    /// What z gains of them.
    extra: Rows<S>,
    /// m as data, and dL/dm.
    given_m: Rows<S>,
    pub(crate) d_m: Rows<S>,
    /// k of every neuron.
    k: Aligned<S>,
    /// act(z) of a rate leak.
    a: Rows<S>,
    /// v of a membrane leak, a row more than steps.
    pub(crate) v: Rows<S>,
    /// dL by y(t-1) of a rate leak, or by v(t-1), beside what the connections hand back.
    carried: Aligned<S>,
    /// dL/dy of every step beside the loss on y.
    pub(crate) dy: Rows<S>,
    /// The read-out, and dL/dout.
    pub(crate) out: Rows<S>,
    dout: Rows<S>,
    /// `[O, N]`: the read-out's weights, and their gradient of an episode.
    out_w: Aligned<S>,
    d_out_w: Aligned<S>,
    /// Of one episode: y, delta or dL/dy, and dL/dout.
    one: Aligned<S>,
    one_out: Aligned<S>,
    pub(crate) d_observed: Rows<S>,
    n: usize,
    n_steps: usize,
    gradients: bool,
}

impl<S: Lanes> Around<S> {
    pub(crate) fn new(
        buffers: &mut Buffers,
        network: &Network,
        shape: &Shape,
        lanes: usize,
        gradients: bool,
    ) -> Self {
        let stages = &network.stages;
        let (t, n) = (shape.n_steps, network.n_post * lanes);
        let on = |yes: bool, rows: usize| if yes { rows } else { 0 };
        let leak = stages.leak.map(|(leak, _)| leak);
        let driven = stages.bias.is_some() || stages.input.is_some();
        let size = |layer: Option<crate::model::Linear>| layer.map_or(0, |layer| layer.size);
        let (observed, outputs) = (size(stages.input) * lanes, size(stages.output) * lanes);
        let rate = leak == Some(Leak::Rate);
        let dy = gradients && (rate || stages.cotangents || outputs > 0);
        // episodes may bring m for any rule that reads it
        let m = on(network.reads_m(), t);
        Around {
            leak,
            driven,
            modulated: false,
            extra: Rows::new(buffers, on(driven, t), n),
            given_m: Rows::new(buffers, m, n),
            d_m: Rows::new(buffers, on(gradients, m), n),
            k: buffers.zeros(on(leak.is_some(), padded(n))),
            a: Rows::new(buffers, on(rate, t), n),
            v: Rows::new(buffers, on(leak == Some(Leak::Membrane), t + 1), n),
            carried: buffers.zeros(on(leak.is_some(), padded(n))),
            dy: Rows::new(buffers, on(dy, t), n),
            out: Rows::new(buffers, on(outputs > 0, t), outputs),
            dout: Rows::new(buffers, on(outputs > 0 && gradients, t), outputs),
            out_w: buffers.zeros(size(stages.output) * network.n_post),
            d_out_w: buffers.zeros(on(gradients, size(stages.output) * network.n_post)),
            one: buffers.zeros(network.n_post),
            one_out: buffers.zeros(size(stages.output)),
            d_observed: Rows::new(buffers, on(observed > 0 && gradients, t), observed),
            n,
            n_steps: t,
            gradients,
        }
    }

    /// Starts an episode: what does not depend on y.
    #[inline(always)]
    pub(crate) fn start(&mut self, task: &Task<'_, S>, lanes: usize) {
        let (network, signals) = (task.network, &task.episodes.signals);
        let n = network.n_post;
        self.modulated = signals.m.is_some();
        if let Some(layer) = network.stages.output {
            let w = task.parameters.get(task.p(), Tensor::OutW);
            for (o, row) in self.out_w.chunks_exact_mut(n).enumerate() {
                let column = w.iter().skip(o).step_by(layer.size);
                row.iter_mut().zip(column).for_each(|(out, &w)| *out = w);
            }
        }
        if self.leak.is_none() && !self.modulated && !self.driven {
            return;
        }
        let spread = |tensor, out: &mut [S]| {
            let values = task.parameters.get(task.p(), tensor);
            for (j, out) in out.chunks_exact_mut(lanes).take(n).enumerate() {
                out.fill(if values.len() == 1 { values[0] } else { values[j] });
            }
        };
        if self.leak.is_some() {
            spread(Tensor::Leak, &mut self.k);
        }
        if !self.v.is_empty() {
            self.v.row_mut(0).fill(S::ZERO);
        }
        for lane in 0..task.n {
            let e = task.index + lane;
            if let (Some(v0), false) = (&signals.v0, self.v.is_empty()) {
                put_lane(self.v.row_mut(0), lanes, lane, &v0[e * n..][..n]);
            }
            if let Some(m) = &signals.m {
                let total = network.n_networks * task.episodes.shape.n_batch * self.n_steps;
                let width = m.len() / total;
                for t in 0..self.n_steps {
                    let given = &m[(e * self.n_steps + t) * width..][..width];
                    let row = self.given_m.row_mut(t).chunks_exact_mut(lanes).take(n);
                    row.enumerate().for_each(|(j, row)| row[lane] = given[j.min(width - 1)]);
                }
            }
        }
        if self.driven {
            self.start_drive(task, lanes, spread);
        }
    }

    #[inline(always)]
    fn start_drive(&mut self, task: &Task<'_, S>, lanes: usize, spread: impl Fn(Tensor, &mut [S])) {
        let network = task.network;
        let n = network.n_post;
        let get = |tensor| task.parameters.get(task.p(), tensor);
        for t in 0..self.n_steps {
            let row = self.extra.row_mut(t);
            if network.stages.bias.is_some() {
                spread(Tensor::Bias, row);
            } else {
                row.fill(S::ZERO);
            }
            let Some(layer) = network.stages.input else { continue };
            let observed = task.episodes.signals.observed.as_deref().unwrap_or_default();
            for lane in 0..task.n {
                let at = ((task.index + lane) * self.n_steps + t) * layer.size;
                let one = &mut self.one[..];
                match get(Tensor::InB) {
                    [] => one.fill(S::ZERO),
                    b => one.copy_from_slice(b),
                }
                let w = get(Tensor::InW).chunks_exact(n);
                for (&value, w) in observed[at..][..layer.size].iter().zip(w) {
                    add_scaled(one, value, w);
                }
                for (row, &gain) in row.chunks_exact_mut(lanes).zip(&*one) {
                    row[lane] += gain;
                }
            }
        }
    }

    pub(crate) fn leaks(&self, leak: Leak) -> bool {
        self.leak == Some(leak)
    }

    /// What z gains.
    #[inline(always)]
    pub(crate) fn drive(&self, t: usize, z: &mut [S]) {
        if self.driven {
            z.iter_mut().zip(self.extra.row(t)).for_each(|(z, &extra)| *z += extra);
        }
    }

    /// m as data at a step; nothing where the episodes bring none.
    #[inline(always)]
    pub(crate) fn m(&self, t: usize, n: usize) -> &[S] {
        if self.modulated { &self.given_m.row(t)[..n] } else { &[] }
    }

    /// What the activation is applied to: z, or v of a membrane that takes z, from row `before` on.
    #[inline(always)]
    pub(crate) fn integrate<'a>(&'a mut self, t: usize, before: usize, z: &'a [S]) -> &'a [S] {
        if self.v.is_empty() {
            return z;
        }
        let (v, before) = self.v.pair(t + 1, before);
        for (((v, &before), &k), &z) in v.iter_mut().zip(before).zip(&*self.k).zip(z) {
            *v = (S::ONE - k) * before + k * z;
        }
        self.v.row(t + 1)
    }

    /// What the activation was applied to.
    #[inline(always)]
    pub(crate) fn argument<'a>(&'a self, t: usize, z: &'a [S]) -> &'a [S] {
        if self.v.is_empty() { z } else { self.v.row(t + 1) }
    }

    /// y of a rate leak, from act(z) in `y`.
    #[inline(always)]
    pub(crate) fn blend(&mut self, t: usize, y: &mut [S], before: &[S]) {
        if self.a.is_empty() {
            return;
        }
        self.a.row_mut(t).copy_from_slice(y);
        for ((y, &before), &k) in y.iter_mut().zip(before).zip(&*self.k) {
            *y = (S::ONE - k) * before + k * *y;
        }
    }

    /// The read-out of every step and its loss, not averaged; dL/dy and dL/dout of what is asked
    /// beside the loss on y.
    #[inline(always)]
    pub(crate) fn read_out(
        &mut self,
        task: &Task<'_, S>,
        lanes: usize,
        y: &Rows<S>,
        share: f64,
    ) -> f64 {
        let (network, signals) = (task.network, &task.episodes.signals);
        let (n, size) = (network.n_post, network.stages.output.map_or(0, |layer| layer.size));
        let mut loss = 0.0;
        if size == 0 && signals.dy.is_none() {
            return loss;
        }
        let b = task.parameters.get(task.p(), Tensor::OutB);
        for (t, lane) in (0..self.n_steps).flat_map(|t| (0..task.n).map(move |lane| (t, lane))) {
            let at = (task.index + lane) * self.n_steps + t;
            if self.gradients
                && let Some(dy) = &signals.dy
            {
                put_lane(self.dy.row_mut(t), lanes, lane, &dy[at * n..][..n]);
            }
            if size == 0 {
                continue;
            }
            let (one, out) = (&mut self.one[..], &mut self.one_out[..]);
            take_lane(y.row(t + 1), lanes, lane, one);
            for (o, (out, w)) in out.iter_mut().zip(self.out_w.chunks_exact(n)).enumerate() {
                *out = dot(one, w) + b.get(o).copied().unwrap_or_default();
            }
            put_lane(self.out.row_mut(t), lanes, lane, out);
            let scored = network.stages.output_loss.zip(signals.output_targets.as_ref());
            if let Some((how, pair)) = scored {
                let wide = |list: &[S]| list.iter().map(|v| v.to_f64()).collect::<Vec<f64>>();
                let [target, weight] = pair.each_ref().map(|list| wide(&list[at * size..][..size]));
                let (term, seed) = how.of(&wide(out), &target, &weight);
                loss += term;
                out.iter_mut().zip(seed).for_each(|(d, seed)| *d = S::from_f64(share * seed));
            } else {
                out.fill(S::ZERO);
            }
            if !self.gradients {
                continue;
            }
            // dL/dout from here on
            if let Some(given) = &signals.dout {
                let given = &given[at * size..][..size];
                out.iter_mut().zip(given).for_each(|(d, &given)| *d += given);
            }
            put_lane(self.dout.row_mut(t), lanes, lane, out);
            one.fill(S::ZERO);
            for (&d, w) in out.iter().zip(self.out_w.chunks_exact(n)) {
                add_scaled(one, d, w);
            }
            for (dy, &d) in self.dy.row_mut(t).chunks_exact_mut(lanes).zip(&*one) {
                dy[lane] += d;
            }
        }
        loss
    }

    /// Before the loss of an episode.
    pub(crate) fn clear(&mut self) {
        self.dy.fill(S::ZERO);
    }

    pub(crate) fn turn_back(&mut self) {
        self.carried.fill(S::ZERO);
    }

    #[inline(always)]
    pub(crate) fn add_dy(&self, t: usize, y_bar: &mut [S]) {
        if !self.dy.is_empty() {
            y_bar.iter_mut().zip(self.dy.row(t)).for_each(|(bar, &dy)| *bar += dy);
        }
    }

    /// The share of m that the episodes bring.
    #[inline(always)]
    pub(crate) fn m_back(
        &mut self,
        rule: Rule,
        t: usize,
        y: &[S],
        collected: &Adjoint<'_, S>,
        y_bar: &mut [S],
    ) {
        if self.modulated {
            let (n, d_m) = (self.n, self.d_m.row_mut(t));
            rule.given_adjoint(y, &self.given_m.row(t)[..n], collected, y_bar, &mut d_m[..n]);
        }
    }

    /// From dL/dy to dL/d act(z) of a rate leak.
    #[inline(always)]
    pub(crate) fn blend_back(
        &mut self,
        task: &Task<'_, S>,
        t: usize,
        (before, lanes): (&[S], usize),
        y_bar: &mut [S],
        gradients: &mut [S],
    ) {
        if self.a.is_empty() {
            return;
        }
        let moved = self.a.row(t).iter().zip(before).map(|(&a, &before)| a - before);
        add_k(task, lanes, y_bar.iter().zip(moved).map(|(&bar, moved)| bar * moved), gradients);
        for ((bar, carried), &k) in y_bar.iter_mut().zip(&mut *self.carried).zip(&*self.k) {
            *carried = (S::ONE - k) * *bar;
            *bar = k * *bar;
        }
    }

    /// From dL/dv to dL/dz of a membrane leak, in `delta`; v before the step is row `before`.
    #[inline(always)]
    pub(crate) fn integrate_back(
        &mut self,
        task: &Task<'_, S>,
        before: usize,
        (z, delta, lanes): (&[S], &mut [S], usize),
        gradients: &mut [S],
    ) {
        if self.v.is_empty() {
            return;
        }
        for (delta, &carried) in delta.iter_mut().zip(&*self.carried) {
            *delta += carried;
        }
        let moved = z.iter().zip(self.v.row(before)).map(|(&z, &before)| z - before);
        add_k(task, lanes, delta.iter().zip(moved).map(|(&bar, moved)| bar * moved), gradients);
        for ((delta, carried), &k) in delta.iter_mut().zip(&mut *self.carried).zip(&*self.k) {
            *carried = (S::ONE - k) * *delta;
            *delta = k * *delta;
        }
    }

    /// What y(t-1) gets of a rate leak.
    #[inline(always)]
    pub(crate) fn hand_back(&self, y_bar: &mut [S]) {
        if !self.a.is_empty() {
            y_bar.iter_mut().zip(&*self.carried).for_each(|(bar, &carried)| *bar += carried);
        }
    }

    /// dL/dv(0), after the backward pass, `[N, lanes]`.
    pub(crate) fn v0_bar(&self) -> &[S] {
        &self.carried
    }

    /// After the backward pass: gradients of bias, input layer and read-out, and of the observations.
    #[inline(always)]
    pub(crate) fn finish(
        &mut self,
        task: &Task<'_, S>,
        lanes: usize,
        y: &Rows<S>,
        delta: &Rows<S>,
        gradients: &mut [S],
    ) {
        let stages = &task.network.stages;
        let n = task.network.n_post;
        let layout = task.parameters.layout();
        let place = |tensor| {
            let entry = layout.find(tensor);
            entry.map_or(0..0, |e| e.offset - layout.at_rule()..e.offset - layout.at_rule() + e.len)
        };
        let one = &mut self.one[..];
        self.d_out_w.fill(S::ZERO);
        for (t, lane) in (0..self.n_steps).flat_map(|t| (0..task.n).map(move |lane| (t, lane))) {
            let at = (task.index + lane) * self.n_steps + t;
            if self.driven {
                take_lane(delta.row(t), lanes, lane, one);
                let bias = &mut gradients[place(Tensor::Bias)];
                match bias {
                    [sum] => *sum += one.iter().fold(S::ZERO, |sum, &d| sum + d),
                    each => each.iter_mut().zip(&*one).for_each(|(sum, &d)| *sum += d),
                }
                let b = &mut gradients[place(Tensor::InB)];
                b.iter_mut().zip(&*one).for_each(|(sum, &d)| *sum += d);
            }
            if let Some(layer) = stages.input {
                let observed = task.episodes.signals.observed.as_deref().unwrap_or_default();
                let observed = &observed[at * layer.size..][..layer.size];
                let w = task.parameters.get(task.p(), Tensor::InW).chunks_exact(n);
                let d_w = gradients[place(Tensor::InW)].chunks_exact_mut(n);
                let d_row = self.d_observed.row_mut(t);
                for (k, ((&value, w), d_w)) in observed.iter().zip(w).zip(d_w).enumerate() {
                    add_scaled(d_w, value, one);
                    d_row[k * lanes + lane] = dot(w, one);
                }
            }
            if stages.output.is_some() {
                take_lane(y.row(t + 1), lanes, lane, one);
                take_lane(self.dout.row(t), lanes, lane, &mut self.one_out);
                let b = &mut gradients[place(Tensor::OutB)];
                b.iter_mut().zip(&*self.one_out).for_each(|(sum, &d)| *sum += d);
                for (d_w, &d) in self.d_out_w.chunks_exact_mut(n).zip(&*self.one_out) {
                    add_scaled(d_w, d, one);
                }
            }
        }
        if let Some(layer) = stages.output {
            let d_w = &mut gradients[place(Tensor::OutW)];
            for (o, row) in self.d_out_w.chunks_exact(n).enumerate() {
                let column = d_w.iter_mut().skip(o).step_by(layer.size);
                column.zip(row).for_each(|(sum, &d)| *sum += d);
            }
        }
    }
}

/// `out += scale row`.
#[inline(always)]
fn add_scaled<S: Lanes>(out: &mut [S], scale: S, row: &[S]) {
    for (out, &value) in out.iter_mut().zip(row) {
        *out += scale * value;
    }
}

/// Sums that are added up side by side.
const SUMS: usize = 16;

/// `sum_j a_j b_j`.
#[inline(always)]
fn dot<S: Lanes>(a: &[S], b: &[S]) -> S {
    let mut sums = [S::ZERO; SUMS];
    let ((a, rest_a), (b, rest_b)) = (a.as_chunks::<SUMS>(), b.as_chunks::<SUMS>());
    for (a, b) in a.iter().zip(b) {
        for k in 0..SUMS {
            sums[k] += a[k] * b[k];
        }
    }
    let rest = rest_a.iter().zip(rest_b).fold(S::ZERO, |sum, (&a, &b)| sum + a * b);
    sums.iter().fold(rest, |sum, &value| sum + value)
}

/// Adds to the gradient of k, of every neuron and lane.
#[inline(always)]
fn add_k<S: Lanes>(
    task: &Task<'_, S>,
    lanes: usize,
    terms: impl Iterator<Item = S>,
    gradients: &mut [S],
) {
    let layout = task.parameters.layout();
    let Some(entry) = layout.find(Tensor::Leak) else { return };
    let sums = &mut gradients[entry.offset - layout.at_rule()..][..entry.len];
    let n = task.network.n_post;
    for (at, term) in terms.take(n * lanes).enumerate() {
        sums[if sums.len() == 1 { 0 } else { at / lanes }] += term;
    }
}
