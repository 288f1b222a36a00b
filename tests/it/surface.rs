//! Everything that can be asked of a run, through each of its doors: a handle in the process, and the
//! socket from another one.

use crate::runs::{alone, changed_run, digest, gradus, json, records};
use gradus::log::Log;
use gradus::prelude::*;
use gradus::runtime::socket;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

fn given(text: &str) -> Prompt {
    Prompt::user(text, PromptOrigin::Given)
}

/// Waits until the run is at something, and how long that took.
fn until(run: &Handle, what: &str, is: impl Fn(&Status) -> bool) -> Duration {
    let begun = Instant::now();
    loop {
        let status = run.status_blocking().unwrap();
        if is(&status) {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "never {what}: {status:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_run_waits_for_prompts_at_no_cost_and_a_submit_wakes_it() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = changed_run(&root, |config| {
        config.iterations = 9;
        config.prompts.generate = false;
        config.prompts.wait_for = 3;
    });
    let before = records(&dir).len();
    let runtime = Runtime::builder(&dir).start_blocking().unwrap();
    let run = runtime.handle();
    let waits = |n| Activity::WaitingForPrompts { waiting: n, wanted: 3 };
    let have = run.status_blocking().unwrap().prompts_waiting;
    assert!(have < 3, "the reduced demo leaves {have} prompts");
    let cpu = cpu_of_the_run();
    std::thread::sleep(Duration::from_secs(2));
    let idle = (cpu_of_the_run() - cpu).as_secs_f64() / 2.0;
    assert_eq!(run.status_blocking().unwrap().activity, waits(have));
    assert!(idle < 0.05, "waiting took {:.1} % of a core", idle * 100.0);
    for n in have..3 {
        assert_eq!(run.status_blocking().unwrap().activity, waits(n));
        run.submit_blocking(&[given(&format!("add {n} and 40 ."))]).unwrap();
    }
    until(&run, "at work", |status| status.activity == Activity::Working);
    // It is at work as soon as enough wait; the iteration is opened a moment later.
    let over = run.view().unwrap().finished();
    let opened = || run.view().unwrap().open().is_some() || run.view().unwrap().finished() > over;
    until(&run, "an iteration", |_| opened());
    let doubled = run.submit_blocking(&[given("add 2 and 40 ."), given("add 2 and 40 .")]).unwrap();
    assert_eq!((doubled.admitted.len(), doubled.known.len()), (0, 2));
    runtime.shutdown_blocking();
    let opened = records(&dir).into_iter().skip(before);
    let opened = opened.filter(|r| matches!(r.event, Event::IterationStarted { .. })).count();
    assert_eq!(opened, 1, "an iteration for the prompts that came, and none before");
}

/// Processor time of the run's threads; other tests may share the process.
fn cpu_of_the_run() -> Duration {
    let of_thread = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let ticks = |at: usize| rest.split_whitespace().nth(at)?.parse::<u64>().ok();
        // utime and stime, in hundredths of a second.
        name.starts_with("gradus-").then_some(ticks(11)? + ticks(12)?)
    };
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    Duration::from_millis(10 * tasks.flatten().filter_map(of_thread).sum::<u64>())
}

#[test]
fn without_prompts_a_run_that_shall_not_wait_ends_and_says_so() {
    let root = tempfile::tempdir().unwrap();
    let dir = changed_run(&root, |config| {
        config.iterations = 9;
        config.prompts.generate = false;
    });
    let before = records(&dir).len();
    let out = gradus().args(["run", "--device", "cpu"]).arg(&dir).stderr(Stdio::piped()).output();
    let out = out.unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    if records(&dir).len() == before {
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains("no prompt is left"), "{said}");
    }
    let empty = records(&dir).into_iter().skip(before).filter(|record| {
        matches!(&record.event, Event::PromptsSealed { prompts, .. } if prompts.is_empty())
    });
    assert_eq!(empty.count(), 0);
}

/// The digest of the run after five iterations, its process asked to pause in the middle of each
/// stage and to go on.
#[test]
fn a_pause_comes_within_a_second_and_costs_nothing_that_was_recorded() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = changed_run(&root, |config| config.train.save_steps = 1000);
    let runtime = Runtime::builder(&dir).iterations(4).start_blocking().unwrap();
    let run = runtime.handle();
    let mut cut = 0;
    for stage in ["sampler", "judge", "trainer"] {
        until(&run, stage, |status| status.stages[stage].busy || status.finished >= 4);
        if run.status_blocking().unwrap().finished >= 4 {
            break;
        }
        // In the middle of it.
        std::thread::sleep(Duration::from_millis(60));
        run.pause_blocking().unwrap();
        let took = until(&run, "paused", |status| {
            status.activity == Activity::Paused && status.stages.values().all(|s| !s.busy)
        });
        assert!(took < Duration::from_secs(1), "the {stage} stopped after {took:?}");
        cut += 1;
        run.resume_blocking().unwrap();
    }
    assert!(cut >= 2, "only {cut} stages were met at work");
    let end = runtime.wait_blocking(Goal::Iterations, &Cancel::default(), |_| {}).unwrap();
    assert_eq!(end, WaitOutcome::Reached);
    runtime.shutdown_blocking();
    assert!(records(&dir).iter().all(|r| !matches!(r.event, Event::TaskFailed { .. })));
    // The weights are those of a run that nobody paused, bit for bit.
    let other = tempfile::tempdir().unwrap();
    let twin = changed_run(&other, |config| config.train.save_steps = 1000);
    let runtime = Runtime::builder(&twin).iterations(4).start_blocking().unwrap();
    runtime.wait_blocking(Goal::Iterations, &Cancel::default(), |_| {}).unwrap();
    runtime.shutdown_blocking();
    let last = |dir: &Path| {
        records(dir).into_iter().rev().find_map(|record| match record.event {
            Event::CheckpointSaved { policy, optimizer, .. } => Some((policy, optimizer)),
            _ => None,
        })
    };
    assert_eq!(last(&dir), last(&twin));
}

#[test]
fn a_policy_is_rolled_back_pinned_and_found_by_any_of_its_names() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = changed_run(&root, |_| {});
    let runtime = Runtime::builder(&dir).iterations(0).start_blocking().unwrap();
    let run = runtime.handle();
    let policies = || match run.query_blocking(&Query::Policies).unwrap() {
        Reply::Policies { policies } => policies,
        other => panic!("{other:?}"),
    };
    let all = policies();
    let acts = all.iter().position(|row| row.acts).unwrap();
    let before = all[..acts].iter().rev().find(|row| row.rejected.is_none()).unwrap().clone();
    let back = Command::RollBackPolicy { reason: "worse by hand".into() };
    let Answer::PolicyChosen(choice) = run.command_blocking(back).unwrap() else { panic!() };
    assert_eq!((choice.name.as_str(), choice.pinned), (before.name.as_str(), false));
    assert_eq!(run.policy_blocking().unwrap().policy(), &before.policy);
    let choose = |policy: &str| {
        let (policy, reason) = (policy.to_owned(), "audited".to_owned());
        run.command_blocking(Command::ChoosePolicy { policy, pin: true, reason })
    };
    let newest = &all[acts];
    let hash = newest.policy.id().to_string();
    let Answer::PolicyChosen(choice) = choose(&hash[..8]).unwrap() else { panic!() };
    assert_eq!((choice.name.as_str(), choice.pinned), (newest.name.as_str(), true));
    let Answer::PolicyChosen(again) = choose("latest").unwrap() else { panic!() };
    assert_eq!(again.at, None, "it is so already, and nothing is recorded");
    let unknown = choose("M99").unwrap_err().to_string();
    assert!(unknown.contains("M0") && unknown.contains("latest"), "{unknown}");
    // A pinned policy stays, whatever an iteration comes to.
    run.command_blocking(Command::RaiseIterations { total: 4 }).unwrap();
    runtime.wait_blocking(Goal::Iterations, &Cancel::default(), |_| {}).unwrap();
    let status = run.status_blocking().unwrap();
    assert_eq!((status.finished, status.policy.as_str()), (4, newest.name.as_str()));
    runtime.shutdown_blocking();
    let view = gradus::runtime::fold(&Folder::at(&dir).read_log().unwrap()).unwrap();
    assert_eq!(view.policy.as_ref(), Some(&newest.policy));
    // So it is after a restart.
    let said = json(&["status"], &dir);
    assert_eq!(said["state"], "idle", "{said}");
}

#[test]
fn another_policy_chosen_in_the_middle_ends_the_open_iteration() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = changed_run(&root, |_| {});
    let runtime = Runtime::builder(&dir).iterations(5).start_blocking().unwrap();
    let run = runtime.handle();
    until(&run, "judging", |status| status.stages["judge"].busy);
    let choose = Command::ChoosePolicy { policy: "M1".into(), pin: false, reason: "x".into() };
    run.command_blocking(choose).unwrap();
    let took = until(&run, "over", |status| status.finished == 4);
    assert!(took < Duration::from_secs(2), "{took:?}");
    runtime.wait_blocking(Goal::Iterations, &Cancel::default(), |_| {}).unwrap();
    runtime.shutdown_blocking();
    let started: Vec<_> = records(&dir)
        .into_iter()
        .filter_map(|record| match record.event {
            Event::IterationStarted { plan, .. } => Some(plan.policy),
            Event::PolicyChosen { policy, .. } => Some(policy),
            _ => None,
        })
        .collect();
    let [.., chosen, next] = started.as_slice() else { panic!("{started:?}") };
    assert_eq!(chosen, next, "the next iteration begins with what was chosen");
    assert_eq!(Folder::at(&dir).verify_log().unwrap().first_error, None);
}

#[test]
fn a_handle_outlives_its_runtime_and_the_folder_is_free() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = changed_run(&root, |_| {});
    let runtime = Runtime::builder(&dir).iterations(4).start_blocking().unwrap();
    let (run, policy) = (runtime.handle(), runtime.handle().policy_blocking().unwrap());
    let mut log = run.subscribe(Offset(0)).unwrap();
    until(&run, "at work", |status| status.stages.values().any(|stage| stage.busy));
    runtime.shutdown_blocking();
    assert!(matches!(run.status_blocking(), Err(Error::Closed)));
    assert!(matches!(run.submit_blocking(&[given("x")]), Err(Error::Closed)));
    assert!(matches!(run.subscribe(Offset(0)), Err(Error::Closed)));
    assert!(matches!(log.next_blocking(Duration::from_secs(1)), Err(Error::Closed)));
    assert!(!dir.join("socket").exists() && !dir.join("status.json").exists());
    let question = [Message::user("add 1 and 2 .")];
    assert!(!policy.answer_blocking(&question, &policy.settings()).unwrap().text.is_empty());
    // Another one goes on in the same process while handles of the first are still there.
    let second = Runtime::builder(&dir).iterations(0).start_blocking().unwrap();
    assert!(second.handle().status_blocking().is_ok() && run.status_blocking().is_err());
}

#[test]
fn a_subscription_goes_on_over_a_compaction() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = changed_run(&root, |_| {});
    let runtime = Runtime::builder(&dir).iterations(0).start_blocking().unwrap();
    let mut log = runtime.handle().subscribe(Offset(0)).unwrap();
    assert!(matches!(log.next_blocking(Duration::ZERO).unwrap(), Some(Delivered::Record(_))));
    runtime.retain(0).unwrap();
    let (mut gaps, mut last) = (0, Offset(0));
    while let Some(delivered) = log.next_blocking(Duration::ZERO).unwrap() {
        match delivered {
            Delivered::Record(record) => last = record.offset,
            Delivered::Compacted { from, to } => {
                assert!(from < to);
                gaps += 1;
            }
            _ => {}
        }
    }
    assert!(gaps > 0, "nothing was compacted");
    assert_eq!(last.0 + 1, runtime.handle().view().unwrap().next.0);
}

#[test]
fn another_process_asks_over_a_socket_that_is_its_owners_alone() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    // Longer than the address of a socket may be.
    let deep = root.path().join("a-folder-with-a-name-that-is-long".repeat(5));
    std::fs::create_dir(&deep).unwrap();
    let inner = tempfile::tempdir_in(&deep).unwrap();
    let dir = changed_run(&inner, |config| config.prompts.wait_for = 5000);
    std::fs::write(
        dir.join("gradus.yaml"),
        std::fs::read_to_string(dir.join("gradus.yaml")).unwrap(),
    )
    .unwrap();
    let mut child = gradus();
    let mut child =
        child.args(["run", "--iterations", "9", "--device", "cpu"]).arg(&dir).spawn().unwrap();
    let folder = Folder::at(&dir);
    let begun = Instant::now();
    // Each is made by a thread of its own.
    while !["socket", "status.json"].iter().all(|name| dir.join(name).exists()) {
        assert!(begun.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    let mode = |name: &str| std::fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("socket"), mode("status.json")), (0o600, 0o600));
    let Reply::Status(status) = socket::query(&folder, &Query::Status).unwrap() else { panic!() };
    assert_eq!(status.pid, child.id());
    let prompts = vec![given("add 3 and 20 .")];
    let add = Command::AddPrompts { prompts };
    let Answer::PromptsAdded(added) = socket::command(&folder, add).unwrap() else { panic!() };
    assert_eq!(added.admitted.len(), 1);
    let wrong = Command::RaiseIterations { total: 1 };
    let refused = socket::command(&folder, wrong).unwrap_err();
    assert!(refused.to_string().contains("already"), "{refused}");
    nonsense(&dir);
    assert!(matches!(socket::command(&folder, Command::Stop), Ok(Answer::Stopping)));
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!dir.join("socket").exists());
    // Nobody is at work: who asks does it alone.
    let Reply::Status(status) = socket::query(&folder, &Query::Status).unwrap() else { panic!() };
    assert_eq!(status.pid, std::process::id());
    assert!(socket::command(&folder, Command::Stop).is_err(), "there is nobody to stop");
    assert!(matches!(socket::command(&folder, Command::Pause), Ok(Answer::Recorded { .. })));
}

/// Whatever comes in is answered in words, and the process goes on.
fn nonsense(dir: &Path) {
    let place = std::fs::File::open(dir).unwrap();
    let address = {
        use std::os::fd::AsRawFd;
        format!("/proc/self/fd/{}/socket", place.as_raw_fd())
    };
    let ask = |bytes: &[u8]| {
        let mut connection = UnixStream::connect(&address).unwrap();
        connection.write_all(bytes).unwrap();
        connection.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = String::new();
        connection.read_to_string(&mut said).unwrap();
        said
    };
    for bytes in [
        &b"\n"[..],
        b"{}\n",
        b"no json\n",
        b"\xff\xfe\n",
        br#"{"version":"9","command":"fly"}
"#,
        br#"{"version":"9","command":"install_rubric","component":"AGFzbQ=="}
"#,
        b"without an end",
        b"",
    ] {
        let said = ask(bytes);
        assert!(said.contains("refused") && said.contains("message"), "{bytes:?}: {said:?}");
    }
}

#[test]
fn a_host_whose_callbacks_panic_loses_no_task() {
    struct Panics;
    impl gradus::stage::Gauge for Panics {
        fn progress(&self, _stage: &'static str, _done: u64, _total: u64) {
            panic!("no screen");
        }
    }
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = changed_run(&root, |_| {});
    let builder = Runtime::builder(&dir).iterations(4).gauge(std::sync::Arc::new(Panics));
    let runtime = builder.start_blocking().unwrap();
    let end = runtime.wait_blocking(Goal::Iterations, &Cancel::default(), |_| panic!("no tick"));
    assert_eq!(end.unwrap(), WaitOutcome::Reached);
    runtime.shutdown_blocking();
    assert!(records(&dir).iter().all(|r| !matches!(r.event, Event::TaskFailed { .. })));
    let _ = digest(&dir);
    assert_eq!(Folder::at(&dir).read_log().unwrap().tail(), Offset(records(&dir).len() as u64));
}
