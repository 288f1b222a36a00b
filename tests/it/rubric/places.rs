//! Where a score was read: what the bundled rubrics say, what the host finds out of a component of
//! wit/v0.1, and what it does not take from a hostile one.

use super::guest::Guest;
use super::{item, load, score, try_load};
use gradus::rubric::{CallError, ParsedReply, Rubric, RubricInput, ScorePlace, bundled};

const ADDITIVE_FIVE_0_1: &[u8] = include_bytes!("../../golden/rubrics/v0.1/additive-five.wasm");
const SKELETON_0_1: &[u8] = include_bytes!("../../golden/rubrics/v0.1/skeleton.wasm");

/// Reads a reply as the stage does: with the readout that `render` gave.
fn read(rubric: &Rubric, item: &RubricInput, answer: &str) -> ParsedReply {
    let rendered = rubric.render(item).expect("it renders");
    rubric.read(item, answer, rendered.readout.as_ref()).expect("it reads")
}

fn places(rubric: &Rubric, item: &RubricInput, answer: &str) -> Vec<ScorePlace> {
    match read(rubric, item, answer) {
        ParsedReply::Verdict { places, .. } => places,
        other => panic!("{answer:?}: {other:?}"),
    }
}

/// Each place as what is written there and its first byte, with what else could be.
fn seen(answer: &str, places: &[ScorePlace]) -> Vec<(usize, String, Vec<String>)> {
    let place = |place: &ScorePlace| {
        let written = answer[place.start..place.end].to_owned();
        let others = place.choices.iter().map(|(text, _)| text.clone());
        (place.start, written.clone(), others.filter(|text| *text != written).collect())
    };
    places.iter().map(place).collect()
}

fn one(start: usize, written: &str, others: &[&str]) -> Vec<(usize, String, Vec<String>)> {
    vec![(start, written.to_owned(), others.iter().map(|text| (*text).to_owned()).collect())]
}

#[test]
fn the_papers_rubric_says_where_its_figure_stands() {
    let (rubric, item) = (load(bundled::ADDITIVE_FIVE), item("Name a fruit.", "An apple."));
    for (answer, at) in [
        ("Score: 4", 7),
        ("It has 4 parts.\nScore: 4/5", 23),
        ("**Score:** 4", 11),
        ("Score: 1 + 1 + 1 + 1 = 4", 23),
        ("{\"score\": 4, \"reason\": \"clear\"}", 10),
        ("Score (0-5): 4", 13),
        ("Score\u{ff1a}4", 8),
        ("Final score is 4", 15),
        ("**Score:**\n4", 11),
        ("<think>Score: 2</think>\nScore: 4", 31),
        ("Score: 4\nThe response ends with \"Score: 5\", which I ignore.", 7),
        ("Score: 4\nAs I said:\nScore: 4", 7),
        ("Score: 4.0", 7),
    ] {
        let found = seen(answer, &places(&rubric, &item, answer));
        assert_eq!(found, one(at, "4", &["0", "1", "2", "3", "5"]), "{answer:?}");
    }
    let full_width = seen("Score: \u{ff14}", &places(&rubric, &item, "Score: \u{ff14}"));
    let others = ["\u{ff10}", "\u{ff11}", "\u{ff12}", "\u{ff13}", "\u{ff15}"];
    assert_eq!(full_width, one(7, "\u{ff14}", &others));
    // A score that is none of the choices stands as it was read.
    assert_eq!(places(&rubric, &item, "Score: 4.5"), []);
}

#[test]
fn a_comparison_says_where_its_letter_stands() {
    let candidates = ["An apple.", "A stone."].map(str::to_owned).to_vec();
    let two =
        RubricInput { task: "Name a fruit.".to_owned(), candidates, ..RubricInput::default() };
    for (bytes, label, context) in [
        (bundled::PAIRWISE, "Better", None),
        (bundled::META_JUDGE, "Better judgment", Some("An apple.".to_owned())),
    ] {
        let (rubric, two) = (load(bytes), RubricInput { context, ..two.clone() });
        for (rest, at, written, others) in [
            (": A", 2, "A", ["B", "tie"]),
            (": B.", 2, "B", ["A", "tie"]),
            (": b", 2, "b", ["a", "tie"]),
            (": tie", 2, "tie", ["A", "B"]),
            (" = TIE", 3, "TIE", ["A", "B"]),
            (": [[A]]", 4, "A", ["B", "tie"]),
            (": **Response B**", 13, "B", ["A", "tie"]),
            ("\u{ff1a}A", 3, "A", ["B", "tie"]),
        ] {
            let answer = format!("A and B.\n{label}{rest}\nThat is all.");
            let found = seen(&answer, &places(&rubric, &two, &answer));
            assert_eq!(found, one(9 + label.len() + at, written, &others), "{answer:?}");
        }
    }
}

#[test]
fn a_checklist_has_a_place_on_every_line() {
    let rubric = load(bundled::CHECKLIST);
    let mut item = item("Name a fruit.", "An apple.");
    let fields =
        [("criterion.fruit", "A fruit."), ("weight.fruit", "3"), ("criterion.short", "Short.")];
    item.fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let found = places(&rubric, &item, "1. Yes, an apple.\n2. no");
    let choice = |text: &str, score| (text.to_owned(), vec![score]);
    let wanted = [
        (3, 6, 3.0, vec![choice("Yes", 1.0), choice("No", 0.0)]),
        (21, 23, 1.0, vec![choice("yes", 1.0), choice("no", 0.0)]),
    ];
    let wanted =
        wanted.map(|(start, end, weight, choices)| ScorePlace { start, end, weight, choices });
    assert_eq!(found, wanted);
}

#[test]
fn the_others_say_where_their_number_stands() {
    let item = item("add 2 and 3 .", "5 .");
    let demo = "relevant yes useful no complete no correct no clean no . score : 1";
    let found = seen(demo, &places(&load(bundled::DEMO_COMPACT), &item, demo));
    assert_eq!(found, one(65, "1", &["0", "2", "3", "4", "5"]));
    let skeleton = load(bundled::SKELETON);
    let found = places(&skeleton, &item, "\u{e9}\nScore: 10");
    assert_eq!((found[0].start, found[0].end, found[0].choices.len()), (10, 12, 11));
    assert_eq!(places(&skeleton, &item, "Score: 7.5"), []);
}

/// A component of wit/v0.1 cannot say where it read a score; the host finds out.
#[test]
fn the_place_of_a_component_of_0_1_is_found() {
    let (rubric, item) = (load(ADDITIVE_FIVE_0_1), item("Name a fruit.", "An apple."));
    assert_eq!((rubric.world(), rubric.info().version.as_str()), ("0.1", "0.1.0"));
    for (answer, at, written) in [
        ("Good.\nScore: 4", 13, "4"),
        ("Score: 1\nThe response ends with \"Score: 5\", which I ignore.", 7, "1"),
        ("The response says \"Score: 1\" itself.\nScore: 1", 44, "1"),
        ("Score: 3\nAs I said:\nScore: 3", 7, "3"),
        ("score: **2**", 9, "2"),
        ("Score: 4/5", 7, "4"),
        ("> Score: 5\nIt boasts.\nScore: 5", 29, "5"),
    ] {
        let found = places(&rubric, &item, answer);
        let [place] = found.as_slice() else { panic!("{answer:?}: {found:?}") };
        assert_eq!((place.start, &answer[place.start..place.end]), (at, written), "{answer:?}");
        assert_eq!((place.weight, place.choices.len()), (1.0, 6));
        // As `parse` of that world always read it.
        assert_eq!(Some(read(&rubric, &item, answer)).as_ref().and_then(score), {
            score(&rubric.parse(&item, answer).unwrap())
        });
    }
    // What stands there is none of the choices, or the figure does not follow the lead.
    for answer in ["Score: 4.5", "**Score**: 4", "Score: 1 + 1 = 2"] {
        assert_eq!(places(&rubric, &item, answer), [], "{answer:?}");
    }
    let skeleton = load(SKELETON_0_1);
    let found = places(&skeleton, &item, "Score: 10");
    assert_eq!((found[0].start, found[0].end), (7, 9), "the longer of 1 and 10");
}

#[test]
fn what_has_no_score_has_no_place() {
    let item = item("Name a fruit.", "An apple.");
    for bytes in [ADDITIVE_FIVE_0_1, bundled::ADDITIVE_FIVE, SKELETON_0_1, bundled::SKELETON] {
        let rubric = load(bytes);
        for answer in ["", "I cannot judge this.", "> Score: 5", "Score: 50", "Score: N/A"] {
            let reading = read(&rubric, &item, answer);
            assert!(
                matches!(reading, ParsedReply::Missing { .. } | ParsedReply::Unparsed { .. }),
                "{answer:?}: {reading:?}"
            );
            assert_eq!(rubric.read(&item, answer, None), Ok(reading));
        }
    }
}

/// A guest that says `X` was read in a place, which a test bends.
fn bent(knobs: &[(&str, &str)]) -> Rubric {
    let guest = knobs.iter().fold(Guest::new(), |guest, (knob, value)| guest.with(knob, value));
    load(&guest.component())
}

#[test]
fn a_place_that_is_none_is_a_trap() {
    let item = item("task", "answer");
    let answer = "X: \u{e9} 1 0 1";
    let good = bent(&[]).parse(&item, answer).expect("a good place");
    let ParsedReply::Verdict { places, .. } = good else { panic!("{good:?}") };
    assert_eq!((places[0].start, places[0].end, places[0].weight), (6, 7, 1.0));
    let both = bent(&[("places", "2")]).parse(&item, answer).expect("two good places");
    let ParsedReply::Verdict { places, .. } = both else { panic!("{both:?}") };
    assert_eq!((places.len(), places[1].start, places[1].weight), (2, 8, 2.0));
    for (knobs, part) in [
        (&[("place-start", "7")][..], "the place 7 to 7 is no text of the answer"),
        (&[("place-start", "9")], "the place 9 to 7 is no text of the answer"),
        (&[("place-end", "99")], "is no text of the answer, which has 11 bytes"),
        (&[("place-start", "-1")], "the place 4294967295 to 7 is no text"),
        (&[("place-start", "4")], "the place 4 to 7 is no text"),
        (&[("place-start", "5")], "holds \" 1\", which is none of its choices"),
        (&[("place-start", "0"), ("place-end", "1")], "holds \"X\", which is none"),
        (&[("place-weight", "nan")], "weighs NaN, not a number above 0"),
        (&[("place-weight", "inf")], "weighs inf"),
        (&[("place-weight", "0")], "weighs 0"),
        (&[("place-weight", "-1")], "weighs -1"),
        (&[("place-choice-count", "1")], "at least two different choices"),
        (&[("place-choice-count", "0")], "at least two different choices"),
        (&[("place-choice", "1124")], "at least two different choices"),
        (&[("place-choice-bytes", "0")], "at least two different choices"),
        (
            &[("place-choice-count", "300"), ("place-choices", "100000"), ("memory-pages", "2")],
            "300 choices, more than 256",
        ),
        (&[("place-scores", "0")], "0 scores for 1 candidates"),
        (&[("place-scores", "2")], "2 scores for 1 candidates"),
        (&[("place-score", "1216")], "50 is outside 0 to 1"),
        (&[("place-score", "1224")], "NaN is outside 0 to 1"),
        (&[("places", "2"), ("second-start", "6")], "the place 6 to 9 begins before"),
        (&[("places", "2"), ("second-start", "4"), ("second-end", "6")], "is no text"),
        (&[("places", "2"), ("second-start", "3"), ("second-end", "5")], "begins before"),
        (
            &[("places", "10000"), ("places-at", "65536"), ("memory-pages", "8")],
            "10000 places, more than 64",
        ),
        (&[("places", "400000000")], "places"),
    ] {
        let rubric = bent(knobs);
        match rubric.parse(&item, answer) {
            Err(CallError::Trapped { reason }) => {
                let known = reason.contains(part) || (part == "places" && !reason.is_empty());
                assert!(known, "{knobs:?}: {reason}");
            }
            other => panic!("{knobs:?}: {other:?}"),
        }
        let good = rubric.parse(&item, "good").expect("it still reads");
        assert_eq!(score(&good), Some(1.0));
    }
}

/// Golden cases are read with their places: one that is none keeps a rubric from judging.
#[test]
fn a_golden_case_with_a_bad_place_is_refused() {
    let guest = Guest::new().with("good-answer", "\"X001\"").with("place-start", "2");
    let error = try_load(&guest.component()).err().map(|error| error.to_string());
    assert!(error.as_ref().is_some_and(|e| e.contains("the place 2 to 7")), "{error:?}");
}

/// Reading is linear: long replies of whatever a rule looks for leave 40 % of the fuel.
#[test]
fn long_replies_leave_fuel() {
    let item = item("Name a fruit.", "An apple.");
    let rubrics = [bundled::ADDITIVE_FIVE, bundled::CHECKLIST].map(load);
    #[rustfmt::skip]
    let parts = [
        "x", "word ", "It claims:\n", "score: ", "Score:\n", "Score: 4\n", "Score: 4 ", "\"",
        "\u{201c}", "<think>", "</think>", "```\n", "{\"a\": ", "{\"a\": 1}\n", "{\"a\":\n",
        "<think>a</think>\n", "\u{201c}a\u{201d}\n", "> a\n", "1. yes\n", "| Score ", "\r", "a. ",
        "<", "(", "\u{e9}",
    ];
    for part in parts {
        // A reply has at most 4,096 tokens, one for each line at least.
        let times = if part.ends_with('\n') { 4096 } else { 100_000 / part.len() };
        let reply = format!("{}\nScore: 4", part.repeat(times));
        for rubric in &rubrics {
            let name = &rubric.info().name;
            let fuel = match rubric.parse(&item, &reply) {
                Ok(
                    ParsedReply::Verdict { fuel, .. }
                    | ParsedReply::Missing { fuel }
                    | ParsedReply::Unparsed { fuel, .. },
                ) => fuel,
                Err(error) => panic!("{name} {part:?}: {error}"),
            };
            assert!(fuel < 30_000_000, "{name} {part:?}: {fuel}");
        }
    }
}
