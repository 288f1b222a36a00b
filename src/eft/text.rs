//! Small looks at a response: words around a place, whole words, sentences, bullet points.

use std::ops::Range;

/// A text as evidence quotes it: on one line and without quotation marks, behind which a rubric would
/// look for somebody else's words.
pub(super) fn plain(text: &str) -> String {
    let mark = |c: char| match c {
        '"' | '\u{201c}' | '\u{201d}' | '\u{201e}' | '\u{ab}' | '\u{bb}' => '\'',
        '\u{2018}' | '\u{2019}' => '\'',
        c => c,
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().map(mark).collect()
}

/// The first so many characters.
pub(super) fn beginning(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect::<String>().trim_end().to_owned()
}

/// The words that a place lies in, with the one before it and the one after.
pub(super) fn around(text: &str, place: Range<usize>) -> String {
    let before = text.get(..place.start).unwrap_or_default();
    let after = text.get(place.end..).unwrap_or_default();
    let inside = text.get(place).unwrap_or_default();
    let (head, touched_before) = last_words(before);
    let (tail, touched_after) = first_words(after);
    plain(&format!("{head}{touched_before}{inside}{touched_after}{tail}"))
}

/// The words that a place lies in, and those after it, so many in all.
pub(super) fn onward(text: &str, place: Range<usize>, words: usize) -> String {
    let before = text.get(..place.start).unwrap_or_default();
    let from = before.rfind(char::is_whitespace).map_or(0, |at| at + width(before, at));
    first_few(text.get(from..).unwrap_or_default(), words)
}

/// Words as the verifier counts them.
pub(super) fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| !in_a_word(c)).filter(|word| !word.is_empty()).collect()
}

/// The word that a place lies in, without the marks around it.
pub(super) fn word_at(text: &str, place: Range<usize>) -> String {
    let before = text.get(..place.start).unwrap_or_default();
    let from = before.rfind(char::is_whitespace).map_or(0, |at| at + width(before, at));
    let word = text.get(from..).and_then(|rest| rest.split_whitespace().next());
    let mark = |c: char| !c.is_alphanumeric();
    let word = word.unwrap_or_default();
    let bare = word.trim_matches(mark);
    plain(if bare.is_empty() { word } else { bare })
}

/// The last whole word of a text with the space behind it, and what touches its end.
fn last_words(text: &str) -> (&str, &str) {
    let touching = text.rfind(char::is_whitespace).map_or(0, |at| at + width(text, at));
    let (before, touching) = text.split_at(touching);
    let bare = before.trim_end();
    let from = bare.rfind(char::is_whitespace).map_or(0, |at| at + width(bare, at));
    (before.get(from..).unwrap_or_default(), touching)
}

/// The first whole word of a text with the space before it, and what touches its beginning.
fn first_words(text: &str) -> (&str, &str) {
    let (touching, after) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
    let space = after.len() - after.trim_start().len();
    let word = after.get(space..).unwrap_or_default();
    let end = space + word.find(char::is_whitespace).unwrap_or(word.len());
    (after.get(..end).unwrap_or_default(), touching)
}

fn width(text: &str, at: usize) -> usize {
    text.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8)
}

fn in_a_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `wanted` stands, whatever its case; `whole`: only where no word goes on around it.
pub(super) fn places(text: &str, wanted: &str, whole: bool) -> Vec<Range<usize>> {
    let wanted = wanted.to_lowercase();
    if wanted.is_empty() {
        return Vec::new();
    }
    let apart = |place: &Range<usize>| {
        let before = text.get(..place.start).and_then(|text| text.chars().next_back());
        let after = text.get(place.end..).and_then(|text| text.chars().next());
        ![before, after].into_iter().flatten().any(in_a_word)
    };
    let starts = text.char_indices().map(|(at, _)| at);
    let found = starts.filter_map(|at| {
        let end = matching_end(text.get(at..)?, &wanted)?;
        Some(at..at + end)
    });
    let mut all: Vec<Range<usize>> = Vec::new();
    for place in found.filter(|place| !whole || apart(place)) {
        if all.last().is_none_or(|last| last.end <= place.start) {
            all.push(place);
        }
    }
    all
}

/// The length of what of `text` is `wanted` in small letters, from its beginning.
fn matching_end(text: &str, wanted: &str) -> Option<usize> {
    let mut left = wanted;
    for (at, c) in text.char_indices() {
        if left.is_empty() {
            return Some(at);
        }
        let small: String = c.to_lowercase().collect();
        left = left.strip_prefix(small.as_str())?;
    }
    left.is_empty().then_some(text.len())
}

/// Sentences, each with its mark.
pub(super) fn sentences(text: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let mut from = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let ends = matches!(c, '.' | '!' | '?')
            && chars.peek().is_none_or(|(_, next)| next.is_whitespace() || "\"')".contains(*next));
        if ends {
            all.push(text.get(from..at + c.len_utf8()).unwrap_or_default());
            from = at + c.len_utf8();
        }
    }
    all.push(text.get(from..).unwrap_or_default());
    let all = all.into_iter().map(str::trim);
    all.filter(|sentence| sentence.contains(char::is_alphanumeric)).collect()
}

/// What stands behind the marks of the bullet points.
pub(super) fn bullets(text: &str) -> Vec<&str> {
    let of_line = |line: &'_ str| -> Option<usize> {
        let bare = line.trim_start();
        let rest = bare.strip_prefix('-').or_else(|| {
            bare.strip_prefix('*').filter(|rest| !rest.is_empty() && !rest.starts_with('*'))
        })?;
        Some(line.len() - rest.len())
    };
    text.lines().filter_map(|line| line.get(of_line(line)?..)).map(str::trim).collect()
}

/// Parts in square brackets, with them.
pub(super) fn placeholders(text: &str) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    let mut from = 0;
    while let Some(open) = text.get(from..).and_then(|rest| rest.find('[')).map(|at| from + at) {
        let rest = text.get(open..).unwrap_or_default();
        let line = rest.find('\n').unwrap_or(rest.len());
        match rest.find(']').filter(|close| *close < line) {
            Some(close) => {
                all.push(open..open + close + 1);
                from = open + close + 1;
            }
            None => from = open + line,
        }
    }
    all
}

/// The words of a sentence or line, at most so many.
pub(super) fn first_few(text: &str, words: usize) -> String {
    plain(&text.split_whitespace().take(words).collect::<Vec<_>>().join(" "))
}

/// The last words of a text, at most so many.
pub(super) fn last_few(text: &str, words: usize) -> String {
    let all: Vec<&str> = text.split_whitespace().collect();
    plain(&all.get(all.len().saturating_sub(words)..).unwrap_or_default().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_around_a_place() {
        let text = "In the end, we say \u{201c}yes\u{201d}\nto it";
        let comma = text.find(',').unwrap();
        assert_eq!(around(text, comma..comma + 1), "the end, we");
        let yes = places(text, "YES", true);
        assert_eq!(yes.len(), 1);
        assert_eq!(around(text, yes[0].clone()), "say 'yes' to");
        assert_eq!(around("one", 0..3), "one");
        assert_eq!(around("", 0..0), "");
    }

    #[test]
    fn places_are_found_whatever_their_case() {
        assert_eq!(places("The other the", "the", true), [0..3, 10..13]);
        assert_eq!(places("The other", "the", false), [0..3, 5..8]);
        assert_eq!(places("aaaa", "aa", false), [0..2, 2..4], "they do not overlap");
        assert_eq!(places("\u{130}x", "x", false).len(), 1, "a letter that grows is passed over");
        assert!(places("a", "", false).is_empty());
    }

    #[test]
    fn parts_of_a_response() {
        assert_eq!(sentences("One. Two! v1.5 is out"), ["One.", "Two!", "v1.5 is out"]);
        assert_eq!(sentences(" ... "), Vec::<&str>::new());
        assert_eq!(bullets("* a\n** b\n - c\nd"), ["a", "c"]);
        let text = "[a] and [b\n] [c]";
        let found: Vec<&str> = placeholders(text).into_iter().map(|at| &text[at]).collect();
        assert_eq!(found, ["[a]", "[c]"]);
        assert_eq!(
            (first_few("a b \"c\" d", 3).as_str(), last_few("a b c", 2).as_str()),
            ("a b 'c'", "b c")
        );
    }
}
