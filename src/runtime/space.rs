//! SPACE: a thread that looks, once a second, whether the run has room: its folder, its quota, and a
//! reserve of the disk that is for others. Without room the log is held, so that stages wait and say
//! why; reading and `gradus status` go on, and so does everything when there is room again.

use crate::config::StorageConfig;
use crate::log::DurableLog;
use crate::machine::{Found, Place};
use crate::space::{free_bytes, used_bytes};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_secs(1);
const MIB: u64 = 1 << 20;

/// Why there is no room, if there is none.
fn shortage(dir: &Path, place: &Place, settings: &StorageConfig) -> Option<String> {
    let shown = dir.display();
    match place.look() {
        Found::It => {}
        Found::Nothing(why) => return Some(format!("the run's folder {shown} is away: {why}")),
        Found::Another => return Some(format!("another folder is in the place of {shown}")),
    }
    let (reserve, quota) = (u64::from(settings.reserve_mib), u64::from(settings.quota_mib));
    if let Some(free) = free_bytes(dir).filter(|free| *free < reserve * MIB) {
        let free = free / MIB;
        return Some(format!(
            "{free} MiB are free; storage.reserve_mib leaves {reserve} to others"
        ));
    }
    let used = if quota > 0 { used_bytes(dir) / MIB } else { 0 };
    (quota > 0 && used >= quota).then(|| {
        format!(
            "the run has {used} MiB, storage.quota_mib allows {quota}: raise it, or compact the \
             log, which drops what old iterations left (storage.keep_iterations does that by itself)"
        )
    })
}

/// Holds the log now and then on a thread of its own, as long as the log is open.
///
/// # Errors
/// When the system will not give a thread.
pub(crate) fn watch(
    dir: PathBuf,
    place: Place,
    settings: StorageConfig,
    log: &Arc<DurableLog>,
) -> std::io::Result<()> {
    log.hold(shortage(&dir, &place, &settings));
    let log: Weak<DurableLog> = Arc::downgrade(log);
    let look = move || {
        loop {
            std::thread::sleep(LOOK_EVERY);
            let short = shortage(&dir, &place, &settings);
            let Some(log) = log.upgrade() else { return };
            log.hold(short);
        }
    };
    std::thread::Builder::new().name("gradus-space".to_owned()).spawn(look).map(drop)
}
