//! How much room there is: on a file system, in a folder, and in memory.

use std::fs;
use std::path::Path;

/// Bytes that this user may still write to the file system that holds `path`; `None` where the
/// system does not say.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Bytes of all files below a folder. Files that go away meanwhile count for nothing.
pub(crate) fn used_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let each = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => used_bytes(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(each).sum()
}

/// Memory that is free to use, where the system says: of the machine, and below the limits of the
/// control groups that the process is in (a container's).
pub(crate) fn available_memory_bytes() -> Option<u64> {
    available_below(Path::new("/"), machines_memory_bytes())
}

/// What the machine has available, as the system says it.
fn machines_memory_bytes() -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory_specifics(sysinfo::MemoryRefreshKind::nothing().with_ram());
    Some(system.available_memory()).filter(|bytes| *bytes > 0)
}

/// The least of that and of what the control groups leave, which Linux alone has.
fn available_below(root: &Path, machine: Option<u64>) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    groups.lines().filter_map(|line| left_in_groups(root, line)).chain(machine).min()
}

/// The number after a name at the beginning of a line.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What a line of `/proc/self/cgroup` (`4:memory:/a/b`, or `0::/a/b` of version 2; cgroups(7))
/// leaves: the least of the group and all that it is in. Cached files that nobody has used of late
/// are given back under pressure, so they count as free.
fn left_in_groups(root: &Path, line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let (mount, limit, usage, idle) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "),
        "memory" => (
            "sys/fs/cgroup/memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file ",
        ),
        _ => return None,
    };
    let left = |group: &Path| {
        let number = |file| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
        let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let used = number(usage)?.saturating_sub(field(&stat, idle).unwrap_or(0));
        Some(number(limit)?.saturating_sub(used))
    };
    let groups = Path::new(path.trim_start_matches('/')).ancestors();
    groups.filter_map(|group| left(&root.join(mount).join(group))).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_the_sum_of_its_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("inner")).unwrap();
        std::fs::write(dir.path().join("a"), [0; 10]).unwrap();
        std::fs::write(dir.path().join("inner/b"), [0; 7]).unwrap();
        assert_eq!(used_bytes(dir.path()), 17);
        assert!(free_bytes(dir.path()).is_some_and(|free| free > 0));
    }

    #[test]
    fn the_tightest_of_machine_and_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(available_below(root.path(), None), None, "nobody says");
        assert!(available_memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
        let available = || available_below(root.path(), Some(4096 << 10));
        write("proc/self/cgroup", "9:cpu:/x\n4:memory:/a/b\n0::/c/d\n");
        assert_eq!(available(), Some(4096 << 10), "no group says anything");
        write("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
        write("sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", "1000\n");
        write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "3000\n");
        write("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "2900\n");
        write("sys/fs/cgroup/memory/a/memory.stat", "total_inactive_file 500\n");
        assert_eq!(available(), Some(600), "a group around it is tighter");
        write("sys/fs/cgroup/c/d/memory.max", "max\n");
        write("sys/fs/cgroup/c/d/memory.current", "7\n");
        assert_eq!(available(), Some(600), "without a limit");
        write("sys/fs/cgroup/c/d/memory.max", "10\n");
        assert_eq!(available(), Some(3));
        write("sys/fs/cgroup/c/d/memory.current", "11\n");
        assert_eq!(available(), Some(0), "over its limit");
    }
}
