//! `gradus eval`: two policies of a run, compared as the run's own evaluation compares them, on its
//! held-out prompts or on others; with `--suite` any number of them, by what no judge has a part in.

use super::judge::JudgedBy;
use super::rejudge::PromptsDone;
use super::suite::{self, Asking, Suite};
use super::{ExitStatus, devices, output, signals};
use gradus::assess::{AssessWishes, Assessor, ComparedPolicies};
use gradus::domain::PromptOrigin;
use gradus::runtime::Folder;
use gradus::{Code, Error, prompts};
use std::path::PathBuf;
use std::sync::Arc;

/// Compare two policies of a run: one answer of each to every prompt, judged beside each other. Or
/// measure any number of them by a suite. The run stays as it is.
#[derive(clap::Args)]
pub struct Arguments {
    /// The run's folder. A process may work on it meanwhile.
    dir: PathBuf,
    /// The one that is asked about: latest, base, M2, or the beginning of its hash. Of a suite: each of
    /// them, M1,M2,M3.
    #[arg(long, default_value = "latest")]
    pub policy: String,
    /// Measure by a suite, instead of comparing two. What it finds is kept under DIR/suites.
    #[arg(long, value_enum)]
    suite: Option<Suite>,
    #[command(flatten)]
    pub asking: Asking,
    /// What it is held against.
    #[arg(long, default_value = "base", conflicts_with = "suite")]
    against: String,
    /// Prompts to answer, as for gradus init. Default: those that the run holds out.
    #[arg(long, conflicts_with = "suite")]
    prompts: Option<PathBuf>,
    /// Who judges: a policy. Default: the one that it is held against.
    #[arg(long, conflicts_with = "suite")]
    judge: Option<String>,
    #[command(flatten)]
    pub by: JudgedBy,
    #[command(flatten)]
    wish: devices::Wish,
    /// Print it as JSON, with every prompt and both answers.
    #[arg(long)]
    pub json: bool,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<ExitStatus, Error> {
    let (folder, stop) = (Folder::at(&arguments.dir), signals::stop_flag()?);
    let mut assessor =
        Assessor::open(&folder, &stop, Arc::new(PromptsDone::new()), arguments.wish.device)?;
    devices::say(assessor.device());
    if let Some(suite) = arguments.suite {
        return suite::run(suite, arguments, assessor);
    }
    let (ours, theirs) =
        (assessor.policy(&arguments.policy)?, assessor.policy(&arguments.against)?);
    let judge = assessor.policy(arguments.judge.as_ref().unwrap_or(&arguments.against))?;
    let panel = assessor.panel(&arguments.by.rubric)?;
    let prompts = match &arguments.prompts {
        Some(path) => {
            let file = prompts::read(path)?;
            eprintln!("{}: {}", path.display(), file.summary());
            file.prompts(PromptOrigin::HeldOut)
        }
        None => assessor.held_out()?,
    };
    if prompts.is_empty() {
        return Err(Error::refused(
            Code::NothingToJudge,
            "the run holds out no prompts. Give some: --prompts FILE",
        ));
    }
    let wishes = AssessWishes { samples: arguments.by.samples };
    let compared = assessor.compare((&ours, &theirs), (&judge, &panel), prompts, &wishes)?;
    match arguments.json {
        true => output::json(&compared)?,
        false => output::text(&rendered(&compared))?,
    }
    Ok(ExitStatus::Done)
}

fn rendered(compared: &ComparedPolicies) -> String {
    let ComparedPolicies { ours, theirs, judge, rubrics, evaluation, prompts, .. } = compared;
    let mut text = format!(
        "{ours} against {theirs} on {} prompts, judged by {judge} under {}\n",
        prompts.len(),
        rubrics.join(", ")
    );
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let sides = [
        (ours, prompts.iter().map(|one| &one.ours).collect::<Vec<_>>()),
        (theirs, prompts.iter().map(|one| &one.theirs).collect()),
    ];
    text.push_str(&format!("{:<6} {:>8} {:>8} {:>10}\n", "model", "score", "tokens", "with score"));
    for (name, answers) in sides {
        let scores: Vec<f64> = answers.iter().filter_map(|answer| answer.score).collect();
        let tokens = mean(answers.iter().map(|answer| f64::from(answer.tokens)).collect());
        let scored = scores.len();
        text.push_str(&format!(
            "{name:<6} {:>8.2} {tokens:>8.1} {:>10}\n",
            mean(scores),
            format!("{scored}/{}", answers.len())
        ));
    }
    if let Some(share) = compared.length_controlled {
        let share = 100.0 * share;
        text.push_str(&format!("with answers of the same length it would win {share:.1} %\n"));
    }
    for versus in &evaluation.head_to_head {
        let word = versus.finding.as_ref().map_or("unproven", |finding| finding.verdict.as_str());
        text.push_str(&format!(
            "{word}: {}\n",
            versus.figures().replace("the previous policy", theirs)
        ));
        if let Some(finding) = &versus.finding {
            text.push_str(&format!("  {}\n", finding.reason));
        }
    }
    text
}
