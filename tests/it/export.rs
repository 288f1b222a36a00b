//! What a run made, taken out of it. That other tools open it is `scripts/check_exports.py`'s.

use crate::runs::{blobs, copied, gradus, whole};
use gradus::domain::Event;
use gradus::export::{ModelDtype, ModelWishes, RunExport};
use gradus::lm::model_files::ModelFiles;
use gradus::lm::weights::WeightDtype;
use gradus::runtime::Folder;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn export(kind: &str, run: &Path, out: &Path, more: &[&str]) -> Output {
    let mut command = gradus();
    command.args(["export", kind, "--json", "--out"]).arg(out).arg(run).args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

fn exported(kind: &str, run: &Path, out: &Path, more: &[&str]) -> Value {
    let done = export(kind, run, out, more);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

/// A greedy answer: its tokens, and how likely it is.
fn answer(run: &Path, iteration: &str) -> Value {
    let mut command = gradus();
    command.args(["generate", "--json", "--device", "cpu", "--temperature", "0", "--iteration"]);
    command.args([iteration, "--prompt", "sort: c a b"]).arg(run).stdout(Stdio::piped());
    let done = command.output().unwrap();
    assert!(done.status.success());
    let said: Value = serde_json::from_slice(&done.stdout).unwrap();
    said["completions"].clone()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_exported_model_is_a_base_and_its_receipt_holds() {
    let root = tempfile::tempdir().unwrap();
    let (run, out) = (whole().dir(), root.path().join("out"));
    let before = (blobs(&run), names(&run));
    let manifest = exported("model", &run, &out, &["--policy", "M2"]);
    assert_eq!((blobs(&run), names(&run)), before, "a run is read and not changed");
    assert_eq!((&manifest["kind"], &manifest["policy"]["name"]), (&"model".into(), &"M2".into()));
    let sums: String =
        manifest["files"].as_array().unwrap().iter().fold(String::new(), |all, f| {
            all + &format!("{}  {}\n", f["sha256"].as_str().unwrap(), f["name"].as_str().unwrap())
        });
    std::fs::write(root.path().join("sums"), sums).unwrap();
    let mut check = Command::new("sha256sum");
    let checked = check.args(["--check", "--quiet", "../sums"]).current_dir(&out).status().unwrap();
    assert!(checked.success());
    let listed = manifest["files"].as_array().unwrap().len();
    assert_eq!(names(&out).len(), listed + 1, "and the receipt itself");
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    let id = manifest["policy_id"].as_str().unwrap();
    assert!(card.contains(id) && card.contains("M2 DPO") && card.starts_with("---\n"), "{card}");
    for name in ["tokenizer.json", "tokenizer_config.json", "config.json"] {
        let read = |dir: &Path| std::fs::read(dir.join(name)).unwrap();
        assert_eq!(read(&out), read(&run.join("model")), "{name}");
    }
    let again = root.path().join("again");
    let prompts = root.path().join("prompts.txt");
    let lines: Vec<String> = (0..30).map(|n| format!("sort: c a b {n}")).collect();
    std::fs::write(&prompts, lines.join("\n")).unwrap();
    let mut init = gradus();
    init.args(["init", "--preset", "tiny", "--rubric", "demo-compact", "--model"]).arg(&out);
    assert!(init.arg("--prompts").arg(prompts).arg(&again).status().unwrap().success());
    assert_eq!(answer(&again, "0"), answer(&run, "2"));
    assert_ne!(answer(&again, "0"), answer(&run, "0"), "training changed it");
}

#[test]
fn rounding_says_what_it_takes_back_and_shards_are_the_whole() {
    let root = tempfile::tempdir().unwrap();
    let run = RunExport::open(&Folder::at(whole().dir())).unwrap();
    let policy = run.policy("latest").unwrap();
    let at = |name: &str| root.path().join(name);
    let opened = |name: &str| ModelFiles::open(&at(name)).unwrap();
    let bytes = |files: &ModelFiles| files.weights().unwrap().to_bytes(WeightDtype::F32).unwrap();
    let wishes = ModelWishes { shard_bytes_max: 300_000, ..ModelWishes::default() };
    run.model(&policy, &at("one"), &ModelWishes::default()).unwrap();
    let manifest = run.model(&policy, &at("shards"), &wishes).unwrap();
    let shards = manifest.files.iter().filter(|file| file.name.ends_with(".safetensors"));
    let lengths: Vec<u64> = shards.map(|file| file.bytes).collect();
    assert!(lengths.len() > 2 && !at("shards").join("model.safetensors").exists(), "{lengths:?}");
    assert_eq!(bytes(&opened("one")), bytes(&opened("shards")));
    assert!(manifest.notes.is_empty(), "{:?}", manifest.notes);
    let half = ModelWishes { dtype: ModelDtype::Bf16, ..ModelWishes::default() };
    let manifest = run.model(&policy, &at("half"), &half).unwrap();
    assert!(manifest.notes.iter().any(|note| note.contains("numbers that training moved")));
    assert_eq!(opened("half").stored_dtype(), Some(WeightDtype::Bf16));
    assert_ne!(bytes(&opened("one")), bytes(&opened("half")));
    let card = std::fs::read_to_string(at("half").join("README.md")).unwrap();
    assert!(card.contains("numbers that training moved"));
    let base = run.policy("base").unwrap();
    let manifest = run.model(&base, &at("base"), &half).unwrap();
    assert!(manifest.notes.is_empty(), "nothing of the base was trained: {:?}", manifest.notes);
}

#[test]
fn pairs_come_out_in_every_form() {
    let root = tempfile::tempdir().unwrap();
    let run = whole().dir();
    let mut rows = Vec::new();
    for (form, keys) in [
        ("trl", ["prompt", "chosen", "rejected"]),
        ("trl-implicit", ["chosen", "rejected", "score_chosen"]),
        ("kto", ["prompt", "completion", "label"]),
        ("axolotl", ["messages", "chosen", "rejected"]),
        ("llama-factory", ["conversations", "chosen", "rejected"]),
    ] {
        let out = root.path().join(form);
        let manifest = exported("pairs", &run, &out, &["--format", form]);
        let text = std::fs::read_to_string(out.join("train.jsonl")).unwrap();
        let all: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(manifest["rows"], all.len());
        assert!(all.iter().all(|row| keys.iter().all(|key| row.get(key).is_some())), "{form}");
        rows.push(all);
    }
    let (trl, kto) = (&rows[0], &rows[2]);
    assert_eq!(kto.len(), 2 * trl.len());
    for row in trl {
        let scores = ["score_chosen", "score_rejected"].map(|key| row[key].as_f64().unwrap());
        assert!(scores[0] > scores[1] && row["chosen"] != row["rejected"], "{row}");
        assert_eq!(row["chosen"][0]["role"], "assistant");
    }
    let of = |iteration: &str| {
        let out = root.path().join(format!("of-{iteration}"));
        exported("pairs", &run, &out, &["--iteration", iteration])["rows"].as_u64().unwrap()
    };
    assert_eq!(of("2") + of("3"), trl.len() as u64);
}

fn printed(run: &Path, arguments: &[&str]) -> Output {
    let mut command = gradus();
    command.args(arguments).arg(run).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.output().unwrap()
}

#[test]
fn every_answer_comes_out_with_everything_that_was_said_of_it() {
    let root = tempfile::tempdir().unwrap();
    let (run, out) = (whole().dir(), root.path().join("candidates"));
    let rows = exported("candidates", &run, &out, &[])["rows"].as_u64().unwrap();
    let (mut answers, mut judgments) = (0, 0);
    for record in crate::runs::records(&run) {
        match record.event {
            Event::CompletionsSampled { completions, .. } => answers += completions.len(),
            Event::JudgmentsRecorded { judgments: all, .. } => judgments += all.len(),
            _ => {}
        }
    }
    let text = std::fs::read_to_string(out.join("train.jsonl")).unwrap();
    let all: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((rows as usize, all.len()), (answers, answers));
    let said = |row: &Value| row["verdicts"].as_array().unwrap().len();
    assert_eq!(all.iter().map(said).sum::<usize>(), judgments);
    for row in &all {
        let scores: Vec<f64> = row["verdicts"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|v| v["score"].as_f64())
            .collect();
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        match row["score"].as_f64() {
            Some(score) => assert!((score - mean).abs() < 1e-9, "{row}"),
            None => assert!(scores.is_empty(), "{row}"),
        }
    }
}

#[test]
fn pairs_are_listed_and_shown_with_what_was_said() {
    let run = whole().dir();
    let list: Value = serde_json::from_slice(&printed(&run, &["pairs", "--json"]).stdout).unwrap();
    let list = list.as_array().unwrap();
    let formed = crate::runs::records(&run)
        .into_iter()
        .filter(|record| matches!(record.event, Event::PairFormed { .. }));
    assert_eq!(list.len(), formed.count());
    let id = list[0]["id"].as_str().unwrap();
    let shown = String::from_utf8(printed(&run, &["pairs", "--show", id]).stdout).unwrap();
    for text in [
        id,
        list[0]["asked"].as_str().unwrap(),
        "chosen, ",
        "rejected, ",
        "demo-compact@",
        "    | ",
    ] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    let few = String::from_utf8(printed(&run, &["pairs", "--limit", "3"]).stdout).unwrap();
    assert!(few.contains(&format!("3 of {} pairs", list.len())), "{few}");
    let none = printed(&run, &["pairs", "--json", "--min-gap", "99"]);
    assert_eq!(String::from_utf8(none.stdout).unwrap().trim(), "[]");
    let unknown = printed(&run, &["pairs", "--show", "nothing"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("GRADUS1103"));
}

#[test]
fn shells_and_man_are_told_of_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let mut command = gradus();
        let said = command.args(["completions", shell]).stdout(Stdio::piped()).output().unwrap();
        let text = String::from_utf8(said.stdout).unwrap();
        assert!(said.status.success() && text.contains("rejudge") && text.contains("export"));
    }
    let root = tempfile::tempdir().unwrap();
    assert!(gradus().args(["man", "--out"]).arg(root.path()).status().unwrap().success());
    let pages = names(root.path());
    for page in ["gradus.1", "gradus-run.1", "gradus-export-model.1", "gradus-pairs.1"] {
        assert!(pages.iter().any(|name| name == page), "{page}: {pages:?}");
    }
    let mut command = gradus();
    let said = command.arg("man").stdout(Stdio::piped()).output().unwrap();
    assert!(String::from_utf8(said.stdout).unwrap().contains(".TH gradus"));
}

/// `scripts/check_exports.py` reads the events with tensorboard.
#[test]
fn metrics_are_those_of_every_step() {
    let root = tempfile::tempdir().unwrap();
    let (run, out) = (whole().dir(), root.path().join("metrics"));
    let manifest = exported("metrics", &run, &out, &[]);
    let lines = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(out.join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (steps, iterations) = (lines("metrics.jsonl"), lines("iterations.jsonl"));
    assert_eq!((manifest["rows"].as_u64(), iterations.len()), (Some(steps.len() as u64), 3));
    let taken: Vec<Value> = crate::runs::records(&run)
        .into_iter()
        .filter_map(|record| match record.event {
            Event::StepTaken { metrics, .. } => Some(metrics.loss.into()),
            _ => None,
        })
        .collect();
    let said: Vec<Value> = steps.iter().map(|step| step["loss"].clone()).collect();
    assert_eq!(said, taken);
    let numbers: Vec<u64> = steps.iter().map(|step| step["step"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=steps.len() as u64).collect::<Vec<_>>(), "they never begin again");
    assert!(steps.iter().all(|step| step["time"].as_f64().unwrap() > 1e9));
    let tokens: Vec<f64> = steps.iter().map(|step| step["num_tokens"].as_f64().unwrap()).collect();
    assert!(tokens.is_sorted() && tokens[0] > 0.0);
    let events = names(&out).into_iter().find(|name| name.contains("tfevents")).unwrap();
    let bytes = std::fs::read(out.join(events)).unwrap();
    let has = |tag: &str| bytes.windows(tag.len()).any(|at| at == tag.as_bytes());
    assert!(["train/loss", "train/rewards/margins", "gradus/win_rate/low"].iter().all(|t| has(t)));
}

#[test]
fn what_cannot_be_exported_is_said_and_nothing_is_left() {
    let root = tempfile::tempdir().unwrap();
    let run = copied(&whole().dir(), &root.path().join("run"));
    let out = root.path().join("out/deep");
    let refused = |kind: &str, out: &Path, more: &[&str], words: &[&str]| {
        let done = export(kind, &run, out, more);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && done.stdout.is_empty(), "{kind} {more:?}");
        for word in words {
            assert!(said.contains(word), "{kind} {more:?}: {said}");
        }
    };
    refused("model", &out, &["--policy", "M9"], &["GRADUS0717", "M2"]);
    refused("adapter", &out, &["--policy", "M2"], &["GRADUS1102", "Export the model"]);
    refused("gguf", &out, &[], &["tokenizer is not written", "convert_hf_to_gguf"]);
    refused("pairs", &out, &["--iteration", "1"], &["GRADUS1101", "iteration 1"]);
    assert_eq!(names(root.path().join("out").as_path()), Vec::<String>::new());
    std::fs::create_dir_all(&out).unwrap();
    std::fs::write(out.join("mine"), "own").unwrap();
    refused("model", &out, &[], &["GRADUS0901", "not written over"]);
    assert_eq!(names(&out), ["mine"]);
    let mut compact = gradus();
    assert!(compact.args(["log", "compact"]).arg(&run).status().unwrap().success());
    let late = root.path().join("late");
    refused("pairs", &late, &["--iteration", "2"], &["GRADUS0713", "compacted"]);
    exported("model", &run, &late, &[]);
    let policy = &gradus::runtime::fold(&Folder::at(&run).read_log().unwrap()).unwrap().policy;
    let blob = policy.as_ref().unwrap().weights.as_str();
    let path = run.join("blobs").join(&blob[..2]).join(blob);
    assert!(path.exists());
    std::fs::write(path, "rot").unwrap();
    refused("model", &root.path().join("rotten"), &[], &["GRADUS0611"]);
    assert!(!root.path().join("rotten").exists());
}
