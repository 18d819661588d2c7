//! What a rule is, proved from its text.

use std::collections::{BTreeSet, HashMap};

use super::{Name, Node, Per, Program};

/// The kinds of rules: which plans may run one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Every trace becomes a sum of traces, x, pre variables and 1, with coefficients that belong to the
    /// post-synaptic neuron.
    Affine,
    /// Such a sum, clipped between two numbers.
    Clipped,
    /// Anything else; says what stands in the way.
    General(String),
}

impl Class {
    /// The name in tables.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Class::Affine => "affine",
            Class::Clipped => "clipped affine",
            Class::General(_) => "general",
        }
    }
}

/// What a sum is over; of post-synaptic names alone it is over `One`.
type Terms = BTreeSet<Option<Name>>;

impl Program {
    /// The rule's class.
    #[must_use]
    pub fn class(&self) -> Class {
        if self.reads(Name::R) {
            return Class::General("r, the sum over a column of H".into());
        }
        let mut clipped = false;
        for trace in &self.traces {
            let (node, own) = match self.clip_of(trace.next) {
                Some(inner) => (inner, true),
                None => (trace.next, false),
            };
            clipped |= own;
            if let Err(why) = self.terms(node, &mut HashMap::new()) {
                return Class::General(format!("{} in the equation of {}", why, trace.name));
            }
        }
        if clipped { Class::Clipped } else { Class::Affine }
    }

    /// What is clipped between two numbers, if node `k` is a clip.
    fn clip_of(&self, k: usize) -> Option<usize> {
        let nodes = self.graph.nodes();
        let Node::Choose([low, v, below, other]) = nodes[k] else { return None };
        let Node::Choose([v2, high, v3, high2]) = nodes[below] else { return None };
        let number = |k: usize| matches!(nodes[k], Node::Number(_));
        let same = low == other && v == v2 && v == v3 && high == high2;
        (same && number(low) && number(high)).then_some(v)
    }

    /// The terms of an affine expression, or what is in the way; each node once.
    fn terms(&self, k: usize, known: &mut HashMap<usize, Terms>) -> Result<Terms, String> {
        if let Some(terms) = known.get(&k) {
            return Ok(terms.clone());
        }
        let terms = self.terms_of(k, known)?;
        known.insert(k, terms.clone());
        Ok(terms)
    }

    fn terms_of(&self, k: usize, known: &mut HashMap<usize, Terms>) -> Result<Terms, String> {
        let one = || Terms::from([None]);
        let is_post = |terms: &Terms| terms.iter().all(Option::is_none);
        let shown = |k: usize| self.show(k);
        Ok(match self.graph.nodes()[k] {
            Node::Number(_) => one(),
            Node::Name(name) => match name {
                Name::Trace(_) | Name::X | Name::Pre(_) => Terms::from([Some(name)]),
                Name::Parameter(p) if self.parameters[p].per.contains(&Per::Connection) => {
                    return Err(format!("{}, which connections have each", shown(k)));
                }
                Name::Parameter(p) if self.parameters[p].per.contains(&Per::Pre) => {
                    return Err(format!("{}, which pre-synaptic neurons have each", shown(k)));
                }
                _ => one(),
            },
            Node::Add(a, b) | Node::Subtract(a, b) => {
                let (mut a, b) = (self.terms(a, known)?, self.terms(b, known)?);
                a.extend(b);
                a
            }
            Node::Multiply(a, b) => {
                let (left, right) = (self.terms(a, known)?, self.terms(b, known)?);
                match (is_post(&left), is_post(&right)) {
                    (true, _) => right,
                    (_, true) => left,
                    _ => return Err(format!("the product {}", shown(k))),
                }
            }
            Node::Divide(a, b) => {
                if !is_post(&self.terms(b, known)?) {
                    return Err(format!("the denominator {}", shown(b)));
                }
                self.terms(a, known)?
            }
            Node::Power(a, _) | Node::Apply(_, a) => {
                if !is_post(&self.terms(a, known)?) {
                    return Err(format!("{}, which is not linear", shown(k)));
                }
                one()
            }
            Node::Choose(all) => {
                for part in all {
                    if !is_post(&self.terms(part, known)?) {
                        return Err(format!("{}, which is not linear", shown(k)));
                    }
                }
                one()
            }
        })
    }
}
