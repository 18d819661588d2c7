//! Expressions of a rule over rows of neurons or connections: each node is one loop over a row.

use std::collections::HashMap;

use crate::model::Scalar;
use crate::rule::{Function, Graph, Node};

/// What an instruction reads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operand {
    /// A number of the rule's text.
    Number(f64),
    /// One number for the row.
    One(usize),
    /// A row that is given.
    Row(usize),
    /// A vector of the post neurons, of which the row is a part.
    Post(usize),
    /// What an earlier instruction left.
    Register(usize),
}

#[derive(Clone, Copy, Debug)]
enum Does {
    Add,
    Subtract,
    Multiply,
    Divide,
    Power(i32),
    Apply(Function),
    Choose,
}

/// Leaves its result in the register of its own number.
#[derive(Clone, Copy, Debug)]
struct Instruction {
    does: Does,
    reads: [Operand; 4],
}

/// Some nodes of a graph, to be computed for a row at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct Code {
    instructions: Vec<Instruction>,
    outputs: Vec<Operand>,
}

/// A row, or one number for all of it.
#[derive(Clone, Copy)]
pub(super) enum Value<'a, S> {
    One(S),
    Row(&'a [S]),
}

/// What is given for a row.
#[derive(Clone, Copy)]
pub(super) struct Given<'a, S> {
    /// Single numbers.
    pub(super) ones: &'a [S],
    /// Rows of `len` numbers or more.
    pub(super) rows: &'a [&'a [S]],
    /// Vectors of the post neurons, `[vectors, stride]`, which the row stands for from `first` on.
    pub(super) posts: &'a [S],
    pub(super) stride: usize,
    pub(super) first: usize,
    pub(super) len: usize,
}

impl<'a, S> Given<'a, S> {
    /// The row's part of a vector of the post neurons.
    #[inline(always)]
    pub(super) fn post(&self, k: usize) -> &'a [S] {
        &self.posts[k * self.stride + self.first..][..self.len]
    }
}

impl Code {
    /// The nodes `roots`, where `given` tells what is not computed here.
    pub(super) fn new(
        graph: &Graph,
        roots: &[usize],
        given: &impl Fn(usize) -> Option<Operand>,
    ) -> Self {
        let mut code = Code::default();
        let mut known = HashMap::new();
        code.outputs = roots.iter().map(|&k| code.operand(graph, k, given, &mut known)).collect();
        code
    }

    fn operand(
        &mut self,
        graph: &Graph,
        k: usize,
        given: &impl Fn(usize) -> Option<Operand>,
        known: &mut HashMap<usize, Operand>,
    ) -> Operand {
        if let Some(&operand) = known.get(&k) {
            return operand;
        }
        let operand = match (given(k), graph.nodes()[k]) {
            (Some(operand), _) => operand,
            (None, Node::Number(value)) => Operand::Number(value),
            (None, node) => {
                let (does, nodes) = match node {
                    Node::Add(a, b) => (Does::Add, [a, b, a, a]),
                    Node::Subtract(a, b) => (Does::Subtract, [a, b, a, a]),
                    Node::Multiply(a, b) => (Does::Multiply, [a, b, a, a]),
                    Node::Divide(a, b) => (Does::Divide, [a, b, a, a]),
                    Node::Power(a, n) => {
                        (Does::Power(i32::try_from(n).unwrap_or(i32::MAX)), [a; 4])
                    }
                    Node::Apply(function, a) => (Does::Apply(function), [a; 4]),
                    Node::Choose(all) => (Does::Choose, all),
                    Node::Number(_) | Node::Name(_) => unreachable!("names are given"),
                };
                let reads = nodes.map(|k| self.operand(graph, k, given, known));
                self.instructions.push(Instruction { does, reads });
                Operand::Register(self.instructions.len() - 1)
            }
        };
        known.insert(k, operand);
        operand
    }

    /// Registers that it needs, a row each.
    pub(super) fn n_registers(&self) -> usize {
        self.instructions.len()
    }

    /// Computes all registers.
    #[inline(always)]
    pub(super) fn run<S: Scalar>(&self, given: Given<'_, S>, registers: &mut [S]) {
        let len = given.len;
        for (k, instruction) in self.instructions.iter().enumerate() {
            let (before, out) = registers.split_at_mut(k * len);
            let out = &mut out[..len];
            let read = |operand| value(operand, given, before);
            let [a, b, c, d] = instruction.reads;
            match instruction.does {
                Does::Add => each_two(out, read(a), read(b), |a, b| a + b),
                Does::Subtract => each_two(out, read(a), read(b), |a, b| a - b),
                Does::Multiply => each_two(out, read(a), read(b), |a, b| a * b),
                Does::Divide => each_two(out, read(a), read(b), |a, b| a / b),
                Does::Power(2) => each_one(out, read(a), |a| a * a),
                Does::Power(n) => each_one(out, read(a), |a| power(a, n)),
                Does::Apply(function) => apply(function, out, read(a)),
                Does::Choose => choose(out, [read(a), read(b), read(c), read(d)]),
            }
        }
    }

    /// What an output is, after [`Code::run`].
    #[inline(always)]
    pub(super) fn output<'a, S: Scalar>(
        &self,
        k: usize,
        given: Given<'a, S>,
        registers: &'a [S],
    ) -> Value<'a, S> {
        value(self.outputs[k], given, registers)
    }
}

#[inline(always)]
fn value<'a, S: Scalar>(operand: Operand, given: Given<'a, S>, registers: &'a [S]) -> Value<'a, S> {
    match operand {
        Operand::Number(value) => Value::One(S::from_f64(value)),
        Operand::One(k) => Value::One(given.ones[k]),
        Operand::Row(k) => Value::Row(&given.rows[k][..given.len]),
        Operand::Post(k) => Value::Row(given.post(k)),
        Operand::Register(k) => Value::Row(&registers[k * given.len..][..given.len]),
    }
}

// Rows are padded, so that these loops, which the compiler makes vectors of, leave no rest.

#[inline(always)]
fn each_one<S: Scalar>(out: &mut [S], a: Value<'_, S>, f: impl Fn(S) -> S) {
    match a {
        Value::One(a) => out.fill(f(a)),
        Value::Row(a) => out.iter_mut().zip(a).for_each(|(out, &a)| *out = f(a)),
    }
}

#[inline(always)]
fn each_two<S: Scalar>(
    out: &mut [S],
    a: Value<'_, S>,
    b: Value<'_, S>,
    f: impl Fn(S, S) -> S + Copy,
) {
    match (a, b) {
        (Value::One(a), Value::One(b)) => out.fill(f(a, b)),
        (Value::Row(a), Value::One(b)) => each_one(out, Value::Row(a), |a| f(a, b)),
        (Value::One(a), Value::Row(b)) => each_one(out, Value::Row(b), |b| f(a, b)),
        (Value::Row(a), Value::Row(b)) => {
            out.iter_mut().zip(a).zip(b).for_each(|((out, &a), &b)| *out = f(a, b));
        }
    }
}

/// c where a <= b, else d; a and b first, as 0 or 1 in `out`.
#[inline(always)]
fn choose<S: Scalar>(out: &mut [S], [a, b, c, d]: [Value<'_, S>; 4]) {
    each_two(out, a, b, |a, b| if a <= b { S::ONE } else { S::ZERO });
    let pick = |chosen: S, c: S, d: S| if chosen == S::ONE { c } else { d };
    match (c, d) {
        (Value::One(c), Value::One(d)) => {
            out.iter_mut().for_each(|out| *out = pick(*out, c, d));
        }
        (Value::Row(c), Value::One(d)) => {
            out.iter_mut().zip(c).for_each(|(out, &c)| *out = pick(*out, c, d));
        }
        (Value::One(c), Value::Row(d)) => {
            out.iter_mut().zip(d).for_each(|(out, &d)| *out = pick(*out, c, d));
        }
        (Value::Row(c), Value::Row(d)) => {
            out.iter_mut().zip(c).zip(d).for_each(|((out, &c), &d)| *out = pick(*out, c, d));
        }
    }
}

#[inline(always)]
fn apply<S: Scalar>(function: Function, out: &mut [S], a: Value<'_, S>) {
    match function {
        Function::Abs => each_one(out, a, S::abs),
        Function::Sign => each_one(out, a, |a| {
            if a > S::ZERO {
                S::ONE
            } else if a < S::ZERO {
                -S::ONE
            } else {
                a
            }
        }),
        Function::Sqrt => each_one(out, a, S::sqrt),
        Function::Exp => each_one(out, a, exp),
        Function::Tanh => each_one(out, a, S::tanh),
        Function::Sigmoid => each_one(out, a, |a| {
            let small = (-a.abs()).exp_neg();
            let top = if a < S::ZERO { small } else { S::ONE };
            top / (S::ONE + small)
        }),
        Function::Step => each_one(out, a, |a| if a > S::ZERO { S::ONE } else { S::ZERO }),
    }
}

/// e^a, in f32 at the most e^60: derivatives multiply and divide by it, and infinity would make them no
/// number.
#[inline(always)]
fn exp<S: Scalar>(a: S) -> S {
    let most = S::from_f64(if size_of::<S>() == 4 { 60.0 } else { 700.0 });
    let size = a.abs();
    let small = (-if a > S::ZERO && size > most { most } else { size }).exp_neg();
    if a > S::ZERO { S::ONE / small } else { small }
}

/// a to the power n >= 0, by squaring.
#[inline(always)]
fn power<S: Scalar>(mut a: S, mut n: i32) -> S {
    let mut out = S::ONE;
    while n > 0 {
        if n & 1 == 1 {
            out = out * a;
        }
        a = a * a;
        n >>= 1;
    }
    out
}
