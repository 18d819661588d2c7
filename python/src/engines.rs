//! Engines between two calls, and work that Ctrl-C can interrupt.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use hebbian::cli::quietly;
use hebbian::engine::{Device, Devices, Engine, cpu};
use hebbian::error::{Error, Result};
use hebbian::model::{Network, Parameters, Scalar};
use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Engines that no call uses and that are kept for the next one.
const KEPT: usize = 4;

/// How often work that runs asks whether it was interrupted.
const LOOK: Duration = Duration::from_millis(50);

/// What a process keeps.
pub(crate) struct Process {
    threads: Arc<ThreadPool>,
    devices: Devices,
    f32: Vec<Idle<f32>>,
    f64: Vec<Idle<f64>>,
}

pub(crate) struct Idle<S> {
    device: Device,
    engine: Box<dyn Engine<S>>,
    /// Those that it has, where that is known.
    parameters: Option<Parameters<S>>,
}

/// An engine, and the parameters that it has where that is known: a backward pass comes with those of its
/// forward pass.
type Taken<S> = (Box<dyn Engine<S>>, Option<Parameters<S>>);

/// A process by its number. Of a forked one, the slots of its ancestors are copies whose threads stayed
/// behind, whose drivers must not be called, and whose lock may be taken for ever.
struct Slot {
    id: u32,
    has_gpu: AtomicBool,
    process: Mutex<Option<Process>>,
}

/// One for each generation of forks.
static SLOTS: [OnceLock<Slot>; 32] = [const { OnceLock::new() }; 32];

fn slot() -> Result<&'static Slot> {
    let id = std::process::id();
    for slot in &SLOTS {
        let new = || Slot { id, has_gpu: AtomicBool::new(false), process: Mutex::new(None) };
        let slot = slot.get_or_init(new);
        if slot.id == id {
            return Ok(slot);
        }
        if slot.has_gpu.load(Ordering::Relaxed) {
            let found = "a process that was forked after a GPU was opened";
            let wanted = "one that was spawned: multiprocessing.get_context(\"spawn\")";
            return Err(Error::Device { found: found.into(), wanted: wanted.into() });
        }
    }
    let wanted = "spawned processes, or fewer generations";
    Err(Error::Device { found: "32 generations of forks".into(), wanted: wanted.into() })
}

/// Lets `work` use what the process keeps.
fn with_process<T>(work: impl FnOnce(&mut Process) -> Result<T>) -> Result<T> {
    let slot = slot()?;
    let mut process = slot.process.lock().unwrap_or_else(PoisonError::into_inner);
    if process.is_none() {
        let threads = ThreadPoolBuilder::new().build().map_err(|e| Error::Device {
            found: format!("no threads ({e})"),
            wanted: "threads to work with".into(),
        })?;
        let (threads, devices) = (Arc::new(threads), Devices::default());
        *process = Some(Process { threads, devices, f32: Vec::new(), f64: Vec::new() });
    }
    let process = process.as_mut().expect("it was made");
    let result = work(process);
    slot.has_gpu.store(process.devices.has_gpu(), Ordering::Relaxed);
    result
}

/// A type of number that engines run in.
pub(crate) trait Runs: Scalar {
    /// The engines of this type.
    fn open(
        devices: &mut Devices,
        device: Device,
        network: &Network,
    ) -> Result<Box<dyn Engine<Self>>>;

    fn idle(process: &mut Process) -> &mut Vec<Idle<Self>>;
}

impl Runs for f32 {
    fn open(
        devices: &mut Devices,
        device: Device,
        network: &Network,
    ) -> Result<Box<dyn Engine<f32>>> {
        quietly(|| devices.open(device, network))
    }

    fn idle(process: &mut Process) -> &mut Vec<Idle<f32>> {
        &mut process.f32
    }
}

impl Runs for f64 {
    fn open(_: &mut Devices, device: Device, network: &Network) -> Result<Box<dyn Engine<f64>>> {
        match device {
            Device::Gpu(_) => Err(Error::value("device", "a GPU with float64", "cpu or auto")),
            _ => cpu::open(network),
        }
    }

    fn idle(process: &mut Process) -> &mut Vec<Idle<f64>> {
        &mut process.f64
    }
}

/// Takes an engine for such networks, to be [given back](give).
pub(crate) fn take<S: Runs>(device: Device, network: &Network) -> Result<Taken<S>> {
    with_process(|process| {
        let fits = |idle: &Idle<S>| idle.device == device && idle.engine.network() == network;
        let idle = S::idle(process);
        match idle.iter().rposition(fits) {
            Some(at) => {
                let Idle { engine, parameters, .. } = idle.remove(at);
                Ok((engine, parameters))
            }
            None => Ok((S::open(&mut process.devices, device, network)?, None)),
        }
    })
}

/// Keeps an engine for the next call, with the parameters that it has where they are known.
pub(crate) fn give<S: Runs>(
    device: Device,
    engine: Box<dyn Engine<S>>,
    parameters: Option<Parameters<S>>,
) {
    let kept = with_process(|process| {
        let idle = S::idle(process);
        if idle.len() == KEPT {
            idle.remove(0);
        }
        idle.push(Idle { device, engine, parameters });
        Ok(())
    });
    debug_assert!(kept.is_ok(), "it came from this process");
}

/// The threads that work.
pub(crate) fn threads() -> Result<Arc<ThreadPool>> {
    with_process(|process| Ok(Arc::clone(&process.threads)))
}

/// Runs small work on the calling thread, which from then on is a pool of its own: engines ask their pool
/// how many threads there are, and must not ask one that a fork left behind.
pub(crate) fn on_this_thread<T>(work: impl FnOnce() -> Result<T> + Send) -> Result<T>
where
    T: Send,
{
    thread_local! {
        static ALONE: Option<ThreadPool> =
            ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().ok();
    }
    ALONE.with(|alone| match alone {
        Some(alone) => alone.install(work),
        // a thread of another pool has one
        None => work(),
    })
}

/// Runs work without Python's lock. Where Ctrl-C interrupts it, the call ends at once; the work goes
/// on to its own end, and what it returns is dropped.
pub(crate) fn interruptible<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> PyResult<Result<T>> {
    let threads = threads().map_err(crate::errors::exception)?;
    let (sender, mut receiver) = sync_channel(1);
    threads.spawn(move || {
        // nobody waits for it after an interrupt
        let _ = sender.send(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)));
    });
    loop {
        let waiting = &mut receiver;
        match py.detach(move || waiting.recv_timeout(LOOK)) {
            Ok(Ok(result)) => return Ok(result),
            Ok(Err(panic)) => {
                let text = panic.downcast_ref::<String>().map_or("a panic", String::as_str);
                let text = format!("a fault of hebbian's own, please report it: {text}");
                return Err(pyo3::exceptions::PyRuntimeError::new_err(text));
            }
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(RecvTimeoutError::Disconnected) => {
                let text = "the work ended without a result";
                return Err(pyo3::exceptions::PyRuntimeError::new_err(text));
            }
        }
    }
}
