//! `hebbian eval`.

use std::path::{Path, PathBuf};

use crate::case::Case;
use crate::cli::{Common, DataFlags, MomentFlag, number, shown, talk};
use crate::error::Error;
use crate::task::{Custom, NetworkConfig, Omniglot, Task};
use crate::train::{Config, Moment, Outcome, Run, TaskConfig, differing, guess_error};

/// Scores a run on held-out episodes, with plasticity and without
#[derive(clap::Args)]
pub(super) struct Eval {
    /// A run directory
    run: PathBuf,
    /// Held-out episodes per network [default: the run's]
    #[arg(long)]
    episodes: Option<usize>,
    /// Scores Omniglot's 20 published one-shot runs instead (all_runs.zip), of networks with as many
    /// labels
    #[arg(long, value_name = "FILE")]
    one_shot_runs: Option<PathBuf>,
    #[command(flatten)]
    moment: MomentFlag,
    #[command(flatten)]
    places: DataFlags,
    #[command(flatten)]
    common: Common,
}

impl Eval {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let run = Run::open(&self.run)?;
        let mut config = run.config()?;
        let other = self.other_case(&config)?;
        let task = match other {
            Some(task) => task,
            None => {
                self.places.find(&mut config.task)?;
                config.task()?
            }
        };
        let task = match &self.one_shot_runs {
            Some(path) => one_shot_runs(&config, path)?,
            None => task,
        };
        let all = self.one_shot_runs.as_ref().and(task.most_held_out());
        let n_episodes = self.episodes.or(all).unwrap_or(config.eval_episodes);
        if n_episodes == 0 {
            return Err(Error::value("--episodes", "0", "at least 1").into());
        }
        let network = task.network();
        let parameters = run.parameters(&network, Moment::from_name(&self.moment.update)?)?;
        let mut engine = self.common.open(&network)?;
        let outcome = Outcome::measure(&*task, &mut *engine, &parameters, config.seed, n_episodes)?;
        print(&run, &*task, &outcome, (config.seed, n_episodes), &self.common);
        Ok(0)
    }
}

impl Eval {
    /// The case that `--case` names, if it is not the run's: its episodes are scored.
    fn other_case(&self, config: &Config) -> anyhow::Result<Option<Box<dyn Task>>> {
        let (Some(path), TaskConfig::Custom(own)) = (&self.places.case, &config.task) else {
            return Ok(None);
        };
        let (case, sha256) = Case::read_all(path)?;
        if sha256 == own.sha256 {
            return Ok(None);
        }
        let frozen = config.network.frozen.clone();
        let found = NetworkConfig { frozen, ..NetworkConfig::of_case(&case.network) };
        if case.network.n_networks != config.networks {
            let found = format!("{} networks", case.network.n_networks);
            return Err(Error::file(path, found, format!("the run's {}", config.networks)).into());
        }
        if found != config.network {
            let [found, wanted] = differing(&found, &config.network);
            return Err(Error::file(path, found, format!("as in the run, {wanted}")).into());
        }
        if let Some(flag) = self.places.held_out.as_ref() {
            let wanted = "no such flag: all episodes of another case are scored";
            return Err(Error::value("--held-out", flag.as_str(), wanted).into());
        }
        Ok(Some(Box::new(Custom::to_score(case))))
    }
}

/// The published one-shot runs, for the networks of a run.
fn one_shot_runs(config: &Config, path: &Path) -> anyhow::Result<Box<dyn Task>> {
    let TaskConfig::Omniglot(omniglot) = &config.task else {
        let found = "a run of another task";
        return Err(Error::value("--one-shot-runs", found, "a run of omniglot").into());
    };
    let task = Omniglot::new(omniglot, &config.network, config.networks, config.first_network)?;
    let runs = task.one_shot_runs(path)?;
    if runs.known() > 0 {
        let n = runs.known();
        talk(format_args!("warning: the networks were trained on {n} of these test drawings"));
    }
    Ok(Box::new(runs))
}

/// Prints scores: JSON, or a line of text for each number.
pub(super) fn print(
    run: &Run,
    task: &dyn Task,
    outcome: &Outcome,
    (seed, n_episodes): (u64, usize),
    common: &Common,
) {
    let (trained, off) = (&outcome.trained, &outcome.without_plasticity);
    let scored = task.scored_name();
    let guess = guess_error(task, &task.network(), seed, n_episodes);
    let most = task.own_episodes().or(task.most_held_out());
    let n_episodes = most.map_or(n_episodes, |most| n_episodes.min(most));
    if common.json {
        let accuracy = task.error_name() == "wrong answers";
        let answer = serde_json::json!({
            "schema": "hebbian.eval/1",
            "run": shown(run.folder()),
            "task": task.name(),
            "measure": task.error_name(),
            "held_out": scored == "held-out",
            "scored": scored,
            "episodes": n_episodes,
            "networks": trained.per_network().len(),
            "error": number(trained.mean()),
            "accuracy": accuracy.then(|| number(1.0 - trained.mean())),
            "reward": task.world().map(|_| number(-trained.mean())),
            "reward_without_plasticity": task.world().map(|_| number(-off.mean())),
            "error_ci95": trained.estimate().ci95.map(number),
            "ci95_over": trained.interval_over(),
            "error_median": number(trained.median()),
            "error_without_plasticity": number(off.mean()),
            "error_without_plasticity_ci95": off.estimate().ci95.map(number),
            "guess": guess.map(|(name, _)| name),
            "error_of_guess": guess.map(|(_, error)| number(error)),
            "loss": number(trained.loss()),
            "loss_without_plasticity": number(off.loss()),
            "loss_per_network": trained.losses(),
            "per_network": trained.per_network(),
            "per_network_without_plasticity": off.per_network(),
        });
        put!("{answer}");
        return;
    }
    let over = match trained.interval_over() {
        "unknown" => String::new(),
        over => format!(" (\u{b1}: 95 % confidence over {over})"),
    };
    put!("{} on {n_episodes} {scored} episodes per network{over}", task.error_name());
    put!("  plastic             {}", trained.text(task));
    put!("  plasticity off      {}", off.text(task));
    if let Some((name, error)) = guess {
        put!("  {name:19} {}", task.error_text(error));
    }
    if task.error_name() != "loss" {
        put!("  loss                {:.5}, plasticity off {:.5}", trained.loss(), off.loss());
    }
    let each = trained.per_network();
    if each.len() > 1 {
        let each: Vec<String> = each.into_iter().map(|error| task.error_text(error)).collect();
        put!("  each network        {}", each.join(", "));
    }
}
