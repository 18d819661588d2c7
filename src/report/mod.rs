//! Pictures from what a run recorded.

mod curve;

pub use curve::learning_curve;
