//! `gradus init`: lays out a run on a model of the user's, and says what it recognised.

use super::{ExitStatus, devices, output};
use gradus::config::{Config, PoolForecast};
use gradus::domain::event::SeedRow;
use gradus::domain::{Message, Prompt, PromptOrigin};
use gradus::estimate::{self, DiskNeeds, Kinds, Outline, parameters};
use gradus::lm::device::select;
use gradus::lm::model_files::ModelFiles;
use gradus::lm::template::CHATML;
use gradus::prompts;
use gradus::prompts::held_out::{self, HeldOut, LeftOut};
use gradus::runtime::{Folder, NewRun};
use gradus::{Code, Error};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Lay out a run.
#[derive(clap::Args)]
pub struct Arguments {
    /// The run's folder: an empty one, or one that is not there yet.
    dir: PathBuf,
    /// A Hugging Face folder or a .gguf file.
    #[arg(long)]
    model: PathBuf,
    /// Prompts: JSON lines, a JSON array, or text with one a line.
    #[arg(long)]
    prompts: PathBuf,
    /// Prompts to measure on, in the same formats, instead of some of --prompts. Nothing that
    /// equals one of them, or nearly does, is trained on.
    #[arg(long)]
    held_out: Option<PathBuf>,
    /// Settings to begin with: recommended, paper (its numbers and nothing else), tiny (about half
    /// an hour an iteration on 2 cores), or verifiable (prompts with requirements that a program checks).
    #[arg(long, default_value = "recommended")]
    preset: String,
    /// Change a setting of it: train.dpo.beta=0.2; as often as you like. They are listed by
    /// gradus config explain.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Root of all randomness.
    #[arg(long)]
    seed: Option<u64>,
    /// Instructions with answers, for a supervised first iteration.
    #[arg(long)]
    ift: Option<PathBuf>,
    /// Judge prompts with replies, for the same.
    #[arg(long)]
    eft: Option<PathBuf>,
    /// A rubric instead of the paper's additive one: a component (.wasm), or the name of a bundled
    /// rubric.
    #[arg(long)]
    rubric: Option<String>,
    /// A chat template for a model without one: chatml, or a Jinja file.
    #[arg(long)]
    chat_template: Option<String>,
    #[command(flatten)]
    wish: devices::Wish,
    /// Print what was recognised as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Recognised {
    dir: PathBuf,
    model: String,
    parameters: u64,
    context_tokens: usize,
    prompts: String,
    to_train_on: usize,
    held_out: usize,
    seed_rows: usize,
    pool: PoolForecast,
    disk: DiskNeeds,
    preset: String,
    notes: Vec<String>,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<ExitStatus, Error> {
    let folder = Folder::at(&arguments.dir);
    must_lie_outside(arguments, &folder)?;
    // Before a large model is read.
    folder.must_be_vacant()?;
    let mut config = Config::preset(&arguments.preset)?;
    config.seed = arguments.seed.unwrap_or(config.seed);
    config.device = arguments.wish.device.unwrap_or(config.device);
    config.set_all(&arguments.set)?;
    let device = select(config.device)?;
    let file = prompts::read(&arguments.prompts)?;
    let template = template(arguments.chat_template.as_deref())?;
    let model = ModelFiles::open_with_template(&arguments.model, template.as_deref())?;
    let quantised = model.quantised_note().map(|note| Code::ModelDequantised.says(note));
    let mut notes: Vec<String> = quantised.into_iter().collect();
    let recognised = file.summary();
    let (mut train, held_out) = hold_out(arguments, file, &mut config, &mut notes)?;
    let mut seed_data = seed_data(arguments)?;
    leave_out(arguments, &held_out, &mut train, &mut seed_data, &mut notes)?;
    let kinds = if seed_data.is_empty() { Kinds::Preference } else { Kinds::SupervisedFirst };
    let outline = Outline::of(model.config(), &config, kinds, &device);
    estimate::check_now(&outline, &device)?;
    let disk = outline.disk(seed_data.iter().map(|(_, rows)| rows.len()).sum());
    notes.extend(device.notice().map(|notice| format!("computes on {notice}")));
    let shown = Recognised {
        dir: arguments.dir.clone(),
        model: arguments.model.display().to_string(),
        parameters: parameters(model.config()),
        context_tokens: model.config().max_position_embeddings,
        prompts: recognised,
        to_train_on: train.len(),
        held_out: held_out.len(),
        seed_rows: seed_data.iter().map(|(_, rows)| rows.len()).sum(),
        pool: config.pool_lasts(train.len(), 0, u32::from(!seed_data.is_empty())),
        disk,
        preset: arguments.preset.clone(),
        notes,
    };
    let rubric = match &arguments.rubric {
        Some(named) => super::rubric::component(named)?,
        None => gradus::rubric::bundled::ADDITIVE_FIVE.to_vec(),
    };
    let weights = model.weights()?;
    train.extend(held_out);
    let prompts = train;
    folder.create(&NewRun { config, model, weights, prompts, seed_data, rubric })?;
    if arguments.json {
        output::json(&shown)?
    } else {
        output::text(&render(&shown))?
    }
    Ok(ExitStatus::Done)
}

/// Nothing that a run is made of may lie in its folder.
fn must_lie_outside(arguments: &Arguments, folder: &Folder) -> Result<(), Error> {
    let Arguments { model, prompts, held_out, ift, eft, rubric, chat_template, .. } = arguments;
    // A bundled rubric or template is no file.
    let file =
        |named: &Option<String>| named.as_ref().map(PathBuf::from).filter(|path| path.exists());
    let given = [
        ("--model", Some(model.clone())),
        ("--prompts", Some(prompts.clone())),
        ("--held-out", held_out.clone()),
        ("--ift", ift.clone()),
        ("--eft", eft.clone()),
        ("--rubric", file(rubric)),
        ("--chat-template", file(chat_template)),
    ];
    for (name, path) in given {
        let Some(path) = path.filter(|path| folder.encloses(path)) else { continue };
        return Err(Error::refused(
            Code::FolderInsideRun,
            format!(
                "{name} {} lies in {}, which is to become the run's folder. Give the run a folder of its \
             own",
                path.display(),
                folder.path().display()
            ),
        ));
    }
    Ok(())
}

fn template(given: Option<&str>) -> Result<Option<String>, Error> {
    match given {
        None => Ok(None),
        Some("chatml") => Ok(Some(CHATML.to_owned())),
        Some(path) => Ok(Some(std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?)),
    }
}

/// The prompts to train on, and those to measure on: the file of their own, or some of the prompts.
/// The settings then say how many they are.
fn hold_out(
    arguments: &Arguments,
    file: prompts::PromptFile,
    config: &mut Config,
    notes: &mut Vec<String>,
) -> Result<(Vec<Prompt>, Vec<Prompt>), Error> {
    let (given, wanted) = (file.prompts(PromptOrigin::Given), config.prompts.held_out as usize);
    let (train, held_out) = match &arguments.held_out {
        Some(path) => {
            let own = prompts::read(path)?;
            let (file, prompts) = (path.display(), arguments.prompts.display());
            notes.push(format!(
                "held out are all prompts of {file} and none of {prompts}; prompts.held_out says \
                 how many. {file}: {}",
                own.summary()
            ));
            (given, held_out::held_out(own.prompts(PromptOrigin::HeldOut)))
        }
        None => held_out::pick(given, wanted, config.seed),
    };
    let count = held_out.len();
    config.prompts.held_out = u32::try_from(count).unwrap_or(u32::MAX);
    if arguments.held_out.is_none() && count < wanted {
        notes.push(format!(
            "only {count} prompts are held out to measure on, not {wanted}: at most a quarter of \
             the file is. A file of your own: --held-out FILE"
        ));
    }
    if count > config.evaluate.prompts as usize {
        notes.push(format!(
            "of the {count} held-out prompts {} are measured on in an iteration (evaluate.prompts)",
            config.evaluate.prompts
        ));
    }
    Ok((train, held_out))
}

/// Takes what is held out from everything that trains, and says so.
fn leave_out(
    arguments: &Arguments,
    held_out: &[Prompt],
    train: &mut Vec<Prompt>,
    seed_data: &mut [(String, Vec<SeedRow>)],
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    let held = HeldOut::of(held_out);
    let mut say = |path: &Path, left: LeftOut| {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        notes.extend(left.summary(&name));
        match left.of > 0 && left.rows() == left.of {
            true => Err(Error::refused(
                Code::NothingToTrainOn,
                format!(
                    "{}: nothing is left to train on, for every prompt in it is held out to measure on, \
                 word for word or nearly. Hold out other prompts (--held-out FILE), or train on \
                 others",
                    path.display()
                ),
            )),
            false => Ok(()),
        }
    };
    say(&arguments.prompts, held.keep_prompts(train))?;
    for (name, rows) in seed_data {
        let (path, left) = match name.as_str() {
            "eft" => (&arguments.eft, held.keep_questions(rows)),
            _ => (&arguments.ift, held.keep_rows(rows)),
        };
        path.as_deref().map_or(Ok(()), |path| say(path, left))?;
    }
    Ok(())
}

fn seed_data(arguments: &Arguments) -> Result<Vec<(String, Vec<SeedRow>)>, Error> {
    let mut data = Vec::new();
    for (name, path) in [("ift", &arguments.ift), ("eft", &arguments.eft)] {
        let Some(path) = path else { continue };
        let rows = prompts::read_answers(path)?.seed_rows();
        if rows.is_empty() {
            return Err(no_answers(path));
        }
        data.push((name.to_owned(), rows));
    }
    Ok(data)
}

fn no_answers(path: &Path) -> Error {
    let example = serde_json::json!({
        "messages": [Message::user("..."), Message::assistant("...")],
    });
    Error::refused(
        Code::NoAnswers,
        format!(
            "{} has prompts but no answers, so there is nothing to learn from. A line with one: \
         {example}",
            path.display()
        ),
    )
}

fn render(shown: &Recognised) -> String {
    let dir = shown.dir.display();
    let mut text = format!(
        "model    {} ({:.1} M parameters, {} tokens of context)\n\
         prompts  {}\n\
         \x20        {} to train on, {} held out to measure on, {} seed rows\n\
         \x20        {}\n\
         disk     {}\n\
         preset   {} (change it in {dir}/gradus.yaml)\n",
        shown.model,
        shown.parameters as f64 / 1e6,
        shown.context_tokens,
        shown.prompts,
        shown.to_train_on,
        shown.held_out,
        shown.seed_rows,
        shown.pool,
        output::disk(&shown.disk),
        shown.preset,
    );
    for note in &shown.notes {
        text.push_str(&format!("note     {note}\n"));
    }
    text.push_str(&format!("\nnext: gradus run {dir}\n"));
    text
}
