//! Files that are not what was written: flipped bits, cut ends, missing files. Never a wrong
//! record; an error, or all of it from the other copy.

use super::*;
use crate::dice::with_seeds;
use gradus::Code;
use gradus::log::LostRecords;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const RECORDS: u64 = 400;

/// A closed log of several segments, made once.
fn sound() -> &'static Path {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let make = || {
        let dir = scratch();
        let log = open(&dir.path().join("log"), 40_000).unwrap();
        let (mut next, mut dice) = (0, Dice(1));
        while next < RECORDS {
            let count = dice.pick(&[1, 7, 40]).min(RECORDS - next);
            log.append(batch(next, count)).unwrap();
            next += count;
        }
        dir
    };
    // The folder stays as long as the process.
    MADE.get_or_init(make).path()
}

fn rebuild(path: &Path, lost_records: LostRecords) -> Result<Vec<String>, LogError> {
    DurableLog::rebuild(path, Arc::new(Still), lost_records)
}

/// Opens a damaged folder: true when the damage showed. Wrong records panic.
fn noticed(path: &Path) -> bool {
    let Ok(log) = open(path, 40_000) else { return true };
    assert_eq!(texts_in_order(&log), RECORDS, "served something else");
    for n in [0, RECORDS / 2, RECORDS - 1] {
        if let Ok(Some(at)) = log.find(&key(n)) {
            assert_eq!(at, Offset(n), "a task key moved");
        }
    }
    !log.repairs().is_empty() || log.verify().unwrap().first_error.is_some()
}

/// Damages a copy, opens it, mends it.
fn damaged(name: &str, damage: impl FnOnce(&Path)) -> bool {
    let dir = scratch();
    let path = dir.path().join("log");
    copy(&sound().join("log"), &path);
    damage(&path);
    let seen = noticed(&path);
    rebuild(&path, LostRecords::Refuse).unwrap_or_else(|error| panic!("{name}: {error}"));
    let log = open(&path, 40_000).unwrap();
    assert_eq!(texts_in_order(&log), RECORDS, "{name}");
    assert_eq!(log.verify().unwrap().first_error, None, "{name}");
    seen
}

#[test]
fn a_flipped_bit_anywhere_is_noticed_or_harmless_and_mended() {
    let (noticed, harmless) = (AtomicU64::new(0), AtomicU64::new(0));
    let all = with_seeds(200, |seed| {
        let mut dice = Dice(seed);
        let kinds = ["journal", "sled", "mark"];
        let kind = if dice.chance(5) { 2 } else { (seed % 2) as usize };
        let seen = damaged(&format!("seed {seed}"), |path| {
            // A lock's file is empty: it has no bit.
            let bits = |file: &PathBuf| std::fs::metadata(path.join(file)).unwrap().len();
            let of = |file: &PathBuf| file.starts_with(kinds[kind]) && bits(file) > 0;
            let some: Vec<PathBuf> = files(path).into_iter().filter(of).collect();
            let file = path.join(&some[dice.below(some.len() as u64) as usize]);
            let mut bytes = std::fs::read(&file).unwrap();
            let bit = dice.below(bytes.len() as u64 * 8) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&file, bytes).unwrap();
        });
        if seen { &noticed } else { &harmless }.fetch_add(1, Ordering::Relaxed);
    });
    let (noticed, harmless) = (noticed.into_inner(), harmless.into_inner());
    println!("{noticed} flips noticed, {harmless} harmless");
    assert!(!all || noticed >= 100, "{noticed} of {}", noticed + harmless);
}

#[test]
fn an_end_cut_off_one_copy_comes_from_the_other() {
    for kind in ["journal", "sled/db"] {
        for bytes in [1, 100, 5000, 30_000] {
            let name = format!("{bytes} bytes of {kind}");
            damaged(&name, |path| {
                let of = |file: &PathBuf| file.starts_with(kind);
                let last = files(path).into_iter().rfind(of).unwrap();
                let file = std::fs::File::options().write(true).open(path.join(last)).unwrap();
                let length = file.metadata().unwrap().len();
                file.set_len(length.saturating_sub(bytes)).unwrap();
            });
        }
    }
}

#[test]
fn a_missing_copy_is_made_again() {
    damaged("no store", |path| std::fs::remove_dir_all(path.join("sled")).unwrap());
    assert!(damaged("no journal", |path| {
        std::fs::remove_dir_all(path.join("journal")).unwrap();
    }));
    damaged("no last segment", |path| {
        let of = |file: &PathBuf| file.starts_with("journal");
        std::fs::remove_file(path.join(files(path).into_iter().rfind(of).unwrap())).unwrap();
    });
    damaged("no mark", |path| std::fs::remove_file(path.join("mark")).unwrap());
}

#[test]
fn what_neither_copy_has_is_an_error_and_the_rest_is_kept_on_request() {
    let dir = scratch();
    let path = dir.path().join("log");
    copy(&sound().join("log"), &path);
    std::fs::remove_dir_all(path.join("sled")).unwrap();
    let of = |file: &PathBuf| file.starts_with("journal");
    let last = path.join(files(&path).into_iter().rfind(of).unwrap());
    let length = std::fs::metadata(&last).unwrap().len();
    std::fs::File::options().write(true).open(&last).unwrap().set_len(length - 10).unwrap();
    let before = std::fs::read(&last).unwrap();
    for attempt in [open(&path, 40_000).err(), rebuild(&path, LostRecords::Refuse).err()] {
        let error = attempt.unwrap();
        assert_eq!(error.code(), Code::LogLost, "{error}");
        assert!(error.to_string().contains("with that loss accepted"), "{error}");
    }
    assert_eq!(std::fs::read(&last).unwrap(), before, "a refusal changes nothing");
    let repairs = rebuild(&path, LostRecords::Accept).unwrap();
    assert!(repairs.iter().any(|text| text.contains("are lost")), "{repairs:?}");
    let log = open(&path, 40_000).unwrap();
    let there = texts_in_order(&log);
    assert!((RECORDS - 40..RECORDS).contains(&there), "{there}");
    assert_eq!(log.verify().unwrap().first_error, None);
    let aside = files(&path).into_iter().any(|file| file.to_string_lossy().contains("damaged-"));
    assert!(aside, "the damaged file is kept");
}
