//! Files that appear whole or not at all.

use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::engine::check_memory;
use crate::error::{Error, Result};

/// How the name of a file begins while it is being written.
const UNFINISHED: &str = ".hebbian-";

/// Writes `bytes` to `path`: under a temporary name in the same folder first, renamed
/// when complete and on disk. A link stays, and what it points to is replaced.
///
/// # Errors
/// [`Error::Io`] naming the file; nothing is left under its name then. [`Error::File`] for a
/// folder, device or pipe.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let io = |source| Error::io(path, "write", source);
    let path = &target(path)?;
    let folder = folder_of(path);
    let mut file = unfinished_in(&folder).map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    // a file that is replaced keeps its mode, where the file system has such
    #[cfg(unix)]
    if let Ok(before) = std::fs::metadata(path) {
        let _ = file.as_file().set_permissions(before.permissions());
    }
    file.persist(path).map_err(|e| io(e.error))?;
    // the new name is on disk only when the folder is; not every file system can be asked for it
    #[cfg(unix)]
    let _ = std::fs::File::open(&folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// A new file in `folder` with the mode that the umask asks for.
fn unfinished_in(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// A path as a shell takes it: in quotes where it has to be.
#[must_use]
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Reads a whole file.
///
/// # Errors
/// [`Error::Io`] naming the file; [`Error::Memory`] if it is too large for it.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let io = |source| Error::io(path, "read", source);
    let bytes = std::fs::metadata(path).map_err(io)?.len();
    check_memory(&path.display().to_string(), bytes)?;
    std::fs::read(path).map_err(io)
}

/// Checks that `path` could be written, before the work that fills it begins.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub fn check_writable(path: &Path) -> Result<()> {
    let io = |source| Error::io(path, "write", source);
    unfinished_in(&folder_of(&target(path)?)).map_err(io)?;
    Ok(())
}

/// The file itself that `path` names, perhaps by a link.
fn target(path: &Path) -> Result<PathBuf> {
    let found = match std::fs::metadata(path) {
        Ok(file) if file.is_file() => {
            return std::fs::canonicalize(path).map_err(|e| Error::io(path, "find", e));
        }
        Ok(folder) if folder.is_dir() => "a folder",
        Ok(_) => "a device or pipe",
        Err(_) => return Ok(path.into()),
    };
    Err(Error::file(path, found, "the name of a file"))
}

/// Whether two paths name one file.
#[cfg(feature = "cli")]
pub(crate) fn are_one(a: &Path, b: &Path) -> bool {
    matches!((std::fs::canonicalize(a), std::fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

/// A claim on a file that several processes change: read, change and write under one. It is a file
/// of its own beside it, `NAME.lock`, for the file itself is replaced.
#[derive(Debug)]
pub struct Lock {
    /// None on a file system that knows no locks.
    _held: Option<std::fs::File>,
}

impl Lock {
    /// Waits until no other process has the claim on `path`, and takes it.
    ///
    /// # Errors
    /// [`Error::Io`] where the file beside it cannot be made.
    pub fn take(path: &Path) -> Result<Self> {
        let path = target(path)?;
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".lock");
        let beside = path.with_file_name(name);
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&beside)
            .map_err(|e| Error::io(&beside, "write", e))?;
        let held = file.lock().is_ok();
        Ok(Lock { _held: held.then_some(file) })
    }
}

/// SHA-256 of some parts end to end, in hexadecimal digits.
pub(crate) fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    parts.into_iter().for_each(|part| hash.update(part));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Refuses data whose SHA-256 is not the one that a run began with; an empty one is any.
pub(crate) fn check_sha256(path: &Path, wanted: &str, found: &str) -> Result<()> {
    if wanted.is_empty() || wanted == found {
        return Ok(());
    }
    let wanted = format!("the data that the run began with, {wanted}");
    Err(Error::file(path, format!("SHA-256 {found}"), wanted))
}

/// Removes what killed processes left half written in `folder`. Nobody else may be writing
/// there.
pub(crate) fn remove_unfinished(folder: &Path) -> Result<()> {
    let io = |source| Error::io(folder, "read", source);
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with(UNFINISHED)) {
            std::fs::remove_file(&path).map_err(|e| Error::io(&path, "remove", e))?;
        }
    }
    Ok(())
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.into(),
        _ => ".".into(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_and_what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, pipe] = ["file", "link", "pipe"].map(|name| folder.path().join(name));
        std::fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        for odd in [&pipe, Path::new("/dev/null"), folder.path()] {
            assert!(write(odd, b"new").is_err() && check_writable(odd).is_err(), "{odd:?}");
        }
        assert!(!pipe.is_file() && !Path::new("/dev/null").is_file());
    }
}
