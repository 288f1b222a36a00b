//! Whole runs as processes, and what they came to.

pub use crate::alone::alone;
use gradus::config::Config;
use gradus::domain::Offset;
use gradus::log::{JournalLog, Log, Recorded};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The command, silent.
pub fn gradus() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gradus"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Runs are compared bit by bit, which only holds where the same kind of device computes: beside a GPU
/// some would take it, and those that say nothing of it would not.
const ON_CPU: [&str; 2] = ["--device", "cpu"];

/// A reduced demo in a folder, by seed 1; one that is there goes on.
pub fn demo(dir: &Path) -> Command {
    demo_by(1, dir)
}

/// A reduced demo by a seed.
pub fn demo_by(seed: u64, dir: &Path) -> Command {
    let mut command = gradus();
    command.args(["demo", "--reduced", "--no-arms", "--json", "--seed", &seed.to_string()]);
    command.args(ON_CPU).arg("--dir").arg(dir);
    command
}

/// Takes scores as they are written, for rubrics whose words the demo's model does not have.
pub fn take_as_written(dir: &Path) {
    let yaml = dir.join("gradus.yaml");
    let text = std::fs::read_to_string(&yaml).unwrap();
    let parsed = text.replace("readout: \"forced\"", "readout: \"parsed\"");
    assert_ne!(parsed, text, "the reduced demo forces scores");
    std::fs::write(&yaml, parsed).unwrap();
}

/// A run that nothing happened to.
pub struct Whole {
    root: tempfile::TempDir,
    /// Its state.
    pub digest: String,
}

impl Whole {
    fn made(make: impl FnOnce(&Path) -> Command) -> Whole {
        let root = tempfile::tempdir().unwrap();
        assert!(make(&root.path().join("run")).status().unwrap().success());
        Whole { digest: digest(&root.path().join("run")), root }
    }

    /// Where it lies; nobody changes it.
    pub fn dir(&self) -> PathBuf {
        self.root.path().join("run")
    }
}

/// The reduced demo by seed 1. Made once for all tests of the process, as the next.
pub fn whole() -> &'static Whole {
    static WHOLE: OnceLock<Whole> = OnceLock::new();
    WHOLE.get_or_init(|| Whole::made(demo))
}

/// The same after five iterations.
pub fn five() -> &'static Whole {
    static FIVE: OnceLock<Whole> = OnceLock::new();
    FIVE.get_or_init(|| Whole::made(|dir| on(&copied(&whole().dir(), dir))))
}

/// Copies a folder: where to.
pub fn copied(from: &Path, to: &Path) -> PathBuf {
    assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
    to.to_owned()
}

/// The reduced demo, over, as `run` below a folder; its settings are what `change` makes of them.
pub fn changed_run(root: &tempfile::TempDir, change: impl FnOnce(&mut Config)) -> PathBuf {
    let dir = copied(&whole().dir(), &root.path().join("run"));
    let mut config = Config::from_yaml(&dir.join("gradus.yaml")).unwrap();
    change(&mut config);
    std::fs::write(dir.join("gradus.yaml"), serde_json::to_string(&config).unwrap()).unwrap();
    dir
}

/// Goes on to the fifth iteration.
pub fn on(dir: &Path) -> Command {
    let mut command = gradus();
    command.args(["run", "--iterations", "5", "--json"]).args(ON_CPU).arg(dir);
    command
}

/// What a command prints, as JSON.
pub fn json(arguments: &[&str], dir: &Path) -> serde_json::Value {
    let mut command = gradus();
    let out = command.args(arguments).arg("--json").arg(dir).stdout(Stdio::piped()).output();
    serde_json::from_slice(&out.unwrap().stdout).unwrap()
}

/// The state digest.
pub fn digest(dir: &Path) -> String {
    json(&["log", "digest"], dir)["digest"].as_str().unwrap().to_owned()
}

/// The names of all blobs: weights and optimiser states by the hash of their bytes.
pub fn blobs(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, names: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, names);
            } else {
                names.push(path.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
    }
    let mut names = Vec::new();
    walk(&dir.join("blobs"), &mut names);
    names.sort();
    names
}

/// All records so far; none before there is a log.
pub fn records(dir: &Path) -> Vec<Recorded> {
    match JournalLog::open(&dir.join("log")) {
        Ok(log) => log.read(Offset(0), usize::MAX).unwrap(),
        Err(_) => Vec::new(),
    }
}

/// Looks at the last record until it is as wanted. False when the process ended first.
pub fn until_last(dir: &Path, child: &mut Child, wanted: impl Fn(&Recorded) -> bool) -> bool {
    let until = Instant::now() + Duration::from_secs(120);
    let mut log = None;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "it did not come so far within two minutes");
        std::thread::sleep(Duration::from_millis(2));
        log = log.or_else(|| JournalLog::open(&dir.join("log")).ok());
        let Some(log) = &log else { continue };
        let last = log.tail().0.checked_sub(1).map(|last| log.get(Offset(last)));
        if let Some(Ok(Some(record))) = last
            && wanted(&record)
        {
            return true;
        }
    }
    false
}

/// Waits for the end of a process; false when it did not end in time.
pub fn ends_within(child: &mut Child, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    while Instant::now() < until {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// Changes a number in the settings.
pub fn set(dir: &Path, key: &str, was: u32, is: u32) {
    let path = dir.join("gradus.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (was, is) = (format!("  {key}: {was}\n"), format!("  {key}: {is}\n"));
    assert!(text.contains(&was));
    std::fs::write(path, text.replace(&was, &is)).unwrap();
}

/// Asks a process to stop, which takes it less than two seconds.
pub fn terminate(child: &mut Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(ends_within(child, Duration::from_secs(2)));
}

/// The same rubric with other bytes: a custom section that nobody reads.
pub fn twin(bytes: &[u8], mark: u8) -> Vec<u8> {
    let mut twin = bytes.to_vec();
    twin.extend([0, 3, 1, b't', mark]);
    twin
}
