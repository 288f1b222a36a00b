//! Bad input: fixed lists of it, and mutations of good input by the dice. Every reader answers
//! with a value or with an error that says what is wrong; none panics, none takes over a second,
//! none needs more than 64 MB of memory. Each target runs in a process of its own, so that its
//! memory is its own.
//!
//! `GRADUS_TEST_SEED=n` replays one seed; `GRADUS_TEST_SCALE=n` tries n times as many.

mod fixtures;
mod targets;

use crate::dice::{Dice, chosen_seed, scale};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::{Duration, Instant};
use targets::{TARGETS, Target};

/// Time for one input.
const PATIENCE: Duration = Duration::from_secs(1);
/// Memory above what the target needs before the first input.
const MEMORY_MIB: u64 = 64;
/// Names the target to the process that runs it.
const TARGET: &str = "GRADUS_TEST_TARGET";

/// One random change of some bytes; `words` are what this kind of input is sensitive to.
fn mutate(bytes: &mut Vec<u8>, words: &[&str], dice: &mut Dice) {
    let at = dice.below(bytes.len() as u64 + 1) as usize;
    match dice.below(7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
        1 => bytes.truncate(at),
        2 if at < bytes.len() => bytes[at] = dice.pick(&[0, 0x7f, 0x80, 0xff, b'"', b'{', b'\n']),
        3 => {
            let end = (at + dice.below(64) as usize).min(bytes.len());
            drop(bytes.drain(at..end));
        }
        4 => {
            let end = (at + dice.below(200) as usize).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            let to = dice.below(bytes.len() as u64 + 1) as usize;
            drop(bytes.splice(to..to, piece));
        }
        5 => {
            let n = dice.pick(&[0u64, 1, 255, 65_535, u32::MAX.into(), i64::MAX as u64, u64::MAX]);
            let end = (at + 8).min(bytes.len());
            drop(bytes.splice(at..end, n.to_le_bytes()));
        }
        _ => {
            let word = dice.pick(words);
            drop(bytes.splice(at..at, word.bytes()));
        }
    }
}

/// The most memory this process ever had, MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Reads one input within its time, without a panic. What came of it.
fn read(target: &Target, what: &str, input: &[u8]) -> Result<(), String> {
    let began = Instant::now();
    let read = catch_unwind(AssertUnwindSafe(|| (target.read)(input)));
    let took = began.elapsed();
    let start: String = String::from_utf8_lossy(input).chars().take(200).collect();
    let read = read.unwrap_or_else(|_| panic!("{what} makes the reader panic: {start:?}"));
    assert!(took < PATIENCE, "{what} takes {took:?}: {start:?}");
    read
}

fn run_target(target: &Target) {
    for (n, good) in target.good.iter().enumerate() {
        read(target, "a good input", &good()).unwrap_or_else(|why| panic!("good {n}: {why}"));
    }
    let before = peak_mib();
    for (name, bytes, expected) in (target.bad)() {
        let error = read(target, name, &bytes).err();
        let error = error.unwrap_or_else(|| panic!("{name} is taken for good"));
        assert!(error.contains(expected), "{name}: {error:?} does not say {expected:?}");
    }
    let (mut refused, seeds) = (0, (target.mutations * scale()).min(target.most));
    let seeds = chosen_seed().map_or(1..=seeds, |seed| seed..=seed);
    for seed in seeds.clone() {
        let mut dice = Dice(seed);
        let mut input = target.good[dice.below(target.good.len() as u64) as usize]();
        for _ in 0..=dice.below(4) {
            mutate(&mut input, target.words, &mut dice);
        }
        let what = format!("seed {seed} (GRADUS_TEST_SEED={seed} replays it)");
        refused += u64::from(read(target, &what, &input).is_err());
    }
    let grown = peak_mib() - before;
    println!("{}: seeds {seeds:?}, {refused} refused, {grown} MiB", target.name);
    assert!(grown <= MEMORY_MIB, "{grown} MiB for bad input");
}

#[test]
#[ignore = "the other test starts it, once for each target"]
fn target_process() {
    let name = std::env::var(TARGET).unwrap();
    run_target(TARGETS.iter().find(|target| target.name == name).unwrap());
}

#[test]
fn bad_input_is_refused_in_bounded_time_and_memory() {
    for target in &TARGETS {
        let done = Command::new(std::env::current_exe().unwrap())
            .args(["inputs::target_process", "--exact", "--ignored", "--nocapture"])
            .env(TARGET, target.name)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        let errors = String::from_utf8_lossy(&done.stderr);
        println!("{}", said.lines().filter(|line| line.contains("refused")).collect::<String>());
        assert!(done.status.success(), "{}:\n{said}\n{errors}", target.name);
    }
}
