//! What is trained: network specification, parameters, rules, episodes. Plain
//! data and O(N) mathematics; no device, no files.

pub(crate) mod activation;
mod episodes;
pub(crate) mod loss;
mod network;
mod optimiser;
mod parameters;
mod rule;
mod scalar;

pub use activation::Activation;
pub use episodes::{Episodes, NO_ROW, Shape};
pub use loss::Loss;
pub use network::{AlphaSharing, EtaSharing, Network};
pub use optimiser::{Optimiser, Schedule, StepSize};
pub use parameters::{Entry, Layout, Parameters, Tensor};
pub use rule::{Adjoint, Coefficients, Rule};
pub use scalar::Scalar;
