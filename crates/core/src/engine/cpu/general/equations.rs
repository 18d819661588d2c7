//! A rule's equations, made ready for sweeps over rows of connections.

use std::cell::RefCell;

use crate::engine::cpu::general::code::{Code, Operand};
use crate::error::Result;
use crate::model::{Network, Tensor};
use crate::rule::{Lowered, Name, Node, Of, Per, Slopes, Term};

/// What is given to the code of the neurons: rows of y, z, r, m, then of the post variables and of the
/// parameters; and of x, the pre variables and the parameters.
pub(super) const POST_GIVEN: usize = 4;
pub(super) const PRE_GIVEN: usize = 1;

/// A product; the numbers are places in the lists of [`Factors`], none is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Product {
    pub(super) connection: Option<usize>,
    pub(super) pre: Option<usize>,
    pub(super) post: Option<usize>,
}

/// The factors of a pass: vectors of the neurons, computed once a step, and of the connections, row by
/// row.
#[derive(Debug, Default)]
pub(super) struct Factors {
    pub(super) post: Code,
    pub(super) n_post: usize,
    pub(super) pre: Code,
    pub(super) n_pre: usize,
    pub(super) connection: Code,
}

/// lambda of a trace times a factor of the connections, and what it is summed into.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) trace: usize,
    pub(super) connection: Option<usize>,
    /// Sums over pre neurons, weighted: number of the sum, and the factor.
    pub(super) columns: Vec<(usize, Option<usize>)>,
    /// Sums over post neurons.
    pub(super) rows: Vec<(usize, Option<usize>)>,
    /// What lambda of a trace before the step gets.
    pub(super) traces: Vec<(usize, Product)>,
    /// What a parameter of the connections gets, by its place in [`Equations::of_connections`].
    pub(super) parameters: Vec<(usize, Product)>,
}

/// What a name gets of a sum, times a factor of the other side.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) name: Name,
    pub(super) sum: usize,
    pub(super) factor: Option<usize>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Equations {
    /// What each parameter is in a network's parameters.
    pub(super) tensors: Vec<(Tensor, Per)>,
    /// Parameters that connections have each.
    pub(super) of_connections: Vec<usize>,
    pub(super) n_traces: usize,
    /// Where the variables start.
    pub(super) post_start: Vec<f64>,
    pub(super) pre_start: Vec<f64>,
    pub(super) reads_r: bool,
    pub(super) reads_m: bool,
    pub(super) forward: Factors,
    /// Each trace after the step.
    pub(super) traces: Vec<Vec<Product>>,
    /// Variables after the step: places among the forward factors.
    pub(super) post: Vec<usize>,
    pub(super) pre: Vec<usize>,
    pub(super) backward: Factors,
    pub(super) streams: Vec<Stream>,
    pub(super) n_columns: usize,
    pub(super) n_rows: usize,
    pub(super) of_columns: Vec<Share>,
    pub(super) of_rows: Vec<Share>,
    /// Traces whose lambda a step leaves as it is.
    pub(super) stays: Vec<bool>,
    /// Derivatives of the variables: places among the backward factors.
    pub(super) post_slopes: Vec<Slopes<usize>>,
    pub(super) pre_slopes: Vec<Slopes<usize>>,
}

/// Lists of factors, each once.
#[derive(Default)]
struct Lists {
    post: RefCell<Vec<usize>>,
    pre: RefCell<Vec<usize>>,
    connection: RefCell<Vec<usize>>,
}

fn place(list: &RefCell<Vec<usize>>, node: usize) -> usize {
    let mut list = list.borrow_mut();
    list.iter().position(|&known| known == node).unwrap_or_else(|| {
        list.push(node);
        list.len() - 1
    })
}

impl Lists {
    fn product(&self, term: &Term) -> Product {
        Product {
            connection: term.connection.map(|k| place(&self.connection, k)),
            pre: term.pre.map(|k| place(&self.pre, k)),
            post: term.post.map(|k| place(&self.post, k)),
        }
    }

    /// The code of all that was listed.
    fn factors(self, lowered: &Lowered, sizes: Sizes<'_>) -> Factors {
        let graph = &lowered.graph;
        let is_number = |k: usize| matches!(graph.nodes()[k], Node::Number(_));
        // first, for it lists factors of neurons too
        let connection = Code::new(graph, &self.connection.borrow(), &|k| match lowered.of[k] {
            _ if is_number(k) => None,
            Of::Post | Of::Network => Some(Operand::Post(place(&self.post, k))),
            Of::Pre => Some(Operand::One(place(&self.pre, k))),
            Of::Connection => match graph.nodes()[k] {
                Node::Name(Name::Trace(k)) => Some(Operand::Row(k)),
                Node::Name(Name::Parameter(k)) => {
                    let at = sizes.of_connections.iter().position(|&known| known == k);
                    Some(Operand::Row(sizes.n_traces + at.expect("one of a connection")))
                }
                _ => None,
            },
        });
        let name = |k: usize| match graph.nodes()[k] {
            Node::Name(name) => Some(name),
            _ => None,
        };
        let (post, pre) = (self.post.into_inner(), self.pre.into_inner());
        Factors {
            n_post: post.len(),
            post: Code::new(graph, &post, &|k| {
                name(k).map(|name| Operand::Row(sizes.of_post(name)))
            }),
            n_pre: pre.len(),
            pre: Code::new(graph, &pre, &|k| name(k).map(|name| Operand::Row(sizes.of_pre(name)))),
            connection,
        }
    }
}

/// How many there are of what rows are given for.
#[derive(Clone, Copy)]
struct Sizes<'a> {
    n_traces: usize,
    n_post: usize,
    n_pre: usize,
    of_connections: &'a [usize],
}

impl Sizes<'_> {
    /// The row that a name is given in to the code of the post neurons.
    fn of_post(self, name: Name) -> usize {
        match name {
            Name::Y => 0,
            Name::Z => 1,
            Name::R => 2,
            Name::M => 3,
            Name::Post(k) => POST_GIVEN + k,
            Name::Parameter(k) => POST_GIVEN + self.n_post + k,
            Name::X | Name::Trace(_) | Name::Pre(_) => unreachable!("no name of a post neuron"),
        }
    }

    fn of_pre(self, name: Name) -> usize {
        match name {
            Name::X => 0,
            Name::Pre(k) => PRE_GIVEN + k,
            Name::Parameter(k) => PRE_GIVEN + self.n_pre + k,
            _ => unreachable!("no name of a pre neuron"),
        }
    }
}

/// Whether a name belongs to pre neurons, in an equation of a trace.
fn is_pre(name: Name, per: impl Fn(usize) -> Per) -> bool {
    match name {
        Name::X | Name::Pre(_) => true,
        Name::Parameter(k) => per(k) == Per::Pre,
        _ => false,
    }
}

impl Equations {
    /// Those of a network's rule.
    ///
    /// # Errors
    /// A rule that is not known.
    pub(crate) fn new(network: &Network) -> Result<Self> {
        let (program, tensors) = network.program()?;
        let per: Vec<Per> = tensors.iter().map(|&(_, per)| per).collect();
        let lowered = program.lower(&per);
        let of_connections: Vec<usize> =
            (0..per.len()).filter(|&k| per[k] == Per::Connection).collect();
        let sizes = Sizes {
            n_traces: program.traces().len(),
            n_post: program.post().len(),
            n_pre: program.pre().len(),
            of_connections: &of_connections,
        };
        let lists = Lists::default();
        let products = |lists: &Lists, terms: &[Term]| -> Vec<Product> {
            terms.iter().map(|term| lists.product(term)).collect()
        };
        let traces = lowered.traces.iter().map(|terms| products(&lists, terms)).collect();
        let post = lowered.post.iter().map(|&k| place(&lists.post, k)).collect();
        let pre = lowered.pre.iter().map(|&k| place(&lists.pre, k)).collect();
        let forward = lists.factors(&lowered, sizes);

        let lists = Lists::default();
        let mut streams = Streams::default();
        for (trace, slopes) in lowered.trace_slopes.iter().enumerate() {
            for (name, terms) in slopes {
                for product in products(&lists, terms) {
                    streams.add(trace, *name, product, |k| per[k]);
                }
            }
        }
        let of = |k: usize| of_connections.iter().position(|&known| known == k);
        for (parameter, _) in streams.all.iter_mut().flat_map(|s| &mut s.parameters) {
            *parameter = of(*parameter).expect("one of a connection");
        }
        let slopes = |list: &RefCell<Vec<usize>>, slopes: &[Slopes<usize>]| {
            let places = |one: &Slopes<usize>| {
                one.iter().map(|&(name, node)| (name, place(list, node))).collect()
            };
            slopes.iter().map(places).collect::<Vec<Slopes<usize>>>()
        };
        let post_slopes = slopes(&lists.post, &lowered.post_slopes);
        let pre_slopes = slopes(&lists.pre, &lowered.pre_slopes);
        let backward = lists.factors(&lowered, sizes);
        let stays = (0..sizes.n_traces).map(|trace| streams.leaves(trace)).collect();
        let starts = |states: &[crate::rule::State]| states.iter().map(|s| s.start).collect();
        Ok(Equations {
            n_traces: sizes.n_traces,
            post_start: starts(program.post()),
            pre_start: starts(program.pre()),
            reads_r: program.reads(Name::R),
            reads_m: program.reads(Name::M),
            tensors,
            forward,
            traces,
            post,
            pre,
            backward,
            streams: streams.all,
            n_columns: streams.n_columns,
            n_rows: streams.n_rows,
            of_columns: streams.of_columns,
            of_rows: streams.of_rows,
            stays,
            post_slopes,
            pre_slopes,
            of_connections,
        })
    }
}

/// Streams, each once.
#[derive(Default)]
struct Streams {
    all: Vec<Stream>,
    n_columns: usize,
    n_rows: usize,
    of_columns: Vec<Share>,
    of_rows: Vec<Share>,
}

impl Streams {
    /// Adds what `name` gets of lambda of a trace.
    fn add(&mut self, trace: usize, name: Name, product: Product, per: impl Fn(usize) -> Per) {
        let connection = product.connection;
        let known = self.all.iter().position(|s| s.trace == trace && s.connection == connection);
        let at = known.unwrap_or_else(|| {
            let (columns, rows, traces) = (Vec::new(), Vec::new(), Vec::new());
            let parameters = Vec::new();
            self.all.push(Stream { trace, connection, columns, rows, traces, parameters });
            self.all.len() - 1
        });
        let stream = &mut self.all[at];
        let sum_of = |list: &mut Vec<(usize, Option<usize>)>, n: &mut usize, factor| {
            let known = list.iter().find(|(_, known)| *known == factor);
            known.map(|(sum, _)| *sum).unwrap_or_else(|| {
                list.push((*n, factor));
                *n += 1;
                *n - 1
            })
        };
        match name {
            Name::Trace(to) => stream.traces.push((to, product)),
            Name::Parameter(k) if per(k) == Per::Connection => {
                stream.parameters.push((k, product));
            }
            name if is_pre(name, &per) => {
                let sum = sum_of(&mut stream.rows, &mut self.n_rows, product.post);
                self.of_rows.push(Share { name, sum, factor: product.pre });
            }
            name => {
                let sum = sum_of(&mut stream.columns, &mut self.n_columns, product.pre);
                self.of_columns.push(Share { name, sum, factor: product.post });
            }
        }
    }

    /// Whether lambda of a trace before a step is that after it.
    fn leaves(&self, trace: usize) -> bool {
        let all = self.all.iter().flat_map(|s| s.traces.iter().map(move |t| (s.trace, t)));
        let mut own = all.filter(|(_, (to, _))| *to == trace);
        let one = Product { connection: None, pre: None, post: None };
        matches!((own.next(), own.next()), (Some((from, &(_, p))), None) if from == trace && p == one)
    }
}
