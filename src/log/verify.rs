//! Walks a whole log: every checksum, every link of the chain, every offset, every task key; and,
//! for a log on disk, that both copies are the same and sealed segments are what they were.

use super::Log;
use super::chain::Chain;
use super::compacted::CompactedPrefix;
use super::error::LogError;
use super::layout::{journal_dir, store_dir};
use super::lock::holder;
use super::reader::JournalLog;
use super::scan::{Scan, Scanned};
use super::segment::{self, hash_file};
use super::shutdown::ShutdownMarker;
use super::store::Store;
use super::store_sync::{copy_differs, difference};
use crate::domain::Offset;
use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// What a walk found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// Records that are what was written.
    pub records: u64,
    /// How many of each kind.
    pub kinds: BTreeMap<String, u64>,
    /// Tasks whose key is taken.
    pub tasks: u64,
    /// Where the gapless part begins: not 0 once the log was compacted.
    pub floor: Offset,
    /// The first thing that is wrong, if anything is.
    pub first_error: Option<String>,
    /// Why the journal was looked at and not the store, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_compared: Option<String>,
}

/// Walks the log. Damage is a finding, not an error.
pub fn verify(log: &dyn Log) -> Verified {
    let mut found = Verified::default();
    found.first_error = walk(log, &mut found).err();
    found
}

fn walk(log: &dyn Log, found: &mut Verified) -> Result<(), String> {
    let mut next = Offset(0);
    let mut last_key = None;
    if let Some(compacted) = log.compacted() {
        found.floor = compacted.floor();
        found.tasks = compacted.state().map_err(|error| error.to_string())?.keys.len() as u64;
    }
    loop {
        let records = log.read(next, 256).map_err(|error| error.to_string())?;
        if records.is_empty() {
            let end = next.max(found.floor);
            let missing = || format!("record {end} is missing below the tail");
            return if end < log.tail() { Err(missing()) } else { Ok(()) };
        }
        for record in records {
            if record.offset != next && record.offset > found.floor {
                return Err(format!("record {} is missing", next.max(found.floor)));
            }
            let ours = record.offset >= found.floor && record.key.is_some();
            found.tasks += u64::from(ours && record.key != last_key);
            last_key.clone_from(&record.key);
            *found.kinds.entry(record.event.kind().to_owned()).or_default() += 1;
            found.records += 1;
            next = Offset(record.offset.0 + 1);
        }
    }
}

/// Walks the journal in the folder `dir`, beside a running process or without one. The store is
/// not looked at: only the process that has it open can.
///
/// # Errors
/// [`LogError::Open`], [`LogError::Format`] when there is no journal to walk.
pub fn verify_folder(dir: &Path) -> Result<Verified, LogError> {
    both(dir, None)
}

/// As [`verify_folder`], and compares a copy of the store with the journal where nobody has the log
/// open. Nothing of the log is locked or changed.
///
/// # Errors
/// As [`verify_folder`].
pub fn verify_at_rest(dir: &Path) -> Result<Verified, LogError> {
    let mut found = both(dir, None)?;
    if found.first_error.is_none() {
        match compared(dir, &found) {
            Ok(difference) => {
                found.first_error = difference.map(|reason| format!("the store: {reason}"));
            }
            Err(reason) => found.not_compared = Some(reason),
        }
    }
    Ok(found)
}

/// In what a copy of the store differs from the journal, or why that was not looked at.
fn compared(dir: &Path, found: &Verified) -> Result<Option<String>, String> {
    let at_work = |when| Err(format!("a process works on the run{when}"));
    if holder(dir).is_some() {
        return at_work("");
    }
    if ShutdownMarker::read(dir).power_cut() {
        return Err("after a power cut it is made again when the run goes on".to_owned());
    }
    let copy = TemporaryCopy::copy_of(&store_dir(dir))
        .map_err(|error| format!("it could not be copied to look at it: {error}"))?;
    let tail = JournalLog::open(dir).map_err(|error| error.to_string())?.tail();
    let difference = copy_differs(dir, copy.path(), found.floor..tail)?;
    match holder(dir) {
        None => Ok(difference),
        // What was copied may be half of what was written.
        Some(_) => at_work(", begun meanwhile"),
    }
}

/// A copy of a folder of files, gone when dropped.
struct TemporaryCopy(PathBuf);

impl TemporaryCopy {
    fn copy_of(from: &Path) -> std::io::Result<TemporaryCopy> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (pid, n) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("gradus-verify-{pid}-{n}"));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        let copy = TemporaryCopy(path);
        copy_tree(from, copy.path())?;
        Ok(copy)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryCopy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_tree(&entry.path(), &target)?,
            false => std::fs::copy(entry.path(), &target).map(drop)?,
        }
    }
    Ok(())
}

/// As [`verify_folder`], and compares the store with the journal.
///
/// # Errors
/// As [`verify_folder`].
pub(crate) fn both(dir: &Path, store: Option<&Store>) -> Result<Verified, LogError> {
    let log = JournalLog::open(dir)?;
    let mut found = verify(&log);
    if found.first_error.is_none() {
        found.first_error =
            frames(dir, log.compacted().as_deref()).unwrap_or_else(|error| Some(error.to_string()));
    }
    if let Some(store) = store
        && found.first_error.is_none()
    {
        found.first_error = difference(dir, store, found.floor..log.tail())?
            .map(|reason| format!("the store: {reason}"));
    }
    Ok(found)
}

/// What is wrong with the segments as files, and with the chain through them.
fn frames(dir: &Path, compacted: Option<&CompactedPrefix>) -> std::io::Result<Option<String>> {
    let segments = segment::list(&journal_dir(dir))?;
    let begin = compacted.map_or((Offset(0), [0; 32]), |c| (c.floor(), c.last()));
    let mut chain = Chain::after(begin.0, begin.1);
    let mut before: Option<&segment::Segment> = None;
    for segment in &segments {
        let mut scan = Scan::over(vec![segment.clone()]);
        let Some(Scanned::Header(header)) = scan.step()? else {
            return Ok(Some(format!("{}: its header is damaged", segment.path.display())));
        };
        if header.previous() != Some(chain.last()) || header.segment != chain.next() {
            return Ok(Some(format!("{}: it does not follow", segment.path.display())));
        }
        if let (Some(before), Some(sealed)) = (before, &header.sealed) {
            let bytes = std::fs::metadata(&before.path)?.len();
            let blake3 = hash_file(&before.path)?.to_hex().to_string();
            if (before.first, bytes, &blake3) != (sealed.segment, sealed.bytes, &sealed.blake3) {
                let path = before.path.display();
                return Ok(Some(format!("{path} is not what it was when it was sealed")));
            }
        }
        while let Some(Scanned::Record(entry)) = scan.step()? {
            if !chain.fits(&entry) {
                let at = entry.offset;
                return Ok(Some(format!("record {at} does not follow the one before it")));
            }
            chain.push(&entry);
        }
        before = Some(segment);
    }
    Ok(None)
}
