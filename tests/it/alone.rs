//! One test at a time works on whole runs.

use std::path::Path;

/// While this lives, no other test works on whole runs: they would take each other's time, and
/// some look at the clock. Across processes, for a runner may give each test its own.
pub struct Alone(#[allow(dead_code, reason = "locked as long as it is open")] std::fs::File);

/// Waits until no other test works on whole runs.
pub fn alone() -> Alone {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("alone.lock");
    let file = std::fs::File::create(path).unwrap();
    file.lock().unwrap();
    Alone(file)
}
