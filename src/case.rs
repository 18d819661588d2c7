//! Case files: one batch of episodes with a network and a loss, as safetensors.
//! See the README for the tensors and their shapes.

use std::collections::HashMap;
use std::path::Path;

use crate::engine::Outputs;
use crate::error::{Error, Result, one_of, resembles};
use crate::files;
use crate::model::{
    Activation, AlphaSharing, Episodes, EtaSharing, Loss, Network, Parameters, Rule, Scalar, Shape,
    Tensor,
};
use crate::task::Measure;
use crate::tensors::{Output, Tensors, write};

const TENSORS: [&str; 15] = [
    "w",
    "alpha",
    "eta",
    "mod.w",
    "mod.b",
    "fanout.w",
    "fanout.b",
    "input",
    "clamp",
    "pre",
    "y0",
    "h0",
    "e0",
    "target",
    "loss_weight",
];

const KEYS: [&str; 5] = ["rule", "activation", "loss", "clip", "error"];

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
    /// Shapes of the tensors that the file holds, in the order of the format.
    shapes: Vec<(&'static str, Vec<usize>)>,
}

/// Reads a tensor of one of the shapes wanted.
struct Reader<'a> {
    tensors: Tensors<'a>,
    shapes: Vec<(&'static str, Vec<usize>)>,
}

impl Reader<'_> {
    fn shape_of(&self, name: &'static str, axes: &str) -> Result<Vec<usize>> {
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

    fn read<S: Scalar>(&mut self, name: &'static str, shapes: &[Vec<usize>]) -> Result<Vec<S>> {
        let shape = self.tensors.shape(name)?;
        if !shapes.contains(&shape) {
            let wanted: Vec<String> = shapes.iter().map(|s| format!("{s:?}")).collect();
            return Err(Error::tensor(name, format!("shape {shape:?}"), wanted.join(" or ")));
        }
        let values = self.tensors.read(name)?;
        self.shapes.push((name, shape));
        Ok(values)
    }

    fn read_if_there<S: Scalar>(
        &mut self,
        name: &'static str,
        shape: Vec<usize>,
    ) -> Result<Option<Vec<S>>> {
        if self.tensors.has(name) { self.read(name, &[shape]).map(Some) } else { Ok(None) }
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

    /// Parses the bytes of a case file; `path` is for messages.
    ///
    /// # Errors
    /// As [`Case::read`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let tensors = Tensors::parse(path, bytes)?;
        let known = &TENSORS;
        for name in tensors.names() {
            if !known.contains(&name) {
                return Err(Error::tensor(name, "an unknown tensor", one_of(name, known)));
            }
        }
        let metadata = tensors.metadata().clone();
        let mut notes = Vec::new();
        for key in metadata.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            // other writers leave their own; one that resembles ours is a slip
            if resembles(key, &KEYS) {
                return Err(Error::value(key, "an unknown metadata key", one_of(key, &KEYS)));
            }
            notes.push(format!("metadata key {key} means nothing here"));
        }
        notes.sort();
        let required = |key: &str, known: &[&str]| {
            metadata
                .get(key)
                .ok_or_else(|| Error::value(key, "no such metadata key", known.join(", ")))
        };
        let rule = Rule::from_name(required("rule", &Rule::ALL.map(Rule::name))?)?;
        let activation =
            Activation::from_name(required("activation", &Activation::ALL.map(Activation::name))?)?;
        let loss = metadata.get("loss").map_or(Ok(Loss::Squared), |name| Loss::from_name(name))?;
        let measure = metadata.get("error").map(|name| Measure::from_name(name)).transpose()?;
        let clip = metadata.get("clip").map(|text| parse_clip(text)).transpose()?;

        let mut reader = Reader { tensors, shapes: Vec::new() };
        let w_shape = reader.shape_of("w", "P, M, N")?;
        let [p, m, n] = w_shape[..] else { unreachable!("three axes were checked") };
        let input_shape = reader.shape_of("input", "P, B, T, N")?;
        let [_, b, t, _] = input_shape[..] else { unreachable!("four axes were checked") };
        let recurrent = !reader.tensors.has("pre");
        if recurrent && m != n {
            return Err(Error::tensor(
                "w",
                format!("shape {w_shape:?}"),
                "M = N, because without `pre` the layer is recurrent",
            ));
        }

        let w: Vec<S> = reader.read("w", &[vec![p, m, n]])?;
        let alpha = reader.read("alpha", &[vec![p, m, n], vec![p, 1, n], vec![p, 1, 1]])?;
        let eta_shapes = [vec![p, n], vec![p, 1]];
        let eta: Vec<S> = if rule.uses_eta() || reader.tensors.has("eta") {
            reader.read("eta", &eta_shapes)?
        } else {
            Vec::new()
        };
        let mut modulator = Vec::new();
        for (tensor, shape) in [
            (Tensor::ModW, vec![p, n]),
            (Tensor::ModB, vec![p]),
            (Tensor::FanoutW, vec![p, n]),
            (Tensor::FanoutB, vec![p, n]),
        ] {
            let name = tensor.name();
            if rule.uses_modulator() || reader.tensors.has(name) {
                modulator.push((tensor, reader.read::<S>(name, &[shape])?));
            }
        }
        let network = Network {
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
            eta: if eta.len() == p * n { EtaSharing::PerNeuron } else { EtaSharing::PerNetwork },
        };
        network.validate()?;

        let dense = vec![p, b, t, n];
        let stimuli = reader.read("input", std::slice::from_ref(&dense))?;
        let clamps: Option<Vec<S>> = reader.read_if_there("clamp", dense.clone())?;
        let pre = reader.read_if_there("pre", vec![p, b, t, m])?;
        let y0 = reader.read_if_there("y0", vec![p, b, n])?;
        let h0 = reader.read_if_there("h0", vec![p, b, m, n])?;
        let e0 = reader.read_if_there("e0", vec![p, b, m, n])?;
        let targets = reader.read("target", std::slice::from_ref(&dense))?;
        let loss_weights = reader.read("loss_weight", &[dense])?;
        if let Some(value) = clamps.iter().flatten().find(|&&c| c != S::ZERO && c != S::ONE) {
            return Err(Error::tensor("clamp", format!("{value:?}"), "0 or 1"));
        }

        let mut parameters = Parameters::zeros(&network);
        let tensors = [(Tensor::W, w), (Tensor::Alpha, alpha), (Tensor::Eta, eta)];
        for (tensor, values) in tensors.into_iter().chain(modulator) {
            for k in 0..p {
                let len = values.len() / p;
                let target = parameters.get_mut(k, tensor);
                if !target.is_empty() {
                    target.copy_from_slice(&values[k * len..(k + 1) * len]);
                }
            }
        }
        let steps = u32::try_from(t)
            .map_err(|_| Error::tensor("input", format!("{t} steps"), "fewer than 2^32"))?;
        let every_step: Vec<u32> = std::iter::repeat_n(0..steps, p * b).flatten().collect();
        let episodes = Episodes {
            shape: Shape {
                n_batch: b,
                n_steps: t,
                n_stimuli: t,
                n_targets: t,
                clamped: clamps.is_some(),
            },
            stimuli,
            clamps,
            shown: every_step.clone(),
            targets,
            loss_weights,
            scored: every_step,
            pre,
            y0,
            h0,
            e0,
        };
        episodes.validate(&network)?;
        if measure.is_some() {
            // an error is of the last step
            let last = |e: usize| &episodes.loss_weights[((e + 1) * t - 1) * n..][..n];
            let none = (0..p * b).find(|&e| last(e).iter().all(|&weight| weight == S::ZERO));
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
    pub fn write_outputs(&self, path: &Path, outputs: &Outputs<S>) -> Result<()> {
        let shape = &self.episodes.shape;
        let (p, b, t) = (self.network.n_networks, shape.n_batch, shape.n_steps);
        let (m, n) = (self.network.n_pre, self.network.n_post);
        let mut list = Vec::new();
        let mut put = |name: &str, shape: Vec<usize>, values| {
            list.push(Output { name: name.into(), shape, values });
        };
        put("y", vec![p, b, t, n], &outputs.y);
        put("h", vec![p, b, m, n], &outputs.h);
        if self.network.rule == Rule::Retroactive {
            put("e", vec![p, b, m, n], &outputs.e);
        }
        put("loss", vec![p], &outputs.loss);

        let gradients = outputs.gradients.as_ref().expect("gradients were wanted");
        let mut flat = Vec::new();
        for (name, shape) in &self.shapes {
            let name = *name;
            let values: Vec<S> = match name {
                "input" => gradients.input.clone(),
                "pre" => gradients.pre.clone(),
                "y0" => gradients.y0.clone(),
                "h0" => gradients.h0.clone(),
                "e0" => gradients.e0.clone(),
                "clamp" | "target" | "loss_weight" => continue,
                _ => {
                    let tensor = Tensor::ALL.into_iter().find(|t| t.name() == name);
                    let tensor = tensor.expect("the other names are parameters");
                    let g = &gradients.parameters;
                    (0..p).flat_map(|k| g.get(k, tensor)).copied().collect()
                }
            };
            // a tensor that the rule does not use
            let unused = values.is_empty();
            let values = if unused { vec![S::ZERO; shape.iter().product()] } else { values };
            flat.push((format!("grad.{name}"), shape.clone(), values));
        }
        for (name, shape, values) in &flat {
            list.push(Output { name: name.clone(), shape: shape.clone(), values });
        }
        // the loss first, which says most
        let first = list.iter().filter(|output| output.name == "loss");
        for Output { name, values, .. } in first.chain(&list) {
            if let Some(k) = values.iter().position(|value| !value.is_finite()) {
                let what = format!("{name}, element {k} of {},", values.len());
                return Err(Error::Diverged { what, update: None });
            }
        }
        write(path, &list, HashMap::new())
    }
}

fn parse_clip(text: &str) -> Result<f64> {
    text.parse::<f64>()
        .ok()
        .filter(|clip| clip.is_finite() && *clip > 0.0)
        .ok_or_else(|| Error::value("clip", format!("\"{text}\""), "a positive number"))
}
