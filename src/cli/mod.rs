//! The command line: parse, call, print, exit code. Standard output is data, standard
//! error is talk.

/// `println!` that a closed or full standard output does not stop: see [`put_line`].
macro_rules! put {
    ($($text:tt)*) => { $crate::cli::put_line(format_args!($($text)*)) };
}

mod bench;
mod devices;
mod doctor;
mod eval;
mod generate;
mod grad;
mod inspect;
mod progress;
mod recall;
mod stimulus;
mod train;

use std::fmt::{Arguments as Text, Display};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use clap::{Parser, Subcommand};

use crate::engine::{Description, Device, Engine, PlanChoice, Storage, open_with};
use crate::error::Error;
use crate::model::Network;

/// Work stopped on request with everything saved.
const STOPPED: u8 = 75;

/// Trains plastic neural networks: each connection has a fixed weight w and a plastic
/// part alpha H, where H is a decaying trace of the activity that passed through it.
#[derive(Parser)]
#[command(name = "hebbian", version, max_term_width = 90)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Train(train::Train),
    Eval(eval::Eval),
    Recall(recall::Recall),
    Inspect(inspect::Inspect),
    Grad(grad::Grad),
    Bench(bench::Bench),
    Devices(devices::Devices),
    Doctor(doctor::Doctor),
    Completions(generate::Completions),
    Man(generate::Man),
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
    #[arg(long)]
    plan: Option<String>,
    /// f32, or f16 to store traces in half the memory; on a GPU
    #[arg(long)]
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
        open_with(Device::from_name(device)?, network, plan, traces)
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
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Train(command) => command.run(),
        Command::Eval(command) => command.run(),
        Command::Recall(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Grad(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Devices(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
    };
    let unwritten = UNWRITTEN.get().map(|why| anyhow::anyhow!("standard output: {why}"));
    match unwritten.map_or(result, Err) {
        Ok(code) => code.into(),
        Err(error) => {
            talk(format_args!("hebbian: {error}"));
            let code = error.downcast_ref::<Error>().map_or(2, Error::exit_code);
            code.into()
        }
    }
}

/// What Ctrl-C (or SIGTERM) and the work know of each other.
#[derive(Clone, Default)]
struct Stop {
    /// Set by the first signal.
    asked: Arc<AtomicBool>,
    /// Set when everything is saved: from then on a signal ends the process.
    saved: Arc<AtomicBool>,
}

impl Stop {
    fn listen() -> anyhow::Result<Self> {
        let stop = Stop::default();
        let own = stop.clone();
        ctrlc::set_handler(move || {
            let asked_before = own.asked.swap(true, Ordering::Relaxed);
            if asked_before || own.saved.load(Ordering::Relaxed) {
                std::process::exit(i32::from(STOPPED));
            }
        })?;
        Ok(stop)
    }
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

/// A path for JSON, which holds Unicode only.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A number for JSON: null where it is not finite.
fn number(value: f64) -> serde_json::Value {
    serde_json::Number::from_f64(value).map_or(serde_json::Value::Null, serde_json::Value::Number)
}
