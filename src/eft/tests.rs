//! Seed data from answers whose worth is known, under the bundled rubrics.

use super::*;
use crate::domain::{Notes, PromptOrigin};
use crate::rubric::{RubricEngine, bundled};

fn rubrics() -> (Rubric, Rubric) {
    let engine = RubricEngine::new().unwrap();
    let load = |bytes| Rubric::load(&engine, bytes).unwrap();
    (load(bundled::VERIFIER), load(bundled::REQUIREMENTS))
}

fn answered(text: &str, fields: &[(&str, &str)], answers: &[(&str, bool)]) -> EftPrompt {
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let notes = Notes { fields: fields.collect(), ..Notes::default() };
    let given =
        |(text, ended): &(&str, bool)| GivenAnswer { text: (*text).to_owned(), ended: *ended };
    EftPrompt {
        prompt: Prompt::user(text, PromptOrigin::Given).noted(notes),
        answers: answers.iter().map(given).collect(),
    }
}

/// Every kind that evidence is written of, with a long answer that meets few of them.
fn every_kind() -> Vec<EftPrompt> {
    let long = "The first thing is to rest, and then to drink water. People say that it is good, of \
                course. You can walk in the park, too! What else is there to do on such a day?";
    let kinds = [
        ("punctuation:no_comma", ""),
        ("keywords:existence", "water, life"),
        ("keywords:forbidden_words", "the"),
        ("keywords:frequency", "good at least 2"),
        ("keywords:letter_frequency", "q at least 2"),
        ("length_constraints:number_words", "less than 20"),
        ("length_constraints:number_sentences", "less than 3"),
        ("length_constraints:number_paragraphs", "2"),
        ("detectable_format:number_bullet_lists", "3"),
        ("detectable_format:json_format", ""),
        ("detectable_format:title", ""),
        ("detectable_content:number_placeholders", "at least 2"),
        ("detectable_content:postscript", "P.S."),
        ("change_case:english_lowercase", ""),
        ("change_case:english_capital", ""),
        ("startend:end_checker", "That is all I know."),
        ("startend:quotation", ""),
    ];
    let mut all = Vec::new();
    for (at, kind) in kinds.iter().enumerate() {
        for copy in 0..3 {
            let text = format!("Question {at} {copy}");
            all.push(answered(&text, &[*kind, ("requirement", "In words.")], &[(long, true)]));
        }
    }
    all
}

#[test]
fn half_of_every_kind_is_met_and_the_judge_reads_it_so() {
    let (verifier, judge) = rubrics();
    let both = EftRubrics { verifier: &verifier, judge: &judge };
    let answered = every_kind();
    let size = EftSize { eft: 170, ift: 100, seed: 1 };
    let built = from_verifier(&answered, both, size).unwrap();
    assert_eq!(built.report.kinds.len(), 17, "{:?}", built.report);
    assert_eq!(built.report.unread, 0);
    for (name, kind) in &built.report.kinds {
        assert!(kind.yes >= 3 && kind.no >= 3, "{name}: {kind:?}");
        assert!(kind.yes <= 5 && kind.no <= 5, "{name}: {kind:?}");
        assert_eq!(kind.answers, 3, "{name}");
    }
    assert_eq!(built.eft.len(), built.report.eft_rows);
    let verdict = |row: &SeedRow, said: &str| row.completion.ends_with(&format!("Verdict: {said}"));
    assert!(built.eft.iter().all(|row| verdict(row, "yes") || verdict(row, "no")));
    for row in &built.eft {
        assert!(row.messages[0].content.contains("In words."), "{row:?}");
        assert!(row.completion.starts_with("Evidence: "), "{row:?}");
    }
    assert_eq!(
        from_verifier(&answered, both, size).unwrap(),
        built,
        "the same input, the same rows"
    );
    let other = EftSize { seed: 2, ..size };
    assert_ne!(from_verifier(&answered, both, other).unwrap().eft, built.eft);
}

#[test]
fn what_is_learned_to_answer_is_whole_and_meets_everything() {
    let (verifier, judge) = rubrics();
    let both = EftRubrics { verifier: &verifier, judge: &judge };
    let no_comma = [("punctuation:no_comma", "")];
    let two = [("punctuation:no_comma", ""), ("length_constraints:number_words", "less than 5")];
    let answered = [
        answered(
            "a",
            &no_comma,
            &[("Plain and whole it is.", true), ("Cut off in the mid", false)],
        ),
        answered(
            "b",
            &two,
            &[("It is so.", true), ("One, two.", true), ("It is far too long.", true)],
        ),
        answered("c", &[("keywords:rhyme", "x")], &[("So.", true)]),
        answered("d", &[], &[("So.", true)]),
    ];
    let built = from_verifier(&answered, both, EftSize { eft: 40, ift: 10, seed: 1 }).unwrap();
    let mut learned: Vec<&str> = built.ift.iter().map(|row| row.completion.as_str()).collect();
    learned.sort_unstable();
    assert_eq!(learned, ["It is so.", "Plain and whole it is."]);
    let left_out: Vec<(&str, usize)> =
        built.report.left_out.iter().map(|(why, count)| (why.as_str(), *count)).collect();
    assert_eq!(
        left_out,
        [("no constraint", 1), ("no evidence can be written of keywords:rhyme", 1)]
    );
    let several = built.eft.iter().find(|row| row.completion.contains("\n2. Evidence: "));
    let several = several.expect("a prompt with two constraints is asked about both");
    assert!(several.completion.starts_with("1. Evidence: "), "{several:?}");
    assert!(built.eft.iter().any(|row| row.messages[0].content.contains("Cut off in the mid")));
}

#[test]
fn what_cannot_be_built_is_said() {
    let (verifier, judge) = rubrics();
    let size = EftSize { eft: 10, ift: 10, seed: 1 };
    let none = [answered("a", &[], &[("So.", true)])];
    let both = EftRubrics { verifier: &verifier, judge: &judge };
    let error = from_verifier(&none, both, size).unwrap_err();
    assert_eq!(error.code(), Code::NothingToTeach);
    assert!(error.to_string().contains("1 prompts: no constraint"), "{error}");
    let engine = RubricEngine::new().unwrap();
    let other = Rubric::load(&engine, bundled::ADDITIVE_FIVE).unwrap();
    let some = [answered("a", &[("punctuation:no_comma", "")], &[("So it is.", true)])];
    let wrong = EftRubrics { verifier: &verifier, judge: &other };
    let error = from_verifier(&some, wrong, size).unwrap_err();
    assert_eq!(error.code(), Code::RubricReadsOtherwise);
    // Words for requirements that are not the constraints' would be asked about in another order.
    let mixed = [("punctuation:no_comma", ""), ("requirement.x", "a"), ("requirement.y", "b")];
    let mixed = [answered("a", &mixed, &[("So it is.", true)])];
    let error = from_verifier(&mixed, both, size).unwrap_err();
    assert!(error.to_string().contains("one for one"), "{error}");
}

/// A near miss is one: of the changed answers the verifier finds some met and some not, for every kind.
#[test]
fn changed_answers_meet_and_just_miss_every_kind() {
    let (verifier, _) = rubrics();
    let answered = every_kind();
    let mut dice = Dice::new(Seed::root(3));
    let pool = EftPool::of(&answered, &verifier, &mut dice).unwrap();
    let mut found: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for one in pool.candidates.iter().filter(|one| !one.origin.is_as_given()) {
        for (name, met) in &one.met {
            let (yes, no) = found.entry(name).or_default();
            *(if *met { yes } else { no }) += 1;
        }
    }
    for (name, (yes, no)) in found {
        assert!(yes >= 3 && no >= 3, "{name}: {yes} meet it, {no} miss it");
    }
}
