//! A machine that fails under a run: folders that are away, handles that are used up, another folder
//! in the place of the run's. It waits and says for what, or it stops and says why; no attempt is used
//! up, and what it comes to is what it would have been. And what an iteration that failed, or a setting
//! that cannot work, ends with.

use crate::runs::{alone, copied, demo, digest, ends_within, json, records, until_last, whole};
use gradus::domain::Event;
use gradus::domain::event::IterationKind;
use gradus::lm::cancel::Cancel;
use gradus::runtime::WaitOutcome;
use gradus::{Goal, Runtime};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

/// Longer than a task that fails would have been given up.
const LONG: Duration = Duration::from_secs(4);

fn aside(dir: &Path) -> PathBuf {
    dir.with_extension("aside")
}

fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).unwrap();
}

fn handles(child: &Child, most: u32) {
    let pid = child.id().to_string();
    let limit = format!("--nofile={most}:1024");
    let done = Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap();
    assert!(done.success());
}

/// What is waited for, as `gradus status` says it.
fn waited_for(dir: &Path) -> Option<String> {
    let status = json(&["status"], dir);
    let stages = status["stages"].as_object()?.values();
    let stage = stages.filter_map(|stage| stage["waiting"].as_str()).next();
    stage.or_else(|| status["log"]["reason"].as_str()).map(str::to_owned)
}

/// Looks until somebody waits; for what.
fn waits(dir: &Path, child: &mut Child) -> String {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(reason) = waited_for(dir) {
            return reason;
        }
        assert!(child.try_wait().unwrap().is_none(), "the process ended");
        assert!(Instant::now() < until, "it never said that it waits");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A way in which a machine fails.
struct Fault {
    name: &'static str,
    fails: fn(&Path, &Child),
    mends: fn(&Path, &Child),
    /// Where the run's folder lies meanwhile.
    lies: fn(&Path) -> PathBuf,
    says: &'static str,
}

const FAULTS: [Fault; 3] = [
    Fault {
        name: "blobs/ is away",
        fails: |dir, _| rename(&dir.join("blobs"), &aside(dir)),
        mends: |dir, _| rename(&aside(dir), &dir.join("blobs")),
        lies: Path::to_owned,
        says: "blobs is away",
    },
    Fault {
        name: "no file handle is left",
        fails: |_, child| handles(child, 4),
        mends: |_, child| handles(child, 1024),
        lies: Path::to_owned,
        says: "Too many open files",
    },
    Fault {
        name: "the run's folder is moved",
        fails: |dir, _| rename(dir, &aside(dir)),
        mends: |dir, _| rename(&aside(dir), dir),
        lies: aside,
        says: "is away",
    },
];

fn no_task_failed(dir: &Path) {
    let failed: Vec<_> = records(dir)
        .into_iter()
        .filter(|r| matches!(r.event, Event::TaskFailed { .. } | Event::StageHalted { .. }))
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn a_machine_that_fails_is_waited_for_and_changes_nothing() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    for (n, fault) in FAULTS.iter().enumerate() {
        let dir = root.path().join(n.to_string());
        let mut child = demo(&dir).spawn().unwrap();
        // In the supervised iteration, and again among the pairs of the next.
        for moment in
            [(|r| matches!(r, Event::IterationStarted { .. })) as fn(&Event) -> bool, |r| {
                matches!(r, Event::CompletionsSampled { .. })
            }]
        {
            assert!(until_last(&dir, &mut child, |r| moment(&r.event)), "{}", fault.name);
            (fault.fails)(&dir, &child);
            let reason = waits(&(fault.lies)(&dir), &mut child);
            assert!(reason.contains(fault.says), "{}: {reason}", fault.name);
            std::thread::sleep(LONG);
            assert!(child.try_wait().unwrap().is_none(), "{}: the process ended", fault.name);
            (fault.mends)(&dir, &child);
        }
        assert!(child.wait().unwrap().success(), "{}", fault.name);
        no_task_failed(&dir);
        assert_eq!(whole().digest, digest(&dir), "{}", fault.name);
    }
}

#[test]
fn a_run_that_waits_is_stopped_at_once_and_survives_being_killed() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("run");
    let Fault { fails, mends, .. } = FAULTS[0];
    for signal in ["TERM", "KILL"] {
        let mut child = demo(&dir).spawn().unwrap();
        let began = |event: &Event| matches!(event, Event::IterationStarted { .. });
        let saved = |event: &Event| matches!(event, Event::CheckpointSaved { .. });
        let now = |event: &Event| if signal == "TERM" { began(event) } else { saved(event) };
        assert!(until_last(&dir, &mut child, |r| now(&r.event)));
        fails(&dir, &child);
        waits(&dir, &mut child);
        let pid = child.id().to_string();
        let asked = Instant::now();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap();
        assert!(sent.success() && ends_within(&mut child, Duration::from_secs(1)), "{signal}");
        println!("{signal}: {:?}", asked.elapsed());
        let code = child.wait().unwrap().code();
        assert_eq!(code, if signal == "TERM" { Some(130) } else { None });
        let early = run(&dir, &[]);
        assert_eq!(early.status.code(), Some(1), "{}", stderr(&early));
        assert!(stderr(&early).contains("blobs is away") && !dir.join("blobs").exists());
        mends(&dir, &child);
    }
    assert!(demo(&dir).status().unwrap().success());
    no_task_failed(&dir);
    assert_eq!(whole().digest, digest(&dir));
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gradus"));
    command.arg("run").arg(dir).args(["--device", "cpu"]).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Nothing of the run goes into a folder that somebody puts in the place of its own.
#[test]
fn another_folder_in_the_place_of_the_runs_stops_it() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    let five = ["--iterations", "5"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_gradus"));
    command.arg("run").arg(&dir).args(["--device", "cpu"]).args(five);
    let mut child =
        command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn();
    let child = child.as_mut().unwrap();
    assert!(until_last(&dir, child, |r| matches!(r.event, Event::CompletionsSampled { .. })));
    rename(&dir, &aside(&dir));
    std::fs::create_dir_all(dir.join("blobs")).unwrap();
    assert!(ends_within(child, Duration::from_secs(20)));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("but another") && said.contains("hint: go on: gradus run"), "{said}");
    let left: Vec<_> = std::fs::read_dir(dir.join("blobs")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!dir.join("log").exists() && !dir.join("status.json").exists());
    std::fs::remove_dir_all(&dir).unwrap();
    rename(&aside(&dir), &dir);
    assert!(run(&dir, &five).status.success());
    no_task_failed(&dir);
    let calm = copied(&whole().dir(), &root.path().join("calm"));
    assert!(run(&calm, &five).status.success());
    assert_eq!(digest(&calm), digest(&dir));
}

/// A run on the demo's base with seed data and prompts.
fn laid_out(root: &Path, model: &Path) -> (PathBuf, Output) {
    let (dir, prompts, ift) = (root.join("run"), root.join("prompts.txt"), root.join("ift.jsonl"));
    std::fs::write(&prompts, "add 2 and 3 .\nadd 4 and 1 .\nadd 2 and 2 .\n").unwrap();
    let row =
        |n: u32| format!("{{\"prompt\": \"add {n} and 1 .\", \"completion\": \"{}\"}}\n", n + 1);
    std::fs::write(&ift, (0..8).map(row).collect::<String>()).unwrap();
    let mut init = Command::new(env!("CARGO_BIN_EXE_gradus"));
    init.arg("init").arg(&dir).arg("--model").arg(model).arg("--prompts").arg(&prompts);
    let out = init.arg("--ift").arg(&ift).output().unwrap();
    (dir, out)
}

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-base")
}

/// A supervised iteration in which no step can be taken.
const DIVERGES: &str = "iterations: 3\ntrain:\n  segment_steps: 2\n  sft:\n    train_batch_size: 2\n    \
                        learning_rate: 1.0e+300\n";

fn kinds(dir: &Path) -> Vec<IterationKind> {
    let started = records(dir).into_iter().filter_map(|record| match record.event {
        Event::IterationStarted { plan, .. } => Some(plan.kind()),
        _ => None,
    });
    started.collect()
}

#[test]
fn a_failed_iteration_stops_the_run_with_its_reason_unless_it_is_to_go_on() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let (dir, out) = laid_out(root.path(), &base());
    assert!(out.status.success(), "{}", stderr(&out));
    let yaml = dir.join("gradus.yaml");
    std::fs::write(&yaml, DIVERGES).unwrap();
    for iteration in 1..=2 {
        let out = run(&dir, &[]);
        assert_eq!(out.status.code(), Some(1), "{}", stderr(&out));
        let said = stderr(&out);
        for part in [
            format!(
                "iteration {iteration} failed: GRADUS0303 training met numbers that are not finite"
            ),
            "on_failure: stop".to_owned(),
            "Lower the learning rate".to_owned(),
            format!("go on with: gradus run {}", dir.display()),
        ] {
            assert!(said.contains(&part), "no {part:?} in {said}");
        }
        let idle = json(&["status"], &dir);
        let stopped = idle["stopped"].as_str().unwrap_or_default();
        assert!(stopped.contains(&format!("iteration {iteration} failed")), "{idle}");
    }
    // A host that waits for it is told the same.
    let runtime = Runtime::builder(&dir).start_blocking().unwrap();
    let outcome = runtime.wait_blocking(Goal::Iterations, &Cancel::default(), |_| {}).unwrap();
    assert!(
        matches!(&outcome, WaitOutcome::Failed(failed) if failed.iteration.0 == 2),
        "{outcome:?}"
    );
    runtime.shutdown_blocking();
    let goes_on =
        format!("on_failure: continue\n{DIVERGES}").replace("iterations: 3", "iterations: 5");
    std::fs::write(&yaml, goes_on).unwrap();
    let out = run(&dir, &[]);
    assert_eq!(out.status.code(), Some(1), "{}", stderr(&out));
    let said = stderr(&out);
    assert!(said.contains("not all were done: iteration 3 failed"), "{said}");
    assert!(said.contains("iteration 5 failed") && said.contains("--iterations 6"), "{said}");
    // There is nothing left to do, and it was not done.
    assert_eq!(run(&dir, &[]).status.code(), Some(1));
    assert_eq!(kinds(&dir), [IterationKind::Sft; 5], "no preferences on what was never taught");
    // Taught at last.
    std::fs::write(&yaml, DIVERGES.replace("1.0e+300", "1.0e-4")).unwrap();
    let out = run(&dir, &["--iterations", "7"]);
    assert!(out.status.success(), "{}", stderr(&out));
    assert_eq!(kinds(&dir)[5..], [IterationKind::Sft, IterationKind::Dpo]);
}

/// What a task said that failed again and again is said at the end.
#[test]
fn the_end_says_what_the_task_said() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let (dir, out) = laid_out(root.path(), &base());
    assert!(out.status.success(), "{}", stderr(&out));
    let seed = records(&dir).into_iter().find_map(|record| match record.event {
        Event::SeedDataAdmitted { blob, .. } => Some(blob),
        _ => None,
    });
    let seed = seed.unwrap();
    let path = dir.join("blobs").join(&seed.as_str()[..2]).join(seed.as_str());
    std::fs::write(&path, "rot").unwrap();
    let out = run(&dir, &[]);
    assert_eq!(out.status.code(), Some(1));
    let said = stderr(&out);
    let failed = "iteration 1 failed: GRADUS0402 a task of the trainer failed 3 times";
    assert!(said.contains(failed), "{said}");
    assert_eq!(said.matches("hint: all attempts").count(), 1, "{said}");
    assert!(said.contains(&format!("{} is damaged", path.display())), "{said}");
}

/// A copy of the demo's base with a file changed.
fn broken(root: &Path, file: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let model = copied(&base(), &root.join(format!("model-{file}")));
    let path = model.join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    model
}

#[test]
fn what_cannot_work_is_refused_before_anything_begins() {
    let root = tempfile::tempdir().unwrap();
    // The last number of the file is none, in 32 and in 16 bits.
    let nan = broken(root.path(), "model.safetensors", |bytes| {
        let end = bytes.len() - 4;
        bytes[end..].fill(0xff);
    });
    let flat = broken(root.path(), "config.json", |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        let line = text.lines().find(|line| line.contains("\"rope_theta\"")).unwrap().to_owned();
        *bytes = text.replace(&line, "  \"rope_theta\": 0.0,").into_bytes();
    });
    for (model, said) in [(nan, "are not finite"), (flat, "rope_theta is 0")] {
        let (dir, out) = laid_out(root.path(), &model);
        assert!(!out.status.success() && stderr(&out).contains(said), "{}", stderr(&out));
        assert!(!dir.exists(), "a refused init leaves nothing behind");
    }
    let (dir, out) = laid_out(root.path(), &base());
    assert!(out.status.success(), "{}", stderr(&out));
    for (settings, said) in [
        ("", "gradus.yaml is empty"),
        ("# nothing\n", "gradus log show --json --kind run_started"),
        (
            "train:\n  use_peft: true\n  lora_target_modules: [qqq]\n",
            "gradus.yaml:3 train.lora_target_modules is [\"qqq\"]; allowed: names of layers that this \
             model has, which qqq is not: down_proj,",
        ),
        ("pairs:\n  min_gap: .nan\n", "gradus.yaml:2 pairs.min_gap is NaN"),
        (
            "sampling:\n  candidates: 4000000000\n",
            "gradus.yaml:2 sampling.candidates is 4000000000",
        ),
    ] {
        std::fs::write(dir.join("gradus.yaml"), settings).unwrap();
        let before = records(&dir).len();
        for verb in ["run", "doctor"] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_gradus"));
            let out = command.arg(verb).arg(&dir).output().unwrap();
            assert_eq!(out.status.code(), Some(2), "{verb}: {}", stderr(&out));
            assert!(stderr(&out).contains(said), "{verb}: {}", stderr(&out));
        }
        assert_eq!(records(&dir).len(), before);
    }
}
