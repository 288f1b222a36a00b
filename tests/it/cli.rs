//! The command as a person or a script meets it.

use crate::runs::alone;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn gradus(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gradus")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// One reduced demo, read by every verb that reads.
#[test]
fn a_demo_and_everything_that_reads_it() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("demo");
    let dir = text(&dir);
    let out = gradus(&["demo", "--reduced", "--dir", dir]);
    assert!(out.status.success(), "{}", stderr(&out));
    let table = stdout(&out);
    for row in ["M0 base", "M1 SFT", "M2 DPO", "M3 DPO", "random judge", "oracle judge"] {
        assert!(table.contains(row), "no {row} in\n{table}");
    }
    assert_eq!(table.matches("M3 DPO").count(), 3, "self-judged and both arms:\n{table}");
    assert!(table.contains("oracle score") && table.contains("kendall"), "{table}");
    assert!(stderr(&out).contains("judge"), "one line per stage change: {}", stderr(&out));

    let again = gradus(&["demo", "--reduced", "--dir", dir, "--json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&again)).unwrap();
    assert_eq!(json["self_judged"]["iterations"].as_array().unwrap().len(), 3);
    for arm in ["self_judged", "random_judge", "oracle_judge"] {
        let last = &json[arm]["iterations"][2];
        assert!(last["pairs"].as_u64().unwrap() > 0, "{arm}: {last}");
        assert!(last["evaluation"]["head_to_head"].as_array().unwrap().len() >= 2, "{arm}");
        assert!(last["evaluation"]["judge"]["pairwise_accuracy"].is_number(), "{arm}");
    }
    readers(dir);
    other_seed_is_refused(dir);
    referees_are_checked(dir);
}

/// A referee that cannot referee is refused when the run starts, by name and with what to do.
fn referees_are_checked(dir: &str) {
    let yaml = Path::new(dir).join("gradus.yaml");
    let settings = std::fs::read_to_string(&yaml).unwrap();
    assert_eq!(settings.matches("\n  rubrics: []\n").count(), 1);
    assert!(gradus(&["rubric", "install", dir, "meta-judge"]).status.success());
    for (name, said) in [
        (
            "nobody",
            "GRADUS0508 evaluate.rubrics names \"nobody\", and no installed rubric has that name",
        ),
        ("meta-judge", "GRADUS0506 evaluate.rubrics names meta-judge, which judges judgments"),
    ] {
        let named = settings.replace("  rubrics: []\n", &format!("  rubrics: [\"{name}\"]\n"));
        std::fs::write(&yaml, named).unwrap();
        let out = gradus(&["run", dir, "--iterations", "4"]);
        assert_eq!(out.status.code(), Some(2), "{}", stderr(&out));
        assert!(stderr(&out).contains(said), "{}", stderr(&out));
    }
    std::fs::write(&yaml, settings).unwrap();
}

fn readers(dir: &str) {
    let out = gradus(&["status", dir, "--json"]);
    let status: serde_json::Value = serde_json::from_str(&stdout(&out)).unwrap();
    assert_eq!(status["state"], "idle");
    assert!(stdout(&gradus(&["status", dir])).contains("M3 DPO"));

    assert!(gradus(&["report", dir]).status.success());
    let html = std::fs::read_to_string(Path::new(dir).join("report.html")).unwrap();
    assert!(html.contains("<svg") && html.contains("M2: loss") && !html.contains("<script"));
    let json = std::fs::read_to_string(Path::new(dir).join("report.json")).unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());

    let ask = ["generate", dir, "--prompt", "add 2 and 3 .", "--json", "-n", "2"];
    let (one, two) = (stdout(&gradus(&ask)), stdout(&gradus(&ask)));
    assert_eq!(one, two, "the same seed gives the same answers");
    let answer: serde_json::Value = serde_json::from_str(&one).unwrap();
    assert_eq!(answer["completions"].as_array().unwrap().len(), 2);
    let base = gradus(&["generate", dir, "--prompt", "add 2 and 3 .", "--iteration", "0"]);
    assert!(base.status.success(), "{}", stderr(&base));
    let none = gradus(&["generate", dir, "--prompt", "x", "--iteration", "9"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(stderr(&none).contains("iterations so far: 3"), "{}", stderr(&none));

    let verified = stdout(&gradus(&["log", "verify", dir]));
    assert!(verified.contains("are sound"), "{verified}");
    let shown = stdout(&gradus(&["log", "show", dir, "--kind", "checkpoint_promoted", "--json"]));
    let promoted = shown.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    assert!(promoted.clone().count() >= 1);
    for record in promoted {
        assert_eq!(record["event"]["type"], "checkpoint_promoted");
    }
    assert_eq!(stdout(&gradus(&["log", "digest", dir])).trim().len(), 64);
}

fn other_seed_is_refused(dir: &str) {
    let out = gradus(&["demo", "--reduced", "--dir", dir, "--seed", "9"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(stderr(&out).contains("seed 1"), "{}", stderr(&out));
}

#[test]
fn what_is_wrong_is_said() {
    let root = tempfile::tempdir().unwrap();
    let empty = text(root.path());
    for (arguments, said) in [
        (vec!["status", empty], "make one: gradus init"),
        (vec!["run", empty], "holds no run"),
        (vec!["log", "digest", empty], "holds no run"),
        (vec!["report", empty], "holds no run"),
    ] {
        let out = gradus(&arguments);
        assert_eq!(out.status.code(), Some(2), "{arguments:?}: {}", stderr(&out));
        assert!(stderr(&out).contains(said), "{arguments:?}: {}", stderr(&out));
    }
    let prompts = root.path().join("prompts.jsonl");
    std::fs::write(&prompts, "{\"prompt\": \"a\"}\n{\"question\": \"b\"}\n").unwrap();
    let dir = root.path().join("run");
    let init = |model: &str, prompts: &Path, preset: &str| {
        gradus(&[
            "init",
            text(&dir),
            "--model",
            model,
            "--prompts",
            text(prompts),
            "--preset",
            preset,
        ])
    };
    let out = init(empty, &prompts, "tiny");
    assert!(stderr(&out).contains("prompts.jsonl:2"), "{}", stderr(&out));
    std::fs::write(&prompts, "a\nb\n").unwrap();
    let out = init(empty, &prompts, "huge");
    assert!(stderr(&out).contains("paper, tiny, verifiable, demo"), "{}", stderr(&out));
    let out = init(empty, &prompts, "tiny");
    assert!(stderr(&out).contains("GRADUS0102"), "{}", stderr(&out));
    let out = init("/nowhere/at/all", &prompts, "tiny");
    assert!(stderr(&out).contains("GRADUS0101"), "{}", stderr(&out));
    assert!(!dir.exists(), "a refused init leaves nothing behind");
}

/// Waits until a file is there.
fn appears(path: &Path) {
    let until = Instant::now() + Duration::from_secs(60);
    while !path.exists() {
        assert!(Instant::now() < until, "{} never appeared", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_second_process_and_a_signal() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("demo");
    let mut child = Command::new(env!("CARGO_BIN_EXE_gradus"))
        .args(["demo", "--reduced", "--no-arms", "--dir", text(&dir)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    appears(&dir.join("status.json"));
    let second = gradus(&["run", text(&dir)]);
    assert_eq!(second.status.code(), Some(3), "{}", stderr(&second));
    let pid = child.id().to_string();
    assert!(stderr(&second).contains(&format!("in use by process {pid}")), "{}", stderr(&second));
    let status = gradus(&["status", text(&dir), "--json"]);
    let status: serde_json::Value = serde_json::from_str(&stdout(&status)).unwrap();
    assert_eq!(status["state"], "running");
    assert_eq!(status["pid"].to_string(), pid);

    let asked = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = child.wait().unwrap();
    let took = asked.elapsed();
    assert_eq!(ended.code(), Some(130));
    assert!(took < Duration::from_secs(2), "SIGTERM took {took:?}");
    let go_on = gradus(&["run", text(&dir)]);
    assert!(go_on.status.success(), "{}", stderr(&go_on));
    assert!(stdout(&go_on).contains("M3 DPO"), "{}", stdout(&go_on));
}

/// A learning rate that no number survives: the steps are undone, the iteration fails, the run stops
/// and says so, and the old policy is as it was.
#[test]
fn numbers_that_are_not_finite_end_the_iteration_and_not_the_run() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("run");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-base");
    let (prompts, ift) = (root.path().join("prompts.txt"), root.path().join("ift.jsonl"));
    std::fs::write(&prompts, "add 2 and 3 .\nadd 4 and 1 .\nadd 2 and 2 .\n").unwrap();
    let row =
        |n: u32| format!("{{\"prompt\": \"add {n} and 1 .\", \"completion\": \"{}\"}}\n", n + 1);
    std::fs::write(&ift, (0..8).map(row).collect::<String>()).unwrap();
    let files = ["--prompts", text(&prompts), "--ift", text(&ift)];
    let init = [&["init", text(&dir), "--model", text(&model)], &files[..]].concat();
    let out = gradus(&init);
    assert!(out.status.success(), "{}", stderr(&out));
    let settings = "iterations: 1\ntrain:\n  segment_steps: 2\n  sft:\n    train_batch_size: 2\n    \
                    learning_rate: 1.0e+300\n";
    std::fs::write(dir.join("gradus.yaml"), settings).unwrap();
    let out = gradus(&["run", text(&dir), "--json"]);
    assert_eq!(out.status.code(), Some(1), "{}", stderr(&out));
    assert!(stderr(&out).contains("iteration 1 failed"), "{}", stderr(&out));
    let report: serde_json::Value = serde_json::from_str(&stdout(&out)).unwrap();
    let row = &report["iterations"][0];
    assert_eq!(
        (row["outcome"]["kind"].as_str(), row["rollbacks"].as_u64()),
        (Some("failed"), Some(2))
    );
    let count =
        |kind: &str| stdout(&gradus(&["log", "show", text(&dir), "--kind", kind])).lines().count();
    assert_eq!((count("training_rolled_back"), count("training_diverged")), (2, 1));
    assert_eq!((count("step_taken"), count("checkpoint_promoted")), (0, 0));
    assert!(gradus(&["generate", text(&dir), "--prompt", "add 1 and 1 ."]).status.success());
}
