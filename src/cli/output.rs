//! The only place that writes to standard output, and the one way to write a file that a person named.

use gradus::atomic_file::{Access, AtomicFile};
use gradus::estimate::{DiskNeeds, gib};
use gradus::{Code, Error};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::Path;

/// Writes text. A reader that went away (`| head`) is no error.
pub fn text(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("standard output", error))
        }
        _ => Ok(()),
    }
}

/// The beginning of a text on one line, so many characters of it.
pub fn beginning(text: &str, shown: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(shown) {
        Some((at, _)) => format!("{}...", line.get(..at).unwrap_or_default()),
        None => line,
    }
}

/// A value of ours that could not be written as JSON.
pub fn not_json(what: &str, error: &serde_json::Error) -> Error {
    Error::refused(Code::Defect, format!("{what} could not be written as JSON: {error}"))
}

/// Writes a value as indented JSON and a line's end.
pub fn json(value: &impl serde::Serialize) -> Result<(), Error> {
    let body = serde_json::to_string_pretty(value).map_err(|e| not_json("the result", &e))?;
    text(&format!("{body}\n"))
}

/// Writes a value as one line of JSON.
pub fn json_line(value: &impl serde::Serialize) -> Result<(), Error> {
    let body = serde_json::to_string(value).map_err(|e| not_json("the result", &e))?;
    text(&format!("{body}\n"))
}

/// What a run takes of the disk, in words.
pub fn disk(needs: &DiskNeeds) -> String {
    let size = |bytes: u64| match bytes < 1 << 30 {
        true => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        false => gib(bytes),
    };
    format!(
        "at most {}: {} what it begins with, {} what its iterations make, {} while it trains, {} texts",
        size(needs.bytes()),
        size(needs.base),
        size(needs.policies),
        size(needs.training),
        size(needs.texts),
    )
}

/// Refuses to write over a file: asked before work is done whose result it is to hold.
pub fn must_be_new(path: &Path) -> Result<(), Error> {
    // A link to nothing is something of somebody's, too.
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(path, error)),
        Ok(_) => Err(there(path)),
    }
}

fn there(path: &Path) -> Error {
    let path = path.display();
    Error::refused(
        Code::OutputExists,
        format!("{path} is there already and is not written over. Give another name, or remove it"),
    )
}

/// Writes a new file, durably: it is there whole or not at all. What is there stays as it is. Gives
/// what `write` gives, and the file's length in bytes.
pub fn new_file<T>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<T, Error>,
) -> Result<(T, u64), Error> {
    must_be_new(path)?;
    let io = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => there(path),
        _ => Error::io(path, error),
    };
    let mut file = BufWriter::new(AtomicFile::create(path, Access::Usual).map_err(io)?);
    let given = write(&mut file)?;
    let file = file.into_inner().map_err(|error| io(error.into_error()))?;
    let bytes = std::fs::metadata(file.temporary()).map_err(io)?.len();
    file.commit_new().map_err(io)?;
    Ok((given, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_new_and_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pairs.jsonl");
        let write = |text: &'static str| {
            move |to: &mut dyn Write| {
                to.write_all(text.as_bytes()).map_err(|e| Error::io("pairs", e))
            }
        };
        let half = |to: &mut dyn Write| {
            write("half")(to)?;
            Err::<(), _>(Error::refused(Code::Defect, "stopped".to_owned()))
        };
        assert!(new_file(&path, half).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(new_file(&path, write("whole")).unwrap(), ((), 5));
        let again = new_file(&path, write("another")).unwrap_err().to_string();
        assert!(again.contains("is there already"), "{again}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(must_be_new(&link).is_err());
    }
}
