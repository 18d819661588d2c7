//! Expressions as text.

use super::{Function, Name, Node, Program};

/// How tightly an expression holds together: sums, products, powers, atoms.
const SUM: u8 = 0;
const PRODUCT: u8 = 1;
const SIGN: u8 = 2;
const ATOM: u8 = 3;

impl Program {
    /// The name that stands for a value.
    #[must_use]
    pub fn name_of(&self, name: Name) -> String {
        match name {
            Name::X => "x".into(),
            Name::Y => "y".into(),
            Name::Z => "z".into(),
            Name::R => "r".into(),
            Name::M => "m".into(),
            Name::Trace(k) => self.traces[k].name.clone(),
            Name::Post(k) => self.post[k].name.clone(),
            Name::Pre(k) => self.pre[k].name.clone(),
            Name::Parameter(k) => self.parameters[k].name.clone(),
        }
    }

    /// Every equation, as `NAME' = ...`.
    #[must_use]
    pub fn equations(&self) -> Vec<String> {
        let states = self.traces.iter().chain(&self.post).chain(&self.pre);
        states.map(|state| format!("{}' = {}", state.name, self.show(state.next))).collect()
    }

    /// The derivatives that the adjoint is made of, as `d NAME' / d NAME = ...`, those that are 0 left
    /// out.
    #[must_use]
    pub fn derivatives(&self) -> Vec<String> {
        let mut program = self.clone();
        let states: Vec<(String, usize)> = self
            .traces
            .iter()
            .chain(&self.post)
            .chain(&self.pre)
            .map(|state| (state.name.clone(), state.next))
            .collect();
        let mut lines = Vec::new();
        for (state, next) in states {
            for name in program.graph.names(&[next]) {
                let mut memo = std::collections::HashMap::new();
                let derivative = program.graph.derivative(next, name, &mut memo);
                if program.graph.nodes()[derivative] != Node::Number(0.0) {
                    let by = program.name_of(name);
                    lines.push(format!("d {state}' / d {by} = {}", program.show(derivative)));
                }
            }
        }
        lines
    }

    /// Node k as text.
    pub(super) fn show(&self, k: usize) -> String {
        self.shown(k).0
    }

    /// In parentheses where it holds together less than that.
    fn inside(&self, k: usize, least: u8) -> String {
        let (text, own) = self.shown(k);
        if own < least { format!("({text})") } else { text }
    }

    fn shown(&self, k: usize) -> (String, u8) {
        let nodes = self.graph.nodes();
        match nodes[k] {
            Node::Number(v) if v < 0.0 => (format!("{v}"), SIGN),
            Node::Number(v) => (format!("{v}"), ATOM),
            Node::Name(name) => (self.name_of(name), ATOM),
            Node::Add(a, b) => {
                (format!("{} + {}", self.inside(a, SUM), self.inside(b, PRODUCT)), SUM)
            }
            Node::Subtract(a, b) if nodes[a] == Node::Number(0.0) => {
                (format!("-{}", self.inside(b, SIGN)), SIGN)
            }
            Node::Subtract(a, b) => {
                (format!("{} - {}", self.inside(a, SUM), self.inside(b, PRODUCT)), SUM)
            }
            Node::Multiply(a, b) => {
                (format!("{} * {}", self.inside(a, PRODUCT), self.inside(b, SIGN)), PRODUCT)
            }
            Node::Divide(a, b) => {
                (format!("{} / {}", self.inside(a, PRODUCT), self.inside(b, SIGN)), PRODUCT)
            }
            Node::Power(a, n) => (format!("{}^{n}", self.inside(a, ATOM)), SIGN),
            Node::Apply(function, a) => {
                let name = Function::ALL.iter().find(|(_, known)| *known == function);
                (format!("{}({})", name.map_or("?", |(name, _)| name), self.show(a)), ATOM)
            }
            Node::Choose(all) => (self.choice(all), ATOM),
        }
    }

    /// A choice by the function that it came from, where it is one.
    fn choice(&self, [a, b, c, d]: [usize; 4]) -> String {
        let nodes = self.graph.nodes();
        let text = |k: usize| self.show(k);
        if nodes[a] == Node::Number(0.0) && b == c && d == a {
            return format!("relu({})", text(b));
        }
        if (a, b) == (c, d) {
            return format!("min({}, {})", text(a), text(b));
        }
        if (a, b) == (d, c) {
            if let Node::Choose([v, high, v2, high2]) = nodes[c]
                && (v, high) == (v2, high2)
            {
                return format!("clip({}, {}, {})", text(v), text(a), text(high));
            }
            return format!("max({}, {})", text(b), text(a));
        }
        if let Node::Choose([v, high, v2, high2]) = nodes[c]
            && (v, high) == (v2, high2)
            && v == b
            && d == a
        {
            return format!("clip({}, {}, {})", text(v), text(a), text(high));
        }
        format!("[{} <= {} ? {} : {}]", text(a), text(b), text(c), text(d))
    }
}
