//! A process that writes is killed at any moment: what it was told is durable is there.

use super::*;
use crate::dice::{chosen_seed, scale};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const KILLS: u64 = 100;
/// Reopening may take no longer.
const REOPEN: Duration = Duration::from_secs(2);

/// Not a test: the process that is killed. Prints every tail that it was told.
#[test]
#[ignore = "the other tests start it"]
fn writer_process() {
    let Ok(dir) = std::env::var("GRADUS_TEST_LOG") else { return };
    #[cfg(feature = "failpoints")]
    let _faults = fail::FailScenario::setup();
    let seed = std::env::var("GRADUS_TEST_WRITER").unwrap().parse().unwrap();
    let mut dice = Dice(seed);
    let log = open(Path::new(&dir), 200_000).unwrap();
    let mut next = texts_in_order(&log);
    let mut out = std::io::stdout().lock();
    loop {
        let count = dice.pick(&[1, 1, 3, 20, 200]);
        log.append(batch(next, count)).unwrap();
        next += count;
        writeln!(out, "told {next}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn killed_writers_lose_nothing_they_were_told_is_durable() {
    let seed = chosen_seed().unwrap_or(1);
    println!("replay with GRADUS_TEST_SEED={seed}");
    let dir = scratch();
    let path = dir.path().join("log");
    let mut dice = Dice(seed);
    let (mut told, mut slowest, mut mended) = (0, Duration::ZERO, 0);
    for kill in 0..KILLS * scale() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "log::kill::writer_process", "--ignored", "--nocapture"])
            .env("GRADUS_TEST_LOG", &path)
            .env("GRADUS_TEST_WRITER", dice.below(1 << 40).to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || {
            let tail = |line: String| line.rsplit_once("told ").and_then(|(_, n)| n.parse().ok());
            lines.map_while(Result::ok).filter_map(tail).last()
        });
        std::thread::sleep(Duration::from_millis(20 + dice.below(250)));
        child.kill().unwrap();
        child.wait().unwrap();
        told = reader.join().unwrap().unwrap_or(told);
        let began = Instant::now();
        let log = open(&path, 200_000).unwrap();
        slowest = slowest.max(began.elapsed());
        mended += u64::from(!log.repairs().is_empty());
        let there = texts_in_order(&log);
        assert!(there >= told, "kill {kill} of seed {seed}: told {told}, there {there}");
        assert_eq!(log.cursor("reader").unwrap(), Offset(there), "kill {kill} of seed {seed}");
        if kill % 10 == 9 {
            assert_eq!(log.verify().unwrap().first_error, None, "kill {kill} of seed {seed}");
        }
    }
    println!("{told} records, slowest reopening {slowest:?}, {mended} stores made again");
    assert!(told > 1000, "the writers hardly wrote: {told}");
    assert!(slowest < REOPEN, "{slowest:?}");
}
