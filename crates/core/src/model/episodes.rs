//! A batch of episodes: tables of stimuli and targets, and which step shows which.

use std::fmt;

use crate::error::{Error, Result};
use crate::model::network::MOST;
use crate::model::{Network, Scalar};

/// A schedule entry that names no row: the step has no target.
pub const NO_ROW: u32 = u32::MAX;

/// The sizes of a batch; buffers are made for one shape and reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// B, episodes per network.
    pub n_batch: usize,
    /// T, steps.
    pub n_steps: usize,
    /// Rows of one episode's stimulus table.
    pub n_stimuli: usize,
    /// Rows of one episode's target table.
    pub n_targets: usize,
    /// Whether stimuli can clamp.
    pub clamped: bool,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { n_batch, n_steps, n_stimuli, n_targets, clamped } = self;
        let clamped = if *clamped { "with" } else { "without" };
        write!(
            f,
            "{n_batch} episodes of {n_steps} steps, {n_stimuli} stimuli and {n_targets} targets, \
             {clamped} clamps"
        )
    }
}

impl Shape {
    /// Checks that no size is zero and that their products can be addressed.
    ///
    /// # Errors
    /// [`Error::Value`] naming the size.
    pub fn validate(&self, network: &Network) -> Result<()> {
        let rows = self.n_steps.max(self.n_stimuli).max(self.n_targets);
        for (key, size) in [
            ("batch", self.n_batch),
            ("steps", self.n_steps),
            ("stimuli", self.n_stimuli),
            ("targets", self.n_targets),
        ] {
            if size == 0 {
                return Err(Error::value(key, "0", "at least 1"));
            }
        }
        let product = [self.n_batch, rows, network.n_pre.max(network.n_post)]
            .iter()
            .try_fold(network.n_networks, |product, &n| product.checked_mul(n))
            .filter(|&n| n <= MOST);
        if product.is_none() {
            let found = format!("{} episodes of {rows} steps", self.n_batch);
            return Err(Error::value("batch", found, "at most 2^40 numbers in all"));
        }
        Ok(())
    }

    /// Bytes of [`Episodes`] of this shape that start from zero, `size` bytes a number.
    #[must_use]
    pub fn host_bytes(&self, network: &Network, size: usize) -> u64 {
        let planes = if self.clamped { 2 } else { 1 };
        let rows = planes * self.n_stimuli + 2 * self.n_targets;
        let pre = if network.recurrent { 0 } else { self.n_steps * network.n_pre };
        let images = network.stages.embedding.map_or(0, |one| one.side * one.side);
        let linear = |layer: Option<crate::model::Linear>| layer.map_or(0, |layer| layer.size);
        // targets and weights of the read-out, or its cotangents
        let around = linear(network.stages.input) + 2 * linear(network.stages.output);
        let signals = self.n_steps * (images + around);
        let one = (rows * network.n_post + pre + signals) * size + 8 * self.n_steps;
        (network.n_networks * self.n_batch) as u64 * one as u64
    }
}

/// A batch: B episodes for each of P networks. Steps share rows of small tables,
/// so a memorisation episode of 106 steps holds seven stimuli, not 106.
/// Arrays are row-major with the axes given; N is [`Network::n_post`], M
/// [`Network::n_pre`].
#[derive(Clone, Debug, PartialEq)]
pub struct Episodes<S> {
    /// The sizes.
    pub shape: Shape,
    /// Stimulus table `[P, B, n_stimuli, N]`: the external drive u.
    pub stimuli: Vec<S>,
    /// `[P, B, n_stimuli, N]`, 0 or 1: where 1, y is set to the stimulus.
    pub clamps: Option<Vec<S>>,
    /// `[P, B, T]`: the stimulus row that each step shows.
    pub shown: Vec<u32>,
    /// Target table `[P, B, n_targets, N]`.
    pub targets: Vec<S>,
    /// `[P, B, n_targets, N]`: weight of each target in the loss; 0 does not count.
    pub loss_weights: Vec<S>,
    /// `[P, B, T]`: the target row of each step, or [`NO_ROW`].
    pub scored: Vec<u32>,
    /// Pre-synaptic activity `[P, B, T, M]` of a feed-forward layer.
    pub pre: Option<Vec<S>>,
    /// y(0), `[P, B, N]`; zero where absent.
    pub y0: Option<Vec<S>>,
    /// H before the first step, `[P, B, M, N]`; zero where absent.
    pub h0: Option<Vec<S>>,
    /// E before the first step, `[P, B, M, N]`; zero where absent.
    pub e0: Option<Vec<S>>,
    /// What few batches bring.
    pub signals: Signals<S>,
}

/// What a batch brings for a network's [`Stages`](crate::model::Stages), and what it asks beside a
/// loss; nothing by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signals<S> {
    /// Modulation or reward `[P, B, T]` or `[P, B, T, N]`, added to m.
    pub m: Option<Vec<S>>,
    /// Observations `[P, B, T, K]` of the input layer.
    pub observed: Option<Vec<S>>,
    /// Images `[P, B, T, side, side]` of the embedding.
    pub images: Option<Vec<S>>,
    /// `[P, B, T]`, 0 or 1: where 1, the network starts anew before the step.
    pub reset: Option<Vec<S>>,
    /// v(0) `[P, B, N]` of a membrane that leaks; zero where absent.
    pub v0: Option<Vec<S>>,
    /// Start values of a rule's traces beyond H `[P, B, M, N]`, then of its post variables
    /// `[P, B, N]` and pre variables `[P, B, M]`; where absent those of its text.
    pub rule0: Vec<Option<Vec<S>>>,
    /// Targets of the read-out `[P, B, T, O]`, and their weights.
    pub output_targets: Option<[Vec<S>; 2]>,
    /// dL/dy `[P, B, T, N]`, where cotangents are given.
    pub dy: Option<Vec<S>>,
    /// dL/dH after the last step `[P, B, M, N]`, where cotangents are given.
    pub dh: Option<Vec<S>>,
    /// dL/dout `[P, B, T, O]`, where cotangents are given.
    pub dout: Option<Vec<S>>,
    /// No gradient passes from step K to step K + 1, from 2 K to 2 K + 1, ... .
    pub truncate: Option<usize>,
}

impl<S> Signals<S> {
    /// The lists that are there, in the order in which [`Signals::map`] changes them.
    pub(crate) fn each(&self) -> impl Iterator<Item = &Vec<S>> {
        let first = [&self.m, &self.observed, &self.images, &self.reset, &self.v0];
        let first = first.into_iter().flatten();
        first
            .chain(self.rule0.iter().flatten())
            .chain(self.output_targets.iter().flatten())
            .chain([&self.dy, &self.dh, &self.dout].into_iter().flatten())
    }

    /// The signals with every list changed.
    #[must_use]
    pub fn map<T>(&self, change: impl Fn(&Vec<S>) -> Vec<T>) -> Signals<T> {
        let one = |list: &Option<Vec<S>>| list.as_ref().map(&change);
        Signals {
            m: one(&self.m),
            observed: one(&self.observed),
            images: one(&self.images),
            reset: one(&self.reset),
            v0: one(&self.v0),
            rule0: self.rule0.iter().map(one).collect(),
            output_targets: self.output_targets.as_ref().map(|pair| pair.each_ref().map(&change)),
            dy: one(&self.dy),
            dh: one(&self.dh),
            dout: one(&self.dout),
            truncate: self.truncate,
        }
    }
}

impl<S> Episodes<S> {
    /// Whether they bring values of what networks hold before the first step.
    #[must_use]
    pub fn has_start(&self) -> bool {
        let held = [&self.y0, &self.h0, &self.e0, &self.signals.v0];
        held.into_iter().chain(&self.signals.rule0).any(Option::is_some)
    }

    /// Checks every array against the network and the shape.
    ///
    /// # Errors
    /// [`Error::Tensor`] naming the array, or [`Error::Value`] naming a size of zero.
    pub fn validate(&self, network: &Network) -> Result<()> {
        let s = &self.shape;
        s.validate(network)?;
        let (m, n) = (network.n_pre, network.n_post);
        let episodes = network.n_networks * s.n_batch;
        let check = |name: &str, len: usize, wanted: usize| {
            if len == wanted {
                Ok(())
            } else {
                Err(Error::tensor(name, format!("{len} elements"), format!("{wanted}")))
            }
        };
        check("stimuli", self.stimuli.len(), episodes * s.n_stimuli * n)?;
        check("shown", self.shown.len(), episodes * s.n_steps)?;
        check("targets", self.targets.len(), episodes * s.n_targets * n)?;
        check("loss_weights", self.loss_weights.len(), episodes * s.n_targets * n)?;
        check("scored", self.scored.len(), episodes * s.n_steps)?;
        if s.clamped != self.clamps.is_some() {
            return Err(Error::tensor("clamps", "a shape that says otherwise", "agreement"));
        }
        for (name, array, wanted) in [
            ("clamps", &self.clamps, episodes * s.n_stimuli * n),
            ("pre", &self.pre, episodes * s.n_steps * m),
            ("y0", &self.y0, episodes * n),
            ("h0", &self.h0, episodes * m * n),
            ("e0", &self.e0, episodes * m * n),
        ] {
            if let Some(array) = array {
                check(name, array.len(), wanted)?;
            }
        }
        let embedded = network.stages.embedding.is_some();
        if self.pre.is_some() == (network.recurrent || embedded) {
            let (found, wanted) = match () {
                () if network.recurrent => ("a recurrent network", "no pre-synaptic activity"),
                () if embedded => ("networks with an embedding", "images instead"),
                () => ("a feed-forward network", "pre-synaptic activity"),
            };
            return Err(Error::tensor("pre", found, wanted));
        }
        self.check_signals(network)?;
        let outside =
            |rows: &[u32], n: usize| rows.iter().copied().find(|&r| r != NO_ROW && r as usize >= n);
        if let Some(row) = outside(&self.shown, s.n_stimuli)
            .or_else(|| self.shown.contains(&NO_ROW).then_some(NO_ROW))
        {
            return Err(Error::tensor(
                "shown",
                format!("row {row}"),
                format!("below {}", s.n_stimuli),
            ));
        }
        if let Some(row) = outside(&self.scored, s.n_targets) {
            return Err(Error::tensor(
                "scored",
                format!("row {row}"),
                format!("below {}", s.n_targets),
            ));
        }
        Ok(())
    }
}

impl<S> Episodes<S> {
    /// Checks the signals against the network and the shape.
    fn check_signals(&self, network: &Network) -> Result<()> {
        let (s, signals, stages) = (&self.shape, &self.signals, &network.stages);
        let (m, n) = (network.n_pre, network.n_post);
        let total = network.n_networks * s.n_batch;
        let steps = total * s.n_steps;
        let size = |layer: Option<crate::model::Linear>| layer.map_or(0, |layer| layer.size);
        let (k, o) = (size(stages.input), size(stages.output));
        let pixels = stages.embedding.map_or(0, |embedding| embedding.side * embedding.side);
        let targets = signals.output_targets.as_ref();
        let mut lists = vec![
            ("m.input", &signals.m, vec![steps, steps * n], network.reads_m()),
            ("obs", &signals.observed, vec![steps * k], k > 0),
            ("images", &signals.images, vec![steps * pixels], pixels > 0),
            ("gate.reset", &signals.reset, vec![steps], true),
            ("v0", &signals.v0, vec![total * n], stages.leak.is_some()),
            ("dy", &signals.dy, vec![steps * n], stages.cotangents),
            ("dh", &signals.dh, vec![total * m * n], stages.cotangents),
            ("dout", &signals.dout, vec![steps * o], stages.cotangents && o > 0),
        ];
        if let Some(rule) = &stages.rule {
            for (list, (state, axes)) in signals.rule0.iter().zip(rule.states(m, n)) {
                let size: usize = axes.iter().product();
                lists.push((&state.name, list, vec![total * size], true));
            }
        }
        for (name, list, wanted, fits) in lists {
            let Some(list) = list else { continue };
            if !fits {
                return Err(Error::tensor(name, "a network that has no use for it", "none"));
            }
            if !wanted.contains(&list.len()) {
                let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
                let found = format!("{} elements", list.len());
                return Err(Error::tensor(name, found, wanted.join(" or ")));
            }
        }
        if let Some(list) = targets.into_iter().flatten().find(|list| list.len() != steps * o) {
            let found = format!("{} elements", list.len());
            return Err(Error::tensor("out.target", found, (steps * o).to_string()));
        }
        if network.stages.given_m && signals.m.is_none() {
            return Err(Error::tensor("m.input", "none", "m, which no read-out gives"));
        }
        if k > 0 && signals.observed.is_none() {
            return Err(Error::tensor("obs", "none", "what the input layer reads"));
        }
        if pixels > 0 && signals.images.is_none() {
            return Err(Error::tensor("images", "none", "what the embedding reads"));
        }
        if signals.truncate == Some(0) {
            return Err(Error::value("truncate", "0", "at least 1"));
        }
        Ok(())
    }
}

impl<S: Copy> Episodes<S> {
    /// The chosen episodes of each network, `[P][B]`.
    #[must_use]
    pub fn pick(&self, chosen: &[Vec<usize>]) -> Self {
        let n_all = self.shape.n_batch;
        let rows: Vec<usize> = chosen
            .iter()
            .enumerate()
            .flat_map(|(p, chosen)| chosen.iter().map(move |k| p * n_all + k))
            .collect();
        let total = chosen.len() * n_all;
        let numbers = |values: &Vec<S>| parts(values, &rows, total);
        Episodes {
            shape: Shape { n_batch: chosen[0].len(), ..self.shape },
            stimuli: numbers(&self.stimuli),
            clamps: self.clamps.as_ref().map(numbers),
            shown: parts(&self.shown, &rows, total),
            targets: numbers(&self.targets),
            loss_weights: numbers(&self.loss_weights),
            scored: parts(&self.scored, &rows, total),
            pre: self.pre.as_ref().map(numbers),
            y0: self.y0.as_ref().map(numbers),
            h0: self.h0.as_ref().map(numbers),
            e0: self.e0.as_ref().map(numbers),
            signals: self.signals.map(numbers),
        }
    }

    /// Takes over the episodes of another batch of `network`, after its own.
    ///
    /// # Errors
    /// [`Error::Value`] if they have other steps or tables, or start from other tensors.
    pub fn append(&mut self, network: &Network, other: Self) -> Result<()> {
        let shape = Shape { n_batch: self.shape.n_batch, ..other.shape };
        let given = |e: &Self| {
            let given = [&e.clamps, &e.pre, &e.y0, &e.h0, &e.e0].map(Option::is_some);
            let signals = e.signals.map(|list| vec![list.len() / e.shape.n_batch]);
            (given, signals)
        };
        if shape != self.shape || given(self) != given(&other) {
            let found = format!("{:?}", other.shape);
            return Err(Error::value("episodes", found, format!("as {:?}", self.shape)));
        }
        let p = network.n_networks;
        fn joined<T: Copy>(a: &[T], b: &[T], p: usize) -> Vec<T> {
            let parts = a.chunks(a.len() / p).zip(b.chunks(b.len() / p));
            parts.flat_map(|(a, b)| a.iter().chain(b)).copied().collect()
        }
        self.stimuli = joined(&self.stimuli, &other.stimuli, p);
        self.shown = joined(&self.shown, &other.shown, p);
        self.targets = joined(&self.targets, &other.targets, p);
        self.loss_weights = joined(&self.loss_weights, &other.loss_weights, p);
        self.scored = joined(&self.scored, &other.scored, p);
        for (own, other) in [
            (&mut self.clamps, other.clamps),
            (&mut self.pre, other.pre),
            (&mut self.y0, other.y0),
            (&mut self.h0, other.h0),
            (&mut self.e0, other.e0),
        ] {
            if let (Some(own), Some(other)) = (own, other) {
                *own = joined(own, &other, p);
            }
        }
        // both hold the lists that the other holds, in one order
        let others: Vec<&Vec<S>> = other.signals.each().collect();
        let at = std::cell::Cell::new(0);
        self.signals = self.signals.map(|own| {
            let k = at.replace(at.get() + 1);
            joined(own, others[k], p)
        });
        self.shape.n_batch += other.shape.n_batch;
        Ok(())
    }
}

impl<S: Scalar> Episodes<S> {
    /// Step `t`, from 0, of every episode: what it shows, without starts, targets and cotangents. Networks
    /// that go on from what they hold live through it.
    #[must_use]
    pub fn step(&self, network: &Network, t: usize) -> Self {
        let (s, n) = (&self.shape, network.n_post);
        let total = network.n_networks * s.n_batch;
        let rows: Vec<usize> =
            (0..total).map(|e| e * s.n_stimuli + self.shown[e * s.n_steps + t] as usize).collect();
        let shown = |table: &Vec<S>| parts(table, &rows, total * s.n_stimuli);
        let steps: Vec<usize> = (0..total).map(|e| e * s.n_steps + t).collect();
        let given = |list: &Vec<S>| parts(list, &steps, total * s.n_steps);
        Episodes {
            shape: Shape { n_steps: 1, n_stimuli: 1, n_targets: 1, ..*s },
            stimuli: shown(&self.stimuli),
            clamps: self.clamps.as_ref().map(shown),
            shown: vec![0; total],
            targets: vec![S::ZERO; total * n],
            loss_weights: vec![S::ZERO; total * n],
            scored: vec![NO_ROW; total],
            pre: self.pre.as_ref().map(given),
            y0: None,
            h0: None,
            e0: None,
            signals: Signals {
                m: self.signals.m.as_ref().map(given),
                observed: self.signals.observed.as_ref().map(given),
                images: self.signals.images.as_ref().map(given),
                ..Signals::default()
            },
        }
    }
}

/// The chosen ones of `n` equal parts of `values`.
fn parts<T: Copy>(values: &[T], chosen: &[usize], n: usize) -> Vec<T> {
    let len = values.len() / n;
    chosen.iter().flat_map(|&k| &values[k * len..(k + 1) * len]).copied().collect()
}

impl<S: Scalar> Episodes<S> {
    /// The numbers in f64, exactly.
    #[must_use]
    pub fn widened(&self) -> Episodes<f64> {
        let wide = |values: &[S]| values.iter().map(|x| x.to_f64()).collect::<Vec<f64>>();
        let optional = |values: &Option<Vec<S>>| values.as_deref().map(wide);
        Episodes {
            shape: self.shape,
            stimuli: wide(&self.stimuli),
            clamps: optional(&self.clamps),
            shown: self.shown.clone(),
            targets: wide(&self.targets),
            loss_weights: wide(&self.loss_weights),
            scored: self.scored.clone(),
            pre: optional(&self.pre),
            y0: optional(&self.y0),
            h0: optional(&self.h0),
            e0: optional(&self.e0),
            signals: self.signals.map(|values| wide(values)),
        }
    }
}
