//! The threads that the CPU engine shares its work among.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rayon::ThreadPoolBuilder;

use crate::error::Error;

/// Starts `wanted` threads, or as many as this process may use (its processors, less where its
/// group has fewer). Where the system refuses so many there are fewer; this thread alone always
/// does.
pub(super) fn start(wanted: Option<usize>) -> anyhow::Result<()> {
    if wanted == Some(0) {
        return Err(Error::value("--threads", "0", "at least 1").into());
    }
    let from_environment = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok());
    let at_hand = std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = wanted.or(from_environment.filter(|&n| n > 0)).unwrap_or(at_hand);
    let wanted = wanted.min(MOST);
    let possible = if wanted == 1 { 1 } else { count(wanted) };
    if possible < wanted {
        super::talk(format_args!("warning: the system allows {possible} of {wanted} threads"));
    }
    let pool = ThreadPoolBuilder::new().num_threads(possible);
    let pool = if possible == 1 { pool.use_current_thread() } else { pool };
    pool.build_global()?;
    Ok(())
}

/// More than any machine has processors.
const MOST: usize = 1024;

/// How many of `wanted` threads the system starts, less one where it refuses some: a pool that
/// cannot start its threads cannot be made a second time.
fn count(wanted: usize) -> usize {
    let done = Arc::new((Mutex::new(false), Condvar::new()));
    let start = |_| {
        let done = Arc::clone(&done);
        let wait = move || {
            let (is_done, changed) = &*done;
            let guard = is_done.lock().expect("nobody panics");
            drop(changed.wait_while(guard, |is_done| !*is_done));
        };
        std::thread::Builder::new().spawn(wait).ok()
    };
    let threads: Vec<_> = (0..wanted).map_while(start).collect();
    *done.0.lock().expect("nobody panics") = true;
    done.1.notify_all();
    let n = threads.len();
    threads.into_iter().for_each(|thread| _ = thread.join());
    if n == wanted {
        return n;
    }
    // the system counts a thread for a while after its end
    std::thread::sleep(Duration::from_millis(50));
    n.saturating_sub(1).max(1)
}
