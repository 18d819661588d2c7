//! Any rule on the CPU, and episodes with resets, truncation or a cotangent of H: a rule's equations as
//! sums of products (`equations`), those of the neurons computed once a step, those of the connections
//! in sweeps over rows (`rows`). The traces of every step, or of every step of a window, are kept, and
//! lambda = dL/dH' is what the backward pass takes from step to step; the equations stand at
//! [`reference`](crate::engine::reference).

mod batch;
mod code;
mod equations;
mod rows;

pub(crate) use batch::Batch;
pub(crate) use equations::Equations;

use std::ops::Range;

use pulp::WithSimd;

use crate::engine::cpu::Slots;
use crate::engine::cpu::buffer::{Aligned, Buffers};
use crate::engine::cpu::neurons::Neurons;
use crate::engine::cpu::panels::{Rows, padded};
use crate::engine::cpu::simd::{Instructions, Lanes};
use crate::engine::cpu::task::Task;
use crate::model::{AlphaSharing, Layout, Network, Parameters, Shape, Tensor};
use crate::rule::{MOST_PARAMETERS, MOST_VARIABLES, Name, Per};

use code::{Code, Given, Value};
use equations::{Factors, POST_GIVEN, PRE_GIVEN};
use rows::{BLOCK, Connect, Forward, Grid, Learn, Vectors, Weigh};

/// Traces of all steps of an episode up to which all are kept: with more those of a window are, about
/// sqrt(T) steps, and computed once more in the backward pass. `hebbian bench --rule bcm --neurons 100
/// --steps 100 --batch 64` takes 1.2 times as long with windows (medians of three runs: 113 ms for 96).
const KEPT: usize = 8 << 20;

/// Steps whose gradients of w and alpha are added up together: with more, their traces fall out of the
/// caches. `hebbian bench --rule bcm --neurons 100 --steps 100 --batch 64` takes 92 ms with 4, 96 with
/// 8, 74 with 16 (medians of three runs).
const WEIGHED: usize = 16;

/// Steps between traces that are kept throughout.
pub(crate) fn window<S: Lanes>(network: &Network, shape: &Shape) -> usize {
    let trace = network.n_pre * padded(network.n_post) * size_of::<S>();
    let all = trace * network.n_traces() * shape.n_steps;
    if all <= KEPT { shape.n_steps } else { shape.n_steps.isqrt().max(1) }
}

/// What connections have, `[M, stride]` each: w and alpha of a network times its mask, alpha of every
/// connection.
pub(crate) struct Weights<S: Lanes> {
    w: Aligned<S>,
    alpha: Aligned<S>,
    /// Parameters of the rule that connections have each, one after another.
    parameters: Aligned<S>,
}

impl<S: Lanes> Weights<S> {
    pub(crate) fn new(buffers: &mut Buffers, network: &Network, equations: &Equations) -> Self {
        let len = network.n_pre * padded(network.n_post);
        Weights {
            w: buffers.zeros(len),
            alpha: buffers.zeros(len),
            parameters: buffers.zeros(equations.of_connections.len() * len),
        }
    }

    /// Fills them from network `p`.
    pub(crate) fn pack(
        &mut self,
        network: &Network,
        equations: &Equations,
        parameters: &Parameters<S>,
        p: usize,
    ) {
        let n = network.n_post;
        let matrix = network.n_pre * padded(n);
        for (k, &parameter) in equations.of_connections.iter().enumerate() {
            let values = parameters.get(p, equations.tensors[parameter].0).chunks_exact(n);
            let rows = self.parameters[k * matrix..][..matrix].chunks_exact_mut(padded(n));
            rows.zip(values).for_each(|(row, values)| row[..n].copy_from_slice(values));
        }
        let (row, column) = network.alpha.strides(n);
        let (w, alpha) = (parameters.get(p, Tensor::W), parameters.get(p, Tensor::Alpha));
        let mask = parameters.mask.get(p * network.n_connections()..).unwrap_or_default();
        for i in 0..network.n_pre {
            for j in 0..n {
                let (c, to) = (i * n + j, i * padded(n) + j);
                let mask = mask.get(c).copied().unwrap_or(S::ONE);
                self.w[to] = mask * w[c];
                self.alpha[to] = mask * alpha[i * row + j * column];
            }
        }
    }
}

/// What a part of a batch adds up: the loss, and gradients in the layout of a network's parameters; of w
/// and alpha of every connection, `[M, stride]`, beside it.
pub(crate) struct Sums<S: Lanes> {
    pub(crate) loss: f64,
    pub(crate) flat: Aligned<S>,
    d_w: Aligned<S>,
    d_alpha: Aligned<S>,
}

impl<S: Lanes> Sums<S> {
    pub(crate) fn new(
        buffers: &mut Buffers,
        network: &Network,
        layout: &Layout,
        gradients: bool,
    ) -> Self {
        let on = |len: usize| if gradients { len } else { 0 };
        let matrix = on(network.n_pre * padded(network.n_post));
        Sums {
            loss: 0.0,
            flat: buffers.zeros(on(layout.len())),
            d_w: buffers.zeros(matrix),
            d_alpha: buffers.zeros(matrix),
        }
    }

    pub(crate) fn start(&mut self) {
        self.loss = 0.0;
        for list in [&mut self.flat, &mut self.d_w, &mut self.d_alpha] {
            list.fill(S::ZERO);
        }
    }

    /// Brings w and alpha to their places in the flat gradients.
    pub(crate) fn end(&mut self, network: &Network, layout: &Layout, mask: &[S]) {
        if self.flat.is_empty() {
            return;
        }
        let n = network.n_post;
        let at = |tensor| layout.find(tensor).expect("every network has it").offset;
        let (at_w, at_alpha) = (at(Tensor::W), at(Tensor::Alpha));
        let (row, column) = network.alpha.strides(n);
        let mut total = 0.0;
        for i in 0..network.n_pre {
            for j in 0..n {
                let (c, from) = (i * n + j, i * padded(n) + j);
                let mask = mask.get(c).copied().unwrap_or(S::ONE);
                self.flat[at_w + c] = mask * self.d_w[from];
                let d_alpha = mask * self.d_alpha[from];
                if network.alpha == AlphaSharing::PerNetwork {
                    total += d_alpha.to_f64();
                } else {
                    self.flat[at_alpha + i * row + j * column] += d_alpha;
                }
            }
        }
        if network.alpha == AlphaSharing::PerNetwork {
            self.flat[at_alpha] = S::from_f64(total);
        }
    }
}

/// What a batch asks of an episode.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a, S: Lanes> {
    pub(crate) equations: &'a Equations,
    pub(crate) weights: &'a Weights<S>,
    /// 1/B.
    pub(crate) share: f64,
    pub(crate) gradients: bool,
}

/// dL by what goes from step to step beside y and v, and by what each step's rule reads.
struct Bars<S: Lanes> {
    /// `[traces, M, stride]`, and of the variables `[variables, stride]`.
    lambda: Aligned<S>,
    post: Vec<Aligned<S>>,
    pre: Vec<Aligned<S>>,
    /// Those of the variables before a step, while it is taken.
    post_before: Vec<Aligned<S>>,
    pre_before: Vec<Aligned<S>>,
    /// Those of the start values, to which every life adds.
    start_traces: Aligned<S>,
    start_post: Vec<Aligned<S>>,
    start_pre: Vec<Aligned<S>>,
    start_y: Aligned<S>,
    start_v: Aligned<S>,
    x: Aligned<S>,
    z: Aligned<S>,
    r: Aligned<S>,
    m: Aligned<S>,
    /// Sums of the streams.
    columns: Aligned<S>,
    rows: Aligned<S>,
    d_parameters: Aligned<S>,
}

/// Buffers of an episode.
pub(crate) struct Workspace<S: Lanes> {
    arch: Instructions<S>,
    n_steps: usize,
    /// Steps of a window; traces before step t are in slot [`Workspace::slot`].
    window: usize,
    gradients: bool,
    neurons: Neurons<S>,
    traces: Vec<Aligned<S>>,
    r: Rows<S>,
    m: Rows<S>,
    /// tanh(mod.w y + mod.b) of every step.
    signal: Vec<S>,
    /// Before every step, and after the last: `[T + 1, variables]` rows.
    post: Rows<S>,
    pre: Rows<S>,
    /// Parameters of the rule that neurons or the network have, a row each.
    of_post: Rows<S>,
    of_pre: Rows<S>,
    /// Factors of the neurons at a step, `[factors, stride]` and `[M, factors]`, and room for a row.
    factors_post: Aligned<S>,
    factors_pre: Aligned<S>,
    column: Aligned<S>,
    plastic: Aligned<S>,
    registers: Aligned<S>,
    room: Aligned<S>,
    d_m: Aligned<S>,
    bars: Bars<S>,
}

/// Where the pre-synaptic activity of a step lies.
fn x_of<'a, S: Lanes>(neurons: &'a Neurons<S>, task: &Task<'_, S>, t: usize) -> &'a [S] {
    if task.network.recurrent { neurons.y.row(task.before(t)) } else { neurons.x(t) }
}

impl<S: Lanes> Workspace<S> {
    pub(crate) fn new(
        buffers: &mut Buffers,
        network: &Network,
        shape: &Shape,
        equations: &Equations,
        gradients: bool,
    ) -> Self {
        let (t, m, n) = (shape.n_steps, network.n_pre, network.n_post);
        let (stride, stride_pre) = (padded(n), padded(m));
        let n_traces = equations.n_traces;
        let matrix = n_traces * m * stride;
        let window = if gradients { window::<S>(network, shape) } else { t };
        let n_slots = if gradients { t.div_ceil(window) + window } else { 2 };
        let on = |len: usize| if gradients { len } else { 0 };
        let (n_post, n_pre) = (equations.post_start.len(), equations.pre_start.len());
        let n_parameters = equations.tensors.len();
        let passes = [&equations.forward, &equations.backward];
        let most = |of: fn(&Factors) -> usize| passes.map(of).into_iter().max().unwrap_or(0);
        let registers = [
            most(|f| f.connection.n_registers()) * BLOCK.min(stride),
            most(|f| f.post.n_registers()) * stride,
            most(|f| f.pre.n_registers()) * stride_pre,
        ];
        let states = |buffers: &mut Buffers, count: usize, len: usize| {
            (0..on(count)).map(|_| buffers.zeros(len)).collect::<Vec<_>>()
        };
        Workspace {
            arch: Instructions::widest(),
            n_steps: t,
            window,
            gradients,
            neurons: Neurons::new(buffers, network, shape, 1, gradients),
            traces: (0..n_slots).map(|_| buffers.zeros(matrix)).collect(),
            r: Rows::new(buffers, if equations.reads_r { t } else { 0 }, n),
            m: Rows::new(buffers, if equations.reads_m { t } else { 0 }, n),
            signal: vec![S::ZERO; t],
            post: Rows::new(buffers, (t + 1) * n_post, n),
            pre: Rows::new(buffers, (t + 1) * n_pre, m),
            of_post: Rows::new(buffers, n_parameters, n),
            of_pre: Rows::new(buffers, n_parameters, m),
            factors_post: buffers.zeros(most(|f| f.n_post) * stride),
            factors_pre: buffers.zeros(most(|f| f.n_pre) * m),
            column: buffers.zeros(stride.max(stride_pre)),
            plastic: buffers.zeros(stride),
            registers: buffers.zeros(registers.into_iter().max().unwrap_or(0)),
            room: buffers.zeros(on((1 + n_traces) * BLOCK)),
            d_m: buffers.zeros(if equations.reads_m { on(t * n) } else { 0 }),
            bars: Bars {
                lambda: buffers.zeros(on(matrix)),
                post: states(buffers, n_post, stride),
                pre: states(buffers, n_pre, stride_pre),
                post_before: states(buffers, n_post, stride),
                pre_before: states(buffers, n_pre, stride_pre),
                start_traces: buffers.zeros(on(matrix)),
                start_post: states(buffers, n_post, stride),
                start_pre: states(buffers, n_pre, stride_pre),
                start_y: buffers.zeros(on(stride)),
                start_v: buffers.zeros(on(stride)),
                x: buffers.zeros(on(stride_pre)),
                z: buffers.zeros(on(stride)),
                r: buffers.zeros(if equations.reads_r { on(stride) } else { 0 }),
                m: buffers.zeros(on(stride)),
                columns: buffers.zeros(on(equations.n_columns * stride)),
                rows: buffers.zeros(on(equations.n_rows * m)),
                d_parameters: buffers.zeros(on(equations.of_connections.len() * m * stride)),
            },
        }
    }

    /// Where the traces before step t are.
    fn slot(&self, t: usize) -> usize {
        if !self.gradients {
            return t % 2;
        }
        let starts = self.n_steps.div_ceil(self.window) + 1;
        match t % self.window {
            0 => t / self.window,
            k => starts + k - 1,
        }
    }

    /// Runs an episode, adds to the sums and leaves in `slot` what is wanted of it.
    pub(crate) fn run(
        &mut self,
        task: &Task<'_, S>,
        job: Job<'_, S>,
        sums: &mut Sums<S>,
        mut slot: Slots<'_, S>,
    ) {
        self.start(task, job);
        let wanted = !slot.traces[0].is_empty();
        self.forward(task, job, wanted);
        if wanted {
            self.give_traces(task, job.equations, &mut slot);
        }
        sums.loss += self.arch.run(Score { neurons: &mut self.neurons, task, share: job.share });
        if job.gradients {
            self.backward(task, job, sums);
        }
        self.give(task, slot);
    }

    fn start(&mut self, task: &Task<'_, S>, job: Job<'_, S>) {
        let parameters = task.parameters;
        self.neurons.start(task, job.gradients);
        for (k, &(tensor, per)) in job.equations.tensors.iter().enumerate() {
            let values = parameters.get(task.p(), tensor);
            let fill = |row: &mut [S]| match values {
                [one] => row.fill(*one),
                each => row[..each.len()].copy_from_slice(each),
            };
            if matches!(per, Per::Network | Per::Neuron) {
                fill(self.of_post.row_mut(k));
            }
            if matches!(per, Per::Network | Per::Pre) {
                fill(self.of_pre.row_mut(k));
            }
        }
    }

    /// Start values: traces into `slot`, variables before step t.
    fn set_start(&mut self, task: &Task<'_, S>, equations: &Equations, t: usize) {
        let (m, n) = (task.network.n_pre, task.network.n_post);
        let stride = padded(n);
        let slot = self.slot(t);
        let given = |k: usize, len: usize| {
            let list = task.episodes.signals.rule0.get(k).and_then(Option::as_ref);
            list.map(|list| task.part_of(list, len))
        };
        for k in 0..equations.n_traces {
            let start = match (k, &task.network.stages.rule) {
                (0, _) => task.episodes.h0.as_ref().map(|list| task.part_of(list, m * n)),
                (_, None) => task.episodes.e0.as_ref().map(|list| task.part_of(list, m * n)),
                (k, Some(_)) => given(k - 1, m * n),
            };
            let trace = &mut self.traces[slot][k * m * stride..][..m * stride];
            let Some(start) = start else {
                trace.fill(S::ZERO);
                continue;
            };
            for (row, start) in trace.chunks_exact_mut(stride).zip(start.chunks_exact(n)) {
                row[..n].copy_from_slice(start);
            }
        }
        let n_others = equations.n_traces - 1;
        let (n_post, n_pre) = (equations.post_start.len(), equations.pre_start.len());
        for (k, &start) in equations.post_start.iter().enumerate() {
            let row = &mut self.post.row_mut(t * n_post + k)[..n];
            match given(n_others + k, n) {
                Some(start) => row.copy_from_slice(start),
                None => row.fill(S::from_f64(start)),
            }
        }
        for (k, &start) in equations.pre_start.iter().enumerate() {
            let row = &mut self.pre.row_mut(t * n_pre + k)[..m];
            match given(n_others + n_post + k, m) {
                Some(start) => row.copy_from_slice(start),
                None => row.fill(S::from_f64(start)),
            }
        }
    }

    fn forward(&mut self, task: &Task<'_, S>, job: Job<'_, S>, traces_wanted: bool) {
        let equations = job.equations;
        self.set_start(task, equations, 0);
        self.sweep(task, job, None, Some(0));
        for t in 0..self.n_steps {
            let next = (t + 1 < self.n_steps).then_some(t + 1);
            self.arch.run(Activate { neurons: &mut self.neurons, task, t });
            if equations.reads_m {
                self.modulate(task, t);
            }
            if next.is_some_and(|next| task.resets(next)) {
                self.set_start(task, equations, t + 1);
                self.sweep(task, job, None, next);
            } else if next.is_some() || traces_wanted {
                self.learn_neurons(task, equations, t);
                self.sweep(task, job, Some(t), next);
            }
        }
    }

    /// m of a step.
    fn modulate(&mut self, task: &Task<'_, S>, t: usize) {
        let n = task.network.n_post;
        let given = self.neurons.around().m(t, n);
        let m = &mut self.m.row_mut(t)[..n];
        if given.is_empty() {
            m.fill(S::ZERO);
        } else {
            m.copy_from_slice(given);
        }
        if !task.network.has_modulator() {
            return;
        }
        let get = |tensor| task.parameters.get(task.p(), tensor);
        let y = &self.neurons.y.row(t + 1)[..n];
        let read = get(Tensor::ModW).iter().zip(y).fold(S::ZERO, |sum, (&w, &y)| sum + w * y);
        let signal = (read + get(Tensor::ModB)[0]).tanh();
        let fan_out = get(Tensor::FanoutW).iter().zip(get(Tensor::FanoutB));
        m.iter_mut().zip(fan_out).for_each(|(m, (&w, &b))| *m += w * signal + b);
        self.signal[t] = signal;
    }

    /// Computes the factors of the neurons at a step.
    fn compute(&mut self, task: &Task<'_, S>, equations: &Equations, factors: &Factors, t: usize) {
        let (m, n) = (task.network.n_pre, task.network.n_post);
        let (n_post, n_pre) = (equations.post_start.len(), equations.pre_start.len());
        let n_parameters = equations.tensors.len();
        let mut given: [&[S]; MOST_GIVEN] = [&[]; MOST_GIVEN];
        given[0] = self.neurons.y.row(t + 1);
        given[1] = self.neurons.z(t);
        for (given, rows) in given[2..4].iter_mut().zip([&self.r, &self.m]) {
            if !rows.is_empty() {
                *given = rows.row(t);
            }
        }
        for k in 0..n_post {
            given[POST_GIVEN + k] = self.post.row(t * n_post + k);
        }
        for k in 0..n_parameters {
            given[POST_GIVEN + n_post + k] = self.of_post.row(k);
        }
        let arch = self.arch;
        let registers = &mut self.registers[..];
        Evaluate {
            arch,
            code: &factors.post,
            rows: &given,
            len: padded(n),
            n,
            registers: &mut *registers,
            out: &mut self.factors_post,
            place: (padded(n), 1),
            count: factors.n_post,
        }
        .run();
        given[0] = x_of(&self.neurons, task, t);
        for k in 0..n_pre {
            given[PRE_GIVEN + k] = self.pre.row(t * n_pre + k);
        }
        for k in 0..n_parameters {
            given[PRE_GIVEN + n_pre + k] = self.of_pre.row(k);
        }
        Evaluate {
            arch,
            code: &factors.pre,
            rows: &given,
            len: padded(m),
            n: m,
            registers,
            out: &mut self.factors_pre,
            place: (1, factors.n_pre),
            count: factors.n_pre,
        }
        .run();
    }

    /// Factors and variables of a step forward.
    fn learn_neurons(&mut self, task: &Task<'_, S>, equations: &Equations, t: usize) {
        let (m, n) = (task.network.n_pre, task.network.n_post);
        self.compute(task, equations, &equations.forward, t);
        for (k, &from) in equations.post.iter().enumerate() {
            let row = &mut self.post.row_mut((t + 1) * equations.post.len() + k)[..n];
            row.copy_from_slice(&self.factors_post[from * padded(n)..][..n]);
        }
        let n_factors = equations.forward.n_pre;
        for (k, &from) in equations.pre.iter().enumerate() {
            let row = &mut self.pre.row_mut((t + 1) * equations.pre.len() + k)[..m];
            let values = self.factors_pre[from..].iter().step_by(n_factors);
            row.iter_mut().zip(values).for_each(|(out, &value)| *out = value);
        }
    }

    /// Takes the traces over step `step`, if there is one, and multiplies for step `next`.
    fn sweep(
        &mut self,
        task: &Task<'_, S>,
        job: Job<'_, S>,
        step: Option<usize>,
        next: Option<usize>,
    ) {
        let to = self.slot(step.map_or_else(|| next.expect("one of them"), |t| t + 1));
        let from = step.map(|t| self.slot(t));
        let grid = grid(self.arch, task, job);
        let (before, after) = match from {
            Some(from) => {
                let [from, to] =
                    self.traces.get_disjoint_mut([from, to]).expect("slots of steps are two");
                (Some(&from[..]), &mut to[..])
            }
            None => (None, &mut self.traces[to][..]),
        };
        let vectors = Vectors {
            post: &self.factors_post,
            pre: &self.factors_pre,
            n_pre: job.equations.forward.n_pre,
        };
        let r = match next {
            Some(t) if !self.r.is_empty() => self.r.row_mut(t),
            _ => &mut [],
        };
        self.arch.run(Forward {
            grid,
            step: before.map(|before| (before, vectors)),
            after,
            next: next.map(|t| (x_of(&self.neurons, task, t), &mut self.plastic[..], r)),
            registers: &mut self.registers,
        });
        if next.is_some() {
            self.neurons.plastic.copy_from_slice(&self.plastic);
        }
    }

    fn backward(&mut self, task: &Task<'_, S>, job: Job<'_, S>, sums: &mut Sums<S>) {
        let equations = job.equations;
        let (m, n) = (task.network.n_pre, task.network.n_post);
        let stride = padded(n);
        self.neurons.turn_back();
        let bars = &mut self.bars;
        bars.lambda.fill(S::ZERO);
        bars.start_traces.fill(S::ZERO);
        bars.start_y.fill(S::ZERO);
        bars.start_v.fill(S::ZERO);
        bars.d_parameters.fill(S::ZERO);
        for list in bars.post.iter_mut().chain(&mut bars.pre) {
            list.fill(S::ZERO);
        }
        for list in bars.start_post.iter_mut().chain(&mut bars.start_pre) {
            list.fill(S::ZERO);
        }
        if let Some(dh) = &task.episodes.signals.dh {
            let rows = bars.lambda.chunks_exact_mut(stride).zip(task.part_of(dh, m * n).chunks(n));
            rows.for_each(|(row, dh)| row[..n].copy_from_slice(dh));
        }
        for t in (0..self.n_steps).rev() {
            let first = t / self.window * self.window;
            let end = (first + self.window).min(self.n_steps);
            if t + 1 == end && end < self.n_steps {
                self.recompute(task, job, first..end);
            }
            self.step_back(task, job, sums, t);
            if (t - first).is_multiple_of(WEIGHED) {
                self.weigh(task, job, sums, t..end.min(t + WEIGHED));
            }
            if t == 0 || task.resets(t) {
                self.give_to_start();
            } else if task.cuts(t) {
                self.clear_carried();
            }
        }
        let at_rule = task.parameters.layout().at_rule();
        self.neurons.finish(task, &mut sums.flat[at_rule..]);
        for (k, &parameter) in equations.of_connections.iter().enumerate() {
            let (tensor, _) = equations.tensors[parameter];
            let at = task.parameters.layout().find(tensor).expect("of this network").offset;
            let rows = self.bars.d_parameters[k * m * stride..].chunks_exact(stride);
            for (sums, row) in sums.flat[at..][..m * n].chunks_exact_mut(n).zip(rows) {
                sums.iter_mut().zip(row).for_each(|(sum, &d)| *sum += d);
            }
        }
    }

    /// The traces of a window's steps once more, from those before the first.
    fn recompute(&mut self, task: &Task<'_, S>, job: Job<'_, S>, steps: Range<usize>) {
        for t in steps.start..steps.end - 1 {
            if task.resets(t + 1) {
                self.set_start(task, job.equations, t + 1);
            } else {
                self.compute(task, job.equations, &job.equations.forward, t);
                self.sweep(task, job, Some(t), None);
            }
        }
    }

    fn step_back(&mut self, task: &Task<'_, S>, job: Job<'_, S>, sums: &mut Sums<S>, t: usize) {
        let equations = job.equations;
        let (m, n) = (task.network.n_pre, task.network.n_post);
        let stride = padded(n);
        let slot = self.slot(t);
        self.neurons.begin_back(t);
        self.compute(task, equations, &equations.backward, t);
        let grid = grid(self.arch, task, job);
        {
            let bars = &mut self.bars;
            self.arch.run(Learn {
                grid,
                traces: &self.traces[slot],
                vectors: Vectors {
                    post: &self.factors_post,
                    pre: &self.factors_pre,
                    n_pre: equations.backward.n_pre,
                },
                lambda: &mut bars.lambda,
                columns: &mut bars.columns,
                rows: &mut bars.rows,
                d_parameters: &mut bars.d_parameters,
                registers: &mut self.registers,
                room: &mut self.room,
            });
        }
        self.learn_neurons_back(task, equations, sums);
        if equations.reads_m {
            self.modulate_back(task, sums, t);
        }
        let at_rule = task.parameters.layout().at_rule();
        let z_bar = &self.bars.z[..n];
        self.arch.run(Through {
            neurons: &mut self.neurons,
            task,
            t,
            z_bar,
            gradients: &mut sums.flat[at_rule..],
        });
        let bars = &mut self.bars;
        self.arch.run(Connect {
            grid,
            traces: &self.traces[slot],
            x: &x_of(&self.neurons, task, t)[..m],
            delta: self.neurons.delta.row(t),
            r_bar: &bars.r,
            x_bar: &mut bars.x[..m],
            lambda: &mut bars.lambda[..m * stride],
        });
        self.neurons.d_x.row_mut(t)[..m].copy_from_slice(&self.bars.x[..m]);
        self.neurons.hand_back(t);
    }

    /// The gradients of w and alpha of some steps of a window.
    fn weigh(&self, task: &Task<'_, S>, job: Job<'_, S>, sums: &mut Sums<S>, steps: Range<usize>) {
        let none: [&[S]; 3] = [&[]; 3];
        let mut rows = [none; WEIGHED];
        for (row, t) in rows.iter_mut().zip(steps.clone()) {
            let x = x_of(&self.neurons, task, t);
            *row = [&self.traces[self.slot(t)], x, self.neurons.delta.row(t)];
        }
        self.arch.run(Weigh {
            grid: grid(self.arch, task, job),
            steps: &rows[..steps.len()],
            d_w: &mut sums.d_w,
            d_alpha: &mut sums.d_alpha,
        });
    }

    /// What names get of the sums of the streams, and through the equations of the variables.
    fn learn_neurons_back(
        &mut self,
        task: &Task<'_, S>,
        equations: &Equations,
        sums: &mut Sums<S>,
    ) {
        let (m, n) = (task.network.n_pre, task.network.n_post);
        let stride = padded(n);
        let (factors, factors_pre) = (&self.factors_post, &self.factors_pre);
        let n_pre = equations.backward.n_pre;
        let bars = &mut self.bars;
        for list in [&mut bars.x, &mut bars.z, &mut bars.r, &mut bars.m] {
            list.fill(S::ZERO);
        }
        let layout = task.parameters.layout();
        let of_parameter = |k: usize| {
            let (tensor, per) = equations.tensors[k];
            (layout.find(tensor).expect("of this network").offset, per)
        };
        let (post, pre) = (&mut bars.post_before, &mut bars.pre_before);
        post.iter_mut().chain(pre.iter_mut()).for_each(|state| state.fill(S::ZERO));
        let y_bar = self.neurons.y_bar_mut();
        {
            let mut give = |name: Name, values: &[S]| {
                let out: &mut [S] = match name {
                    Name::Y => &mut y_bar[..],
                    Name::Z => &mut bars.z[..n],
                    Name::R => &mut bars.r[..n],
                    Name::M => &mut bars.m[..n],
                    Name::X => &mut bars.x[..m],
                    Name::Post(k) => &mut post[k][..n],
                    Name::Pre(k) => &mut pre[k][..m],
                    Name::Parameter(k) => {
                        let (at, per) = of_parameter(k);
                        match per {
                            Per::Network => {
                                let sum = values.iter().fold(S::ZERO, |sum, &value| sum + value);
                                sums.flat[at] += sum;
                                return;
                            }
                            Per::Pre => &mut sums.flat[at..at + m],
                            _ => &mut sums.flat[at..at + n],
                        }
                    }
                    Name::Trace(_) => unreachable!("traces are no neuron's"),
                };
                out.iter_mut().zip(values).for_each(|(out, &value)| *out += value);
            };
            let column = &mut self.column;
            for share in &equations.of_columns {
                let sum = &bars.columns[share.sum * stride..][..n];
                let Some(k) = share.factor else {
                    give(share.name, sum);
                    continue;
                };
                let values = sum.iter().zip(&factors[k * stride..]);
                column.iter_mut().zip(values).for_each(|(out, (&sum, &f))| *out = sum * f);
                give(share.name, &column[..n]);
            }
            for share in &equations.of_rows {
                let sums = bars.rows[share.sum..].iter().step_by(equations.n_rows);
                column.iter_mut().zip(sums).for_each(|(out, &sum)| *out = sum);
                if let Some(k) = share.factor {
                    let factor = factors_pre[k..].iter().step_by(n_pre);
                    column.iter_mut().zip(factor).for_each(|(out, &f)| *out = *out * f);
                }
                give(share.name, &column[..m]);
            }
            for (bar, slopes) in bars.post.iter().zip(&equations.post_slopes) {
                for &(name, k) in slopes {
                    let values = bar.iter().zip(&factors[k * stride..][..n]);
                    column.iter_mut().zip(values).for_each(|(out, (&bar, &f))| *out = bar * f);
                    give(name, &column[..n]);
                }
            }
            for (bar, slopes) in bars.pre.iter().zip(&equations.pre_slopes) {
                for &(name, k) in slopes {
                    let values = bar.iter().zip(factors_pre[k..].iter().step_by(n_pre));
                    column.iter_mut().zip(values).for_each(|(out, (&bar, &f))| *out = bar * f);
                    give(name, &column[..m]);
                }
            }
        }
        std::mem::swap(&mut bars.post, &mut bars.post_before);
        std::mem::swap(&mut bars.pre, &mut bars.pre_before);
    }

    /// m: what was given, the fan-out and the read-out, which sees y.
    fn modulate_back(&mut self, task: &Task<'_, S>, sums: &mut Sums<S>, t: usize) {
        let n = task.network.n_post;
        let m_bar = &self.bars.m[..n];
        self.d_m[t * n..][..n].copy_from_slice(m_bar);
        if !task.network.has_modulator() {
            return;
        }
        let layout = task.parameters.layout();
        let at = |tensor| layout.find(tensor).expect("of this network").offset;
        let get = |tensor| task.parameters.get(task.p(), tensor);
        let signal = self.signal[t];
        let mut signal_bar = S::ZERO;
        for (j, (&m_bar, &w)) in m_bar.iter().zip(get(Tensor::FanoutW)).enumerate() {
            sums.flat[at(Tensor::FanoutW) + j] += m_bar * signal;
            sums.flat[at(Tensor::FanoutB) + j] += m_bar;
            signal_bar += m_bar * w;
        }
        let bar = signal_bar * (S::ONE - signal * signal);
        sums.flat[at(Tensor::ModB)] += bar;
        for (j, &w) in get(Tensor::ModW).iter().enumerate() {
            sums.flat[at(Tensor::ModW) + j] += bar * self.neurons.y.row(t + 1)[j];
            self.neurons.y_bar_mut()[j] += bar * w;
        }
    }

    /// What was carried to here belongs to the start values.
    fn give_to_start(&mut self) {
        let bars = &mut self.bars;
        let add = |to: &mut [S], from: &[S]| {
            to.iter_mut().zip(from).for_each(|(to, &from)| *to += from);
        };
        add(&mut bars.start_traces, &bars.lambda);
        add(&mut bars.start_y, self.neurons.y0_bar());
        add(&mut bars.start_v, self.neurons.around().v0_bar());
        let states = bars.start_post.iter_mut().chain(&mut bars.start_pre);
        states.zip(bars.post.iter().chain(&bars.pre)).for_each(|(to, from)| add(to, from));
        self.clear_carried();
    }

    fn clear_carried(&mut self) {
        self.neurons.turn_back();
        self.bars.lambda.fill(S::ZERO);
        let states = self.bars.post.iter_mut().chain(&mut self.bars.pre);
        states.for_each(|state| state.fill(S::ZERO));
    }

    /// Traces and variables after the last step.
    fn give_traces(&self, task: &Task<'_, S>, equations: &Equations, slot: &mut Slots<'_, S>) {
        let (m, n) = (task.network.n_pre, task.network.n_post);
        let t = self.n_steps;
        let last = &self.traces[self.slot(t)];
        let trace = |k: usize, out: &mut [S]| unpad(&last[k * m * padded(n)..], n, out);
        let own = task.network.stages.rule.is_some();
        let [h, e] = &mut slot.traces;
        trace(0, h);
        if equations.n_traces > 1 && !own {
            trace(1, e);
        }
        let n_others = equations.n_traces - 1;
        for (k, out) in slot.rule.iter_mut().enumerate() {
            let (n_post, n_pre) = (equations.post.len(), equations.pre.len());
            match k {
                _ if k < n_others => trace(k + 1, out),
                _ if k < n_others + n_post => {
                    out.copy_from_slice(&self.post.row(t * n_post + k - n_others)[..n]);
                }
                _ => {
                    let row = t * n_pre + k - n_others - n_post;
                    out.copy_from_slice(&self.pre.row(row)[..m]);
                }
            }
        }
    }

    /// All else that is wanted.
    fn give(&self, task: &Task<'_, S>, slot: Slots<'_, S>) {
        let (m, n) = (task.network.n_pre, task.network.n_post);
        let around = self.neurons.around();
        let copy = |row: &[S], out: &mut [S]| out.copy_from_slice(&row[..out.len()]);
        let each = |rows: &Rows<S>, first: usize, out: &mut [S]| {
            let width = (out.len() / self.n_steps).max(1);
            for (t, out) in out.chunks_exact_mut(width).enumerate() {
                copy(rows.row(first + t), out);
            }
        };
        copy(self.neurons.y.row(self.n_steps), slot.y_last);
        each(&self.neurons.y, 1, slot.y);
        each(&self.neurons.d_input, 0, slot.input);
        each(&self.neurons.d_x, 0, slot.pre);
        if !slot.around.v.is_empty() {
            copy(around.v.row(self.n_steps), slot.around.v);
        }
        each(&around.out, 0, slot.around.out);
        each(&around.d_observed, 0, slot.around.observed);
        copy(&self.d_m, slot.around.m);
        let bars = &self.bars;
        copy(&bars.start_y, slot.y0);
        copy(&bars.start_v, slot.around.v0);
        let trace = |k: usize, out: &mut [S]| {
            if !out.is_empty() {
                unpad(&bars.start_traces[k * m * padded(n)..], n, out);
            }
        };
        let [h0, e0] = slot.traces0;
        trace(0, h0);
        trace(1, e0);
        let n_others = task.network.n_traces() - 1;
        for (k, out) in slot.rule0.into_iter().enumerate() {
            if k < n_others {
                trace(k + 1, out);
            } else if !out.is_empty() {
                let mut states = bars.start_post.iter().chain(&bars.start_pre);
                copy(states.nth(k - n_others).expect("a state each"), out);
            }
        }
    }
}

/// Rows that are given to the code of neurons at the most.
const MOST_GIVEN: usize = POST_GIVEN + MOST_VARIABLES + MOST_PARAMETERS;

/// `[M, N]` of rows of `padded(n)`.
fn unpad<S: Lanes>(padded_rows: &[S], n: usize, out: &mut [S]) {
    for (out, row) in out.chunks_exact_mut(n).zip(padded_rows.chunks_exact(padded(n))) {
        out.copy_from_slice(&row[..n]);
    }
}

fn grid<'a, S: Lanes>(arch: Instructions<S>, task: &Task<'_, S>, job: Job<'a, S>) -> Grid<'a, S> {
    Grid {
        arch,
        equations: job.equations,
        n_pre: task.network.n_pre,
        n_post: task.network.n_post,
        stride: padded(task.network.n_post),
        w: &job.weights.w,
        alpha: &job.weights.alpha,
        parameters: &job.weights.parameters,
    }
}

/// [`Neurons::activate`].
struct Activate<'a, S: Lanes> {
    neurons: &'a mut Neurons<S>,
    task: &'a Task<'a, S>,
    t: usize,
}

impl<S: Lanes> WithSimd for Activate<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: pulp::Simd>(self, _: A) {
        self.neurons.activate(self.task, self.t);
    }
}

/// [`Neurons::loss`].
struct Score<'a, S: Lanes> {
    neurons: &'a mut Neurons<S>,
    task: &'a Task<'a, S>,
    share: f64,
}

impl<S: Lanes> WithSimd for Score<'_, S> {
    type Output = f64;
    #[inline(always)]
    fn with_simd<A: pulp::Simd>(self, _: A) -> f64 {
        self.neurons.loss(self.task, self.share)
    }
}

/// [`Neurons::through`].
struct Through<'a, S: Lanes> {
    neurons: &'a mut Neurons<S>,
    task: &'a Task<'a, S>,
    t: usize,
    z_bar: &'a [S],
    gradients: &'a mut [S],
}

impl<S: Lanes> WithSimd for Through<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: pulp::Simd>(self, _: A) {
        self.neurons.through(self.task, self.t, self.z_bar, self.gradients);
    }
}

/// Code of neurons.
struct Evaluate<'a, S: Lanes> {
    arch: Instructions<S>,
    code: &'a Code,
    rows: &'a [&'a [S]],
    /// Neurons of a row, and with its padding.
    n: usize,
    len: usize,
    registers: &'a mut [S],
    out: &'a mut [S],
    /// Value j of output k goes to k times the first plus j times the second.
    place: (usize, usize),
    count: usize,
}

impl<S: Lanes> Evaluate<'_, S> {
    fn run(self) {
        let Evaluate { arch, code, rows, n, len, registers, out, place, count } = self;
        let given = Given { ones: &[], rows, posts: &[], stride: 0, first: 0, len };
        rows::run(arch, code, given, registers);
        for k in 0..count {
            // what a rule makes of nothing may be no number: the padding stays zero
            let out = out[k * place.0..].iter_mut().step_by(place.1).take(n);
            match code.output(k, given, registers) {
                Value::One(value) => out.for_each(|out| *out = value),
                Value::Row(row) => out.zip(row).for_each(|(out, &value)| *out = value),
            }
        }
    }
}
