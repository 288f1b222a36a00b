//! What a compacted log begins with. Records before the floor are gone, but for those that were
//! kept; what they came to is kept as a snapshot: task keys, cursors, the digest's sum, views.
//!
//! One file, `base`, and a copy of it, `base.copy`, for it is the only place that has these records:
//!
//! ```text
//! kept records, the lines they were
//! {"crc":"…","state":{"digest":…,"events":…,"keys":[…],"cursors":{…},"views":{…}}}
//! {"crc":"…","end":{"floor":812,"previous":"<64 hex>","blake3":"<of all lines before>"}}
//! ```

use super::digest_sum::DigestSum;
use super::error::LogError;
use super::layout::COMPACTED_FILES;
use super::record::{self, BatchHash, Entry, Recorded, decode};
use crate::atomic_file::{Access, AtomicFile};
use crate::domain::{Offset, TaskKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// What the records before the floor came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PrefixState {
    pub digest: DigestSum,
    /// Events that the digest covers.
    pub events: u64,
    /// Where each task's key was taken.
    pub keys: Vec<(TaskKey, Offset)>,
    pub cursors: BTreeMap<String, Offset>,
    /// Views as they were at the floor, by name.
    pub views: BTreeMap<String, serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct EndOfPrefix {
    floor: Offset,
    previous: String,
    blake3: String,
}

#[derive(Deserialize)]
struct EndLine {
    end: EndOfPrefix,
}

#[derive(Deserialize)]
struct StateLine {
    state: PrefixState,
}

/// Where a kept record's line is in the file.
#[derive(Clone, Copy, Debug)]
struct KeptLine {
    offset: Offset,
    at: u64,
    bytes: usize,
}

/// The beginning of a compacted log.
#[derive(Debug)]
pub struct CompactedPrefix {
    path: PathBuf,
    floor: Offset,
    last: BatchHash,
    kept: Vec<KeptLine>,
    state: KeptLine,
}

/// Why a file is not sound.
type Unsound = String;

impl CompactedPrefix {
    /// The first record of the journal: from here on there are no gaps.
    pub fn floor(&self) -> Offset {
        self.floor
    }

    /// Hash of the batch before the floor.
    pub(crate) fn last(&self) -> BatchHash {
        self.last
    }

    /// How many records before the floor were kept.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// A view as it was at the floor.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn view(&self, name: &str) -> Result<Option<serde_json::Value>, LogError> {
        Ok(self.state()?.views.remove(name))
    }

    /// All that is known at the floor.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn state(&self) -> Result<PrefixState, LogError> {
        let read = |reason: String| LogError::Read(format!("{}: {reason}", self.path.display()));
        let file = File::open(&self.path).map_err(|error| read(error.to_string()))?;
        let line = line_at(&file, self.state).map_err(|error| read(error.to_string()))?;
        let line = serde_json::from_slice::<StateLine>(&line);
        Ok(line.map_err(|error| read(error.to_string()))?.state)
    }

    /// Up to `max` kept entries from `from` on.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn entries(&self, from: Offset, max: usize) -> Result<Vec<Entry>, LogError> {
        let first = self.kept.partition_point(|kept| kept.offset < from);
        let wanted = self.kept.iter().skip(first).take(max);
        let read = |error: io::Error| LogError::Read(format!("{}: {error}", self.path.display()));
        let mut found = Vec::new();
        if wanted.len() == 0 {
            return Ok(found);
        }
        let file = File::open(&self.path).map_err(read)?;
        for kept in wanted {
            let line = line_at(&file, *kept).map_err(read)?;
            let damaged = |reason| LogError::Damaged { offset: kept.offset, reason };
            let entry = Entry::of(line).map_err(damaged)?;
            if entry.offset != kept.offset {
                return Err(damaged("another record is in its place".to_owned()));
            }
            found.push(entry);
        }
        Ok(found)
    }

    /// Calls `each` with the kept entries from `from` on until it says stop.
    ///
    /// # Errors
    /// When the file cannot be read, and what `each` says.
    pub(crate) fn each(
        &self,
        from: Offset,
        mut each: impl FnMut(Entry) -> Result<bool, LogError>,
    ) -> Result<(), LogError> {
        let mut next = from;
        loop {
            let entries = self.entries(next, 256)?;
            let Some(last) = entries.last() else { return Ok(()) };
            next = Offset(last.offset.0 + 1);
            for entry in entries {
                if !each(entry)? {
                    return Ok(());
                }
            }
        }
    }

    /// Up to `max` kept records from `from` on.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn read(&self, from: Offset, max: usize) -> Result<Vec<Recorded>, LogError> {
        let entries = self.entries(from, max)?;
        entries.iter().map(|entry| decode(entry.offset, &entry.line)).collect()
    }

    /// Reads a file whole and checks it.
    fn of_file(path: &Path) -> io::Result<Result<CompactedPrefix, Unsound>> {
        let mut reader = BufReader::with_capacity(256 << 10, File::open(path)?);
        let (mut hasher, mut kept, mut state) = (blake3::Hasher::new(), Vec::new(), None);
        let (mut line, mut at) = (Vec::new(), 0);
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 || line.pop() != Some(b'\n') {
                return Ok(Err("it has no end".to_owned()));
            }
            if let Err(reason) = record::check(&line) {
                return Ok(Err(format!("at byte {at}: {reason}")));
            }
            let place = KeptLine { offset: Offset(0), at, bytes: line.len() };
            at += line.len() as u64 + 1;
            match line.get(record::COVERED..record::COVERED + 6) {
                Some(b"\"end\":") => break,
                Some(b"\"state") => state = Some(place),
                _ => match Entry::of(line.clone()) {
                    Ok(entry) => kept.push(KeptLine { offset: entry.offset, ..place }),
                    Err(reason) => return Ok(Err(reason)),
                },
            }
            hasher.update(&line).update(b"\n");
        }
        let end = serde_json::from_slice::<EndLine>(&line).map(|line| line.end);
        let end = match (end, state) {
            (Ok(end), Some(state)) => (end, state),
            (Err(error), _) => return Ok(Err(error.to_string())),
            (_, None) => return Ok(Err("it has no state".to_owned())),
        };
        let (EndOfPrefix { floor, previous, blake3 }, state) = end;
        let last = blake3::Hash::from_hex(&previous);
        if blake3 != hasher.finalize().to_hex().as_str() {
            return Ok(Err("its hash does not fit".to_owned()));
        }
        let path = path.to_owned();
        Ok(last.map_err(|error| error.to_string()).map(|last| CompactedPrefix {
            path,
            floor,
            last: *last.as_bytes(),
            kept,
            state,
        }))
    }

    /// The prefix of the log in the folder `dir`, from the first of its files that is sound.
    ///
    /// # Errors
    /// When there are such files and none is sound.
    pub(crate) fn of_folder(dir: &Path) -> Result<Option<CompactedPrefix>, LogError> {
        let mut refused = None;
        for name in COMPACTED_FILES {
            let path = dir.join(name);
            match CompactedPrefix::of_file(&path) {
                Ok(Ok(sound)) => return Ok(Some(sound)),
                Ok(Err(reason)) => refused = Some(format!("{name} is damaged: {reason}")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(LogError::open(&path, error)),
            }
        }
        let advice = "Restore `base` or `base.copy` from a copy of the folder";
        match refused {
            Some(reason) => {
                Err(LogError::open(dir, format!("{reason}, and so is its copy. {advice}")))
            }
            None => Ok(None),
        }
    }

    /// As [`CompactedPrefix::of_folder`]; the file that is damaged or missing is made again from the other.
    ///
    /// # Errors
    /// As [`CompactedPrefix::of_folder`], and what the file system says.
    pub(crate) fn open_and_repair(
        dir: &Path,
        repairs: &mut Vec<String>,
    ) -> Result<Option<CompactedPrefix>, LogError> {
        let Some(sound) = CompactedPrefix::of_folder(dir)? else { return Ok(None) };
        for name in COMPACTED_FILES {
            let path = dir.join(name);
            let same = |found: &CompactedPrefix| found.floor == sound.floor;
            let whole = path == sound.path
                || CompactedPrefix::of_file(&path)
                    .is_ok_and(|found| found.is_ok_and(|found| same(&found)));
            if !whole {
                copy_file(&sound.path, &path).map_err(|error| LogError::open(&path, error))?;
                repairs.push(format!("{name} made again from its copy"));
            }
        }
        Ok(Some(sound))
    }
}

fn line_at(mut file: &File, place: KeptLine) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(place.at))?;
    let mut line = vec![0; place.bytes];
    file.read_exact(&mut line)?;
    Ok(line)
}

/// A prefix that is being written.
pub(crate) struct PrefixDraft {
    dir: PathBuf,
    file: BufWriter<AtomicFile>,
    hasher: blake3::Hasher,
}

impl PrefixDraft {
    /// Begins one in the log's folder.
    ///
    /// # Errors
    /// What the file system says.
    pub fn begin(dir: &Path) -> io::Result<PrefixDraft> {
        let [name, _] = COMPACTED_FILES;
        let file = BufWriter::new(AtomicFile::create(&dir.join(name), Access::Private)?);
        Ok(PrefixDraft { dir: dir.to_owned(), file, hasher: blake3::Hasher::new() })
    }

    /// Keeps a record.
    ///
    /// # Errors
    /// What the file system says.
    pub fn keep(&mut self, line: &[u8]) -> io::Result<()> {
        self.hasher.update(line).update(b"\n");
        self.file.write_all(line)?;
        self.file.write_all(b"\n")
    }

    /// Ends it: both files are on the disk under their names.
    ///
    /// # Errors
    /// What the file system says; then the prefix from before is still there.
    pub fn finish(mut self, floor: Offset, last: BatchHash, state: &PrefixState) -> io::Result<()> {
        let state = serde_json::to_string(state).map_err(io::Error::other)?;
        self.keep(&sealed("state", &state))?;
        let blake3 = self.hasher.finalize().to_hex().to_string();
        let previous = blake3::Hash::from_bytes(last).to_hex().to_string();
        let end = serde_json::to_string(&EndOfPrefix { floor, previous, blake3 });
        self.keep(&sealed("end", &end.map_err(io::Error::other)?))?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        let [_, copy] = COMPACTED_FILES;
        copy_file(file.temporary(), &self.dir.join(copy))?;
        file.commit()
    }
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut copy = AtomicFile::create(to, Access::Private)?;
    io::copy(&mut File::open(from)?, &mut copy)?;
    copy.commit()
}

fn sealed(name: &str, body: &str) -> Vec<u8> {
    let mut line = Vec::with_capacity(body.len() + 40);
    record::begin(&mut line);
    line.extend_from_slice(format!("\"{name}\":{body}}}").as_bytes());
    record::seal(&mut line);
    line
}
