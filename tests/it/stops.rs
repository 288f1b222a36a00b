//! Signals in every stage: the process ends within two seconds, and the run ends as if nobody had
//! asked.

use crate::dice::{Dice, with_seeds};
use crate::runs::{alone, blobs, demo, digest, ends_within, until_last, whole};
use gradus::domain::Event;
use gradus::log::Recorded;
use gradus::runtime::Folder;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(2);

type Moment = (&'static str, fn(&Recorded) -> bool, &'static [&'static str]);

/// What is being done when a record of this kind is the last, and the signals that come then.
const MOMENTS: [Moment; 9] = [
    ("loading", |_| true, &["TERM"]),
    ("training M1", |r| matches!(r.event, Event::IterationStarted { .. }), &["TERM"]),
    ("evaluating M1", |r| trained(&r.event), &["INT"]),
    ("sampling", |r| matches!(r.event, Event::CompletionsSampled { .. }), &["TERM"]),
    ("judging", |r| matches!(r.event, Event::JudgmentsRecorded { .. }), &["HUP"]),
    ("scoring by the reference", |r| matches!(r.event, Event::PairsSealed { .. }), &["TERM"]),
    ("training M2", |r| matches!(r.event, Event::ReferenceScored { .. }), &["TERM", "TERM"]),
    ("writing a checkpoint", |r| matches!(r.event, Event::CheckpointSaved { .. }), &["TERM"]),
    ("evaluating M2", |r| trained(&r.event), &["TERM"]),
];

fn trained(event: &Event) -> bool {
    matches!(event, Event::CheckpointSaved { step, steps_total, .. } if step == steps_total)
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
}

/// One run through all moments; how long each took to end.
fn stopped_run(dir: &Path, dice: &mut Dice, command: impl Fn(&Path) -> Command) -> Vec<Duration> {
    let mut took = Vec::new();
    for (name, moment, signals) in MOMENTS {
        let mut child = command(dir).spawn().unwrap();
        assert!(until_last(dir, &mut child, moment), "{name}: the run ended before");
        // The record may be of the life before: a process that has not come as far as to listen
        // for signals dies of them.
        while Folder::at(dir).holder() != Some(child.id().to_string()) {
            assert!(child.try_wait().unwrap().is_none(), "{name}: the run ended before");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(dice.below(60)));
        let asked = Instant::now();
        signals.iter().for_each(|name| signal(&child, name));
        let ended = ends_within(&mut child, PATIENCE);
        took.push(asked.elapsed());
        println!("{name}: {:?}", asked.elapsed());
        if !ended {
            child.kill().unwrap();
        }
        let code = child.wait().unwrap().code();
        assert!(ended, "{name}: no end within {PATIENCE:?}");
        // 143: the second signal does not wait.
        assert!(code == Some(130) || (signals.len() > 1 && code == Some(143)), "{name}: {code:?}");
    }
    took
}

#[test]
fn a_signal_in_any_stage_ends_it_soon_and_changes_nothing() {
    let slowest = Mutex::new(Duration::ZERO);
    with_seeds(1, |seed| {
        let _alone = alone();
        let root = tempfile::tempdir().unwrap();
        let stopped = root.path().join("stopped");
        let took = stopped_run(&stopped, &mut Dice(seed), demo);
        let mut slowest = slowest.lock().unwrap();
        *slowest = took.into_iter().fold(*slowest, Duration::max);
        assert!(demo(&stopped).status().unwrap().success());
        assert_eq!(whole().digest, digest(&stopped));
        assert_eq!(blobs(&whole().dir()), blobs(&stopped));
    });
    println!("the slowest took {:?}", slowest.into_inner().unwrap());
}
