//! Any case file as training data.

use crate::case::Case;
use crate::model::{Episodes, Network, Parameters, Shape};
use crate::random::Purpose;
use crate::task::Task;

/// The episodes, network and initial parameters of a case file. Episodes are taken in
/// the file's order, from the start again after the last.
#[derive(Clone, Debug)]
pub struct Custom {
    case: Case<f32>,
}

impl Custom {
    /// The task of a case.
    #[must_use]
    pub fn new(case: Case<f32>) -> Self {
        Custom { case }
    }

    /// Episodes per network in the file.
    #[must_use]
    pub fn n_batch(&self) -> usize {
        self.case.episodes.shape.n_batch
    }
}

impl Task for Custom {
    fn name(&self) -> &'static str {
        "custom"
    }

    fn error_name(&self) -> &'static str {
        "loss"
    }

    fn error_text(&self, error: f64) -> String {
        format!("{error:.5}")
    }

    fn network(&self) -> Network {
        self.case.network.clone()
    }

    fn initial(&self, _seed: u64) -> Parameters<f32> {
        self.case.parameters.clone()
    }

    fn shape(&self, n_batch: usize) -> Shape {
        Shape { n_batch, ..self.case.episodes.shape }
    }

    fn episodes(&self, _seed: u64, _purpose: Purpose, first: u32, n_batch: usize) -> Episodes<f32> {
        let all = &self.case.episodes;
        let n_all = all.shape.n_batch;
        let p = self.case.network.n_networks;
        if n_batch == n_all && (first as usize).is_multiple_of(n_all) {
            return all.clone();
        }
        let chosen: Vec<usize> = (0..p)
            .flat_map(|p| (0..n_batch).map(move |b| p * n_all + (first as usize + b) % n_all))
            .collect();
        let numbers = |values: &Vec<f32>| pick(values, &chosen, p * n_all);
        let rows = |values: &Vec<u32>| pick(values, &chosen, p * n_all);
        Episodes {
            shape: self.shape(n_batch),
            stimuli: numbers(&all.stimuli),
            clamps: all.clamps.as_ref().map(numbers),
            shown: rows(&all.shown),
            targets: numbers(&all.targets),
            loss_weights: numbers(&all.loss_weights),
            scored: rows(&all.scored),
            pre: all.pre.as_ref().map(numbers),
            y0: all.y0.as_ref().map(numbers),
            h0: all.h0.as_ref().map(numbers),
            e0: all.e0.as_ref().map(numbers),
        }
    }

    fn errors(&self, _episodes: &Episodes<f32>, _y_last: &[f32]) -> Option<Vec<f64>> {
        None
    }

    fn own_episodes(&self) -> Option<usize> {
        Some(self.n_batch())
    }
}

/// The chosen ones of `n` equal parts of `values`.
fn pick<T: Copy>(values: &[T], chosen: &[usize], n: usize) -> Vec<T> {
    let len = values.len() / n;
    chosen.iter().flat_map(|&k| &values[k * len..(k + 1) * len]).copied().collect()
}
