//! Expressions of rules: their values and their exact derivatives.

use std::collections::HashMap;

/// What a name in an expression stands for, at one connection and step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    /// x, of the pre-synaptic neuron.
    X,
    /// y, of the post-synaptic neuron.
    Y,
    /// z, its pre-activation.
    Z,
    /// r = sum_i x_i H_ij, what the trace predicts.
    R,
    /// m, the neuromodulator.
    M,
    /// Trace k; H is trace 0.
    Trace(usize),
    /// Variable k of the post-synaptic neuron.
    Post(usize),
    /// Variable k of the pre-synaptic neuron.
    Pre(usize),
    /// Parameter k.
    Parameter(usize),
}

/// A node of the graph, of numbers of earlier nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Node {
    /// A number.
    Number(f64),
    /// A name's value.
    Name(Name),
    /// a + b.
    Add(usize, usize),
    /// a - b.
    Subtract(usize, usize),
    /// a b.
    Multiply(usize, usize),
    /// a / b.
    Divide(usize, usize),
    /// a to a whole power.
    Power(usize, u32),
    /// A function of one number.
    Apply(Function, usize),
    /// c where a <= b, else d: `[a, b, c, d]`.
    Choose([usize; 4]),
}

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    /// |v|; derivative 0 at 0.
    Abs,
    /// -1, 0 or 1; derivative 0.
    Sign,
    /// The square root.
    Sqrt,
    /// e^v.
    Exp,
    /// The hyperbolic tangent.
    Tanh,
    /// 1 / (1 + e^-v).
    Sigmoid,
    /// 1 where v > 0, else 0; derivative 0.
    Step,
}

impl Function {
    pub(super) const ALL: [(&'static str, Function); 7] = [
        ("abs", Function::Abs),
        ("sign", Function::Sign),
        ("sqrt", Function::Sqrt),
        ("exp", Function::Exp),
        ("tanh", Function::Tanh),
        ("sigmoid", Function::Sigmoid),
        ("step", Function::Step),
    ];

    fn of(self, v: f64) -> f64 {
        match self {
            Function::Abs => v.abs(),
            Function::Sign if v == 0.0 => 0.0,
            Function::Sign => v.signum(),
            Function::Sqrt => v.sqrt(),
            Function::Exp => v.exp(),
            Function::Tanh => v.tanh(),
            Function::Sigmoid if v < 0.0 => v.exp() / (1.0 + v.exp()),
            Function::Sigmoid => 1.0 / (1.0 + (-v).exp()),
            Function::Step => f64::from(u8::from(v > 0.0)),
        }
    }
}

/// Expressions that share what they have in common. A node's operands stand before it.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    known: HashMap<[u64; 5], usize>,
}

impl Graph {
    /// The nodes, in an order of evaluation.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The number of a node, new or known; constants are folded.
    pub(super) fn node(&mut self, node: Node) -> usize {
        let node = self.folded(node);
        let code = |k: usize| k as u64;
        let key = match node {
            Node::Number(v) => [0, v.to_bits(), 0, 0, 0],
            Node::Name(name) => {
                let (kind, k) = match name {
                    Name::X => (0, 0),
                    Name::Y => (1, 0),
                    Name::Z => (2, 0),
                    Name::R => (3, 0),
                    Name::M => (4, 0),
                    Name::Trace(k) => (5, k),
                    Name::Post(k) => (6, k),
                    Name::Pre(k) => (7, k),
                    Name::Parameter(k) => (8, k),
                };
                [1, kind, code(k), 0, 0]
            }
            Node::Add(a, b) => [2, code(a), code(b), 0, 0],
            Node::Subtract(a, b) => [3, code(a), code(b), 0, 0],
            Node::Multiply(a, b) => [4, code(a), code(b), 0, 0],
            Node::Divide(a, b) => [5, code(a), code(b), 0, 0],
            Node::Power(a, n) => [6, code(a), u64::from(n), 0, 0],
            Node::Apply(f, a) => [16 + f as u64, code(a), 0, 0, 0],
            Node::Choose([a, b, c, d]) => [7, code(a), code(b), code(c), code(d)],
        };
        *self.known.entry(key).or_insert_with(|| {
            self.nodes.push(node);
            self.nodes.len() - 1
        })
    }

    pub(super) fn number(&mut self, value: f64) -> usize {
        self.node(Node::Number(value))
    }

    fn value_of(&self, k: usize) -> Option<f64> {
        match self.nodes[k] {
            Node::Number(value) => Some(value),
            _ => None,
        }
    }

    /// What is known of a node without values: products with 0 and 1, sums with 0, numbers alone.
    fn folded(&self, node: Node) -> Node {
        let value = |k: usize| self.value_of(k);
        match node {
            Node::Add(a, b) => match (value(a), value(b)) {
                (Some(a), Some(b)) => Node::Number(a + b),
                (Some(0.0), _) => self.nodes[b],
                (_, Some(0.0)) => self.nodes[a],
                _ => node,
            },
            Node::Subtract(a, b) => match (value(a), value(b)) {
                (Some(a), Some(b)) => Node::Number(a - b),
                (_, Some(0.0)) => self.nodes[a],
                _ => node,
            },
            Node::Multiply(a, b) => match (value(a), value(b)) {
                (Some(a), Some(b)) => Node::Number(a * b),
                (Some(0.0), _) | (_, Some(0.0)) => Node::Number(0.0),
                (Some(1.0), _) => self.nodes[b],
                (_, Some(1.0)) => self.nodes[a],
                _ => node,
            },
            Node::Divide(a, b) => match (value(a), value(b)) {
                (Some(a), Some(b)) if b != 0.0 => Node::Number(a / b),
                (_, Some(1.0)) => self.nodes[a],
                _ => node,
            },
            Node::Power(_, 0) => Node::Number(1.0),
            Node::Power(a, 1) => self.nodes[a],
            Node::Power(a, n) => match value(a) {
                Some(a) => Node::Number(power(a, n)),
                None => node,
            },
            Node::Apply(f, a) => value(a).map_or(node, |a| Node::Number(f.of(a))),
            Node::Choose([a, b, c, d]) => match (value(a), value(b)) {
                _ if c == d => self.nodes[c],
                (Some(a), Some(b)) => self.nodes[if a <= b { c } else { d }],
                _ => node,
            },
            _ => node,
        }
    }

    /// The derivative of node `k` by a name: at a kink that of the side that the case format names.
    pub(super) fn derivative(
        &mut self,
        k: usize,
        by: Name,
        memo: &mut HashMap<usize, usize>,
    ) -> usize {
        if let Some(&known) = memo.get(&k) {
            return known;
        }
        let zero = self.number(0.0);
        let mut of = |graph: &mut Self, a: usize| graph.derivative(a, by, memo);
        let derivative = match self.nodes[k] {
            Node::Number(_) => zero,
            Node::Name(name) => self.number(f64::from(u8::from(name == by))),
            Node::Add(a, b) => {
                let (da, db) = (of(self, a), of(self, b));
                self.node(Node::Add(da, db))
            }
            Node::Subtract(a, b) => {
                let (da, db) = (of(self, a), of(self, b));
                self.node(Node::Subtract(da, db))
            }
            Node::Multiply(a, b) => {
                let (da, db) = (of(self, a), of(self, b));
                let first = self.node(Node::Multiply(da, b));
                let second = self.node(Node::Multiply(a, db));
                self.node(Node::Add(first, second))
            }
            Node::Divide(a, b) => {
                let (da, db) = (of(self, a), of(self, b));
                // (da - (a / b) db) / b
                let share = self.node(Node::Multiply(k, db));
                let rest = self.node(Node::Subtract(da, share));
                self.node(Node::Divide(rest, b))
            }
            Node::Power(a, n) => {
                let da = of(self, a);
                let times = self.number(f64::from(n));
                let lower = self.node(Node::Power(a, n - 1));
                let slope = self.node(Node::Multiply(times, lower));
                self.node(Node::Multiply(slope, da))
            }
            Node::Apply(function, a) => {
                let da = of(self, a);
                let slope = self.slope(function, a, k);
                self.node(Node::Multiply(slope, da))
            }
            Node::Choose([a, b, c, d]) => {
                let (dc, dd) = (of(self, c), of(self, d));
                self.node(Node::Choose([a, b, dc, dd]))
            }
        };
        memo.insert(k, derivative);
        derivative
    }

    /// The slope of a function at node `a`, where its value is node `value`.
    fn slope(&mut self, function: Function, a: usize, value: usize) -> usize {
        let one = self.number(1.0);
        match function {
            Function::Abs => self.node(Node::Apply(Function::Sign, a)),
            Function::Sign | Function::Step => self.number(0.0),
            Function::Sqrt => {
                let half = self.number(0.5);
                self.node(Node::Divide(half, value))
            }
            Function::Exp => value,
            Function::Tanh => {
                let square = self.node(Node::Power(value, 2));
                self.node(Node::Subtract(one, square))
            }
            Function::Sigmoid => {
                let rest = self.node(Node::Subtract(one, value));
                self.node(Node::Multiply(value, rest))
            }
        }
    }

    /// The names that nodes depend on.
    #[must_use]
    pub fn names(&self, roots: &[usize]) -> Vec<Name> {
        let mut names: Vec<Name> = self
            .reached(roots)
            .into_iter()
            .filter_map(|k| match self.nodes[k] {
                Node::Name(name) => Some(name),
                _ => None,
            })
            .collect();
        names.sort_unstable();
        names
    }

    /// The nodes that others depend on, in order.
    fn reached(&self, roots: &[usize]) -> Vec<usize> {
        let mut used = vec![false; self.nodes.len()];
        roots.iter().for_each(|&k| used[k] = true);
        for k in (0..self.nodes.len()).rev() {
            if !used[k] {
                continue;
            }
            match self.nodes[k] {
                Node::Number(_) | Node::Name(_) => {}
                Node::Add(a, b)
                | Node::Subtract(a, b)
                | Node::Multiply(a, b)
                | Node::Divide(a, b) => [a, b].iter().for_each(|&k| used[k] = true),
                Node::Power(a, _) | Node::Apply(_, a) => used[a] = true,
                Node::Choose(all) => all.iter().for_each(|&k| used[k] = true),
            }
        }
        (0..self.nodes.len()).filter(|&k| used[k]).collect()
    }
}

/// a to the power n; 1 for n = 0.
fn power(a: f64, n: u32) -> f64 {
    i32::try_from(n).map_or(f64::NAN, |n| a.powi(n))
}

/// Some expressions of a graph, ready to be evaluated.
#[derive(Clone, Debug)]
pub struct Tape {
    nodes: Vec<Node>,
    roots: Vec<usize>,
}

impl Tape {
    /// The expressions `roots` of a graph.
    #[must_use]
    pub fn new(graph: &Graph, roots: &[usize]) -> Self {
        let reached = graph.reached(roots);
        let at: HashMap<usize, usize> =
            reached.iter().enumerate().map(|(k, &old)| (old, k)).collect();
        let nodes = reached.iter().map(|&old| match graph.nodes[old] {
            node @ (Node::Number(_) | Node::Name(_)) => node,
            Node::Add(a, b) => Node::Add(at[&a], at[&b]),
            Node::Subtract(a, b) => Node::Subtract(at[&a], at[&b]),
            Node::Multiply(a, b) => Node::Multiply(at[&a], at[&b]),
            Node::Divide(a, b) => Node::Divide(at[&a], at[&b]),
            Node::Power(a, n) => Node::Power(at[&a], n),
            Node::Apply(f, a) => Node::Apply(f, at[&a]),
            Node::Choose(all) => Node::Choose(all.map(|k| at[&k])),
        });
        Tape { nodes: nodes.collect(), roots: roots.iter().map(|k| at[k]).collect() }
    }

    /// Values of the expressions, where `name` tells the values of names; `scratch` is kept by the
    /// caller between calls.
    pub fn run(&self, scratch: &mut Vec<f64>, name: impl Fn(Name) -> f64, out: &mut [f64]) {
        scratch.clear();
        for node in &self.nodes {
            let value = match *node {
                Node::Number(value) => value,
                Node::Name(known) => name(known),
                Node::Add(a, b) => scratch[a] + scratch[b],
                Node::Subtract(a, b) => scratch[a] - scratch[b],
                Node::Multiply(a, b) => scratch[a] * scratch[b],
                Node::Divide(a, b) => scratch[a] / scratch[b],
                Node::Power(a, n) => power(scratch[a], n),
                Node::Apply(f, a) => f.of(scratch[a]),
                Node::Choose([a, b, c, d]) => scratch[if scratch[a] <= scratch[b] { c } else { d }],
            };
            scratch.push(value);
        }
        for (out, &root) in out.iter_mut().zip(&self.roots) {
            *out = scratch[root];
        }
    }
}
