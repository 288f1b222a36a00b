//! What of a reply is the judge's own word. A judge quotes the response that it judges, and models
//! that reason write their thoughts down first; a score that stands there is no verdict.
//!
//! Left out are
//! - thoughts: `<think>...</think>` and the like; without an opening tag all before the closing one;
//! - what stands in `<response>...</response>`, `<quote>...</quote>` and the like;
//! - lines that begin with `>`, and what stands in quotation marks, also over several lines;
//! - code blocks, where a rubric says so (see [`Fences`]);
//! - what a line introduces that speaks of somebody else's words and ends with a colon
//!   (`It claims:`): the lines up to the next blank one, or the entries of the list that follows.
//!
//! The line after any other colon (`Response B:`) is in doubt unless the judge speaks of its own
//! verdict (`My verdict:`, `On reflection:`).

/// Whether a line is the judge's own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Own,
    /// It may be: what it says counts against other claims, but not for itself.
    Doubtful,
}

/// A line of a reply that is not somebody else's.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    pub text: &'a str,
    pub standing: Standing,
    /// Whether it follows the line before it without a blank line or something left out between.
    pub adjoins: bool,
}

/// What code blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fences {
    /// Quotations.
    Quote,
    /// A way to write one's own words.
    Own,
}

/// Bytes of a reply.
pub type Span = std::ops::Range<usize>;

/// Where `part` stands in `whole`, of which it must be a part.
pub fn span(whole: &str, part: &str) -> Span {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    start..start + part.len()
}

const THOUGHTS: [&str; 9] = [
    "think",
    "thinking",
    "thought",
    "thoughts",
    "reasoning",
    "reflection",
    "scratchpad",
    "analysis",
    "begin_of_thought",
];
const QUOTES: [&str; 7] = ["response", "quote", "blockquote", "q", "cite", "candidate", "example"];

/// The name of a tag at the start of `text` (`<think>`, `</think>`, `[THINK]`, `<|end_of_thought|>`),
/// whether it closes, and its length.
fn tag(text: &str) -> Option<(&str, bool, usize)> {
    let end = if text.starts_with('<') { b'>' } else { b']' };
    let ends = |byte| byte == end || byte == b'<' || byte == b'[' || byte == b'\n';
    let length = text.bytes().skip(1).take(24).position(ends)?;
    if text.as_bytes().get(length + 1) != Some(&end) {
        return None;
    }
    let inner = text.get(1..=length)?;
    let bare = inner.trim_matches('|');
    let (closes, name) = match bare.strip_prefix('/') {
        Some(name) => (true, name),
        None if bare == "end_of_thought" => (true, "begin_of_thought"),
        None => (false, bare),
    };
    Some((name.trim(), closes, inner.len() + 2))
}

/// A tag of a known name: where it begins and ends, and whether it closes.
struct Tag {
    span: Span,
    name: &'static str,
    closes: bool,
}

/// All tags of known names in a text in lower case.
fn tags(low: &str) -> Vec<Tag> {
    let known = |name: &str| THOUGHTS.iter().chain(&QUOTES).find(|known| **known == name).copied();
    let begins = |(at, byte): (usize, u8)| (byte == b'<' || byte == b'[').then_some(at);
    let found = low.bytes().enumerate().filter_map(begins).filter_map(|at| {
        let (name, closes, length) = tag(&low[at..])?;
        Some(Tag { span: at..at + length, name: known(name)?, closes })
    });
    found.collect()
}

/// Whatever stands between tags of these names. What is not closed goes to the end of the text where
/// `open` says how long that is; what is not opened then begins the reply.
fn tagged(tags: &[Tag], names: &[&str], open: Option<usize>, into: &mut Vec<Span>) {
    let mut from: Option<&Tag> = None;
    for tag in tags.iter().filter(|tag| names.contains(&tag.name)) {
        match (tag.closes, from) {
            (false, None) => from = Some(tag),
            (true, Some(opened)) if opened.name == tag.name => {
                into.push(opened.span.start..tag.span.end);
                from = None;
            }
            (true, None) if open.is_some() => into.push(0..tag.span.end),
            _ => {}
        }
    }
    if let (Some(opened), Some(end)) = (from, open) {
        into.push(opened.span.start..end);
    }
}

/// Marks of quotation that open and close, and what closes them.
const MARKS: [(char, &[char]); 8] = [
    ('\u{201c}', &['\u{201d}']),
    ('\u{201e}', &['\u{201c}', '\u{201d}']),
    ('\u{2018}', &['\u{2019}']),
    ('\u{ab}', &['\u{bb}']),
    ('\u{bb}', &['\u{ab}']),
    ('\u{2039}', &['\u{203a}']),
    ('\u{300c}', &['\u{300d}']),
    ('\u{300e}', &['\u{300f}']),
];

/// What stands in quotation marks. One that never closes quotes nothing.
fn quoted(reply: &str, into: &mut Vec<Span>) {
    let mut open: Vec<(usize, &[char])> = Vec::new();
    let (mut straight, mut on_line): (Option<usize>, Option<usize>) = (None, None);
    for (at, byte) in reply.bytes().enumerate() {
        match byte {
            // Of straight ones those on one line belong together, and what is left over of a line
            // to what is left over of a later one.
            b'"' => match on_line.take() {
                Some(start) => into.push(start..at + 1),
                None => on_line = Some(at),
            },
            b'\n' => {
                if let Some(left) = on_line.take() {
                    match straight.take() {
                        Some(start) => into.push(start..left + 1),
                        None => straight = Some(left),
                    }
                }
            }
            // The first byte of every mark in MARKS.
            0xc2 | 0xe2 | 0xe3 => {
                let Some(c) = reply[at..].chars().next() else { continue };
                let closes = open.last().is_some_and(|(_, closing)| closing.contains(&c));
                let opens = MARKS.iter().find(|(mark, _)| *mark == c);
                if closes {
                    let start = open.pop().map_or(at, |(start, _)| start);
                    into.push(start..at + c.len_utf8());
                } else if let Some((_, closing)) = opens {
                    open.push((at, closing));
                }
            }
            _ => {}
        }
    }
    if let (Some(start), Some(left)) = (straight, on_line) {
        into.push(start..left + 1);
    }
}

/// Parts of a text, in order and apart from each other.
#[derive(Debug, Default)]
pub struct Parts(Vec<Span>);

impl Parts {
    fn of(mut all: Vec<Span>) -> Parts {
        all.sort_by_key(|part| part.start);
        let mut apart: Vec<Span> = Vec::with_capacity(all.len());
        for part in all {
            match apart.last_mut() {
                Some(last) if part.start < last.end => last.end = last.end.max(part.end),
                _ => apart.push(part),
            }
        }
        Parts(apart)
    }

    /// Whether a byte is in one of them, its first byte left out: a quotation mark that begins a
    /// line is not quoted itself.
    fn hold(&self, at: usize) -> bool {
        let after = self.0.partition_point(|part| part.start < at);
        after.checked_sub(1).and_then(|before| self.0.get(before)).is_some_and(|p| at < p.end)
    }
}

/// Words by which a line speaks of somebody else's words.
const SPEAKING: [&str; 47] = [
    "claims",
    "claimed",
    "claiming",
    "says",
    "said",
    "saying",
    "states",
    "stated",
    "stating",
    "asserts",
    "asserted",
    "asserting",
    "ends",
    "ended",
    "ending",
    "reads",
    "writes",
    "wrote",
    "writing",
    "written",
    "asks",
    "asked",
    "tells",
    "told",
    "wants",
    "wanted",
    "insists",
    "demands",
    "demanded",
    "declares",
    "declared",
    "quotes",
    "quoted",
    "quote",
    "quoting",
    "cites",
    "boasts",
    "pretends",
    "announces",
    "instructs",
    "instructed",
    "begins",
    "starts",
    "contains",
    "example",
    "excerpt",
    "verbatim",
];
/// Words by which a judge speaks of its own verdict.
const JUDGING: [&str; 47] = [
    "i",
    "my",
    "me",
    "score",
    "scores",
    "verdict",
    "rating",
    "total",
    "final",
    "overall",
    "conclusion",
    "reflection",
    "therefore",
    "so",
    "thus",
    "hence",
    "result",
    "judgment",
    "judgement",
    "evaluation",
    "assessment",
    "form",
    "format",
    "summary",
    "grade",
    "decision",
    "points",
    "reasoning",
    "reason",
    "reasons",
    "justification",
    "explanation",
    "analysis",
    "feedback",
    "comment",
    "comments",
    "review",
    "better",
    "list",
    "criteria",
    "criterion",
    "check",
    "checks",
    "rationale",
    "thought",
    "consideration",
    "json",
];

/// Words that a sentence breaks off with before somebody else's.
const BREAKING: [&str; 10] = ["with", "as", "that", "by", "a", "the", "say", "write", "give", "is"];

/// What follows a line that ends with a colon.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Own,
    Doubtful,
    /// Somebody else's; whether it is a list shows with its first line.
    Quoted {
        list: Option<bool>,
    },
}

/// Lower-case words of a text.
pub fn words(text: &str) -> Vec<String> {
    let apart = |c: char| !(c.is_alphanumeric() || c == '\'' || c == '\u{2019}');
    let words = text.split(apart).filter(|word| !word.is_empty());
    words.map(|word| word.replace('\u{2019}', "'").to_lowercase()).collect()
}

/// The end of a line that is looked at for what it says of the next, in bytes.
const LOOKED_AT: usize = 300;

/// What follows the last sentence that ends in a text, of a long one no more than the end.
pub fn last_sentence(text: &str) -> &str {
    let mut from = text.len().saturating_sub(LOOKED_AT);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let text = &text[from..];
    let ends = |(at, c): (usize, char)| {
        let rest = &text[at + c.len_utf8()..];
        let after = rest.trim_start_matches(['*', '_', ')', '"']);
        let stops = after.is_empty() || after.starts_with(char::is_whitespace);
        let ended = "\u{3002}\u{ff01}\u{ff1f}".contains(c) || (".!?;".contains(c) && stops);
        ended.then_some(text.len() - after.len())
    };
    let start = text.char_indices().rev().find_map(ends);
    start.map_or(text, |start| &text[start..])
}

/// Whether a text speaks of somebody else's words: `the response says`, `I was told`, not `I said`.
fn speaks_of_others(words: &[String]) -> bool {
    words.iter().enumerate().any(|(at, word)| {
        let before = &words[at.saturating_sub(2)..at];
        let has = |known: &[&str]| before.iter().any(|word| known.contains(&word.as_str()));
        SPEAKING.contains(&word.as_str()) && (!has(&["i"]) || has(&["was", "am", "been", "were"]))
    })
}

/// What the next line is, by what this one says of it.
fn introduced(line: &str) -> Next {
    let line = line.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '*' | '_' | '`'));
    let colon = line.ends_with([':', '\u{ff1a}']);
    // Most lines end otherwise, and words cost fuel.
    let tail = line.len().saturating_sub(12);
    let last = line.as_bytes()[tail..].rsplit(|byte| !byte.is_ascii_alphabetic()).next();
    let last = last.unwrap_or_default();
    let is_last = |known: &&str| known.as_bytes().eq_ignore_ascii_case(last);
    let breaks = SPEAKING.iter().any(is_last) || BREAKING.iter().any(is_last);
    if !colon && !breaks {
        return Next::Own;
    }
    let words = words(last_sentence(line));
    let speaks = speaks_of_others(&words);
    let has = |known: &[&str]| words.iter().any(|word| known.contains(&word.as_str()));
    if !colon {
        // A sentence that breaks off where the words of somebody else would follow.
        return if speaks { Next::Doubtful } else { Next::Own };
    }
    match () {
        () if speaks => Next::Quoted { list: None },
        () if has(&["its", "their", "claimed"]) && !has(&["i", "my"]) => Next::Doubtful,
        () if has(&JUDGING) => Next::Own,
        () => Next::Doubtful,
    }
}

/// Whether a line that ends with a colon leaves what follows the judge's own.
pub fn introduces_own(line: &str) -> bool {
    introduced(line) == Next::Own
}

/// How many objects that are none are looked at, each perhaps to the end of the reply.
const UNENDED_MAX: usize = 2;

/// Whether a line is an entry of a list.
fn is_entry(line: &str) -> bool {
    let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let numbered = rest.len() < line.len() && rest.starts_with(['.', ')']);
    numbered || ["- ", "* ", "+ ", "\u{2022}"].iter().any(|mark| line.starts_with(mark))
}

/// A reply, looked through.
#[derive(Debug)]
pub struct Reply<'a> {
    /// Its lines that are not somebody else's, blank ones left out.
    pub lines: Vec<Line<'a>>,
    /// Objects of JSON that stand on lines of their own or are all that a code block holds.
    pub objects: Vec<&'a str>,
    quotes: Parts,
    text: &'a str,
}

impl<'a> Reply<'a> {
    /// Looks through a reply.
    pub fn of(text: &'a str, fences: Fences) -> Reply<'a> {
        let (mut apart, mut quotes) = (Vec::new(), Vec::new());
        // Fuel is bounded: most replies have none of these.
        if text.contains('<') || text.contains('[') {
            let low = text.to_ascii_lowercase();
            let tags = tags(&low);
            tagged(&tags, &THOUGHTS, Some(text.len()), &mut apart);
            tagged(&tags, &QUOTES, None, &mut apart);
        }
        if text.contains('"') || !text.is_ascii() {
            quoted(text, &mut quotes);
        }
        let mut reply =
            Reply { lines: Vec::new(), objects: Vec::new(), quotes: Parts::of(quotes), text };
        reply.look_through(&Parts::of(apart), fences);
        reply
    }

    /// Whether a part of the reply is in quotation marks.
    pub fn quotes(&self, part: &str) -> bool {
        self.quotes.hold(span(self.text, part).start)
    }

    fn look_through(&mut self, apart: &Parts, fences: Fences) {
        let text = self.text;
        let (mut fence, mut next, mut adjoins): (Option<&str>, _, _) = (None, Next::Own, false);
        let (mut done, mut unended) = (0, 0);
        // Lines that are said over and over cost no more words.
        let mut before = ("", Next::Own);
        for line in text.split('\n').flat_map(|line| line.trim_end_matches('\r').split('\r')) {
            let start = span(text, line).start;
            let plain = line.trim();
            let at = start + (line.len() - line.trim_start().len());
            if start < done {
                continue;
            }
            if apart.hold(at) || apart.hold(at + 1) {
                adjoins = false;
                // A verdict may follow a closing tag on its line.
                let Some(rest) = self.after_tag(apart, line) else { continue };
                self.push(rest, Standing::Own, false);
                next = introduced(rest);
                continue;
            }
            let opens = ["```", "~~~"].into_iter().find(|mark| plain.starts_with(mark));
            if let Some(mark) = opens {
                match fence {
                    Some(open) if open == mark => fence = None,
                    Some(_) => {}
                    None if plain[3..].contains(mark) => {}
                    None => fence = Some(mark),
                }
                adjoins = false;
                let ended = fence.is_none() && next != Next::Own;
                next = if ended { Next::Own } else { next };
                continue;
            }
            if plain.is_empty() {
                adjoins = false;
                if fence.is_none() && matches!(next, Next::Quoted { list: Some(_) }) {
                    next = Next::Own;
                }
                continue;
            }
            let own = next == Next::Own && !self.quotes.hold(at);
            if own && plain.starts_with('{') && unended < UNENDED_MAX {
                if let Some(object) = object(text, at) {
                    self.objects.push(object);
                    done = at + object.len();
                    adjoins = false;
                    continue;
                }
                unended += 1;
            }
            if fence.is_some() && fences == Fences::Quote {
                continue;
            }
            if plain.starts_with(['>', '\u{ff1e}']) || self.quotes.hold(at) {
                (adjoins, next) = (false, Next::Own);
                continue;
            }
            if let Next::Quoted { list } = &mut next {
                let entry = is_entry(plain);
                if *list.get_or_insert(entry) == entry {
                    adjoins = false;
                    continue;
                }
            }
            let standing = if next == Next::Doubtful { Standing::Doubtful } else { Standing::Own };
            self.push(line, standing, adjoins);
            if plain != before.0 {
                before = (plain, introduced(plain));
            }
            (adjoins, next) = (true, before.1);
        }
    }

    fn push(&mut self, text: &'a str, standing: Standing, adjoins: bool) {
        self.lines.push(Line { text, standing, adjoins });
    }

    /// What of a line follows the last part that is left out, if that ends on it.
    fn after_tag(&self, apart: &Parts, line: &'a str) -> Option<&'a str> {
        let line_span = span(self.text, line);
        let later = apart.0.partition_point(|part| part.end < line_span.end);
        let ends = apart.0[later.saturating_sub(1)..].iter().take(2).map(|part| part.end);
        let end = ends.filter(|end| line_span.contains(end)).max()?;
        let rest = &line[end - line_span.start..];
        (!rest.trim().is_empty()).then_some(rest)
    }
}

/// The object at a byte, which must be all that its last line holds.
fn object(text: &str, at: usize) -> Option<&str> {
    let length = crate::json::object_length(&text[at..])?;
    let rest = text[at + length..].split(['\n', '\r']).next().unwrap_or_default();
    rest.trim_matches(|c: char| c.is_whitespace() || "`,;.".contains(c))
        .is_empty()
        .then(|| &text[at..at + length])
}
