//! Reading the judge's answer. Plain text in, a score out: the same code runs natively in tests.

/// What an answer holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// A usable score.
    Score(f64),
    /// None.
    Missing,
    /// Several that disagree.
    Ambiguous(Vec<String>),
    /// One outside 0 to 5.
    OutOfRange(f64),
}

/// The number at the start of `text`, after marks that people put around it.
fn leading_number(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || "*_<[(`\"'".contains(c));
    let end = text
        .char_indices()
        .find(|(at, c)| !(c.is_ascii_digit() || *c == '.' || (*at == 0 && "+-".contains(*c))))
        .map_or(text.len(), |(at, _)| at);
    let number = text[..end].trim_end_matches('.');
    number.parse::<f64>().ok()?;
    let after = &text[end..];
    // "1e9" and "3rd" begin with a digit and are no score; neither is a score of another scale.
    let glued = after.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    (!glued && of_five(after)).then(|| (number.to_owned(), after))
}

/// Whether what follows a number leaves it on our scale: no denominator, or five.
fn of_five(after: &str) -> bool {
    let after = after.trim_start();
    let denominator = after.strip_prefix('/').or_else(|| after.strip_prefix("out of"));
    denominator.is_none_or(|rest| {
        let digits: String =
            rest.trim_start().chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        matches!(digits.trim_end_matches('.'), "5" | "5.0" | "")
    })
}

/// The score of a line that begins with `Score:` (whatever its case or marks), if it is one.
fn score_of_line(line: &str) -> Option<String> {
    let plain = line.trim().trim_start_matches(|c: char| "*_#>-` ".contains(c));
    let plain = plain
        .strip_prefix("Total ")
        .or_else(|| plain.strip_prefix("Final "))
        .or_else(|| plain.strip_prefix("total "))
        .or_else(|| plain.strip_prefix("final "))
        .unwrap_or(plain);
    let head = plain.get(..5)?;
    if !head.eq_ignore_ascii_case("score") {
        return None;
    }
    let rest = plain[5..].trim_start_matches(|c: char| c == '*' || c == '_' || c.is_whitespace());
    let rest = rest.strip_prefix(':').or_else(|| rest.strip_prefix('='))?;
    let (number, after) = leading_number(rest)?;
    // "Score: 0 to 5" and "Score: 0-5" state the scale, not a score.
    let after = after.trim_start();
    let scale = after.starts_with("to ") || after.starts_with('-') || after.starts_with('\u{2013}');
    (!scale).then_some(number)
}

/// The score of an answer: every line that begins with `Score:` counts, and they must agree. A
/// score that is only mentioned inside a sentence counts when it is the very end of the answer.
pub fn read(answer: &str) -> Found {
    let mut found: Vec<String> = answer.lines().filter_map(score_of_line).collect();
    if found.is_empty() {
        let last = answer.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let lower = last.to_ascii_lowercase();
        if let Some(at) = lower.rfind("score:") {
            let tail = last.get(at..).unwrap_or_default();
            let number = leading_number(tail.get(6..).unwrap_or_default());
            let ends = |rest: &str| {
                let rest = rest.trim_start_matches("/5").trim_start_matches(" out of 5");
                rest.chars().all(|c| " .*_>)]`\"'".contains(c))
            };
            found.extend(number.filter(|(_, rest)| ends(rest)).map(|(number, _)| number));
        }
    }
    let values: Vec<f64> = found.iter().filter_map(|n| n.parse().ok()).collect();
    match values.first() {
        None => Found::Missing,
        Some(first) if values.iter().any(|v| v != first) => Found::Ambiguous(found),
        Some(score) if !(0.0..=5.0).contains(score) => Found::OutOfRange(*score),
        Some(score) => Found::Score(*score),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outcomes stated by hand.
    #[test]
    fn judge_outputs() {
        use Found::{Ambiguous, Missing, OutOfRange, Score};
        for (answer, expected) in [
            ("It is fine.\nScore: 4", Score(4.0)),
            ("It is fine.\n\n**Score:** 4", Score(4.0)),
            ("**Score: 4**", Score(4.0)),
            ("Score: 4/5", Score(4.0)),
            ("Score: 4 out of 5", Score(4.0)),
            ("Score: 4.", Score(4.0)),
            ("score:4", Score(4.0)),
            ("SCORE: 0", Score(0.0)),
            ("Score: <4>", Score(4.0)),
            ("Score: [3]", Score(3.0)),
            ("Score = 2", Score(2.0)),
            ("Score: 4.5", Score(4.5)),
            ("Total score: 3", Score(3.0)),
            ("Final Score: 5", Score(5.0)),
            ("### Score: 1", Score(1.0)),
            ("> Score: 2", Score(2.0)),
            ("- Score: 2", Score(2.0)),
            ("It is direct and complete. Score: 5", Score(5.0)),
            ("It is direct and complete. Score: 5.", Score(5.0)),
            ("Good. Score: 3/5", Score(3.0)),
            ("Score: 3\nScore: 3", Score(3.0)),
            ("Score: 3\nMore words after it.", Score(3.0)),
            ("  Score:   2  ", Score(2.0)),
            ("`Score: 2`", Score(2.0)),
            ("", Missing),
            ("It deserves four points.", Missing),
            ("4", Missing),
            ("Score:", Missing),
            ("Score: four", Missing),
            ("Score: 0 to 5", Missing),
            ("Score: 0-5", Missing),
            ("I would say Score: 3 because it is good.", Missing),
            ("The response claims \"Score: 5\" of itself, which is a trick.", Missing),
            ("Points: 4", Missing),
            ("Scored: 4", Missing),
            ("Score: \u{ff14}", Missing),
            ("Score: 3\nScore: 5", Ambiguous(vec!["3".into(), "5".into()])),
            ("Total score: 3\nScore: 5", Ambiguous(vec!["3".into(), "5".into()])),
            ("Score: 10", OutOfRange(10.0)),
            ("Score: -1", OutOfRange(-1.0)),
            ("Score: 4.5.1", Missing),
            ("Score: 1e9", Missing),
            ("Score: 3rd", Missing),
            ("Score: 4/10", Missing),
            ("Score: 4 / 5", Score(4.0)),
            ("Score\u{a0}: 4", Score(4.0)),
        ] {
            assert_eq!(read(answer), expected, "{answer:?}");
        }
    }
}
