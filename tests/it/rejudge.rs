//! The past judged again: recorded replies read by another rubric, other runs that begin with what
//! came of it, and what a bad rubric has touched.

use crate::rubric::guest::Guest;
use crate::runs::{alone, copied, five, gradus, on, records, twin, whole};
use gradus::Error;
use gradus::domain::evaluation::{HeadToHead, Referee, Verdict};
use gradus::domain::{Event, Iteration, PolicyRef, RubricId};
use gradus::lm::cancel::Cancel;
use gradus::rejudge::{PairChange, Past, Replies};
use gradus::rubric::bundled;
use gradus::runtime::Folder;
use gradus::stage::NoGauge;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

fn past(dir: &Path, from: u32) -> Past {
    let never = Cancel::default();
    Past::open(&Folder::at(dir), Iteration(from), &never, Arc::new(NoGauge), None).unwrap()
}

fn promoted(dir: &Path) -> Vec<PolicyRef> {
    let all = records(dir).into_iter().filter_map(|record| match record.event {
        Event::CheckpointPromoted { policy, .. } => Some(policy),
        _ => None,
    });
    all.collect()
}

/// The judges' texts by rubric, of an iteration's recorded judgments.
fn texts(dir: &Path, of: u32, by: &RubricId) -> Vec<String> {
    let all = records(dir).into_iter().filter_map(|record| match record.event {
        Event::JudgmentsRecorded { iteration: Iteration(n), judgments, .. } if n == of => {
            Some(judgments)
        }
        _ => None,
    });
    let ours = all.flatten().filter(|judgment| judgment.rubric == *by);
    ours.map(|judgment| judgment.text).collect()
}

#[test]
fn a_rubric_that_asks_and_reads_the_same_changes_nothing() {
    let dir = whole().dir();
    let formed = records(&dir).iter().filter(|r| r.event.kind() == "pair_formed").count();
    let mut past = past(&dir, 1);
    let rubric = past.bring(&twin(bundled::DEMO_COMPACT, 9)).unwrap();
    let again = past.rejudge(&rubric, Replies::Recorded).unwrap();
    let total = &again.total;
    assert_eq!(total.pairs.get(&PairChange::Same).copied().unwrap_or_default() as usize, formed);
    assert!(formed > 20 && total.pairs.len() == 1 && total.moved.is_empty(), "{total:?}");
    assert_eq!(total.left, total.right);
    assert!(total.order.agree > 100 && total.order.disagree == 0, "{total:?}");
    assert!(again.iterations.iter().all(|i| i.work.read_again > 100 && i.work.made == 0));
    // With the pairs as recorded, prompt by prompt.
    let pairs = past.pairs(&again).unwrap();
    assert_eq!(pairs.len(), formed);
    let recorded = records(&dir).into_iter().filter_map(|r| match r.event {
        Event::PairFormed { iteration, pair } => Some((iteration, pair.prompt.clone(), pair)),
        _ => None,
    });
    let mut recorded: Vec<_> = recorded.collect();
    recorded.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    for (pair, (iteration, _, formed)) in pairs.iter().zip(&recorded) {
        assert_eq!(pair.iteration, *iteration);
        let [chosen, rejected] = [&formed.chosen, &formed.rejected].map(|side| side.score.unwrap());
        assert!((pair.score_chosen - chosen).abs() < 1e-12, "{pair:?} {formed:?}");
        assert!((pair.score_rejected - rejected).abs() < 1e-12);
    }
}

/// A verdict is audited by reading what was replied again, and may be another under another rubric.
#[test]
fn verdicts_can_be_judged_again() {
    let _alone = alone();
    let dir = whole().dir();
    let mut past = past(&dir, 1);
    let same = past.bring(&twin(bundled::DEMO_COMPACT, 9)).unwrap();
    let again = past.rejudge_held_out(&same, Replies::Recorded).unwrap();
    assert_eq!((again.iterations.len(), again.without_answers.len()), (3, 0));
    for one in &again.iterations {
        assert!(one.prompts == 24 && one.work.read_again > 50, "{:?}", one.work);
        assert_eq!(one.work.made + one.work.not_asked, 0);
        assert!(one.recorded.iter().any(|h| h.opponent == "previous"));
        for (then, now) in one.recorded.iter().zip(&one.again) {
            let counts = |h: &HeadToHead| (h.wins, h.ties, h.losses);
            assert_eq!(counts(then), counts(now), "iteration {}", one.iteration);
            assert_eq!((then.win_rate, &then.finding), (now.win_rate, &now.finding));
            assert_eq!((then.referee, now.referee), (Referee::Judge, Referee::Rubrics));
        }
    }
    // One that asks something else, without a model: nothing was compared, and that is said.
    let other = past.bring(&guest(b'~')).unwrap();
    let again = past.rejudge_held_out(&other, Replies::Recorded).unwrap();
    let first = &again.iterations[0];
    assert!(first.work.not_asked > 20 && first.work.read_again == 0, "{:?}", first.work);
    let finding = first.again[0].finding.as_ref().unwrap();
    assert!(
        finding.verdict == Verdict::Unproven && finding.reason.contains("nothing was compared")
    );
    let (code, said) =
        says(&["rejudge", "--rubric", "demo-compact", "--recorded", "--held-out"], &dir);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("iteration 2: 24 held-out prompts (") && said.contains("recorded: "));
}

/// The very same models, bit for bit: judging is all that was done over, and it gave the same.
#[test]
fn another_run_with_the_same_judgments_comes_to_the_same_models() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let (dir, to) = (whole().dir(), root.path().join("other"));
    let mut past = past(&dir, 2);
    let rubric = past.bring(&twin(bundled::DEMO_COMPACT, 9)).unwrap();
    let again = past.rejudge(&rubric, Replies::Model).unwrap();
    assert_eq!(past.begin_another(&again, &Folder::at(&to)).unwrap(), Iteration(2));
    let twice = past.begin_another(&again, &Folder::at(&to));
    assert!(matches!(twice, Err(Error::RunExists(_))), "{twice:?}");
    assert!(gradus().arg("run").arg(&to).status().unwrap().success());
    assert_eq!(promoted(&to), promoted(&dir));
    let by = |record: &gradus::log::Recorded| match &record.event {
        Event::JudgmentsRecorded { judgments, .. } => Some(judgments[0].rubric.clone()),
        _ => None,
    };
    let judges: Vec<RubricId> = records(&to).iter().filter_map(by).collect();
    assert!(judges.len() > 90 && judges.iter().all(|judge| *judge == rubric));
}

/// A program's only difference is what it reads: by which first letter a reply is good.
fn guest(letter: u8) -> Vec<u8> {
    let answer = format!("\"{}ood\"", char::from(letter));
    let guest = Guest::new().with("readout", "0").with("good", &letter.to_string());
    let guest = guest.with("question", "1400").with("question-bytes", "16");
    guest.with("good-answer", &answer).component()
}

#[test]
fn another_parse_reads_recorded_replies_without_a_model() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let to = root.path().join("other");
    let mut first = past(&whole().dir(), 3);
    let before = first.bring(&guest(b'~')).unwrap();
    // Another question: nobody replied to it before, so the model must.
    let unasked = first.rejudge(&before, Replies::Recorded).unwrap();
    let work = unasked.iterations[0].work;
    assert!(work.not_asked > 100 && work.read_again + work.made == 0, "{work:?}");
    assert_eq!(unasked.total.right.pairs, 0);
    let again = first.rejudge(&before, Replies::Model).unwrap();
    assert!(again.iterations[0].work.made > 300, "{:?}", again.iterations[0].work);
    first.begin_another(&again, &Folder::at(&to)).unwrap();

    let texts = texts(&to, 3, &before);
    let mut letters = [0_u32; 256];
    texts.iter().filter_map(|text| text.bytes().next()).for_each(|b| letters[usize::from(b)] += 1);
    // Under any letter a c scores too, and other letters trap: see the guest.
    let free = (b'a'..=b'z').filter(|letter| !b"gsniclmruzopbehw".contains(letter));
    let usual = free.max_by_key(|letter| letters[usize::from(*letter)]).unwrap();
    let (good, c) = (letters[usize::from(usual)], letters[usize::from(b'c')]);
    let all = texts.len() as u32;
    assert!(good > 10 && c > 10 && good + c < all, "{good} and {c} of {all}");
    let mut second = past(&to, 3);
    let other = second.bring(&guest(usual)).unwrap();
    let again = second.rejudge(&other, Replies::Recorded).unwrap();
    let work = again.iterations[0].work;
    assert!(work.read_again > 300 && work.made + work.not_asked == 0, "{work:?}");
    assert_eq!((again.total.right.judgments, again.total.right.unparsed), (all, all - good - c));
    assert_eq!((again.total.left.judgments, again.total.left.unparsed), (all, all - c));
}

#[test]
fn what_a_rubric_touched() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    // Another rubric judges iterations 4 and 5.
    let bad = root.path().join("bad.wasm");
    std::fs::write(&bad, twin(bundled::DEMO_COMPACT, 9)).unwrap();
    let id = past(&dir, 1).bring(&twin(bundled::DEMO_COMPACT, 9)).unwrap();
    for verb in [["install", bad.to_str().unwrap()], ["activate", id.0.get(..16).unwrap()]] {
        let mut command = gradus();
        command.arg("rubric").arg(verb[0]).arg(&dir).arg(verb[1]);
        assert!(command.status().unwrap().success(), "{verb:?}");
    }
    assert!(on(&dir).status().unwrap().success());
    let tainted = past(&dir, 1);
    let taint = tainted.taint(&id).unwrap();
    let count = |kind: &str, of: u32| {
        let ours = |event: &Event| match event {
            Event::PairFormed { iteration, .. } => kind == "pairs" && iteration.0 == of,
            Event::JudgmentsRecorded { iteration, .. } => kind == "prompts" && iteration.0 == of,
            _ => false,
        };
        records(&dir).iter().filter(|record| ours(&record.event)).count()
    };
    let [four, five] = taint.iterations.as_slice() else { panic!("{:?}", taint.iterations) };
    for (found, of) in [(four, 4), (five, 5)] {
        assert_eq!(found.iteration, Iteration(of));
        assert_eq!(found.prompts.len(), count("prompts", of));
        assert_eq!((found.pairs as usize, found.trained), (count("pairs", of), found.pairs));
        assert!(found.measured && found.checkpoint.is_some());
    }
    assert_eq!((four.inherited, five.inherited), (false, four.promoted));
    assert!(taint.judges);
    // The other one touched the models that iteration 4 began with.
    let old = tainted.taint(&tainted.installed(&first_rubric(&dir).0).unwrap()).unwrap();
    assert_eq!(old.iterations.len(), 5, "{:?}", old.iterations);

    // The run from before it, with what judged before: as if it had never been.
    let to = root.path().join("clean");
    assert_eq!(tainted.begin_before(&taint, None, &Folder::at(&to)).unwrap(), Iteration(4));
    assert!(on(&to).status().unwrap().success());
    assert_eq!(promoted(&to), promoted(&self::five().dir()));
    assert!(past(&to, 1).taint(&id).unwrap().iterations.is_empty());
}

fn first_rubric(dir: &Path) -> RubricId {
    let found = records(dir).into_iter().find_map(|record| match record.event {
        Event::RubricInstalled { rubric, .. } => Some(rubric),
        _ => None,
    });
    found.unwrap()
}

/// A rubric beside the panel changes nothing that is trained, whatever becomes of it, and what it
/// said is there to be compared without a model.
#[test]
fn a_shadow_judges_and_touches_nothing() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    let component = root.path().join("shadow.wasm");
    std::fs::write(&component, guest(b'a')).unwrap();
    let rubric = |verb: &str, named: &[&str]| {
        let mut command = gradus();
        command.arg("rubric").arg(verb).arg(&dir).args(named).status().unwrap().code()
    };
    assert_eq!(rubric("install", &[component.to_str().unwrap()]), Some(0));
    // Its questions fill what this model can read.
    assert_eq!(rubric("install", &["additive-five"]), Some(0));
    assert_eq!(rubric("shadow", &["demo-compact"]), Some(2), "it is on the panel");
    assert_eq!(rubric("shadow", &["hostile", "additive-five"]), Some(0));
    assert!(on(&dir).status().unwrap().success());
    assert_eq!(promoted(&dir), promoted(&five().dir()));

    let past = past(&dir, 4);
    let [shadow, long, ours] =
        ["hostile", "additive-five", "demo-compact"].map(|name| past.installed(name).unwrap());
    let shadowed = |by: &RubricId| {
        let events = records(&dir).into_iter().filter_map(|record| match record.event {
            Event::ShadowJudged { rubric, judgments, scores, .. } if rubric == *by => {
                Some((judgments, scores))
            }
            _ => None,
        });
        events.collect::<Vec<_>>()
    };
    let judged = records(&dir)
        .iter()
        .filter(|r| {
            matches!(&r.event,
        Event::JudgmentsRecorded { iteration, .. } if iteration.0 >= 4)
        })
        .count();
    assert!(judged > 50);
    assert_eq!((shadowed(&shadow).len(), shadowed(&long).len()), (judged, judged));
    // The model knows hardly a word of it: no reply holds a score, and none is given one unmarked.
    let judgments: Vec<_> = shadowed(&long).into_iter().flat_map(|(all, _)| all).collect();
    assert!(judgments.len() > 50 && judgments.iter().all(|j| !j.is_parsed()));
    assert!(shadowed(&shadow).iter().flat_map(|(_, scores)| scores).any(Option::is_some));
    let again = past.diff(&ours, &shadow, Replies::Recorded).unwrap();
    let works: Vec<_> = again.iterations.iter().map(|i| i.work).collect();
    assert!(works.iter().all(|work| work.made + work.not_asked == 0), "{works:?}");
    let scored = shadowed(&shadow).iter().flat_map(|(_, s)| s).filter(|s| s.is_none()).count();
    assert_eq!(again.total.right.unscored as usize, scored);
    // It touched nothing, and stands aside once it is on the panel.
    assert!(past.taint(&shadow).unwrap().iterations.is_empty());
    assert_eq!(rubric("activate", &["hostile"]), Some(0));
    assert_eq!(self::past(&dir, 4).shadows(), [long]);
}

/// Exit code and what a command says.
fn says(arguments: &[&str], dir: &Path) -> (Option<i32>, String) {
    let mut command = gradus();
    let out = command.args(arguments).arg(dir).stdout(Stdio::piped()).stderr(Stdio::piped());
    let out = out.output().unwrap();
    let text = [out.stdout, out.stderr].concat();
    (out.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn what_cannot_be_judged_again_is_said() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    let wrong = |arguments: &[&str], part: &str| {
        let (code, said) = says(arguments, &dir);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(part), "no {part:?} in {said}");
    };
    wrong(&["rejudge", "--rubric", "unheard-of"], "GRADUS0508");
    wrong(&["rejudge", "--rubric", "meta-judge"], "GRADUS0506");
    let late = ["rejudge", "--rubric", "demo-compact", "--from-iteration", "9"];
    wrong(&late, "nothing to judge from iteration 9 on: no iteration from there on has judgments");
    let (code, said) = says(&["rejudge", "--rubric", "demo-compact"], root.path());
    assert!(code == Some(2) && said.contains("holds no run"), "{said}");

    // What was dropped is named; what is left is judged.
    assert!(says(&["log", "compact", "--keep-iterations", "1"], &dir).0 == Some(0));
    let (code, said) = says(&["rejudge", "--rubric", "demo-compact", "--recorded"], &dir);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("left out, dropped when the log was compacted: 2"), "{said}");
    let to = root.path().join("other");
    let into = ["rejudge", "--rubric", "demo-compact", "--into", to.to_str().unwrap()];
    wrong(&into, "was compacted");
}
