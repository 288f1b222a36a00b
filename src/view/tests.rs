//! Tables of folds: a few events in, what is known out. An event is a word and what it is about:
//!
//! ```text
//! +a  +a^2  +a!   prompt a is admitted; with priority 2; to be held out
//! hold a          prompt a is held out from here on
//! open            the next iteration is opened
//! seal a,b        it answers a and b
//! judge a r       a's answers were judged under rubric r
//! pair a  skip a  a gave a pair, or none
//! back r q        rubric r was rolled back, and q judges again
//! fail t          task t failed
//! end             the iteration is over
//! ```
//!
//! `judge:1` is of iteration 1, whichever is open; `pair@2` comes of a task that knew of two rollbacks.

use super::RunView;
use crate::domain::event::{IterationKind, IterationOutcome};
use crate::domain::{
    BlobHash, Event, Iteration, Judgment, Outcome, PairId, Panel, PolicyId, PolicyRef,
    PreferencePair, Prompt, PromptId, PromptOrigin, Remarks, RubricId, Side, SkipReason, TaskKey,
    TextRef, When,
};
use crate::log::Recorded;

fn id(name: &str) -> PromptId {
    PromptId(name.to_owned())
}

fn panel(rubric: &str) -> Panel {
    Panel::one(RubricId(rubric.to_owned()))
}

fn policy() -> PolicyRef {
    PolicyRef::full(BlobHash("w".to_owned()))
}

fn admitted(what: &str) -> Event {
    let (name, priority) = what.split_once('^').unwrap_or((what, "0"));
    let origin = if name.ends_with('!') { PromptOrigin::HeldOut } else { PromptOrigin::Given };
    let name = name.trim_end_matches('!');
    let prompt = Prompt { id: id(name), ..Prompt::user(name, origin) };
    Event::PromptAdmitted { prompt: prompt.with_priority(priority.parse().unwrap()) }
}

fn judged(iteration: Iteration, prompt: &str, rubric: &str) -> Event {
    let judgment = Judgment {
        rubric: RubricId(rubric.to_owned()),
        candidate: 0,
        sample: 0,
        outcome: Outcome::Scored { score: 1.0, parsed: None },
        text: String::new(),
        fuel: 0,
        seen: Vec::new(),
        scores: Vec::new(),
        readout: None,
        remarks: Remarks::default(),
    };
    Event::JudgmentsRecorded {
        iteration,
        prompt: id(prompt),
        judge: PolicyId("w".to_owned()),
        judgments: vec![judgment],
        scores: Vec::new(),
        errors: Vec::new(),
        lengths: Vec::new(),
        not_compared: 0,
        rubrics: Vec::new(),
    }
}

fn paired(iteration: Iteration, prompt: &str) -> Event {
    let side = |index| Side { text: TextRef::own(index), score: Some(1.0), error: None, tokens: 3 };
    let (chosen, rejected, prompt) = (side(0), side(1), id(prompt));
    let id = PairId::of(iteration, &prompt, 0);
    Event::PairFormed {
        iteration,
        pair: PreferencePair { id, prompt, chosen, rejected, weight: 1.0, label: 1.0 },
    }
}

/// An event as the head of this file has it; `last` is the iteration that was opened last.
fn event(text: &str, last: u32) -> (Event, Option<TaskKey>) {
    if let Some(what) = text.strip_prefix('+') {
        return (admitted(what), None);
    }
    let mut words = text.split(' ');
    let (word, about) = (words.next().unwrap(), words.next().unwrap_or_default());
    let other = words.next().unwrap_or_default();
    let (word, knew) = word.split_once('@').unwrap_or((word, ""));
    let (word, of) = word.split_once(':').unwrap_or((word, ""));
    let iteration = Iteration(of.parse().unwrap_or(last));
    let key = knew.parse().ok().map(|knew| TaskKey(text.to_owned()).after(knew));
    let event = match word {
        "hold" => Event::PromptsHeldOut { wanted: 9, prompts: vec![id(about)] },
        "open" => Event::IterationStartedUnplanned {
            iteration: Iteration(last + 1),
            kind: IterationKind::Dpo,
            policy: policy(),
            reference: policy(),
            panel: panel("r"),
        },
        "seal" => {
            let prompts = about.split(',').map(id).collect();
            Event::PromptsSealed { iteration, prompts, left: 0 }
        }
        "judge" => judged(iteration, about, other),
        "pair" => paired(iteration, about),
        "skip" => Event::PairSkipped { iteration, prompt: id(about), reason: SkipReason::Tie },
        "activate" => {
            Event::RubricActivated { panel: panel(about), when: When::Immediately, trial: None }
        }
        "back" => {
            let (rubric, back_to) = (RubricId(about.to_owned()), panel(other));
            let taken_back = vec![rubric.clone()];
            Event::RubricRolledBack { rubric, back_to, reason: "bad".to_owned(), taken_back }
        }
        "fail" => Event::TaskFailed {
            stage: "judge".to_owned(),
            task: TaskKey(about.to_owned()),
            attempt: 1,
            reason: "no".to_owned(),
            questions: false,
        },
        "end" => Event::IterationFinished { iteration, outcome: IterationOutcome::Promoted },
        "go" => Event::ResumeRequested,
        other => panic!("{other:?} is no event"),
    };
    (event, key)
}

/// The records of a story, events with semicolons between them.
fn records(story: &str) -> Vec<Recorded> {
    let (mut last, mut all) = (0, Vec::new());
    for (offset, text) in story.split(';').map(str::trim).enumerate() {
        let (event, key) = event(text, last);
        last += u32::from(text == "open");
        let offset = crate::domain::Offset(offset as u64);
        all.push(Recorded { offset, at_ms: 0, key, event });
    }
    all
}

fn folded(story: &str) -> RunView {
    let mut view = RunView::default();
    records(story).iter().for_each(|record| view.apply(record));
    view
}

fn names<'a>(prompts: impl IntoIterator<Item = &'a PromptId>) -> String {
    prompts.into_iter().map(PromptId::as_str).collect()
}

/// Prompts that wait, in their order, and those that are held out.
fn pool(view: &RunView) -> (String, String) {
    let held_out = names(view.held_out().map(|(id, _)| id));
    (names(view.unused().map(|(id, _)| id)), held_out)
}

/// Of the last iteration: prompts that are judged, with a pair, and without; what judges.
fn journey(view: &RunView) -> [String; 4] {
    let (_, open) = view.iterations.last_key_value().expect("an iteration");
    let panel = open.panel.members().iter().map(|member| member.rubric.0.clone()).collect();
    [names(open.judged.keys()), names(open.pairs.keys()), names(open.skipped.keys()), panel]
}

/// Whose turn it is: a story, who waits, who is held out.
const POOLS: [(&str, &str, &str); 10] = [
    ("+b; +c; +a", "abc", ""),
    ("+b; +a!; +c", "bc", "a"),
    ("+b; +a^1; +c^-1", "abc", ""),
    ("+c; +a; open; +b; +d", "acbd", ""),
    ("+c; +b; open; +d; +a^3; +e^3", "aebcd", ""),
    ("+c; +b; +a; open; seal a,b; +d", "cd", ""),
    ("+c; +b; open; end; +a; open; seal b", "ca", ""),
    ("+c; +b; hold b; +a; open; hold a", "c", "ab"),
    // It is there already: its turn stays.
    ("+b; open; +c; +b^9; +c", "bc", ""),
    // What an iteration answers does not come again.
    ("+a; open; seal a,b; +b; +a^2", "", ""),
];

/// What came of the prompts of the last iteration: judged, pairs, skipped, and who judges now.
const JOURNEYS: [(&str, [&str; 4]); 11] = [
    ("open; seal a,b; judge a r; judge b r; pair a; skip b", ["ab", "a", "b", "r"]),
    // The same results in another order.
    ("open; seal a,b; judge b r; skip b; judge a r; pair a", ["ab", "a", "b", "r"]),
    // What is decided is decided once.
    ("open; seal a; judge a r; pair a; skip a", ["a", "a", "", "r"]),
    ("open; seal a; judge a r; skip a; pair a", ["a", "", "a", "r"]),
    // Each prompt is judged by one panel: the first that did.
    ("open; seal a; judge a r; activate s; judge a s", ["a", "", "", "s"]),
    ("open; seal a,b; judge a r; judge b r; pair a; back r q", ["", "", "", "q"]),
    ("open; seal a,b; judge a r; activate s; judge b s; back s r", ["a", "", "", "r"]),
    // What was in hand when the rubric was rolled back comes late, and counts for nothing.
    ("open; seal a,b; judge a r; back r q; judge b r; pair@0 a", ["", "", "", "q"]),
    // Done again, it counts.
    ("open; seal a; judge a r; back r q; judge@1 a q; pair@1 a", ["a", "a", "", "q"]),
    ("open; seal a; judge a r; back r q; judge a q; pair@0 a", ["a", "", "", "q"]),
    // A late result of an iteration that is over is none of the next one.
    ("open; seal a; end; open; seal b; judge:1 a r; judge b r; skip:1 a", ["b", "", "", "r"]),
];

/// Stories without an end that a table tells: nothing follows from where they are cut.
const MORE: [&str; 3] = [
    "fail x; fail x; open; fail y; end; fail z; open; go; end; open; end; go",
    "open; seal a; end; judge a r; open; end; judge:1 b r; open; judge:2 c r; judge:1 d r",
    "+a; +b; open; seal a; judge a r; pair a; end; +c; hold b; open; seal c; back r q; skip c; end",
];

fn stories() -> impl Iterator<Item = &'static str> {
    let pools = POOLS.iter().map(|(story, ..)| *story);
    pools.chain(JOURNEYS.iter().map(|(story, _)| *story)).chain(MORE)
}

#[test]
fn prompts_wait_in_their_order() {
    for (story, waiting, held_out) in POOLS {
        let view = folded(story);
        assert_eq!(pool(&view), (waiting.to_owned(), held_out.to_owned()), "{story}");
        assert_eq!(view.waiting(), waiting.len(), "{story}");
        assert_eq!(view.never_trained_on_count(), held_out.len(), "{story}");
    }
}

#[test]
fn what_came_of_an_iterations_prompts() {
    for (story, known) in JOURNEYS {
        assert_eq!(journey(&folded(story)), known.map(str::to_owned), "{story}");
    }
}

/// A record that is read twice changes nothing, at whatever moment.
#[test]
fn a_doubled_record_changes_nothing() {
    for story in stories() {
        let (mut once, mut twice) = (RunView::default(), RunView::default());
        let records = records(story);
        for (at, record) in records.iter().enumerate() {
            once.apply(record);
            records[at.saturating_sub(2)..=at].iter().for_each(|again| twice.apply(again));
            twice.apply(record);
            assert_eq!(once, twice, "{story}, record {at}");
        }
    }
}

/// What is kept of a view in a compacted log is all of it, the indices too.
#[test]
fn a_view_is_read_as_it_was_written() {
    for story in stories() {
        let mut view = RunView::default();
        for record in records(story) {
            view.apply(&record);
            let json = serde_json::to_string(&view).unwrap();
            let read: RunView = serde_json::from_str(&json).unwrap();
            assert_eq!(read, view, "{story}, before record {}", view.next);
        }
    }
}

/// Who holds what was known before sees none of what comes.
#[test]
fn what_somebody_holds_stays_as_it_is() {
    for story in stories() {
        let (mut view, mut held) = (RunView::default(), Vec::new());
        for record in records(story) {
            held.push((view.clone(), serde_json::to_string(&view).unwrap()));
            view.apply(&record);
        }
        for (view, before) in held {
            assert_eq!(serde_json::to_string(&view).unwrap(), before, "{story}");
        }
    }
}

/// A run that goes on knows what one knows that forgot nothing and then forgets what is over.
#[test]
fn what_is_over_is_forgotten_whenever_that_is_done() {
    for story in stories() {
        let (mut whole, mut going_on) = (RunView::default(), RunView::default());
        going_on.forget_finished();
        for record in records(story) {
            // A running run does not heed what comes of an iteration that it has forgotten.
            if !going_on.accepts(&record) {
                continue;
            }
            whole.apply(&record);
            going_on.apply(&record);
            let mut then = whole.clone();
            then.forget_finished();
            assert_eq!(then, going_on, "{story}, before record {}", whole.next);
            assert_eq!((whole.finished(), whole.is_whole()), (going_on.finished(), true));
            assert!(going_on.iterations.len() <= 2, "{story}");
        }
    }
}

#[test]
fn what_is_remembered_of_iterations_that_are_over() {
    let view = folded(MORE[0]);
    assert_eq!((view.finished(), view.failed_tasks(), view.failures.len()), (3, 3, 0));
    assert_eq!(view.resumed, 2);
    assert_eq!(view.next_iteration(), (Iteration(4), IterationKind::Dpo));
    assert_eq!(view.last_iteration(), Some((Iteration(3), Some(&IterationOutcome::Promoted))));
    assert_eq!(folded("open; end; open").last_iteration(), Some((Iteration(2), None)));
    let opened: Vec<u64> = view.past().map(|(_, past)| past.opened.0).collect();
    assert_eq!(opened, [2, 6, 9]);
    let mut view = folded("open; seal a; judge a r; end; open; end; open");
    assert!(view.is_whole() && view.iterations.len() == 3);
    view.forget_finished();
    assert!(!view.is_whole());
    let left: Vec<u32> = view.iterations.keys().map(|iteration| iteration.0).collect();
    assert_eq!(left, [2, 3], "the last one that is over, and the open one");
}
