//! `gradus eft`: seed data that teaches a model to judge.

use super::rejudge::PromptsDone;
use super::rubric::component;
use super::{ExitStatus, devices, output, signals};
use clap::{Args, Subcommand, ValueEnum};
use gradus::assess::BroughtAnswers;
use gradus::domain::event::SeedRow;
use gradus::domain::{Prompt, PromptOrigin, Seed};
use gradus::eft::{
    BuiltSeedData, EftPrompt, EftReport, EftRubrics, EftSize, GivenAnswer, draw_answers,
    from_verifier, open_model,
};
use gradus::lm::device::{DeviceChoice, Dtype, select};
use gradus::lm::generate::Sampling;
use gradus::lm::model_files::ModelFiles;
use gradus::rubric::{Rubric, RubricEngine, bundled};
use gradus::{Code, Error, prompts};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Seed data that teaches a model to judge.
#[derive(Subcommand)]
pub enum EftVerb {
    /// Build it from prompts whose requirements a program can check.
    Build(BuildArguments),
}

/// Who knows whether an answer is good.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum EftSource {
    /// The bundled verifier: a program that checks the prompts' constraints.
    Verifier,
}

/// Build seed data: answers of a model are checked by a program, which writes down evidence and verdicts
/// for the judge to learn, and picks the answers that are worth learning.
#[derive(Args)]
pub struct BuildArguments {
    /// Who knows whether an answer is good.
    #[arg(long)]
    from: EftSource,
    /// Prompts with constraints as `fields`, in a format of gradus init.
    #[arg(long, required_unless_present = "answers", requires = "model")]
    prompts: Option<PathBuf>,
    /// Who answers them: a Hugging Face folder or a .gguf file.
    #[arg(long, required_unless_present = "answers")]
    model: Option<PathBuf>,
    /// Prompts with constraints and answers to them, instead of drawing any: rows of gradus init --ift, or
    /// the answers.jsonl of a build before.
    #[arg(long, conflicts_with_all = ["prompts", "model"])]
    answers: Option<PathBuf>,
    /// A folder, empty or not there yet, for eft.jsonl, ift.jsonl, report.json, and the answers that were
    /// drawn (answers.jsonl).
    #[arg(short, long)]
    out: PathBuf,
    /// Rows that teach to judge, at most.
    #[arg(long, default_value_t = 3000)]
    rows: usize,
    /// Rows that teach to answer, at most.
    #[arg(long, default_value_t = 1000)]
    ift_rows: usize,
    /// The rubric whose questions are to be answered: a component (.wasm), or a bundled one.
    #[arg(long, default_value = "requirements")]
    rubric: String,
    /// Answers to each prompt.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    each: u32,
    /// Temperature of answers.
    #[arg(long, default_value_t = 1.0)]
    temperature: f32,
    /// Nucleus of answers.
    #[arg(long, default_value_t = 0.95)]
    top_p: f32,
    /// Bound on an answer, tokens.
    #[arg(long, default_value_t = 96)]
    max_new_tokens: usize,
    /// Same seed and answers, same rows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    wish: devices::Wish,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs a verb.
pub fn run(verb: &EftVerb) -> Result<ExitStatus, Error> {
    let EftVerb::Build(arguments) = verb;
    must_be_empty(&arguments.out)?;
    let answered = answered(arguments)?;
    let engine = RubricEngine::new()?;
    let verifier = match arguments.from {
        EftSource::Verifier => Rubric::load(&engine, bundled::VERIFIER)?,
    };
    let judge = Rubric::load(&engine, &component(&arguments.rubric)?)?;
    let rubrics = EftRubrics { verifier: &verifier, judge: &judge };
    let size = EftSize { eft: arguments.rows, ift: arguments.ift_rows, seed: arguments.seed };
    let built = from_verifier(&answered, rubrics, size)?;
    write(&arguments.out, &built)?;
    match arguments.json {
        true => output::json(&built.report)?,
        false => output::text(&rendered(&built.report, &arguments.out))?,
    }
    Ok(ExitStatus::Done)
}

fn must_be_empty(folder: &Path) -> Result<(), Error> {
    let inside = match std::fs::read_dir(folder) {
        Ok(mut inside) => inside.next(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io(folder, error)),
    };
    match inside {
        Some(_) => Err(Error::refused(
            Code::OutputExists,
            format!("{} is not empty. Name another folder: --out", folder.display()),
        )),
        None => Ok(()),
    }
}

/// Answers from a file, or of a model.
fn answered(arguments: &BuildArguments) -> Result<Vec<EftPrompt>, Error> {
    if let Some(path) = &arguments.answers {
        return of_file(path);
    }
    let (Some(prompts), Some(model)) = (&arguments.prompts, &arguments.model) else {
        return Ok(Vec::new());
    };
    let file = prompts::read(prompts)?;
    eprintln!("{}: {}", prompts.display(), file.summary());
    let prompts = file.prompts(PromptOrigin::Given);
    let answered = drawn(arguments, model, &prompts)?;
    // It took minutes: whatever comes of the rows, these stay.
    new_file(&arguments.out, "answers.jsonl", &json_lines(&answered)?)?;
    Ok(answered)
}

/// Answers of a build before, or of anybody.
fn of_file(path: &Path) -> Result<Vec<EftPrompt>, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, error))?;
    let ours: Result<Vec<EftPrompt>, _> = text.lines().map(serde_json::from_str).collect();
    match ours {
        Ok(answered) if !answered.is_empty() => Ok(answered),
        _ => {
            let file = prompts::read_answers(path)?;
            eprintln!("{}: {}", path.display(), file.summary());
            Ok(gathered(file))
        }
    }
}

fn gathered(file: prompts::PromptFile) -> Vec<EftPrompt> {
    let given = |text: String| GivenAnswer { text, ended: true };
    let one = |brought: BroughtAnswers| EftPrompt {
        prompt: brought.prompt,
        answers: brought.answers.into_iter().map(given).collect(),
    };
    let gathered = BroughtAnswers::gathered(file.answered(PromptOrigin::Given));
    gathered.into_iter().map(one).collect()
}

fn drawn(
    arguments: &BuildArguments,
    model: &Path,
    prompts: &[Prompt],
) -> Result<Vec<EftPrompt>, Error> {
    let device = select(arguments.wish.device.unwrap_or(DeviceChoice::Auto))?;
    devices::say(&device);
    let files = Arc::new(ModelFiles::open(model)?);
    let model = open_model(&files, &device, Dtype::default())?;
    let sampling = Sampling {
        temperature: arguments.temperature,
        top_p: arguments.top_p,
        top_k: None,
        min_p: None,
        repetition_penalty: 1.0,
        max_new_tokens: arguments.max_new_tokens,
        stop_ids: Vec::new(),
    };
    sampling.validate()?;
    let (stop, all) = (signals::stop_flag()?, prompts.len());
    let done = PromptsDone::new();
    let tell = |so_far: usize| done.tell(so_far as u64, all as u64);
    let seed = Seed::root(arguments.seed).derive("eft answers");
    Ok(draw_answers(&model, prompts, (arguments.each, &sampling, seed), &stop, &tell)?)
}

/// A row as gradus init reads it.
fn line(row: &SeedRow) -> serde_json::Value {
    let mut messages = row.messages.clone();
    messages.push(gradus::domain::Message::assistant(row.completion.clone()));
    serde_json::json!({ "messages": messages })
}

fn json_lines(values: &[impl Serialize]) -> Result<String, Error> {
    let mut text = String::new();
    for value in values {
        let line = serde_json::to_string(value);
        text.push_str(&line.map_err(|error| output::not_json("a row", &error))?);
        text.push('\n');
    }
    Ok(text)
}

fn new_file(folder: &Path, name: &str, text: &str) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
    let path = folder.join(name);
    let io = |error| Error::io(&path, error);
    output::new_file(&path, |file| file.write_all(text.as_bytes()).map_err(io)).map(drop)
}

fn write(folder: &Path, built: &BuiltSeedData) -> Result<(), Error> {
    let lines = |rows: &[SeedRow]| json_lines(&rows.iter().map(line).collect::<Vec<_>>());
    let report = serde_json::to_string_pretty(&built.report)
        .map_err(|error| output::not_json("the report", &error))?;
    new_file(folder, "eft.jsonl", &lines(&built.eft)?)?;
    // An empty file is none that gradus init would read.
    if !built.ift.is_empty() {
        new_file(folder, "ift.jsonl", &lines(&built.ift)?)?;
    }
    new_file(folder, "report.json", &format!("{report}\n"))
}

fn rendered(report: &EftReport, out: &Path) -> String {
    let mut text =
        format!("{:<42} {:>8} {:>6} {:>6} {:>6}\n", "constraint", "answers", "met", "yes", "no");
    for (name, kind) in &report.kinds {
        text.push_str(&format!(
            "{name:<42} {:>8} {:>6} {:>6} {:>6}\n",
            kind.answers, kind.met, kind.yes, kind.no
        ));
    }
    let out = out.display();
    text.push_str(&format!(
        "{} rows that teach to judge ({} of them answers as they were given): {out}/eft.jsonl\n",
        report.eft_rows, report.as_given
    ));
    match report.ift_rows {
        0 => text
            .push_str("no answer meets all that its prompt asks for, so none teaches to answer\n"),
        rows => text.push_str(&format!("{rows} rows that teach to answer: {out}/ift.jsonl\n")),
    }
    if report.unread > 0 {
        text.push_str(&format!(
            "{} rows left out: the rubric reads their reply otherwise\n",
            report.unread
        ));
    }
    for (why, count) in &report.left_out {
        text.push_str(&format!("{count} prompts left out: {why}\n"));
    }
    let ift = if report.ift_rows > 0 { format!(" --ift {out}/ift.jsonl") } else { String::new() };
    text.push_str(&format!(
        "next: gradus init RUN --preset verifiable --model MODEL --prompts PROMPTS{ift} --eft {out}/eft.jsonl\n"
    ));
    text
}
