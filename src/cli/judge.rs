//! `gradus judge`: answers of one's own, judged under a rubric by a policy of a run.

use super::rejudge::PromptsDone;
use super::{ExitStatus, devices, output, signals};
use gradus::assess::{AssessWishes, AssessedAnswer, AssessedPrompt, Assessor, BroughtAnswers};
use gradus::domain::PromptOrigin;
use gradus::runtime::Folder;
use gradus::{Code, Error, prompts};
use std::path::PathBuf;
use std::sync::Arc;

/// Under what answers are judged, where not as the run judges.
#[derive(clap::Args)]
pub struct JudgedBy {
    /// An installed rubric, a component (.wasm), or the name of a bundled rubric; several judge together.
    /// Default: those that judge the run.
    #[arg(long)]
    pub rubric: Vec<String>,
    /// Judgments of each answer, instead of the run's judge.samples.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub samples: Option<u32>,
}

/// Judge prompts and answers of your own under a rubric. The run stays as it is.
#[derive(clap::Args)]
pub struct Arguments {
    /// Prompts with answers, as for gradus init --ift; several rows may have the same prompt.
    file: PathBuf,
    /// The run whose model judges.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Whose replies are read: latest, base, M2, or the beginning of a policy's hash.
    #[arg(long, default_value = "latest")]
    policy: String,
    #[command(flatten)]
    by: JudgedBy,
    #[command(flatten)]
    wish: devices::Wish,
    /// Print every answer with every judgment's words as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<ExitStatus, Error> {
    let file = prompts::read_answers(&arguments.file)?;
    eprintln!("{}: {}", arguments.file.display(), file.summary());
    let brought = answered(&arguments.file, file)?;
    let (folder, stop) = (Folder::at(&arguments.run), signals::stop_flag()?);
    let mut assessor =
        Assessor::open(&folder, &stop, Arc::new(PromptsDone::new()), arguments.wish.device)?;
    devices::say(assessor.device());
    let policy = assessor.policy(&arguments.policy)?;
    let panel = assessor.panel(&arguments.by.rubric)?;
    let wishes = AssessWishes { samples: arguments.by.samples };
    let judged = assessor.judge(&brought, (&policy, &panel), &wishes)?;
    match arguments.json {
        true => output::json(&judged)?,
        false => output::text(&rendered(&judged))?,
    }
    Ok(ExitStatus::Done)
}

fn answered(
    path: &std::path::Path,
    file: prompts::PromptFile,
) -> Result<Vec<BroughtAnswers>, Error> {
    let all = file.rows.len();
    let rows = file.answered(PromptOrigin::Given);
    match rows.len() {
        0 => Err(Error::refused(
            Code::NoAnswers,
            format!(
                "{} has prompts and no answers, so there is nothing to judge. A line with one: \
                 {{\"prompt\": \"...\", \"completion\": \"...\"}}",
                path.display()
            ),
        )),
        some => {
            if some < all {
                eprintln!("{} prompts have no answer and are left out", all - some);
            }
            Ok(BroughtAnswers::gathered(rows))
        }
    }
}

/// How much of a text a list shows, in characters.
const SHOWN: usize = 44;

fn rendered(judged: &[AssessedPrompt]) -> String {
    let mut text = format!("{:>6}  {:>5}  {:<47}  {}\n", "score", "error", "answer", "prompt");
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.2}"));
    let answers = || judged.iter().flat_map(|one| &one.answers);
    for one in judged {
        let asked = one.prompt.last().map(|turn| turn.content.as_str()).unwrap_or_default();
        for AssessedAnswer { text: said, score, standard_error, .. } in &one.answers {
            let (score, error) = (number(*score), number(*standard_error));
            let said = output::beginning(said, SHOWN);
            let asked = output::beginning(asked, SHOWN);
            text.push_str(&format!("{score:>6}  {error:>5}  {said:<47}  {asked}\n"));
        }
    }
    let scores: Vec<f64> = answers().filter_map(|answer| answer.score).collect();
    let mean = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
    let mean = if scores.is_empty() { String::new() } else { format!("; mean score {mean:.2}") };
    text.push_str(&format!(
        "{} of {} answers have a score{mean}\n",
        scores.len(),
        answers().count()
    ));
    let why = answers().filter(|answer| answer.score.is_none());
    let why = why.flat_map(|answer| &answer.verdicts).find_map(|verdict| verdict.reason.as_ref());
    if let Some(why) = why {
        text.push_str(&format!("of those without one, the first: {why}. All: --json\n"));
    }
    text
}
