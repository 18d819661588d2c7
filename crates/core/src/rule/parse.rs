//! The text of an expression as a graph, with the place of what is wrong.

use crate::error::one_of;
use crate::rule::expression::{Function, Graph, Name, Node};

/// The longest expression, in bytes.
pub(super) const LONGEST: usize = 4096;
/// Parentheses, calls and signs within each other.
const DEEPEST: usize = 64;

/// What is wrong, and where in the expression, in bytes.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) found: String,
    pub(super) wanted: String,
}

/// A name in an expression: its meaning and where it stands.
pub(super) struct Seen {
    pub(super) at: usize,
    pub(super) name: Name,
}

/// Reads an expression.
pub(super) struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    graph: &'a mut Graph,
    /// Names that mean something here.
    known: &'a [(String, Name)],
    /// Names, in the order in which they stand.
    pub(super) seen: Vec<Seen>,
    /// Denominators and where they stand.
    pub(super) denominators: Vec<(usize, usize)>,
}

/// Functions of two or three numbers, or that are choices.
const OTHERS: [(&str, usize); 4] = [("min", 2), ("max", 2), ("clip", 3), ("relu", 1)];

/// The names of all functions.
pub(super) fn functions() -> Vec<&'static str> {
    let one = Function::ALL.iter().map(|(name, _)| *name);
    one.chain(OTHERS.iter().map(|(name, _)| *name)).collect()
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str, graph: &'a mut Graph, known: &'a [(String, Name)]) -> Self {
        let (seen, denominators) = (Vec::new(), Vec::new());
        Parser { text, at: 0, depth: 0, graph, known, seen, denominators }
    }

    /// The whole text.
    pub(super) fn whole(&mut self) -> Result<usize, Fault> {
        if self.text.len() > LONGEST {
            let found = format!("{} bytes", self.text.len());
            return Err(Fault { at: 0, found, wanted: format!("at most {LONGEST}") });
        }
        let value = self.sum()?;
        match self.peek() {
            None => Ok(value),
            Some(_) => Err(self.fault("an operator or the end")),
        }
    }

    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn fault(&mut self, wanted: &str) -> Fault {
        let found = match self.peek() {
            None => "the end".into(),
            Some(_) => {
                let rest = &self.text[self.at..];
                format!("'{}'", rest.chars().next().unwrap_or_default())
            }
        };
        Fault { at: self.at, found, wanted: wanted.into() }
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.depth == DEEPEST {
            let found = format!("more than {DEEPEST} parentheses, calls or signs in each other");
            return Err(Fault { at: self.at, found, wanted: "a flatter expression".into() });
        }
        self.depth += 1;
        let out = inner(self);
        self.depth -= 1;
        out
    }

    fn sum(&mut self) -> Result<usize, Fault> {
        let mut value = self.product()?;
        loop {
            if self.take(b'+') {
                let next = self.product()?;
                value = self.graph.node(Node::Add(value, next));
            } else if self.take(b'-') {
                let next = self.product()?;
                value = self.graph.node(Node::Subtract(value, next));
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Result<usize, Fault> {
        let mut value = self.signed()?;
        loop {
            if self.take(b'*') {
                let next = self.signed()?;
                value = self.graph.node(Node::Multiply(value, next));
            } else if self.take(b'/') {
                self.peek();
                let at = self.at;
                let next = self.signed()?;
                self.denominators.push((at, next));
                value = self.graph.node(Node::Divide(value, next));
            } else {
                return Ok(value);
            }
        }
    }

    fn signed(&mut self) -> Result<usize, Fault> {
        if self.take(b'-') {
            let value = self.deeper(Self::signed)?;
            let zero = self.graph.number(0.0);
            return Ok(self.graph.node(Node::Subtract(zero, value)));
        }
        if self.take(b'+') {
            return self.deeper(Self::signed);
        }
        self.power()
    }

    fn power(&mut self) -> Result<usize, Fault> {
        let mut value = self.atom()?;
        while self.take(b'^') {
            self.peek();
            let at = self.at;
            let digits = self.digits();
            let exponent = digits.parse::<u32>().ok().filter(|&n| n <= 1024);
            // 2.5 and 1e3 are no whole numbers
            let more = matches!(self.text.as_bytes().get(self.at), Some(b'.' | b'e' | b'E'));
            let Some(exponent) = exponent.filter(|_| !more) else {
                self.at = at;
                return Err(self.fault("a whole number from 0 to 1024 as exponent"));
            };
            value = self.graph.node(Node::Power(value, exponent));
        }
        Ok(value)
    }

    fn digits(&mut self) -> &'a str {
        let from = self.at;
        while self.text.as_bytes().get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        &self.text[from..self.at]
    }

    fn number(&mut self) -> Result<usize, Fault> {
        let from = self.at;
        self.digits();
        if self.text.as_bytes().get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits();
        }
        if matches!(self.text.as_bytes().get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.text.as_bytes().get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits();
        }
        let text = &self.text[from..self.at];
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(self.graph.number(value)),
            _ => Err(Fault {
                at: from,
                found: format!("the number {text}"),
                wanted: "a finite number such as 1, 0.5 or 1e-3".into(),
            }),
        }
    }

    fn atom(&mut self) -> Result<usize, Fault> {
        match self.peek() {
            Some(b'(') => {
                self.at += 1;
                let value = self.deeper(Self::sum)?;
                if self.take(b')') { Ok(value) } else { Err(self.fault("')'")) }
            }
            Some(byte) if byte.is_ascii_digit() || byte == b'.' => self.number(),
            Some(byte) if byte.is_ascii_alphabetic() || byte == b'_' => self.named(),
            _ => Err(self.fault("a number, a name or '('")),
        }
    }

    fn named(&mut self) -> Result<usize, Fault> {
        let from = self.at;
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        while self.text.as_bytes().get(self.at).is_some_and(is_part) {
            self.at += 1;
        }
        let name = &self.text[from..self.at];
        if self.peek() == Some(b'(') {
            return self.call(from, name);
        }
        if let Some((_, meaning)) = self.known.iter().find(|(known, _)| known == name) {
            self.seen.push(Seen { at: from, name: *meaning });
            return Ok(self.graph.node(Node::Name(*meaning)));
        }
        if functions().contains(&name) {
            return Err(self.fault(&format!("'(' after the function {name}")));
        }
        let known: Vec<&str> = self.known.iter().map(|(name, _)| name.as_str()).collect();
        let wanted = one_of(name, &known);
        Err(Fault { at: from, found: format!("the unknown name {name}"), wanted })
    }

    fn call(&mut self, from: usize, name: &str) -> Result<usize, Fault> {
        let function = Function::ALL.iter().find(|(known, _)| *known == name);
        let other = OTHERS.iter().find(|(known, _)| *known == name);
        let n = match (function, other) {
            (Some(_), _) => 1,
            (_, Some((_, n))) => *n,
            _ => {
                let wanted = one_of(name, &functions());
                let found = format!("the unknown function {name}");
                return Err(Fault { at: from, found, wanted });
            }
        };
        self.at += 1;
        let mut values = Vec::new();
        for k in 0..n {
            if k > 0 && !self.take(b',') {
                return Err(self.fault(&format!("',': {name} takes {n} numbers")));
            }
            values.push(self.deeper(Self::sum)?);
        }
        if !self.take(b')') {
            return Err(self
                .fault(&format!("')': {name} takes {n} number{}", if n > 1 { "s" } else { "" })));
        }
        if let Some((_, function)) = function {
            return Ok(self.graph.node(Node::Apply(*function, values[0])));
        }
        // a tie takes the first, also its derivative
        Ok(match (name, &values[..]) {
            ("min", &[a, b]) => self.graph.node(Node::Choose([a, b, a, b])),
            ("max", &[a, b]) => self.graph.node(Node::Choose([b, a, a, b])),
            ("clip", &[v, low, high]) => {
                let below = self.graph.node(Node::Choose([v, high, v, high]));
                self.graph.node(Node::Choose([low, v, below, low]))
            }
            (_, &[v, ..]) => {
                let zero = self.graph.number(0.0);
                self.graph.node(Node::Choose([zero, v, v, zero]))
            }
            _ => unreachable!("each function takes a number or more"),
        })
    }
}
