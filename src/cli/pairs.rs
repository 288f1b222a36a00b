//! `gradus pairs`: the pairs of a run, and one of them with everything that was said of its answers.

use super::{ExitStatus, output};
use gradus::Error;
use gradus::domain::Iteration;
use gradus::export::{AnsweredPrompt, JudgedAnswer, PairSummary, RecordedVerdict, RunExport};
use gradus::report::{DiffPiece, words_apart};
use gradus::runtime::Folder;
use std::path::PathBuf;

/// How much of a text a list shows, in characters.
const SHOWN: usize = 48;

/// The pairs of a run.
#[derive(clap::Args)]
pub struct Arguments {
    /// The run's folder. A process may work on it meanwhile.
    dir: PathBuf,
    /// One pair, by the beginning of its id: its prompt, both answers with what differs marked, and
    /// everything that was said of all answers.
    #[arg(long, value_name = "ID")]
    show: Option<String>,
    /// Of this iteration alone.
    #[arg(long)]
    iteration: Option<u32>,
    /// Whose prompt or answers have this text in them.
    #[arg(long)]
    contains: Option<String>,
    /// Whose scores differ by at least so much.
    #[arg(long)]
    min_gap: Option<f64>,
    /// How many are listed; 0 for all.
    #[arg(short, long, default_value_t = 20)]
    limit: usize,
    /// Print them as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<ExitStatus, Error> {
    let run = RunExport::open(&Folder::at(&arguments.dir))?;
    match &arguments.show {
        Some(wanted) => show(arguments, &run, wanted)?,
        None => list(arguments, &run)?,
    }
    Ok(ExitStatus::Done)
}

fn gap(pair: &PairSummary) -> Option<f64> {
    Some(pair.score_chosen? - pair.score_rejected?)
}

fn list(arguments: &Arguments, run: &RunExport) -> Result<(), Error> {
    let mut pairs = run.pair_list(arguments.iteration.map(Iteration))?;
    if let Some(text) = &arguments.contains {
        let has = |pair: &PairSummary| {
            [&pair.asked, &pair.chosen, &pair.rejected].iter().any(|all| all.contains(text))
        };
        pairs.retain(has);
    }
    if let Some(least) = arguments.min_gap {
        pairs.retain(|pair| gap(pair).is_some_and(|gap| gap >= least));
    }
    if arguments.json {
        return output::json(&pairs);
    }
    let shown = if arguments.limit == 0 { pairs.len() } else { arguments.limit.min(pairs.len()) };
    let mut text = format!(
        "{:<10} {:>9} {:>6} {:>8}  {:<SHOWN$}\n",
        "pair", "iteration", "chosen", "rejected", "prompt"
    );
    let score = |score: Option<f64>| score.map_or_else(|| "-".to_owned(), |s| format!("{s:.2}"));
    for pair in pairs.iter().take(shown) {
        let id: String = pair.id.0.chars().take(10).collect();
        let left_out = if pair.trained { "" } else { "  (not trained on)" };
        text += &format!(
            "{id:<10} {:>9} {:>6} {:>8}  {}{left_out}\n",
            pair.iteration.to_string(),
            score(pair.score_chosen),
            score(pair.score_rejected),
            output::beginning(&pair.asked, SHOWN)
        );
    }
    text += &format!("{shown} of {} pairs", pairs.len());
    let more = if shown < pairs.len() { "; --limit 0 lists all" } else { "" };
    output::text(&format!("{text}{more}. One of them: --show PAIR\n"))
}

fn show(arguments: &Arguments, run: &RunExport, wanted: &str) -> Result<(), Error> {
    let (pair, answered) = run.pair(wanted)?;
    if arguments.json {
        return output::json(&serde_json::json!({ "pair": pair, "answered": answered }));
    }
    output::text(&whole(&pair, &answered))
}

fn whole(pair: &PairSummary, answered: &AnsweredPrompt) -> String {
    let score =
        |score: Option<f64>| score.map_or_else(|| "no score".to_owned(), |s| format!("{s:.2}"));
    let trained = if pair.trained { "trained on" } else { "not trained on" };
    let mut text = format!("pair {} of iteration {}, {trained}\n", pair.id.0, pair.iteration);
    for turn in &answered.prompt {
        text += &format!("\n[{}]\n{}\n", turn.role.as_str(), turn.content);
    }
    let (chosen, rejected) = marked(&pair.chosen, &pair.rejected);
    text += &format!("\nchosen, {}; {{+what it alone has+}}\n{chosen}\n", score(pair.score_chosen));
    text +=
        &format!("\nrejected, {}; [-what it alone has-]\n{rejected}\n", score(pair.score_rejected));
    for answer in &answered.answers {
        let JudgedAnswer { set, index, tokens, ended, .. } = answer;
        let end = if *ended { "" } else { ", cut off" };
        text += &format!(
            "\nanswer {set} {index}: {}, {tokens} tokens{end}\n{}\n",
            score(answer.score),
            answer.text
        );
        for RecordedVerdict { rubric, sample, score: got, forced, reason, text: said } in
            &answer.verdicts
        {
            let forced = if *forced { ", forced" } else { "" };
            let why = reason.as_ref().map_or_else(String::new, |why| format!(", {why}"));
            text += &format!("  {rubric}, judgment {sample}: {}{forced}{why}\n", score(*got));
            text.extend(said.lines().map(|line| format!("    | {line}\n")));
        }
    }
    text
}

/// Both texts with the words marked that the other does not have in that order.
fn marked(a: &str, b: &str) -> (String, String) {
    let [a, b] = words_apart(a, b);
    (with_marks(&a, ["{+", "+}"]), with_marks(&b, ["[-", "-]"]))
}

fn with_marks(pieces: &[DiffPiece], [begin, end]: [&str; 2]) -> String {
    let piece = |piece: &DiffPiece| match piece.shared {
        true => piece.text.clone(),
        false => format!("{begin}{}{end}", piece.text),
    };
    pieces.iter().map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_marked() {
        let (a, b) = marked("the red house on the hill", "the house on a hill");
        assert_eq!(a, "the {+red +}house on {+the +}hill");
        assert_eq!(b, "the house on [-a -]hill");
        assert_eq!(marked("same", "same\n").0, "same");
        assert_eq!(marked("", "new"), (String::new(), "[-new-]".to_owned()));
    }
}
