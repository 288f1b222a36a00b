//! The only place that writes to standard output.

use gradus::Error;
use std::io::Write;

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

/// Writes a value as indented JSON and a line's end.
pub fn json(value: &impl serde::Serialize) -> Result<(), Error> {
    let body = serde_json::to_string_pretty(value)
        .map_err(|e| Error::Usage(format!("the result is not JSON: {e}")))?;
    text(&format!("{body}\n"))
}

/// Writes a value as one line of JSON.
pub fn json_line(value: &impl serde::Serialize) -> Result<(), Error> {
    let body = serde_json::to_string(value)
        .map_err(|e| Error::Usage(format!("the result is not JSON: {e}")))?;
    text(&format!("{body}\n"))
}
