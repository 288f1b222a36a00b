//! `gradus rejudge` and `gradus rubric diff`: recorded completions under another rubric, or two.

use super::{ExitStatus, devices, output, signals};
use gradus::Error;
use gradus::domain::Iteration;
use gradus::domain::evaluation::HeadToHead;
use gradus::lm::device::DeviceChoice;
use gradus::rejudge::{
    Comparison, JudgeFigures, PairChange, Past, Rejudged, RejudgedVerdicts, Replies, ReplyCounts,
};
use gradus::runtime::Folder;
use gradus::stage::Gauge;
use gradus::stage::select::PairIndices;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Moved pairs that are listed.
const LISTED_MAX: usize = 10;

/// What to judge again, for both verbs.
#[derive(clap::Args)]
pub struct Scope {
    /// Begin with this iteration. Default: the first that has judgments.
    #[arg(long, default_value_t = 1)]
    from_iteration: u32,
    /// Ask no model: recorded replies alone are read again, and a question that nobody replied to
    /// has no score.
    #[arg(long)]
    recorded: bool,
    #[command(flatten)]
    wish: devices::Wish,
    /// Print the comparison as JSON, with every pair that moved.
    #[arg(long)]
    json: bool,
}

/// Judge what a run has recorded again, under another rubric. The run stays as it is.
#[derive(clap::Args)]
pub struct Arguments {
    /// The run's folder.
    dir: PathBuf,
    /// An installed rubric, a component (.wasm), or the name of a bundled rubric.
    #[arg(long)]
    rubric: String,
    #[command(flatten)]
    scope: Scope,
    /// Write the new pairs to this new file, as JSON lines that TRL's DPOTrainer reads.
    #[arg(long)]
    pairs: Option<PathBuf>,
    /// Begin another run in this folder, which is empty or not there yet: the same up to the first iteration judged again, then with
    /// the new judgments and the new rubric.
    #[arg(long)]
    into: Option<PathBuf>,
    /// Judge the held-out answers of the evaluations again instead, and compare the verdicts.
    #[arg(long, conflicts_with_all = ["pairs", "into"])]
    held_out: bool,
}

/// Compare two rubrics on the completions of a run.
#[derive(clap::Args)]
pub struct Diff {
    /// The run's folder.
    dir: PathBuf,
    /// An installed rubric, a component (.wasm), or the name of a bundled rubric.
    a: String,
    /// Another.
    b: String,
    #[command(flatten)]
    scope: Scope,
}

/// How far it is: always where somebody looks, else now and then.
pub struct PromptsDone {
    told: Mutex<Instant>,
    watched: bool,
}

/// How often it is told where nobody looks.
const TELLS_EVERY: Duration = Duration::from_secs(25);

impl PromptsDone {
    /// Nothing is done yet.
    pub fn new() -> PromptsDone {
        PromptsDone { told: Mutex::new(Instant::now()), watched: std::io::stderr().is_terminal() }
    }

    /// So many of so many prompts are done.
    pub fn tell(&self, done: u64, total: u64) {
        if self.watched {
            eprint!("\r{done} of {total} prompts{}", if done == total { "\n" } else { "" });
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() > TELLS_EVERY {
            *told = Instant::now();
            eprintln!("{done} of {total} prompts");
        }
    }
}

impl Gauge for PromptsDone {
    fn progress(&self, _stage: &'static str, done: u64, total: u64) {
        self.tell(done, total);
    }
}

/// A run's past from an iteration on.
pub fn past(dir: &Path, from: u32, device: Option<DeviceChoice>) -> Result<Past, Error> {
    let (folder, stop) = (Folder::at(dir), signals::stop_flag()?);
    Past::open(&folder, Iteration(from), &stop, Arc::new(PromptsDone::new()), device)
}

impl Scope {
    fn replies(&self) -> Replies {
        if self.recorded { Replies::Recorded } else { Replies::Model }
    }

    fn past(&self, dir: &Path) -> Result<Past, Error> {
        // Nobody is asked, so no GPU is opened.
        let device = if self.recorded { Some(DeviceChoice::Cpu) } else { self.wish.device };
        let past = past(dir, self.from_iteration, device)?;
        if !self.recorded {
            devices::say(past.device());
        }
        Ok(past)
    }
}

/// Runs `gradus rejudge`.
pub fn run(arguments: &Arguments) -> Result<ExitStatus, Error> {
    let Arguments { dir, rubric, scope, pairs, into, held_out } = arguments;
    let mut past = scope.past(dir)?;
    let rubric = past.meant(rubric)?;
    // Before hours are spent.
    pairs.as_deref().map_or(Ok(()), output::must_be_new)?;
    into.as_ref().map_or(Ok(()), |to| past.may_begin(&Folder::at(to)))?;
    if *held_out {
        let again = past.rejudge_held_out(&rubric, scope.replies())?;
        verdicts(&again, scope.json)?;
        return Ok(ExitStatus::Done);
    }
    let again = past.rejudge(&rubric, scope.replies())?;
    report(&again, scope.json)?;
    if let Some(path) = pairs {
        let pairs = past.pairs(&again)?;
        output::new_file(path, |to| {
            for pair in &pairs {
                let line = serde_json::to_string(pair);
                let line = line.map_err(|e| output::not_json("a pair", &e))?;
                writeln!(to, "{line}").map_err(|error| Error::io(path, error))?;
            }
            Ok(())
        })?;
        eprintln!("wrote {} pairs to {}", pairs.len(), path.display());
    }
    if let Some(to) = into {
        let iteration = past.begin_another(&again, &Folder::at(to))?;
        let to = to.display();
        eprintln!("iteration {iteration} is judged over in {to}; go on with: gradus run {to}");
    }
    Ok(ExitStatus::Done)
}

/// Runs `gradus rubric diff`.
pub fn diff(arguments: &Diff) -> Result<(), Error> {
    let Diff { dir, a, b, scope } = arguments;
    let mut past = scope.past(dir)?;
    let (a, b) = (past.meant(a)?, past.meant(b)?);
    report(&past.diff(&a, &b, scope.replies())?, scope.json)
}

fn name(of: &gradus::domain::RubricName) -> String {
    format!("{}@{}", of.name, of.version)
}

fn report(again: &Rejudged, json: bool) -> Result<(), Error> {
    report_as(again, &name(&again.right), json)
}

/// The comparison, with the right called so.
pub fn report_as(again: &Rejudged, right: &str, json: bool) -> Result<(), Error> {
    if json {
        return output::json(again);
    }
    let left = again.left.as_ref().map_or_else(|| "recorded".to_owned(), name);
    let mut text = String::new();
    for one in &again.iterations {
        let title = format!("iteration {} ({})", one.iteration, work(&one.work));
        text.push_str(&section(&title, &one.comparison, (&left, right)));
    }
    if again.iterations.len() > 1 {
        text.push_str(&section("all iterations", &again.total, (&left, right)));
    }
    text.push_str(&moved(&again.total));
    if !again.dropped.is_empty() {
        let dropped: Vec<String> = again.dropped.iter().map(ToString::to_string).collect();
        let which = dropped.join(", ");
        text.push_str(&format!("left out, dropped when the log was compacted: {which}\n"));
    }
    output::text(&text)
}

/// A verdict with what it is made of.
fn verdict(whose: &str, found: &HeadToHead) -> String {
    let said = found.finding.as_ref().map_or_else(String::new, |finding| {
        format!("{}: {}; ", finding.verdict.as_str(), finding.reason)
    });
    format!("  {whose}: {said}{}\n", found.figures())
}

fn verdicts(again: &RejudgedVerdicts, json: bool) -> Result<(), Error> {
    if json {
        return output::json(again);
    }
    let name = format!("{}@{}", again.rubric.name, again.rubric.version);
    let mut text = String::new();
    for one in &again.iterations {
        let (iteration, prompts) = (one.iteration, one.prompts);
        let work = work(&one.work);
        text.push_str(&format!("iteration {iteration}: {prompts} held-out prompts ({work})\n"));
        for (recorded, again) in one.recorded.iter().zip(&one.again) {
            text.push_str(&verdict("recorded", recorded));
            text.push_str(&verdict(&name, again));
        }
    }
    if !again.without_answers.is_empty() {
        let which: Vec<String> = again.without_answers.iter().map(ToString::to_string).collect();
        let which = which.join(", ");
        text.push_str(&format!(
            "left out, without recorded answers (compacted, or of an older gradus): {which}\n"
        ));
    }
    output::text(&text)
}

fn work(work: &ReplyCounts) -> String {
    let mut parts = Vec::new();
    for (count, what) in [
        (work.read_again, "replies read again"),
        (work.made, "new replies"),
        (work.not_asked, "questions without a reply: leave out --recorded to ask the model"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    parts.join(", ")
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

/// A row of one side's figures.
type Figure = fn(&JudgeFigures) -> String;

fn share(part: u32, of: u32) -> String {
    match of {
        0 => "-".to_owned(),
        of => format!("{:.1} %", 100.0 * f64::from(part) / f64::from(of)),
    }
}

fn section(title: &str, found: &Comparison, (left, right): (&str, &str)) -> String {
    let width = left.len().max(right.len()).max(9);
    let rows: [(&str, Figure); 5] = [
        ("pairs", |s| s.pairs.to_string()),
        ("judgments without a score", |s| share(s.unparsed, s.judgments)),
        ("completions without a score", |s| s.unscored.to_string()),
        ("mean score", |s| number(s.mean)),
        ("score follows length (Spearman)", |s| number(s.length_correlation)),
    ];
    let (prompts, completions) = (found.prompts, found.completions);
    let mut text = format!("{title}: {prompts} prompts, {completions} completions\n");
    text.push_str(&format!("  {:<32} {left:>width$}  {right:>width$}\n", ""));
    for (name, value) in rows {
        let (l, r) = (value(&found.left), value(&found.right));
        text.push_str(&format!("  {name:<32} {l:>width$}  {r:>width$}\n"));
    }
    let of = |how: PairChange| found.pairs.get(&how).copied().unwrap_or_default();
    text.push_str(&format!(
        "  pairs: {} the same, {} flipped, {} changed, {} appeared, {} vanished\n",
        of(PairChange::Same),
        of(PairChange::Flipped),
        of(PairChange::Changed),
        of(PairChange::Appeared),
        of(PairChange::Vanished)
    ));
    let order = &found.order;
    text.push_str(&format!(
        "  order of two completions: {} agree, {} disagree; ties: {} left, {} right, {} both\n",
        order.agree, order.disagree, order.tied_left, order.tied_right, order.tied_both
    ));
    text.push_str(&format!(
        "  rank correlation: {} within a prompt, {} overall\n\n",
        number(found.rank_correlation),
        number(found.rank_correlation_overall)
    ));
    text
}

fn moved(found: &Comparison) -> String {
    let two = |pair: Option<PairIndices>| match pair {
        None => "no pair".to_owned(),
        Some(PairIndices { chosen, rejected }) => format!("{chosen} over {rejected}"),
    };
    let mut text = String::new();
    for moved in found.moved.iter().take(LISTED_MAX) {
        let how = format!("{:?}", moved.how).to_lowercase();
        let reason = moved.reason.map_or_else(String::new, |r| format!(" ({r:?})").to_lowercase());
        let (left, right) = (two(moved.left), two(moved.right));
        text.push_str(&format!("{how:<9} {}  {left} -> {right}{reason}\n", moved.prompt));
    }
    if found.moved.len() > LISTED_MAX {
        text.push_str(&format!("... and {} more: --json\n", found.moved.len() - LISTED_MAX));
    }
    text
}
