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
mod stages;

pub use activation::Activation;
pub use episodes::{Episodes, NO_ROW, Shape, Signals};
pub use loss::Loss;
pub use network::{AlphaSharing, Network, Sharing};
pub use optimiser::{Optimiser, Schedule, StepSize};
pub use parameters::{Entry, Layout, Parameters, Tensor};
pub use rule::{Adjoint, Coefficients, Rule};
pub use scalar::Scalar;
pub use stages::{Embedding, Leak, Linear, OutputLoss, RuleText, Stages};
