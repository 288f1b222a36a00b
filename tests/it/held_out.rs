//! What is measured on is never trained on: `gradus init` with held-out prompts, and
//! `prompts.held_out` changed afterwards.

use gradus::domain::event::SeedRow;
use gradus::domain::{Event, PromptOrigin};
use gradus::prompts::held_out::HeldOut;
use gradus::runtime::Folder;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, lines: &[String]) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn run(&self) -> PathBuf {
        self.0.path().join("run")
    }

    fn init(&self, arguments: &[&str]) -> Output {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo-base");
        let mut command = Command::new(env!("CARGO_BIN_EXE_gradus"));
        command.arg("init").arg(self.run()).args(["--model", model, "--device", "cpu"]);
        command.args(["--preset", "tiny", "--rubric", "demo-compact"]).args(arguments);
        command.output().unwrap()
    }

    /// Starts the run and stops before its first iteration; what it says.
    fn start(&self) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gradus"));
        command.args(["run", "--iterations", "0", "--device", "cpu"]).arg(self.run());
        let out = command.output().unwrap();
        assert!(out.status.success(), "{out:?}");
        String::from_utf8_lossy(&out.stderr).into_owned()
    }

    fn set_held_out(&self, from: u32, to: u32) {
        let path = self.run().join("gradus.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        let (old, new) = (format!("held_out: {from}"), format!("held_out: {to}"));
        assert!(text.contains(&old), "{text}");
        std::fs::write(&path, text.replace(&old, &new)).unwrap();
    }
}

fn said(out: &Output) -> String {
    let (stdout, stderr) =
        (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    format!("{stdout}{stderr}")
}

/// Prompts to train on, those held out, the same made ready to be looked for, and the seed rows with
/// the names of their data.
type LaidOut = (Vec<String>, Vec<String>, HeldOut, Vec<(String, SeedRow)>);

/// What a run was laid out with.
fn laid_out(dir: &Path) -> LaidOut {
    let folder = Folder::at(dir);
    let log = folder.read_log().unwrap();
    let records = gradus::log::Log::read(&log, gradus::domain::Offset(0), 100_000).unwrap();
    let (mut train, mut held, mut index, mut rows) =
        (Vec::new(), Vec::new(), HeldOut::default(), Vec::new());
    for record in records {
        match record.event {
            Event::PromptAdmitted { prompt } if prompt.origin == PromptOrigin::HeldOut => {
                index.add(&prompt);
                held.push(prompt.task_text().to_owned());
            }
            Event::PromptAdmitted { prompt } => train.push(prompt.task_text().to_owned()),
            Event::SeedDataAdmitted { name, blob, .. } => {
                let bytes = folder.blobs().read(&blob).unwrap();
                let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
                rows.extend(lines.map(|l| (name.clone(), serde_json::from_slice(l).unwrap())));
            }
            _ => {}
        }
    }
    (train, held, index, rows)
}

fn sums() -> Vec<(u32, u32)> {
    (1..=12).flat_map(|a| (1..=12).map(move |b| (a, b))).collect()
}

fn row(prompt: &str, completion: &str) -> String {
    serde_json::json!({ "prompt": prompt, "completion": completion }).to_string()
}

#[test]
fn the_same_file_as_prompts_and_as_ift() {
    let place = Place::new();
    let lines: Vec<String> = sums()
        .iter()
        .map(|(a, b)| row(&format!("add {a} and {b} ."), &format!("{} .", a + b)))
        .collect();
    let file = place.file("sums-ift.jsonl", &lines);
    let eft: Vec<String> = sums()
        .iter()
        .map(|(a, b)| row(&format!("<task> add {a} and {b} . <answer> 3 ."), "score : 0"))
        .collect();
    let eft = place.file("eft.jsonl", &eft);
    let out = place.init(&["--prompts", &file, "--ift", &file, "--eft", &eft]);
    assert!(out.status.success(), "{}", said(&out));
    for line in [
        "128 to train on, 16 held out",
        "16 of 144 rows of sums-ift.jsonl left out: their prompt is held out (16 word for word)",
        "16 of 144 rows of eft.jsonl left out: their prompt is held out (16 inside a longer text)",
    ] {
        assert!(said(&out).contains(line), "no {line:?} in\n{}", said(&out));
    }
    let (train, held, index, rows) = laid_out(&place.run());
    assert_eq!((train.len(), held.len(), rows.len()), (128, 16, 256));
    for (name, row) in &rows {
        let found = match name.as_str() {
            "eft" => index.in_question(&row.messages),
            _ => index.in_chat(&row.messages),
        };
        assert_eq!(found, None, "{row:?}");
    }
}

#[test]
fn a_held_out_file_of_ones_own_in_any_script() {
    let place = Place::new();
    let held = [
        "add 3 and 4 .",
        "写一首关于春天的诗。",
        "日本の首都はどこですか？",
        "Назови столицу России.",
        "اكتب قصة قصيرة عن البحر",
        "เขียนบทกวีเกี่ยวกับทะเล",
    ];
    let own = place.file("own.txt", &held.map(str::to_owned));
    let near = [
        "Add 3 and 4, please!",
        "请写一首关于春天的诗",
        "日本の首都は、どこですか",
        "назови столицу россии",
        "اكتب قصة قصيرة عن البحر؟",
        "เขียนบทกวี เกี่ยวกับทะเล",
        "add 3 and 4 .",
    ];
    let others = ["add 3 and 5 .", "写一首关于秋天的诗。", "Назови столицу Франции."];
    let mut prompts: Vec<String> = near.iter().chain(&others).map(|t| (*t).to_owned()).collect();
    let file = place.file("prompts.txt", &prompts);
    let ift: Vec<String> = prompts.drain(..).map(|prompt| row(&prompt, "so")).collect();
    let ift = place.file("ift.jsonl", &ift);
    let out = place.init(&["--prompts", &file, "--held-out", &own, "--ift", &ift]);
    assert!(out.status.success(), "{}", said(&out));
    for line in [
        "3 to train on, 6 held out",
        "and none of",
        "7 of 10 rows of prompts.txt left out: their prompt is held out (1 word for word, 6 nearly)",
        "7 of 10 rows of ift.jsonl left out: their prompt is held out (1 word for word, 6 nearly)",
    ] {
        assert!(said(&out).contains(line), "no {line:?} in\n{}", said(&out));
    }
    let (train, held_out, _, rows) = laid_out(&place.run());
    assert!(train.iter().all(|text| others.contains(&text.as_str())), "{train:?}");
    assert_eq!((train.len(), held_out.len(), rows.len()), (3, 6, 3));
    let yaml = std::fs::read_to_string(place.run().join("gradus.yaml")).unwrap();
    assert!(yaml.contains("held_out: 6"), "{yaml}");
    assert!(!place.start().contains("held out:"), "nothing was changed");
}

#[test]
fn a_file_of_which_nothing_is_left_is_refused() {
    let place = Place::new();
    let file = place.file("p.txt", &["add 3 and 4 .".to_owned(), "add 5 and 4 .".to_owned()]);
    let out = place.init(&["--prompts", &file, "--held-out", &file]);
    assert_eq!(out.status.code(), Some(2), "{}", said(&out));
    assert!(said(&out).contains("nothing is left to train on"), "{}", said(&out));
    assert!(!place.run().exists(), "nothing was written");
}

#[test]
fn a_changed_number_is_obeyed() {
    let place = Place::new();
    let lines: Vec<String> = sums().iter().map(|(a, b)| format!("add {a} and {b} .")).collect();
    let file = place.file("sums.txt", &lines);
    let seeds: Vec<String> = lines.iter().take(40).map(|sum| row(sum, "so")).collect();
    let ift = place.file("ift.jsonl", &seeds);
    let out = place.init(&["--prompts", &file, "--ift", &ift]);
    assert!(out.status.success(), "{}", said(&out));
    assert!(!place.start().contains("held out:"), "nothing was changed");

    place.set_held_out(16, 24);
    let told = place.start();
    assert!(told.contains("was 16 and is 24: 8 more are held out from here on"), "{told}");
    assert!(!place.start().contains("held out:"), "said once");
    place.set_held_out(24, 8);
    let told = place.start();
    assert!(told.contains("8 of the 24 held-out prompts are measured on"), "{told}");
    place.set_held_out(8, 500);
    let told = place.start();
    assert!(told.contains("only") && told.contains("could be had"), "{told}");

    let folder = Folder::at(place.run());
    let view = gradus::runtime::fold(&folder.read_log().unwrap()).unwrap();
    let (_, _, _, rows) = laid_out(&place.run());
    let unused = view.unused().count();
    assert_eq!(view.held_out().count() + unused, 144);
    assert_eq!(unused, rows.len(), "what stands in seed data stays");
}
