//! An iteration's plan is what it does, whatever the file of settings says meanwhile: on a tiny run
//! of schema 1 that was stopped in the middle of training, and on what comes after it.

use crate::runs::{blobs, copied, digest, gradus, json, records};
use gradus::domain::event::SeedRow;
use gradus::domain::plan::Trained;
use gradus::domain::{AdapterShape, Event, Iteration, Message, PolicyRef, TextRef};
use gradus::lm::weights::Weights;
use gradus::log::Recorded;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The end of the run in the gradus that began it, on the machine where the fixture was made.
const ENDS_IN: &str = "f153275ebf50fbdadead3048a5cce6a410cc30d6ba09a3f45ff7d234745bb157";
/// What its state comes to here, where the end is bit for bit that one. Another digest than schema
/// 1's: the same records are written in another form, and two came to it, the plan that the open
/// iteration adopted and the pinned model. (The settings that had changed are recorded under the names
/// that they have now.)
const DIGEST: &str = "768b4c253c65e1edd416ddd1b8a0b20e4204ce6089ef98471b4463306825222d";

/// Vectors of 512 bits.
const FOUND_WITH_WIDE_VECTORS: bool = true;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/runs")
}

/// The run of schema 1, in a folder of its own.
fn of_old(root: &Path, name: &str) -> PathBuf {
    copied(&fixture().join("schema-1"), &root.join(name))
}

fn run_with(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = gradus();
    command.arg("run").args(["--device", "cpu"]).args(arguments).arg(dir);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

fn run(dir: &Path) -> Output {
    let out = run_with(dir, &[]);
    assert!(out.status.success(), "{}", said(&out));
    out
}

/// Everything a command printed.
fn said(out: &Output) -> String {
    [&out.stdout, &out.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).join("")
}

/// Changes settings by whole lines of the file.
fn change(dir: &Path, lines: &[(&str, &str)]) {
    let path = dir.join("gradus.yaml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    for (was, is) in lines {
        assert_eq!(text.matches(was).count(), 1, "{was:?} in\n{text}");
        text = text.replace(was, is);
    }
    std::fs::write(path, text).unwrap();
}

fn promoted(dir: &Path, iteration: u32) -> PolicyRef {
    let found = records(dir).into_iter().rev().find_map(|record| match record.event {
        Event::CheckpointPromoted { iteration: Iteration(n), policy } if n == iteration => {
            Some(policy)
        }
        _ => None,
    });
    found.unwrap_or_else(|| panic!("iteration {iteration} promoted nothing"))
}

fn count(records: &[Recorded], kind: &str) -> usize {
    records.iter().filter(|record| record.event.kind() == kind).count()
}

/// What a policy answers to a prompt.
fn answer(dir: &Path, iteration: u32) -> serde_json::Value {
    let mut command: Command = gradus();
    command.args(["generate", "--json", "--n", "3", "--device", "cpu", "--max-new-tokens", "12"]);
    command
        .args(["--iteration", &iteration.to_string()])
        .args(["--prompt", "name 3 animals ."])
        .arg(dir);
    let out = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    assert!(out.status.success(), "{}", said(&out));
    let answer: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(answer["completions"].as_array().unwrap().len(), 3);
    answer
}

#[test]
fn a_run_of_schema_1_goes_on_to_where_it_would_have_ended() {
    let root = tempfile::tempdir().unwrap();
    let dirs = ["one", "two"].map(|name| of_old(root.path(), name));
    dirs.iter().for_each(|dir| drop(run(dir)));
    let digests = dirs.each_ref().map(|dir| digest(dir));
    assert_eq!(digests[0], digests[1]);

    let all = records(&dirs[0]);
    assert_eq!(count(&all, "plan_adopted"), 1, "the iteration that was open");
    assert_eq!(count(&all, "iteration_started_unplanned"), 3);
    assert_eq!(count(&all, "model_pinned"), 1);
    let adapter = promoted(&dirs[0], 3).adapter.unwrap();
    let target_modules = ["q_proj", "v_proj"].map(str::to_owned).to_vec();
    assert_eq!(adapter.shape, Some(AdapterShape { r: 2, alpha: 4.0, target_modules }));
    let hash = adapter.weights.as_str();
    let ours = std::fs::read(dirs[0].join("blobs").join(&hash[..2]).join(hash)).unwrap();
    let theirs = std::fs::read(fixture().join("schema-1-ends-in.safetensors")).unwrap();
    same_numbers(&ours, &theirs);
    // Processors with vectors of another width add up in another order.
    if hash == ENDS_IN && adds_up_as_there() {
        assert_eq!(digests[0], DIGEST);
    }
    // Sixteen checkpoints of two blobs each were on the disk. Left are the weights of M0 and M1 and
    // the adapters of M2 and M3, and the seed data.
    assert_eq!(blobs(&dirs[0]).len(), 5);
}

/// Whether this processor has the vectors of the one on which the digest was found.
fn adds_up_as_there() -> bool {
    cfg!(target_arch = "x86_64") && has_wide_vectors() == FOUND_WITH_WIDE_VECTORS
}

#[cfg(target_arch = "x86_64")]
fn has_wide_vectors() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_wide_vectors() -> bool {
    false
}

fn same_numbers(ours: &[u8], theirs: &[u8]) {
    let [ours, theirs] = [ours, theirs].map(|bytes| Weights::from_bytes(bytes).unwrap().0);
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (name, tensor) in &ours {
        let numbers = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (a, b) in numbers(tensor).into_iter().zip(numbers(&theirs[name])) {
            assert!((a - b).abs() < 1e-4, "{name}: {a} and {b}");
        }
    }
}

/// Case G11: what was begun with batches of 2 goes on with batches of 2, and what the file says
/// counts from the next iteration on, with a record of what is another.
#[test]
fn an_open_iteration_goes_on_under_its_own_plan() {
    let root = tempfile::tempdir().unwrap();
    let [whole, changed] = ["whole", "changed"].map(|name| of_old(root.path(), name));
    // Both have adopted their plan when they are stopped again: after the next checkpoint.
    for dir in [&whole, &changed] {
        let mut child = gradus().args(["run", "--device", "cpu"]).arg(dir).spawn().unwrap();
        let before = records(dir).len() as u64;
        let adopted = |r: &Recorded| {
            r.offset.0 >= before && matches!(&r.event, Event::CheckpointSaved { .. })
        };
        crate::runs::until_last(dir, &mut child, adopted);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    change(
        &changed,
        &[("lora_alpha: 4.0", "lora_alpha: 400.0"), ("segment_steps: 1\n", "segment_steps: 3\n")],
    );
    let open = records(&changed)
        .iter()
        .all(|r| !matches!(&r.event, Event::IterationFinished { iteration: Iteration(3), .. }));
    run(&whole);
    let out = run(&changed);
    if open {
        let told = said(&out);
        assert!(told.contains("train.lora_alpha: 4.0 -> 400.0"), "{told}");
        assert!(told.contains("Iteration 3 is open and goes on under the plan"), "{told}");
    }
    assert_eq!(digest(&whole), digest(&changed));

    // From here on it counts.
    let status = json(&["status"], &changed);
    let keys = |changes: &serde_json::Value| -> Vec<String> {
        let all = changes.as_array().unwrap().iter();
        all.map(|change| change["key"].as_str().unwrap().to_owned()).collect()
    };
    let wanted = ["train.lora_alpha", "train.save_steps"];
    assert_eq!(keys(&status["settings_to_come"]["changes"]), wanted);
    let out = run_with(&changed, &["--iterations", "4"]);
    assert!(out.status.success(), "{}", said(&out));
    let report = json(&["report"], &changed);
    let row = &report["iterations"][3];
    assert_eq!(keys(&row["settings_changed"]), wanted);
    assert!(said(&out).contains("M4: settings changed:"), "{}", said(&out));
    let all = records(&changed);
    assert_eq!(count(&all, "settings_changed"), 2, "when the plan was adopted, and now");
    let alpha = all.iter().rev().find_map(|record| match &record.event {
        Event::SettingsChanged { changes } => {
            changes.iter().find(|c| c.key == "train.lora_alpha").cloned()
        }
        _ => None,
    });
    let alpha = alpha.unwrap();
    assert_eq!((alpha.from.as_f64(), alpha.to.as_f64()), (Some(4.0), Some(400.0)));
}

/// A new run on the same model, with the fixture's settings but for these lines.
fn tiny(root: &Path, lines: &[(&str, &str)]) -> PathBuf {
    let of_old = fixture().join("schema-1");
    let model = copied(&of_old.join("model"), &root.join("model"));
    let mut prompts = String::new();
    let (mut base, mut seed_rows) = (None, None);
    for record in records(&of_old) {
        match record.event {
            Event::RunStarted { base: policy, .. } => base = Some(policy.weights),
            Event::SeedDataAdmitted { blob, .. } => seed_rows = Some(blob),
            Event::PromptAdmitted { prompt } => {
                prompts.push_str(&format!("{}\n", prompt.task_text()))
            }
            _ => {}
        }
    }
    let blob = |hash: gradus::domain::BlobHash| {
        of_old.join("blobs").join(&hash.as_str()[..2]).join(hash.as_str())
    };
    std::fs::copy(blob(base.unwrap()), model.join("model.safetensors")).unwrap();
    let (file, rows) = (root.join("prompts.txt"), root.join("rows.jsonl"));
    std::fs::write(&file, prompts).unwrap();
    let seeds = std::fs::read_to_string(blob(seed_rows.unwrap())).unwrap();
    let row = |line: &str| {
        let SeedRow { mut messages, completion } = serde_json::from_str(line).unwrap();
        messages.push(Message::assistant(completion));
        format!("{}\n", serde_json::json!({ "messages": messages }))
    };
    std::fs::write(&rows, seeds.lines().map(row).collect::<String>()).unwrap();
    let dir = root.join("run");
    let mut command = gradus();
    command.arg("init").arg(&dir).arg("--model").arg(&model).arg("--prompts").arg(&file);
    command.arg("--ift").arg(&rows).args(["--preset", "tiny", "--rubric", "demo-compact"]);
    let out = command.args(["--seed", "5"]).stderr(Stdio::piped()).output().unwrap();
    assert!(out.status.success(), "{}", said(&out));
    std::fs::copy(of_old.join("gradus.yaml"), dir.join("gradus.yaml")).unwrap();
    change(&dir, &[("per_iteration: 6\n", "per_iteration: 3\n")]);
    change(&dir, lines);
    dir
}

/// Cases G10 and G13. An adapter is what it was trained as: whatever the settings say later, the
/// policy answers as it did. One that does not fit any more is merged, and training goes on with
/// another, or with all weights; and `use_peft` is obeyed in the supervised iteration.
#[test]
fn an_adapter_belongs_to_its_policy() {
    let root = tempfile::tempdir().unwrap();
    let dir = tiny(root.path(), &[("iterations: 3\n", "iterations: 2\n")]);
    run(&dir);
    let [first, second] = [1, 2].map(|iteration| promoted(&dir, iteration));
    for policy in [&first, &second] {
        let adapter = policy.adapter.as_ref().expect("the settings ask for an adapter");
        assert_eq!(adapter.shape.as_ref().unwrap().alpha, 4.0);
    }
    assert_eq!(first.weights, second.weights, "it goes on with its own adapter");
    let answers = [1, 2].map(|iteration| answer(&dir, iteration));

    let mut said_before = Vec::new();
    for (iterations, lines, merged) in [
        (3, vec![("lora_alpha: 4.0", "lora_alpha: 3200.0")], 1),
        (4, vec![("use_peft: true", "use_peft: false")], 2),
        (5, vec![("use_peft: false", "use_peft: true"), ("lora_r: 2\n", "lora_r: 1\n")], 2),
    ] {
        change(&dir, &lines);
        let out = run_with(&dir, &["--iterations", &iterations.to_string()]);
        assert!(out.status.success(), "{}", said(&out));
        let now = [1, 2].map(|iteration| answer(&dir, iteration));
        assert_eq!(answers, now, "bit for bit what it was");
        let all = records(&dir);
        assert_eq!(count(&all, "adapter_merged"), merged, "after {iterations} iterations");
        let mut starts = all.iter().filter_map(|record| match &record.event {
            Event::IterationStarted { plan, .. } => Some(plan.training.trained.clone()),
            _ => None,
        });
        let trained = starts.next_back().unwrap();
        let policy = promoted(&dir, iterations);
        match &trained {
            Trained::All => assert_eq!(policy.adapter, None),
            Trained::Adapter(shape) => {
                assert_eq!(policy.adapter.as_ref().unwrap().shape.as_ref(), Some(shape));
            }
        }
        said_before.push(trained);
    }
    assert_eq!(said_before[1], Trained::All);
}

/// Case G8. What cannot change is refused, and what is refused changes nothing.
#[test]
fn what_cannot_change_is_refused_in_words() {
    let root = tempfile::tempdir().unwrap();
    let dir = of_old(root.path(), "run");
    run(&dir);
    let before = digest(&dir);
    let refused = |what: &str| {
        let out = run_with(&dir, &["--iterations", "4"]);
        assert!(!out.status.success() && said(&out).contains(what), "{what}: {}", said(&out));
        assert_eq!(digest(&dir), before);
    };
    change(&dir, &[("seed: 5\n", "seed: 6\n")]);
    refused("GRADUS0205");
    refused("says seed: 6, and the run began with 5");
    change(&dir, &[("seed: 6\n", "seed: 5\n")]);
    for file in ["tokenizer.json", "config.json", "tokenizer_config.json", "chat_template.jinja"] {
        let path = dir.join("model").join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text} ")).unwrap();
        refused("GRADUS0112");
        refused(&format!("model/{file} is not the file that the run began with"));
        std::fs::write(&path, text).unwrap();
    }
    let added = dir.join("model").join("generation_config.json");
    std::fs::write(&added, "{}").unwrap();
    refused("generation_config.json is new; the run began without it");
    std::fs::remove_file(&added).unwrap();
    assert!(run_with(&dir, &["--iterations", "4"]).status.success());
}

/// Case G14: of an open iteration the newest checkpoint is kept, and what is kept longer is asked for.
#[test]
fn the_disk_keeps_what_resuming_needs() {
    let root = tempfile::tempdir().unwrap();
    let dir = tiny(root.path(), &[("iterations: 3\n", "iterations: 2\n")]);
    let mut child = gradus().args(["run", "--device", "cpu"]).arg(&dir).spawn().unwrap();
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        // Files that are being written have other names.
        most = most.max(blobs(&dir).iter().filter(|name| name.len() == 64).count());
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let saved = count(&records(&dir), "checkpoint_saved");
    // The base, seed rows, M1, and two blobs each of the newest checkpoint and the one that it takes
    // the place of.
    assert!(saved >= 8 && most <= 7, "{most} blobs at a time of {saved} checkpoints");
    assert_eq!(blobs(&dir).len(), 4, "M0, M1's and M2's adapters, and the seed rows");

    let all = tempfile::tempdir().unwrap();
    let every = ("segment_steps: 1\n", "segment_steps: 1\n  keep_checkpoints: all\n");
    let dir = tiny(all.path(), &[("iterations: 3\n", "iterations: 2\n"), every]);
    run(&dir);
    assert_eq!(blobs(&dir).len(), 2 + 2 * saved, "what is asked for is kept");
}

/// The reference may be a moving mean of the policies, made when it is needed, and pairs may be made
/// with the answers of another sample set.
#[test]
fn a_plan_may_have_a_mean_as_its_reference_and_an_anchor() {
    let root = tempfile::tempdir().unwrap();
    let lines = [
        ("iterations: 3\n", "iterations: 4\n"),
        ("use_peft: true", "use_peft: false"),
        ("    beta: 0.1\n", "    beta: 0.1\n    reference: ema\n    reference_decay: 0.75\n"),
        ("pairs:\n", "pairs:\n  rule: anchored\n"),
    ];
    let dir = tiny(root.path(), &lines);
    run(&dir);
    let all = records(&dir);
    let made = |n: u32| {
        let policy = |record: &Recorded| match &record.event {
            Event::ReferenceMade { iteration: Iteration(m), policy } if *m == n => {
                Some(policy.clone())
            }
            _ => None,
        };
        all.iter().find_map(policy)
    };
    assert_eq!(made(2), None, "M1 is all there is yet");
    let [third, fourth] = [3, 4].map(|n| made(n).unwrap());
    let weights = |policy: &PolicyRef| {
        let hash = policy.weights.as_str();
        let bytes = std::fs::read(dir.join("blobs").join(&hash[..2]).join(hash)).unwrap();
        Weights::from_bytes(&bytes).unwrap().0
    };
    let [m1, m2, m3] = [1, 2, 3].map(|n| weights(&promoted(&dir, n)));
    let [third, fourth] = [third, fourth].map(|policy| weights(&policy));
    let name = "model.layers.0.self_attn.q_proj.weight";
    let number = |of: &std::collections::BTreeMap<String, candle_core::Tensor>| {
        f64::from(of[name].flatten_all().unwrap().to_vec1::<f32>().unwrap()[7])
    };
    let expected = 0.75 * number(&m1) + 0.25 * number(&m2);
    assert!((number(&third) - expected).abs() < 1e-6 && number(&m1) != number(&m2));
    let expected = 0.75 * number(&third) + 0.25 * number(&m3);
    assert!((number(&fourth) - expected).abs() < 1e-6);

    let sides: Vec<(String, String)> = all
        .iter()
        .filter_map(|record| match &record.event {
            Event::PairFormed { pair, .. } => Some([&pair.chosen, &pair.rejected].map(|side| {
                let TextRef::Completion { set, .. } = &side.text else { panic!("{side:?}") };
                set.clone()
            })),
            _ => None,
        })
        .map(|[chosen, rejected]| (chosen, rejected))
        .collect();
    assert!(!sides.is_empty());
    assert!(sides.iter().all(|(c, r)| c == "policy" && r == "initial"), "{sides:?}");
}

/// Scores that dice gave are nobody's replies, however the question would have been put: what judged is
/// in the plan, and not what the file says by now.
#[test]
fn a_control_arm_has_no_replies() {
    let root = tempfile::tempdir().unwrap();
    let lines =
        [("iterations: 3\n", "iterations: 2\n"), ("source: \"model\"", "source: \"random\"")];
    let dir = tiny(root.path(), &lines);
    run(&dir);
    change(&dir, &[("source: \"random\"", "source: \"model\"")]);
    let out = json(&["rejudge", "--rubric", "demo-compact", "--recorded"], &dir);
    let work = &out["iterations"][0]["work"];
    assert_eq!(work["read_again"], 0, "{out}");
    assert!(work["not_asked"].as_u64().unwrap() > 5, "{out}");
}
