//! How the gradient of an update is got.

use crate::engine::{Engine, Want};
use crate::error::Result;
use crate::task::Task;
use crate::train::{Batch, Config, Evolution, training_batch};

/// How the gradient of an update is got.
pub enum Method {
    /// By the backward pass.
    Backward,
    /// By evolution, forward only.
    Evolution(Box<Evolution>),
}

impl Method {
    /// Leaves the gradients of update `update` in the engine, for its next step, and returns the batch
    /// that they are of.
    ///
    /// # Errors
    /// Errors of the engine.
    pub(super) fn fill(
        &mut self,
        config: &Config,
        task: &dyn Task,
        engine: &mut dyn Engine<f32>,
        update: u64,
    ) -> Result<Batch> {
        match self {
            Method::Backward => {
                let batch = training_batch(config, task, engine, update)?;
                let program = engine.program(batch.episodes.shape, Want::UPDATE)?;
                engine.backward(&program, &batch.episodes)?;
                Ok(batch)
            }
            Method::Evolution(evolution) => evolution.fill(config, task, engine, update),
        }
    }

    /// Whether it has a backward pass.
    pub(super) fn is_backward(&self) -> bool {
        matches!(self, Method::Backward)
    }
}
