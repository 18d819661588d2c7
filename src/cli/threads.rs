//! The threads that the CPU engine shares its work among.

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
    // a pool that cannot start its threads cannot be made the global one a second time: try first
    let possible = (2..=wanted)
        .rev()
        .find(|&n| ThreadPoolBuilder::new().num_threads(n).build().is_ok())
        .unwrap_or(1);
    if possible < wanted {
        log_fewer(possible, wanted);
    }
    let pool = ThreadPoolBuilder::new().num_threads(possible);
    let pool = if possible == 1 { pool.use_current_thread() } else { pool };
    pool.build_global()?;
    Ok(())
}

fn log_fewer(possible: usize, wanted: usize) {
    super::talk(format_args!("warning: the system allows {possible} of {wanted} threads"));
}
