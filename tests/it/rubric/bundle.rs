//! Every rubric that comes with gradus passes its own golden cases in the sandbox and says of
//! itself what it should; how each reads replies is tested where it is written.

use super::{load, score};
use gradus::rubric::{Aggregation, ParsedReply, RubricInput, Subject, attack, bundled};

fn answers(candidates: &[&str]) -> RubricInput {
    let candidates = candidates.iter().map(|text| (*text).to_owned()).collect();
    RubricInput { task: "Name a fruit.".to_owned(), candidates, ..RubricInput::default() }
}

#[test]
fn all_of_them_load_under_their_names() {
    for (name, bytes) in bundled::ALL {
        let rubric = load(bytes);
        let info = rubric.info();
        assert_eq!((info.name.as_str(), rubric.world()), (name, "0.2"));
        assert_eq!(info.order_sensitive, info.max_candidates > 1, "{name}");
        assert_eq!(info.aggregation, Aggregation::Mean);
        let judges_judgments = info.subject == Subject::Judgment;
        assert_eq!(judges_judgments, name == "meta-judge");
    }
}

#[test]
fn a_comparison_scores_both() {
    let rubric = load(bundled::PAIRWISE);
    let two = answers(&["An apple.", "A stone."]);
    let rendered = rubric.render(&two).unwrap();
    let readout = rendered.readout.unwrap();
    assert_eq!(readout.lead, "Better:");
    assert_eq!(readout.choices[1], (" B".to_owned(), vec![0.0, 1.0]));
    let read = |answer: &str| match rubric.parse(&two, answer).unwrap() {
        ParsedReply::Verdict { scores, .. } => Some(scores),
        _ => None,
    };
    assert_eq!(read("Better: B"), Some(vec![0.0, 1.0]));
    assert_eq!(read("Better: tie"), Some(vec![0.5, 0.5]));
    assert_eq!(read("Better: A\nBetter: B"), None);
}

/// The verdict is the program's alone: no reply is read, and none is asked for.
#[test]
fn a_program_asks_nothing() {
    let rubric = load(bundled::VERIFIER);
    let mut item = answers(&["An apple, I think."]);
    assert!(rubric.render(&item).unwrap_err().to_string().contains("no constraint"));
    item.fields = vec![
        ("keywords:existence".to_owned(), "apple".to_owned()),
        ("punctuation:no_comma".to_owned(), String::new()),
    ];
    let rendered = rubric.render(&item).unwrap();
    assert!(rendered.messages.is_empty() && rendered.readout.is_none());
    let ParsedReply::Verdict { scores, criteria, rationale, .. } = rubric.parse(&item, "").unwrap()
    else {
        panic!("a program always has a verdict")
    };
    assert_eq!(scores, [0.5]);
    assert_eq!(criteria[1], ("punctuation:no_comma".to_owned(), 0.0));
    assert_eq!(rationale, "misses punctuation:no_comma");
    assert_eq!(score(&rubric.parse(&item, "Score: 1").unwrap()), None);
    item.fields = vec![("keywords:rhyme".to_owned(), "x".to_owned())];
    assert!(rubric.render(&item).unwrap_err().to_string().contains("keywords:rhyme"));
}

/// `gradus rubric new` begins with the bundled skeleton, which CI builds and tests.
#[test]
fn the_template_is_the_skeleton() {
    let skeleton = include_str!("../../../plugins/skeleton/src/lib.rs");
    let template = include_str!("../../../assets/rubric-template/rust/lib.rs.in");
    let named = template.replace("NAME", "skeleton");
    assert_eq!(named.replace("path: \"wit\"", "path: \"../../wit/v0.2\""), skeleton);
}

#[test]
fn bundled_rubrics_survive_what_is_hostile() {
    for (name, bytes) in bundled::ALL {
        let rubric = load(bytes);
        let attacked = attack(&rubric).unwrap();
        assert!(attacked.len() > 40, "{name}");
        let defects: Vec<_> = attacked.iter().filter(|a| a.failure.is_some()).collect();
        assert!(defects.is_empty(), "{name}: {defects:?}");
    }
}

/// What the skeleton once had, and a rubric of one's own soon has: a fence that the answer can close.
#[test]
fn a_fence_that_the_answer_can_close_is_found() {
    let skeleton = include_bytes!("../../golden/rubrics/v0.1/skeleton.wasm");
    let defects: Vec<String> =
        attack(&load(skeleton)).unwrap().into_iter().filter_map(|a| a.failure).collect();
    assert_eq!(defects, ["the candidate can write what ends it: \">>>\""]);
}
