//! Several runs in one folder: a sweep over settings, or plastic networks beside their baselines.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model::{Network, Parameters, Tensor};
use crate::session::Session;
use crate::task::Task;
use crate::train::{Config, Outcome, Record, Scores, evaluate, mean, train};

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

/// Trains members one after another, each in its own folder in `folder`; a member that is there already
/// goes on where it stopped. `watch` sees every record, with the member's number. None where `stop` was
/// set before the end.
///
/// # Errors
/// As [`Session::start_or_resume`] and [`Session::train`]; what was trained before stays.
pub fn train_all(
    folder: &Path,
    members: &[Member],
    open: Open<'_>,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(usize, &dyn Task, &Record) -> Result<()>,
) -> Result<Option<Vec<Trained>>> {
    let mut all = Vec::with_capacity(members.len());
    for (k, member) in members.iter().enumerate() {
        let own = folder.join(folder_name(&member.name));
        let mut session = Session::start_or_resume(member.config.clone(), &own, open)?;
        session.train(stop, |task, record| watch(k, task, record))?;
        let Some(Outcome { trained, without_plasticity }) = session.finish()? else {
            return Ok(None);
        };
        let parameters = session.run().parameters(&session.task().network(), Default::default())?;
        all.push(Trained {
            name: member.name.clone(),
            config: session.config().clone(),
            scores: trained,
            without_plasticity: Some(without_plasticity),
            records: session.run().records()?,
            n_trained: n_trained(&session.task().network()),
            parameters,
            folder: Some(own),
        });
    }
    Ok(Some(all))
}

/// A name as that of a folder: what some file systems refuse becomes a dash.
fn folder_name(name: &str) -> String {
    let allowed = |c: char| c.is_alphanumeric() || "=.,_-+ ".contains(c);
    name.chars().map(|c| if allowed(c) { c } else { '-' }).collect()
}

/// Numbers that a network trains: those of a rule that leaves the trace at zero have no use for alpha.
#[must_use]
pub fn n_trained(network: &Network) -> usize {
    let plastic = network.rule != crate::model::Rule::None;
    let layout = crate::model::Layout::new(network);
    let counts = |tensor: Tensor| {
        !network.stages.frozen.contains(&tensor) && (plastic || tensor != Tensor::Alpha)
    };
    layout.entries().iter().filter(|entry| counts(entry.tensor)).map(|entry| entry.len).sum()
}

/// Multiples of a configuration's learning rate that a baseline's is chosen from.
pub const RATES: [f64; 3] = [1.0 / 3.0, 1.0, 3.0];

/// The learning rate of [`RATES`] with which one network's error on training episodes is least over the
/// last quarter of a fourth of the updates. Networks of the seed's stream that are not compared are
/// trained for it.
///
/// # Errors
/// Errors of the engine; settings that do not fit.
pub fn choose_rate(config: &Config, open: Open<'_>, stop: &AtomicBool) -> Result<f64> {
    let updates = config.updates.div_ceil(4);
    let mut best = (f64::INFINITY, config.schedule.rate);
    for times in RATES {
        let mut tried =
            Config { networks: 1, updates, log_every: 1, eval_every: 0, ..config.clone() };
        tried.first_network =
            config.first_network + u32::try_from(config.networks).unwrap_or(u32::MAX);
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
            // a rate that is too high
            Err(Error::Diverged { .. }) => continue,
            result => result?,
        };
        let error = mean(errors.into_iter());
        if error < best.0 {
            best = (error, tried.schedule.rate);
        }
    }
    Ok(best.1)
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
        config.task()?;
        members.push(Member { name: name.into(), config });
        Ok(())
    };
    add("plastic", &|_| {})?;
    if config.network.alpha == "connection" {
        add("alpha per neuron", &|c| c.network.alpha = "neuron".into())?;
        add("alpha per network", &|c| c.network.alpha = "network".into())?;
    }
    let network = config.clone().task()?.network();
    if network.rule.uses_eta() && !network.stages.frozen.contains(&Tensor::Eta) {
        add("eta fixed", &|c| c.network.frozen.push("eta".into()))?;
    }
    let without = |c: &mut Config| {
        c.network.rule = "none".into();
        c.network.rule_text = String::new();
        c.network.clip = 0.0;
        c.network.frozen.retain(|name| name == "w");
    };
    add("not plastic", &without)?;
    // the least number that gives as many trained numbers
    let wanted = n_trained(&network);
    let extra = |extra: usize| {
        move |c: &mut Config| {
            without(c);
            c.network.extra += extra;
        }
    };
    let trains = |n: usize| -> Result<usize> {
        let mut config = config.clone();
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

/// Hopfield-like networks: w = 0, alpha = 1, the trace of rule decay alone, untrained, on the episodes of
/// as many networks as are configured; none for a task that shows no stimuli.
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
    for p in 0..config.networks {
        parameters.get_mut(p, Tensor::W).fill(0.0);
        parameters.get_mut(p, Tensor::Alpha).fill(1.0);
    }
    let mut engine = open(&config, &task.network())?;
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
