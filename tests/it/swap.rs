//! Rubrics swapped under a run that works: by its host a thousand times, by another process, by a
//! file that appears. No judgment fails or mixes two, and each names its rubric.

use crate::rubric::guest::Guest;
use crate::runs::{
    alone, copied, demo, ends_within, gradus, json, on, records, take_as_written, twin, until_last,
    whole,
};
use gradus::domain::{Event, Judgment, RubricId, RubricName, When};
use gradus::lm::cancel::Cancel;
use gradus::rubric::bundled;
use gradus::runtime::rubrics::{Again, RubricWanted};
use gradus::runtime::{Goal, Runtime, WaitOutcome};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn judgments(dir: &Path) -> Vec<(Vec<Judgment>, Vec<RubricName>)> {
    let all = records(dir).into_iter().filter_map(|record| match record.event {
        Event::JudgmentsRecorded { judgments, rubrics, .. } => Some((judgments, rubrics)),
        _ => None,
    });
    all.collect()
}

/// The rubric of each prompt's judgments: one, and named.
fn judges(dir: &Path) -> Vec<RubricId> {
    let one = |(judgments, rubrics): (Vec<Judgment>, Vec<RubricName>)| {
        let asked: BTreeSet<RubricId> = judgments.into_iter().map(|j| j.rubric).collect();
        let asked: Vec<RubricId> = asked.into_iter().collect();
        let [only] = asked.as_slice() else { panic!("mixed: {asked:?}") };
        let [name] = rubrics.as_slice() else { panic!("{rubrics:?}") };
        assert_eq!((&name.rubric, name.name.as_str()), (only, "demo-compact"));
        only.clone()
    };
    judgments(dir).into_iter().map(one).collect()
}

fn failed(dir: &Path) -> usize {
    records(dir).iter().filter(|r| matches!(r.event, Event::TaskFailed { .. })).count()
}

#[test]
fn a_thousand_swaps_under_load() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    let before = judges(&dir).len();
    let runtime = Runtime::builder(&dir).iterations(6).start_blocking().unwrap();
    let rubrics = runtime.handle().rubrics().unwrap();
    let ids =
        [1, 2].map(|mark| rubrics.install(&twin(bundled::DEMO_COMPACT, mark)).unwrap().rubric);
    let ended = Cancel::default();
    let over = ended.clone();
    let swap = std::thread::spawn(move || {
        let mut took = Vec::new();
        for id in ids.iter().cycle() {
            let begun = Instant::now();
            let wanted = [RubricWanted::plain(id.0.clone())];
            rubrics.activate(&wanted, When::Immediately, Again::Refuse).unwrap();
            took.push(begun.elapsed());
            if took.len() >= 1000 && over.is_cancelled() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        took.sort();
        let at = |share: usize| took[(took.len() - 1) * share / 100];
        (at(50), at(99), at(100))
    });
    let mut later = Vec::new();
    let mut swaps = 0;
    // A task judges under what it began with, and there are few tasks: by chance all of them may have
    // begun under the same one of the two. Then more iterations are asked for.
    for total in [6, 9, 12, 15, 18, 21, 24] {
        if total > 6 {
            let more = gradus::runtime::Command::RaiseIterations { total };
            runtime.handle().command_blocking(more).unwrap();
        }
        let end = runtime.wait_blocking(Goal::Iterations, &Cancel::default(), |_| {}).unwrap();
        assert_eq!(end, WaitOutcome::Reached);
        later = judges(&dir).into_iter().skip(before).collect::<Vec<RubricId>>();
        swaps = later.windows(2).filter(|pair| pair[0] != pair[1]).count();
        if swaps > 0 {
            break;
        }
    }
    ended.cancel();
    println!("a swap took (median, 99 of 100, slowest) {:?}", swap.join().unwrap());
    runtime.shutdown_blocking();
    println!("{} prompts judged, {swaps} times by another rubric than the one before", later.len());
    assert!(later.len() >= 30 && swaps >= 1, "{} prompts, {swaps} swaps", later.len());
    let unscored = judgments(&dir)
        .iter()
        .skip(before)
        .flat_map(|(judgments, _)| judgments)
        .filter(|j| j.outcome.score().is_none())
        .count();
    assert_eq!((failed(&dir), unscored), (0, 0));
}

fn rubric(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gradus"));
    command.arg("rubric").args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn says(out: &Output, code: i32, part: &str) {
    let (said, error) =
        (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.code(), Some(code), "{said}{error}");
    assert!(format!("{said}{error}").contains(part), "no {part:?} in {said}{error}");
}

fn seen(dir: &Path, kind: &str) -> usize {
    records(dir).iter().filter(|record| record.event.kind() == kind).count()
}

/// A file appears in the watched folder, whole; what was done then.
fn dropped(dir: &Path, name: &str, bytes: &[u8], kind: &str) {
    let before = seen(dir, kind);
    let (part, path) = (dir.join("watch/part"), dir.join("watch").join(name));
    std::fs::write(&part, bytes).unwrap();
    std::fs::rename(part, path).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while seen(dir, kind) == before {
        assert!(Instant::now() < until, "{name} was not taken");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn another_process_swaps_rubrics_of_a_run_that_works() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    let path = |name: &str, bytes: &[u8]| {
        let path = root.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let run = dir.to_str().unwrap();
    let (better, broken) =
        (path("b.wasm", &twin(bundled::DEMO_COMPACT, 7)), path("c.wasm", b"not a component"));
    let mut child = on(&dir).spawn().unwrap();
    let begun =
        |record: &gradus::log::Recorded| matches!(record.event, Event::CompletionsSampled { .. });
    assert!(until_last(&dir, &mut child, begun));
    // What is wrong changes nothing, and says what to do.
    says(&rubric(&["install", run, &broken]), 2, "GRADUS0501");
    says(&rubric(&["activate", run, "unheard-of"]), 2, "GRADUS0508");
    says(&rubric(&["install", run, "meta-judge"]), 0, "installed meta-judge@0.2.0");
    says(&rubric(&["activate", run, "meta-judge"]), 2, "GRADUS0506");
    // Case A6: the model has no such words; the run lives.
    says(&rubric(&["install", run, "pairwise"]), 0, "installed pairwise@0.2.0");
    says(&rubric(&["activate", run, "pairwise"]), 2, "GRADUS0510 pairwise@0.2.0");
    says(&rubric(&["rollback", run]), 2, "no other rubric judged before");
    says(&rubric(&["install", run, &better]), 0, "installed demo-compact@0.2.0");
    let now = ["activate", run, "demo-compact", "--when", "immediately"];
    says(&rubric(&now), 0, "from the next judgment on");
    says(&rubric(&["list", run]), 0, "judges, weight 1");
    // A file in the watched folder: a broken one is refused, a new version takes its place.
    dropped(&dir, "broken.wasm", b"\0asm\x0d\0\x01\0", "rubric_refused");
    dropped(&dir, "demo.wasm", &twin(bundled::DEMO_COMPACT, 8), "rubric_activated");
    says(&rubric(&["rollback", run, "--reason", "it is slow"]), 0, "demo-compact@0.2.0 judges");
    let list = json(&["rubric", "list"], &dir);
    let away: Vec<&str> =
        list.as_array().unwrap().iter().filter_map(|row| row["retired"].as_str()).collect();
    assert_eq!(away, ["it is slow"]);
    assert!(ends_within(&mut child, Duration::from_secs(120)));
    assert!(child.wait().unwrap().success());
    assert_eq!(failed(&dir), 0);
    assert!(judges(&dir).iter().collect::<BTreeSet<_>>().len() >= 2);
    assert!(!dir.join("socket").exists(), "nothing is left over");
}

fn hash(dir: &Path, name: &str) -> String {
    let list = json(&["rubric", "list"], dir);
    let row = list.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap();
    row["rubric"].as_str().unwrap()[..16].to_owned()
}

/// One rubric of several is retired, and what judges is changed only if it is what one thinks.
#[test]
fn a_rubric_is_rolled_back_by_its_name_and_swapped_if_current() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    take_as_written(&dir);
    let run = dir.to_str().unwrap();
    for name in ["pairwise", "checklist"] {
        says(&rubric(&["install", run, name]), 0, "installed");
    }
    let [demo, pairwise, checklist] =
        ["demo-compact", "pairwise", "checklist"].map(|name| hash(&dir, name));
    let over = |hashes: &str, code, said: &str| {
        let wanted = ["activate", run, "pairwise", "checklist:math", "--if-current", hashes];
        says(&rubric(&wanted), code, said);
    };
    over("abc", 2, "too short");
    over(&pairwise, 2, "GRADUS0512 what judges is not");
    over(&format!("{demo},{pairwise}"), 2, "any more but demo-compact@0.2.0");
    over(&demo, 0, "pairwise@0.2.0, checklist@0.2.0:math judges");
    over(&demo, 2, "any more but pairwise@0.2.0");
    let both = format!("{checklist},{pairwise}");
    over(&both, 0, "judges from the next iteration on");
    says(&rubric(&["rollback", run, "unheard-of"]), 2, "GRADUS0508");
    says(&rubric(&["rollback", run, "demo-compact"]), 2, "GRADUS0511 demo-compact@0.2.0");
    // One of two leaves the other; without the other there is no panel, so the one before comes.
    says(&rubric(&["rollback", run, "checklist", "--reason", "slow"]), 0, "pairwise@0.2.0 judges");
    says(&rubric(&["rollback", run, "checklist"]), 2, "GRADUS0511 checklist@0.2.0");
    says(&rubric(&["rollback", run, &pairwise]), 0, "demo-compact@0.2.0 judges");
    says(&rubric(&["rollback", run, "demo-compact"]), 2, "nobody judges");
    let list = json(&["rubric", "list"], &dir);
    let retired: BTreeSet<&str> =
        list.as_array().unwrap().iter().filter_map(|row| row["retired"].as_str()).collect();
    assert_eq!(retired, BTreeSet::from(["slow", "a person said so"]));
    // Two new ones leave together.
    let two = ["activate", run, "pairwise", "checklist:math", "--again"];
    says(&rubric(&two), 0, "judges");
    says(&rubric(&["rollback", run, "--reason", "both"]), 0, "demo-compact@0.2.0 judges");
    let list = json(&["rubric", "list"], &dir);
    let both = list.as_array().unwrap().iter().filter(|row| row["retired"] == "both").count();
    assert_eq!(both, 2);
}

/// Of many who change what they think is current, one does.
#[test]
fn only_one_changes_what_is_current() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    let runtime = Runtime::builder(&dir).iterations(3).start_blocking().unwrap();
    let rubrics = runtime.handle().rubrics().unwrap();
    let ids: Vec<RubricId> = (1..=8)
        .map(|mark| rubrics.install(&twin(bundled::DEMO_COMPACT, mark)).unwrap().rubric)
        .collect();
    for round in 0..5 {
        let current =
            runtime.handle().view().unwrap().panel.clone().unwrap().members()[0].rubric.0.clone();
        let changed: Vec<bool> = std::thread::scope(|scope| {
            let ask = |id: &RubricId| {
                let (rubrics, wanted) = (rubrics.clone(), [RubricWanted::plain(id.0.clone())]);
                let current = current.clone();
                scope.spawn(move || {
                    let (when, again) = (When::NextIteration, Again::Refuse);
                    rubrics.activate_if_current(&wanted, when, again, &current).is_ok()
                })
            };
            let others = ids.iter().filter(|id| id.0 != current);
            let all: Vec<_> = others.map(ask).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(changed.iter().filter(|done| **done).count(), 1, "{round}: {changed:?}");
    }
    runtime.shutdown_blocking();
    assert_eq!(seen(&dir, "rubric_activated"), 6);
}

/// A guest that calls itself hostile, in this version (of three letters).
fn versioned(version: &str) -> Vec<u8> {
    let mut bytes = Guest::new().component();
    // In its data, with its length before it.
    let places: Vec<usize> =
        (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"\x031.0")).collect();
    let [at] = places.as_slice() else { panic!("{places:?}") };
    bytes[at + 1..at + 4].copy_from_slice(version.as_bytes());
    bytes
}

#[test]
fn the_watched_folder_never_goes_back_in_version() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    let runtime = Runtime::builder(&dir).iterations(3).start_blocking().unwrap();
    let rubrics = runtime.handle().rubrics().unwrap();
    let first = rubrics.install(&versioned("1.4")).unwrap();
    assert_eq!(first.version, "1.4");
    rubrics
        .activate(&[RubricWanted::plain("hostile")], When::NextIteration, Again::Refuse)
        .unwrap();
    let on_panel =
        || runtime.handle().view().unwrap().panel.clone().unwrap().members()[0].rubric.clone();
    let reason = || {
        let mut all = records(&dir).into_iter().rev().filter_map(|record| match record.event {
            Event::RubricRefused { reason, .. } => Some(reason),
            _ => None,
        });
        all.next().unwrap()
    };
    dropped(&dir, "old.wasm", &versioned("0.9"), "rubric_refused");
    let said = reason();
    assert!(said.contains("0.9 is older than 1.4 that judges"), "{said}");
    assert!(said.contains("Activate it by its hash"), "{said}");
    dropped(&dir, "odd.wasm", &versioned("new"), "rubric_refused");
    assert!(reason().contains("cannot be told"), "{}", reason());
    assert_eq!(on_panel(), first.rubric);
    assert_eq!(runtime.handle().view().unwrap().rubrics.installed.len(), 4, "they are installed");
    dropped(&dir, "same.wasm", &twin(&versioned("1.4"), 1), "rubric_activated");
    let same = on_panel();
    assert_ne!(same, first.rubric);
    dropped(&dir, "next.wasm", &versioned("1.5"), "rubric_activated");
    assert_ne!(on_panel(), same);
    // By hand it may.
    rubrics
        .activate(&[RubricWanted::plain("hostile@0.9")], When::NextIteration, Again::Refuse)
        .unwrap();
    runtime.shutdown_blocking();
}

/// Nobody works on the run: whoever asks does it.
#[test]
fn a_resting_run_takes_rubrics_too() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    take_as_written(&dir);
    let run = dir.to_str().unwrap();
    says(&rubric(&["install", run, "pairwise"]), 0, "installed pairwise@0.2.0");
    says(&rubric(&["install", run, "pairwise"]), 0, "was installed before");
    says(&rubric(&["install", run, "verifier"]), 0, "installed verifier");
    says(&rubric(&["activate", run, "verifier:math"]), 2, "activate one rubric without tags");
    says(&rubric(&["activate", run, "demo-compact*two"]), 2, "is no weight");
    let several = ["activate", run, "demo-compact*2", "pairwise", "verifier:math,code"];
    says(&rubric(&several), 0, "demo-compact@0.2.0*2, pairwise@0.2.0, verifier@0.2.0:math,code");
    let mut child = gradus().args(["run", "--iterations", "4"]).arg(&dir).spawn().unwrap();
    assert!(child.wait().unwrap().success());
    let last = judgments(&dir).pop().unwrap();
    let names: Vec<&str> = last.1.iter().map(|rubric| rubric.name.as_str()).collect();
    assert_eq!(names, ["demo-compact", "pairwise"]);
    assert!(last.0.iter().any(|j| j.seen.len() == 2 && j.scores.len() <= 2));
}

/// Killed between any two of these steps, the run knows what it was told.
#[test]
fn a_kill_inside_a_swap_loses_nothing() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("run");
    let sampled =
        |record: &gradus::log::Recorded| matches!(record.event, Event::CompletionsSampled { .. });
    let mut child = demo(&dir).spawn().unwrap();
    assert!(until_last(&dir, &mut child, sampled));
    let file = root.path().join("b.wasm");
    std::fs::write(&file, twin(bundled::DEMO_COMPACT, 3)).unwrap();
    let run = dir.to_str().unwrap().to_owned();
    for delay in [0, 5, 20, 60, 150] {
        let arguments = ["rubric", "install", &run, file.to_str().unwrap()];
        let mut asks = gradus().args(arguments).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(ends_within(&mut asks, Duration::from_secs(10)), "it does not wait for a dead one");
        child = demo(&dir).spawn().unwrap();
        assert!(until_last(&dir, &mut child, |_| true));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    says(&rubric(&["install", &run, file.to_str().unwrap()]), 0, "demo-compact@0.2.0");
    let now = ["activate", &run, "demo-compact", "--when", "immediately"];
    says(&rubric(&now), 0, "from the next judgment on");
    assert!(demo(&dir).status().unwrap().success());
    assert_eq!(seen(&dir, "rubric_installed"), 2, "once, however often it was asked for");
    let told = json(&["rubric", "list"], &dir);
    let on_panel = told.as_array().unwrap().iter().find(|row| !row["weight"].is_null()).unwrap();
    assert_eq!(judges(&dir).last().unwrap().0, on_panel["rubric"].as_str().unwrap());
}
