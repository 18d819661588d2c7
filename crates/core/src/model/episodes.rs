//! A batch of episodes: tables of stimuli and targets, and which step shows which.

use crate::error::{Error, Result};
use crate::model::Network;
use crate::model::network::MOST;

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
        let one = (rows * network.n_post + pre) * size + 8 * self.n_steps;
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
}

impl<S> Episodes<S> {
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
        if self.pre.is_some() == network.recurrent {
            let (found, wanted) = if network.recurrent {
                ("a recurrent network", "no pre-synaptic activity")
            } else {
                ("a feed-forward network", "pre-synaptic activity")
            };
            return Err(Error::tensor("pre", found, wanted));
        }
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

impl Episodes<f32> {
    /// The same in f64, exactly.
    #[must_use]
    pub fn widened(&self) -> Episodes<f64> {
        let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let optional = |values: &Option<Vec<f32>>| values.as_deref().map(wide);
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
        }
    }
}
