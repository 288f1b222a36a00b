//! `gradus pairs`: the pairs of a run, and one of them with everything that was said of its answers.

use super::{ExitStatus, output};
use gradus::Error;
use gradus::domain::Iteration;
use gradus::export::{AnsweredPrompt, JudgedAnswer, PairSummary, RecordedVerdict, RunExport};
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
            cut(&pair.asked)
        );
    }
    text += &format!("{shown} of {} pairs", pairs.len());
    let more = if shown < pairs.len() { "; --limit 0 lists all" } else { "" };
    output::text(&format!("{text}{more}. One of them: --show PAIR\n"))
}

/// The beginning of a text, on one line.
fn cut(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}...", line.get(..at).unwrap_or_default()),
        None => line,
    }
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
    let words = |text: &str| text.split_inclusive(char::is_whitespace).map(str::to_owned).collect();
    let (a, b): (Vec<String>, Vec<String>) = (words(a), words(b));
    let (mut in_a, mut in_b) = (vec![false; a.len()], vec![false; b.len()]);
    for (at, other) in common(&a, &b) {
        if let (Some(one), Some(two)) = (in_a.get_mut(at), in_b.get_mut(other)) {
            (*one, *two) = (true, true);
        }
    }
    (with_marks(&a, &in_a, ["{+", "+}"]), with_marks(&b, &in_b, ["[-", "-]"]))
}

fn with_marks(words: &[String], common: &[bool], marks: [&str; 2]) -> String {
    let mut text = String::new();
    let mut open = false;
    for (word, common) in words.iter().zip(common) {
        if open == *common {
            let [begin, end] = marks;
            text += if open { end } else { begin };
            open = !open;
        }
        text += word;
    }
    if open { text + marks[1] } else { text }
}

/// Places of a longest common subsequence of words.
fn common(a: &[String], b: &[String]) -> Vec<(usize, usize)> {
    let same = |one: &str, two: &str| one.trim_end() == two.trim_end();
    // Lengths of the rest's, from the end on.
    let width = b.len() + 1;
    let mut longest = vec![0u32; (a.len() + 1) * width];
    let of = |longest: &[u32], i: usize, j: usize| longest.get(i * width + j).copied().unwrap_or(0);
    for (i, one) in a.iter().enumerate().rev() {
        for (j, two) in b.iter().enumerate().rev() {
            let best = match same(one, two) {
                true => of(&longest, i + 1, j + 1) + 1,
                false => of(&longest, i + 1, j).max(of(&longest, i, j + 1)),
            };
            if let Some(place) = longest.get_mut(i * width + j) {
                *place = best;
            }
        }
    }
    let (mut found, mut i, mut j) = (Vec::new(), 0, 0);
    while let (Some(one), Some(two)) = (a.get(i), b.get(j)) {
        if same(one, two) {
            found.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if of(&longest, i + 1, j) >= of(&longest, i, j + 1) {
            i += 1;
        } else {
            j += 1;
        }
    }
    found
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
