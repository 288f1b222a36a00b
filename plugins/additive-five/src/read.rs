//! Reading the judge's answer. Plain text in, a score out: the same code runs natively in tests.
//!
//! A claim is what follows the word `Score` where the judge itself says it (kit: `own.rs` and
//! `claims.rs`), and it is a score when it has this form and nothing takes it back:
//!
//! ```text
//! claim  = number [scale] [unit] [comment]  |  number "+" number ... "=" number [scale] [comment]
//! number = figures, ASCII or full-width, perhaps with a decimal point, in brackets or marks or not
//! scale  = "/5" | "out of 5" | "of 5" | "(0-5)" | ...: five, in whatever form
//! unit   = "points" | "stars" | ...
//! comment = a sign such as "," "." "-" "(", or "because", and words
//! ```
//!
//! - Another scale (`/10`, `(out of ten)`, `%`), another kind of number (`1e3`, `0x4`, `½`, `4,5`,
//!   `4.5.1`), a sum that does not come out, a bracket that does not close (`<3`), and a second number
//!   anywhere on the line make no score: taking the first number would be a guess.
//! - A range (`3-4`, `0 to 5`, `3 or 4`) claims nothing: it is the scale, or no decision.
//! - A claim that goes on without a sign (`5 would be too generous`, `5 is what it claims`), or whose
//!   comment hedges, sets a condition or speaks of who claims it, is in doubt. So is one whose line
//!   is (kit: `own.rs`). What is in doubt is no score, but counts against another one.
//! - `N/A` and the like, and numbers in words, are no score and count against one, too.
//!
//! All claims must agree. The place of the score is the first of them.

use kit::{CLAIMS_MAX, Claim, Fences, Form, Reply, Span, Standing, claims, span, words};

/// What an answer holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// A usable score, and where its figure stands, when it is one figure from 0 to 5.
    Score(f64, Option<Span>),
    /// None.
    Missing,
    /// Several that disagree.
    Ambiguous(Vec<String>),
    /// One outside 0 to 5.
    OutOfRange(f64),
    /// One that is no number from 0 to 5, or is taken back, as it was written.
    Malformed(String),
}

/// What a claim says.
struct Said {
    written: String,
    /// The score, unless it is malformed.
    value: Option<f64>,
    place: Option<Span>,
    doubtful: bool,
}

/// A number at the start of a text.
struct Number<'a> {
    written: &'a str,
    value: f64,
    rest: &'a str,
}

const DASHES: [char; 5] = ['-', '\u{2010}', '\u{2013}', '\u{2014}', '~'];
const SLASHES: [char; 4] = ['/', '\u{ff0f}', '\u{2044}', '\u{2215}'];
const BRACKETS: [(char, char); 7] = [
    ('(', ')'),
    ('[', ']'),
    ('{', '}'),
    ('<', '>'),
    ('\u{ff08}', '\u{ff09}'),
    ('"', '"'),
    ('\'', '\''),
];
const UNITS: [&str; 14] = [
    "point", "points", "pt", "pts", "star", "stars", "mark", "marks", "each", "overall", "total",
    "\u{5206}", "\u{70b9}", "\u{c810}",
];
/// Words that say that a scale follows.
const SCALES: [&str; 19] = [
    "out",
    "of",
    "a",
    "the",
    "possible",
    "max",
    "max.",
    "maximum",
    "range",
    "scale",
    "on",
    "from",
    "total",
    "von",
    "sur",
    "de",
    "su",
    "av",
    "\u{438}\u{437}",
];
const NUMBERS: [(&str, f64); 13] = [
    ("zero", 0.0),
    ("one", 1.0),
    ("two", 2.0),
    ("three", 3.0),
    ("four", 4.0),
    ("five", 5.0),
    ("six", 6.0),
    ("seven", 7.0),
    ("eight", 8.0),
    ("nine", 9.0),
    ("ten", 10.0),
    ("twenty", 20.0),
    ("hundred", 100.0),
];
/// Words that begin a comment without a sign before it.
const BECAUSE: [&str; 5] = ["because", "since", "as", "due", "with"];
/// Words of a comment that put the score in doubt, wherever they stand in it.
const DOUBTS: [&str; 36] = [
    "claim",
    "claims",
    "claimed",
    "claiming",
    "supposedly",
    "allegedly",
    "generous",
    "harsh",
    "minus",
    "deduct",
    "deducted",
    "deducting",
    "deduction",
    "subtract",
    "subtracted",
    "subtracting",
    "pretends",
    "insists",
    "demands",
    "tentative",
    "tentatively",
    "provisional",
    "provisionally",
    "pending",
    "hypothetical",
    "hypothetically",
    "assuming",
    "unsure",
    "undecided",
    "uncertain",
    "joking",
    "kidding",
    "sarcasm",
    "quoted",
    "ignore",
    "na",
];
/// Words that do so where the comment begins with them.
const FIRST_DOUBTS: [&str; 20] = [
    "if",
    "unless",
    "would",
    "were",
    "is",
    "was",
    "which",
    "to",
    "than",
    "or",
    "plus",
    "less",
    "according",
    "wait",
    "correction",
    "revised",
    "ish",
    "half",
    "says",
    "might",
];
/// Words that do so where the comment has no others.
const ALONE_DOUBTS: [&str; 19] = [
    "maybe",
    "perhaps",
    "possibly",
    "probably",
    "about",
    "around",
    "approximately",
    "roughly",
    "nearly",
    "almost",
    "not",
    "no",
    "really",
    "so",
    "likely",
    "i",
    "think",
    "guess",
    "say",
];
/// Several words that do so.
const PHRASES: [&str; 25] = [
    "its own",
    "from the response",
    "no wait",
    "at most",
    "at least",
    "up to",
    "or so",
    "or less",
    "or more",
    "or lower",
    "or higher",
    "n a",
    "only if",
    "not applicable",
    "it says",
    "says the",
    "response says",
    "answer says",
    "it states",
    "it asks",
    "it wants",
    "as requested",
    "as instructed",
    "as asked",
    "as told",
];
/// Words that do so where the next line begins with them.
const NEXT_DOUBTS: [&str; 15] = [
    "which",
    "is",
    "was",
    "would",
    "that",
    "if",
    "unless",
    "minus",
    "plus",
    "or",
    "claims",
    "says",
    "according",
    "out",
    "of",
];
/// Words that speak of the score itself, and those that deny it beside them.
const OF_SCORES: [&str; 16] = [
    "score",
    "rating",
    "grade",
    "deserve",
    "deserves",
    "deserved",
    "warranted",
    "justified",
    "merited",
    "earned",
    "high",
    "low",
    "higher",
    "lower",
    "less",
    "much",
];
const DENIALS: [&str; 18] = [
    "not", "no", "never", "hardly", "isn't", "doesn't", "don't", "wasn't", "too", "could",
    "should", "would", "might", "can't", "cannot", "wouldn't", "perhaps", "maybe",
];
/// What is said in the place of a score.
const NOTHING: [&str; 14] = [
    "n/a",
    "na",
    "n.a.",
    "none",
    "null",
    "nil",
    "nan",
    "not",
    "no",
    "unknown",
    "undecided",
    "unclear",
    "cannot",
    "can't",
];

fn is_mark(c: char) -> bool {
    c.is_whitespace() || matches!(c, '*' | '_' | '`')
}

/// A figure's value, ASCII or full-width.
fn figure(c: char) -> Option<char> {
    match c {
        '0'..='9' | '.' => Some(c),
        '\u{ff10}'..='\u{ff19}' => char::from_digit(u32::from(c) - 0xff10, 10),
        '\u{ff0e}' => Some('.'),
        _ => None,
    }
}

/// The number at the start of `text`, after marks.
fn number(text: &str) -> Option<Number<'_>> {
    let text = text.trim_start_matches(is_mark);
    let mut plain = String::new();
    let mut end = 0;
    for (at, c) in text.char_indices() {
        match figure(c) {
            Some(figure) => plain.push(figure),
            None if at == 0 && "+-".contains(c) => plain.push(c),
            None => break,
        }
        end = at + c.len_utf8();
    }
    // A full stop after it ends a sentence.
    let stops = plain.len() - plain.trim_end_matches('.').len();
    for c in text[..end].chars().rev().take(stops) {
        end -= c.len_utf8();
    }
    let value = plain[..plain.len() - stops].parse().ok()?;
    Some(Number { written: &text[..end], value, rest: &text[end..] })
}

/// The word at the start of `text`, after marks, and what follows.
fn word(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start_matches(is_mark);
    let end = text.find(|c: char| !c.is_alphabetic()).unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_lowercase(), &text[end..]))
}

/// A number in figures or, as scales are written, in words.
fn bound(text: &str) -> Option<(f64, &str)> {
    if let Some(number) = number(text) {
        return Some((number.value, number.rest));
    }
    let (word, rest) = word(text)?;
    let (_, value) = NUMBERS.iter().find(|(name, _)| *name == word)?;
    Some((*value, rest))
}

/// What a text says of the scale at its start: the words, the best score if that is a scale from 0,
/// and the rest.
struct Scale<'a> {
    sign: &'a str,
    best: Option<f64>,
    written: &'a str,
    rest: &'a str,
}

fn scale(text: &str) -> Option<Scale<'_>> {
    let begin = text.trim_start_matches(is_mark);
    let bracket = BRACKETS[..5].iter().find(|(open, _)| begin.starts_with(*open));
    let mut rest = bracket.map_or(begin, |(open, _)| &begin[open.len_utf8()..]).trim_start();
    let words_at = rest;
    if let Some(after) = rest.strip_prefix(SLASHES).or_else(|| rest.strip_prefix('\\')) {
        rest = after;
    } else {
        while let Some((word, after)) = word(rest)
            .filter(|(word, _)| SCALES.contains(&word.as_str()) || UNITS.contains(&word.as_str()))
        {
            let _ = word;
            rest = after.trim_start_matches([':', '.']);
        }
    }
    let sign = words_at[..words_at.len() - rest.len()].trim();
    let number_at = rest.trim_start();
    let (first, mut rest) = bound(rest)?;
    let mut bounds = (None, first);
    let to = rest.trim_start();
    let upper = to.strip_prefix(DASHES).or_else(|| to.strip_prefix("to ")).and_then(bound);
    if let Some((last, after)) = upper {
        (bounds, rest) = ((Some(first), last), after);
    }
    if sign.is_empty() && (bracket.is_none() || bounds.0.is_none()) {
        return None;
    }
    let written = number_at[..number_at.len() - rest.len()].trim();
    if let Some((_, close)) = bracket {
        let unit = word(rest).filter(|(word, _)| UNITS.contains(&word.as_str()));
        rest = unit.map_or(rest, |(_, after)| after).trim_start().strip_prefix(*close)?;
    }
    let best = (bounds.0.is_none_or(|from| from == 0.0)).then_some(bounds.1);
    Some(Scale { sign, best, written, rest })
}

/// Whether a label or member says that the scale is another one: `(1-10)`, `out of ten`.
fn is_another_scale(said: &str) -> bool {
    let said = said.trim_matches(|c: char| is_mark(c) || "()[]".contains(c));
    if said.is_empty() || words(said).iter().all(|word| UNITS.contains(&word.as_str())) {
        return false;
    }
    let range = || number(said).filter(|n| n.rest.trim().is_empty()).map(|n| n.value);
    let best = scale(said).or_else(|| scale_in_brackets(said)).map(|scale| scale.best);
    best.unwrap_or_else(range) != Some(5.0)
}

fn scale_in_brackets(said: &str) -> Option<Scale<'_>> {
    let (first, rest) = bound(said)?;
    let to = rest.trim_start();
    let (last, rest) =
        to.strip_prefix(DASHES).or_else(|| to.strip_prefix("to ")).and_then(bound)?;
    Some(Scale { sign: "", best: (first == 0.0).then_some(last), written: said, rest })
}

fn shortened(text: &str) -> String {
    text.trim().chars().take(60).collect()
}

/// As much of a comment as is looked at, in bytes.
const COMMENT_BYTES: usize = 600;

fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(COMMENT_BYTES)]
}

/// Whether a comment puts the score before it in doubt.
fn doubts(comment: &str) -> bool {
    let words = words(bounded(comment));
    let any = |known: &[&str]| words.iter().any(|word| known.contains(&word.as_str()));
    let first = words.iter().find(|word| !["but", "well", "only"].contains(&word.as_str()));
    let alone = words.iter().all(|word| ALONE_DOUBTS.contains(&word.as_str()));
    let joined = format!(" {} ", words.join(" "));
    any(&DOUBTS)
        || first.is_some_and(|word| FIRST_DOUBTS.contains(&word.as_str()))
        || (alone && !words.is_empty())
        || PHRASES.iter().any(|phrase| joined.contains(&format!(" {phrase} ")))
        || (any(&OF_SCORES) && any(&DENIALS))
}

/// What follows a score on its line.
enum Tail {
    /// Nothing that matters.
    Fine,
    /// It puts the score in doubt.
    Doubt,
    /// It holds another number.
    Number,
}

/// A text without tags that end it: `</b>`, `<|im_end|>`.
fn without_tags(text: &str) -> &str {
    let begin = text.trim_start_matches(is_mark);
    let tag = begin.starts_with('<') && begin[1..].starts_with(['/', '|']);
    match begin.find('>').filter(|_| tag) {
        Some(end) => without_tags(&begin[end + 1..]),
        None => text,
    }
}

fn tail(rest: &str) -> Tail {
    if rest.contains(char::is_numeric) {
        return Tail::Number;
    }
    let rest = without_tags(rest);
    let plain = rest.trim_start_matches(|c: char| is_mark(c) || ")]}>\"'".contains(c));
    // `4-`, as grades are written.
    let graded =
        rest.starts_with(['-', '\u{2212}']) && plain.trim_matches(['-', '\u{2212}']).is_empty();
    let compared = plain
        .starts_with(['<', '>', '=', '+', '\u{d7}', '&', '/', '^', '|', '\u{2264}', '\u{2265}']);
    if graded || (compared && !plain.trim_start_matches('|').trim().is_empty()) {
        return Tail::Doubt;
    }
    let because = word(plain).is_none_or(|(word, _)| BECAUSE.contains(&word.as_str()));
    match because && !doubts(plain) {
        true => Tail::Fine,
        false => Tail::Doubt,
    }
}

/// The place of a number that is one figure, with nothing but a fraction of zero after it.
fn place(answer: &str, number: &Number<'_>) -> Option<Span> {
    let unsigned = number.written.trim_start_matches('+');
    let mut figures = unsigned.chars();
    let first = figures.next().filter(|c| figure(*c).is_some_and(|c| c != '.'))?;
    let whole = match figures.next().and_then(figure) {
        None => true,
        Some('.') => figures.all(|c| figure(c) == Some('0')),
        Some(_) => false,
    };
    let start = span(answer, unsigned).start;
    whole.then(|| start..start + first.len_utf8())
}

/// What opens before a number, and the rest.
fn opened(text: &str) -> (Vec<char>, &str) {
    let mut rest = text.trim_start_matches(is_mark);
    let mut closing = Vec::new();
    while let Some((open, close)) = BRACKETS.iter().find(|(open, _)| rest.starts_with(*open)) {
        closing.push(*close);
        rest = rest[open.len_utf8()..].trim_start_matches(is_mark);
    }
    (closing, rest)
}

/// Takes what closes from the start of a text.
fn closed<'a>(closing: &mut Vec<char>, mut rest: &'a str) -> &'a str {
    while let Some(close) = closing.last() {
        match rest.trim_start_matches(is_mark).strip_prefix(*close) {
            Some(after) => rest = after,
            None => break,
        }
        closing.pop();
    }
    rest
}

/// `1 + 1 + 1 = 3` after its first number: the total, if it comes out.
fn total<'a>(first: &Number<'a>) -> Option<Number<'a>> {
    let mut sum = first.value;
    let mut rest = first.rest;
    while let Some(term) = rest.trim_start_matches(is_mark).strip_prefix('+').and_then(number) {
        (sum, rest) = (sum + term.value, term.rest);
    }
    let total = rest.trim_start_matches(is_mark).strip_prefix('=').and_then(number)?;
    (total.value == sum).then_some(total)
}

/// What a number right after `number` makes of it: `None` a range, which claims nothing; else what
/// is malformed.
fn joined(number: &Number<'_>) -> Option<Option<String>> {
    let Number { written, rest, .. } = number;
    let attached = rest.chars().next();
    if attached.is_some_and(char::is_numeric) {
        return Some(Some(format!("{written}{}", shortened(rest))));
    }
    let unit = word(rest).is_none_or(|(word, _)| UNITS.contains(&word.as_str()));
    if attached.is_some_and(char::is_alphabetic) && !unit {
        return Some(Some(format!("{written}{}", shortened(rest))));
    }
    let near = rest.trim_start_matches(is_mark);
    let range = near.strip_prefix(DASHES).or_else(|| near.strip_prefix("to "));
    let range = range.or_else(|| near.strip_prefix("or "));
    if range.is_some_and(|text| self::number(text).is_some()) {
        return Some(None);
    }
    if near.starts_with(['%', '\u{ff05}']) || word(near).is_some_and(|(w, _)| w.starts_with("per"))
    {
        return Some(Some(format!("{written}%")));
    }
    let decimals = rest.strip_prefix([',', '\u{ff0c}']);
    if decimals.is_some_and(|text| text.starts_with(char::is_numeric)) {
        return Some(Some(format!("{written},")));
    }
    None
}

/// What stands where a score should and is none: it counts against one, or says nothing.
fn no_number(claim: &Claim<'_>) -> Option<Said> {
    let text = bounded(claim.value.trim_start_matches(is_mark));
    let low = text.to_lowercase();
    let begins = |known: &str| {
        low.strip_prefix(known).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
    };
    let denied = claim.form != Form::Sentence && NOTHING.iter().any(|known| begins(known));
    let other = NUMBERS.iter().any(|(name, _)| begins(name)) || low.starts_with(char::is_numeric);
    (denied || other).then(|| Said {
        written: shortened(text),
        value: None,
        place: None,
        doubtful: true,
    })
}

/// Whether the line after a claim goes on with it and puts it in doubt.
fn goes_on(line: &str) -> bool {
    let line = bounded(line.trim_start());
    let words = words(line);
    let first = words.first().map_or("", String::as_str);
    let word = line.starts_with(char::is_lowercase) && NEXT_DOUBTS.contains(&first);
    let again = ["no", "actually", "wait", "correction", "sorry"].contains(&first)
        && line.contains(char::is_numeric);
    let too_much = ["that", "this", "which", "but"].contains(&first)
        && words.iter().any(|word| ["generous", "harsh"].contains(&word.as_str()));
    word || again || too_much || line.starts_with(SLASHES) || line.starts_with(['=', '%', '\u{d7}'])
}

/// Reads a claim; none where it claims nothing.
fn said(answer: &str, claim: &Claim<'_>) -> Option<Said> {
    let malformed =
        |written: String| Some(Said { written, value: None, place: None, doubtful: false });
    let (mut closing, text) = opened(claim.value);
    let Some(first) = number(text) else { return no_number(claim) };
    let alone = closed(&mut closing, first.rest);
    let first = Number { rest: alone, ..first };
    if let Some(other) = joined(&first) {
        return other.and_then(malformed);
    }
    let mut score = first;
    if score.rest.trim_start_matches(is_mark).starts_with('+') {
        match total(&score) {
            Some(total) => score = total,
            None => return malformed(format!("{} + \u{2026}", score.written)),
        }
    }
    let mut rest = score.rest;
    if let Some(scale) = scale(rest) {
        if scale.best != Some(5.0) {
            return malformed(format!("{} {} {}", score.written, scale.sign, scale.written));
        }
        rest = scale.rest;
    }
    while let Some((_, after)) = word(rest).filter(|(word, _)| UNITS.contains(&word.as_str())) {
        rest = after;
        if let Some(scale) = scale(rest).filter(|scale| scale.best == Some(5.0)) {
            rest = scale.rest;
        }
    }
    rest = closed(&mut closing, rest);
    let written = score.written.to_owned();
    if !closing.is_empty() || is_another_scale(claim.scale) {
        return malformed(shortened(&format!("{} {}", claim.scale, claim.value)));
    }
    let mut doubtful = claim.standing == Standing::Doubtful || goes_on(claim.after);
    match tail(rest) {
        Tail::Number => return malformed(shortened(claim.value)),
        Tail::Doubt => doubtful = true,
        Tail::Fine => {}
    }
    let bare = rest.chars().all(|c| !c.is_alphanumeric());
    let another_below = number(claim.after).is_some() || claim.after.trim_start().starts_with('=');
    match claim.form {
        Form::Below if !bare || another_below => return None,
        Form::Mention if doubtful && !bare => return None,
        _ => {}
    }
    let written = if doubtful { shortened(claim.value) } else { written };
    Some(Said { written, value: Some(score.value), place: place(answer, &score), doubtful })
}

/// The score of an answer, by the rule above.
pub fn read(answer: &str) -> Found {
    let reply = Reply::of(answer, Fences::Quote);
    let found = claims(&reply, answer, "score");
    if found.len() >= CLAIMS_MAX {
        return Found::Malformed(format!("{CLAIMS_MAX} claims and more"));
    }
    let said: Vec<Said> = found.iter().filter_map(|claim| said(answer, claim)).collect();
    let Some(first) = said.first() else { return Found::Missing };
    if said.iter().any(|claim| claim.value != first.value) {
        return Found::Ambiguous(said.into_iter().map(|claim| claim.written).collect());
    }
    let Some(sure) = said.iter().find(|claim| !claim.doubtful) else {
        return match first.value {
            None => Found::Missing,
            Some(_) => Found::Malformed(first.written.clone()),
        };
    };
    match sure.value {
        None => Found::Malformed(sure.written.clone()),
        Some(score) if !(0.0..=5.0).contains(&score) => Found::OutOfRange(score),
        Some(score) => Found::Score(score, sure.place.clone()),
    }
}

#[cfg(test)]
#[cfg(test)]
#[cfg(test)]
mod tests;
