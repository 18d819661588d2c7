//! Rules.

use hebbian::model::RuleText;
use hebbian::rule::{Per, Program, TEXTS};
use pyo3::prelude::*;

use crate::errors::exception;

/// A plasticity rule: one that comes with the program, or a text of one's own.
#[pyclass(frozen, module = "hebbian_engine")]
pub(crate) struct Rule {
    program: Program,
    custom: bool,
}

#[pymethods]
impl Rule {
    /// The rule of that name.
    #[new]
    fn new(name: &str) -> PyResult<Self> {
        RuleText::find(name, None).map_err(exception)?;
        let program = Program::built_in(name).map_err(exception)?;
        Ok(Rule { program, custom: false })
    }

    /// The rule of a text.
    #[staticmethod]
    fn from_text(text: &str) -> PyResult<Self> {
        let program = Program::parse(text).map_err(exception)?;
        Ok(Rule { program, custom: true })
    }

    /// The names of the rules that come with the program.
    #[staticmethod]
    fn names() -> Vec<&'static str> {
        TEXTS.iter().map(|(name, _)| *name).collect()
    }

    /// Its name.
    #[getter]
    fn name(&self) -> &str {
        self.program.name()
    }

    /// Its text.
    #[getter]
    fn text(&self) -> &str {
        self.program.text()
    }

    /// Whether it is a text of one's own.
    #[getter]
    fn custom(&self) -> bool {
        self.custom
    }

    /// The parameters of its text: name, what each may be one number of, and where training starts it.
    #[getter]
    fn parameters(&self) -> Vec<(String, Vec<&'static str>, f64)> {
        let per = |per: &Per| match per {
            Per::Network => "network",
            Per::Neuron => "neuron",
            Per::Pre => "pre",
            Per::Connection => "connection",
        };
        let one = |p: &hebbian::rule::Parameter| {
            let name = RuleText::parameter_name(&self.program, !self.custom, &p.name);
            (name, p.per.iter().map(per).collect(), p.init)
        };
        self.program.parameters().iter().map(one).collect()
    }

    /// Whether it reads the neuromodulator m.
    #[getter]
    fn reads_m(&self) -> bool {
        self.program.reads(hebbian::rule::Name::M)
    }

    /// What it is in a case's metadata.
    #[getter]
    fn metadata(&self) -> Vec<(&'static str, &str)> {
        match self.custom {
            true => vec![("rule", "custom"), ("rule.text", self.program.text())],
            false => vec![("rule", self.program.name())],
        }
    }

    fn __repr__(&self) -> String {
        format!("Rule({:?})", self.program.name())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (String,))> {
        let class = slf.get_type();
        let rule = slf.get();
        match rule.custom {
            true => Ok((class.getattr("from_text")?, (rule.program.text().into(),))),
            false => Ok((class.into_any(), (rule.program.name().into(),))),
        }
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.custom == other.custom && self.program == other.program
    }

    fn __hash__(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        (self.custom, self.program.text()).hash(&mut hasher);
        hasher.finish()
    }
}
