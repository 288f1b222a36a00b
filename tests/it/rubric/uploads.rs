//! Components made to hurt whoever loads them, and what containing all of them costs: time, and
//! memory that stays.

use super::guest::Guest;
use super::hostile::PARSE_TRAPS;
use super::{item, load, score, try_load};
use gradus::rubric::bundled;
use std::process::Command;
use std::time::{Duration, Instant};

fn leb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        bytes.push(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return bytes;
        }
    }
}

/// A section of a component.
fn section(id: u8, body: &[u8]) -> Vec<u8> {
    [&[id][..], &leb(body.len()), body].concat()
}

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// A component in a component in a component.
fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(COMPONENT.to_vec(), |inner, _| [COMPONENT, &section(4, &inner)].concat())
}

/// A million times the same type.
fn types(count: usize) -> Vec<u8> {
    let body = [leb(count), [0x7f].repeat(count)].concat();
    [COMPONENT, &section(7, &body)].concat()
}

fn custom(bytes: usize) -> Vec<u8> {
    let mut component = Guest::new().component();
    component.extend(section(0, &[&[1, b'x'][..], &vec![7; bytes]].concat()));
    component
}

/// (what it is, its bytes, a part of the error)
fn uploads() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let guest = |knob, value| Guest::new().with(knob, value).component();
    let forever = "(func $start (loop $again (br $again))) (start $start)";
    vec![
        ("nothing", Vec::new(), "magic bytes"),
        ("HTML", b"<!doctype html><title>404</title>".to_vec(), "magic bytes"),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec(), "magic bytes"),
        ("the text format", b"(component)".to_vec(), "magic bytes"),
        ("a core module", Guest::new().module(), "core module"),
        ("larger than the limit", custom(33 << 20), "more than 33554432"),
        ("1,000 components in each other", nested(1000), "exports nothing"),
        ("a million types", types(1_000_000), "exports nothing"),
        ("10 million places in a table", guest("table-size", "10000000"), "table"),
        ("4 GiB of memory", guest("memory-pages", "65536"), "memory"),
        ("a start that never ends", Guest::new().more(forever).component(), "fuel"),
        ("a description that never ends", guest("describe", "(call $forever)"), "fuel"),
    ]
}

/// The dearest call that is stopped: a loop until the fuel is gone.
const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn what_is_made_to_hurt_is_refused() {
    let honest = load(bundled::ADDITIVE_FIVE);
    for (what, bytes, part) in uploads() {
        let start = Instant::now();
        let error = match try_load(&bytes) {
            Err(error) => error.to_string(),
            Ok(rubric) => panic!("{what} became {:?}", rubric.info()),
        };
        assert!(start.elapsed() < AT_ONCE, "{what} took {:?}", start.elapsed());
        assert!(error.contains(part), "{what}: no {part:?} in {error}");
        let reading = honest.parse(&item("task", "answer"), "Score: 4").unwrap();
        assert_eq!(score(&reading), Some(4.0), "after {what}");
    }
}

/// Large is not wrong: it loads, and calls of others go on meanwhile.
#[test]
fn a_large_component_compiles_beside_others() {
    let functions = "(func (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))\n";
    let large = Guest::new().more(&functions.repeat(100_000)).component();
    let honest = load(bundled::ADDITIVE_FIVE);
    let item = item("task", "answer");
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| try_load(&large).map(|rubric| rubric.info().name.clone()));
        let mut calls = 0;
        while !loading.is_finished() || calls == 0 {
            let reading = honest.parse(&item, "Score: 4").unwrap();
            assert_eq!(score(&reading), Some(4.0));
            calls += 1;
        }
        assert_eq!(loading.join().unwrap().unwrap(), "hostile");
        println!("{} bytes; {calls} calls meanwhile", large.len());
    });
    let padded = load(&custom(8 << 20));
    assert_eq!(padded.info().name, "hostile");
}

fn kilobytes(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// In a process of its own, for memory is counted by process: see the next.
#[test]
#[ignore = "the next test runs it"]
fn all_of_it_in_one_process() {
    let rubric = load(&Guest::new().component());
    let item = item("task", "answer");
    let uploads = uploads();
    let once = || {
        for (answer, _) in PARSE_TRAPS {
            let start = Instant::now();
            assert!(rubric.parse(&item, answer).is_err());
            assert!(start.elapsed() < AT_ONCE, "{answer} took {:?}", start.elapsed());
        }
        for (what, bytes, _) in &uploads {
            assert!(try_load(bytes).is_err(), "{what}");
        }
    };
    once();
    let before = kilobytes("VmRSS:");
    for _ in 0..5 {
        once();
    }
    let after = kilobytes("VmRSS:");
    println!("resident: {before} kB, {after} kB, {} kB at most", kilobytes("VmHWM:"));
    assert!(after.saturating_sub(before) < 16 << 10, "it stays: {before} kB, {after} kB");
    // One that fills all it gets, from a process at rest: its limit is 48 MiB.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = kilobytes("VmRSS:");
    assert!(rubric.parse(&item, "fills what it gets").is_err());
    let most = kilobytes("VmHWM:").saturating_sub(before);
    println!("the one that fills its memory: {most} kB more for its time");
    assert!(most < 64_000_000 / 1024, "{most} kB");
}

#[test]
fn hostile_components_leave_no_memory_behind() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let test = "rubric::uploads::all_of_it_in_one_process";
    let out = command.args(["--exact", test, "--ignored", "--nocapture"]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
    assert!(said.contains("1 passed"), "{said}");
    println!("{said}");
}
