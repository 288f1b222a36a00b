//! `gradus doctor` foretells a run without touching it, and what cannot fit is refused with what
//! would. No figure of time is asserted: a machine may be busy.

use crate::runs::{alone, digest, json, set};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn gradus(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gradus")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// A run on the embedded base, with seed data: supervised first, then by preference.
fn laid_out(root: &Path) -> PathBuf {
    let dir = root.join("run");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-base");
    let (prompts, ift) = (root.join("prompts.txt"), root.join("ift.jsonl"));
    let task = |n: u32| format!("add {n} and 1 .\n");
    std::fs::write(&prompts, (0..16).map(task).collect::<String>()).unwrap();
    let row =
        |n: u32| format!("{{\"prompt\": \"add {n} and 2 .\", \"completion\": \"{}\"}}\n", n + 2);
    std::fs::write(&ift, (0..12).map(row).collect::<String>()).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let out = gradus(&[
        "init",
        &text(&dir),
        "--model",
        &text(&model),
        "--prompts",
        &text(&prompts),
        "--ift",
        &text(&ift),
        "--rubric",
        "demo-compact",
        "--preset",
        "tiny",
        "--device",
        "cpu",
    ]);
    assert!(out.status.success(), "{}", said(&out).1);
    dir
}

/// Names and sizes of everything in a folder.
fn listed(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        match entry.metadata().unwrap() {
            found if found.is_dir() => all.extend(listed(&entry.path())),
            found => all.push((entry.path(), found.len())),
        }
    }
    all.sort();
    all
}

#[test]
fn a_run_is_foretold_and_not_touched() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = laid_out(root.path());
    let settings = std::fs::read_to_string(dir.join("gradus.yaml")).unwrap();
    assert!(settings.contains("\ndevice: \"cpu\"\n"), "as init was told: {settings}");
    let settings = settings.replace("\niterations: 1\n", "\niterations: 3\n");
    std::fs::write(dir.join("gradus.yaml"), settings).unwrap();
    let (was, before) = (digest(&dir), listed(&dir));
    let found = json(&["doctor"], &dir);
    assert_eq!(listed(&dir), before, "doctor left something behind");
    assert_eq!(digest(&dir), was);
    let machine = &found["machine"];
    for figure in ["cores", "vector_bits", "product_gflops", "memory_gb_per_s"] {
        assert!(machine[figure].as_f64().unwrap() > 0.0, "{figure}: {machine}");
    }
    assert_eq!(
        (&found["device"]["device"], &found["device"]["reason"]),
        (&"cpu".into(), &"asked for".into())
    );
    assert!(found["run"]["device_memory"].is_null(), "the machine's is all there is");
    let memory = &found["run"]["memory"];
    assert_eq!(memory["fits"], true);
    let stages = memory["stages"].as_array().unwrap();
    let most = stages.iter().map(|stage| stage["bytes"].as_u64().unwrap()).max().unwrap();
    assert_eq!(memory["peak_bytes"], most);
    assert!(most > 10 << 20 && most < 4 << 30, "{memory}");
    let time = &found["run"]["time"];
    let iterations = time["iterations"].as_array().unwrap();
    let kinds: Vec<&str> = iterations.iter().map(|i| i["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["sft", "dpo", "dpo"]);
    // 12 rows in batches of 16; 12 of the 16 prompts are trained on, so none is left for a third.
    let counts = |i: usize, name: &str| iterations[i][name].as_u64().unwrap();
    assert_eq!((counts(0, "rows"), counts(0, "steps")), (12, 1));
    assert_eq!((counts(1, "prompts"), counts(2, "prompts")), (12, 0));
    for iteration in &iterations[..2] {
        let stages = iteration["seconds_by_stage"].as_object().unwrap();
        let sum: f64 = stages.values().map(|seconds| seconds.as_f64().unwrap()).sum();
        assert!((sum - iteration["seconds"].as_f64().unwrap()).abs() < 1e-9);
        assert!(stages["trainer"].as_f64().unwrap() > 0.0 && sum > 0.0, "{iteration}");
    }
    let text = said(&gradus(&["doctor", dir.to_str().unwrap()])).0;
    assert!(text.contains("M1 SFT") && text.contains("it fits"), "{text}");
}

#[test]
fn what_cannot_fit_is_refused_with_what_would() {
    let root = tempfile::tempdir().unwrap();
    let dir = laid_out(root.path());
    set(&dir, "lora_r", 16, 16_000_000);
    let path = dir.to_str().unwrap();
    let out = gradus(&["doctor", path, "--json"]);
    assert_eq!(out.status.code(), Some(2), "{}", said(&out).1);
    let found: serde_json::Value = serde_json::from_str(&said(&out).0).unwrap();
    let memory = &found["run"]["memory"];
    assert_eq!((&memory["fits"], &memory["measured"]), (&false.into(), &false.into()));
    let free = memory["available_bytes"].as_u64().unwrap();
    let remedies = memory["remedies"].as_array().unwrap();
    assert!(!remedies.is_empty(), "{memory}");
    for remedy in remedies {
        assert!(remedy["change"].as_str().unwrap().contains("train.lora_r: 16"), "{remedy}");
        assert!(remedy["bytes"].as_u64().unwrap() <= free, "{remedy}");
    }
    let run = gradus(&["run", path]);
    assert_eq!(run.status.code(), Some(2));
    let why = said(&run).1;
    assert!(why.contains("GRADUS0110") && why.contains("train.lora_r: 16"), "{why}");
}

#[test]
fn a_machine_alone_and_a_folder_without_a_run() {
    let root = tempfile::tempdir().unwrap();
    let out = gradus(&["doctor", root.path().to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(2));
    assert!(said(&out).1.contains("holds no run"), "{}", said(&out).1);
    let out = gradus(&["doctor", "--json"]);
    assert!(out.status.success(), "{}", said(&out).1);
    let found: serde_json::Value = serde_json::from_str(&said(&out).0).unwrap();
    assert!(found["run"].is_null() && found["machine"]["disk_free_bytes"].as_u64().unwrap() > 0);
}
