//! Where a judge writes its verdict: after a label such as `Score`. All that is read here is where
//! the label stands and what follows it; what a verdict may look like is each rubric's own.
//!
//! A label claims
//! - on a line that begins with it, whatever its case, the marks around it and words like `My final`
//!   before it, when `:`, `=`, their full-width forms or `is` follow it. In between may stand what
//!   the scale is: `Score (0-5):`. Where nothing follows, the next line is what follows;
//! - in a cell of a table, for the next cell;
//! - as a member of a JSON object: `{"score": 4}`;
//! - inside the last line, where a sentence of its own begins with it.

use crate::SCALE_BYTES;
use crate::json::members;
use crate::own::{Line, Reply, Span, Standing, introduces_own, last_sentence, span, words};

/// How a label and what follows it are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `Score: 4`
    Line,
    /// `The score is 4`
    Sentence,
    /// A label with what follows it on the next line.
    Below,
    /// `| Score | 4 |`
    Cell,
    /// `{"score": 4}`
    Member,
    /// Inside the last line.
    Mention,
}

/// A label, and what follows it.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// What follows, to the end of its line.
    pub value: &'a str,
    /// The line after that, where it may go on there.
    pub after: &'a str,
    /// What is said of the scale at the label, if anything.
    pub scale: &'a str,
    pub standing: Standing,
    pub form: Form,
}

/// Words that may stand before a label.
const BEFORE: [&str; 28] = [
    "so",
    "thus",
    "therefore",
    "hence",
    "it",
    "is",
    "i",
    "say",
    "in",
    "conclusion",
    "summary",
    "short",
    "to",
    "sum",
    "up",
    "the",
    "my",
    "final",
    "total",
    "overall",
    "verdict",
    "result",
    "and",
    "a",
    "this",
    "give",
    "rate",
    "award",
];
/// The longest text of such words, in bytes.
const BEFORE_BYTES: usize = 100;
/// The most claims that are read; a verdict has one.
pub const CLAIMS_MAX: usize = 256;
const SCALE_NAMES: [&str; 7] = ["scale", "max", "maximum", "out of", "of", "range", "best"];
pub(crate) fn is_mark(c: char) -> bool {
    c.is_whitespace() || matches!(c, '*' | '_' | '#' | '`' | '\u{feff}')
}

/// Whether what stands before a label leaves it the judge's own and the beginning of what is said.
fn begins(before: &str) -> bool {
    if before.len() > BEFORE_BYTES {
        return false;
    }
    if before.is_empty() {
        return true;
    }
    let before =
        before.trim_start_matches(|c: char| is_mark(c) || "-+\u{2022}\u{2013}".contains(c));
    let number = before.trim_start_matches(|c: char| c.is_ascii_digit());
    let before = match number.strip_prefix(['.', ')']) {
        Some(rest) if number.len() < before.len() => rest,
        _ => before,
    };
    let fits =
        |c: char| c.is_ascii_alphabetic() || is_mark(c) || ",:([-\u{2013}\u{2014}".contains(c);
    before.chars().all(fits) && words(before).iter().all(|w| BEFORE.contains(&w.as_str()))
}

/// Where a label stands in a reply as a word of its own, whatever its case.
struct Labels<'a> {
    text: &'a str,
    at: Vec<usize>,
    length: usize,
}

impl<'a> Labels<'a> {
    fn of(text: &'a str, label: &str) -> Labels<'a> {
        let low = text.to_ascii_lowercase();
        let apart = |c: Option<char>| !c.is_some_and(char::is_alphanumeric);
        let (length, found) = (label.len(), low.match_indices(label).map(|(at, _)| at));
        let free = |at: &usize| {
            apart(low[..*at].chars().next_back()) && apart(low[at + length..].chars().next())
        };
        Labels { text, at: found.filter(free).collect(), length }
    }

    /// What is before and after each label in a part of the reply.
    fn within<'p>(&self, part: &'p str) -> impl DoubleEndedIterator<Item = (&'p str, &'p str)> {
        let Span { start, end } = span(self.text, part);
        let (from, to) =
            (self.at.partition_point(|at| *at < start), self.at.partition_point(|at| *at < end));
        let length = self.length;
        let around = move |at: &usize| (&part[..at - start], part.get(at - start + length..));
        let whole = move |(before, after): (&'p str, Option<&'p str>)| Some((before, after?));
        self.at[from..to].iter().map(around).filter_map(whole)
    }
}

/// What stands between label and colon of the scale, and the rest.
fn scale(rest: &str) -> (&str, &str) {
    let begin = rest.trim_start_matches(is_mark);
    if begin.is_empty() || begin.starts_with([':', '=']) {
        return ("", rest);
    }
    let brackets = [('(', ')'), ('[', ']'), ('\u{ff08}', '\u{ff09}')];
    for (open, close) in brackets {
        let Some(inner) = begin.strip_prefix(open) else { continue };
        let Some(end) = inner.find(close).filter(|end| *end <= SCALE_BYTES) else { continue };
        return (&inner[..end], &inner[end + close.len_utf8()..]);
    }
    let low = begin.get(..begin.len().min(8)).unwrap_or_default().to_ascii_lowercase();
    if ["/", "out of ", "of ", "on a ", "from "].iter().any(|word| low.starts_with(word)) {
        let end = begin.find([':', '\u{ff1a}', '=']).filter(|end| *end <= SCALE_BYTES);
        if let Some(end) = end {
            return (&begin[..end], &begin[end..]);
        }
    }
    ("", rest)
}

/// What follows a label.
enum Follows<'a> {
    /// A sign, and what follows that.
    Sign(&'a str),
    /// `is`, and what follows that.
    Is(&'a str),
    Nothing,
    Else,
}

fn follows(rest: &str) -> Follows<'_> {
    let rest = rest.trim_start_matches(is_mark);
    if let Some(value) = rest.strip_prefix([':', '\u{ff1a}', '=', '\u{ff1d}']) {
        return Follows::Sign(value);
    }
    if rest.is_empty() {
        return Follows::Nothing;
    }
    match rest.get(..2).filter(|is| is.eq_ignore_ascii_case("is")) {
        Some(_) if rest[2..].starts_with(|c: char| c.is_whitespace() || ":*".contains(c)) => {
            let value = rest[2..].trim_start_matches(is_mark);
            Follows::Is(value.strip_prefix(':').unwrap_or(value))
        }
        _ => Follows::Else,
    }
}

/// A label in quotation marks of its own (`"Score": 4`): what is before the first and after the
/// second.
fn unquoted<'a>(before: &'a str, rest: &'a str) -> (&'a str, &'a str) {
    for mark in ['"', '\''] {
        if let (Some(before), Some(rest)) = (before.strip_suffix(mark), rest.strip_prefix(mark)) {
            return (before, rest);
        }
    }
    (before, rest)
}

/// What a line claims that begins with the label.
fn on_line<'a>(lines: &[Line<'a>], at: usize, labels: &Labels, start: usize) -> Option<Claim<'a>> {
    let line = lines.get(at)?;
    let (before, rest) = (line.text.get(..start)?, line.text.get(start + labels.length..)?);
    let (before, rest) = unquoted(before, rest);
    if !begins(before) {
        return None;
    }
    let (scale, rest) = scale(rest);
    let adjoining = |line: Option<&Line<'a>>| line.filter(|l| l.adjoins).map_or("", |l| l.text);
    let (value, form) = match follows(rest) {
        Follows::Sign(value) if value.chars().all(is_mark) => (None, Form::Below),
        Follows::Sign(value) => (Some(value), Form::Line),
        Follows::Is(value) => (Some(value), Form::Sentence),
        // A heading.
        Follows::Nothing if before.contains(['#', '*']) => (None, Form::Below),
        Follows::Nothing | Follows::Else => return None,
    };
    let (value, after) = match value {
        Some(value) => (value, adjoining(lines.get(at + 1))),
        None => {
            let below = lines.get(at + 1).filter(|line| line.standing == Standing::Own);
            if below.is_some_and(|line| labels.within(line.text).next().is_some()) {
                return None; // That line says it.
            }
            (below.map_or("", |line| line.text), adjoining(lines.get(at + 2)))
        }
    };
    Some(Claim { value, after, scale, standing: line.standing, form })
}

/// What a row of a table claims.
fn in_row<'a>(line: &Line<'a>, labels: &Labels) -> Option<Claim<'a>> {
    let row = line.text.trim().strip_prefix('|')?;
    let mut cells = row.split('|');
    let scale = cells.find_map(|cell| {
        let (before, rest) = labels.within(cell).next()?;
        let (scale, rest) = scale(rest);
        (begins(before) && rest.chars().all(is_mark)).then_some(scale)
    })?;
    let value = cells.next()?;
    // A number in a further cell may be the score as well.
    let sure = !cells.any(|cell| cell.chars().any(char::is_numeric));
    let standing = if sure { line.standing } else { Standing::Doubtful };
    Some(Claim { value, after: "", scale, standing, form: Form::Cell })
}

/// What the members of an object claim.
fn in_object<'a>(object: &'a str, label: &str, into: &mut Vec<Claim<'a>>) {
    let named = |name: &str| words(&name.replace(['_', '-'], " ")).join(" ");
    let members = members(object);
    let scale = members.iter().find(|member| {
        let name = named(member.name).replace(label, " ");
        SCALE_NAMES.contains(&words(&name).join(" ").as_str())
    });
    for member in &members {
        let name = named(member.name);
        let Some(before) = name.strip_suffix(label) else { continue };
        if !begins(before) || Some(member.name) == scale.map(|m| m.name) {
            continue;
        }
        into.push(Claim {
            value: member.value,
            after: "",
            scale: scale.map_or("", |m| m.value),
            standing: Standing::Own,
            form: Form::Member,
        });
    }
}

/// The label inside a line, where it begins a sentence; one that does not is in doubt.
fn inside<'a>(reply: &Reply<'a>, line: &Line<'a>, labels: &Labels) -> Option<Claim<'a>> {
    let (before, rest) = labels.within(line.text).next_back()?;
    // A row of a table says it in a cell of its own or not at all.
    if before.trim_start().starts_with('|') {
        return None;
    }
    let marked =
        before.chars().next_back().is_some_and(|c| "\"'`\u{201c}\u{2018}\u{ab}".contains(c));
    if marked || reply.quotes(rest) {
        return None;
    }
    let (scale, rest) = scale(rest);
    let Follows::Sign(value) = follows(rest) else { return None };
    let before = before.trim_end_matches(is_mark);
    let own = match before.contains([':', '\u{ff1a}']) {
        true => before.ends_with([':', '\u{ff1a}']) && introduces_own(before),
        false => begins(last_sentence(before)),
    };
    let standing = if own { line.standing } else { Standing::Doubtful };
    Some(Claim { value, after: "", scale, standing, form: Form::Mention })
}

/// Everything that a reply claims under a label, in order, or of very many the first
/// [`CLAIMS_MAX`]. `label` is in lower case.
pub fn claims<'a>(reply: &Reply<'a>, text: &'a str, label: &str) -> Vec<Claim<'a>> {
    let labels = Labels::of(text, label);
    let mut all = Vec::new();
    let last = reply.lines.len().saturating_sub(1);
    // Labels and lines are both in order; most lines have none.
    let mut next = 0;
    for (at, line) in reply.lines.iter().enumerate() {
        let here = span(text, line.text);
        while labels.at.get(next).is_some_and(|label| *label < here.start) {
            next += 1;
        }
        let Some(label) = labels.at.get(next).filter(|_| all.len() < CLAIMS_MAX) else { break };
        if !here.contains(label) {
            continue;
        }
        let later = (labels.at.get(next + 1), reply.lines.get(at + 1));
        if let (Some(":"), (Some(later), Some(below))) =
            (text.get(label + labels.length..here.end), later)
            && span(text, below.text).contains(later)
        {
            continue; // The next line says it.
        }
        let found = on_line(&reply.lines, at, &labels, label - here.start)
            .or_else(|| in_row(line, &labels))
            .or_else(|| (at == last).then(|| inside(reply, line, &labels)).flatten());
        all.extend(found);
    }
    for object in &reply.objects {
        // `final_score` is a word of its own only without its underscore.
        let low = object.to_ascii_lowercase();
        if low.contains(label.split(' ').next_back().unwrap_or(label)) && all.len() < CLAIMS_MAX {
            in_object(object, label, &mut all);
        }
    }
    all.sort_by_key(|claim| span(text, claim.value).start);
    all
}
