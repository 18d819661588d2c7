//! Files that appear whole or not at all.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// How the name of a file begins while it is being written.
const UNFINISHED: &str = ".hebbian-";

/// Writes `bytes` to `path`: under a temporary name in the same folder first, renamed
/// when complete and on disk.
///
/// # Errors
/// [`Error::Io`] naming the file; nothing is left under its name then.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let io = |source| Error::io(path, "write", source);
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
/// [`Error::Io`] naming the file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::io(path, "read", source))
}

/// Checks that `path` could be written, before the work that fills it begins.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub fn check_writable(path: &Path) -> Result<()> {
    let io = |source| Error::io(path, "write", source);
    if path.is_dir() {
        return Err(Error::file(path, "a folder", "the name of a file"));
    }
    tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder_of(path)).map_err(io)?;
    Ok(())
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
