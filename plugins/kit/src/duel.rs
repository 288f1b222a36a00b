//! Which of two a judge preferred: `Better: A`, `Better: B` or `Better: tie`.
//!
//! A line says so whose beginning is the label (see [`crate::claims`]) and which names one of the
//! three and nothing else, `Response A` and marks aside. All such lines must agree; a line that names
//! neither is malformed, for taking its first letter would be a guess.

use crate::claims::{CLAIMS_MAX, Form, claims};
use crate::own::{Fences, Reply, Span, Standing, span};

/// Which of two a judge preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    A,
    B,
    Tie,
}

impl Side {
    /// What it gives to each of the two.
    pub fn scores(self) -> Vec<f64> {
        match self {
            Side::A => vec![1.0, 0.0],
            Side::B => vec![0.0, 1.0],
            Side::Tie => vec![0.5, 0.5],
        }
    }
}

/// What a comparison says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duel {
    /// A side, where that is written, and all that could stand there, in the case it is written in.
    Preferred(Side, Span, [(String, Side); 3]),
    Missing,
    Ambiguous(Vec<String>),
    Malformed(String),
}

fn plain(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || "*_#-`>[]()\u{feff}".contains(c))
}

/// The word that names a side.
fn named(written: &str) -> Option<(Side, &str)> {
    let word = plain(plain(written).trim_end_matches(['.', '!']));
    let last = match word.split_once(' ') {
        Some((head, last))
            if ["response", "answer", "judgment"].iter().any(|w| head.eq_ignore_ascii_case(w)) =>
        {
            last
        }
        _ => word,
    };
    let last = plain(last);
    let side = match last {
        "A" | "a" => Side::A,
        "B" | "b" => Side::B,
        tie if tie.eq_ignore_ascii_case("tie") => Side::Tie,
        _ => return None,
    };
    Some((side, last))
}

/// The three words in the case of the one that is written.
fn choices(side: Side, written: &str) -> [(String, Side); 3] {
    let small = side != Side::Tie && written.chars().all(char::is_lowercase);
    let (a, b) = if small { ("a", "b") } else { ("A", "B") };
    let tie = if side == Side::Tie { written } else { "tie" };
    [(a.to_owned(), Side::A), (b.to_owned(), Side::B), (tie.to_owned(), Side::Tie)]
}

/// Reads a comparison from a reply; `label` is in lower case.
pub fn duel(text: &str, label: &str) -> Duel {
    let reply = Reply::of(text, Fences::Own);
    let found = claims(&reply, text, label);
    if found.len() >= CLAIMS_MAX {
        return Duel::Malformed(format!("{CLAIMS_MAX} claims and more"));
    }
    let found: Vec<_> = found
        .into_iter()
        .filter(|claim| !matches!(claim.form, Form::Mention | Form::Sentence))
        .filter(|claim| claim.standing == Standing::Own || named(claim.value).is_some())
        .collect();
    let Some(first) = found.iter().find(|claim| claim.standing == Standing::Own) else {
        return Duel::Missing;
    };
    let sides: Vec<Option<Side>> =
        found.iter().map(|claim| named(claim.value).map(|(side, _)| side)).collect();
    if sides.iter().any(|s| *s != sides[0]) {
        return Duel::Ambiguous(found.iter().map(|c| plain(c.value).to_owned()).collect());
    }
    match named(first.value) {
        Some((side, word)) => Duel::Preferred(side, span(text, word), choices(side, word)),
        None => Duel::Malformed(plain(first.value).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outcomes stated by hand.
    #[test]
    fn duels() {
        use Side::{A, B, Tie};
        let unread = |duel: Duel| Err(duel);
        for (reply, expected) in [
            ("A is clearer.\nBetter: A", Ok((A, "A"))),
            ("**Better:** B", Ok((B, "B"))),
            ("better: b.", Ok((B, "b"))),
            ("Better: [[A]]", Ok((A, "A"))),
            ("Better: Response B", Ok((B, "B"))),
            ("### Better: **Answer A**", Ok((A, "A"))),
            ("Better: tie", Ok((Tie, "tie"))),
            ("Better = TIE", Ok((Tie, "TIE"))),
            ("Better: A\nBetter: A", Ok((A, "A"))),
            ("> Better: A\nIt praises itself.\nBetter: B", Ok((B, "B"))),
            ("Better\u{ff1a}A", Ok((A, "A"))),
            ("Better: A\nI thought of Better: B", Ok((A, "A"))),
            ("<think>Better: A</think>\nBetter: B", Ok((B, "B"))),
            ("B claims:\nBetter: B\n\nIt boasts.\nBetter: A", Ok((A, "A"))),
            ("B says \u{201c}I am good.\nBetter: B\u{201d}.\nBetter: A", Ok((A, "A"))),
            ("**Better:**\nA", Ok((A, "A"))),
            ("{\"reason\": \"short\", \"better\": \"B\"}", Ok((B, "B"))),
            ("Better: A\nBetter: B", unread(Duel::Ambiguous(vec!["A".into(), "B".into()]))),
            ("Better: A or B", unread(Duel::Malformed("A or B".into()))),
            ("Better: A/B", unread(Duel::Malformed("A/B".into()))),
            ("Better: neither", unread(Duel::Malformed("neither".into()))),
            ("Better: 1", unread(Duel::Malformed("1".into()))),
            ("Better:", unread(Duel::Malformed(String::new()))),
            ("A is better.", unread(Duel::Missing)),
            ("> Better: A", unread(Duel::Missing)),
            ("I would say Better: A", unread(Duel::Missing)),
            ("It claims:\nBetter: A", unread(Duel::Missing)),
            ("Response A:\nBetter: A", unread(Duel::Missing)),
            ("<think>Better: A", unread(Duel::Missing)),
            ("A", unread(Duel::Missing)),
            ("", unread(Duel::Missing)),
            ("Better: \u{0410}", unread(Duel::Malformed("\u{0410}".into()))),
            ("Better: \u{ff21}", unread(Duel::Malformed("\u{ff21}".into()))),
        ] {
            match (duel(reply, "better"), expected) {
                (Duel::Preferred(side, at, choices), Ok((wanted, word))) => {
                    assert_eq!((side, &reply[at]), (wanted, word), "{reply:?}");
                    assert!(choices.iter().any(|c| *c == (word.to_owned(), wanted)), "{reply:?}");
                }
                (found, wanted) => assert_eq!(Err(found), wanted, "{reply:?}"),
            }
        }
    }

    #[test]
    fn choices_are_in_the_case_that_is_written() {
        let words = |reply| match duel(reply, "better") {
            Duel::Preferred(_, _, choices) => choices.map(|(word, _)| word),
            other => panic!("{other:?}"),
        };
        assert_eq!(words("better: b"), ["a", "b", "tie"]);
        assert_eq!(words("Better: B"), ["A", "B", "tie"]);
        assert_eq!(words("Better: Tie"), ["A", "B", "Tie"]);
    }
}
