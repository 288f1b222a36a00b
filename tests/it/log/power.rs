//! The power fails: every page that was written since the last sync of its file is on the disk or
//! is not, and the file's length is any between. The journal was synced at each acknowledgement;
//! sled's files were not since the log was opened.

use super::*;
use crate::dice::with_seeds;

const PAGE: usize = 4096;

/// Each 4 KiB of `new` that differs from `old`, from the one or the other; the length between the
/// two.
fn mix(old: &[u8], new: &[u8], dice: &mut Dice) -> Vec<u8> {
    let (short, long) = (old.len().min(new.len()), old.len().max(new.len()));
    let length = short + dice.below((long - short + 1) as u64) as usize;
    // Any pages, or all up to one, or all from one on.
    let kind = dice.below(3);
    let edge = dice.below((long / PAGE + 2) as u64) as usize;
    let mut mixed = vec![0; length];
    for (page, to) in mixed.chunks_mut(PAGE).enumerate() {
        let fresh = match kind {
            0 => dice.chance(50),
            1 => page < edge,
            _ => page >= edge,
        };
        for (source, wins) in [(old, false), (new, true)] {
            let from = source.get(page * PAGE..).unwrap_or_default();
            if (wins == fresh || !wins) && !from.is_empty() {
                let count = from.len().min(to.len());
                to[..count].copy_from_slice(&from[..count]);
            }
        }
    }
    mixed
}

/// The folder as the disk may have it, from three pictures: at the last sync of sled's files, at
/// the last acknowledgement, and now.
fn cut(synced: &Path, told: &Path, now: &Path, to: &Path, dice: &mut Dice) {
    let last = files(now).into_iter().rfind(|file| file.starts_with("journal"));
    for file in files(now) {
        let read = |root: &Path| std::fs::read(root.join(&file)).unwrap_or_default();
        let bytes = match file.starts_with("sled") {
            true => mix(&read(synced), &read(now), dice),
            // A segment is synced before the next is begun, and its header before it has its name.
            false if file.starts_with("journal") && last.as_ref() != Some(&file) => read(now),
            false if file.starts_with("journal") && !told.join(&file).exists() => {
                let new = read(now);
                let header = new.iter().position(|byte| *byte == b'\n').unwrap() + 1;
                mix(&new[..header], &new, dice)
            }
            false if file.starts_with("journal") => mix(&read(told), &read(now), dice),
            false => read(now),
        };
        let target = to.join(&file);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(target, bytes).unwrap();
    }
    let open = r#"{"boot":"another boot","clean":false,"tail":0}"#;
    std::fs::write(to.join("mark"), open).unwrap();
}

fn power_cuts(sizes: &[u64], seed: u64) {
    let dir = scratch();
    let at = |name: &str| dir.path().join(name);
    let mut dice = Dice(seed);
    // Small segments in a third of the cases, so that the cut falls near a new one.
    let segment = dice.pick(&[30_000, 1 << 20, 64 << 20]);
    let mut next = 0;
    {
        let log = open(&at("log"), segment).unwrap();
        for _ in 0..dice.below(4) {
            let count = dice.pick(sizes);
            log.append(batch(next, count)).unwrap();
            next += count;
        }
    }
    copy(&at("log"), &at("synced"));
    let log = open(&at("log"), segment).unwrap();
    for _ in 0..1 + dice.below(12) {
        let count = dice.pick(sizes);
        log.append(batch(next, count)).unwrap();
        next += count;
    }
    let told = next;
    copy(&at("log"), &at("told"));
    log.append(batch(next, dice.pick(sizes))).unwrap();
    // sled writes on its own thread: the picture may fall into any of its steps.
    std::thread::sleep(std::time::Duration::from_micros(dice.below(3000)));
    copy(&at("log"), &at("now"));
    drop(log);
    for n in 0..2 {
        let disk = at(&format!("disk {n}"));
        cut(&at("synced"), &at("told"), &at("now"), &disk, &mut dice);
        let log = open(&disk, segment).unwrap_or_else(|error| panic!("cut {n}: {error}"));
        let there = texts_in_order(&log);
        assert!(there >= told, "cut {n}: told {told}, there {there}: {:?}", log.repairs());
        assert_eq!(log.cursor("reader").unwrap(), Offset(there));
        assert_eq!(log.verify().unwrap().first_error, None, "cut {n}");
        // It is a log like any other.
        log.append(batch(there, 3)).unwrap();
        assert_eq!(texts_in_order(&log), there + 3);
        assert!(!log.repairs().is_empty(), "the store is not trusted after a power cut");
    }
}

#[test]
fn power_cuts_lose_nothing_acknowledged() {
    for sizes in [&[1u64][..], &[20], &[200], &[1, 20, 200]] {
        with_seeds(40, |seed| power_cuts(sizes, seed));
    }
}
