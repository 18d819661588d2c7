//! Life after training: memories that go on.
//!
//! A [`Memory`] is what a trained network holds between steps: its activity y, its trace H
//! and, for the retroactive rule, the eligibility trace E. It is fed step by step or in
//! stretches of any length, and gives what the same steps give in one episode: on a GPU the
//! same bits by either plan (traces stored in f32), on the CPU the same within rounding.

use std::collections::HashMap;
use std::path::Path;

use crate::engine::{Engine, Held, LifeId, Want};
use crate::error::{Error, Result};
use crate::files;
use crate::model::{Episodes, Leak, NO_ROW, Network, Parameters, Rule, Shape, Signals};
use crate::task::Recall;
use crate::tensors::{Output, Source, Tensors, write};

const FORMAT: &str = "hebbian.memory/1";

/// B memories of each of P recurrent networks, which go on side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    network: Network,
    n_memories: usize,
    steps: u64,
    y: Vec<f32>,
    h: Vec<f32>,
    e: Vec<f32>,
    /// v of a membrane that leaks, then what a rule's text keeps beyond H: by name, with the axes of one
    /// memory.
    more: Vec<(String, Vec<usize>, Vec<f32>)>,
}

/// What a network keeps beyond y, H and E: names, axes of one memory, values before the first step.
fn kept(network: &Network) -> Vec<(String, Vec<usize>, f32)> {
    let (m, n) = (network.n_pre, network.n_post);
    let mut all = Vec::new();
    if matches!(network.stages.leak, Some((Leak::Membrane, _))) {
        all.push(("v".into(), vec![n], 0.0));
    }
    if let Some(rule) = &network.stages.rule {
        for (state, axes) in rule.states(m, n) {
            #[expect(clippy::cast_possible_truncation, reason = "rounding is the meaning")]
            all.push((format!("rule.{}", state.name), axes, state.start as f32));
        }
    }
    all
}

/// A stretch of steps for every memory. The same stimulus is shown at each of its steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch<'a> {
    /// Steps, at least one.
    pub n_steps: usize,
    /// `[P, B, N]`: the external drive.
    pub stimulus: &'a [f32],
    /// `[P, B, N]`, 0 or 1: where 1, y is set to the stimulus.
    pub clamp: Option<&'a [f32]>,
}

/// A memory that lives where an engine is, until [`Life::rest`]; dropped before, the memory stays as it
/// was.
pub struct Life<'a> {
    memory: &'a mut Memory,
    engine: &'a mut dyn Engine<f32>,
    id: LifeId,
    y: Vec<f32>,
    steps: u64,
}

impl Life<'_> {
    /// Lives through a stretch; returns y of each step, `[P, B, T, N]`.
    ///
    /// # Errors
    /// Arrays that do not fit; activity that is not finite any more; errors of the engine.
    pub fn live(&mut self, stretch: &Stretch<'_>) -> Result<Vec<f32>> {
        let network = &self.memory.network;
        let total = network.n_networks * self.memory.n_memories;
        let (n, n_steps) = (network.n_post, stretch.n_steps);
        let episodes = Episodes {
            shape: Shape {
                n_batch: self.memory.n_memories,
                n_steps,
                n_stimuli: 1,
                n_targets: 1,
                clamped: stretch.clamp.is_some(),
            },
            stimuli: stretch.stimulus.to_vec(),
            clamps: stretch.clamp.map(<[f32]>::to_vec),
            shown: vec![0; total * n_steps],
            targets: vec![0.0; total * n],
            loss_weights: vec![0.0; total * n],
            scored: vec![NO_ROW; total * n_steps],
            pre: None,
            y0: None,
            h0: None,
            e0: None,
            signals: Signals::default(),
        };
        let want = Want { activity: true, ..Want::default() };
        let out = self.engine.live(self.id, &episodes, want)?;
        finite("y", &out.y_last)?;
        self.y = out.y_last;
        self.steps += n_steps as u64;
        Ok(out.y)
    }

    /// Lives through stimuli as a task shows them, each for so many steps.
    ///
    /// # Errors
    /// As [`Life::live`].
    pub fn show<'a>(
        &mut self,
        how: &Recall,
        stimuli: impl Iterator<Item = (&'a [f32], usize)>,
    ) -> Result<()> {
        for (values, n_steps) in stimuli.filter(|(_, n_steps)| *n_steps > 0) {
            let mut drive: Vec<f32> = values.iter().map(|v| v * how.gain).collect();
            drive.push(how.gain);
            let clamp: Vec<f32> = drive.iter().map(|&v| if v == 0.0 { 0.0 } else { 1.0 }).collect();
            let clamp = how.clamped.then_some(&clamp[..]);
            self.live(&Stretch { n_steps, stimulus: &drive, clamp })?;
        }
        Ok(())
    }

    /// Activity now, `[P, B, N]`.
    #[must_use]
    pub fn y(&self) -> &[f32] {
        &self.y
    }

    /// The memory as it is now, brought from where the engine is.
    ///
    /// # Errors
    /// A trace that is not finite any more; errors of the engine.
    pub fn memory(&mut self) -> Result<&Memory> {
        let held = self.engine.held(self.id)?;
        for (what, values) in [("y", &held.y), ("the trace H", &held.h), ("the trace E", &held.e)] {
            finite(what, values)?;
        }
        let v = self.memory.has_v().then_some(held.v);
        for ((what, _, own), values) in
            self.memory.more.iter_mut().zip(v.into_iter().chain(held.rule))
        {
            finite(what, &values)?;
            *own = values;
        }
        (self.memory.y, self.memory.h, self.memory.e) = (held.y, held.h, held.e);
        self.memory.steps = self.steps;
        Ok(self.memory)
    }

    /// Brings the memory back.
    ///
    /// # Errors
    /// As [`Life::memory`].
    pub fn rest(mut self) -> Result<()> {
        self.memory().map(|_| ())
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        // one of this engine; nothing else can fail
        let _ = self.engine.rest(self.id);
    }
}

fn finite(what: &str, values: &[f32]) -> Result<()> {
    match values.iter().all(|v| v.is_finite()) {
        true => Ok(()),
        false => Err(Error::Diverged { what: format!("{what} of a memory"), update: None }),
    }
}

/// A name for parameters that other parameters do not have: the SHA-256 of their values.
#[must_use]
pub fn owner(parameters: &Parameters<f32>) -> String {
    files::sha256([bytemuck::cast_slice(parameters.values())])
}

/// What so many memories keep at their beginning.
fn blank(network: &Network, total: usize) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let each = kept(network).into_iter();
    each.map(|(name, axes, start)| {
        let len = total * axes.iter().product::<usize>();
        (name, axes, vec![start; len])
    })
    .collect()
}

impl Memory {
    /// `n_memories` blank memories for each network of `network`.
    ///
    /// # Errors
    /// [`Error::Value`] for a feed-forward network or no memories.
    pub fn new(network: &Network, n_memories: usize) -> Result<Self> {
        network.validate()?;
        if !network.recurrent {
            return Err(Error::value("network", "a feed-forward one", "a recurrent one"));
        }
        if n_memories == 0 {
            return Err(Error::value("memories", "0", "at least 1"));
        }
        let total = network.n_networks * n_memories;
        let connections = total * network.n_connections();
        Ok(Memory {
            network: network.clone(),
            n_memories,
            steps: 0,
            y: vec![0.0; total * network.n_post],
            h: vec![0.0; connections],
            e: vec![0.0; if network.rule == Rule::Retroactive { connections } else { 0 }],
            more: blank(network, total),
        })
    }

    /// Steps lived so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Activity now, `[P, B, N]`.
    #[must_use]
    pub fn y(&self) -> &[f32] {
        &self.y
    }

    /// The trace now, `[P, B, M, N]`.
    #[must_use]
    pub fn h(&self) -> &[f32] {
        &self.h
    }

    /// The eligibility trace now, `[P, B, M, N]`; empty for other rules.
    #[must_use]
    pub fn e(&self) -> &[f32] {
        &self.e
    }

    /// Back to blank.
    pub fn forget(&mut self) {
        self.steps = 0;
        for values in [&mut self.y, &mut self.h, &mut self.e] {
            values.fill(0.0);
        }
        self.more = blank(&self.network, self.network.n_networks * self.n_memories);
    }

    /// Lives through a stretch on `engine`, which holds the trained parameters; returns y of
    /// each step, `[P, B, T, N]`. For several stretches [`Memory::wake`] moves no trace between them.
    ///
    /// # Errors
    /// Arrays or an engine that do not fit; a memory that is not finite any more (it stays
    /// as it was); errors of the engine.
    pub fn live(
        &mut self,
        engine: &mut dyn Engine<f32>,
        stretch: &Stretch<'_>,
    ) -> Result<Vec<f32>> {
        let mut life = self.wake(engine)?;
        let y = life.live(stretch)?;
        life.rest()?;
        Ok(y)
    }

    /// Shows stimuli one after another as a task does, `times` over, or as often as in training.
    ///
    /// # Errors
    /// As [`Memory::live`].
    pub fn remember(
        &mut self,
        engine: &mut dyn Engine<f32>,
        how: &Recall,
        stimuli: &[Vec<f32>],
        times: Option<usize>,
    ) -> Result<()> {
        let blank = vec![0.0; how.numbers];
        let once =
            stimuli.iter().flat_map(|values| [(&values[..], how.shown), (&blank[..], how.blank)]);
        let mut life = self.wake(engine)?;
        life.show(how, (0..times.unwrap_or(how.cycles)).flat_map(|_| once.clone()))?;
        life.rest()
    }

    /// What the network makes of a cue. The memory stays as it is.
    ///
    /// # Errors
    /// As [`Memory::live`].
    pub fn complete(
        &self,
        engine: &mut dyn Engine<f32>,
        how: &Recall,
        cue: &[f32],
    ) -> Result<Vec<f32>> {
        let mut memory = self.clone();
        let mut life = memory.wake(engine)?;
        life.show(how, std::iter::once((cue, how.test)))?;
        let mut answer = life.y().to_vec();
        answer.truncate(cue.len());
        Ok(answer)
    }

    /// Takes the memory up where `engine` is, which holds the trained parameters.
    ///
    /// # Errors
    /// An engine of other networks; errors of the engine.
    pub fn wake<'a>(&'a mut self, engine: &'a mut dyn Engine<f32>) -> Result<Life<'a>> {
        if *engine.network() != self.network {
            let wanted = "the network that the memory belongs to";
            return Err(Error::value("engine", "another network", wanted));
        }
        let mut more = self.more.iter().map(|(_, _, values)| values.clone()).collect::<Vec<_>>();
        let v = if self.has_v() { more.remove(0) } else { Vec::new() };
        let id = engine.wake(&Held {
            n_memories: self.n_memories,
            y: self.y.clone(),
            h: self.h.clone(),
            e: self.e.clone(),
            v,
            rule: more,
        })?;
        let (y, steps) = (self.y.clone(), self.steps);
        Ok(Life { memory: self, engine, id, y, steps })
    }

    fn has_v(&self) -> bool {
        self.more.first().is_some_and(|(name, ..)| name == "v")
    }

    /// Writes the memory, whole or not at all. `owner` names the parameters that it belongs
    /// to.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path, owner: &str) -> Result<()> {
        let (p, b) = (self.network.n_networks, self.n_memories);
        let (m, n) = (self.network.n_pre, self.network.n_post);
        let put =
            |name: &str, shape: Vec<usize>, values| Output { name: name.into(), shape, values };
        let mut outputs =
            vec![put("y", vec![p, b, n], &self.y[..]), put("h", vec![p, b, m, n], &self.h[..])];
        if !self.e.is_empty() {
            outputs.push(put("e", vec![p, b, m, n], &self.e[..]));
        }
        for (name, axes, values) in &self.more {
            outputs.push(put(name, [&[p, b], &axes[..]].concat(), values));
        }
        let metadata = [
            ("format", FORMAT.to_string()),
            ("axes", "network, memory, pre neuron (h, e), post neuron".into()),
            ("owner", owner.into()),
            ("steps", self.steps.to_string()),
        ];
        write(path, &outputs, HashMap::from(metadata.map(|(key, value)| (key.into(), value))))
    }

    /// Checks that a file holds a memory, whosever it is.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::File`] for another file.
    pub fn check(path: &Path) -> Result<()> {
        let bytes = files::read(path)?;
        let tensors = Tensors::parse(path, &bytes)?;
        match tensors.metadata().get("format") {
            Some(format) if format == FORMAT => Ok(()),
            _ => Err(Error::file(path, "another file", "a memory to forget")),
        }
    }

    /// Reads a memory of `network` that belongs to `owner`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] or [`Error::Tensor`] for what does not fit.
    pub fn read(path: &Path, network: &Network, owner: &str) -> Result<Self> {
        let bytes = files::read(path)?;
        let tensors = Tensors::parse(path, &bytes)?;
        let entry = |key: &str| tensors.metadata().get(key).map_or("none", String::as_str);
        for (key, wanted) in [("format", FORMAT), ("owner", owner)] {
            if entry(key) != wanted {
                let what = if key == "owner" {
                    "a memory of other parameters (--memory FILE names another file)"
                } else {
                    entry(key)
                };
                return Err(Error::file(path, what, format!("{key} {wanted}")));
            }
        }
        let steps = entry("steps").parse();
        let steps = steps.map_err(|_| Error::file(path, "odd steps", "a whole number"))?;
        let n_memories = match tensors.shape("y")?[..] {
            [_, b, _] => b,
            _ => return Err(Error::tensor("y", "other axes", "axes [P, B, N]")),
        };
        let (p, m, n) = (network.n_networks, network.n_pre, network.n_post);
        let matrices = vec![p, n_memories, m, n];
        let fits = |name: &str, wanted: &Vec<usize>| {
            let found = tensors.shape(name)?;
            if found == *wanted && !found.contains(&0) {
                return Ok(());
            }
            Err(Error::tensor(name, format!("shape {found:?}"), format!("{wanted:?}")))
        };
        fits("y", &vec![p, n_memories, n])?;
        fits("h", &matrices)?;
        let retroactive = network.rule == Rule::Retroactive;
        if retroactive {
            fits("e", &matrices)?;
        }
        let mut more = Vec::new();
        for (name, axes, _) in kept(network) {
            fits(&name, &[&[p, n_memories], &axes[..]].concat())?;
            let values = tensors.read(&name)?;
            more.push((name, axes, values));
        }
        Ok(Memory {
            network: network.clone(),
            n_memories,
            steps,
            y: tensors.read("y")?,
            h: tensors.read("h")?,
            e: if retroactive { tensors.read("e")? } else { Vec::new() },
            more,
        })
    }
}
