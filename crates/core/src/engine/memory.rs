//! The host's memory: planned before it is asked for.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Bytes that this process may still take, where the system tells: the least of what the machine
/// has, what each of the process's control groups leaves, and what its address space leaves.
#[must_use]
pub fn available_memory() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    [machine(), left_in_groups(&groups, Path::new("/sys/fs/cgroup")), left_of_addresses()]
        .into_iter()
        .flatten()
        .min()
}

/// What the machine has; a system that hides it says 0.
fn machine() -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    Some(system.available_memory()).filter(|&bytes| bytes > 0)
}

/// Addresses that what is not planned may take: allocators reserve them for each thread.
#[cfg(unix)]
const RESERVED: u64 = 128 << 20;

/// What the limit on addresses (`ulimit -v`) leaves.
#[cfg(unix)]
fn left_of_addresses() -> Option<u64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current?;
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = pages.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    Some(limit.saturating_sub(pages * rustix::param::page_size() as u64 + RESERVED))
}

#[cfg(not(unix))]
fn left_of_addresses() -> Option<u64> {
    None
}

/// What control groups leave: of the lines of `/proc/self/cgroup`, version 2 (`0::/a/b`) or 1
/// (`5:memory:/a/b`), each group and those around it, mounted at `root`.
fn left_in_groups(groups: &str, root: &Path) -> Option<u64> {
    let mut least = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (root, files) = match controllers {
            "" => (root.to_path_buf(), ["memory.max", "memory.current"]),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), ["memory.limit_in_bytes", "memory.usage_in_bytes"])
            }
            _ => continue,
        };
        // in a container the path may be the host's: then there is nothing but the root
        let group = root.join(path.trim_start_matches('/'));
        let each = group.ancestors().take_while(|group| group.starts_with(&root));
        for left in each.filter_map(|group| left_in(group, files)) {
            least = Some(least.map_or(left, |least: u64| least.min(left)));
        }
    }
    least
}

/// What one group leaves: its limit less what it holds and cannot give back. None without a limit.
fn left_in(group: &Path, [limit, usage]: [&str; 2]) -> Option<u64> {
    let number = |name: &str| -> Option<u64> {
        std::fs::read_to_string(PathBuf::from(group).join(name)).ok()?.trim().parse().ok()
    };
    // version 1 has a limit near 2^63 where there is none
    let limit = number(limit).filter(|&bytes| bytes < 1 << 60)?;
    let stat = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let files = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse().ok());
    let held = number(usage).unwrap_or(0).saturating_sub(files.unwrap_or(0));
    Some(limit.saturating_sub(held))
}

/// An error if less than `needed` bytes are available.
///
/// # Errors
/// [`Error::Memory`].
pub fn check_memory(what: &str, needed: u64) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a group's files under a folder.
    fn group(folder: &Path, files: &[(&str, &str)]) {
        std::fs::create_dir_all(folder).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn every_control_group_around_the_process_counts() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        group(&root.join("job/step"), &[("memory.max", "max\n"), ("memory.current", "10\n")]);
        assert_eq!(left_in_groups("0::/job/step\n", root), None, "no limit");
        group(
            &root.join("job"),
            &[
                ("memory.max", "1000\n"),
                ("memory.current", "600\n"),
                ("memory.stat", "anon 1\ninactive_file 100\n"),
            ],
        );
        assert_eq!(left_in_groups("0::/job/step\n", root), Some(500), "the group around it");
        // version 1, whose root limits a path that is the host's
        let none = "9223372036854771712\n";
        group(&root.join("memory/a"), &[("memory.limit_in_bytes", none)]);
        assert_eq!(left_in_groups("4:cpu:/a\n3:memory:/a\n", root), None);
        let full = [("memory.limit_in_bytes", "300\n"), ("memory.usage_in_bytes", "400\n")];
        group(&root.join("memory"), &full);
        assert_eq!(left_in_groups("4:cpu:/a\n3:cpuacct,memory:/docker/x\n", root), Some(0));
        assert_eq!(left_in_groups("nonsense", root), None);
    }
}
