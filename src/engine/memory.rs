//! The host's memory: planned before it is asked for.

use crate::error::{Error, Result};

/// Bytes available, where the system tells.
pub(crate) fn available_memory() -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    Some(system.available_memory())
}

/// An error if less than `needed` bytes are available.
pub(crate) fn check_memory(what: &str, needed: u64) -> Result<()> {
    match available_memory() {
        Some(available) if needed > available => Err(Error::Memory {
            what: what.into(),
            needed,
            available,
            advice: "fewer networks, episodes, steps or neurons need less".into(),
        }),
        _ => Ok(()),
    }
}
