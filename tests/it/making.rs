//! Verbs that make a run (`init`, `rejudge --into`, `rubric taint --rebuild`) make it whole or not at
//! all: killed at any moment, or on a disk that fills, they leave nothing that passes for a run, and
//! the next one makes exactly what is asked for then. And nothing that people own is written over.
//!
//! Some kills and full disks of each; `GRADUS_TEST_SCALE=10` tries ten times as many.

use crate::dice::{Dice, chosen_seed, scale};
use crate::disk::SmallDisk;
use crate::runs::{alone, copied, gradus, records, twin, whole};
use gradus::domain::Event;
use gradus::log::{JournalLog, state_digest, verify_folder};
use gradus::rubric::bundled;
use gradus::runtime::Folder;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Of each verb.
const KILLS: u64 = 5;
const FULL_DISKS: u64 = 2;

/// A verb that makes a run, asked for in one of two ways.
struct Making {
    name: &'static str,
    arguments: [Vec<String>; 2],
}

impl Making {
    fn command(&self, way: usize, dir: &Path) -> Command {
        let mut command = gradus();
        command.args(self.arguments[way].iter().map(|word| word.replace("TARGET", text(dir))));
        command.stderr(Stdio::piped());
        command
    }

    fn made(&self, way: usize, dir: &Path) -> State {
        let out = self.command(way, dir).output().unwrap();
        assert!(out.status.success(), "{}: {}", self.name, said(&out));
        state(dir)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// Prompts and rubrics of two kinds, and every verb in two ways.
fn makings(root: &Path) -> [Making; 3] {
    let run = whole().dir();
    let (run, root_text) = (text(&run), text(root));
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-base");
    for way in [0, 1] {
        let task = |n: u32| format!("add {n} and {} .\n", way + 1);
        let prompts: String = (0..500).map(task).collect();
        std::fs::write(root.join(format!("{way}.txt")), prompts).unwrap();
        let rubric = twin(bundled::DEMO_COMPACT, 8 + way as u8);
        std::fs::write(root.join(format!("{way}.wasm")), rubric).unwrap();
    }
    let ways = |line: &dyn Fn(usize) -> String| [words(&line(0)), words(&line(1))];
    let init = |way: usize| {
        format!(
            "init TARGET --model {} --prompts {root_text}/{way}.txt --preset tiny --seed {way} \
             --rubric demo-compact --device cpu",
            text(&model)
        )
    };
    let rejudge = |way: usize| {
        format!("rejudge {run} --recorded --rubric {root_text}/{way}.wasm --into TARGET")
    };
    let taint = |way: usize| {
        format!("rubric taint {run} demo-compact --rebuild TARGET --rubric {root_text}/{way}.wasm")
    };
    [
        Making { name: "init", arguments: ways(&init) },
        Making { name: "rejudge --into", arguments: ways(&rejudge) },
        Making { name: "rubric taint --rebuild", arguments: ways(&taint) },
    ]
}

/// What a run is: its digest, and every file of it but the log's, by the hash of its bytes.
#[derive(Debug, PartialEq, Eq)]
struct State {
    digest: String,
    records: u64,
    files: BTreeMap<String, String>,
}

fn state(dir: &Path) -> State {
    fn walk(dir: &Path, root: &Path, files: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = text(path.strip_prefix(root).unwrap()).to_owned();
            match path.is_dir() {
                true if name == "log" => {}
                true => walk(&path, root, files),
                false => {
                    let hash = blake3::hash(&std::fs::read(&path).unwrap()).to_hex().to_string();
                    let named = name.rsplit('/').next().unwrap();
                    assert!(!name.starts_with("blobs") || named == hash, "{name} is damaged");
                    files.insert(name, hash);
                }
            }
        }
    }
    let found = verify_folder(&dir.join("log")).unwrap();
    assert_eq!(found.first_error, None);
    let mut files = BTreeMap::new();
    walk(dir, dir, &mut files);
    let digest = state_digest(&JournalLog::open(&dir.join("log")).unwrap()).unwrap().digest;
    State { digest, records: found.records, files }
}

/// Nothing in the folder passes for a run.
fn is_no_run(dir: &Path) {
    let begun = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    for verb in ["run", "status", "log digest"] {
        let out = gradus().args(verb.split(' ')).arg(dir).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(out.status.code(), Some(2), "{verb}: {}", said(&out));
        let why = if begun { "making it was not finished" } else { "holds no run. Make one there" };
        assert!(said(&out).contains(why), "{verb}: {}", said(&out));
    }
}

/// What a verb's deaths came to.
#[derive(Debug, Default)]
struct Deaths {
    /// A whole run was there.
    whole: u32,
    /// A beginning, which passed for nothing.
    left: u32,
    /// No folder.
    nothing: u32,
    /// After so many the other run was made in the same folder.
    repeated: u32,
}

/// Waits for the moment at which a maker dies: any, or one while it writes.
fn wait(dice: &mut Dice, dir: &Path, took: Duration, writing: Duration, n: u64) {
    let some = |dice: &mut Dice, of: Duration| {
        Duration::from_micros(dice.below(of.as_micros() as u64 + 1))
    };
    if n.is_multiple_of(3) {
        return std::thread::sleep(some(dice, took));
    }
    let until = Instant::now() + took * 2;
    let begun = [".gradus-unfinished", ".gradus-placing", "gradus.yaml"];
    while !begun.iter().any(|name| dir.join(name).exists()) && Instant::now() < until {
        std::thread::sleep(Duration::from_micros(100));
    }
    std::thread::sleep(some(dice, writing));
}

/// How long a verb takes, and how much of it from its first to its last write.
fn times(making: &Making, dir: &Path) -> (Duration, Duration) {
    let began = Instant::now();
    let mut child = making.command(1, dir).spawn().unwrap();
    let mut first = None;
    while child.try_wait().unwrap().is_none() {
        if first.is_none() && dir.exists() {
            first = Some(Instant::now());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    (began.elapsed(), first.unwrap().elapsed())
}

fn killed(making: &Making, root: &Path, seed: u64, kills: u64) -> Deaths {
    let wholes = [0, 1].map(|way| making.made(way, &root.join(format!("whole-{way}"))));
    let (took, writing) = times(making, &root.join("timed"));
    let (dir, mut deaths, mut dice) = (root.join("killed"), Deaths::default(), Dice(seed));
    for n in 0..kills {
        let way = (n % 2) as usize;
        let mut child = making.command(way, &dir).spawn().unwrap();
        wait(&mut dice, &dir, took, writing, n);
        child.kill().unwrap();
        child.wait().unwrap();
        if Folder::at(&dir).holds_run() {
            assert_eq!(state(&dir), wholes[way], "{} {n}", making.name);
            let again = making.command(way, &dir).output().unwrap();
            assert!(said(&again).contains("holds a run already"), "{}", said(&again));
            std::fs::remove_dir_all(&dir).unwrap();
            deaths.whole += 1;
            continue;
        }
        is_no_run(&dir);
        *(if dir.exists() { &mut deaths.left } else { &mut deaths.nothing }) += 1;
        // Or it lies there until the next one dies, too.
        if dice.chance(60) {
            assert_eq!(making.made(1 - way, &dir), wholes[1 - way], "{} {n}", making.name);
            std::fs::remove_dir_all(&dir).unwrap();
            deaths.repeated += 1;
        }
    }
    println!("{}: {took:?}, of it {writing:?} writing; {kills} kills: {deaths:?}", making.name);
    deaths
}

#[test]
fn a_maker_that_is_killed_leaves_a_whole_run_or_none() {
    let _alone = alone();
    let seed = chosen_seed().unwrap_or(1);
    let root = tempfile::tempdir().unwrap();
    for making in makings(root.path()) {
        let own = tempfile::tempdir_in(root.path()).unwrap();
        let deaths = killed(&making, own.path(), seed, KILLS * scale());
        assert!(deaths.left + deaths.whole > 0, "nobody died while it wrote: {deaths:?}");
    }
}

/// Two at once in one folder: one makes its run, and the other is refused.
#[test]
fn of_two_makers_one_makes_its_run() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let making = &makings(root.path())[0];
    let wholes = [0, 1].map(|way| making.made(way, &root.path().join(format!("whole-{way}"))));
    for round in 0..5 {
        let dir = root.path().join(format!("run-{round}"));
        let both = [0, 1].map(|way| making.command(way, &dir).spawn().unwrap());
        let ended = both.map(|child| child.wait_with_output().unwrap());
        let done = ended.each_ref().map(|out| out.status.success());
        let winner = done.iter().position(|done| *done).unwrap();
        assert_eq!(done, [winner == 0, winner == 1], "{} {}", said(&ended[0]), said(&ended[1]));
        assert_eq!(ended[1 - winner].status.code(), Some(2), "{}", said(&ended[1 - winner]));
        assert_eq!(state(&dir), wholes[winner]);
    }
}

/// Bytes of all files below a folder.
fn bytes(dir: &Path) -> u64 {
    let each = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        let found = entry.metadata().unwrap();
        if found.is_dir() { bytes(&entry.path()) } else { found.len().next_multiple_of(4096) }
    };
    std::fs::read_dir(dir).unwrap().map(each).sum()
}

#[test]
fn a_maker_on_a_disk_that_fills_leaves_a_whole_run_or_none() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let mut dice = Dice(chosen_seed().unwrap_or(1));
    for making in makings(root.path()) {
        let own = tempfile::tempdir_in(root.path()).unwrap();
        let places = [0, 1].map(|way| own.path().join(format!("whole-{way}")));
        let wholes = [0, 1].map(|way| making.made(way, &places[way]));
        let need = bytes(&places[0]);
        let Some(disk) = SmallDisk::mount((need >> 19) as u32 + 32) else { return };
        let (dir, mut refused, runs) = (disk.path().join("run"), 0, FULL_DISKS * scale());
        for n in 0..runs {
            let way = (n % 2) as usize;
            disk.fill_but(need * n / runs + dice.below(need / runs));
            let out = making.command(way, &dir).output().unwrap();
            if out.status.success() {
                assert_eq!(state(&dir), wholes[way], "{} {n}", making.name);
            } else {
                refused += 1;
                assert!(said(&out).contains("pace"), "no word of space: {}", said(&out));
                assert!(!dir.exists(), "{}: something is left", making.name);
                is_no_run(&dir);
                disk.free();
                assert_eq!(making.made(1 - way, &dir), wholes[1 - way], "{} {n}", making.name);
            }
            disk.free();
            std::fs::remove_dir_all(&dir).unwrap();
        }
        println!("{}: {need} bytes; {refused} of {runs} runs were refused", making.name);
        assert!(refused > 0);
    }
}

/// Every file below a folder, with its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(contents(&path)),
            false => drop(all.insert(path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    all
}

#[test]
fn nothing_that_people_own_is_written_over() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("theirs");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-base");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("gradus.yaml"), "of: another program\n").unwrap();
    copied(&model, &dir.join("model"));
    std::fs::write(dir.join("prompts.txt"), "add 1 and 1 .\nadd 2 and 1 .\n").unwrap();
    std::fs::write(root.path().join("prompts.txt"), "add 1 and 1 .\nadd 2 and 1 .\n").unwrap();
    let before = contents(root.path());
    let init = |target: &Path, model: &Path, prompts: &Path| {
        let mut command = gradus();
        command.arg("init").arg(target).arg("--model").arg(model).arg("--prompts").arg(prompts);
        let out = command.stderr(Stdio::piped()).output().unwrap();
        (out.status.code(), said(&out))
    };
    let (inside, outside) = (dir.join("prompts.txt"), root.path().join("prompts.txt"));
    std::os::unix::fs::symlink(&dir, root.path().join("link")).unwrap();
    let link = root.path().join("link");
    for (target, model, prompts, why) in [
        (&dir, &model, &outside, "is not empty: it holds gradus.yaml, model, prompts.txt"),
        (&dir, &dir.join("model"), &outside, "--model"),
        (&dir, &model, &inside, "--prompts"),
        (&link, &dir.join("model"), &outside, "lies in"),
        (&root.path().to_owned(), &model, &outside, "--prompts"),
        (&outside, &model, &inside, "prompts.txt"),
    ] {
        let (code, said) = init(target, model, prompts);
        assert!(code.is_some_and(|code| code != 0) && said.contains(why), "{why}: {said}");
    }
    std::fs::remove_file(link).unwrap();
    assert_eq!(contents(root.path()), before);
    // Nor does a report.
    let run = root.path().join("run");
    assert_eq!(init(&run, &model, &outside).0, Some(0));
    let page = root.path().join("page.html");
    std::fs::write(root.path().join("page.json"), "{\"of\": \"another program\"}").unwrap();
    let report = |to: &Path| {
        let mut command = gradus();
        let out = command.arg("report").arg(&run).arg("--out").arg(to).stderr(Stdio::piped());
        let out = out.output().unwrap();
        (out.status.code(), said(&out))
    };
    for to in [&page, &run.join("gradus.yaml"), &dir.join("prompts.txt")] {
        let before = contents(root.path());
        let (code, said) = report(to);
        assert!(code == Some(2) && said.contains("is no report of gradus"), "{said}");
        assert_eq!(contents(root.path()), before);
    }
    std::fs::remove_file(root.path().join("page.json")).unwrap();
    for _ in 0..2 {
        let (code, said) = report(&page);
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn another_run_has_a_folder_of_its_own_and_pairs_a_new_file() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    let before = contents(root.path());
    let asked = |arguments: &[&str], target: &Path| {
        let mut command = gradus();
        command.args(["rejudge", text(&dir), "--rubric", "demo-compact", "--recorded"]);
        let out = command.args(arguments).arg(target).stderr(Stdio::piped()).output().unwrap();
        (out.status.code(), said(&out))
    };
    for (what, target, why) in [
        ("--pairs", dir.join("gradus.yaml"), "is there already"),
        ("--into", dir.join("model/x"), "one lies in the other"),
        ("--into", dir.join("x"), "one lies in the other"),
        ("--into", root.path().to_owned(), "one lies in the other"),
        ("--into", dir.clone(), "holds a run already"),
        ("--into", dir.join("model/config.json"), "one lies in the other"),
    ] {
        let (code, said) = asked(&[what], &target);
        assert!(code == Some(2) && said.contains(why), "{what} {}: {said}", target.display());
    }
    let mut taint = gradus();
    let taint = taint.args(["rubric", "taint", text(&dir), "demo-compact", "--rebuild"]);
    let out = taint.arg(dir.join("blobs/x")).stderr(Stdio::piped()).output().unwrap();
    assert!(said(&out).contains("one lies in the other"), "{}", said(&out));
    // Hosts are told the same.
    let forked = Folder::at(&dir).fork(
        &Folder::at(dir.join("blobs/x")),
        gradus::domain::Offset(1),
        &gradus::config::Config::from_yaml(&dir.join("gradus.yaml")).unwrap(),
    );
    assert!(forked.unwrap_err().to_string().contains("lies in"));
    assert_eq!(contents(root.path()), before);
    let pairs = root.path().join("pairs.jsonl");
    assert_eq!(asked(&["--pairs"], &pairs).0, Some(0));
    let written = std::fs::read(&pairs).unwrap();
    assert!(written.split(|b| *b == b'\n').count() > 20);
    assert_eq!(asked(&["--pairs"], &pairs).0, Some(2));
    assert_eq!(std::fs::read(&pairs).unwrap(), written);
}

/// Weights that are cut off are not handed on, and what was begun is gone.
#[test]
fn a_damaged_blob_is_not_copied() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    let base = records(&dir).into_iter().find_map(|record| match record.event {
        Event::RunStarted { base, .. } => Some(base.weights),
        _ => None,
    });
    let path = Folder::at(&dir).blobs().path(&base.unwrap());
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let to = root.path().join("other");
    let into = || {
        let mut command = gradus();
        command.args(["rejudge", "--rubric", "demo-compact", "--recorded"]).arg(&dir);
        command.arg("--into").arg(&to).stderr(Stdio::piped()).output().unwrap()
    };
    let out = into();
    assert!(
        said(&out).contains("is damaged") && said(&out).contains(text(&path)),
        "{}",
        said(&out)
    );
    assert!(!to.exists());
    std::fs::write(&path, &bytes).unwrap();
    assert!(into().status.success());
    state(&to);
}

/// An `init` of an older gradus that was stopped: settings and a log without a beginning.
#[test]
fn a_run_that_was_never_finished_says_so_at_once() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("run");
    let making = &makings(root.path())[0];
    making.made(0, &dir);
    std::fs::remove_dir_all(dir.join("log")).unwrap();
    std::fs::create_dir(dir.join("log")).unwrap();
    let began = Instant::now();
    let run = gradus().arg("run").arg(&dir).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(run.status.code(), Some(2), "{}", said(&run));
    assert!(said(&run).contains("holds no run but the beginning of one"), "{}", said(&run));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let again = making.command(1, &dir).output().unwrap();
    assert!(said(&again).contains("remove the folder first"), "{}", said(&again));
}
