//! The commands that a person looks for, on a run that is over: what they say, and that they change
//! nothing in it.

use crate::runs::{alone, changed_run, copied, digest, gradus, json, records, whole};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

fn done(arguments: &[&str]) -> Output {
    let mut command = gradus();
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

fn said(arguments: &[&str]) -> String {
    let done = done(arguments);
    assert!(done.status.success(), "{arguments:?}: {}", err(&done));
    String::from_utf8(done.stdout).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn parsed(arguments: &[&str]) -> Value {
    serde_json::from_str(&said(arguments)).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn prompts_are_listed_with_what_became_of_them() {
    let run = whole().dir();
    let run = text(&run);
    let all = parsed(&["prompts", "list", run, "--json"]);
    let all = all.as_array().unwrap();
    let of = |state: &str| all.iter().filter(|prompt| prompt["state"] == state).count();
    assert_eq!(of("held_out"), 24);
    assert!(of("answered") >= 96 && of("demonstration") > 0, "{}", of("answered"));
    for prompt in all {
        let iterations = prompt["iterations"].as_array().unwrap();
        assert_eq!(!iterations.is_empty(), prompt["state"] == "answered", "{prompt}");
        assert!(!prompt["prompt"][0]["content"].as_str().unwrap().is_empty());
    }
    let listed = said(&["prompts", "list", run, "--state", "answered", "--limit", "3"]);
    assert!(listed.contains("3 of ") && listed.lines().count() == 5, "{listed}");
    let asked = all[0]["prompt"][0]["content"].as_str().unwrap();
    let found = parsed(&["prompts", "list", run, "--json", "--contains", asked]);
    assert!(found.as_array().unwrap().iter().any(|one| one["prompt_id"] == all[0]["prompt_id"]));

    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    let manifest =
        parsed(&["export", "prompts", run, "--out", text(&out), "--state", "held-out", "--json"]);
    assert_eq!(manifest["rows"], 24);
    let rows = std::fs::read_to_string(out.join("train.jsonl")).unwrap();
    let row: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    assert_eq!((&row["state"], &row["prompt"][0]["role"]), (&"held_out".into(), &"user".into()));
}

#[test]
fn a_policy_is_shown_and_promoted() {
    let root = tempfile::tempdir().unwrap();
    let run = copied(&whole().dir(), &root.path().join("run"));
    let run = text(&run);
    let shown = said(&["policy", "show", run, "M2"]);
    assert!(shown.contains("weights") && shown.contains("M2 DPO"), "{shown}");
    assert!(!shown.contains("M3 DPO") && shown.contains("gradus export model"), "{shown}");
    let base = parsed(&["policy", "show", run, "base", "--json"]);
    assert_eq!((&base["policy"]["name"], &base["iteration"]), (&"M0".into(), &Value::Null));
    let latest = parsed(&["policy", "show", run, "--json"]);
    assert_eq!(latest["iteration"]["iteration"], 3);
    let unknown = done(&["policy", "show", run, "M9"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(err(&unknown).contains("It has M0, M1, M2, M3"), "{}", err(&unknown));
    assert!(said(&["policy", "promote", run, "M1"]).contains("M1"));
    assert_eq!(parsed(&["policy", "show", run, "--json"])["policy"]["name"], "M1");
    assert!(said(&["policy", "choose", run, "M3"]).contains("acts from here on"), "the same verb");
}

#[test]
fn settings_are_explained_compared_and_set() {
    let explained = said(&["config", "explain", "train.dpo.train_batch_size"]);
    for part in
        ["train.dpo.per_device_train_batch_size", "1 to 65536", "read as", "Pairs of a step"]
    {
        assert!(explained.contains(part), "{part}: {explained}");
    }
    assert!(said(&["config", "explain", "train"]).contains("train.dpo.beta"));
    let unknown = done(&["config", "explain", "train.dpo.betta"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(err(&unknown).contains("Did you mean train.dpo.beta?"), "{}", err(&unknown));
    assert_eq!(parsed(&["config", "schema"])["properties"]["seed"]["type"], "integer");

    let root = tempfile::tempdir().unwrap();
    let run = changed_run(&root, |config| config.train.dpo.beta = 0.25);
    let run = text(&run);
    let one = said(&["config", "explain", "train.dpo.beta", "--run", run]);
    assert!(one.contains("this run   0.25"), "{one}");
    let diff = parsed(&["config", "diff", run, "--preset", "demo", "--json"]);
    let keys: Vec<&str> =
        diff["otherwise"].as_array().unwrap().iter().map(|c| c["key"].as_str().unwrap()).collect();
    assert!(
        keys.contains(&"train.dpo.beta") && keys.contains(&"prompts.per_iteration"),
        "{keys:?}"
    );
    assert_eq!(diff["to_come"]["changes"][0]["key"], "train.dpo.beta");
    let none = done(&["config", "diff", run, "--preset", "huge"]);
    assert_eq!(none.status.code(), Some(2));

    let wrong = done(&["run", run, "--set", "iterations=none"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        err(&wrong).contains("iterations cannot be none: it takes a whole number"),
        "{}",
        err(&wrong)
    );
}

/// `--set` counts for the process and is recorded as a setting is.
#[test]
fn what_is_set_for_a_process_is_recorded() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let run = copied(&whole().dir(), &root.path().join("run"));
    let run = text(&run);
    let out = done(&[
        "run",
        run,
        "--device",
        "cpu",
        "--json",
        "--set",
        "iterations=4",
        "--set",
        "prompts.generate=false",
        "--set",
        "prompts.reuse=when_empty",
        "--set",
        "train.dpo.beta=0.2",
    ]);
    assert!(out.status.success(), "{}", err(&out));
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    let row = &report["iterations"][3];
    let changed: Vec<&str> = row["settings_changed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| change["key"].as_str().unwrap())
        .collect();
    assert!(
        changed.contains(&"train.dpo.beta") && changed.contains(&"prompts.reuse"),
        "{changed:?}"
    );
    // What is lacking is taken from those that were answered.
    assert_eq!(row["prompts"], 48);
    assert!(row["prompts_reused"].as_u64().unwrap() > 0, "{row}");
    let settings = std::fs::read_to_string(Path::new(run).join("gradus.yaml")).unwrap();
    assert!(settings.contains("beta: 0.1\n"), "the file stays as it was");
}

#[test]
fn two_policies_answer_side_by_side_and_are_compared() {
    let _alone = alone();
    let (run, root) = (whole().dir(), tempfile::tempdir().unwrap());
    let (run, before) = (text(&run), digest(&whole().dir()));
    let mut chat = gradus();
    chat.args(["chat", run, "--device", "cpu", "--temperature", "0"]);
    chat.args(["--policy", "base", "--policy", "M3"]).stdin(Stdio::piped());
    let mut child = chat.stdout(Stdio::piped()).spawn().unwrap();
    let lines = "reverse : cat dog .\n\n/reset\nadd 2 and 3 .\n/quit\nnever read\n";
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let heard = child.wait_with_output().unwrap();
    assert!(heard.status.success());
    let heard = String::from_utf8(heard.stdout).unwrap();
    let who: Vec<&str> = heard.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(who, ["M0", "M3", "M0", "M3"], "{heard}");
    // It is what generate says, too.
    let alone_said = said(&[
        "generate",
        run,
        "--policy",
        "M3",
        "--device",
        "cpu",
        "--temperature",
        "0",
        "--prompt",
        "add 2 and 3 .",
    ]);
    assert!(
        heard.ends_with(&format!("M3: {}", alone_said.trim_end().to_owned() + "\n")),
        "{heard} {alone_said}"
    );

    let prompts = root.path().join("prompts.txt");
    std::fs::write(&prompts, "add 2 and 3 .\nreverse : cat dog .\nsort : dog cat .\n").unwrap();
    let compare =
        ["eval", run, "--device", "cpu", "--against", "base", "--prompts", text(&prompts)];
    let found = parsed(&[&compare[..], &["--json"]].concat());
    assert_eq!(
        (&found["ours"], &found["theirs"], &found["judge"]),
        (&"M3".into(), &"M0".into(), &"M0".into())
    );
    assert_eq!(found["prompts"].as_array().unwrap().len(), 3);
    assert_eq!(found["rubrics"][0], "demo-compact@0.2.0");
    let versus = &found["evaluation"]["head_to_head"][0];
    let count = |key: &str| versus[key].as_u64().unwrap();
    assert!(count("wins") + count("ties") + count("losses") <= 3, "{versus}");
    assert_eq!(found, parsed(&[&compare[..], &["--json"]].concat()), "the same each time");
    let shown = said(&compare);
    assert!(shown.contains("M3 against M0 on 3 prompts") && shown.contains("win rate"), "{shown}");
    let same = done(&["eval", run, "--device", "cpu", "--against", "M3"]);
    assert_eq!(same.status.code(), Some(2));
    assert!(err(&same).contains("the same weights"), "{}", err(&same));
    assert_eq!(digest(&whole().dir()), before, "the run is as it was");
}

#[test]
fn a_file_of_ones_own_is_judged() {
    let _alone = alone();
    let (run, root) = (whole().dir(), tempfile::tempdir().unwrap());
    let (run, file) = (text(&run), root.path().join("own.jsonl"));
    let row = |prompt: &str, completion: &str| {
        format!("{}\n", serde_json::json!({"prompt": prompt, "completion": completion}))
    };
    let rows =
        [row("add 2 and 3 .", "5 ."), row("add 2 and 3 .", "dog ."), row("sort : b a .", "a b .")];
    std::fs::write(&file, rows.concat()).unwrap();
    let judge = ["judge", text(&file), "--run", run, "--device", "cpu", "--samples", "2"];
    let found = parsed(&[&judge[..], &["--json"]].concat());
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), 2, "rows of the same prompt come together");
    assert_eq!(found[0]["answers"].as_array().unwrap().len(), 2);
    for answer in found.iter().flat_map(|one| one["answers"].as_array().unwrap()) {
        assert_eq!(answer["verdicts"].as_array().unwrap().len(), 2, "{answer}");
        assert!(answer["score"].is_number(), "the reduced demo forces scores: {answer}");
    }
    assert!(said(&judge).contains("3 of 3 answers have a score; mean score"));
    // A rubric that is a program asks no model, and need not be installed.
    let program = said(&["judge", text(&file), "--run", run, "--rubric", "verifier", "--json"]);
    assert!(program.contains("verifier@"), "{program}");
    std::fs::write(&file, "add 2 and 3 .\n").unwrap();
    let none = done(&judge);
    assert_eq!(none.status.code(), Some(2));
    assert!(err(&none).contains("has prompts and no answers"), "{}", err(&none));
}

/// A loop that goes as it should raises no alarm.
#[test]
fn the_demo_raises_no_alarm() {
    let raised: Vec<_> = records(&whole().dir())
        .into_iter()
        .filter(|record| record.event.kind() == "alarm_raised")
        .collect();
    assert!(raised.is_empty(), "{raised:?}");
}

/// What was recorded under other numbers: nothing otherwise is nothing moved, and what was never drawn is
/// not made up.
#[test]
fn the_past_is_asked_what_if() {
    let run = whole().dir();
    let run = text(&run);
    let before = digest(&whole().dir());
    let total = |arguments: &[&str]| {
        let all = [&["what-if", run, "--json"][..], arguments].concat();
        parsed(&all)["total"].clone()
    };
    let same = total(&[]);
    assert_eq!(same["left"]["pairs"], same["right"]["pairs"], "{same}");
    assert_eq!(same["moved"].as_array().unwrap().len(), 0, "{same}");
    assert!(same["left"]["pairs"].as_u64().unwrap() > 0);
    let none = total(&["--min-gap", "1000"]);
    assert_eq!(none["right"]["pairs"], 0);
    assert_eq!(none["pairs"]["vanished"], none["left"]["pairs"], "{none}");
    let fewer = total(&["-n", "2", "-k", "1"]);
    let (left, right) = (&fewer["left"], &fewer["right"]);
    assert!(right["pairs"].as_u64() < left["pairs"].as_u64(), "{fewer}");
    assert!(right["judgments"].as_u64() < left["judgments"].as_u64(), "{fewer}");
    let shown = said(&["what-if", run, "--readout", "parsed", "--length-control", "0.3"]);
    assert!(shown.contains("what if") && shown.contains("recorded"), "{shown}");
    for (arguments, wanted) in [
        (&["-n", "9"][..], "9 answers to each prompt"),
        (&["-n", "1"], "1 answers to each prompt"),
        (&["-k", "99"], "99 judgments of each answer"),
        (&["--min-gap=-1"], "a number of 0 or more"),
    ] {
        let refused = done(&[&["what-if", run][..], arguments].concat());
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        assert!(err(&refused).contains(wanted), "{}", err(&refused));
    }
    assert_eq!(digest(&whole().dir()), before, "the run is as it was");
}

/// The page says what the JSON says, and the schema knows every key of it.
#[test]
fn a_report_is_a_verdict_with_its_reasons_and_its_schema() {
    let root = tempfile::tempdir().unwrap();
    let run = copied(&whole().dir(), &root.path().join("run"));
    let (run, plots) = (text(&run), root.path().join("plots"));
    said(&["report", run, "--png", text(&plots)]);
    let page = std::fs::read_to_string(Path::new(run).join("report.html")).unwrap();
    let report: Value =
        serde_json::from_str(&std::fs::read_to_string(Path::new(run).join("report.json")).unwrap())
            .unwrap();
    assert_eq!(json(&["report"], Path::new(run)), report, "printed or written");
    let sentence = report["verdict"]["sentence"].as_str().unwrap();
    assert!(page.contains(sentence) && sentence.contains("M3"), "{sentence}");
    let reasons = report["verdict"]["reasons"].as_array().unwrap();
    assert!(reasons.len() >= 5 && reasons.iter().any(|r| r["title"] == "More than a control"));
    assert_eq!(report["evidence"]["pairs"].as_array().unwrap().len(), 10);
    assert_eq!(report["evidence"]["answers"]["examples"].as_array().unwrap().len(), 10);
    assert!(report["evidence"]["missing"].is_null());
    for one in report["evidence"]["pairs"].as_array().unwrap() {
        assert!(!one["chosen"]["verdicts"].as_array().unwrap().is_empty(), "{one}");
        let joined: String = one["chosen"]["pieces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["text"].as_str().unwrap())
            .collect();
        assert!(!joined.is_empty());
    }
    for outside in ["<script", "http://", "https://", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let drawn = std::fs::read_dir(&plots).unwrap().count();
    assert!(drawn >= 8 && page.matches("<figure").count() == drawn, "{drawn}");
    for plot in std::fs::read_dir(&plots).unwrap() {
        let bytes = std::fs::read(plot.unwrap().path()).unwrap();
        assert!(bytes.starts_with(b"\x89PNG\r\n") && bytes.len() > 1000);
    }
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/report.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(schema).unwrap()).unwrap();
    known(&report, &schema, "");
}

/// Whether a schema knows every key of a value.
fn known(value: &Value, schema: &Value, path: &str) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let below = match &schema["properties"][key] {
                    Value::Null => &schema["additionalProperties"],
                    known => known,
                };
                assert!(!below.is_null(), "{path}/{key} is not in docs/report.schema.json");
                known(value, below, &format!("{path}/{key}"));
            }
        }
        Value::Array(all) => all.iter().for_each(|one| known(one, &schema["items"], path)),
        _ => {}
    }
}

#[test]
fn who_watches_over_services_is_told_by_the_exit_code() {
    let run = whole().dir();
    let idle = done(&["status", text(&run), "--check"]);
    assert_eq!(idle.status.code(), Some(1), "nobody works on it");
    assert!(said(&["status", text(&run)]).contains("idle"));
}

/// What goes on under the same settings ends where the run itself did, bit by bit.
#[test]
fn a_fork_goes_on_as_the_run_did_or_otherwise() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let (whole_run, same) = (whole().dir(), root.path().join("same"));
    let shown = said(&["fork", text(&whole_run), text(&same), "--after", "M2"]);
    assert!(shown.contains("after M2") && shown.contains("next: gradus run"), "{shown}");
    assert_eq!(json(&["status"], &same)["report"]["iterations"].as_array().unwrap().len(), 2);
    said(&["run", text(&same), "--device", "cpu"]);
    // What is there is no task's any more, so only what happened is the same; stages that work side by
    // side may be told of in another order.
    let happened = |dir: &Path| {
        let events = records(dir).into_iter().map(|record| record.event);
        let lasting = events.filter(|event| !event.is_volatile());
        let mut all: Vec<String> =
            lasting.map(|event| serde_json::to_string(&event).unwrap()).collect();
        all.sort();
        all
    };
    assert!(happened(&same) == happened(&whole_run), "it ends where the run itself did");
    let other = root.path().join("other");
    let fork = ["fork", text(&whole_run), text(&other), "--set", "judge.source=random", "--json"];
    let shown: Value = serde_json::from_str(&said(&fork)).unwrap();
    assert_eq!(shown["after"], "M1");
    assert!(said(&["config", "diff", text(&other)]).contains("judge.source"));
    for (arguments, wanted) in [
        (["fork", text(&whole_run), text(&other), "--after", "M1"], "GRADUS07"),
        (["fork", text(&whole_run), "nowhere", "--after", "M9"], "iteration 9"),
        (
            ["fork", text(&whole_run), "nowhere", "--after", "base"],
            "no policy that an iteration made",
        ),
    ] {
        let error = String::from_utf8(done(&arguments).stderr).unwrap();
        assert!(error.contains(wanted), "{error}");
    }
}
