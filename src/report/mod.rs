//! Pictures and pages from what a run recorded. Every page is one file that asks for
//! nothing else.

mod capacity;
mod chart;
mod curve;
mod inspect;
mod page;
mod picture;
mod rules;
mod run;
mod study;
mod style;

pub use capacity::capacity_curve;
pub(crate) use curve::quantile;
pub use curve::{Measure, curve, learning_curve};
pub use inspect::inspect_report;
pub use picture::{labelled, montage, png};
pub use rules::rules_picture;
pub use run::{RunReport, run_report};
pub use study::{StudyReport, study_report};
pub(crate) use style::style;
