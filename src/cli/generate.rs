//! `gradus generate`: let any iteration of a run answer.

use super::{ExitStatus, devices, drive, output, signals};
use gradus::config::Config;
use gradus::domain::{Message, PolicyRef, Seed};
use gradus::engine::local::LocalModel;
use gradus::lm::device::select;
use gradus::lm::generate::{DrawRequest, Sampling};
use gradus::lm::model_files::ModelFiles;
use gradus::lm::policy::{LanguageModel, Vocabulary};
use gradus::runtime::{Folder, identity};
use gradus::stage::StageError;
use gradus::view::RunView;
use gradus::{Code, Error};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

/// Let any iteration of a run answer.
#[derive(clap::Args)]
pub struct Arguments {
    /// The run's folder.
    dir: PathBuf,
    /// What to ask.
    #[arg(long)]
    prompt: String,
    /// Which model: 0 is the base, 2 is M2. Default: the one that acts now.
    #[arg(long)]
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
    let folder = Folder::at(&arguments.dir);
    let view = drive::known(&folder)?;
    let (name, policy) = policy(&view, arguments.iteration)?;
    let config = Config::from_yaml(&folder.config())?;
    let device = select(arguments.wish.device.unwrap_or(config.device))?;
    devices::say(&device);
    let files = Arc::new(ModelFiles::open(&folder.model())?);
    identity::check_model(&view, &files, &folder)?;
    let local = LocalModel::new(files, folder.blobs(), &device, config.dtype)?
        .with_adapters_of_old(identity::adapters_of_old(&view, &config));
    let model = local.policy(&policy, &config.engine()).map_err(StageError::from)?;
    let sampling = Sampling {
        temperature: arguments.temperature.unwrap_or(config.sampling.temperature as f32),
        top_p: arguments.top_p.unwrap_or(config.sampling.top_p as f32),
        top_k: None,
        min_p: None,
        repetition_penalty: 1.0,
        max_new_tokens: arguments.max_new_tokens.unwrap_or(config.sampling.max_new_tokens) as usize,
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
        let policy = policy.id().to_string();
        output::json(&GeneratedAnswer { model: name, policy, prompt, completions })?;
    } else {
        for completion in &completions {
            output::text(&format!("{}\n", completion.text))?;
        }
    }
    Ok(ExitStatus::Done)
}

fn policy(view: &RunView, iteration: Option<u32>) -> Result<(String, PolicyRef), Error> {
    let none = || {
        Error::refused(
            Code::RunNotBegun,
            "the run has not started, so it has no policy that could answer",
        )
    };
    match iteration {
        None => Ok(("current".to_owned(), view.policy.clone().ok_or_else(none)?)),
        Some(0) => Ok(("M0".to_owned(), view.base.clone().ok_or_else(none)?)),
        Some(n) => {
            let found = view.iterations.iter().find(|(i, _)| i.0 == n);
            let checkpoint = found.and_then(|(_, open)| open.checkpoint.as_ref());
            let policy = checkpoint.filter(|c| c.step >= c.steps_total).map(|c| c.policy.clone());
            let last = view.iterations.keys().next_back().map_or(0, |i| i.0);
            let policy = policy.ok_or_else(|| {
                Error::refused(
                    Code::IterationUnknown,
                    format!(
                        "iteration {n} made no model; iterations so far: {last} (0 is the base)"
                    ),
                )
            })?;
            Ok((format!("M{n}"), policy))
        }
    }
}
