//! A rule as sums of products, so that what belongs to neurons alone is computed once a neuron.
//!
//! Every equation of a trace, and every derivative of one, becomes
//!
//! ```text
//! sum over terms of  connection_ij  pre_i  post_j
//! ```
//!
//! where a factor that is not there is 1. Of an affine rule the factor of a connection is a trace, or
//! not there; what cannot be taken apart is a factor of the connection as a whole.

use std::collections::HashMap;

use super::{Function, Graph, Name, Node, Per, Program};

/// What a value is one number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// A post-synaptic neuron, or the network.
    Post,
    /// A pre-synaptic neuron, or the network.
    Pre,
    /// The network.
    Network,
    /// A connection.
    Connection,
}

impl Of {
    fn with(self, other: Self) -> Self {
        match (self, other) {
            (Of::Network, of) | (of, Of::Network) => of,
            (a, b) if a == b => a,
            _ => Of::Connection,
        }
    }
}

/// A product of nodes of [`Lowered::graph`]; what is not there is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Term {
    /// Of the connection.
    pub connection: Option<usize>,
    /// Of the pre-synaptic neuron.
    pub pre: Option<usize>,
    /// Of the post-synaptic neuron, or the network.
    pub post: Option<usize>,
}

/// Derivatives by names.
pub type Slopes<T> = Vec<(Name, T)>;

/// A rule, ready for an engine that runs rows of connections.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// All nodes.
    pub graph: Graph,
    /// What each node is one number of.
    pub of: Vec<Of>,
    /// Each trace after the step.
    pub traces: Vec<Vec<Term>>,
    /// Each post variable after the step, and each pre variable.
    pub post: Vec<usize>,
    /// See [`Lowered::post`].
    pub pre: Vec<usize>,
    /// Derivatives of each trace, of each post variable and of each pre variable.
    pub trace_slopes: Vec<Slopes<Vec<Term>>>,
    /// See [`Lowered::trace_slopes`].
    pub post_slopes: Vec<Slopes<usize>>,
    /// See [`Lowered::trace_slopes`].
    pub pre_slopes: Vec<Slopes<usize>>,
}

/// A sum times a product is taken apart into so many terms at most.
const MOST_TERMS: usize = 8;
/// A power of activity or of a trace that f32 holds.
const MOST_POWER: u32 = 3;

impl Program {
    /// The rule as sums of products, where its parameters are one number of what `per` says.
    #[must_use]
    pub fn lower(&self, per: &[Per]) -> Lowered {
        let mut lowering = Lowering {
            graph: self.graph.clone(),
            of: Vec::new(),
            per,
            terms: HashMap::new(),
            polynomial: HashMap::new(),
        };
        let traces = self.traces.iter().map(|state| lowering.terms(state.next)).collect();
        let roots = |states: &[super::State]| states.iter().map(|s| s.next).collect::<Vec<_>>();
        let (post, pre) = (roots(&self.post), roots(&self.pre));
        let trace_slopes = self.traces.iter().map(|state| {
            let slopes = lowering.slopes(state.next).into_iter();
            slopes.map(|(name, node)| (name, lowering.terms(node))).collect()
        });
        let trace_slopes = trace_slopes.collect();
        let mut slopes = |nodes: &[usize]| nodes.iter().map(|&k| lowering.slopes(k)).collect();
        let (post_slopes, pre_slopes) = (slopes(&post), slopes(&pre));
        lowering.update();
        let Lowering { graph, of, .. } = lowering;
        Lowered { graph, of, traces, post, pre, trace_slopes, post_slopes, pre_slopes }
    }
}

struct Lowering<'a> {
    graph: Graph,
    /// Of the nodes so far.
    of: Vec<Of>,
    per: &'a [Per],
    /// What is known of nodes, each of which is looked at once.
    terms: HashMap<usize, Vec<Term>>,
    polynomial: HashMap<usize, bool>,
}

impl Lowering<'_> {
    fn node(&mut self, node: Node) -> usize {
        self.graph.node(node)
    }

    /// Learns what new nodes are one number of.
    fn update(&mut self) {
        for k in self.of.len()..self.graph.nodes().len() {
            let of = |k: &usize| self.of[*k];
            let now = match &self.graph.nodes()[k] {
                Node::Number(_) => Of::Network,
                Node::Name(name) => match name {
                    Name::X | Name::Pre(_) => Of::Pre,
                    Name::Y | Name::Z | Name::R | Name::M | Name::Post(_) => Of::Post,
                    Name::Trace(_) => Of::Connection,
                    Name::Parameter(k) => match self.per[*k] {
                        Per::Network => Of::Network,
                        Per::Neuron => Of::Post,
                        Per::Pre => Of::Pre,
                        Per::Connection => Of::Connection,
                    },
                },
                Node::Add(a, b)
                | Node::Subtract(a, b)
                | Node::Multiply(a, b)
                | Node::Divide(a, b) => of(a).with(of(b)),
                Node::Power(a, _) | Node::Apply(_, a) => of(a),
                Node::Choose(all) => all.iter().map(of).fold(Of::Network, Of::with),
            };
            self.of.push(now);
        }
    }

    fn of(&mut self, k: usize) -> Of {
        self.update();
        self.of[k]
    }

    fn number(&self, k: usize) -> Option<f64> {
        match self.graph.nodes()[k] {
            Node::Number(value) => Some(value),
            _ => None,
        }
    }

    /// The derivatives of a node that are not 0.
    fn slopes(&mut self, k: usize) -> Slopes<usize> {
        let mut slopes = Vec::new();
        for name in self.graph.names(&[k]) {
            let slope = self.graph.derivative(k, name, &mut HashMap::new());
            if self.number(slope) != Some(0.0) {
                slopes.push((name, slope));
            }
        }
        slopes
    }

    /// A node as a sum of products.
    fn terms(&mut self, k: usize) -> Vec<Term> {
        if let Some(terms) = self.terms.get(&k) {
            return terms.clone();
        }
        let terms = self.terms_of(k);
        self.terms.insert(k, terms.clone());
        terms
    }

    fn terms_of(&mut self, k: usize) -> Vec<Term> {
        let whole = |k| vec![Term { connection: Some(k), ..Term::default() }];
        match self.of(k) {
            Of::Network | Of::Post => {
                let one = self.number(k) == Some(1.0);
                return match self.number(k) {
                    Some(0.0) => Vec::new(),
                    _ => vec![Term { post: (!one).then_some(k), ..Term::default() }],
                };
            }
            Of::Pre => return vec![Term { pre: Some(k), ..Term::default() }],
            Of::Connection => {}
        }
        match self.graph.nodes()[k] {
            Node::Add(a, b) => self.terms(a).into_iter().chain(self.terms(b)).collect(),
            Node::Subtract(a, b) => {
                let minus = self.graph.number(-1.0);
                let negative = Term { post: Some(minus), ..Term::default() };
                let (mut all, taken) = (self.terms(a), self.terms(b));
                all.extend(taken.into_iter().map(|term| self.product(negative, term)));
                all
            }
            Node::Multiply(a, b) => {
                let (left, right) = (self.terms(a), self.terms(b));
                // sums times sums would cancel: (x - y) (x - y) is not x x - 2 x y + y y in f32
                let most = left.len().max(right.len());
                if left.len().min(right.len()) > 1 || most > MOST_TERMS {
                    return whole(k);
                }
                let pairs = left.iter().flat_map(|&l| right.iter().map(move |&r| (l, r)));
                pairs.collect::<Vec<_>>().into_iter().map(|(l, r)| self.product(l, r)).collect()
            }
            Node::Divide(a, b) => {
                let of = self.of(b);
                if of == Of::Connection {
                    return whole(k);
                }
                let over = |lowering: &mut Self, factor: Option<usize>| {
                    let one = lowering.graph.number(1.0);
                    Some(lowering.node(Node::Divide(factor.unwrap_or(one), b)))
                };
                let terms = self.terms(a).into_iter();
                terms
                    .map(|term| match of {
                        Of::Pre => Term { pre: over(self, term.pre), ..term },
                        _ => Term { post: over(self, term.post), ..term },
                    })
                    .collect()
            }
            Node::Power(a, n) => match self.terms(a)[..] {
                [Term { connection, pre, post }] => {
                    let mut power = |k: Option<usize>| k.map(|k| self.node(Node::Power(k, n)));
                    vec![Term { connection: power(connection), pre: power(pre), post: power(post) }]
                }
                _ => whole(k),
            },
            // of a product: that of its factors
            Node::Apply(function @ (Function::Abs | Function::Sign), a) => {
                match self.terms(a)[..] {
                    [Term { connection, pre, post }] => {
                        let mut of =
                            |k: Option<usize>| k.map(|k| self.node(Node::Apply(function, k)));
                        vec![Term { connection: of(connection), pre: of(pre), post: of(post) }]
                    }
                    _ => whole(k),
                }
            }
            // what is 0 on one side, as the slope of a clip is: a factor of 0 or 1
            Node::Choose([a, b, c, d]) => {
                let (zero, one) = (self.graph.number(0.0), self.graph.number(1.0));
                let (kept, sides) = match (self.number(c), self.number(d)) {
                    (_, Some(0.0)) => (c, [one, zero]),
                    (Some(0.0), _) => (d, [zero, one]),
                    _ => return whole(k),
                };
                if kept == one || !self.is_polynomial(kept) {
                    return whole(k);
                }
                let choice = self.node(Node::Choose([a, b, sides[0], sides[1]]));
                let choice = Term { connection: Some(choice), ..Term::default() };
                let terms = self.terms(kept);
                terms.into_iter().map(|term| self.product(choice, term)).collect()
            }
            _ => whole(k),
        }
    }

    /// Whether a node is sums and products, low powers and choices alone: finite where its names are of
    /// any size that a network can have, so that 0 times it is 0.
    fn is_polynomial(&mut self, k: usize) -> bool {
        if let Some(&known) = self.polynomial.get(&k) {
            return known;
        }
        let found = match self.graph.nodes()[k] {
            Node::Number(_) | Node::Name(_) => true,
            Node::Add(a, b) | Node::Subtract(a, b) | Node::Multiply(a, b) => {
                self.is_polynomial(a) && self.is_polynomial(b)
            }
            Node::Power(a, n) => n <= MOST_POWER && self.is_polynomial(a),
            Node::Choose(all) => all.into_iter().all(|k| self.is_polynomial(k)),
            Node::Divide(..) | Node::Apply(..) => false,
        };
        self.polynomial.insert(k, found);
        found
    }

    fn product(&mut self, a: Term, b: Term) -> Term {
        let mut both = |a: Option<usize>, b: Option<usize>| match (a, b) {
            (Some(a), Some(b)) => Some(self.node(Node::Multiply(a, b))),
            (a, b) => a.or(b),
        };
        Term {
            connection: both(a.connection, b.connection),
            pre: both(a.pre, b.pre),
            post: both(a.post, b.post),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of names at a connection, none of which are alike.
    fn value(name: Name) -> f64 {
        let spread = |k: usize, at: f64| at + 0.13 * f64::from(u8::try_from(k).expect("few"));
        match name {
            Name::X => 0.7,
            Name::Y => -0.6,
            Name::Z => 0.4,
            Name::R => 0.23,
            Name::M => 0.9,
            Name::Trace(k) => spread(k, 0.31),
            Name::Post(k) => spread(k, -0.21),
            Name::Pre(k) => spread(k, 0.57),
            Name::Parameter(k) => spread(k, 0.17),
        }
    }

    #[test]
    fn sums_of_products_are_what_they_were_made_of() {
        for (rule, text) in super::super::TEXTS {
            let program = Program::parse(text).unwrap();
            for program in [program.clipped(0.3), program] {
                for pick in 0..3 {
                    let per: Vec<Per> = program
                        .parameters()
                        .iter()
                        .map(|p| p.per[pick.min(p.per.len() - 1)])
                        .collect();
                    let lowered = program.lower(&per);
                    let at = |k: usize| {
                        let mut out = [0.0];
                        super::super::Tape::new(&lowered.graph, &[k]).run(
                            &mut Vec::new(),
                            value,
                            &mut out,
                        );
                        out[0]
                    };
                    let sum = |terms: &[Term]| -> f64 {
                        let one = |term: &Term| {
                            let factors = [term.connection, term.pre, term.post];
                            factors.into_iter().flatten().map(at).product::<f64>()
                        };
                        terms.iter().map(one).sum()
                    };
                    let compiled = program.compile();
                    let n = program.traces().len();
                    let mut values = vec![0.0; n];
                    compiled.traces.run(&mut Vec::new(), value, &mut values);
                    let names = &compiled.trace_names;
                    let mut slopes = vec![0.0; n * names.len()];
                    compiled.trace_slopes.run(&mut Vec::new(), value, &mut slopes);
                    for (k, terms) in lowered.traces.iter().enumerate() {
                        assert!((sum(terms) - values[k]).abs() < 1e-14, "{rule}, trace {k}");
                        for (name, &slope) in names.iter().zip(&slopes[k * names.len()..]) {
                            let found = lowered.trace_slopes[k].iter().find(|(n, _)| n == name);
                            let found = found.map_or(0.0, |(_, terms)| sum(terms));
                            assert!((found - slope).abs() < 1e-14, "{rule}, {k} by {name:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn an_affine_rule_has_no_factor_of_connections_but_traces() {
        for (rule, text) in super::super::TEXTS {
            let program = Program::parse(text).unwrap();
            if program.class() != super::super::Class::Affine {
                continue;
            }
            let per: Vec<Per> = program.parameters().iter().map(|p| p.per[0]).collect();
            let lowered = program.lower(&per);
            let factors = lowered.traces.iter().flatten().filter_map(|term| term.connection);
            for k in factors {
                let node = lowered.graph.nodes()[k];
                assert!(matches!(node, Node::Name(Name::Trace(_))), "{rule}: {node:?}");
            }
        }
    }
}
