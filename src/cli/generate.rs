//! `gradus generate`: let any policy of a run answer.

use super::{ExitStatus, devices, output, signals};
use gradus::domain::{Message, Seed};
use gradus::lm::generate::{DrawRequest, Sampling};
use gradus::runtime::{Folder, OpenedRun};
use gradus::{Code, Error};
use serde::Serialize;
use std::path::PathBuf;

/// Let any policy of a run answer.
#[derive(clap::Args)]
pub struct Arguments {
    /// The run's folder.
    dir: PathBuf,
    /// What to ask.
    #[arg(long)]
    prompt: String,
    /// Which one: latest, base, M2, or the beginning of a policy's hash.
    #[arg(long, default_value = "latest")]
    policy: String,
    /// The same by number: 0 is the base, 2 is M2.
    #[arg(long, conflicts_with = "policy")]
    iteration: Option<u32>,
    /// Answers.
    #[arg(short, long, default_value_t = 1)]
    n: u32,
    /// Default: the run's sampling.temperature.
    #[arg(long)]
    temperature: Option<f32>,
    /// Default: the run's sampling.top_p.
    #[arg(long)]
    top_p: Option<f32>,
    /// Default: the run's sampling.max_new_tokens.
    #[arg(long)]
    max_new_tokens: Option<u32>,
    /// Same seed, same answers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    wish: devices::Wish,
    /// Print tokens and stop reasons as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct GeneratedAnswer<'a> {
    model: String,
    policy: String,
    prompt: &'a str,
    completions: Vec<gradus::domain::Completion>,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<ExitStatus, Error> {
    let run = OpenedRun::open(&Folder::at(&arguments.dir), arguments.wish.device)?;
    let wanted = match arguments.iteration {
        Some(number) => format!("M{number}"),
        None => arguments.policy.clone(),
    };
    let row = run.policy(&wanted).map_err(|error| match arguments.iteration {
        Some(number) if error.code() == Code::PolicyUnknown => no_model(&run, number),
        _ => error,
    })?;
    devices::say(run.device());
    let served = run.serve(&row)?;
    let (usual, model) = (served.settings(), served.model());
    let sampling = Sampling {
        temperature: arguments.temperature.unwrap_or(usual.temperature as f32),
        top_p: arguments.top_p.unwrap_or(usual.top_p as f32),
        top_k: None,
        min_p: None,
        repetition_penalty: 1.0,
        max_new_tokens: arguments.max_new_tokens.map_or(usual.max_new_tokens, |most| most as usize),
        stop_ids: model.stop_ids().to_vec(),
    };
    let seed = Seed::root(arguments.seed).derive("generate");
    let request = DrawRequest {
        prompt: model.encode_chat(&[Message::user(arguments.prompt.clone())])?,
        seeds: (0..u64::from(arguments.n)).map(|i| seed.index(i)).collect(),
        sampling,
    };
    let stop = signals::stop_flag()?;
    let lost = || Error::refused(Code::Defect, "the model drew no answers for a prompt");
    let completions = model.draw(&[request], &stop)?.pop().ok_or_else(lost)?;
    if arguments.json {
        let prompt = arguments.prompt.as_str();
        let policy = row.policy.id().to_string();
        output::json(&GeneratedAnswer { model: row.name, policy, prompt, completions })?;
    } else {
        for completion in &completions {
            output::text(&format!("{}\n", completion.text))?;
        }
    }
    Ok(ExitStatus::Done)
}

/// That an iteration made no model.
fn no_model(run: &OpenedRun, number: u32) -> Error {
    let numbers =
        run.policies().into_iter().filter_map(|row| row.name.strip_prefix('M')?.parse().ok());
    let last: u32 = numbers.max().unwrap_or_default();
    Error::refused(
        Code::IterationUnknown,
        format!("iteration {number} made no model; iterations so far: {last} (0 is the base)"),
    )
}
