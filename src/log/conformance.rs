//! One suite for every provider.

use super::*;
use crate::domain::{Prompt, PromptOrigin};
use std::sync::Arc;

fn admitted(text: &str) -> Event {
    Event::PromptAdmitted { prompt: Prompt::user(text, PromptOrigin::Given) }
}

fn batch(key: Option<&str>, texts: &[&str]) -> Batch {
    Batch {
        key: key.map(|k| TaskKey(k.to_owned())),
        events: texts.iter().map(|t| admitted(t)).collect(),
        cursor: None,
    }
}

fn texts(log: &dyn Log) -> Vec<String> {
    let records = log.read(Offset(0), 10_000).unwrap();
    let text = |r: Recorded| match r.event {
        Event::PromptAdmitted { prompt } => prompt.task_text().to_owned(),
        other => other.kind().to_owned(),
    };
    records.into_iter().map(text).collect()
}

fn reads_what_was_appended(log: &dyn Log) {
    assert_eq!(log.tail(), Offset(0));
    let first = log.append(batch(None, &["a", "b"])).unwrap();
    assert_eq!(first, Appended::New { first: Offset(0), tail: Offset(2) });
    log.append(batch(None, &["c"])).unwrap();
    assert_eq!(texts(log), ["a", "b", "c"]);
    assert_eq!(log.read(Offset(1), 1).unwrap().len(), 1);
    assert_eq!(log.get(Offset(3)).unwrap(), None);
    assert_eq!(log.get(Offset(2)).unwrap().unwrap().offset, Offset(2));
    assert_eq!(verify(log).first_error, None);
}

fn a_key_is_taken_once(log: &dyn Log) {
    let tail = log.tail();
    log.append(batch(Some("k"), &["once"])).unwrap();
    let again = log.append(batch(Some("k"), &["twice"])).unwrap();
    assert_eq!(again, Appended::Duplicate { first: tail });
    assert_eq!(log.tail(), Offset(tail.0 + 1));
    assert_eq!(log.find(&TaskKey("k".into())).unwrap(), Some(tail));
    assert_eq!(log.find(&TaskKey("other".into())).unwrap(), None);
}

fn cursors_move_with_their_batch(log: &dyn Log) {
    assert_eq!(log.cursor("reader").unwrap(), Offset(0));
    let cursor = Some(("reader".to_owned(), Offset(2)));
    log.append(Batch { cursor, ..batch(Some("cursor"), &["x"]) }).unwrap();
    assert_eq!(log.cursor("reader").unwrap(), Offset(2));
    let refused = Some(("reader".to_owned(), Offset(9)));
    log.append(Batch { cursor: refused, ..batch(Some("cursor"), &["x"]) }).unwrap();
    assert_eq!(log.cursor("reader").unwrap(), Offset(2), "a duplicate moves nothing");
}

fn bells_ring_and_coalesce(log: &dyn Log) {
    let bell = log.subscribe();
    for n in 0..5 {
        log.append(batch(None, &[&format!("bell {n}")])).unwrap();
    }
    assert!(bell.try_recv().is_ok());
    assert!(bell.try_recv().is_err(), "many rings are one");
}

fn too_large_is_refused_whole(log: &dyn Log) {
    let tail = log.tail();
    let large = "x".repeat(EVENT_BYTES_MAX);
    let error = log.append(batch(Some("large"), &["small", &large])).unwrap_err();
    assert!(matches!(error, LogError::TooLarge { .. }), "{error}");
    assert_eq!(log.tail(), tail);
    assert_eq!(log.find(&TaskKey("large".into())).unwrap(), None);
}

fn concurrent_appenders_all_land(log: Arc<dyn Log>) {
    let tail = log.tail();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let log = log.clone();
            scope.spawn(move || {
                for n in 0..25 {
                    let text = format!("{thread}/{n}");
                    log.append(batch(Some(&text), &[&text])).unwrap();
                    log.append(batch(Some(&text), &[&text])).unwrap();
                }
            });
        }
    });
    assert_eq!(log.tail(), Offset(tail.0 + 100));
    assert_eq!(verify(log.as_ref()).first_error, None);
}

pub(crate) fn suite(log: Arc<dyn Log>) {
    reads_what_was_appended(log.as_ref());
    a_key_is_taken_once(log.as_ref());
    cursors_move_with_their_batch(log.as_ref());
    bells_ring_and_coalesce(log.as_ref());
    too_large_is_refused_whole(log.as_ref());
    concurrent_appenders_all_land(log);
}

struct FrozenClock;

impl Clock for FrozenClock {
    fn now_ms(&self) -> u64 {
        17
    }
}

#[test]
fn memory() {
    suite(Arc::new(MemoryLog::default()));
}

#[test]
fn durable() {
    let dir = tempfile::tempdir().unwrap();
    suite(Arc::new(DurableLog::open(&dir.path().join("log"), Arc::new(FrozenClock)).unwrap()));
}

#[test]
fn the_durable_log_keeps_everything_over_a_restart_and_the_chain_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    for n in 0..3 {
        let log = DurableLog::open(&path, Arc::new(FrozenClock)).unwrap();
        assert_eq!(log.tail(), Offset(n));
        log.append(batch(Some(&format!("k{n}")), &[&format!("t{n}")])).unwrap();
        log.append(batch(Some("k0"), &["again"])).unwrap();
        assert_eq!(log.verify().unwrap().records, n + 1);
        assert_eq!(log.verify().unwrap().first_error, None);
    }
}

/// Segments so small that every test has several.
const SMALL: LogSettings = LogSettings { segment_bytes: 2000 };

fn open_small(path: &std::path::Path) -> DurableLog {
    DurableLog::open_with(path, Arc::new(FrozenClock), SMALL).unwrap()
}

#[test]
fn durable_in_many_segments() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    suite(Arc::new(open_small(&path)));
    let log = open_small(&path);
    let records = log.tail().0;
    assert_eq!(log.verify().unwrap().records, records);
    assert_eq!(log.verify().unwrap().first_error, None);
    assert!(log.repairs().is_empty());
    let segments = std::fs::read_dir(path.join("journal")).unwrap().count();
    assert!(segments > 5, "{segments} segments");
    let read = JournalLog::open(&path).unwrap();
    assert_eq!(texts(&read), texts(&log));
    assert_eq!(read.find(&TaskKey("k".into())).unwrap(), log.find(&TaskKey("k".into())).unwrap());
    assert_eq!(read.cursor("reader").unwrap(), Offset(2));
    assert_eq!(read.tail(), Offset(records));
    // The reader sees what is written beside it, also into a new segment.
    for n in 0..40 {
        log.append(batch(None, &[&format!("beside {n}")])).unwrap();
        assert_eq!(read.tail(), log.tail());
        let last = read.get(Offset(read.tail().0 - 1)).unwrap();
        assert_eq!(last, log.get(Offset(log.tail().0 - 1)).unwrap());
    }
    assert_eq!(texts(&read), texts(&log));
    assert_eq!(verify(&read).records, records + 40);
}

#[test]
fn a_second_opener_is_told_who_holds_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let _held = DurableLog::open(&path, Arc::new(FrozenClock)).unwrap();
    let error = DurableLog::open(&path, Arc::new(FrozenClock)).err().unwrap().to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");
}

#[test]
fn another_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("FORMAT"), "2\n").unwrap();
    let error = DurableLog::open(dir.path(), Arc::new(FrozenClock)).err().unwrap().to_string();
    assert!(error.contains("format \"2\"") && error.contains("reads 3"), "{error}");
}

#[test]
fn the_digest_forgets_order_and_failures_but_nothing_else() {
    let digest = |batches: &[Batch]| {
        let log = MemoryLog::default();
        for batch in batches {
            log.append(batch.clone()).unwrap();
        }
        state_digest(&log).unwrap().digest
    };
    let (a, b) = (batch(Some("a"), &["1"]), batch(Some("b"), &["2"]));
    let failed = Event::TaskFailed {
        questions: false,
        stage: "judge".into(),
        task: TaskKey("x".into()),
        attempt: 1,
        reason: "r".into(),
    };
    let failed = Batch { events: vec![failed], ..Batch::default() };
    assert_eq!(digest(&[a.clone(), b.clone()]), digest(&[b.clone(), failed, a.clone()]));
    assert_ne!(digest(&[a.clone(), b]), digest(&[a, batch(Some("b"), &["3"])]));
}
