//! The shutdown marker, in the file `log/mark`: how the log was left. A clean close says where the
//! tail was; anything else says under which boot of the machine it was open, for a process that dies
//! leaves the page cache whole, and a machine that dies does not.

use crate::atomic_file::{self, Access};
use crate::domain::Offset;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Its name in the log's folder.
const FILE: &str = "mark";

/// How the log was left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShutdownMarker {
    /// The machine's boot id; empty where there is none to read.
    pub boot: String,
    /// Whether everything was on the disk, in both copies.
    pub clean: bool,
    /// The tail at a clean close.
    pub tail: Offset,
}

/// Which boot of the machine this is: Linux has an id of it, and elsewhere it is the second at which the
/// machine was started, which a clock that is set changes. Then the log is looked through once more than
/// it had to be.
fn boot() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(id) => id.trim().to_owned(),
        Err(_) => match sysinfo::System::boot_time() {
            Ok(second) if second > 0 => format!("booted at {second}"),
            _ => String::new(),
        },
    }
}

impl ShutdownMarker {
    /// The marker in a log's folder; one that cannot be read says nothing.
    pub fn read(dir: &Path) -> ShutdownMarker {
        let bytes = std::fs::read(dir.join(FILE)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Whether the machine may have died while the log was open.
    pub fn power_cut(&self) -> bool {
        !self.clean && (self.boot.is_empty() || self.boot != boot())
    }

    /// Writes that the log is open.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_open(dir: &Path) -> std::io::Result<()> {
        ShutdownMarker { boot: boot(), ..ShutdownMarker::default() }.write(dir)
    }

    /// Writes that the log was closed cleanly.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_closed(dir: &Path, tail: Offset) -> std::io::Result<()> {
        ShutdownMarker { boot: boot(), clean: true, tail }.write(dir)
    }

    fn write(&self, dir: &Path) -> std::io::Result<()> {
        let json = serde_json::to_vec(self)?;
        atomic_file::write(&dir.join(FILE), &json, Access::Private)
    }
}
