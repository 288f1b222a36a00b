//! Guests that load, then break a limit or hand over nonsense. Each is contained quickly, says
//! why, and leaves the rubric as it was.

use super::guest::Guest;
use super::{item, load, score, try_load};
use gradus::rubric::{CallError, ParsedReply, Rubric, RubricError, bundled};
use std::time::{Duration, Instant};

const AT_ONCE: Duration = Duration::from_secs(1);

/// The reason of the trap, which must come at once.
fn trap<T: std::fmt::Debug>(what: &str, call: impl FnOnce() -> Result<T, CallError>) -> String {
    let start = Instant::now();
    let outcome = call();
    assert!(start.elapsed() < AT_ONCE, "{what} took {:?}", start.elapsed());
    match outcome {
        Err(CallError::Trapped { reason }) => reason,
        other => panic!("{what} did not trap: {other:?}"),
    }
}

fn good(rubric: &Rubric) -> ParsedReply {
    rubric.parse(&item("task", "answer"), "good").expect("a good answer is read")
}

/// (first byte of the answer, a part of the trap's reason)
pub const PARSE_TRAPS: [(&str, &str); 19] = [
    ("loop", "fuel"),
    ("memory by the megabyte", "growing memory"),
    ("Memory at once", "growing memory"),
    ("fills what it gets", "growing memory"),
    ("table by the million", "growing table"),
    ("recursion", "stack"),
    ("unreachable", "unreachable"),
    ("zero as a divisor", "divide by zero"),
    ("out of bounds", "out of bounds"),
    ("pointer out of bounds", "out of bounds"),
    ("bytes that are no text", "utf-8"),
    ("either ok nor err", "discriminant"),
    ("huge rationale", "too much data"),
    ("writes to the log for ever", "64 log lines"),
    ("Words, then a panic", "last words"),
    ("score outside the scale", "50 is outside 0 to 1"),
    ("nan", "NaN is outside 0 to 1"),
    ("infinity", "inf is outside 0 to 1"),
    ("2 scores", "2 scores for 1 candidates"),
];

#[test]
fn a_trap_in_parse_is_contained() {
    let rubric = load(&Guest::new().component());
    let item = item("task", "answer");
    let before = good(&rubric);
    assert_eq!(score(&before), Some(1.0));
    for (answer, part) in PARSE_TRAPS {
        let reason = trap(answer, || rubric.parse(&item, answer));
        assert!(reason.contains(part), "{answer}: {reason}");
        assert_eq!(trap(answer, || rubric.parse(&item, answer)), reason, "{answer}: differs");
        assert_eq!(good(&rubric), before, "after {answer}");
    }
    let reason = trap("no score", || rubric.parse(&item, "0 scores in a verdict"));
    assert!(reason.contains("0 scores for 1 candidates"), "{reason}");
}

/// Traps on some threads change nothing for the readings of others.
#[test]
fn traps_do_not_cross_threads() {
    let rubric = load(&Guest::new().component());
    let item = item("task", "answer");
    let before = good(&rubric);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (rubric, item, before) = (&rubric, &item, &before);
            scope.spawn(move || {
                for (answer, _) in PARSE_TRAPS {
                    if thread % 2 == 0 {
                        assert_eq!(&good(rubric), before);
                    } else {
                        assert!(rubric.parse(item, answer).is_err(), "{answer}");
                    }
                }
            });
        }
    });
}

/// A fresh instance for each call: what a guest counts never passes one.
#[test]
fn no_state_between_calls() {
    let rubric = load(&Guest::new().component());
    for _ in 0..3 {
        let reading = rubric.parse(&item("task", "answer"), "count").expect("it counts");
        assert_eq!(score(&reading), Some(1.0));
    }
}

/// What the types cannot say of a prompt.
#[test]
fn a_nonsense_prompt_is_refused_at_loading() {
    for (knob, value, part) in [
        ("messages", "0", "no message, but a readout"),
        ("max-tokens", "0", "max-tokens 0"),
        ("choices", "1", "two different choices"),
        ("second-choice", "\"0\"", "two different choices"),
        ("choice-score", "7", "7 is outside 0 to 1"),
        ("scores", "0", "0 scores for 1 candidates"),
        ("role", "9", "discriminant"),
        ("render", "unreachable", "unreachable"),
        ("render", "(call $forever)", "fuel"),
    ] {
        match try_load(&Guest::new().with(knob, value).component()) {
            Err(RubricError::Example { name, reason }) => {
                assert!(
                    name == "good" && reason.contains(part),
                    "{knob} {value}: {name}: {reason}"
                );
            }
            other => panic!("{knob} {value}: {:?}", other.map(|r| r.id().clone())),
        }
    }
    let refusing = Guest::new().with("render-fails", "1").with("first", "1136");
    match try_load(&refusing.with("messages", "10").component()) {
        Err(RubricError::Example { reason, .. }) => {
            assert_eq!(reason, "the rubric refused: last words");
        }
        other => panic!("{:?}", other.map(|r| r.id().clone())),
    }
}

#[test]
fn max_tokens_is_capped() {
    let rubric = load(&Guest::new().with("max-tokens", "4000000000").component());
    let rendered = rubric.render(&item("task", "answer")).expect("it renders");
    assert_eq!(rendered.max_tokens, 4096);
    assert_eq!(rendered.messages[0].content, "What?");
}

/// Items and replies too large for a call's fuel or memory end in a trap, not in a crash.
#[test]
fn huge_items() {
    let rubric = load(bundled::ADDITIVE_FIVE);
    let large = item("task", &"word ".repeat(40_000));
    let rendered = rubric.render(&large).expect("far more than a context window is judged");
    let asked = &rendered.messages[0].content;
    assert!(asked.contains(&large.candidates[0][..16_000]) && asked.contains("[cut here: 184000"));
    for mega in [12, 100] {
        let huge = item("task", &"x".repeat(mega << 20));
        trap("a huge candidate", || rubric.render(&huge));
    }
    // Reading needs the reply alone; an item is too large for it only when the memory is full.
    let huge = item("task", &"x".repeat(12 << 20));
    assert_eq!(score(&rubric.parse(&huge, "Score: 4").expect("it reads")), Some(4.0));
    let huge = "x".repeat(100 << 20);
    trap("a candidate larger than memory", || rubric.parse(&item("task", &huge), "Score: 4"));
    for reply in [&huge[..12 << 20], &huge] {
        trap("a huge reply", || rubric.parse(&item("task", "a"), reply));
    }
    let reading = rubric.parse(&item("task", "a"), "Score: 4").expect("it still reads");
    assert_eq!(score(&reading), Some(4.0));
}
