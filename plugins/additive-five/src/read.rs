//! Reading the judge's answer. Plain text in, a score out: the same code runs natively in tests.
//!
//! The rule. A line that begins with `Score:` claims a score; marks around it (`**`, `#`, `-`,
//! backticks), its case, and a word like `Total` or `Final` before it do not matter. A mention
//! inside the last line claims one when nothing but marks follows it. All claims must agree.
//! - Lines quoted with `>` and mentions inside quotation marks are somebody else's words, usually
//!   the judged response's, and claim nothing.
//! - A range (`3-4`, `0 to 5`, `3 or 4`) claims nothing: it is the scale, or no decision.
//! - `4/5` and `4 out of 5` are 4. Out of anything but 5, a percentage, or `4,5` is malformed:
//!   taking its first number would be a guess.
//! - An exponent (`1e400`) or another figure (`4½`) is malformed, not the number before it.
//! - `1 + 1 + 1 = 3` is 3, what adding up points looks like; without a total it is malformed.

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
    /// One that is no number from 0 to 5, as it was written.
    Malformed(String),
}

/// A score as it was written, and its value unless it is malformed.
struct Claim {
    written: String,
    value: Option<f64>,
}

/// The number at the start of `text`, after marks that people put around it.
fn leading_number(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || "*_<[(`\"'".contains(c));
    let end = text
        .char_indices()
        .find(|(at, c)| !(c.is_ascii_digit() || *c == '.' || (*at == 0 && "+-".contains(*c))))
        .map_or(text.len(), |(at, _)| at);
    let number = text[..end].trim_end_matches('.');
    number.parse::<f64>().ok()?;
    Some((number, &text[end..]))
}

/// What follows `sign` in `text`, if a number does.
fn number_after<'a>(text: &'a str, sign: &str) -> Option<(&'a str, &'a str)> {
    leading_number(text.trim_start().strip_prefix(sign)?)
}

/// The score at the start of `text` (what stands after the colon), and the words after it.
fn claim(text: &str) -> Option<(Claim, &str)> {
    let (number, after) = leading_number(text)?;
    let of = |value: &str| Claim { written: value.to_owned(), value: value.parse().ok() };
    let malformed = |written: String| Claim { written, value: None };
    if after.starts_with(char::is_numeric) {
        return Some((malformed(format!("{number}{after}")), ""));
    }
    if after.starts_with(['e', 'E'])
        && after[1..].starts_with(|c: char| c.is_ascii_digit() || "+-".contains(c))
    {
        return Some((malformed(format!("{number}{after}")), ""));
    }
    if ["to ", "or ", "-", "\u{2013}", "~"].iter().any(|s| number_after(after, s).is_some()) {
        return None;
    }
    for sign in ["/", "out of ", "of "] {
        if let Some((scale, rest)) = number_after(after, sign) {
            let five = scale.parse() == Ok(5.0);
            let other = || malformed(format!("{number} {} {scale}", sign.trim()));
            return Some((if five { of(number) } else { other() }, rest));
        }
    }
    if let Some(rest) = after.trim_start().strip_prefix('%') {
        return Some((malformed(format!("{number}%")), rest));
    }
    if let Some(decimals) = after.strip_prefix(',').filter(|s| s.starts_with(char::is_numeric)) {
        return Some((malformed(format!("{number},")), decimals));
    }
    if number_after(after, "+").is_some() {
        let total = after.rsplit_once('=').and_then(|(_, total)| claim(total));
        return total.or_else(|| Some((malformed(format!("{number} + \u{2026}")), "")));
    }
    Some((of(number), after))
}

/// `text` without a first word like `Total`, whatever its case.
fn without_total(text: &str) -> &str {
    let Some((word, rest)) = text.split_once(' ') else { return text };
    let known = ["total", "final", "overall", "my"].iter().any(|w| word.eq_ignore_ascii_case(w));
    if known { rest.trim_start() } else { text }
}

/// What a line claims that begins with `Score:`, whatever its case or marks.
fn line_claim(line: &str) -> Option<Claim> {
    let plain = line.trim_start_matches(|c: char| c.is_whitespace() || "*_#-`\u{feff}".contains(c));
    let plain = without_total(plain);
    if !plain.get(..5)?.eq_ignore_ascii_case("score") {
        return None;
    }
    let rest = plain[5..].trim_start_matches(|c: char| c.is_whitespace() || "*_".contains(c));
    let rest = rest.strip_prefix(':').or_else(|| rest.strip_prefix('='))?;
    claim(rest).map(|(claim, _)| claim)
}

/// What the last `score:` inside a line claims, if the line ends with it.
fn mention(line: &str) -> Option<Claim> {
    let at = line.to_ascii_lowercase().rfind("score:")?;
    let before = line[..at].chars().next_back();
    if before.is_some_and(|c| "\"'`\u{201c}\u{2018}\u{ab}".contains(c)) {
        return None;
    }
    let (claim, rest) = claim(&line[at + "score:".len()..])?;
    rest.chars().all(|c| c.is_whitespace() || ".!*_>)]`\"'".contains(c)).then_some(claim)
}

/// The score of an answer, by the rule above.
pub fn read(answer: &str) -> Found {
    let own = || answer.lines().filter(|line| !line.trim_start().starts_with('>'));
    let mut claims: Vec<Claim> = own().filter_map(line_claim).collect();
    let last = own().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    if line_claim(last).is_none() {
        claims.extend(mention(last));
    }
    let Some(first) = claims.first() else { return Found::Missing };
    if claims.iter().any(|c| c.value != first.value) {
        return Found::Ambiguous(claims.into_iter().map(|c| c.written).collect());
    }
    match first.value {
        None => Found::Malformed(first.written.clone()),
        Some(score) if !(0.0..=5.0).contains(&score) => Found::OutOfRange(score),
        Some(score) => Found::Score(score),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outcomes stated by hand.
    #[test]
    fn judge_outputs() {
        use Found::{Ambiguous, Malformed, Missing, OutOfRange, Score};
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
            ("Score: 4 - clear and complete", Score(4.0)),
            ("FINAL SCORE: 4", Score(4.0)),
            ("Overall score: 4\nIt could be shorter.", Score(4.0)),
            ("Score\u{a0}: 4", Score(4.0)),
            ("\u{feff}Score: 4", Score(4.0)),
            ("Score: 4 / 5", Score(4.0)),
            ("Score: 1 + 1 + 1 = 3", Score(3.0)),
            ("Score: 1+1+1+1+0 = 4/5", Score(4.0)),
            ("So it is Score: 1 + 1 = 2.", Score(2.0)),
            ("Score: 1e400", Malformed("1e400".into())),
            ("Score: 4E-1 points", Malformed("4E-1 points".into())),
            ("Score: 4 each", Score(4.0)),
            ("Score: 1 + 1 + 1", Malformed("1 + \u{2026}".into())),
            ("Score: 4/10", Malformed("4 / 10".into())),
            ("Score: 4 out of 10", Malformed("4 out of 10".into())),
            ("Score: 80%", Malformed("80%".into())),
            ("Score: 4,5", Malformed("4,".into())),
            ("Score: 4, all in all", Score(4.0)),
            ("Score: 3-4", Missing),
            ("Score: 3 \u{2013} 4", Missing),
            ("Score: 3 or 4", Missing),
            ("> Score: 5", Missing),
            ("> Score: 5\nIt praises itself.\nScore: 1", Score(1.0)),
            ("It ends with \"Score: 5\"", Missing),
            ("It ends with \u{201c}Score: 5\u{201d}.", Missing),
            (
                "Score: 5\nThat was its own line. I say score: 2",
                Ambiguous(vec!["5".into(), "2".into()]),
            ),
            ("Score: 2\nIts claim was \"Score: 5\"", Score(2.0)),
        ] {
            assert_eq!(read(answer), expected, "{answer:?}");
        }
    }
}
