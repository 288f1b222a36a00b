//! Rubrics swapped under a run that works: by its host a thousand times, by another process, by a
//! file that appears. No judgment fails or mixes two, and each names its rubric.

use crate::runs::{
    alone, copied, demo, ends_within, gradus, json, on, records, twin, until_last, whole,
};
use gradus::domain::{Event, Judgment, RubricId, RubricName, When};
use gradus::lm::cancel::Cancel;
use gradus::rubric::bundled;
use gradus::runtime::rubrics::{Again, Wanted};
use gradus::runtime::{Goal, Outcome, Runtime};
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
    let runtime = Runtime::builder(&dir).iterations(6).start().unwrap();
    let rubrics = runtime.handle().rubrics().clone();
    let ids =
        [1, 2].map(|mark| rubrics.install(&twin(bundled::DEMO_COMPACT, mark)).unwrap().rubric);
    let swap = std::thread::spawn(move || {
        let mut took = Vec::new();
        for id in ids.iter().cycle().take(1000) {
            let begun = Instant::now();
            let wanted = [Wanted::plain(id.0.clone())];
            rubrics.activate(&wanted, When::Immediately, Again::Refuse).unwrap();
            took.push(begun.elapsed());
            std::thread::sleep(Duration::from_millis(10));
        }
        took.sort();
        (took[500], took[990], took[999])
    });
    let end = runtime.wait(Goal::Iterations, &Cancel::default(), |_| {}).unwrap();
    assert_eq!(end, Outcome::Reached);
    println!("a swap took (median, 99 of 100, slowest) {:?}", swap.join().unwrap());
    runtime.shutdown();
    let judges = judges(&dir);
    let later: Vec<&RubricId> = judges.iter().skip(before).collect();
    let swaps = later.windows(2).filter(|pair| pair[0] != pair[1]).count();
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
    says(&rubric(&["rollback", run]), 2, "no other rubric judged before");
    says(&rubric(&["install", run, &better]), 0, "installed demo-compact@0.2.0");
    let now = ["activate", run, "demo-compact", "--when", "immediately"];
    says(&rubric(&now), 0, "from the next judgment on");
    says(&rubric(&["list", run]), 0, "judges, weight 1");
    // A file in the watched folder: a broken one is refused, a new version takes its seat.
    dropped(&dir, "broken.wasm", b"\0asm\x0d\0\x01\0", "rubric_refused");
    dropped(&dir, "demo.wasm", &twin(bundled::DEMO_COMPACT, 8), "rubric_activated");
    says(&rubric(&["rollback", run, "--reason", "it is slow"]), 0, "demo-compact@0.2.0 judges");
    let list = json(&["rubric", "list"], &dir);
    let away: Vec<&str> =
        list.as_array().unwrap().iter().filter_map(|row| row["put_away"].as_str()).collect();
    assert_eq!(away, ["it is slow"]);
    assert!(ends_within(&mut child, Duration::from_secs(120)));
    assert!(child.wait().unwrap().success());
    assert_eq!(failed(&dir), 0);
    assert!(judges(&dir).iter().collect::<BTreeSet<_>>().len() >= 2);
    assert!(std::fs::read_dir(dir.join("inbox")).unwrap().next().is_none(), "nothing is left over");
}

/// Nobody works on the run: whoever asks does it.
#[test]
fn a_resting_run_takes_rubrics_too() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
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
    let seated = told.as_array().unwrap().iter().find(|row| !row["weight"].is_null()).unwrap();
    assert_eq!(judges(&dir).last().unwrap().0, seated["rubric"].as_str().unwrap());
}
