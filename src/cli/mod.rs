//! The command line: parse, call, print, exit code. Standard output is data, standard
//! error is talk.

/// `println!` that a closed or full standard output does not stop: see [`put_line`].
macro_rules! put {
    ($($text:tt)*) => { $crate::cli::put_line(format_args!($($text)*)) };
}

mod bench;
mod compare;
mod devices;
mod doctor;
mod eval;
mod export;
mod flags;
mod generate;
mod grad;
mod inspect;
mod progress;
mod recall;
mod rule;
mod signals;
mod stimulus;
mod study;
mod threads;
mod train;

use std::ffi::OsString;
use std::fmt::{Arguments as Text, Display};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Parser, Subcommand};

use crate::engine::{Description, Device, Engine, PlanChoice, Storage, open_with};
use crate::error::Error;
use crate::model::Network;
use crate::session;
use crate::train::{Config, TaskConfig};

/// Work stopped on request with everything saved.
const STOPPED: u8 = 75;

/// Trains plastic neural networks: each connection has a fixed weight w and a plastic
/// part alpha H, where H is a decaying trace of the activity that passed through it.
#[derive(Parser)]
#[command(name = "hebbian", version, max_term_width = 90)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Threads of the CPU at most [default: as many as this process may use]
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Subcommand)]
enum Command {
    Train(train::Train),
    Evolve(train::Evolve),
    Eval(eval::Eval),
    Recall(recall::Recall),
    Inspect(inspect::Inspect),
    Compare(compare::Compare),
    Export(export::Export),
    Rule(rule::Rule),
    Grad(grad::Grad),
    Bench(bench::Bench),
    Devices(devices::Devices),
    Doctor(doctor::Doctor),
    Completions(generate::Completions),
    Settings(generate::Settings),
    Man(generate::Man),
}

/// Where a run's data lie now, where they moved. They must be the bytes that the run began with.
#[derive(clap::Args, Default)]
struct DataFlags {
    /// The case file (custom); of a run, where it lies now
    #[arg(long, global = true, value_name = "FILE")]
    case: Option<PathBuf>,
    /// A folder with CIFAR-10 in its binary layout (images), or with Omniglot's zip files or what they
    /// hold (omniglot); without it images and drawings are generated; of a run, where it lies now
    #[arg(long, global = true, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Episodes that are scored and never trained on (custom): a share of the case's, such as 0.2,
    /// or another case file; of a run, where that file lies now
    #[arg(long, global = true, value_name = "SHARE|FILE")]
    held_out: Option<String>,
}

impl DataFlags {
    /// Looks for a run's data there.
    fn find(&self, task: &mut TaskConfig) -> Result<(), Error> {
        let case = matches!(task, TaskConfig::Custom(_));
        for (flag, path, fits) in [("--case", &self.case, case), ("--data", &self.data, !case)] {
            let Some(path) = path else { continue };
            if !fits || task.data().is_none() {
                return Err(Error::value(flag, "a run that has no such data", "none"));
            }
            task.find_data_at(Some(path));
        }
        if self.held_out.is_some() && task.held_out().is_none() {
            return Err(Error::value("--held-out", "a run that has no such file", "none"));
        }
        task.find_held_out_at(self.held_out.as_deref());
        Ok(())
    }
}

/// Which of a run's parameters are taken.
#[derive(clap::Args)]
struct MomentFlag {
    /// Parameters of this moment: final, last, best, or the update of a checkpoint
    #[arg(long, global = true, default_value = "final", value_name = "UPDATE")]
    update: String,
}

/// Options of every command that runs an engine.
#[derive(clap::Args)]
struct Common {
    /// auto (the best hardware GPU, else the CPU), cpu, gpu or gpu:INDEX
    #[arg(long, default_value = "auto")]
    device: String,
    #[command(flatten)]
    layout: Layout,
    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
    /// No talk on standard error
    #[arg(long)]
    quiet: bool,
}

/// How a GPU lays out its work.
#[derive(clap::Args, Clone, Debug, Default)]
struct Layout {
    /// auto, resident (small networks, a workgroup an episode) or streamed; on a GPU
    #[arg(long, value_parser = ["auto", "resident", "streamed"])]
    plan: Option<String>,
    /// f32, or f16 to store traces in half the memory; on a GPU
    #[arg(long, value_parser = ["f32", "f16"])]
    traces: Option<String>,
}

impl Layout {
    /// The names' meaning.
    fn choices(&self) -> Result<(PlanChoice, Storage), Error> {
        let plan = PlanChoice::from_name(self.plan.as_deref().unwrap_or("auto"))?;
        Ok((plan, Storage::from_name(self.traces.as_deref().unwrap_or("f32"))?))
    }

    /// The engine for `network` on `device`, laid out so.
    fn open(&self, device: &str, network: &Network) -> Result<Box<dyn Engine<f32>>, Error> {
        let (plan, traces) = self.choices()?;
        let device = Device::from_name(device)?;
        quietly(|| open_with(device, network, plan, traces))
    }
}

impl Common {
    /// The engine for `network` on the device asked for.
    fn open(&self, network: &Network) -> Result<Box<dyn Engine<f32>>, Error> {
        self.layout.open(&self.device, network)
    }

    fn say(&self, text: impl Display) {
        if !self.quiet {
            talk(text);
        }
    }

    fn warn_if_software(&self, device: &Description) {
        if device.software {
            self.say(format_args!(
                "warning: {} is no GPU, the CPU imitates one; --device cpu is faster",
                device.device
            ));
        }
    }
}

/// Runs the program on the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os()).into()
}

/// Runs the program on some arguments, of which the first is its own name; returns its exit status.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // what was asked for, such as help, or what was wrong; nothing is left to say without a
            // terminal
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let ready = signals::report_full_quota()
        .and_then(|()| threads::start(arguments.threads))
        .and_then(|()| Ok(crate::engine::cpu::check_environment()?));
    if let Err(error) = ready {
        return fail(&error);
    }
    let result = match arguments.command {
        Command::Train(command) => command.run(),
        Command::Evolve(command) => command.run(),
        Command::Eval(command) => command.run(),
        Command::Recall(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Compare(command) => command.run(),
        Command::Export(command) => command.run(),
        Command::Rule(command) => command.run(),
        Command::Grad(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Devices(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Settings(command) => command.run(),
        Command::Man(command) => command.run(),
    };
    let unwritten = UNWRITTEN.get().map(|why| anyhow::anyhow!("standard output: {why}"));
    match unwritten.map_or(result, Err) {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

/// Says what went wrong.
fn fail(error: &anyhow::Error) -> u8 {
    talk(format_args!("hebbian: {error}"));
    error.downcast_ref::<Error>().map_or(2, Error::exit_code)
}

/// Why the first line that standard output did not take was not written.
static UNWRITTEN: OnceLock<std::io::Error> = OnceLock::new();

/// A line on standard output. The work goes on where nobody reads it any more; any other
/// failure is told at the end.
fn put_line(text: Text<'_>) {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => _ = UNWRITTEN.set(e),
        _ => {}
    }
}

/// A line on standard error, if it takes it.
fn talk(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// [`session::open`], where drivers print nothing.
fn quietly_open(config: &Config, network: &Network) -> Result<Box<dyn Engine<f32>>, Error> {
    quietly(|| session::open(config, network))
}

/// Does what loads drivers. Some print to standard error what is nobody's error, such as that a
/// machine has no display; it goes nowhere.
pub fn quietly<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(unix)]
    let kept = rustix::io::dup(std::io::stderr()).ok().filter(|_| {
        let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null");
        nowhere.is_ok_and(|nowhere| rustix::stdio::dup2_stderr(nowhere).is_ok())
    });
    let done = work();
    #[cfg(unix)]
    if let Some(kept) = kept {
        let _ = rustix::stdio::dup2_stderr(kept);
    }
    done
}

/// A path for JSON, which holds Unicode only.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A number for JSON: null where it is not finite.
fn number(value: f64) -> serde_json::Value {
    serde_json::Number::from_f64(value).map_or(serde_json::Value::Null, serde_json::Value::Number)
}
