//! `gradus eft build` and `gradus eval --suite`: what a person does with them, on files and on a run that
//! is over.

use crate::runs::{alone, copied, digest, gradus, whole};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Output;

fn done(arguments: &[&str]) -> Output {
    gradus().args(arguments).output().unwrap()
}

fn said(arguments: &[&str]) -> String {
    let done = done(arguments);
    let error = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{arguments:?}: {error}");
    String::from_utf8(done.stdout).unwrap()
}

fn refused(arguments: &[&str]) -> String {
    let done = done(arguments);
    assert_eq!(done.status.code(), Some(2), "{arguments:?}");
    String::from_utf8_lossy(&done.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn lines(path: &Path, rows: &[Value]) {
    let rows: Vec<String> = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(path, rows.concat()).unwrap();
}

#[test]
fn seed_data_is_built_from_answers_of_ones_own() {
    let root = tempfile::tempdir().unwrap();
    let (answers, out) = (root.path().join("answers.jsonl"), root.path().join("seed"));
    let row = |n: usize, completion: &str| {
        json!({"prompt": format!("Say {n}."), "completion": completion,
            "fields": {"punctuation:no_comma": "", "requirement": "No commas."}})
    };
    let rows: Vec<Value> = (0..6)
        .map(|n| row(n, if n % 2 == 0 { "It is so and so." } else { "It is, as I say, so." }))
        .collect();
    lines(&answers, &rows);
    let build = ["eft", "build", "--from", "verifier", "--answers", text(&answers), "--rows", "20"];
    let out = [&build[..], &["--out", text(&out)]].concat();
    let shown = said(&out);
    assert!(
        shown.contains("punctuation:no_comma") && shown.contains("next: gradus init"),
        "{shown}"
    );
    let seed = root.path().join("seed");
    let report: Value =
        serde_json::from_str(&std::fs::read_to_string(seed.join("report.json")).unwrap()).unwrap();
    assert_eq!((&report["ift_rows"], &report["unread"]), (&3.into(), &0.into()));
    let eft = std::fs::read_to_string(seed.join("eft.jsonl")).unwrap();
    assert_eq!(eft.lines().count() as u64, report["eft_rows"].as_u64().unwrap());
    let row: Value = serde_json::from_str(eft.lines().next().unwrap()).unwrap();
    assert!(row["messages"][1]["content"].as_str().unwrap().starts_with("Evidence: "), "{row}");
    // What is there is not written over; nothing to teach is said.
    assert!(refused(&out).contains("is not empty"));
    lines(&answers, &[json!({"prompt": "a", "completion": "b"})]);
    let other = root.path().join("other");
    let error = refused(&[&build[..], &["--out", text(&other)]].concat());
    assert!(error.contains("GRADUS0803") && error.contains("no constraint"), "{error}");
    assert!(!other.join("eft.jsonl").exists());
}

#[test]
fn policies_are_measured_by_suites_and_the_run_stays_as_it_is() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let run = copied(&whole().dir(), &root.path().join("run"));
    let before = digest(&run);
    let file = root.path().join("constrained.jsonl");
    let row = |n: usize, words: &str| {
        json!({"prompt": format!("add {n} and 3 ."),
            "fields": {"length_constraints:number_words": words}})
    };
    lines(
        &file,
        &[
            row(1, "less than 40"),
            row(2, "at least 40"),
            row(4, "less than 40"),
            json!({"prompt": "b"}),
        ],
    );
    let of = |arguments: &[&str]| {
        let ours = ["eval", text(&run), "--device", "cpu", "--policy", "M1,M2"];
        [&ours[..], arguments].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run_suite = |arguments: &[&str]| {
        let all = of(arguments);
        said(&all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let verifier =
        ["--suite", "verifier", "--file", text(&file), "--answers", "2", "--max-new-tokens", "12"];
    let shown = run_suite(&verifier);
    for wanted in ["3 prompts, 2 answers each", "1 prompts left out", "M2 - M1: ", "nats/token"] {
        assert!(shown.contains(wanted), "{wanted}: {shown}");
    }
    let found: Value =
        serde_json::from_str(&run_suite(&[&verifier[..], &["--json"]].concat())).unwrap();
    for policy in found["policies"].as_array().unwrap() {
        let met = policy["met"]["mean"].as_f64().unwrap();
        assert!((met - 2.0 / 3.0).abs() < 1e-9, "twelve tokens are under forty words: {policy}");
        assert!(policy["base_nats"].as_f64().unwrap() < 0.0, "{policy}");
    }
    // What was found is kept, and a line that a kill cut off is asked again.
    let kept: Vec<_> =
        std::fs::read_dir(run.join("suites")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(kept.len(), 1);
    let rows = std::fs::read_dir(&kept[0]).unwrap().next().unwrap().unwrap().path();
    let whole_text = std::fs::read_to_string(&rows).unwrap();
    std::fs::write(&rows, &whole_text[..whole_text.len() - 20]).unwrap();
    assert_eq!(run_suite(&verifier), shown, "the same after a kill");
    std::fs::write(&rows, "nonsense\n").unwrap();
    let all = of(&verifier);
    let error = refused(&all.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(error.contains("GRADUS0806") && error.contains(":1"), "{error}");

    let questions = root.path().join("questions.jsonl");
    let choices = json!({"text": ["5 .", "dog ."], "label": ["A", "B"]});
    lines(
        &questions,
        &[json!({"question": "add 2 and 3 .", "choices": choices, "answerKey": "A"})],
    );
    let shown = run_suite(&["--suite", "choices", "--file", text(&questions)]);
    assert!(shown.contains("1 questions") && shown.contains("right, by length"), "{shown}");

    let ranked = root.path().join("ranked.jsonl");
    lines(
        &ranked,
        &[
            json!({"prompt": "add 2 and 3 .", "answers": [
        {"text": "5 .", "rank": 0}, {"text": "dog .", "rank": 1}]}),
            json!({"prompt": "add 1 and 3 .", "chosen": "4 .", "rejected": "dog ."}),
        ],
    );
    let shown = run_suite(&["--suite", "ranked", "--file", text(&ranked), "--samples", "1"]);
    assert!(shown.contains("2 prompts, judged under") && shown.contains("4/4"), "{shown}");
    let good = root.path().join("good.jsonl");
    let row = |a: &str, b: &str| json!({"prompt": a, "completion": b});
    lines(&good, &[row("sort : b a c d .", "a b c d ."), row("sort : d c a .", "a c d and so .")]);
    let shown = run_suite(&["--suite", "damaged", "--file", text(&good), "--samples", "1"]);
    assert!(shown.contains("shuffled: ") && shown.contains("other task's answer: "), "{shown}");

    for (arguments, wanted) in [
        (&["--suite", "choices"][..], "--file FILE"),
        (&["--suite", "choices", "--file", text(&ranked)][..], "ranked.jsonl:1"),
        (&["--suite", "ranked", "--file", text(&questions)][..], "questions.jsonl:1"),
        (&["--suite", "verifier", "--file", text(&good)][..], "no prompt brings a constraint"),
    ] {
        let all = of(arguments);
        let error = refused(&all.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(error.contains(wanted), "{error}");
    }
    let twice = refused(&["eval", text(&run), "--suite", "ifeval", "--policy", "M1,M1"]);
    assert!(twice.contains("the same weights"), "{twice}");
    assert_eq!(digest(&run), before, "the run is as it was");
}
