//! The journal's files: `journal/<first offset, 20 digits>.jsonl`, each a header line and then one
//! record a line. A segment's header names the hash of the batch before it, and the length and
//! hash of the whole segment before it, which from then on never changes.

use super::record::{BatchHash, LINE_BYTES_MAX, begin, check, seal};
use crate::atomic_file::sync_folder;
use crate::domain::Offset;
use serde::Deserialize;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A segment's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Offset of its first record.
    pub first: Offset,
    pub path: PathBuf,
}

/// Where a line begins in the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JournalPosition {
    /// The segment, by its first record.
    pub segment: Offset,
    /// Bytes before the line.
    pub at: u64,
}

/// What a header says about the segment before.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Sealed {
    pub segment: Offset,
    pub bytes: u64,
    pub blake3: String,
}

/// The first line of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct SegmentHeader {
    pub segment: Offset,
    pub format: u32,
    previous: String,
    pub sealed: Option<Sealed>,
}

impl SegmentHeader {
    pub fn previous(&self) -> Option<BatchHash> {
        blake3::Hash::from_hex(&self.previous).ok().map(|hash| *hash.as_bytes())
    }

    /// Reads a header line.
    ///
    /// # Errors
    /// What does not fit.
    pub fn read(line: &[u8]) -> Result<SegmentHeader, String> {
        check(line)?;
        serde_json::from_slice(line).map_err(|error| error.to_string())
    }
}

/// The bytes of a header line, with its line feed.
pub(crate) fn header_line(
    first: Offset,
    format: u32,
    previous: BatchHash,
    sealed: Option<&Sealed>,
) -> Vec<u8> {
    let mut line = Vec::with_capacity(256);
    begin(&mut line);
    let previous = blake3::Hash::from_bytes(previous).to_hex();
    let sealed = sealed.map_or("null".to_owned(), |s| {
        format!("{{\"segment\":{},\"bytes\":{},\"blake3\":\"{}\"}}", s.segment, s.bytes, s.blake3)
    });
    // Writing to memory cannot fail.
    let _ = write!(
        line,
        "\"segment\":{first},\"format\":{format},\"previous\":\"{previous}\",\"sealed\":{sealed}}}"
    );
    seal(&mut line);
    line.push(b'\n');
    line
}

/// Where the segment that begins at `first` lies.
pub(crate) fn path_of(dir: &Path, first: Offset) -> PathBuf {
    dir.join(format!("{:020}.jsonl", first.0))
}

/// All segments in order; none where there is no folder.
///
/// # Errors
/// When the folder cannot be listed.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(segments),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let digits = name.strip_suffix(".jsonl").filter(|digits| digits.len() == 20);
        if let Some(first) = digits.and_then(|digits| digits.parse().ok()) {
            segments.push(Segment { first: Offset(first), path });
        }
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

/// Removes the segments before the floor of a compacted log.
///
/// # Errors
/// What the file system says.
pub(crate) fn remove_below(journal_dir: &Path, floor: Offset) -> io::Result<()> {
    for segment in list(journal_dir)? {
        if segment.first < floor {
            std::fs::remove_file(&segment.path)?;
        }
    }
    sync_folder(journal_dir)
}

/// BLAKE3 of a file.
pub(crate) fn hash_file(path: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hasher.finalize());
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
    }
}

/// One step through a file of lines.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A line, without its line feed.
    Line(Vec<u8>),
    /// Bytes without a line feed at the end of the file, or more than a line may have.
    Broken,
    /// The end of the file.
    End,
}

/// A file, line by line, in bounded memory.
pub(crate) struct SegmentLines {
    reader: BufReader<File>,
    at: u64,
}

impl SegmentLines {
    /// From a byte position on.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path, at: u64) -> io::Result<SegmentLines> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(at))?;
        Ok(SegmentLines { reader: BufReader::with_capacity(64 << 10, file), at })
    }

    /// Bytes of the file before the next step.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next line.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn step(&mut self) -> io::Result<Step> {
        let mut line = Vec::with_capacity(512);
        let limit = LINE_BYTES_MAX as u64 + 1;
        let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut line)?;
        self.at += read as u64;
        if read == 0 {
            return Ok(Step::End);
        }
        if line.pop() == Some(b'\n') {
            return Ok(Step::Line(line));
        }
        self.skip_line()?;
        Ok(Step::Broken)
    }

    /// Passes over the rest of an overlong line without holding it.
    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.reader.fill_buf()?;
            let found = buffer.iter().position(|byte| *byte == b'\n');
            let passed = found.map_or(buffer.len(), |at| at + 1);
            self.reader.consume(passed);
            self.at += passed as u64;
            if passed == 0 || found.is_some() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back() {
        let sealed = Sealed { segment: Offset(3), bytes: 9, blake3: "ab".into() };
        let line = header_line(Offset(7), 2, [5; 32], Some(&sealed));
        let header = SegmentHeader::read(line.strip_suffix(b"\n").unwrap()).unwrap();
        assert_eq!((header.segment, header.format), (Offset(7), 2));
        assert_eq!((header.previous(), header.sealed), (Some([5; 32]), Some(sealed)));
    }

    #[test]
    fn lines_without_end_or_bound_are_broken_and_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        let mut bytes = b"one\n".to_vec();
        bytes.extend(std::iter::repeat_n(b'x', 3 * LINE_BYTES_MAX));
        bytes.extend(b"\n\ntail");
        std::fs::write(&path, &bytes).unwrap();
        let mut lines = SegmentLines::open(&path, 0).unwrap();
        assert_eq!(lines.step().unwrap(), Step::Line(b"one".to_vec()));
        assert_eq!(lines.step().unwrap(), Step::Broken);
        assert_eq!(lines.step().unwrap(), Step::Line(Vec::new()));
        assert_eq!(lines.step().unwrap(), Step::Broken);
        assert_eq!((lines.step().unwrap(), lines.at()), (Step::End, bytes.len() as u64));
    }
}
