//! Plasticity rules as texts of a few equations.
//!
//! A [`Program`] is such a text, read and checked. What happens to the traces of a connection (i, j) at
//! a step may depend on x_i, y_j, z_j, the traces, variables of either neuron, parameters, the
//! neuromodulator m_j and the prediction r_j = sum_i x_i H_ij. Every right-hand side reads traces and
//! variables as they are before the step; all are replaced at once. The derivatives that the adjoint
//! needs are formed from the expressions.

mod class;
mod expression;
mod lower;
mod parse;
mod show;

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use toml::Spanned;

use crate::error::{Error, Result, one_of};

pub use class::Class;
pub use expression::{Function, Graph, Name, Node, Tape};
pub use lower::{Lowered, Of, Slopes, Term};

use parse::{Fault, Parser, functions};

pub(crate) const MOST_TRACES: usize = 4;
pub(crate) const MOST_VARIABLES: usize = 8;
pub(crate) const MOST_PARAMETERS: usize = 16;

/// The texts that come with the program, by name.
pub const TEXTS: [(&str, &str); 11] = [
    ("none", include_str!("texts/none.toml")),
    ("decay", include_str!("texts/decay.toml")),
    ("oja", include_str!("texts/oja.toml")),
    ("modulated", include_str!("texts/modulated.toml")),
    ("retroactive", include_str!("texts/retroactive.toml")),
    ("covariance", include_str!("texts/covariance.toml")),
    ("bcm", include_str!("texts/bcm.toml")),
    ("pre-trace", include_str!("texts/pre-trace.toml")),
    ("abcd", include_str!("texts/abcd.toml")),
    ("delta", include_str!("texts/delta.toml")),
    ("soft-clip", include_str!("texts/soft-clip.toml")),
];

/// How many numbers a parameter is in one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// One.
    Network,
    /// One a post-synaptic neuron; one a pre-synaptic neuron where it stands in equations of such only.
    Neuron,
    /// One a pre-synaptic neuron.
    Pre,
    /// One a connection.
    Connection,
}

/// A trained parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its name in the text; `rule.NAME` in files.
    pub name: String,
    /// What it may be one number of; a tensor's shape decides where there are several.
    pub per: Vec<Per>,
    /// Where training starts it.
    pub init: f64,
}

/// A trace, or a variable of a neuron.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Its name in the text.
    pub name: String,
    /// Its value before the first step, where nothing is given.
    pub start: f64,
    /// Its value after a step, in the graph.
    next: usize,
}

/// A rule, read and checked.
#[derive(Clone, Debug)]
pub struct Program {
    name: String,
    source: String,
    text: String,
    parameters: Vec<Parameter>,
    traces: Vec<State>,
    post: Vec<State>,
    pre: Vec<State>,
    graph: Graph,
}

impl PartialEq for Program {
    /// Two are one where their texts are.
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Values of the equations and their derivatives, ready to be evaluated.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Each trace after the step.
    pub traces: Tape,
    /// Each post variable after the step.
    pub post: Tape,
    /// Each pre variable after the step.
    pub pre: Tape,
    /// The names that traces depend on, and `[trace][name]` the derivatives.
    pub trace_names: Vec<Name>,
    /// See [`Compiled::trace_names`].
    pub trace_slopes: Tape,
    /// The names that post variables depend on.
    pub post_names: Vec<Name>,
    /// `[variable][name]`.
    pub post_slopes: Tape,
    /// The names that pre variables depend on.
    pub pre_names: Vec<Name>,
    /// `[variable][name]`.
    pub pre_slopes: Tape,
}

/// The tables of a text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    parameters: BTreeMap<Spanned<String>, ParameterText>,
    #[serde(default)]
    post: BTreeMap<Spanned<String>, VariableText>,
    #[serde(default)]
    pre: BTreeMap<Spanned<String>, VariableText>,
    trace: BTreeMap<Spanned<String>, Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ParameterText {
    per: PerText,
    #[serde(default)]
    init: f64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PerText {
    One(Per),
    Several(Vec<Per>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VariableText {
    #[serde(default)]
    start: f64,
    next: Spanned<String>,
}

/// Which names an equation may read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Post,
    Pre,
    Trace,
}

impl Program {
    /// Reads a rule's text.
    ///
    /// # Errors
    /// [`Error::Value`] that names equation, line and column, and marks the place.
    pub fn parse(text: &str) -> Result<Self> {
        let file: File = toml::from_str(text).map_err(|e| {
            let at = e.span().map_or(0, |span| span.start);
            fault(text, "the text", at, e.message(), "a rule's tables")
        })?;
        let mut reader = Reader::new(text, &file)?;
        let sources = [(Side::Post, &file.post), (Side::Pre, &file.pre)];
        let mut variables = [Vec::new(), Vec::new()];
        for ((side, table), out) in sources.into_iter().zip(&mut variables) {
            for (name, variable) in table {
                if !variable.start.is_finite() {
                    let found = variable.start.to_string();
                    let at = name.span().start;
                    return Err(fault(text, name.get_ref(), at, &found, "a finite start"));
                }
                let next = reader.equation(side, name.get_ref(), &variable.next)?;
                out.push(State { name: name.get_ref().clone(), start: variable.start, next });
            }
        }
        let mut traces = Vec::new();
        // H first
        let (h, others): (Vec<_>, Vec<_>) =
            file.trace.iter().partition(|(name, _)| name.get_ref() == "H");
        for (name, next) in h.into_iter().chain(others) {
            let next = reader.equation(Side::Trace, name.get_ref(), next)?;
            traces.push(State { name: name.get_ref().clone(), start: 0.0, next });
        }
        let [post, pre] = variables;
        let parameters = reader.parameters(&file)?;
        let program = Program {
            name: file.name.clone(),
            source: file.source.clone(),
            text: text.into(),
            parameters,
            traces,
            post,
            pre,
            graph: std::mem::take(&mut reader.graph),
        };
        program.check_read(&file)?;
        reader.check_denominators(&program)?;
        Ok(program)
    }

    /// A rule that comes with the program.
    ///
    /// # Errors
    /// [`Error::Value`] with the known names.
    pub fn built_in(name: &str) -> Result<Self> {
        match TEXTS.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Self::parse(text),
            None => {
                let known = TEXTS.map(|(name, _)| name);
                Err(Error::value("rule", format!("\"{name}\""), one_of(name, &known)))
            }
        }
    }

    /// This rule with H clipped to `[-clip, clip]` after each step.
    #[must_use]
    pub fn clipped(&self, clip: f64) -> Self {
        let mut program = self.clone();
        let graph = &mut program.graph;
        let [low, high] = [-clip, clip].map(|bound| graph.number(bound));
        let h = program.traces[0].next;
        let below = graph.node(Node::Choose([h, high, h, high]));
        program.traces[0].next = graph.node(Node::Choose([low, h, below, low]));
        program.text += &format!("# clipped to {clip}\n");
        program
    }

    /// The rule's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it comes from; may be empty.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its parameters, by name.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Its traces, H first.
    #[must_use]
    pub fn traces(&self) -> &[State] {
        &self.traces
    }

    /// Variables of the post-synaptic neurons.
    #[must_use]
    pub fn post(&self) -> &[State] {
        &self.post
    }

    /// Variables of the pre-synaptic neurons.
    #[must_use]
    pub fn pre(&self) -> &[State] {
        &self.pre
    }

    /// Whether an equation reads a name.
    #[must_use]
    pub fn reads(&self, name: Name) -> bool {
        self.graph.names(&self.roots()).contains(&name)
    }

    fn roots(&self) -> Vec<usize> {
        let all = self.traces.iter().chain(&self.post).chain(&self.pre);
        all.map(|state| state.next).collect()
    }

    /// The equations and their derivatives.
    #[must_use]
    pub fn compile(&self) -> Compiled {
        let mut graph = self.graph.clone();
        let mut slopes = |states: &[State]| {
            let roots: Vec<usize> = states.iter().map(|state| state.next).collect();
            let names = graph.names(&roots);
            let mut derivatives = Vec::new();
            for &root in &roots {
                for &name in &names {
                    derivatives.push(graph.derivative(root, name, &mut HashMap::new()));
                }
            }
            (Tape::new(&graph, &roots), names, Tape::new(&graph, &derivatives))
        };
        let (traces, trace_names, trace_slopes) = slopes(&self.traces);
        let (post, post_names, post_slopes) = slopes(&self.post);
        let (pre, pre_names, pre_slopes) = slopes(&self.pre);
        Compiled {
            traces,
            post,
            pre,
            trace_names,
            trace_slopes,
            post_names,
            post_slopes,
            pre_names,
            pre_slopes,
        }
    }

    /// Refuses a state that nothing but itself reads, and a parameter that nothing reads.
    fn check_read(&self, file: &File) -> Result<()> {
        let states: Vec<(Name, &State)> = self
            .traces
            .iter()
            .enumerate()
            .map(|(k, state)| (Name::Trace(k), state))
            .chain(self.post.iter().enumerate().map(|(k, state)| (Name::Post(k), state)))
            .chain(self.pre.iter().enumerate().map(|(k, state)| (Name::Pre(k), state)))
            .collect();
        let at = |name: &str| {
            let keys = file.post.keys().chain(file.pre.keys()).chain(file.trace.keys());
            let keys = keys.chain(file.parameters.keys());
            keys.into_iter().find(|key| key.get_ref() == name).map_or(0, |key| key.span().start)
        };
        for &(name, state) in states.iter().filter(|(name, _)| *name != Name::Trace(0)) {
            let others = states.iter().filter(|(other, _)| *other != name);
            let roots: Vec<usize> = others.map(|(_, state)| state.next).collect();
            if !self.graph.names(&roots).contains(&name) {
                let wanted = "an equation of another one that reads it";
                let found = "a trace or variable that nothing but itself reads";
                return Err(fault(&self.text, &state.name, at(&state.name), found, wanted));
            }
        }
        for (k, parameter) in self.parameters.iter().enumerate() {
            if !self.reads(Name::Parameter(k)) {
                let found = "a parameter that nothing reads";
                let wanted = "an equation that reads it";
                return Err(fault(&self.text, &parameter.name, at(&parameter.name), found, wanted));
            }
        }
        Ok(())
    }
}

/// Reads the equations of a text.
struct Reader<'a> {
    text: &'a str,
    graph: Graph,
    names: Vec<(String, Name, Side)>,
    per: Vec<(String, Vec<Per>)>,
    /// Parameters by the sides on which they stand.
    stands: HashMap<usize, Vec<(Side, usize)>>,
    denominators: Vec<(String, usize, usize)>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, file: &File) -> Result<Self> {
        let mut reader = Reader {
            text,
            graph: Graph::default(),
            names: vec![
                ("x".into(), Name::X, Side::Pre),
                ("y".into(), Name::Y, Side::Post),
                ("z".into(), Name::Z, Side::Post),
                ("r".into(), Name::R, Side::Post),
                ("m".into(), Name::M, Side::Post),
            ],
            per: Vec::new(),
            stands: HashMap::new(),
            denominators: Vec::new(),
        };
        let counts = [
            ("traces", file.trace.len(), MOST_TRACES),
            ("post variables", file.post.len(), MOST_VARIABLES),
            ("pre variables", file.pre.len(), MOST_VARIABLES),
            ("parameters", file.parameters.len(), MOST_PARAMETERS),
        ];
        for (what, n, most) in counts {
            if n > most {
                let wanted = format!("at most {most}");
                return Err(fault(text, "the text", 0, &format!("{n} {what}"), &wanted));
            }
        }
        if !file.trace.keys().any(|key| key.get_ref() == "H") {
            return Err(fault(text, "trace", 0, "no equation of H", "one, which alpha multiplies"));
        }
        let mut k = 1;
        for key in file.trace.keys() {
            let number = if key.get_ref() == "H" { 0 } else { k };
            k += usize::from(number > 0);
            reader.declare(key, Name::Trace(number), Side::Trace)?;
        }
        for (k, key) in file.post.keys().enumerate() {
            reader.declare(key, Name::Post(k), Side::Post)?;
        }
        for (k, key) in file.pre.keys().enumerate() {
            reader.declare(key, Name::Pre(k), Side::Pre)?;
        }
        for (k, (key, parameter)) in file.parameters.iter().enumerate() {
            reader.declare(key, Name::Parameter(k), Side::Trace)?;
            let per = match &parameter.per {
                PerText::One(per) => vec![*per],
                PerText::Several(list) => list.clone(),
            };
            if per.is_empty() || !parameter.init.is_finite() {
                let found = "no per, or an init that is not finite";
                let wanted = "per = \"network\", \"neuron\", \"pre\" or \"connection\"";
                return Err(fault(text, key.get_ref(), key.span().start, found, wanted));
            }
            reader.per.push((key.get_ref().clone(), per));
        }
        Ok(reader)
    }

    /// Takes a name, which must be new.
    fn declare(&mut self, key: &Spanned<String>, name: Name, side: Side) -> Result<()> {
        let text = key.get_ref();
        let at = key.span().start;
        let mut letters = text.bytes();
        let first = letters.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !first || !letters.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            let wanted = "letters, digits and _, no digit first";
            return Err(fault(self.text, text, at, "a name of other characters", wanted));
        }
        let start_of = |name: &str| format!("{name}0");
        let is_state = !matches!(name, Name::Parameter(_));
        let taken = functions().contains(&text.as_str())
            || self.names.iter().any(|(known, other, _)| {
                let state = !matches!(
                    other,
                    Name::Parameter(_) | Name::X | Name::Y | Name::Z | Name::R | Name::M
                );
                known == text
                    || (state && start_of(known) == *text)
                    || (is_state && start_of(text) == *known)
            });
        if taken {
            let wanted = "a name that is neither one of the language nor of another table, nor the \
                          start NAME0 of a state";
            return Err(fault(self.text, text, at, "a name that is taken", wanted));
        }
        self.names.push((text.clone(), name, side));
        Ok(())
    }

    /// Reads the right-hand side of `of`.
    fn equation(&mut self, side: Side, of: &str, next: &Spanned<String>) -> Result<usize> {
        let raw = &self.text[next.span()];
        // where the expression begins in the text
        let quotes = if raw.starts_with("\"\"\"") || raw.starts_with("'''") { 3 } else { 1 };
        let quotes = quotes + usize::from(quotes == 3 && raw[3..].starts_with('\n'));
        let start = next.span().start + quotes;
        let known: Vec<(String, Name)> =
            self.names.iter().map(|(text, name, _)| (text.clone(), *name)).collect();
        let mut parser = Parser::new(next.get_ref(), &mut self.graph, &known);
        let value = parser.whole();
        let (seen, denominators) = (parser.seen, parser.denominators);
        let text = self.text;
        let value = value
            .map_err(|Fault { at, found, wanted }| fault(text, of, start + at, &found, &wanted))?;
        for name in seen {
            self.check_side(side, of, name.name, start + name.at)?;
            if let Name::Parameter(k) = name.name {
                self.stands.entry(k).or_default().push((side, start + name.at));
            }
        }
        let places = denominators.into_iter().map(|(at, node)| (of.to_string(), start + at, node));
        self.denominators.extend(places);
        Ok(value)
    }

    /// Refuses a name that has no value where it stands.
    fn check_side(&self, side: Side, of: &str, name: Name, at: usize) -> Result<()> {
        let (text, _, own) =
            self.names.iter().find(|(_, known, _)| *known == name).expect("declared");
        if side == Side::Trace || *own == side {
            return Ok(());
        }
        let what = if side == Side::Post { "post-synaptic" } else { "pre-synaptic" };
        let wanted = match side {
            Side::Post => "y, z, r, m, post variables and parameters of the network or neuron",
            _ => "x, pre variables and parameters of the network or pre-synaptic neuron",
        };
        let per = match name {
            Name::Parameter(k) => &self.per[k].1[..],
            _ => &[],
        };
        let fits = |per: &Per| match side {
            Side::Post => matches!(per, Per::Network | Per::Neuron),
            _ => matches!(per, Per::Network | Per::Neuron | Per::Pre),
        };
        if matches!(name, Name::Parameter(_)) && per.iter().all(fits) {
            return Ok(());
        }
        let found = format!("{text}, which a {what} neuron has no single value of");
        Err(fault(self.text, of, at, &found, wanted))
    }

    /// The parameters, each with what it is one number of.
    fn parameters(&self, file: &File) -> Result<Vec<Parameter>> {
        let mut out = Vec::new();
        for (k, (key, parameter)) in file.parameters.iter().enumerate() {
            let mut per = self.per[k].1.clone();
            let none = Vec::new();
            let stands = self.stands.get(&k).unwrap_or(&none);
            let in_pre = stands.iter().find(|(side, _)| *side == Side::Pre);
            let elsewhere = stands.iter().find(|(side, _)| *side != Side::Pre);
            if per.contains(&Per::Neuron)
                && let Some((_, at)) = in_pre
            {
                if elsewhere.is_some() {
                    let found = "a parameter per neuron in a [pre] equation and in another";
                    let wanted = "per = \"pre\", or two parameters";
                    return Err(fault(self.text, key.get_ref(), *at, found, wanted));
                }
                per.iter_mut().filter(|p| **p == Per::Neuron).for_each(|p| *p = Per::Pre);
            }
            out.push(Parameter { name: key.get_ref().clone(), per, init: parameter.init });
        }
        Ok(out)
    }

    /// Refuses a denominator of numbers, variables and traces that is zero at their start.
    fn check_denominators(&self, program: &Program) -> Result<()> {
        let known = |name: &Name| matches!(name, Name::Trace(_) | Name::Post(_) | Name::Pre(_));
        for (of, at, node) in &self.denominators {
            if !program.graph.names(&[*node]).iter().all(known) {
                continue;
            }
            let start = |name: Name| match name {
                Name::Post(k) => program.post[k].start,
                Name::Pre(k) => program.pre[k].start,
                _ => 0.0,
            };
            let mut value = [0.0];
            Tape::new(&program.graph, &[*node]).run(&mut Vec::new(), start, &mut value);
            if value[0] == 0.0 {
                let found = "a division by what is 0 at the start values";
                let wanted = "another start, or a number added below";
                return Err(fault(self.text, of, *at, found, wanted));
            }
        }
        Ok(())
    }
}

/// What is wrong with the equation `of`, at a byte of the text, with the line it stands in.
fn fault(text: &str, of: &str, at: usize, found: &str, wanted: &str) -> Error {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let line = before.matches('\n').count();
    let start = before.rfind('\n').map_or(0, |k| k + 1);
    let column = before[start..].chars().count();
    let shown = text.lines().nth(line).unwrap_or_default();
    let found = format!("{of}, line {}, column {}: {}", line + 1, column + 1, found.trim());
    let mark = format!("{wanted}\n    {shown}\n    {}^", " ".repeat(column));
    Error::value("rule", found, mark)
}
