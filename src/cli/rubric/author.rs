//! For who writes a rubric: begin one, try it, look at what it asks.

use super::super::output;
use super::{component, named};
use gradus::rubric::{
    Attacked, Rubric, RubricEngine, RubricInfo, RubricInput, TriedCase, attack, require_golden,
    run_golden,
};
use gradus::{Code, Error};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The world that a new rubric is built against.
const WIT: &str = include_str!("../../../wit/v0.2/rubric.wit");

/// A file of a new rubric: where it goes, and what is in it before the name is filled in.
type Template = (&'static str, &'static str);

const RUST: [Template; 2] = [
    ("Cargo.toml", include_str!("../../../assets/rubric-template/rust/Cargo.toml.in")),
    ("src/lib.rs", include_str!("../../../assets/rubric-template/rust/lib.rs.in")),
];
const JS: [Template; 2] = [
    ("package.json", include_str!("../../../assets/rubric-template/js/package.json.in")),
    ("rubric.js", include_str!("../../../assets/rubric-template/js/rubric.js.in")),
];
const PYTHON: [Template; 2] = [
    ("app.py", include_str!("../../../assets/rubric-template/python/app.py.in")),
    (
        "requirements.txt",
        include_str!("../../../assets/rubric-template/python/requirements.txt.in"),
    ),
];

/// What it is written in.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Lang {
    /// Small and fast; wants a Rust toolchain.
    Rust,
    /// QuickJS inside; wants Node.js.
    Js,
    /// CPython inside: 18 MB, and some seconds to load for the first time.
    Python,
}

/// Begin a rubric.
#[derive(clap::Args)]
pub struct New {
    /// Its name, and that of its folder: letters, digits, - and _.
    name: String,
    /// What to write it in.
    #[arg(long, value_enum, default_value = "rust")]
    lang: Lang,
}

/// Begins a rubric.
pub fn new(arguments: &New) -> Result<(), Error> {
    let name = &arguments.name;
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic());
    if !begins || name.len() > 64 || !name.chars().all(fits) {
        return Err(Error::refused(
            Code::RubricName,
            format!(
                "{name:?} is no name for a rubric: a letter, then up to 63 letters, digits, - or _"
            ),
        ));
    }
    let dir = Path::new(name);
    if dir.exists() {
        return Err(Error::refused(
            Code::OutputExists,
            format!("{name} is there already; take another name"),
        ));
    }
    let (files, edit) = match arguments.lang {
        Lang::Rust => (RUST, "src/lib.rs"),
        Lang::Js => (JS, "rubric.js"),
        Lang::Python => (PYTHON, "app.py"),
    };
    write(&dir.join("wit/rubric.wit"), WIT)?;
    for (path, text) in files {
        write(&dir.join(path), &text.replace("NAME", name))?;
    }
    output::text(&format!(
        "{name}/{edit}  is a rubric that works: change it\n\n\
         gradus rubric build {name}\n\
         gradus rubric test {name}/{name}.wasm\n\
         gradus rubric install DIR {name}/{name}.wasm\n\
         gradus rubric activate DIR {name}\n"
    ))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
    std::fs::write(path, text).map_err(|error| Error::io(path, error))
}

/// What to try.
#[derive(clap::Args)]
pub struct Test {
    /// A component (.wasm), or the name of a bundled rubric.
    rubric: String,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Tried {
    info: RubricInfo,
    rubric: String,
    /// The version of the world that it speaks.
    world: &'static str,
    bytes: usize,
    load_ms: f64,
    golden: Vec<TriedCase>,
    hostile: Vec<Attacked>,
    passed: bool,
}

/// Tries a component.
pub fn test(arguments: &Test) -> Result<(), Error> {
    let bytes = component(&arguments.rubric)?;
    let began = Instant::now();
    let rubric = Rubric::load_untried(&RubricEngine::without_cache()?, &bytes)?;
    let load_ms = began.elapsed().as_secs_f64() * 1000.0;
    let golden = run_golden(&rubric)?;
    let hostile = attack(&rubric)?;
    let verdict = require_golden(&golden);
    let defects = hostile.iter().filter(|attacked| attacked.failure.is_some()).count();
    let tried = Tried {
        info: rubric.info().clone(),
        rubric: rubric.id().to_string(),
        world: rubric.world(),
        bytes: bytes.len(),
        load_ms,
        passed: verdict.is_ok() && defects == 0,
        golden,
        hostile,
    };
    match arguments.json {
        true => output::json(&tried)?,
        false => output::text(&table(&tried))?,
    }
    verdict?;
    match defects {
        0 => Ok(()),
        n => Err(Error::refused(Code::RubricDefects, format!("{n} hostile inputs found a defect"))),
    }
}

fn shortened(text: &str) -> String {
    let line = text.replace('\n', " ");
    match line.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

fn table(tried: &Tried) -> String {
    let info = &tried.info;
    let passed = tried.golden.iter().filter(|case| case.failure.is_none()).count();
    let survived = tried.hostile.iter().filter(|attacked| attacked.failure.is_none()).count();
    let mut text = format!(
        "{}@{}  {}\nscale {} to {}, {} to {} candidates\n{} bytes, sha256 {}, gradus:rubric@{}, loads \
         in {:.0} ms\n\n\
         golden cases: {passed} of {} (each twice, with the same result and fuel)\n",
        info.name,
        info.version,
        info.description,
        info.scale_min,
        info.scale_max,
        info.min_candidates,
        info.max_candidates,
        tried.bytes,
        tried.rubric,
        tried.world,
        tried.load_ms,
        tried.golden.len(),
    );
    for case in &tried.golden {
        let mark = if case.failure.is_some() { "FAILS" } else { "ok" };
        let found = shortened(&case.found.to_string());
        let at: Vec<String> = case.places.iter().map(|(a, b)| format!("{a} to {b}")).collect();
        let at = if at.is_empty() { String::new() } else { format!(", at {}", at.join(", ")) };
        text.push_str(&format!(
            "  {mark:<6}{:<32} {:>9} fuel  {found}{at}\n",
            case.name, case.fuel
        ));
        if let Some(failure) = &case.failure {
            text.push_str(&format!("        {failure}\n"));
        }
    }
    text.push_str(&format!("\nhostile inputs: {survived} of {} survived\n", tried.hostile.len()));
    for Attacked { place, name, found, failure } in &tried.hostile {
        let mark = if failure.is_some() { "FAILS" } else { "ok" };
        let found = shortened(&found.to_string());
        text.push_str(&format!("  {mark:<6}{place:<10}{name:<26} {found}\n"));
        if let Some(failure) = failure {
            text.push_str(&format!("        {failure}\n"));
        }
    }
    text
}

/// What to show.
#[derive(clap::Args)]
pub struct ShowRubric {
    /// A component (.wasm), the name of a bundled rubric, or with --run an installed one.
    rubric: String,
    /// The run's folder.
    #[arg(long = "run", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The instruction to ask about.
    #[arg(long, default_value = "Name a fruit.")]
    task: String,
    /// The answer or answers to ask about.
    #[arg(long = "answer")]
    answers: Vec<String>,
    /// What else the rubric may want to know: NAME=VALUE.
    #[arg(long = "field", value_parser = field)]
    fields: Vec<(String, String)>,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[derive(Serialize)]
struct RubricShown {
    rubric: String,
    info: RubricInfo,
    /// The version of the world that it speaks.
    world: &'static str,
    asks: Vec<gradus::domain::Message>,
    max_tokens: u32,
    /// The texts that end the judge's reply.
    stop: Vec<String>,
    lead: Option<String>,
    /// What may follow the lead, and what each gives to every answer.
    choices: Vec<(String, Vec<f64>)>,
}

/// Shows what a rubric says of itself and asks.
pub fn show(arguments: &ShowRubric) -> Result<(), Error> {
    let bytes = named(arguments.dir.as_deref(), &arguments.rubric)?;
    let rubric = Rubric::load(&RubricEngine::new()?, &bytes)?;
    let info = rubric.info().clone();
    let mut candidates = arguments.answers.clone();
    let examples = ["An apple.", "A pear.", "A plum."].iter().cycle();
    let missing = (info.min_candidates as usize).saturating_sub(candidates.len());
    candidates.extend(examples.take(missing).map(|text| (*text).to_owned()));
    let judges_judgments = info.subject == gradus::rubric::Subject::Judgment;
    let item = RubricInput {
        task: arguments.task.clone(),
        context: judges_judgments.then(|| "An apple.".to_owned()),
        candidates,
        fields: arguments.fields.clone(),
        ..RubricInput::default()
    };
    let rendered = rubric.render(&item).map_err(|error| {
        Error::refused(
            Code::RubricRefusedCase,
            format!("{} does not ask about this: {error} (see --answer, --field)", info.name),
        )
    })?;
    let (lead, choices) = rendered.readout.map(|r| (r.lead, r.choices)).unzip();
    let shown = RubricShown {
        rubric: rubric.id().to_string(),
        info,
        world: rubric.world(),
        asks: rendered.messages,
        max_tokens: rendered.max_tokens,
        stop: rendered.stop,
        lead,
        choices: choices.unwrap_or_default(),
    };
    match arguments.json {
        true => output::json(&shown),
        false => output::text(&described(&shown)),
    }
}

fn described(shown: &RubricShown) -> String {
    let info = &shown.info;
    let mut text = format!(
        "{}@{}  {}\nsha256 {}, gradus:rubric@{}\nscale {} to {}, {} to {} candidates{}\n",
        info.name,
        info.version,
        info.description,
        shown.rubric,
        shown.world,
        info.scale_min,
        info.scale_max,
        info.min_candidates,
        info.max_candidates,
        if info.order_sensitive { ", asked in every order" } else { "" },
    );
    if shown.asks.is_empty() {
        text.push_str("\nIt asks no model: it is a program.\n");
    }
    for message in &shown.asks {
        text.push_str(&format!("\n--- {}\n{}\n", message.role.as_str(), message.content));
    }
    if !shown.asks.is_empty() {
        text.push_str(&format!("\n--- the reply\nat most {} tokens", shown.max_tokens));
        let stops: Vec<String> = shown.stop.iter().map(|stop| format!("{stop:?}")).collect();
        if !stops.is_empty() {
            text.push_str(&format!(", or until {}", stops.join(" or ")));
        }
        text.push('\n');
    }
    if let Some(lead) = &shown.lead {
        text.push_str(&format!("a verdict is written as {lead:?} and one of\n"));
        for (choice, scores) in &shown.choices {
            let scores: Vec<String> = scores.iter().map(f64::to_string).collect();
            text.push_str(&format!("  {choice:?}  gives {}\n", scores.join(" ")));
        }
    }
    text
}
