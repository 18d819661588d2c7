//! A rule's equations and their derivatives in WGSL: the files `rule/*.wgsl` that the shaders of the
//! general plan include.

use std::collections::BTreeSet;

use crate::error::Result;
use crate::model::{Layout, Network, Tensor};
use crate::rule::{Function, Lowered, Name, Node, Per, Program, Term};

/// What the shaders of the general plan include of a network's rule, and how much it keeps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Equations {
    /// By the names that `//!include` gives them.
    files: Vec<(&'static str, String)>,
    /// Variables of the post-synaptic and of the pre-synaptic neurons.
    pub(crate) posts: usize,
    pub(crate) pres: usize,
    pub(crate) reads_r: bool,
    /// Sums over the connections of a neuron that a backward step takes.
    pub(crate) column_sums: usize,
    pub(crate) row_sums: usize,
    /// Whether a parameter is one number of the network.
    pub(crate) shares: bool,
}

/// Where each parameter of the rule lies in a network's parameters, and what it is one number of.
struct Place {
    offset: usize,
    per: Per,
}

impl Equations {
    /// Those of a network's rule.
    ///
    /// # Errors
    /// A rule that is not known.
    pub(crate) fn new(network: &Network) -> Result<Self> {
        let (program, tensors) = network.program()?;
        let layout = Layout::new(network);
        let place = |&(tensor, per): &(Tensor, Per)| Place {
            offset: layout.find(tensor).expect("of this network").offset,
            per,
        };
        let places: Vec<Place> = tensors.iter().map(place).collect();
        let per: Vec<Per> = places.iter().map(|place| place.per).collect();
        let writer = Writer::new(&program, program.lower(&per), &places);
        Ok(Equations {
            posts: program.post().len(),
            pres: program.pre().len(),
            reads_r: program.reads(Name::R),
            column_sums: writer.columns.len().max(1),
            row_sums: writer.rows.len(),
            shares: per.contains(&Per::Network),
            files: vec![
                ("rule/values.wgsl", writer.values(&program)),
                ("rule/traces.wgsl", writer.traces()),
                ("rule/variables.wgsl", writer.variables()),
                ("rule/columns.wgsl", writer.column_terms()),
                ("rule/back.wgsl", writer.back(layout.at_rule())),
                ("rule/variables_back.wgsl", writer.variables_back()),
            ],
        })
    }

    /// The file of that name, and the name as it is kept.
    pub(crate) fn file(&self, name: &str) -> Option<(&'static str, &str)> {
        let found = self.files.iter().find(|(known, _)| *known == name);
        found.map(|(name, text)| (*name, text.as_str()))
    }

    /// Numbers of an episode of `n_steps` steps in `state`, for m by n neurons; `state_stride` of
    /// `shaders/lib/general.wgsl`.
    pub(crate) fn state_stride(&self, n_steps: usize, m: usize, n: usize) -> usize {
        let rows = n_steps + 1;
        let r = if self.reads_r { rows } else { 0 };
        (self.posts * (rows + 2) + r) * n + self.pres * (rows + 2) * m
    }

    /// Where an episode's variable lies in its part of `state`, before step `t`: those of the
    /// post-synaptic neurons, then those of the pre-synaptic.
    pub(crate) fn variable_at(
        &self,
        k: usize,
        t: usize,
        n_steps: usize,
        sizes: [usize; 2],
    ) -> usize {
        let ([m, n], rows) = (sizes, n_steps + 1);
        match k.checked_sub(self.posts) {
            None => (k * rows + t) * n,
            Some(k) => self.posts * rows * n + (k * rows + t) * m,
        }
    }

    /// Where dL by an episode's start value of a variable lies, after the backward pass.
    pub(crate) fn start_bar_at(&self, k: usize, n_steps: usize, sizes: [usize; 2]) -> usize {
        let ([m, n], rows) = (sizes, n_steps + 1);
        let r = if self.reads_r { rows } else { 0 };
        let bars = self.posts * rows * n + self.pres * rows * m + r * n;
        match k.checked_sub(self.posts) {
            None => bars + (self.posts + k) * n,
            Some(k) => bars + 2 * self.posts * n + (self.pres + k) * m,
        }
    }
}

/// Writes what a rule is in WGSL.
struct Writer<'a> {
    lowered: Lowered,
    places: &'a [Place],
    n_traces: usize,
    /// Names that sums over pre-synaptic neurons belong to, and over post-synaptic ones: x, the pre
    /// variables, parameters of pre-synaptic neurons.
    columns: Vec<Name>,
    rows: Vec<Name>,
    /// Parameters that are one number of the network.
    of_network: Vec<usize>,
}

impl<'a> Writer<'a> {
    fn new(program: &Program, lowered: Lowered, places: &'a [Place]) -> Self {
        let per = |k: usize| places[k].per;
        let all_parameters = 0..places.len();
        let of = |wanted: Per| all_parameters.clone().filter(move |&k| per(k) == wanted);
        let rows = std::iter::once(Name::X)
            .chain((0..program.pre().len()).map(Name::Pre))
            .chain(of(Per::Pre).map(Name::Parameter))
            .collect();
        let of_traces = lowered.trace_slopes.iter().flatten().map(|(name, _)| *name);
        let of_post = lowered.post_slopes.iter().flatten().map(|(name, _)| *name);
        let is_column = |name: &Name| match *name {
            Name::X | Name::Pre(_) | Name::Trace(_) => false,
            Name::Parameter(k) => matches!(per(k), Per::Neuron | Per::Network),
            _ => true,
        };
        let columns: BTreeSet<Name> = of_traces.chain(of_post).filter(is_column).collect();
        Writer {
            n_traces: program.traces().len(),
            columns: columns.into_iter().collect(),
            rows,
            of_network: of(Per::Network).collect(),
            lowered,
            places,
        }
    }

    /// The constants of the rule, the names of a connection and what brings its parameters.
    fn values(&self, program: &Program) -> String {
        let (posts, pres) = (program.post().len(), program.pre().len());
        let reads = |name| u32::from(program.reads(name));
        let n_network = self.of_network.len();
        let mut out = String::new();
        let constants = [
            ("POSTS", posts),
            ("POST_SPACE", posts.max(1)),
            ("PRES", pres),
            ("PRE_SPACE", pres.max(1)),
            ("COLUMN_SUMS", self.columns.len().max(1)),
            ("ROW_SUMS", self.rows.len()),
            ("NETWORK_PARAMETERS", n_network),
            ("NETWORK_SUMS", n_network.max(1)),
        ];
        for (name, value) in constants {
            line(&mut out, &format!("const {name}: u32 = {value}u;"));
        }
        line(&mut out, &format!("const READS_R: u32 = {}u;", reads(Name::R)));
        line(&mut out, &format!("const READS_M: u32 = {}u;", reads(Name::M)));
        line(&mut out, "struct Values {");
        line(&mut out, "x: f32, y: f32, z: f32, r: f32, m: f32,");
        line(&mut out, "h: array<f32, TRACES>,");
        line(&mut out, "s: array<f32, POST_SPACE>, u: array<f32, PRE_SPACE>,");
        line(&mut out, &format!("p: array<f32, {}>,", self.places.len().max(1)));
        line(&mut out, "}");
        let brings = |of: &[Per], index: &str| -> Vec<String> {
            let own = self.places.iter().enumerate().filter(|(_, place)| of.contains(&place.per));
            own.map(|(k, place)| {
                let index = if place.per == Per::Network { "" } else { index };
                format!("(*v).p[{k}] = parameters[network + {}u{index}];", place.offset)
            })
            .collect()
        };
        let loads = [
            ("post_parameters", "j: u32", brings(&[Per::Neuron, Per::Network], " + j")),
            ("pre_parameters", "i: u32", brings(&[Per::Pre, Per::Network], " + i")),
            (
                "connection_parameters",
                "i: u32, j: u32",
                brings(&[Per::Connection], " + i * job.n_post + j"),
            ),
        ];
        for (name, index, lines) in loads {
            line(
                &mut out,
                &format!("fn {name}(v: ptr<function, Values>, network: u32, {index}) {{"),
            );
            lines.iter().for_each(|text| line(&mut out, text));
            line(&mut out, "}");
        }
        out
    }

    /// The traces after a step.
    fn traces(&self) -> String {
        let traces = self.lowered.traces.iter().enumerate();
        let values: Vec<_> = traces
            .map(|(k, terms)| (k, terms.iter().map(|term| Product::of(None, term)).collect()))
            .collect();
        self.function("traces_after(v: Values)", self.n_traces, &values, "")
    }

    /// The variables after a step.
    fn variables(&self) -> String {
        let values = |nodes: &[usize]| -> Vec<_> {
            nodes.iter().enumerate().map(|(k, &node)| (k, vec![Product::node(node)])).collect()
        };
        let Lowered { post, pre, .. } = &self.lowered;
        self.function("post_after(v: Values)", post.len().max(1), &values(post), "")
            + &self.function("pre_after(v: Values)", pre.len().max(1), &values(pre), "")
    }

    /// What neurons get of lambda of a connection.
    fn column_terms(&self) -> String {
        let values: Vec<_> =
            self.columns.iter().enumerate().map(|(c, &name)| (c, self.of_lambda(name))).collect();
        let heading = "column_terms(v: Values, lambda: array<f32, TRACES>)";
        self.function(heading, self.columns.len().max(1), &values, "")
    }

    /// What the pre-synaptic neuron, the traces before the step and the connection's parameters get of
    /// lambda.
    fn back(&self, at_rule: usize) -> String {
        let rows: Vec<_> =
            self.rows.iter().enumerate().map(|(k, &name)| (k, self.of_lambda(name))).collect();
        let traces: Vec<_> =
            (0..self.n_traces).map(|k| (k, self.of_lambda(Name::Trace(k)))).collect();
        let heading = |name: &str| format!("{name}(v: Values, lambda: array<f32, TRACES>)");
        let mut out = self.function(&heading("row_terms"), self.rows.len(), &rows, "");
        out += &self.function(&heading("traces_back"), self.n_traces, &traces, "");
        line(
            &mut out,
            "fn connection_back(v: Values, lambda: array<f32, TRACES>, episode: u32, i: u32, j: u32) {",
        );
        for (k, place) in self.places.iter().enumerate() {
            if place.per != Per::Connection {
                continue;
            }
            let terms = self.of_lambda(Name::Parameter(k));
            out += "{\n";
            out += &self.lets(&terms);
            let at = place.offset - at_rule;
            line(&mut out, &format!("let at = episode * job.n_rule + {at}u + i * job.n_post + j;"));
            line(&mut out, &format!("rule_bar[at] = rule_bar[at] + {};", sum(&terms)));
            out += "}\n";
        }
        out + "}\n"
    }

    /// What names get of the variables' equations, and where the sums of neurons go.
    fn variables_back(&self) -> String {
        let through = |name: Name, slopes: &[crate::rule::Slopes<usize>]| -> Vec<Product> {
            let own = slopes.iter().enumerate().flat_map(|(k, slopes)| {
                slopes.iter().filter(|(by, _)| *by == name).map(move |(_, node)| (k, *node))
            });
            own.map(|(k, node)| Product { scale: Some(format!("bar[{k}]")), nodes: vec![node] })
                .collect()
        };
        let Lowered { post_slopes, pre_slopes, .. } = &self.lowered;
        let columns: Vec<_> = self
            .columns
            .iter()
            .enumerate()
            .map(|(c, &name)| (c, through(name, post_slopes)))
            .collect();
        let heading = "post_terms(v: Values, bar: array<f32, POST_SPACE>)";
        let mut out = self.function(heading, self.columns.len().max(1), &columns, "");

        let rows: Vec<_> =
            self.rows.iter().enumerate().map(|(k, &name)| (k, through(name, pre_slopes))).collect();
        let mut to_network = String::new();
        for (k, &parameter) in self.of_network.iter().enumerate() {
            let terms = through(Name::Parameter(parameter), pre_slopes);
            if !terms.is_empty() {
                to_network += "{\n";
                to_network += &self.lets(&terms);
                let add = format!("(*of_network)[{k}] = (*of_network)[{k}] + {};", sum(&terms));
                line(&mut to_network, &add);
                to_network += "}\n";
            }
        }
        let heading = "pre_terms(v: Values, bar: array<f32, PRE_SPACE>, \
                       of_network: ptr<function, array<f32, NETWORK_SUMS>>)";
        out += &self.function(heading, self.rows.len(), &rows, &to_network);

        line(
            &mut out,
            "struct Given { y: f32, z: f32, r: f32, m: f32, s: array<f32, POST_SPACE>, }",
        );
        line(
            &mut out,
            "fn give_columns(found: array<f32, COLUMN_SUMS>, episode: u32, j: u32, \
             of_network: ptr<function, array<f32, NETWORK_SUMS>>) -> Given {",
        );
        line(&mut out, "var given = Given();");
        for (c, &name) in self.columns.iter().enumerate() {
            let own = match name {
                Name::Y => format!("given.y = found[{c}];"),
                Name::Z => format!("given.z = found[{c}];"),
                Name::R => format!("given.r = found[{c}];"),
                Name::M => format!("given.m = found[{c}];"),
                Name::Post(k) => format!("given.s[{k}] = found[{c}];"),
                Name::Parameter(p) => match self.of_network.iter().position(|&known| known == p) {
                    Some(k) => format!("(*of_network)[{k}] = (*of_network)[{k}] + found[{c}];"),
                    None => {
                        format!(
                            "add_rule_bar(episode, {}u + j, found[{c}]);",
                            self.places[p].offset
                        )
                    }
                },
                Name::X | Name::Trace(_) | Name::Pre(_) => unreachable!("no sum over rows"),
            };
            line(&mut out, &own);
        }
        line(&mut out, "return given;\n}");

        let offset = |k: usize| format!("{}u", self.places[k].offset);
        let own: Vec<(usize, String)> = self
            .rows
            .iter()
            .enumerate()
            .filter_map(|(k, name)| match name {
                Name::Parameter(p) => Some((k, offset(*p))),
                _ => None,
            })
            .collect();
        out += &choice("row_parameter", &own);
        let own: Vec<(usize, String)> =
            self.of_network.iter().enumerate().map(|(k, &p)| (k, offset(p))).collect();
        out + &choice("network_parameter", &own)
    }

    /// What a name gets of lambda of the traces.
    fn of_lambda(&self, name: Name) -> Vec<Product> {
        let slopes = self.lowered.trace_slopes.iter().enumerate();
        let own = slopes.flat_map(|(k, slopes)| {
            slopes.iter().filter(|(by, _)| *by == name).map(move |(_, terms)| (k, terms))
        });
        own.flat_map(|(k, terms)| {
            terms.iter().map(move |term| Product::of(Some(format!("lambda[{k}]")), term))
        })
        .collect()
    }

    /// `fn HEADING -> array<f32, n>`, where element k is the sum of its products, after what `more` does.
    fn function(
        &self,
        heading: &str,
        n: usize,
        values: &[(usize, Vec<Product>)],
        more: &str,
    ) -> String {
        let mut out = String::new();
        line(&mut out, &format!("fn {heading} -> array<f32, {n}> {{"));
        let all: Vec<Product> = values.iter().flat_map(|(_, terms)| terms.clone()).collect();
        out += &self.lets(&all);
        line(&mut out, &format!("var out = array<f32, {n}>();"));
        for (k, terms) in values {
            line(&mut out, &format!("out[{k}] = {};", sum(terms)));
        }
        out += more;
        line(&mut out, "return out;\n}");
        out
    }

    /// A `let` for each node that products are made of, in order.
    fn lets(&self, products: &[Product]) -> String {
        let nodes = self.lowered.graph.nodes();
        let mut used = BTreeSet::new();
        let mut waiting: Vec<usize> = products.iter().flat_map(|p| p.nodes.clone()).collect();
        while let Some(k) = waiting.pop() {
            if used.insert(k) {
                waiting.extend(operands(&nodes[k]));
            }
        }
        let mut out = String::new();
        for k in used {
            line(&mut out, &format!("let n{k} = {};", expression(&nodes[k])));
        }
        out
    }
}

/// A product of nodes, and of a number that a shader has.
#[derive(Clone)]
struct Product {
    scale: Option<String>,
    nodes: Vec<usize>,
}

impl Product {
    fn of(scale: Option<String>, term: &Term) -> Self {
        let nodes = [term.connection, term.pre, term.post].into_iter().flatten().collect();
        Product { scale, nodes }
    }

    fn node(node: usize) -> Self {
        Product { scale: None, nodes: vec![node] }
    }
}

fn sum(products: &[Product]) -> String {
    let product = |product: &Product| {
        let nodes = product.nodes.iter().map(|k| format!("n{k}"));
        let factors: Vec<String> = product.scale.iter().cloned().chain(nodes).collect();
        if factors.is_empty() { "1.0".into() } else { factors.join(" * ") }
    };
    let all: Vec<String> = products.iter().map(product).collect();
    if all.is_empty() { "0.0".into() } else { all.join(" + ") }
}

fn operands(node: &Node) -> Vec<usize> {
    match *node {
        Node::Number(_) | Node::Name(_) => Vec::new(),
        Node::Add(a, b) | Node::Subtract(a, b) | Node::Multiply(a, b) | Node::Divide(a, b) => {
            vec![a, b]
        }
        Node::Power(a, _) | Node::Apply(_, a) => vec![a],
        Node::Choose(all) => all.to_vec(),
    }
}

/// A node of nodes that have been written, in WGSL.
fn expression(node: &Node) -> String {
    match *node {
        Node::Number(value) => number(value),
        Node::Name(name) => match name {
            Name::X => "v.x".into(),
            Name::Y => "v.y".into(),
            Name::Z => "v.z".into(),
            Name::R => "v.r".into(),
            Name::M => "v.m".into(),
            Name::Trace(k) => format!("v.h[{k}]"),
            Name::Post(k) => format!("v.s[{k}]"),
            Name::Pre(k) => format!("v.u[{k}]"),
            Name::Parameter(k) => format!("v.p[{k}]"),
        },
        Node::Add(a, b) => format!("n{a} + n{b}"),
        Node::Subtract(a, b) => format!("n{a} - n{b}"),
        Node::Multiply(a, b) => format!("n{a} * n{b}"),
        Node::Divide(a, b) => format!("n{a} / n{b}"),
        Node::Power(a, 2) => format!("n{a} * n{a}"),
        Node::Power(a, 3) => format!("n{a} * n{a} * n{a}"),
        Node::Power(a, n) => format!("whole_power(n{a}, {n}u)"),
        Node::Apply(function, a) => match function {
            Function::Abs => format!("abs(n{a})"),
            Function::Sign => format!("sign(n{a})"),
            Function::Sqrt => format!("sqrt(n{a})"),
            Function::Exp => format!("exp_any(n{a})"),
            Function::Tanh => format!("tanh_own(n{a})"),
            Function::Sigmoid => format!("sigmoid(n{a})"),
            Function::Step => format!("select(0.0, 1.0, n{a} > 0.0)"),
        },
        Node::Choose([a, b, c, d]) => format!("select(n{d}, n{c}, n{a} <= n{b})"),
    }
}

/// A number that f32 has: constants of WGSL may be neither infinite nor, for some compilers, subnormal.
fn number(value: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "rounding is the meaning")]
    let rounded = value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32;
    match rounded {
        // in decimals some compilers find it too large
        f32::MAX => "0x1.fffffep+127f".into(),
        f32::MIN => "-0x1.fffffep+127f".into(),
        rounded if rounded.is_subnormal() => "0f".into(),
        rounded => format!("f32({rounded:?})"),
    }
}

/// A function that chooses a number by an index.
fn choice(name: &str, of: &[(usize, String)]) -> String {
    let mut out = format!("fn {name}(k: u32) -> u32 {{\nswitch (k) {{\n");
    for (k, value) in of {
        line(&mut out, &format!("case {k}u: {{ return {value}; }}"));
    }
    line(&mut out, "default: { return 0u; }\n}\n}");
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}
