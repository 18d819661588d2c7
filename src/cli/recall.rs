//! `hebbian recall`.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use crate::cli::{Common, DataFlags, Layout, MomentFlag, number, shown, stimulus};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::export::single_network;
use crate::files;
use crate::memory::{Memory, owner};
use crate::model::Parameters;
use crate::picture::Picture;
use crate::random::{Purpose, Stream};
use crate::report::{capacity_curve, labelled};
use crate::task::{Recall as Shape, Task};
use crate::train::{Capacity, Moment, Run, capacity};

/// Lets a trained network remember: its trace goes on changing, in a file
///
/// The memory lives in a file between calls: one process presents, another completes
/// tomorrow.
#[derive(clap::Args)]
pub(super) struct Recall {
    /// A run directory
    run: PathBuf,
    #[command(subcommand)]
    action: Action,
    /// The memory's file [default: memory.safetensors in the run directory, memory-K.safetensors
    /// for network K of several]
    #[arg(long, global = true)]
    memory: Option<PathBuf>,
    /// Which of the run's networks, from 0 [default: 0; capacity takes all of them]
    #[arg(long, global = true)]
    network: Option<usize>,
    #[command(flatten)]
    moment: MomentFlag,
    #[command(flatten)]
    places: DataFlags,
    /// auto (the best hardware GPU, else the CPU), cpu, gpu or gpu:INDEX
    #[arg(long, global = true, default_value = "auto")]
    device: String,
    /// Print one JSON object on standard output
    #[arg(long, global = true)]
    json: bool,
    /// No talk on standard error
    #[arg(long, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Action {
    /// Shows stimuli to the network, which remembers them
    Present {
        /// PNG pictures, patterns as .txt (1 and 0, ? hidden), or .safetensors
        #[arg(required = true)]
        stimuli: Vec<PathBuf>,
        /// How often each is shown [default: as in training]
        #[arg(long)]
        times: Option<usize>,
    },
    /// Shows a cue and takes what the network makes of it; the memory stays as it is
    Complete {
        /// The cue, or the whole stimulus with --hide
        cue: PathBuf,
        /// Hides a half of the stimulus first, for random a fixed draw of numbers; then the error on
        /// that half is known
        #[arg(long, value_enum, default_value = "none")]
        hide: Half,
        /// The whole stimulus, for the error where the cue itself hides some of it
        #[arg(long, value_name = "FILE")]
        truth: Option<PathBuf>,
        /// Where the picture goes: stimulus, cue, reconstruction, error [default: recall-CUE.png in
        /// the run directory, numbered where there is one]
        #[arg(long, value_name = "FILE.png")]
        picture: Option<PathBuf>,
    },
    /// Makes the memory blank
    Forget,
    /// Says what the memory holds
    Status,
    /// Error against the number of stimuli stored and against the delay before the test
    Capacity {
        /// Most stimuli
        #[arg(long, default_value_t = 8)]
        most: usize,
        /// Blank steps before the test
        #[arg(long, value_delimiter = ',', default_values_t = [0, 10, 30, 100, 300])]
        delays: Vec<usize>,
        /// Held-out episodes per network and point
        #[arg(long, default_value_t = 50)]
        episodes: usize,
        /// Where the curve goes [default: capacity.svg in the run directory]
        #[arg(long, value_name = "FILE.svg")]
        picture: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Half {
    None,
    Top,
    Bottom,
    Left,
    Right,
    Random,
}

/// A network with its memory at hand.
struct Session {
    shape: Shape,
    engine: Box<dyn Engine<f32>>,
    memory: Memory,
    path: PathBuf,
    owner: String,
    /// Keeps other processes from changing the memory, where this one does.
    _lock: Option<files::Lock>,
}

impl Recall {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let common = Common {
            device: self.device.clone(),
            layout: Layout::default(),
            json: self.json,
            quiet: self.quiet,
        };
        let run = Run::open(&self.run)?;
        let mut config = run.config()?;
        self.places.find(&mut config.task)?;
        let task = config.task()?;
        let parameters =
            run.parameters(&task.network(), Moment::from_name(&self.moment.update)?)?;
        if let Action::Capacity { most, delays, episodes, picture } = &self.action {
            for (flag, given) in
                [("--network", self.network.is_some()), ("--memory", self.memory.is_some())]
            {
                if given {
                    let wanted = "no such flag: episodes of its own for every network";
                    return Err(Error::value(flag, "with capacity", wanted).into());
                }
            }
            let mut engine = common.open(&task.network())?;
            engine.set_parameters(&parameters)?;
            let found = capacity(&*task, &mut *engine, config.seed, *episodes, *most, delays)?;
            let path = picture.clone().unwrap_or_else(|| run.folder().join("capacity.svg"));
            files::write(
                &path,
                capacity_curve(&found, task.error_name(), &run.label()).as_bytes(),
            )?;
            show_capacity(&common, &*task, &found, &path);
            return Ok(0);
        }
        let mut session = self.session(&common, &run, &*task, &parameters)?;
        match &self.action {
            Action::Present { stimuli, times } => {
                let shown: Vec<Vec<f32>> = stimuli
                    .iter()
                    .map(|path| stimulus::read(path, &session.shape, None).map(|one| one.values))
                    .collect::<Result<_>>()?;
                let Session { shape, engine, memory, .. } = &mut session;
                memory.remember(&mut **engine, shape, &shown, *times)?;
                let times = times.unwrap_or(shape.cycles);
                session.memory.write(&session.path, &session.owner)?;
                session.say(&common, &format!("{} stimuli shown {times} times", shown.len()));
            }
            Action::Complete { cue, hide, truth, picture } => {
                let picture = match picture {
                    Some(path) => Some(path.clone()),
                    None => free_picture(&common, run.folder(), cue),
                };
                session.complete(&common, cue, *hide, truth.as_deref(), picture.as_deref())?;
            }
            Action::Forget => {
                session.memory.forget();
                session.memory.write(&session.path, &session.owner)?;
                session.say(&common, "blank");
            }
            Action::Status => session.say(&common, "memory"),
            Action::Capacity { .. } => unreachable!("answered above"),
        }
        Ok(0)
    }

    fn session(
        &self,
        common: &Common,
        run: &Run,
        task: &dyn Task,
        parameters: &Parameters<f32>,
    ) -> anyhow::Result<Session> {
        let shape = task.recall().ok_or_else(|| {
            Error::value("recall", format!("task {}", task.name()), "patterns or images")
        })?;
        let population = task.network();
        let chosen = self.network.unwrap_or(0);
        let (network, one) = single_network(&population, parameters, chosen)?;
        let owner = owner(&one);
        let path = match &self.memory {
            Some(path) => path.clone(),
            None if population.n_networks == 1 => run.folder().join("memory.safetensors"),
            None => run.folder().join(format!("memory-{chosen}.safetensors")),
        };
        let changes = matches!(self.action, Action::Present { .. } | Action::Forget);
        let lock = if changes { Some(files::Lock::take(&path)?) } else { None };
        // the run's own file may hold a memory of parameters before more training
        let blank = matches!(self.action, Action::Forget) && self.memory.is_none();
        let memory = if !path.exists() {
            Memory::new(&network, 1)?
        } else if blank {
            Memory::check(&path)?;
            Memory::new(&network, 1)?
        } else {
            Memory::read(&path, &network, &owner)?
        };
        let mut engine = common.open(&network)?;
        engine.set_parameters(&one)?;
        Ok(Session { shape, engine, memory, path, owner, _lock: lock })
    }
}

impl Session {
    fn complete(
        &mut self,
        common: &Common,
        path: &Path,
        hide: Half,
        truth: Option<&Path>,
        picture: Option<&Path>,
    ) -> anyhow::Result<()> {
        let whole = truth.map(|truth| stimulus::read(truth, &self.shape, None)).transpose()?;
        let scale = whole.as_ref().and_then(|whole| whole.scale);
        let given = stimulus::read(path, &self.shape, scale)?;
        let (n, width) = (given.values.len(), self.shape.width);
        let half = n / 2;
        // the same half of every stimulus of that size
        let mut drawn: Vec<bool> = (0..n).map(|k| k < half).collect();
        Stream::new(0, Purpose::HeldOut, 0, 0).shuffle(&mut drawn);
        let hides = |k: usize| match hide {
            Half::None => false,
            Half::Top => k < half,
            Half::Bottom => k >= half,
            Half::Left => k % width < width / 2,
            Half::Right => k % width >= width.div_ceil(2),
            Half::Random => drawn[k],
        };
        let mut cue = given.values.clone();
        (0..cue.len()).filter(|&k| hides(k)).for_each(|k| cue[k] = 0.0);
        let whole = whole.unwrap_or_else(|| given.clone());
        let answer = self.memory.complete(&mut *self.engine, &self.shape, &cue)?;
        let hidden: Vec<usize> = (0..cue.len()).filter(|&k| given.hidden[k] || hides(k)).collect();
        let known: Vec<usize> = hidden.iter().copied().filter(|&k| !whole.hidden[k]).collect();
        let error = (!known.is_empty()).then(|| self.error(&answer, &whole.values, &known));
        let difference = |k: usize| match whole.hidden[k] {
            true => -1.0,
            false => (answer[k] - whole.values[k]).abs() - 1.0,
        };
        let differences: Vec<f32> = (0..cue.len()).map(difference).collect();
        if let Some(picture) = picture {
            let shown_error = match error {
                Some(error) => format!("error {:.1} %", 100.0 * error),
                None => "error".into(),
            };
            let tiles = [
                ("stimulus", &whole.values),
                ("cue", &cue),
                ("reconstruction", &answer),
                (&shown_error, &differences),
            ];
            let tiles = tiles.map(|(name, tile)| (name.to_string(), tile.clone())).to_vec();
            let zoom = (160 / self.shape.width).max(1);
            files::write(picture, &labelled(&Picture { width: self.shape.width, tiles }, zoom))?;
        }
        if common.json {
            let answer: Vec<_> = answer.iter().map(|&v| number(f64::from(v))).collect();
            put!(
                "{}",
                json!({
                    "schema": "hebbian.recall/1",
                    "memory": shown(&self.path),
                    "steps": self.memory.steps(),
                    "error": error,
                    "hidden": hidden.len(),
                    "hidden_known": known.len(),
                    "picture": picture.map(shown),
                    "y": answer,
                })
            );
            return Ok(());
        }
        if self.shape.binary {
            let bit = |&y: &f32| if y > 0.0 { '1' } else { '0' };
            put!("{}", answer.iter().map(bit).collect::<String>());
        }
        match error {
            Some(error) => put!("error on {} hidden numbers {:.2} %", known.len(), 100.0 * error),
            None if hidden.is_empty() => put!("nothing was hidden, so there is no error"),
            None => put!(
                "{} numbers were hidden; what they were is not known (--truth FILE tells)",
                hidden.len()
            ),
        }
        if let Some(picture) = picture {
            put!("picture (stimulus, cue, reconstruction, error): {}", picture.display());
        }
        Ok(())
    }

    /// Of the numbers `known`: the share of wrong signs, or the root mean square.
    fn error(&self, answer: &[f32], whole: &[f32], known: &[usize]) -> f64 {
        let each = known.iter().map(|&k| {
            let (y, wanted) = (f64::from(answer[k]), f64::from(whole[k]));
            if self.shape.binary {
                f64::from(u8::from(y * wanted <= 0.0))
            } else {
                (y - wanted).powi(2)
            }
        });
        #[expect(clippy::cast_precision_loss, reason = "a count of neurons")]
        let mean = each.sum::<f64>() / known.len() as f64;
        if self.shape.binary { mean } else { mean.sqrt() }
    }

    fn say(&self, common: &Common, what: &str) {
        let h = self.memory.h();
        let norm = h.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let steps = self.memory.steps();
        if common.json {
            put!(
                "{}",
                json!({
                    "schema": "hebbian.memory/1",
                    "memory": shown(&self.path),
                    "steps": steps,
                    "trace_norm": number(norm),
                })
            );
        } else {
            put!(
                "{what}; {steps} steps lived, norm of the trace {norm:.4}, in {}",
                self.path.display()
            );
        }
    }
}

/// The first of `recall-CUE.png`, `recall-CUE-2.png`, ... in `folder` that is not there; none, with
/// a word, where nothing can be written.
fn free_picture(common: &Common, folder: &Path, cue: &Path) -> Option<PathBuf> {
    let stem = cue.file_stem().map_or("cue".into(), |stem| stem.to_string_lossy());
    let name = |k: u32| match k {
        1 => folder.join(format!("recall-{stem}.png")),
        _ => folder.join(format!("recall-{stem}-{k}.png")),
    };
    let path = (1..).map(name).find(|path| !path.exists())?;
    match files::check_writable(&path) {
        Ok(()) => Some(path),
        Err(error) => {
            common.say(format_args!("no picture ({error}); --picture FILE.png writes one"));
            None
        }
    }
}

fn show_capacity(common: &Common, task: &dyn Task, found: &Capacity, picture: &Path) {
    if common.json {
        let series = [("number", &found.by_number), ("delay", &found.by_delay)];
        let points: Vec<_> = series
            .iter()
            .flat_map(|(name, points)| points.iter().map(move |p| (name, p)))
            .map(|(name, p)| {
                json!({
                    "by": name,
                    "stimuli": p.stimuli,
                    "delay": p.delay,
                    "error": number(p.scores.mean()),
                    "error_ci95": p.scores.estimate().ci95.map(number),
                    "ci95_over": p.scores.interval_over(),
                    "per_network": p.scores.per_network(),
                })
            })
            .collect();
        put!(
            "{}",
            json!({
                "schema": "hebbian.capacity/1",
                "task": task.name(),
                "measure": task.error_name(),
                "points": points,
                "picture": shown(picture),
            })
        );
        return;
    }
    put!("stimuli  delay  {}", task.error_name());
    for p in found.by_number.iter().chain(&found.by_delay) {
        put!("{:7}  {:5}  {}", p.stimuli, p.delay, p.scores.text(task));
    }
    put!("curve: {}", picture.display());
}
