//! What it costs a run that has much behind it: pools of several sizes and a thousand iterations that
//! are over. Each pool is laid out by `gradus init`, and then a runtime is started on it that has
//! nothing to do.
//!
//! ```text
//! cargo bench --bench scale [-- POOL...]
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that stops has failed"
)]

use gradus::config::Config;
use gradus::domain::event::IterationOutcome;
use gradus::domain::{Event, Iteration, Offset, Prompt, PromptId, PromptOrigin, SkipReason};
use gradus::log::{Batch, Log, Recorded};
use gradus::runtime::{Folder, Handle, Runtime, fold};
use gradus::stage::Stage;
use gradus::stage::conductor::Conductor;
use gradus::view::RunView;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Prompts of a pool.
const POOLS: [usize; 3] = [10_000, 100_000, 1_000_000];
/// Iterations that are over.
const PAST: u32 = 1000;
/// Prompts that each of them has answered.
const ANSWERED: usize = 4;
/// How often each thing is done.
const TIMES: usize = 400;
/// Prompts that are submitted at once.
const MANY: usize = 100_000;
/// How long a runtime is watched that has nothing to do.
const IDLE: Duration = Duration::from_secs(10);

const WORDS: [&str; 16] = [
    "river", "lantern", "copper", "meadow", "signal", "harbour", "violin", "winter", "ladder",
    "orchard", "pepper", "granite", "compass", "feather", "thunder", "basket",
];

/// Letters that a number has and no other one, four for 16 bits, stirred so that neighbours differ.
fn stirred(n: usize) -> String {
    let mixed = (n as u32).wrapping_mul(0x9e37_79b1);
    (0..8).map(|at| char::from(b'a' + ((mixed >> (4 * at)) % 16) as u8)).collect()
}

/// A prompt of about 90 characters, each another one, and no two nearly the same: what is nearly a
/// held-out prompt is not trained on.
fn text(n: usize) -> String {
    let name = |part: usize| stirred(n * 8 + part);
    let (a, b, c, d, e) = (name(0), name(1), name(2), name(3), name(4));
    format!("Describe {a} and {b}, how {c} came to {d}, what {} {e} was.", WORDS[n % WORDS.len()])
}

/// A prompt that is in no pool, nor nearly.
fn another(n: usize) -> Prompt {
    let word = |at: usize| WORDS[(n >> (4 * at)) % WORDS.len()];
    let letters = |n: usize| -> String {
        (0..4).map(|at| char::from(b'a' + ((n >> (4 * at)) % 16) as u8)).collect()
    };
    let (one, two) = (letters(n), letters(n.wrapping_mul(31)));
    let text = format!("Who is {one}? Who is {two}? Tell of both, of {} and {}.", word(4), word(1));
    Prompt::user(text, PromptOrigin::Given)
}

/// Lays out a run: seconds, and the most memory that the process had, MiB.
fn init(root: &Path, dir: &Path, pool: usize) -> (f64, u64) {
    let file = root.join("prompts.txt");
    let mut out = std::io::BufWriter::new(std::fs::File::create(&file).unwrap());
    (0..pool).for_each(|n| writeln!(out, "{}", text(n)).unwrap());
    drop(out);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-base");
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_gradus"))
        .args(["init", "--preset", "tiny", "--rubric", "demo-compact", "--device", "cpu"])
        .arg("--model")
        .arg(model)
        .arg("--prompts")
        .arg(&file)
        .arg(dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (process, mut most) = (child.id().to_string(), 0);
    loop {
        most = most.max(mib(&process, "VmHWM:"));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return (begun.elapsed().as_secs_f64(), most);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A figure of a process's `status`, MiB; 0 of one that is over.
fn mib(process: &str, figure: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(figure)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Processor time of this process, in hundredths of a second.
fn processor_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, after_the_name) = stat.rsplit_once(')').unwrap();
    let figures: Vec<&str> = after_the_name.split_whitespace().collect();
    figures[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// Writes iterations that answered a few prompts each and gave nothing.
fn past(folder: &Folder, config: &Config) {
    let log = folder.open_log().unwrap();
    let mut view = fold(log.as_ref()).unwrap();
    view.forget_finished();
    let conductor = Conductor::new(Arc::new(Config { iterations: 2 * PAST, ..config.clone() }));
    for n in 1..=PAST {
        let (_, mut events) = conductor.next(&view).expect("an iteration is opened");
        let iteration = Iteration(n);
        let taken = view.unused().take(ANSWERED).map(|(id, _)| id.clone());
        let prompts: Vec<PromptId> = taken.collect();
        let skipped = prompts.iter().map(|prompt| Event::PairSkipped {
            iteration,
            prompt: prompt.clone(),
            reason: SkipReason::Tie,
        });
        let skipped: Vec<Event> = skipped.collect();
        events.push(Event::PromptsSealed { iteration, prompts, left: 0 });
        events.extend(skipped);
        let outcome = IterationOutcome::NoSignal { reason: "a bench".to_owned() };
        events.push(Event::IterationFinished { iteration, outcome });
        log.append(Batch { key: None, events, cursor: None }).unwrap();
        while view.follow(log.as_ref(), 512, |_| {}).unwrap() > 0 {}
    }
}

fn median(mut took: Vec<Duration>) -> f64 {
    took.sort();
    took[took.len() / 2].as_secs_f64() * 1e6
}

fn timed(mut act: impl FnMut(usize)) -> f64 {
    median(
        (0..TIMES)
            .map(|n| {
                let begun = Instant::now();
                act(n);
                begun.elapsed()
            })
            .collect(),
    )
}

/// Microseconds: an iteration is opened, its prompts are sealed.
fn decisions(view: &RunView, config: &Config) -> (f64, f64) {
    let conductor = Conductor::new(Arc::new(Config { iterations: 2 * PAST, ..config.clone() }));
    let opened = timed(|_| drop(black_box(conductor.next(view).unwrap())));
    let mut open = view.clone();
    for event in conductor.next(view).unwrap().1 {
        open.apply(&Recorded { offset: open.next, at_ms: 0, key: None, event });
    }
    let sealed = timed(|_| {
        let (_, events) = conductor.next(&open).unwrap();
        assert!(matches!(events.first(), Some(Event::PromptsSealed { .. })));
        black_box(events);
    });
    (opened, sealed)
}

/// Microseconds to fold a prompt that comes in while somebody holds what was known before it.
fn folded(view: &RunView) -> f64 {
    let mut view = view.clone();
    timed(|n| {
        let event = Event::PromptAdmitted { prompt: another(n) };
        let record = Recorded { offset: view.next, at_ms: 0, key: None, event };
        let held = view.clone();
        view.apply(&record);
        black_box(held);
    })
}

fn submit(handle: &Handle, first: usize, count: usize) {
    let prompts: Vec<Prompt> = (first..first + count).map(another).collect();
    assert_eq!(handle.submit_blocking(&prompts).unwrap().admitted.len(), count);
}

fn measure(root: &Path, pool: usize) {
    let dir = root.join(format!("run-{pool}"));
    let (made, of_init) = init(root, &dir, pool);
    let folder = Folder::at(&dir);
    let config = Config::from_yaml(&folder.config()).unwrap();
    past(&folder, &config);
    let begun = Instant::now();
    let runtime = Runtime::builder(&dir).iterations(0).start_blocking().unwrap();
    let started = begun.elapsed().as_secs_f64();
    let handle = runtime.handle();
    let view = handle.view().unwrap();
    assert_eq!((view.finished(), view.next > Offset(pool as u64)), (PAST, true));
    let commit = timed(|n| match n % 2 {
        0 => handle.pause_blocking().unwrap(),
        _ => handle.resume_blocking().unwrap(),
    });
    submit(&handle, 0, 1);
    let one = timed(|n| submit(&handle, 1 + n, 1));
    let begun = Instant::now();
    submit(&handle, 1 + TIMES, MANY);
    let many = begun.elapsed().as_secs_f64();
    let looked = timed(|_| drop(black_box(handle.view().unwrap())));
    // What `gradus status` shows.
    let shown = timed(|_| drop(black_box(handle.status_blocking().unwrap())));
    let (opened, sealed) = decisions(&view, &config);
    let folded = folded(&view);
    let (before, begun) = (processor_time(), Instant::now());
    std::thread::sleep(IDLE);
    let idle = (processor_time() - before) as f64 / begun.elapsed().as_secs_f64();
    println!(
        "| {pool} | {made:.1} | {of_init} | {started:.1} | {} | {commit:.0} | {one:.0} | {many:.1} | \
         {looked:.2} | {shown:.0} | {opened:.0} | {sealed:.0} | {folded:.1} | {:.2} |",
        mib("self", "VmRSS:"),
        idle
    );
    drop(runtime);
    std::fs::remove_dir_all(&dir).unwrap();
}

fn main() {
    let wanted: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let pools = if wanted.is_empty() { POOLS.to_vec() } else { wanted };
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    println!(
        "| pool | init, s | init, MiB | start, s | running, MiB | commit, us | submit one, us | submit \
         {MANY}, s | look, us | status, us | open an iteration, us | seal its prompts, us | fold one, \
         us | idle, % of a core |"
    );
    println!("{}", "| --- ".repeat(14) + "|");
    for pool in pools {
        measure(root.path(), pool);
    }
}
