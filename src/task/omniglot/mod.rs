//! One-shot classification (Miconi et al. 2018, section 4.4): shown one drawing each of a few characters
//! with their labels, name the character of another drawing.

mod data;
mod strokes;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;
use crate::model::{Embedding, Episodes, NO_ROW, Network, Parameters, Shape, Signals, Tensor};
use crate::numbers::{index, single};
use crate::picture::Picture;
use crate::random::{Purpose, Stream};
use crate::task::memorise::MOST;
use crate::task::{Answers, NetworkConfig, Task};

use data::Class;

/// The task's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OmniglotConfig {
    /// A zip file of Omniglot, a folder of such, or the folders in them; empty: generated characters.
    pub data: PathBuf,
    /// SHA-256 of the drawings; empty before the run begins. Others are refused.
    #[serde(default)]
    pub sha256: String,
    /// Characters of an episode.
    pub ways: usize,
    /// Labelled drawings of each.
    pub shots: usize,
    /// Characters that are never trained on, the same for every seed.
    pub held_out_classes: usize,
    /// How characters are turned by quarters: none, episode (at random in every episode), or class (each
    /// of the four is a class of its own).
    pub rotations: String,
    /// Whether ink is 1 and paper 0; else ink is 0 and paper 1.
    pub inverted: bool,
    /// Pixels along a side that drawings are made smaller to.
    pub side: usize,
    /// Maps of every convolution.
    pub channels: usize,
}

/// What a label adds to the logit of its neuron.
const LABEL: f32 = 1000.0;
/// Convolutions.
const LAYERS: usize = 4;
/// How characters may be turned.
const ROTATIONS: [&str; 3] = ["episode", "class", "none"];

impl OmniglotConfig {
    /// 5-way, 1-shot: the numbers of the paper.
    #[must_use]
    pub fn paper() -> Self {
        OmniglotConfig {
            data: PathBuf::new(),
            sha256: String::new(),
            ways: 5,
            shots: 1,
            held_out_classes: 100,
            rotations: ROTATIONS[0].into(),
            inverted: false,
            side: 31,
            channels: 64,
        }
    }

    /// Fewer maps, and ink as 1: the paper between strokes says nothing then, and training leaves chance
    /// sooner.
    #[must_use]
    pub fn quick() -> Self {
        OmniglotConfig { held_out_classes: 50, channels: 32, inverted: true, ..Self::paper() }
    }
}

/// The task for a population.
#[derive(Clone, Debug)]
pub struct Omniglot {
    config: OmniglotConfig,
    networks: NetworkConfig,
    network: Network,
    first: u32,
    training: Vec<Class>,
    held_out: Vec<Class>,
    sha256: String,
}

impl Omniglot {
    /// The task for P networks, the first of which is number `first` of the streams; reads the data.
    ///
    /// # Errors
    /// [`Error::Value`] naming the number that makes no sense, [`Error::File`] or [`Error::Io`] naming
    /// the data file.
    pub fn new(
        config: &OmniglotConfig,
        networks: &NetworkConfig,
        n_networks: usize,
        first: u32,
    ) -> Result<Self> {
        for (key, value, least, most) in [
            ("task.ways", config.ways, 2, 1000),
            ("task.shots", config.shots, 1, 1000),
            ("task.held_out_classes", config.held_out_classes, 1, MOST),
            ("task.side", config.side, 31, 105),
            ("task.channels", config.channels, 1, 4096),
        ] {
            if value < least || value > most {
                return Err(Error::value(key, value.to_string(), format!("{least} to {most}")));
            }
        }
        if networks.extra > 0 {
            let found = networks.extra.to_string();
            return Err(Error::value("network.extra", found, "0: a neuron is a label"));
        }
        let rotations = &config.rotations;
        if !ROTATIONS.contains(&&**rotations) {
            let wanted = crate::error::one_of(rotations, &ROTATIONS);
            return Err(Error::value("task.rotations", format!("\"{rotations}\""), wanted));
        }
        let embedding = Embedding { side: config.side, channels: config.channels, layers: LAYERS };
        let network = networks.classifier(n_networks, embedding, config.ways)?;
        let (mut classes, sha256) = match config.data.as_os_str().is_empty() {
            true => (strokes::classes(config.side), String::new()),
            false => data::read(&config.data, config.side)?,
        };
        files::check_sha256(&config.data, &config.sha256, &sha256)?;
        if let Some(class) = classes.iter().find(|class| class.drawings.len() <= config.shots) {
            let found = format!("{} drawings of {}", class.drawings.len(), class.name);
            let wanted = format!("{} or more, one to test beside those labelled", config.shots + 1);
            return Err(Error::file(&config.data, found, wanted));
        }
        let n = classes.len();
        if n < config.held_out_classes + config.ways || config.held_out_classes < config.ways {
            let found = format!("{n} characters, of which {} held out", config.held_out_classes);
            let wanted = format!("{} or more to train on, and to hold out", config.ways);
            return Err(Error::value("task.held_out_classes", found, wanted));
        }
        // sorted by name; drawn alike for every seed
        let mut order: Vec<usize> = (0..n).collect();
        Stream::new(0, Purpose::Data, 0, 0).shuffle(&mut order);
        let mut chosen = order[..config.held_out_classes].to_vec();
        chosen.sort_unstable();
        let mut held_out: Vec<Class> = chosen.iter().rev().map(|&k| classes.remove(k)).collect();
        held_out.reverse();
        let side = config.side;
        let own = |classes: Vec<Class>| -> Vec<Class> {
            if rotations != "class" {
                return classes;
            }
            let turn = |class: &Class, quarters| Class {
                name: format!("{} turned by {} degrees", class.name, 90 * quarters),
                drawings: class.drawings.iter().map(|d| data::turned(d, side, quarters)).collect(),
            };
            classes
                .iter()
                .flat_map(|class| (0..4).map(move |quarters| turn(class, quarters)))
                .collect()
        };
        Ok(Omniglot {
            config: config.clone(),
            networks: networks.clone(),
            network,
            first,
            training: own(classes),
            held_out: own(held_out),
            sha256,
        })
    }

    /// SHA-256 of the drawings that the task was given; empty where it makes them.
    pub(crate) fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The 20 published runs of within-alphabet one-shot classification, in `all_runs.zip` or the folder
    /// that it holds: an episode for each test drawing, whose label is that of its run.
    ///
    /// # Errors
    /// [`Error::Value`] for networks of another number of labels; a file of another kind.
    pub fn one_shot_runs(&self, path: &Path) -> Result<OneShotRuns> {
        OneShotRuns::read(self, path)
    }

    fn n_steps(&self) -> usize {
        self.config.ways * self.config.shots + 1
    }

    /// The table of labels, the blank last, and the targets, of `total` episodes whose drawings and rows
    /// are given.
    fn assemble(
        &self,
        n_batch: usize,
        images: Vec<f32>,
        shown: Vec<u32>,
        labels: &[usize],
    ) -> Episodes<f32> {
        let (ways, n_steps) = (self.config.ways, self.n_steps());
        let total = labels.len();
        let mut stimuli = vec![0.0; (ways + 1) * ways];
        (0..ways).for_each(|k| stimuli[k * ways + k] = LABEL);
        let mut targets = vec![0.0; total * ways];
        labels.iter().enumerate().for_each(|(e, label)| targets[e * ways + label] = 1.0);
        let last = (0..total * n_steps).map(|k| (k + 1).is_multiple_of(n_steps));
        Episodes {
            shape: self.shape(n_batch),
            stimuli: stimuli.repeat(total),
            clamps: None,
            shown,
            targets,
            loss_weights: vec![single(1.0 / f64::from(index(ways))); total * ways],
            scored: last.map(|last| if last { 0 } else { NO_ROW }).collect(),
            pre: None,
            y0: None,
            h0: None,
            e0: None,
            signals: Signals { images: Some(images), ..Signals::default() },
        }
    }

    /// A drawing, paper 1 and ink 0, as a network sees it.
    fn seen(&self, drawing: Vec<f32>) -> Vec<f32> {
        match self.config.inverted {
            true => drawing.into_iter().map(|v| 1.0 - v).collect(),
            false => drawing,
        }
    }
}

impl Task for Omniglot {
    fn name(&self) -> &'static str {
        "omniglot"
    }

    fn error_name(&self) -> &'static str {
        "wrong answers"
    }

    fn network(&self) -> Network {
        self.network.clone()
    }

    /// alpha starts above zero, as in the paper: uniform up to `network.spread`.
    fn initial(&self, seed: u64) -> Parameters<f32> {
        let mut parameters = self.networks.initial(&self.network, seed, self.first);
        for p in 0..parameters.n_networks() {
            let number = self.first.wrapping_add(index(p));
            let mut stream = Stream::new(seed, Purpose::Parameters, number, Tensor::Alpha.number());
            for value in parameters.get_mut(p, Tensor::Alpha) {
                *value = single(self.networks.spread * stream.uniform());
            }
        }
        parameters
    }

    fn shape(&self, n_batch: usize) -> Shape {
        Shape {
            n_batch,
            n_steps: self.n_steps(),
            n_stimuli: self.config.ways + 1,
            n_targets: 1,
            clamped: false,
        }
    }

    fn episodes(&self, seed: u64, purpose: Purpose, first: u32, n_batch: usize) -> Episodes<f32> {
        let OmniglotConfig { ways, shots, side, .. } = self.config;
        let classes = if purpose == Purpose::HeldOut { &self.held_out } else { &self.training };
        let total = self.network.n_networks * n_batch;
        let mut images = Vec::with_capacity(total * self.n_steps() * side * side);
        let (mut shown, mut labels) = (Vec::new(), Vec::new());
        for e in 0..total {
            let (p, b) = (e / n_batch, e % n_batch);
            let network = self.first.wrapping_add(index(p));
            let mut stream = Stream::new(seed, purpose, network, first.wrapping_add(index(b)));
            // label k is that of character chosen[k]
            let chosen = some(classes.len(), ways, &mut stream);
            let quarters: Vec<u32> = chosen
                .iter()
                .map(|_| if self.config.rotations == "episode" { stream.below(4) } else { 0 })
                .collect();
            let tested = stream.below(index(ways)) as usize;
            let mut steps: Vec<(usize, usize)> = Vec::with_capacity(ways * shots);
            let mut last = 0;
            for (label, &class) in chosen.iter().enumerate() {
                let drawings = some(classes[class].drawings.len(), shots + 1, &mut stream);
                steps.extend(drawings[..shots].iter().map(|&drawing| (label, drawing)));
                if label == tested {
                    last = drawings[shots];
                }
            }
            stream.shuffle(&mut steps);
            shown.extend(steps.iter().map(|(label, _)| index(*label)));
            shown.push(index(ways));
            steps.push((tested, last));
            for (label, drawing) in steps {
                let drawing = &classes[chosen[label]].drawings[drawing];
                images.extend(self.seen(data::turned(drawing, side, quarters[label])));
            }
            labels.push(tested);
        }
        self.assemble(n_batch, images, shown, &labels)
    }

    /// 1 for a wrong answer: the largest output is not that of the label.
    fn errors(&self, episodes: &Episodes<f32>, answers: &Answers<'_>) -> Option<Vec<f64>> {
        let ways = self.config.ways;
        let largest = |values: &[f32]| {
            (0..ways).max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap_or(0)
        };
        let each = answers.y_last.chunks_exact(ways).zip(episodes.targets.chunks_exact(ways));
        Some(each.map(|(y, t)| f64::from(u8::from(largest(y) != largest(t)))).collect())
    }

    fn guess(&self) -> Option<(&'static str, Vec<f32>)> {
        let mut first = vec![0.0; self.config.ways];
        first[0] = 1.0;
        Some(("always one label", first))
    }

    fn chance(&self) -> Option<f64> {
        // p = 1 / ways of every label
        let p = 1.0 / f64::from(index(self.config.ways));
        Some(-p * p.ln() - (1.0 - p) * (1.0 - p).ln())
    }

    fn picture(
        &self,
        episodes: &Episodes<f32>,
        answers: &Answers<'_>,
        e: usize,
    ) -> Option<Picture> {
        let (ways, pixels) = (self.config.ways, self.config.side * self.config.side);
        let n_steps = episodes.shape.n_steps;
        let images = episodes.signals.images.as_ref()?;
        let shown = &episodes.shown[e * n_steps..][..n_steps];
        let y = answers.y_last.get(e * ways..(e + 1) * ways)?;
        let said = (0..ways).max_by(|&a, &b| y[a].total_cmp(&y[b]))?;
        let tile = |t: usize| {
            let caption = match shown[t] as usize {
                row if row == ways => format!("said to be {}", said + 1),
                label => format!("label {}", label + 1),
            };
            let image = &images[(e * n_steps + t) * pixels..][..pixels];
            // ink is dark
            (caption, self.seen(image.to_vec()).iter().map(|v| 2.0 * v - 1.0).collect())
        };
        Some(Picture { width: self.config.side, tiles: (0..n_steps).map(tile).collect() })
    }

    fn picture_caption(&self) -> &'static str {
        "The labelled drawings of held-out characters, and the drawing that was asked for, with the \
         answer."
    }

    fn notes(&self) -> Option<(&'static str, String)> {
        let list = |head: &str, classes: &[Class]| {
            let names: Vec<&str> = classes.iter().map(|class| &*class.name).collect();
            format!("{head}\n{}\n", names.join("\n"))
        };
        let training = list("# trained on", &self.training);
        Some(("classes.txt", training + &list("# held out", &self.held_out)))
    }
}

/// `n` different numbers below `of`, in a random order.
fn some(of: usize, n: usize, stream: &mut Stream) -> Vec<usize> {
    let mut chosen = Vec::with_capacity(n);
    while chosen.len() < n {
        let next = stream.below(index(of)) as usize;
        if !chosen.contains(&next) {
            chosen.push(next);
        }
    }
    chosen
}

/// The published one-shot runs as a task that is only scored.
#[derive(Clone, Debug)]
pub struct OneShotRuns {
    task: Omniglot,
    /// For each test drawing: the drawings of its episode, one after another, and the label.
    episodes: Vec<(Vec<f32>, usize)>,
    /// How many of their drawings the networks may have been trained on.
    known: usize,
}

impl OneShotRuns {
    fn read(task: &Omniglot, path: &Path) -> Result<Self> {
        let wanted = "Omniglot's all_runs.zip, or the folder that it holds: runNN/class_labels.txt, \
                      runNN/training/classNN.png, runNN/test/itemNN.png";
        let mut drawings = std::collections::BTreeMap::new();
        data::collect(path, &mut |inner, bytes| {
            let names: Vec<&str> =
                inner.components().filter_map(|part| part.as_os_str().to_str()).collect();
            if let [.., run, kind, name] = &names[..] {
                drawings
                    .insert(((*run).to_string(), (*kind).to_string(), (*name).to_string()), bytes);
            }
            Ok(())
        })?;
        let labels = data::labels(path)?;
        let (ways, side) = (task.config.ways, task.config.side);
        let mut episodes = Vec::new();
        let mut known = 0;
        for (run, lines) in &labels {
            let get = |kind: &str, name: &str| {
                let place = (run.clone(), kind.to_string(), name.to_string());
                let bytes = drawings
                    .get(&place)
                    .ok_or_else(|| Error::file(path, format!("no {run}/{kind}/{name}"), wanted))?;
                let drawing = data::decode(&path.join(run).join(kind).join(name), bytes, side)?;
                Ok(task.seen(drawing))
            };
            let classes: Vec<&String> = drawings
                .keys()
                .filter(|(of, kind, _)| of == run && kind == "training")
                .map(|(_, _, name)| name)
                .collect();
            if classes.len() != ways || task.config.shots != 1 {
                let found = format!("{ways}-way {}-shot networks", task.config.shots);
                let wanted = format!(
                    "{}-way 1-shot ones, as these runs have (train omniglot --set task.ways={})",
                    classes.len(),
                    classes.len()
                );
                return Err(Error::value("--one-shot-runs", found, wanted));
            }
            let labelled: Vec<f32> = classes
                .iter()
                .map(|name| get("training", name))
                .collect::<Result<Vec<_>>>()?
                .concat();
            for (item, class) in lines {
                let label = classes
                    .iter()
                    .position(|name| *name == class)
                    .ok_or_else(|| Error::file(path, format!("label {class} of {run}"), wanted))?;
                let drawing = get("test", item)?;
                let trained = task.training.iter().flat_map(|class| &class.drawings);
                known += usize::from(trained.into_iter().any(|d| task.seen(d.clone()) == drawing));
                episodes.push(([&labelled[..], &drawing[..]].concat(), label));
            }
        }
        if episodes.is_empty() {
            return Err(Error::file(path, "no runs", wanted));
        }
        Ok(OneShotRuns { task: task.clone(), episodes, known })
    }

    /// How many of the test drawings are among those that the networks were trained on: those say nothing
    /// of one-shot classification.
    #[must_use]
    pub fn known(&self) -> usize {
        self.known
    }
}

impl Task for OneShotRuns {
    fn name(&self) -> &'static str {
        self.task.name()
    }

    fn error_name(&self) -> &'static str {
        self.task.error_name()
    }

    fn network(&self) -> Network {
        self.task.network()
    }

    fn initial(&self, seed: u64) -> Parameters<f32> {
        self.task.initial(seed)
    }

    fn shape(&self, n_batch: usize) -> Shape {
        self.task.shape(n_batch)
    }

    /// The published episodes, alike for every network.
    fn episodes(&self, _: u64, _: Purpose, first: u32, n_batch: usize) -> Episodes<f32> {
        let n = self.episodes.len();
        let own = (0..n_batch).map(|b| &self.episodes[(first as usize + b) % n]);
        let one: Vec<&(Vec<f32>, usize)> = own.collect();
        let all = || (0..self.network().n_networks).flat_map(|_| one.iter());
        let images = all().flat_map(|(images, _)| images.iter().copied()).collect();
        let labels: Vec<usize> = all().map(|(_, label)| *label).collect();
        let rows: Vec<u32> = (0..=index(self.task.config.ways)).collect();
        self.task.assemble(n_batch, images, rows.repeat(labels.len()), &labels)
    }

    fn errors(&self, episodes: &Episodes<f32>, answers: &Answers<'_>) -> Option<Vec<f64>> {
        self.task.errors(episodes, answers)
    }

    fn scored_name(&self) -> &'static str {
        "published one-shot"
    }

    fn most_held_out(&self) -> Option<usize> {
        Some(self.episodes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Omniglot {
        let config =
            OmniglotConfig { channels: 3, shots: 2, inverted: false, ..OmniglotConfig::quick() };
        Omniglot::new(&config, &NetworkConfig::omniglot(), 2, 0).unwrap()
    }

    #[test]
    fn an_episode_labels_each_character_and_tests_another_drawing_of_one() {
        let task = task();
        let episodes = task.episodes(3, Purpose::HeldOut, 5, 4);
        episodes.validate(&task.network()).unwrap();
        let images = episodes.signals.images.as_ref().unwrap();
        for e in 0..8 {
            let shown = &episodes.shown[e * 11..][..11];
            for label in 0..5 {
                assert_eq!(shown.iter().filter(|row| **row == label).count(), 2);
            }
            assert_eq!(shown[10], 5, "the test has no label");
            let target: Vec<usize> =
                (0..5).filter(|k| episodes.targets[e * 5 + k] == 1.0).collect();
            assert_eq!(target.len(), 1);
            let drawing = |t: usize| &images[(e * 11 + t) * 961..][..961];
            // of a held-out character, and not a drawing that was shown, in the rotation of those shown
            let is_drawn = |t: usize, class: &Class| {
                let all = class.drawings.iter();
                all.flat_map(|d| (0..4).map(move |q| data::turned(d, 31, q)))
                    .any(|d| d == drawing(t))
            };
            let class = task.held_out.iter().find(|class| is_drawn(10, class)).unwrap();
            for t in (0..10).filter(|&t| shown[t] as usize == target[0]) {
                assert!(is_drawn(t, class));
                assert_ne!(drawing(t), drawing(10));
            }
            assert!((0..10).any(|t| shown[t] as usize != target[0] && !is_drawn(t, class)));
        }
        let few = task.episodes(3, Purpose::HeldOut, 6, 1);
        assert_eq!(few.signals.images.unwrap()[..11 * 961], images[11 * 961..22 * 961]);
        assert!(task.training.iter().all(|a| task.held_out.iter().all(|b| a.name != b.name)));
    }

    #[test]
    fn rotations_may_be_classes_and_numbers_without_sense_are_refused() {
        let new = |change: &dyn Fn(&mut OmniglotConfig)| {
            let mut config = OmniglotConfig { channels: 2, ..OmniglotConfig::quick() };
            change(&mut config);
            Omniglot::new(&config, &NetworkConfig::omniglot(), 1, 0)
        };
        let turned = new(&|c| c.rotations = "class".into()).unwrap();
        assert_eq!((turned.training.len(), turned.held_out.len()), (4 * 350, 4 * 50));
        for change in [
            &(|c: &mut OmniglotConfig| c.ways = 1) as &dyn Fn(&mut OmniglotConfig),
            &|c| c.shots = 12,
            &|c| c.held_out_classes = 4,
            &|c| c.held_out_classes = 398,
            &|c| c.rotations = "often".into(),
            &|c| c.side = 20,
        ] {
            assert!(new(change).is_err());
        }
    }
}
