//! Will it fit? What a run needs ([`super::estimate`]) against what there is, before hours are spent
//! to find out; and whether there is memory now, before each heavy task.

use super::estimate::{Memory, Outline, Remedy, parameters, remedies};
use crate::error::{Code, Error};
use crate::lm::device::{SelectedDevice, free_memory};
use crate::stage::Headroom;
use std::fs;
use std::path::Path;

/// Memory that is free to use, where the system says: of the machine, and below the limits of the
/// control groups that the process is in (a container's).
pub fn available_bytes() -> Option<u64> {
    available_below(Path::new("/"))
}

fn available_below(root: &Path) -> Option<u64> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok();
    let machine = meminfo.and_then(|text| field(&text, "MemAvailable:")).map(|kib| kib * 1024);
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    groups.lines().filter_map(|line| left_in_groups(root, line)).chain(machine).min()
}

/// The number after a name at the beginning of a line.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
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

/// Leaves some of the system's memory to others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reserve {
    /// How many MiB; 0 leaves nothing.
    pub mib: u32,
}

impl Headroom for Reserve {
    fn lacking(&self) -> Option<String> {
        let available = Some(self.mib).filter(|mib| *mib > 0).and_then(|_| available_bytes())?;
        let mib = available / (1 << 20);
        (mib < u64::from(self.mib)).then(|| {
            format!(
                "{mib} MiB of memory are available; supervision.memory_reserve_mib leaves {} to \
                 others",
                self.mib
            )
        })
    }
}

/// Bytes as people read them.
pub fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1u32 << 30))
}

/// Why a run cannot fit into `available` bytes of a memory, and what would.
pub fn refusal(
    outline: &Outline<'_>,
    memory: Memory,
    (stage, needed): (&str, u64),
    available: u64,
) -> String {
    let found = remedies(outline, memory, available);
    let one = |Remedy { change, bytes }: &Remedy| format!("{change} ({})", gib(*bytes));
    let mut advice = match found.as_slice() {
        [] => {
            "No setting makes it fit: take a much smaller model, or a machine with more".to_owned()
        }
        some => format!("What would fit: {}", some.iter().map(one).collect::<Vec<_>>().join("; ")),
    };
    let mut place = String::new();
    if memory == Memory::Device {
        place = format!(" on {}", outline.device);
        advice.push_str("; or the CPU, slower (device: cpu)");
    }
    format!(
        "the run needs about {}{place} (the {stage}) and {} are free ({:.0} M \
         parameters). {advice}",
        gib(needed),
        gib(available),
        parameters(outline.model) as f64 / 1e6
    )
}

/// Refuses what cannot fit into a memory of which so much is available, if that is known.
///
/// # Errors
/// with both sizes and the settings that would fit.
pub fn check(outline: &Outline<'_>, memory: Memory, available: Option<u64>) -> Result<(), Error> {
    let Some(available) = available else { return Ok(()) };
    let peak = outline.needs(memory).peak();
    if peak.1 <= available {
        return Ok(());
    }
    Err(Error::refused(Code::NotEnoughMemory, refusal(outline, memory, peak, available)))
}

/// Refuses what cannot fit into what is free now: of the machine, and of the device.
///
/// # Errors
/// Those of [`check`].
pub fn check_now(outline: &Outline<'_>, device: &SelectedDevice) -> Result<(), Error> {
    check(outline, Memory::Machine, available_bytes())?;
    check(outline, Memory::Device, free_memory(device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_of_machine_and_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let available = || available_below(root.path());
        assert_eq!(available(), None, "nobody says");
        write("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:    4096 kB\n");
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
