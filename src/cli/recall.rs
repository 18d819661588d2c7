//! `hebbian recall`.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use crate::cli::{Common, Layout, number, shown, stimulus};
use crate::engine::{Device, Engine, open};
use crate::error::{Error, Result};
use crate::files;
use crate::memory::{Memory, Stretch, owner};
use crate::model::{Network, Parameters};
use crate::report::{capacity_curve, montage};
use crate::task::{Picture, Recall as Shape, Task};
use crate::train::{Point, Run, capacity};

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
    /// The memory's file [default: memory.safetensors in the run directory]
    #[arg(long, global = true)]
    memory: Option<PathBuf>,
    /// Which of the run's networks, from 0
    #[arg(long, global = true, default_value_t = 0)]
    network: usize,
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
        /// Hides a half of the stimulus first; then the error on that half is known
        #[arg(long, value_enum, default_value = "none")]
        hide: Half,
        /// Where the picture goes: stimulus, cue, reconstruction, error
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
}

/// A network with its memory at hand.
struct Session {
    shape: Shape,
    engine: Box<dyn Engine<f32>>,
    memory: Memory,
    path: PathBuf,
    owner: String,
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
        let task = config.task()?;
        let parameters = run.parameters(&task.network())?;
        if let Action::Capacity { most, delays, episodes, picture } = &self.action {
            let mut engine = open(Device::from_name(&self.device)?, &task.network())?;
            engine.set_parameters(&parameters)?;
            let points = capacity(&*task, &mut *engine, config.seed, *episodes, *most, delays)?;
            let path = picture.clone().unwrap_or_else(|| run.folder().join("capacity.svg"));
            files::write(&path, capacity_curve(&points, task.error_name()).as_bytes())?;
            show_capacity(&common, &*task, &points, &path);
            return Ok(0);
        }
        let mut session = self.session(&run, &*task, &parameters)?;
        match &self.action {
            Action::Present { stimuli, times } => {
                let times = times.unwrap_or(session.shape.cycles);
                let shown: Vec<Vec<f32>> = stimuli
                    .iter()
                    .map(|path| stimulus::read(path, &session.shape))
                    .collect::<Result<_>>()?;
                for _ in 0..times {
                    for values in &shown {
                        session.show(values, session.shape.shown)?;
                        let blank = vec![0.0; values.len()];
                        session.show(&blank, session.shape.blank)?;
                    }
                }
                session.memory.write(&session.path, &session.owner)?;
                session.say(&common, &format!("{} stimuli shown {times} times", shown.len()));
            }
            Action::Complete { cue, hide, picture } => {
                let picture = picture.clone().unwrap_or_else(|| run.folder().join("recall.png"));
                session.complete(&common, cue, *hide, &picture)?;
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
        run: &Run,
        task: &dyn Task,
        parameters: &Parameters<f32>,
    ) -> anyhow::Result<Session> {
        let shape = task.recall().ok_or_else(|| {
            Error::value("recall", format!("task {}", task.name()), "patterns or images")
        })?;
        let population = task.network();
        if self.network >= population.n_networks {
            let wanted = format!("below {}", population.n_networks);
            return Err(Error::value("--network", self.network.to_string(), wanted).into());
        }
        let network = Network { n_networks: 1, ..population };
        let mut one = Parameters::zeros(&network);
        one.values_mut().copy_from_slice(parameters.network(self.network));
        let owner = owner(&one);
        let path = match &self.memory {
            Some(path) => path.clone(),
            None => run.folder().join("memory.safetensors"),
        };
        let memory = match self.action {
            _ if !path.exists() => Memory::new(&network, 1)?,
            Action::Forget => {
                Memory::check(&path)?;
                Memory::new(&network, 1)?
            }
            _ => Memory::read(&path, &network, &owner)?,
        };
        let mut engine = open(Device::from_name(&self.device)?, &network)?;
        engine.set_parameters(&one)?;
        Ok(Session { shape, engine, memory, path, owner })
    }
}

impl Session {
    /// Shows numbers for some steps; returns y of the last.
    fn show(&mut self, values: &[f32], n_steps: usize) -> Result<Vec<f32>> {
        if n_steps == 0 {
            return Ok(self.memory.y().to_vec());
        }
        let mut drive: Vec<f32> = values.iter().map(|v| v * self.shape.gain).collect();
        drive.push(self.shape.gain);
        let clamp: Vec<f32> = drive.iter().map(|&v| if v == 0.0 { 0.0 } else { 1.0 }).collect();
        let clamp = self.shape.clamped.then_some(&clamp[..]);
        let stretch = Stretch { n_steps, stimulus: &drive, clamp };
        self.memory.live(&mut *self.engine, &stretch)?;
        Ok(self.memory.y().to_vec())
    }

    fn complete(
        &mut self,
        common: &Common,
        path: &Path,
        hide: Half,
        picture: &Path,
    ) -> anyhow::Result<()> {
        let whole = stimulus::read(path, &self.shape)?;
        let mut cue = whole.clone();
        let half = cue.len() / 2;
        match hide {
            Half::None => {}
            Half::Top => cue[..half].fill(0.0),
            Half::Bottom => cue[half..].fill(0.0),
        }
        let before = self.memory.clone();
        let mut answer = self.show(&cue, self.shape.test)?;
        self.memory = before;
        answer.truncate(whole.len());
        let hidden: Vec<usize> =
            (0..whole.len()).filter(|&k| cue[k] == 0.0 && whole[k] != 0.0).collect();
        let error = (!hidden.is_empty()).then(|| {
            let each = hidden.iter().map(|&k| {
                let (y, wanted) = (f64::from(answer[k]), f64::from(whole[k]));
                if self.shape.binary {
                    f64::from(u8::from(y * wanted <= 0.0))
                } else {
                    (y - wanted).powi(2)
                }
            });
            #[expect(clippy::cast_precision_loss, reason = "a count of neurons")]
            let mean = each.sum::<f64>() / hidden.len() as f64;
            if self.shape.binary { mean } else { mean.sqrt() }
        });
        let difference = (0..whole.len()).map(|k| (answer[k] - whole[k]).abs() - 1.0).collect();
        let tiles = [
            ("stimulus", whole),
            ("cue", cue),
            ("reconstruction", answer.clone()),
            ("error", difference),
        ];
        let tiles = tiles.map(|(name, tile)| (name.to_string(), tile)).to_vec();
        let zoom = (160 / self.shape.width).max(1);
        files::write(picture, &montage(&Picture { width: self.shape.width, tiles }, zoom))?;
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
                    "picture": shown(picture),
                    "y": answer,
                })
            );
        } else {
            match error {
                Some(error) => put!("error on the hidden half {:.2} %", 100.0 * error),
                None => put!("completed; nothing was hidden, so the error is not known"),
            }
            put!("picture (stimulus, cue, reconstruction, error): {}", picture.display());
        }
        Ok(())
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

fn show_capacity(common: &Common, task: &dyn Task, points: &[Point], picture: &Path) {
    if common.json {
        let points: Vec<_> = points
            .iter()
            .map(|p| {
                json!({
                    "stimuli": p.stimuli,
                    "delay": p.delay,
                    "error": number(p.scores.mean()),
                    "error_ci95": number(p.scores.ci95()),
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
    for p in points {
        let (mean, ci) = (100.0 * p.scores.mean(), 100.0 * p.scores.ci95());
        put!("{:7}  {:5}  {mean:.2} % ± {ci:.2} %", p.stimuli, p.delay);
    }
    put!("curve: {}", picture.display());
}
