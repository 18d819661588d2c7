//! The one error type of the library.

use std::path::PathBuf;

/// What went wrong, with what was given and what was wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor of a case, a batch or a parameter file does not fit.
    #[error("tensor {name}: found {found}, wanted {wanted}")]
    Tensor {
        /// The tensor's name as the file spells it.
        name: String,
        /// What was given.
        found: String,
        /// What was wanted.
        wanted: String,
    },
    /// A tensor has a shape that does not fit.
    #[error("tensor {name}: found shape {found:?}, wanted {}", shapes(wanted))]
    Shape {
        /// The tensor's name as the file spells it.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// Those that would fit.
        wanted: Vec<Vec<usize>>,
    },
    /// A metadata key, option or configuration value does not fit.
    #[error("{key}: found {found}, wanted {wanted}")]
    Value {
        /// The key or option.
        key: String,
        /// What was given.
        found: String,
        /// What was wanted.
        wanted: String,
    },
    /// A file or folder is not what it should be.
    #[error("{}: found {found}, wanted {wanted}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: String,
        /// What was wanted.
        wanted: String,
    },
    /// The operating system refused to read or write.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried: "read", "write", "create".
        action: &'static str,
        /// The system's own words.
        source: std::io::Error,
    },
    /// No such device, or the device cannot do the work.
    #[error("device: found {found}, wanted {wanted}")]
    Device {
        /// What was found.
        found: String,
        /// What was wanted.
        wanted: String,
    },
    /// The work needs more memory than there is.
    #[error("memory: {what} needs {}, {} available; {advice}", bytes(*needed), bytes(*available))]
    Memory {
        /// The job.
        what: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes available.
        available: u64,
        /// What the user can do.
        advice: String,
    },
    /// A shader does not compile; the position is in our own file.
    #[error("shader {file}:{line}: {message}")]
    Shader {
        /// File under `shaders/`.
        file: String,
        /// Line in that file, from 1.
        line: usize,
        /// The compiler's words.
        message: String,
    },
    /// A checkpoint cannot be read or written; the text says which one can be gone on from.
    #[error("{0}")]
    Checkpoint(String),
    /// The work ran and its numbers are not finite.
    #[error("{what} is not finite{}", advice(*update))]
    Diverged {
        /// Which quantity, and of which network.
        what: String,
        /// The update of training, counted from 1.
        update: Option<u64>,
    },
}

/// The library's result.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The process exit code this failure asks for: 1 the answer is no, 2 bad
    /// input, 3 device or memory.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Diverged { .. } => 1,
            Error::Device { .. } | Error::Memory { .. } | Error::Shader { .. } => 3,
            _ => 2,
        }
    }

    /// [`Error::Tensor`].
    #[must_use]
    pub fn tensor(name: &str, found: impl Into<String>, wanted: impl Into<String>) -> Self {
        Error::Tensor { name: name.into(), found: found.into(), wanted: wanted.into() }
    }

    /// [`Error::Value`].
    #[must_use]
    pub fn value(key: &str, found: impl Into<String>, wanted: impl Into<String>) -> Self {
        Error::Value { key: key.into(), found: found.into(), wanted: wanted.into() }
    }

    /// [`Error::File`].
    #[must_use]
    pub fn file(
        path: impl Into<PathBuf>,
        found: impl Into<String>,
        wanted: impl Into<String>,
    ) -> Self {
        Error::File { path: path.into(), found: found.into(), wanted: wanted.into() }
    }

    /// [`Error::Io`].
    #[must_use]
    pub fn io(path: impl Into<PathBuf>, action: &'static str, source: std::io::Error) -> Self {
        Error::Io { path: path.into(), action, source }
    }
}

/// Shapes, one or another.
fn shapes(all: &[Vec<usize>]) -> String {
    all.iter().map(|shape| format!("{shape:?}")).collect::<Vec<_>>().join(" or ")
}

/// When training diverged, and what can be done.
fn advice(update: Option<u64>) -> String {
    update.map_or(String::new(), |update| {
        format!(
            " at update {update}: training diverged; a lower schedule.rate, schedule.max_norm or \
             divergence.policy = \"rollback\" may help"
        )
    })
}

/// A byte count as a person reads it.
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// The known name nearest to `given`, for "did you mean" messages.
#[must_use]
pub fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    known.iter().copied().min_by_key(|name| strsim::damerau_levenshtein(given, name))
}

/// Whether a name may be a slip of a known one: two letters off, or one of them in other letters.
#[must_use]
pub fn resembles(given: &str, known: &[&str]) -> bool {
    let plain = |name: &str| name.to_lowercase().replace(['-', '_', '.', ' '], "");
    let given = plain(given);
    known.iter().any(|name| {
        let name = plain(name);
        let most = if name.len() > 4 { 2 } else { 1 };
        strsim::damerau_levenshtein(&given, &name) <= most
    })
}

/// "one of a, b, c; did you mean b?" for an unknown name.
#[must_use]
pub fn one_of(given: &str, known: &[&str]) -> String {
    let list = known.join(", ");
    match nearest(given, known) {
        Some(name) => format!("one of {list} (nearest: {name})"),
        None => format!("one of {list}"),
    }
}
