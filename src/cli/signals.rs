//! Signals: a request to save everything and stop, and what the work knows of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts as signal;
use signal_hook::flag;

use crate::cli::STOPPED;

/// Signals that ask for everything to be saved: of a person, a terminal that closes, and what batch
/// systems send before they end a job.
#[cfg(unix)]
const STOP: [i32; 6] = [
    signal::SIGINT,
    signal::SIGTERM,
    signal::SIGHUP,
    signal::SIGUSR1,
    signal::SIGUSR2,
    signal::SIGXCPU,
];
#[cfg(not(unix))]
const STOP: [i32; 2] = FORCE;

/// Those that end the process when they come again.
const FORCE: [i32; 2] = [signal::SIGINT, signal::SIGTERM];

/// How long a request is one: many that stop a job signal it and its group, or signal twice.
const ONE_REQUEST: Duration = Duration::from_secs(1);

/// What signals and the work know of each other.
pub(super) struct Stop {
    /// Set by the first signal.
    pub(super) asked: Arc<AtomicBool>,
    /// Set when everything is saved: from then on a signal ends the process with [`STOPPED`].
    pub(super) saved: Arc<AtomicBool>,
}

impl Stop {
    /// Listens from now on. A signal that was ignored when the process began, as `nohup` and
    /// shells in the background have it, stays ignored. An interrupt or SIGTERM that comes again a
    /// second after the first signal ends the process at once, with 128 and its number.
    pub(super) fn listen() -> anyhow::Result<Self> {
        let stop = Stop { asked: Arc::default(), saved: Arc::default() };
        let force = Arc::new(AtomicBool::new(false));
        for number in STOP.into_iter().filter(|&number| !is_ignored(number)) {
            // what a signal does, in this order
            flag::register_conditional_shutdown(number, STOPPED.into(), Arc::clone(&stop.saved))?;
            if FORCE.contains(&number) {
                flag::register_conditional_shutdown(number, 128 + number, Arc::clone(&force))?;
            }
            flag::register(number, Arc::clone(&stop.asked))?;
        }
        let asked = Arc::clone(&stop.asked);
        // where no thread can be started, all that is asked for is saved
        let _ = std::thread::Builder::new().name("signals".into()).spawn(move || {
            while !asked.load(Ordering::Relaxed) {
                std::thread::sleep(ONE_REQUEST / 10);
            }
            std::thread::sleep(ONE_REQUEST);
            force.store(true, Ordering::Relaxed);
        });
        Ok(stop)
    }
}

/// Makes a file that grows past its limit an error of the write, not the end of the process.
pub(super) fn report_full_quota() -> anyhow::Result<()> {
    #[cfg(unix)]
    flag::register(signal::SIGXFSZ, Arc::default())?;
    Ok(())
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "the only way to ask what a signal does")]
fn is_ignored(number: i32) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: sigaction changes nothing where its second argument is null, and fills the third
    // where it returns 0
    unsafe {
        libc::sigaction(number, std::ptr::null(), now.as_mut_ptr()) == 0
            && now.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(not(unix))]
fn is_ignored(_: i32) -> bool {
    false
}
