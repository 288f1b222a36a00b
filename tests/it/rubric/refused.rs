//! Files that never become a rubric, each with an error that says what to do about it.

use super::guest::Guest;
use super::{load, try_load};
use gradus::rubric::{RubricError, bundled};
use std::time::{Duration, Instant};

fn refusal(what: &str, bytes: &[u8]) -> RubricError {
    match try_load(bytes) {
        Err(error) => error,
        Ok(rubric) => panic!("{what} became {:?}", rubric.info()),
    }
}

/// What the front door says of it: the code, and why.
fn text(error: &RubricError) -> String {
    format!("{} {error}", error.code())
}

fn says(what: &str, bytes: &[u8], parts: &[&str]) {
    let text = text(&refusal(what, bytes));
    for part in parts {
        assert!(text.contains(part), "{what}: no {part:?} in {text:?}");
    }
}

#[test]
fn the_guest_loads_when_nothing_is_bent() {
    let rubric = load(&Guest::new().component());
    assert_eq!(rubric.info().name, "hostile");
}

#[test]
fn another_version_is_refused_with_all_named() {
    for version in ["0.3.0", "0.0.9", "1.0.0"] {
        let bytes = Guest::new().version(version).component();
        let found = format!("gradus:rubric/judge@{version}");
        let spoken = ["gradus:rubric/judge@0.2 ", "gradus:rubric/judge@0.1."];
        says(version, &bytes, &["GRADUS0502", &found, spoken[0], spoken[1]]);
    }
    // A patch only adds, so a later one still fits.
    assert_eq!(load(&Guest::new().version("0.2.1").component()).world(), "0.2");
    assert_eq!(load(&Guest::of_0_1().component()).world(), "0.1");
    says("an empty component", b"\0asm\x0d\0\x01\0", &["GRADUS0502", "nothing"]);
}

#[test]
fn another_interface_of_the_same_version_is_refused() {
    let other = Guest::new().wit("max-tokens: u32", "max-tokens: s32");
    let error = refusal("other types", &other.component());
    assert!(matches!(error, RubricError::World { .. }), "{error}");
    assert!(error.to_string().contains("other types"), "{error}");
}

#[test]
fn an_import_is_refused_by_name() {
    for (package, version, interface) in [
        ("wasi:filesystem", "0.2.3", "preopens"),
        ("wasi:clocks", "0.2.3", "wall-clock"),
        ("wasi:random", "0.2.3", "random"),
        ("wasi:sockets", "0.2.3", "network"),
        ("gradus:host", "0.1.0", "secrets"),
    ] {
        let bytes = Guest::new().importing(package, version, interface).component();
        let name = format!("{package}/{interface}@{version}");
        says(&name, &bytes, &["GRADUS0503", &name]);
    }
}

#[test]
fn what_it_says_of_itself_is_checked() {
    for (knob, value, part) in [
        ("name-bytes", "0", "name"),
        ("name-bytes", "65", "name"),
        ("candidates-min", "0", "0 to 1 candidates"),
        ("candidates-min", "2", "2 to 1 candidates"),
        ("scale-min", "1", "scale is 1 to 1"),
        ("scale-min", "2", "scale is 2 to 1"),
        ("scale-max", "nan", "scale is 0 to NaN"),
        ("scale-max", "inf", "scale is 0 to inf"),
        ("examples", "0", "at least one golden case"),
        ("examples", "1", "at least one golden case"),
        ("describe", "unreachable", "unreachable"),
        ("describe", "(call $forever)", "fuel"),
        ("describe", "(call $chatter)", "64 log lines"),
        ("examples-first", "(call $eat (i32.const 16))", "growing memory"),
        ("examples", "400000000", "trapped"),
        ("examples", "1001", ""),
    ] {
        let start = Instant::now();
        let text = text(&refusal(knob, &Guest::new().with(knob, value).component()));
        assert!(text.contains("GRADUS0514") && text.contains(part), "{knob} {value}: {text}");
        assert!(start.elapsed() < Duration::from_secs(3), "{knob} {value}: {:?}", start.elapsed());
    }
}

#[test]
fn a_golden_case_that_fails_is_named() {
    let bytes = Guest::new().with("expected", "0.5").component();
    says("a wrong expectation", &bytes, &["GRADUS0504", "\"good\"", "read [1.0], not [0.5]"]);
}

#[test]
fn a_file_that_is_no_component() {
    says("nothing", b"", &["GRADUS0501", "magic"]);
    says("text", b"(component)", &["GRADUS0501", "magic"]);
    says("a program", b"\x7fELF\x02\x01\x01\0\0\0", &["GRADUS0501", "magic"]);
    says("the magic alone", b"\0asm", &["GRADUS0501"]);
    says("a core module", &Guest::new().module(), &["GRADUS0501", "core module", "component step"]);
    let mut large = b"\0asm\x0d\0\x01\0".to_vec();
    large.resize((32 << 20) + 1, 0);
    says("a large file", &large, &["GRADUS0522", "33554433", "33554432"]);
}

#[test]
fn a_truncated_component_is_refused() {
    let bytes = Guest::new().component();
    for end in (0..bytes.len()).step_by(61) {
        let error = refusal("a truncated guest", &bytes[..end]);
        assert!(text(&error).contains("GRADUS050"), "{end}: {error}");
    }
    for end in [1_000, 40_000, bundled::ADDITIVE_FIVE.len() - 1] {
        let error = refusal("a truncated rubric", &bundled::ADDITIVE_FIVE[..end]);
        assert!(matches!(error, RubricError::Compile(_)), "{end}: {error}");
    }
}

/// xorshift64: the same bytes in every run.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn below(state: &mut u64, end: usize) -> usize {
    usize::try_from(next(state) % end as u64).expect("it fits")
}

/// Noise is refused; a component with a few bytes changed may load, but nothing panics.
#[test]
fn random_bytes_never_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..200 {
        let mut noise = b"\0asm\x0d\0\x01\0".to_vec();
        let bytes = below(&mut state, 300);
        noise.extend((0..bytes).map(|_| next(&mut state).to_le_bytes()[3]));
        refusal("noise", &noise);
        refusal("noise with no magic", &noise[8..]);
    }
    let component = Guest::new().component();
    let mut refused = 0;
    for _ in 0..200 {
        let mut bytes = component.clone();
        for _ in 0..3 {
            let at = below(&mut state, bytes.len());
            bytes[at] = next(&mut state).to_le_bytes()[5];
        }
        refused += usize::from(try_load(&bytes).is_err());
    }
    assert!(refused > 100, "only {refused} of 200 refused");
}
