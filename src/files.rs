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
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&folder).map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    // The default for temporary files is to be private; an output is not.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o644);
        file.as_file().set_permissions(mode).map_err(io)?;
    }
    file.persist(path).map_err(|e| io(e.error))?;
    // the new name is on disk only when the folder is
    #[cfg(unix)]
    std::fs::File::open(&folder).and_then(|folder| folder.sync_all()).map_err(io)?;
    Ok(())
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
    let folder = folder_of(&target(path)?);
    tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder).map_err(io)?;
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
pub(crate) fn are_one(a: &Path, b: &Path) -> bool {
    matches!((std::fs::canonicalize(a), std::fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

/// SHA-256 of some parts end to end, in hexadecimal digits.
pub(crate) fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    parts.into_iter().for_each(|part| hash.update(part));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
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
