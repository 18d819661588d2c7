//! Case files: one batch of episodes with a network and a loss, as safetensors.
//! See the README for the tensors and their shapes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::engine::{Gradients, Outputs};
use crate::error::{Error, Result, one_of, resembles};
use crate::files;
use crate::model::{
    Activation, AlphaSharing, Episodes, Leak, Linear, Loss, NO_ROW, Network, OutputLoss,
    Parameters, RuleText, Scalar, Shape, Sharing, Signals, Stages, Tensor,
};
use crate::rule::{Per, Program};
use crate::task::Measure;
pub use crate::tensors::Source;
use crate::tensors::{Output, Tensors, write};

/// Tensors that a case may hold, beside those of a rule's text.
const TENSORS: [&str; 31] = [
    "w",
    "alpha",
    "eta",
    "mod.w",
    "mod.b",
    "fanout.w",
    "fanout.b",
    "bias",
    "leak",
    "mask",
    "in.w",
    "in.b",
    "out.w",
    "out.b",
    "input",
    "clamp",
    "pre",
    "y0",
    "v0",
    "h0",
    "e0",
    "obs",
    "m.input",
    "gate.reset",
    "target",
    "loss_weight",
    "out.target",
    "out.loss_weight",
    "dy",
    "dh",
    "dout",
];

/// Those that are no numbers to have a gradient.
const FIXED: [&str; 10] = [
    "clamp",
    "mask",
    "gate.reset",
    "target",
    "loss_weight",
    "out.target",
    "out.loss_weight",
    "dy",
    "dh",
    "dout",
];

const KEYS: [&str; 9] =
    ["rule", "rule.text", "activation", "loss", "clip", "error", "leak", "out.loss", "truncate"];

/// A case file in memory.
#[derive(Clone, Debug)]
pub struct Case<S> {
    /// The population.
    pub network: Network,
    /// Its parameters.
    pub parameters: Parameters<S>,
    /// The batch.
    pub episodes: Episodes<S>,
    /// What an error counts, where the file says.
    pub measure: Option<Measure>,
    /// What the file holds that nothing here reads.
    pub notes: Vec<String>,
    /// Shapes of the tensors that were read.
    shapes: Vec<(String, Vec<usize>)>,
}

/// A result of a case, with its name and shape.
#[derive(Clone, Debug)]
pub struct Named<S> {
    /// The name in files: `y`, `h`, `grad.w`, ... .
    pub name: String,
    /// The shape.
    pub shape: Vec<usize>,
    /// The numbers, row-major.
    pub values: Vec<S>,
}

/// Reads a tensor of one of the shapes wanted.
struct Reader<'a, T> {
    tensors: &'a T,
    shapes: Vec<(String, Vec<usize>)>,
}

impl<T: Source> Reader<'_, T> {
    fn shape_of(&self, name: &str, axes: &str) -> Result<Vec<usize>> {
        let shape = self.tensors.shape(name)?;
        let n_axes = axes.split(',').count();
        if shape.len() != n_axes {
            return Err(Error::tensor(name, format!("shape {shape:?}"), format!("axes [{axes}]")));
        }
        if shape.contains(&0) {
            return Err(Error::tensor(name, format!("shape {shape:?}"), "no size of zero"));
        }
        Ok(shape)
    }

    fn read<S: Scalar>(&mut self, name: &str, shapes: &[Vec<usize>]) -> Result<Vec<S>> {
        let shape = self.tensors.shape(name)?;
        if !shapes.contains(&shape) {
            let mut wanted = shapes.to_vec();
            wanted.dedup();
            return Err(Error::Shape { name: name.into(), found: shape, wanted });
        }
        let values = self.tensors.read(name)?;
        self.shapes.push((name.into(), shape));
        Ok(values)
    }

    /// Data of the episodes, of each network or, where the first axis is 1, of all alike.
    fn read_data<S: Scalar>(&mut self, name: &str, shape: &[usize]) -> Result<Vec<S>> {
        let mut one = shape.to_vec();
        one[0] = 1;
        let values = self.read(name, &[shape.to_vec(), one])?;
        let times = shape.iter().product::<usize>() / values.len();
        Ok(if times > 1 { values.repeat(times) } else { values })
    }

    fn read_if_there<S: Scalar>(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<S>>> {
        if self.tensors.has(name) { self.read_data(name, shape).map(Some) } else { Ok(None) }
    }
}

/// The sizes of a case.
struct Sizes {
    p: usize,
    m: usize,
    n: usize,
    b: usize,
    t: usize,
    recurrent: bool,
}

/// Tensors of parameters, each `[P, ...]`.
type Values<S> = Vec<(Tensor, Vec<S>)>;

impl<T: Source> Reader<'_, T> {
    fn sizes(&self) -> Result<Sizes> {
        let w_shape = self.shape_of("w", "P, M, N")?;
        let [p, m, n] = w_shape[..] else { unreachable!("three axes were checked") };
        let name =
            if self.tensors.has("input") || !self.tensors.has("obs") { "input" } else { "obs" };
        let axes = if name == "input" { "P, B, T, N" } else { "P, B, T, K" };
        let input_shape = self.shape_of(name, axes)?;
        let [_, b, t, _] = input_shape[..] else { unreachable!("four axes were checked") };
        let recurrent = !self.tensors.has("pre");
        if recurrent && m != n {
            return Err(Error::tensor(
                "w",
                format!("shape {w_shape:?}"),
                "M = N, because without `pre` the layer is recurrent",
            ));
        }
        Ok(Sizes { p, m, n, b, t, recurrent })
    }

    /// The parameters of a rule's text; `by_name` of one that comes with the program.
    fn rule_parameters<S: Scalar>(
        &mut self,
        program: Program,
        by_name: bool,
        sizes: &Sizes,
    ) -> Result<(RuleText, Values<S>)> {
        let Sizes { p, m, n, .. } = *sizes;
        let shape_of = |per: &Per| match per {
            Per::Network => vec![p, 1],
            Per::Neuron => vec![p, n],
            Per::Pre => vec![p, m],
            Per::Connection => vec![p, m, n],
        };
        let (mut per, mut names, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (k, parameter) in program.parameters().iter().enumerate() {
            let name = RuleText::parameter_name(&program, by_name, &parameter.name);
            let shapes: Vec<Vec<usize>> = parameter.per.iter().map(shape_of).collect();
            values.push((Tensor::OfRule(k), self.read(&name, &shapes)?));
            let found = self.tensors.shape(&name)?;
            let at = shapes.iter().position(|shape| *shape == found).unwrap_or(0);
            per.push(parameter.per[at]);
            names.push(name);
        }
        Ok((RuleText { program: Arc::new(program), per, names }, values))
    }

    /// The modulator's read-out and fan-out: all of it or nothing, and then m is given.
    fn modulator<S: Scalar>(&mut self, network: &mut Network, sizes: &Sizes) -> Result<Values<S>> {
        let Sizes { p, n, .. } = *sizes;
        let tensors = [
            (Tensor::ModW, vec![p, n]),
            (Tensor::ModB, vec![p]),
            (Tensor::FanoutW, vec![p, n]),
            (Tensor::FanoutB, vec![p, n]),
        ];
        let there = tensors.iter().filter(|(tensor, _)| self.tensors.has(tensor.name())).count();
        if there == 0 && (!network.reads_m() || self.tensors.has("m.input")) {
            network.stages.given_m = network.reads_m();
            return Ok(Vec::new());
        }
        let one = |(tensor, shape): (Tensor, Vec<usize>)| {
            Ok((tensor, self.read::<S>(tensor.name(), &[shape])?))
        };
        tensors.into_iter().map(one).collect()
    }

    /// What stands around the core.
    fn stages<S: Scalar>(
        &mut self,
        network: &mut Network,
        metadata: &HashMap<String, String>,
        sizes: &Sizes,
    ) -> Result<Values<S>> {
        let Sizes { p, n, .. } = *sizes;
        let stages = &mut network.stages;
        let mut values = Vec::new();
        let of_neurons = [vec![p, n], vec![p, 1]];
        let sharing =
            |len: usize| if len == p * n { Sharing::PerNeuron } else { Sharing::PerNetwork };
        if self.tensors.has("bias") {
            let bias: Vec<S> = self.read("bias", &of_neurons)?;
            stages.bias = Some(sharing(bias.len()));
            values.push((Tensor::Bias, bias));
        }
        let leak = metadata.get("leak").map(|name| Leak::from_name(name)).transpose()?;
        if self.tensors.has("leak") {
            let k: Vec<S> = self.read("leak", &of_neurons)?;
            let inside = |k: &S| *k > S::ZERO && *k <= S::ONE;
            if let Some(at) = k.iter().position(|k| !inside(k)) {
                let found = format!("{:?} at element {at}", k[at]);
                return Err(Error::tensor("leak", found, "above 0 and at most 1"));
            }
            stages.leak = Some((leak.unwrap_or(Leak::Rate), sharing(k.len())));
            values.push((Tensor::Leak, k));
        } else if leak.is_some() {
            return Err(Error::value("leak", "no tensor leak", "its rates [P, N] or [P, 1]"));
        }
        stages.masked = self.tensors.has("mask");
        self.together("obs", "in.w")?;
        self.together("in.w", "obs")?;
        if self.tensors.has("in.w") {
            let k = self.shape_of("obs", "P, B, T, K")?[3];
            values.push((Tensor::InW, self.read("in.w", &[vec![p, k, n]])?));
            let bias = self.tensors.has("in.b");
            if bias {
                values.push((Tensor::InB, self.read("in.b", &[vec![p, n]])?));
            }
            stages.input = Some(Linear { size: k, bias });
        }
        self.together("in.b", "in.w")?;
        for name in ["out.b", "out.target", "out.loss_weight", "dout"] {
            self.together(name, "out.w")?;
        }
        self.together("out.target", "out.loss_weight")?;
        self.together("out.loss_weight", "out.target")?;
        if self.tensors.has("out.w") {
            let o = self.shape_of("out.w", "P, N, O")?[2];
            values.push((Tensor::OutW, self.read("out.w", &[vec![p, n, o]])?));
            let bias = self.tensors.has("out.b");
            if bias {
                values.push((Tensor::OutB, self.read("out.b", &[vec![p, o]])?));
            }
            stages.output = Some(Linear { size: o, bias });
        }
        let loss = metadata.get("out.loss").map(|name| OutputLoss::from_name(name)).transpose()?;
        if self.tensors.has("out.target") {
            stages.output_loss = Some(loss.unwrap_or_default());
        } else if loss.is_some() {
            return Err(Error::value("out.loss", "no tensor out.target", "what the loss is to"));
        }
        Ok(values)
    }

    /// Refuses a tensor without another one.
    fn together(&self, name: &str, other: &str) -> Result<()> {
        if self.tensors.has(name) && !self.tensors.has(other) {
            return Err(Error::tensor(other, "no such tensor", format!("one, beside {name}")));
        }
        Ok(())
    }

    /// What few cases bring.
    fn signals<S: Scalar>(
        &mut self,
        network: &Network,
        metadata: &HashMap<String, String>,
        sizes: &Sizes,
    ) -> Result<Signals<S>> {
        let Sizes { p, m, n, b, t, .. } = *sizes;
        let o = network.stages.output.map_or(0, |layer| layer.size);
        let membrane = matches!(network.stages.leak, Some((Leak::Membrane, _)));
        for (name, fits, wanted) in [
            ("m.input", network.reads_m(), "a rule that reads m"),
            ("v0", membrane, "metadata leak = membrane"),
            ("dy", network.stages.cotangents, "metadata loss = cotangent"),
            ("dh", network.stages.cotangents, "metadata loss = cotangent"),
            ("dout", network.stages.cotangents, "metadata loss = cotangent"),
        ] {
            if self.tensors.has(name) && !fits {
                return Err(Error::tensor(name, "a case that has no use for it", wanted));
            }
        }
        let m_input = match self.tensors.has("m.input") {
            true if self.tensors.shape("m.input")?.len() == 3 => {
                Some(self.read_data("m.input", &[p, b, t])?)
            }
            _ => self.read_if_there("m.input", &[p, b, t, n])?,
        };
        let mut rule0 = Vec::new();
        if let Some(rule) = &network.stages.rule {
            for (state, axes) in rule.states(m, n) {
                let shape = [&[p, b], &axes[..]].concat();
                rule0.push(self.read_if_there(&format!("rule.{}0", state.name), &shape)?);
            }
            if rule0.iter().all(Option::is_none) {
                rule0.clear();
            }
        }
        let truncate = match metadata.get("truncate") {
            None => None,
            Some(text) => {
                let digits = text.bytes().all(|b| b.is_ascii_digit());
                let steps = text.parse::<usize>().ok().filter(|&k| digits && k > 0);
                let wanted = "a whole number of steps, at least 1";
                Some(steps.ok_or_else(|| Error::value("truncate", format!("\"{text}\""), wanted))?)
            }
        };
        let output = [p, b, t, o];
        let output_targets = match self.read_if_there("out.target", &output)? {
            Some(targets) if !network.stages.cotangents => {
                Some([targets, self.read_data("out.loss_weight", &output)?])
            }
            Some(_) => {
                let wanted = "none with metadata loss = cotangent";
                return Err(Error::tensor("out.target", "a target", wanted));
            }
            None => None,
        };
        Ok(Signals {
            m: m_input,
            observed: match network.stages.input {
                Some(layer) => Some(self.read_data("obs", &[p, b, t, layer.size])?),
                None => None,
            },
            images: None,
            reset: self.read_if_there("gate.reset", &[p, b, t])?,
            v0: self.read_if_there("v0", &[p, b, n])?,
            rule0,
            output_targets,
            dy: self.read_if_there("dy", &[p, b, t, n])?,
            dh: self.read_if_there("dh", &[p, b, m, n])?,
            dout: self.read_if_there("dout", &output)?,
            truncate,
        })
    }

    /// Targets of y and their weights; none where the loss is on the read-out alone, or cotangents
    /// are given.
    fn targets<S: Scalar>(
        &mut self,
        network: &Network,
        signals: &Signals<S>,
        sizes: &Sizes,
    ) -> Result<Option<[Vec<S>; 2]>> {
        let Sizes { p, n, b, t, .. } = *sizes;
        let names = ["target", "loss_weight"];
        let there = names.map(|name| self.tensors.has(name));
        if network.stages.cotangents {
            if let Some(k) = there.iter().position(|&there| there) {
                let wanted = "none with metadata loss = cotangent";
                return Err(Error::tensor(names[k], "a target", wanted));
            }
            return Ok(None);
        }
        if there == [false, false] && signals.output_targets.is_some() {
            return Ok(None);
        }
        let dense = [p, b, t, n];
        Ok(Some([self.read_data("target", &dense)?, self.read_data("loss_weight", &dense)?]))
    }
}

/// Words about those metadata keys that mean nothing here.
fn notes_of(metadata: &HashMap<String, String>) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for key in metadata.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        // other writers leave their own; one that resembles ours is a slip
        if resembles(key, &KEYS) {
            return Err(Error::value(key, "an unknown metadata key", one_of(key, &KEYS)));
        }
        notes.push(format!("metadata key {key} means nothing here"));
    }
    notes.sort();
    Ok(notes)
}

/// Refuses tensors that no case has.
fn check_names(tensors: &impl Source, program: Option<&Program>) -> Result<()> {
    let mut known: Vec<String> = TENSORS.map(String::from).to_vec();
    if let Some(program) = program {
        known.extend(program.parameters().iter().map(|p| format!("rule.{}", p.name)));
        let states = program.traces()[1..].iter().chain(program.post()).chain(program.pre());
        known.extend(states.map(|state| format!("rule.{}0", state.name)));
    }
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    match tensors.names().into_iter().find(|name| !known.contains(name)) {
        Some(name) => Err(Error::tensor(name, "an unknown tensor", one_of(name, &known))),
        None => Ok(()),
    }
}

fn check_bits<S: Scalar>(name: &str, values: &[S]) -> Result<()> {
    match values.iter().position(|&v| v != S::ZERO && v != S::ONE) {
        Some(k) => Err(Error::tensor(name, format!("{:?} at element {k}", values[k]), "0 or 1")),
        None => Ok(()),
    }
}

impl<S: Scalar> Case<S> {
    /// Reads a case file.
    ///
    /// # Errors
    /// Whatever does not fit the format: [`Error::Tensor`], [`Error::Value`],
    /// [`Error::File`], [`Error::Io`].
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = files::read(path)?;
        Self::parse(path, &bytes)
    }

    /// Reads a case file, or all those of a folder by their names, as one case: their episodes follow
    /// each other, parameters are the first's. Returns the SHA-256 of all bytes too.
    ///
    /// # Errors
    /// As [`Case::read`]; [`Error::File`] for a folder without cases, or a case of other networks or
    /// steps than the first.
    pub fn read_all(path: &Path) -> Result<(Self, String)> {
        if !path.is_dir() {
            let bytes = files::read(path)?;
            let case = Self::parse(path, &bytes)?.with_a_loss()?;
            return Ok((case, files::sha256([&bytes[..]])));
        }
        let list = std::fs::read_dir(path).map_err(|e| Error::io(path, "read", e))?;
        let mut paths: Vec<_> = list.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|kind| kind == "safetensors"));
        paths.sort();
        let mut all: Option<Self> = None;
        let mut hashes = Vec::new();
        for path in &paths {
            let bytes = files::read(path)?;
            hashes.push(files::sha256([&bytes[..]]));
            let case = Self::parse(path, &bytes)?.with_a_loss()?;
            match &mut all {
                None => all = Some(case),
                Some(all) => all.append(path, case)?,
            }
        }
        let hashes = files::sha256(hashes.iter().map(String::as_bytes));
        let none =
            || Error::file(path, "no .safetensors in it", "a case file, or a folder of them");
        Ok((all.ok_or_else(none)?, hashes))
    }

    /// Refuses a case whose gradients are those of cotangents: there is nothing to lower.
    fn with_a_loss(self) -> Result<Self> {
        if self.network.stages.cotangents {
            return Err(Error::value("loss", "cotangent", "a loss, to train on or to score"));
        }
        Ok(self)
    }

    /// Takes over the episodes of another case.
    fn append(&mut self, path: &Path, other: Self) -> Result<()> {
        if other.network != self.network || other.measure != self.measure {
            let wanted = "the networks, rule, activation and losses of the folder's first case";
            return Err(Error::file(path, "a case of another kind", wanted));
        }
        self.episodes.append(&self.network, other.episodes).map_err(|e| {
            Error::file(path, e.to_string(), "episodes as those of the folder's first case")
        })?;
        for note in other.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        Ok(())
    }

    /// Parses the bytes of a case file; `path` is for messages.
    ///
    /// # Errors
    /// As [`Case::read`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let tensors = Tensors::parse(path, bytes)?;
        let case = Self::assemble(&tensors, tensors.metadata())?;
        let signals = &case.episodes.signals;
        let cotangents = [&signals.dy, &signals.dh, &signals.dout];
        if case.network.stages.cotangents && cotangents.iter().all(|list| list.is_none()) {
            let wanted = "dy, dh or dout with metadata loss = cotangent";
            return Err(Error::tensor("dy", "no cotangent", wanted));
        }
        Ok(case)
    }

    /// The case of some tensors. With metadata `loss` = `cotangent` it may have no cotangents, as long
    /// as no gradient is wanted.
    ///
    /// # Errors
    /// Whatever does not fit the format: [`Error::Tensor`], [`Error::Shape`], [`Error::Value`].
    pub fn assemble(tensors: &impl Source, metadata: &HashMap<String, String>) -> Result<Self> {
        let notes = notes_of(metadata)?;
        let required = |key: &str, known: &[&str]| {
            metadata
                .get(key)
                .ok_or_else(|| Error::value(key, "no such metadata key", known.join(", ")))
        };
        let text = metadata.get("rule.text").map(String::as_str);
        let named = RuleText::find(required("rule", &RuleText::known())?, text)?;
        check_names(tensors, named.1.as_ref())?;
        let activation =
            Activation::from_name(required("activation", &Activation::ALL.map(Activation::name))?)?;
        let cotangents = metadata.get("loss").is_some_and(|name| name == "cotangent");
        let loss = match metadata.get("loss") {
            Some(name) if !cotangents => Loss::from_name(name)?,
            _ => Loss::Squared,
        };
        let measure = metadata.get("error").map(|name| Measure::from_name(name)).transpose()?;
        let clip = metadata.get("clip").map(|text| parse_clip(text)).transpose()?;
        let mut reader = Reader { tensors, shapes: Vec::new() };
        let sizes = reader.sizes()?;
        let Sizes { p, m, n, b, t, recurrent } = sizes;

        let w: Vec<S> = reader.read("w", &[vec![p, m, n]])?;
        let alpha: Vec<S> = reader.read("alpha", &[vec![p, m, n], vec![p, 1, n], vec![p, 1, 1]])?;
        let (rule, text) = named;
        let eta: Vec<S> = if rule.uses_eta() || (text.is_none() && reader.tensors.has("eta")) {
            reader.read("eta", &[vec![p, n], vec![p, 1]])?
        } else {
            Vec::new()
        };
        let sharing =
            |len: usize| if len == p * n { Sharing::PerNeuron } else { Sharing::PerNetwork };
        let mut network = Network {
            n_networks: p,
            n_pre: m,
            n_post: n,
            recurrent,
            rule,
            activation,
            loss,
            clip,
            alpha: if alpha.len() == p * m * n {
                AlphaSharing::PerConnection
            } else if alpha.len() == p * n {
                AlphaSharing::PerNeuron
            } else {
                AlphaSharing::PerNetwork
            },
            eta: sharing(eta.len()),
            stages: Stages { cotangents, ..Stages::default() },
        };
        let mut values = vec![(Tensor::W, w), (Tensor::Alpha, alpha), (Tensor::Eta, eta)];
        if let Some(program) = text {
            let by_name = metadata["rule"] != "custom";
            let (text, own) = reader.rule_parameters(program, by_name, &sizes)?;
            network.stages.rule = Some(text);
            values.extend(own);
        }
        values.extend(reader.modulator(&mut network, &sizes)?);
        values.extend(reader.stages(&mut network, metadata, &sizes)?);
        network.validate()?;

        let dense = [p, b, t, n];
        let stimuli = match reader.read_if_there("input", &dense)? {
            Some(input) => input,
            None if network.stages.input.is_some() => vec![S::ZERO; p * b * t * n],
            None => reader.read_data("input", &dense)?,
        };
        let clamps: Option<Vec<S>> = reader.read_if_there("clamp", &dense)?;
        let pre = reader.read_if_there("pre", &[p, b, t, m])?;
        let y0 = reader.read_if_there("y0", &[p, b, n])?;
        let h0 = reader.read_if_there("h0", &[p, b, m, n])?;
        let e0 = reader.read_if_there("e0", &[p, b, m, n])?;
        let signals = reader.signals(&network, metadata, &sizes)?;
        network.stages.general =
            signals.reset.is_some() || signals.truncate.is_some() || signals.dh.is_some();
        let targets = reader.targets(&network, &signals, &sizes)?;
        for (name, list) in [("clamp", &clamps), ("gate.reset", &signals.reset)] {
            check_bits(name, list.as_deref().unwrap_or_default())?;
        }

        let mut parameters = Parameters::zeros(&network);
        for (tensor, values) in values {
            for k in 0..p {
                let len = values.len() / p;
                let target = parameters.get_mut(k, tensor);
                if !target.is_empty() {
                    target.copy_from_slice(&values[k * len..(k + 1) * len]);
                }
            }
        }
        if network.stages.masked {
            parameters.mask = reader.read_data("mask", &[p, m, n])?;
            check_bits("mask", &parameters.mask)?;
        }
        let steps = u32::try_from(t)
            .map_err(|_| Error::tensor("input", format!("{t} steps"), "fewer than 2^32"))?;
        let every_step: Vec<u32> = std::iter::repeat_n(0..steps, p * b).flatten().collect();
        let scored = targets.is_some();
        let [targets, loss_weights] =
            targets.unwrap_or_else(|| [vec![S::ZERO; p * b * n], vec![S::ZERO; p * b * n]]);
        let episodes = Episodes {
            shape: Shape {
                n_batch: b,
                n_steps: t,
                n_stimuli: t,
                n_targets: if scored { t } else { 1 },
                clamped: clamps.is_some(),
            },
            stimuli,
            clamps,
            shown: every_step.clone(),
            targets,
            loss_weights,
            scored: if scored { every_step } else { vec![NO_ROW; p * b * t] },
            pre,
            y0,
            h0,
            e0,
            signals,
        };
        episodes.validate(&network)?;
        if measure.is_some() {
            // an error is of the last step
            let last = |e: usize| &episodes.loss_weights[((e + 1) * t - 1) * n..][..n];
            let none =
                (0..p * b).find(|&e| !scored || last(e).iter().all(|&weight| weight == S::ZERO));
            if let Some(e) = none {
                let found = format!("no weight at the last step of episode {}", e % b);
                return Err(Error::tensor("loss_weight", found, "some, for metadata error"));
            }
        }
        Ok(Case { network, parameters, episodes, measure, notes, shapes: reader.shapes })
    }

    /// Writes outputs and gradients in the format of the README.
    ///
    /// # Errors
    /// [`Error::Diverged`] naming the tensor that holds a number that is not finite;
    /// [`Error::Io`] if the file cannot be written. Nothing is left under its name then.
    pub fn write_outputs(&self, path: &Path, outputs: Outputs<S>) -> Result<()> {
        let named = self.named(outputs)?;
        let list: Vec<Output<'_, S>> = named
            .iter()
            .map(|Named { name, shape, values }| Output {
                name: name.clone(),
                shape: shape.clone(),
                values,
            })
            .collect();
        write(path, &list, HashMap::new())
    }

    /// What a batch gave, by the names of the README.
    ///
    /// # Errors
    /// [`Error::Diverged`] naming the tensor that holds a number that is not finite.
    pub fn named(&self, outputs: Outputs<S>) -> Result<Vec<Named<S>>> {
        let shape = &self.episodes.shape;
        let (p, b, t) = (self.network.n_networks, shape.n_batch, shape.n_steps);
        let (m, n) = (self.network.n_pre, self.network.n_post);
        let network = &self.network;
        let mut list = Vec::new();
        // what was not wanted is empty
        let mut put = |name: &str, shape: Vec<usize>, values: Vec<S>| {
            if !values.is_empty() {
                list.push(Named { name: name.into(), shape, values });
            }
        };
        // the loss first, which says most where it is not finite
        if !network.stages.cotangents {
            put("loss", vec![p], outputs.loss);
        }
        put("y", vec![p, b, t, n], outputs.y);
        put("h", vec![p, b, m, n], outputs.h);
        put("e", vec![p, b, m, n], outputs.e);
        put("v", vec![p, b, n], outputs.v);
        if let Some(layer) = network.stages.output {
            put("out", vec![p, b, t, layer.size], outputs.out);
        }
        for ((name, shape), values) in states_of(network).into_iter().zip(outputs.rule) {
            put(&format!("rule.{name}"), [&[p, b], &shape[..]].concat(), values);
        }
        if let Some(gradients) = outputs.gradients {
            list.extend(self.gradients(gradients));
        }
        for Named { name, values, .. } in &list {
            if let Some(k) = S::first_not_finite(values) {
                let what = format!("{name}, element {k} of {},", values.len());
                return Err(Error::Diverged { what, update: None });
            }
        }
        Ok(list)
    }

    /// The gradient of every tensor that the case holds, in that tensor's shape.
    fn gradients(&self, mut gradients: Gradients<S>) -> Vec<Named<S>> {
        let p = self.network.n_networks;
        let states = states_of(&self.network);
        let rule0 = &self.episodes.signals.rule0;
        let layout = gradients.parameters.layout().clone();
        let of_parameter = |gradients: &Gradients<S>, name: &str| -> Option<Vec<S>> {
            let entry = layout.entries().iter().find(|entry| entry.name == name)?;
            let one = |k: usize| gradients.parameters.get(k, entry.tensor);
            Some((0..p).flat_map(one).copied().collect())
        };
        let of_start = |gradients: &mut Gradients<S>, name: &str| -> Option<Vec<S>> {
            let state = name.strip_prefix("rule.")?.strip_suffix('0')?;
            let k = states.iter().position(|(known, _)| known == state)?;
            rule0.get(k)?.as_ref()?;
            gradients.signals.rule0.get_mut(k)?.take()
        };
        let mut list = Vec::new();
        for (name, shape) in self.shapes.iter().filter(|(name, _)| !FIXED.contains(&&**name)) {
            let Gradients { input, pre, y0, h0, e0, signals, .. } = &mut gradients;
            let optional = |list: &mut Option<Vec<S>>| list.take().unwrap_or_default();
            let values: Vec<S> = match &**name {
                "input" => std::mem::take(input),
                "pre" => std::mem::take(pre),
                "y0" => std::mem::take(y0),
                "h0" => std::mem::take(h0),
                "e0" => std::mem::take(e0),
                "v0" => optional(&mut signals.v0),
                "obs" => optional(&mut signals.observed),
                "m.input" => optional(&mut signals.m),
                name => of_parameter(&gradients, name)
                    .or_else(|| of_start(&mut gradients, name))
                    .unwrap_or_default(),
            };
            let len: usize = shape.iter().product();
            let values = match values.len() {
                // a tensor that the rule does not use
                0 => vec![S::ZERO; len],
                // data that all networks share
                all if all > len => (0..len)
                    .map(|k| values[k..].iter().step_by(len).fold(S::ZERO, |s, &v| s + v))
                    .collect(),
                _ => values,
            };
            list.push(Named { name: format!("grad.{name}"), shape: shape.clone(), values });
        }
        list
    }
}

/// Names of a rule's states beyond H, and their shapes in one episode.
fn states_of(network: &Network) -> Vec<(String, Vec<usize>)> {
    let Some(rule) = &network.stages.rule else { return Vec::new() };
    let states = rule.states(network.n_pre, network.n_post);
    states.map(|(state, axes)| (state.name.clone(), axes)).collect()
}

fn parse_clip(text: &str) -> Result<f64> {
    text.parse::<f64>()
        .ok()
        .filter(|clip| clip.is_finite() && *clip > 0.0)
        .ok_or_else(|| Error::value("clip", format!("\"{text}\""), "a positive number"))
}
