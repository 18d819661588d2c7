//! Several runs in one folder: a sweep over settings, or plastic networks beside their baselines.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::engine::{Engine, Want};
use crate::error::{Error, Result};
use crate::model::{Layout, Network, Parameters, Tensor};
use crate::random::Purpose;
use crate::report::quantile;
use crate::session::Session;
use crate::task::{Answers, Task};
use crate::train::{
    Config, Moment, Outcome, Record, Scores, evaluate, is_trained, mean, rank_sum, train,
};

/// A run of a study.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it is called, in tables and as its folder.
    pub name: String,
    /// Its settings.
    pub config: Config,
}

/// A member that was trained.
#[derive(Clone, Debug)]
pub struct Trained {
    /// What it is called.
    pub name: String,
    /// Its folder; none for what was not trained.
    pub folder: Option<PathBuf>,
    /// Its settings.
    pub config: Config,
    /// Held-out scores of its networks.
    pub scores: Scores,
    /// The scores without plasticity, where it was trained.
    pub without_plasticity: Option<Scores>,
    /// Its records.
    pub records: Vec<Record>,
    /// Numbers that a network trains.
    pub n_trained: usize,
    /// Its parameters.
    pub parameters: Parameters<f32>,
}

/// How engines are opened for a configuration.
pub type Open<'a> = &'a dyn Fn(&Config, &Network) -> Result<Box<dyn Engine<f32>>>;

/// What became of members.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Those that came to their end.
    pub trained: Vec<Trained>,
    /// Those whose training diverged: their names, and what was not finite.
    pub diverged: Vec<(String, String)>,
}

impl Trained {
    /// Quartiles of the error over networks.
    #[must_use]
    pub fn quartiles(&self) -> [f64; 3] {
        let each = self.scores.per_network();
        [0.25, 0.5, 0.75].map(|share| quantile(each.iter().copied(), share))
    }

    /// The probability of a difference as large as that to `other` were there none; see [`rank_sum`].
    #[must_use]
    pub fn p_value(&self, other: &Trained) -> Option<f64> {
        rank_sum(&self.scores.per_network(), &other.scores.per_network())
    }
}

/// Trains members one after another, each in its own folder in `folder`; a member that is there already
/// goes on where it stopped. `watch` sees every record, with the member's number. None where `stop` was
/// set before the end.
///
/// # Errors
/// As [`Session::start_or_resume`] and [`Session::train`], but for training that diverges; what was
/// trained before stays.
pub fn train_all(
    folder: &Path,
    members: &[Member],
    open: Open<'_>,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(usize, &dyn Task, &Record) -> Result<()>,
) -> Result<Option<Found>> {
    let mut found = Found::default();
    for (k, member) in members.iter().enumerate() {
        let own = member.folder(folder);
        let mut session = Session::start_or_resume(member.config.clone(), &own, open)?;
        match session.train(stop, |task, record| watch(k, task, record)) {
            Err(Error::Diverged { what, .. }) => {
                found.diverged.push((member.name.clone(), what));
                continue;
            }
            result => _ = result?,
        }
        let Some(Outcome { trained, without_plasticity }) = session.finish()? else {
            return Ok(None);
        };
        let network = session.task().network();
        found.trained.push(Trained {
            name: member.name.clone(),
            config: session.config().clone(),
            scores: trained,
            without_plasticity: Some(without_plasticity),
            records: session.run().records()?,
            n_trained: n_trained(&network),
            parameters: session.run().parameters(&network, Moment::End)?,
            folder: Some(own),
        });
    }
    Ok(Some(found))
}

impl Member {
    /// Where it is trained, in the folder of a study: what some file systems refuse in a name becomes a
    /// dash.
    #[must_use]
    pub fn folder(&self, study: &Path) -> PathBuf {
        let allowed = |c: char| c.is_alphanumeric() || "=.,_-+ ".contains(c);
        let name: String = self.name.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
        study.join(name)
    }
}

/// Numbers that a network trains: those of a rule that leaves the trace at zero have no use for alpha.
#[must_use]
pub fn n_trained(network: &Network) -> usize {
    let layout = Layout::new(network);
    let trained = layout.entries().iter().filter(|entry| is_trained(network, entry.tensor));
    trained.map(|entry| entry.len).sum()
}

/// Multiples of a configuration's learning rate that a baseline's is chosen from.
pub const RATES: [f64; 3] = [1.0 / 3.0, 1.0, 3.0];

/// The learning rate of [`RATES`] with which one network's error on training episodes is least over the
/// last quarter of a fourth of the updates. A network of the seed's stream that is not compared is
/// trained for it. None where `stop` was set before the end.
///
/// # Errors
/// [`Error::Diverged`] where training does with all of them; settings that do not fit; errors of the
/// engine.
pub fn choose_rate(config: &Config, open: Open<'_>, stop: &AtomicBool) -> Result<Option<f64>> {
    let updates = config.updates.div_ceil(4);
    let mut best = None;
    let mut diverged = None;
    for times in RATES {
        let mut tried =
            Config { networks: 1, updates, log_every: 1, eval_every: 0, ..config.clone() };
        let next = u32::try_from(config.networks).unwrap_or(u32::MAX);
        tried.first_network = config.first_network.wrapping_add(next);
        tried.schedule.rate *= times;
        let task = tried.task()?;
        let mut engine = open(&tried, &task.network())?;
        engine.set_parameters(&tried.initial(&*task)?)?;
        let mut errors = Vec::new();
        let result = train(&tried, &*task, &mut *engine, stop, |record| {
            if record.update > updates - updates.div_ceil(4) {
                errors.push(record.summary());
            }
            Ok(())
        });
        match result {
            Ok(done) if done < updates => return Ok(None),
            // a rate that is too high
            Err(error @ Error::Diverged { .. }) => diverged = Some(error),
            result => {
                result?;
                let error = mean(errors.into_iter());
                if best.is_none_or(|(least, _)| error < least) {
                    best = Some((error, tried.schedule.rate));
                }
            }
        }
    }
    match (best, diverged) {
        (None, Some(error)) => Err(error),
        _ => Ok(best.map(|(_, rate)| rate)),
    }
}

/// Plastic networks as configured, and what they are compared with: alpha shared, eta fixed, networks
/// without plasticity of equal size, and with as many more neurons as give them as many trained numbers.
///
/// # Errors
/// Settings that do not fit.
pub fn baselines(config: &Config) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    let mut add = |name: &str, change: &dyn Fn(&mut Config)| -> Result<()> {
        let mut config = config.clone();
        change(&mut config);
        members.push(Member { name: name.into(), config });
        Ok(())
    };
    add("plastic", &|_| {})?;
    if config.network.alpha == "connection" {
        add("alpha per neuron", &|c| c.network.alpha = "neuron".into())?;
        add("alpha per network", &|c| c.network.alpha = "network".into())?;
    }
    // data are read once: networks need none
    let mut bare = config.clone();
    bare.task.make_data();
    let network = bare.clone().task()?.network();
    if network.rule.uses_eta() && !network.stages.frozen.contains(&Tensor::Eta) {
        add("eta fixed", &|c| c.network.frozen.push("eta".into()))?;
    }
    let unruled = |c: &mut Config| {
        c.network.rule = "none".into();
        c.network.rule_text = String::new();
        c.network.clip = 0.0;
        c.network.frozen.clear();
    };
    let mut plain = bare.clone();
    unruled(&mut plain);
    let layout = Layout::new(&plain.task()?.network());
    let known = |name: &String| name != "alpha" && layout.entries().iter().any(|e| e.name == *name);
    let frozen: Vec<String> =
        config.network.frozen.iter().filter(|name| known(name)).cloned().collect();
    let without = |c: &mut Config| {
        unruled(c);
        c.network.frozen.clone_from(&frozen);
    };
    add("not plastic", &without)?;
    // the least number that gives as many trained numbers
    let wanted = n_trained(&network);
    let extra = |extra: usize| {
        let without = &without;
        move |c: &mut Config| {
            without(c);
            c.network.extra += extra;
        }
    };
    let trains = |n: usize| -> Result<usize> {
        let mut config = bare.clone();
        extra(n)(&mut config);
        Ok(n_trained(&config.task()?.network()))
    };
    let (mut few, mut enough) = (0, 1);
    while trains(enough)? < wanted {
        (few, enough) = (enough, 2 * enough);
    }
    while enough - few > 1 {
        let middle = few.midpoint(enough);
        if trains(middle)? < wanted { few = middle } else { enough = middle }
    }
    add("not plastic, more neurons", &extra(enough))?;
    Ok(members)
}

/// What one alpha of networks with nothing else is chosen from.
const ALPHAS: [f32; 7] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

/// Hopfield-like networks: w = 0 and the trace of rule decay alone, untrained, with the one alpha of seven
/// whose error on training episodes is least, on the episodes of as many networks as are configured; none
/// for a task that shows no stimuli.
///
/// # Errors
/// Errors of the engine.
pub fn hopfield(config: &Config, open: Open<'_>) -> Result<Option<Trained>> {
    let mut config = config.clone();
    config.network.rule = "decay".into();
    config.network.rule_text = String::new();
    config.network.alpha = "network".into();
    config.network.frozen = Vec::new();
    config.init = PathBuf::new();
    let task = config.task()?;
    if task.recall().is_none() {
        return Ok(None);
    }
    let mut parameters = task.initial(config.seed);
    let mut engine = open(&config, &task.network())?;
    let mut best = (f64::INFINITY, ALPHAS[0]);
    for alpha in ALPHAS {
        untrained(&mut parameters, alpha);
        engine.set_parameters(&parameters)?;
        let error = training_error(&*task, &mut *engine, config.seed)?;
        if error < best.0 {
            best = (error, alpha);
        }
    }
    untrained(&mut parameters, best.1);
    engine.set_parameters(&parameters)?;
    let scores = evaluate(&*task, &mut *engine, config.seed, config.eval_episodes)?;
    Ok(Some(Trained {
        name: "Hopfield (H alone, untrained)".into(),
        folder: None,
        config,
        scores,
        without_plasticity: None,
        records: Vec::new(),
        n_trained: 0,
        parameters,
    }))
}

fn untrained(parameters: &mut Parameters<f32>, alpha: f32) {
    for p in 0..parameters.n_networks() {
        parameters.get_mut(p, Tensor::W).fill(0.0);
        parameters.get_mut(p, Tensor::Alpha).fill(alpha);
    }
}

/// The mean error of a few training episodes of a task that shows stimuli.
fn training_error(task: &dyn Task, engine: &mut dyn Engine<f32>, seed: u64) -> Result<f64> {
    const EPISODES: usize = 20;
    let episodes = task.episodes(seed, Purpose::Training, 0, EPISODES);
    let outputs = engine.evaluate(&episodes, Want::default())?;
    let answers = Answers { y_last: &outputs.y_last, ..Answers::default() };
    Ok(mean(task.errors(&episodes, &answers).unwrap_or_default().into_iter()))
}
