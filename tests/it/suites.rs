//! `gradus eft build` and `gradus eval --suite`: what a person does with them, on files and on a run that
//! is over.

use crate::runs::{alone, copied, digest, gradus, whole};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

fn done(arguments: &[&str]) -> Output {
    gradus().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
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

/// A copy of a run that is over, which suites measure.
struct Measured {
    root: tempfile::TempDir,
    run: PathBuf,
    before: String,
}

impl Measured {
    fn new() -> Measured {
        let root = tempfile::tempdir().unwrap();
        let run = copied(&whole().dir(), &root.path().join("run"));
        let before = digest(&run);
        Measured { root, run, before }
    }

    /// A file of rows.
    fn file(&self, name: &str, rows: &[Value]) -> String {
        let path = self.root.path().join(name);
        lines(&path, rows);
        text(&path).to_owned()
    }

    fn arguments<'a>(&'a self, suite: &[&'a str]) -> Vec<&'a str> {
        let ours = ["eval", text(&self.run), "--device", "cpu", "--policy", "M1,M2", "--suite"];
        [&ours[..], suite].concat()
    }

    fn said(&self, suite: &[&str]) -> String {
        said(&self.arguments(suite))
    }

    fn refused(&self, suite: &[&str]) -> String {
        refused(&self.arguments(suite))
    }

    /// A file in which a policy's rows under a suite are kept.
    fn kept(&self, suite: &str) -> PathBuf {
        let inside = |dir: &Path| -> Vec<PathBuf> {
            let mut all: Vec<_> =
                std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
            all.sort();
            all
        };
        let all = inside(&self.run.join("suites"));
        let of_suite = |dir: &&PathBuf| text(dir).contains(&format!("suites/{suite}-"));
        inside(all.iter().find(of_suite).unwrap()).swap_remove(0)
    }

    fn is_as_it_was(&self) {
        assert_eq!(digest(&self.run), self.before, "the run is as it was");
    }
}

/// A prompt that the run answered.
fn answered_prompt(run: &Path) -> String {
    let listed =
        said(&["prompts", "list", text(run), "--state", "answered", "--limit", "1", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    listed[0]["prompt"][0]["content"].as_str().unwrap().to_owned()
}

#[test]
fn a_program_measures_policies_and_what_it_found_is_kept() {
    let _alone = alone();
    let measured = Measured::new();
    let row = |n: usize, words: &str| {
        json!({"prompt": format!("add {n} and 3 ."),
            "fields": {"length_constraints:number_words": words}})
    };
    let rows = [
        row(1, "less than 40"),
        row(2, "at least 40"),
        row(4, "less than 40"),
        json!({"prompt": "b"}),
    ];
    let file = measured.file("constrained.jsonl", &rows);
    let verifier = ["verifier", "--file", &file, "--answers", "2", "--max-new-tokens", "12"];
    let shown = measured.said(&verifier);
    for wanted in ["3 prompts, 2 answers each", "1 prompts left out", "M2 - M1: ", "nats/token"] {
        assert!(shown.contains(wanted), "{wanted}: {shown}");
    }
    let found = measured.said(&[&verifier[..], &["--json"]].concat());
    let found: Value = serde_json::from_str(&found).unwrap();
    for policy in found["policies"].as_array().unwrap() {
        let met = policy["met"]["mean"].as_f64().unwrap();
        assert!((met - 2.0 / 3.0).abs() < 1e-9, "twelve tokens are under forty words: {policy}");
        assert!(policy["base_nats"].as_f64().unwrap() < 0.0, "{policy}");
    }
    // A line that a kill cut off is asked again.
    let rows = measured.kept("verifier");
    let whole_text = std::fs::read_to_string(&rows).unwrap();
    std::fs::write(&rows, &whole_text[..whole_text.len() - 20]).unwrap();
    assert_eq!(measured.said(&verifier), shown, "the same after a kill");
    std::fs::write(&rows, "nonsense\n").unwrap();
    // What the run was trained on is said to be.
    let taught = answered_prompt(&measured.run);
    let row = json!({"prompt": taught, "fields": {"punctuation:no_comma": ""}});
    let known = measured.file("known.jsonl", &[row]);
    let shown = measured.said(&["verifier", "--file", &known, "--max-new-tokens", "4"]);
    assert!(shown.contains("1 of them equal, or nearly"), "{shown}");
    let error = measured.refused(&verifier);
    assert!(error.contains("GRADUS0806") && error.contains(":1"), "{error}");
    measured.is_as_it_was();
}

#[test]
fn choices_and_judging_are_measured() {
    let _alone = alone();
    let measured = Measured::new();
    let choices = json!({"text": ["5 .", "dog ."], "label": ["A", "B"]});
    let question = json!({"question": "add 2 and 3 .", "choices": choices, "answerKey": "A"});
    let questions = measured.file("questions.jsonl", &[question]);
    let shown = measured.said(&["choices", "--file", &questions]);
    assert!(shown.contains("1 questions") && shown.contains("right, by length"), "{shown}");

    let answers = json!([{"text": "5 .", "rank": 0}, {"text": "dog .", "rank": 1}]);
    let rows = [
        json!({"prompt": "add 2 and 3 .", "answers": answers}),
        json!({"prompt": "add 1 and 3 .", "chosen": "4 .", "rejected": "dog ."}),
    ];
    let ranked = measured.file("ranked.jsonl", &rows);
    let shown = measured.said(&["ranked", "--file", &ranked, "--samples", "1"]);
    assert!(shown.contains("2 prompts, judged under") && shown.contains("4/4"), "{shown}");
    let kept = measured.kept("ranked");
    let whole = std::fs::read_to_string(&kept).unwrap();
    assert_eq!(whole.lines().count(), 2, "a line for each prompt, with the judge's words: {whole}");
    std::fs::write(&kept, &whole[..whole.len() - 20]).unwrap();
    let asked = ["ranked", "--file", &ranked, "--samples", "1"];
    assert_eq!(measured.said(&asked), shown, "the same after a kill");
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), whole);
    let row = |a: &str, b: &str| json!({"prompt": a, "completion": b});
    let rows = [row("sort : b a c d .", "a b c d ."), row("sort : d c a .", "a c d and so .")];
    let good = measured.file("good.jsonl", &rows);
    let shown = measured.said(&["damaged", "--file", &good, "--samples", "1"]);
    assert!(shown.contains("shuffled: ") && shown.contains("other task's answer: "), "{shown}");

    for (suite, wanted) in [
        (&["choices"][..], "--file FILE"),
        (&["choices", "--file", &ranked], "ranked.jsonl:1"),
        (&["ranked", "--file", &questions], "questions.jsonl:1"),
        (&["verifier", "--file", &good], "no prompt brings a constraint"),
        (&["ifeval", "--policy", "M1,M1"], "cannot be used multiple times"),
    ] {
        let error = measured.refused(suite);
        assert!(error.contains(wanted), "{error}");
    }
    let twice = refused(&["eval", text(&measured.run), "--suite", "ifeval", "--policy", "M1,M1"]);
    assert!(twice.contains("the same weights"), "{twice}");
    measured.is_as_it_was();
}
