//! Evidence: what in a response decides whether it meets a constraint, as a small model can find it too.
//! Things are listed before anything is said of how many they are, and what is quoted stands with its
//! neighbours, so that it can be copied and not only known. It ends like a sentence: a line that breaks
//! off may introduce somebody else's words, and rubrics doubt what follows it.

use super::constraint::{Bound, Constraint};
use super::text::{
    around, beginning, bullets, first_few, last_few, onward, placeholders, places, plain,
    sentences, word_at, words,
};
use std::ops::Range;

/// Things that are listed at most.
const LISTED_MAX: usize = 8;
/// Marks on the way to a number of words, at most, and what they are a multiple of.
const STEPS_MAX: usize = 5;
const STEP: usize = 5;
/// Characters of what is quoted of a title, a postscript or a blank.
const QUOTED_MAX: usize = 40;

/// What speaks for or against a constraint in a response.
pub(super) fn evidence(constraint: &Constraint, response: &str) -> String {
    let found = found(constraint, response.trim());
    let ends = found.ends_with(['.', '!', '?']);
    if ends { found } else { format!("{found}.") }
}

fn found(constraint: &Constraint, text: &str) -> String {
    match constraint {
        Constraint::Words(words) => {
            let each = words.iter().map(|word| match places(text, word, false).first() {
                Some(place) => format!("{word} in: {}", onward(text, place.clone(), 3)),
                None => format!("no {word}"),
            });
            each.collect::<Vec<_>>().join("; ")
        }
        Constraint::NotWords(words) => {
            let found = words.iter().find_map(|word| {
                let place = places(text, word, true).into_iter().next()?;
                Some(format!("{word} in: {}", onward(text, place, 3)))
            });
            found.unwrap_or_else(|| format!("no {}", words.join(", no ")))
        }
        Constraint::WordTimes(word, bound) => listed(text, places(text, word, false), word, *bound),
        Constraint::LetterTimes(letter, bound) => {
            listed(text, places(text, letter, false), letter, *bound)
        }
        Constraint::WordCount(bound) => counted(&words(text), *bound),
        Constraint::Sentences(bound) => {
            numbered(sentences(text).iter().map(|one| first_few(one, 2)), *bound, "no sentence")
        }
        Constraint::Paragraphs(bound) => {
            let parts = text.split("***").map(str::trim).filter(|part| !part.is_empty());
            numbered(parts.map(|part| first_few(part, 2)), *bound, "no paragraph")
        }
        Constraint::Bullets(bound) => {
            let all = bullets(text);
            numbered(all.iter().map(|one| first_few(one, 1)), *bound, "no bullet point")
        }
        Constraint::Placeholders(least) => {
            let all = placeholders(text);
            let quoted = all.iter().map(|place| {
                plain(&beginning(text.get(place.clone()).unwrap_or_default(), QUOTED_MAX))
            });
            numbered(quoted, Bound::AtLeast(*least), "no blank in square brackets")
        }
        Constraint::Json => {
            format!("begins {}, ends {}", plain(&beginning(text, 8)), last_character(text))
        }
        Constraint::Title => title(text),
        Constraint::Postscript(marker) => match places(text, marker, false).last() {
            Some(place) => {
                let rest = text.get(place.start..).unwrap_or_default();
                let line = rest.lines().next().unwrap_or_default();
                plain(&beginning(line, QUOTED_MAX))
            }
            None => format!("no {marker}"),
        },
        Constraint::Lowercase => letter(text, char::is_uppercase, "capital letter"),
        Constraint::Capitals => letter(text, char::is_lowercase, "small letter"),
        Constraint::NoComma => match text.find(',') {
            Some(at) => format!("comma in: {}", around(text, at..at + 1)),
            None => "no comma".to_owned(),
        },
        Constraint::Ending(_) => format!("ends: {}", last_few(text, 6)),
        Constraint::Quotation => {
            let with = |is: bool| if is { "with" } else { "without" };
            let (first, last) = (text.starts_with('"'), text.len() > 1 && text.ends_with('"'));
            format!("begins {} a quotation mark, ends {} one", with(first), with(last))
        }
    }
}

/// As many as it takes to see whether a bound holds, and no more than can be listed.
fn looked_at(bound: Bound) -> usize {
    let enough = match bound {
        Bound::AtLeast(n) => n,
        Bound::LessThan(n) => n,
        Bound::Exactly(n) => n + 1,
    };
    enough.clamp(1, LISTED_MAX)
}

/// `1 The, 2 A, 3 You`, and whether there are more.
fn numbered(things: impl Iterator<Item = String>, bound: Bound, none: &str) -> String {
    let all: Vec<String> = things.collect();
    let most = looked_at(bound);
    let listed = (1..).zip(all.iter().take(most)).map(|(n, thing)| format!("{n} {thing}"));
    let listed: Vec<String> = listed.collect();
    match (listed.is_empty(), all.len() > most) {
        (true, _) => none.to_owned(),
        (false, true) => format!("{}, more", listed.join(", ")),
        (false, false) => listed.join(", "),
    }
}

/// `10 was, 20 over, 30 again`: the words that stand there, on the way to the one that a bound speaks of.
/// A small model cannot count a text, and can find its way through it.
fn counted(words: &[&str], bound: Bound) -> String {
    let (Bound::AtLeast(wanted) | Bound::LessThan(wanted) | Bound::Exactly(wanted)) = bound;
    let step = wanted.div_ceil(STEPS_MAX).next_multiple_of(STEP).max(STEP);
    let passed = (1..).map(|n| n * step).take_while(|at| *at < wanted);
    let one_more = matches!(bound, Bound::Exactly(_)).then_some(wanted + 1);
    let marks = passed.chain([wanted]).chain(one_more);
    let found = marks.filter_map(|at| Some(format!("{at} {}", words.get(at.checked_sub(1)?)?)));
    let found: Vec<String> = found.collect();
    match found.is_empty() {
        true => format!("fewer than {}", step.min(wanted)),
        false => found.join(", "),
    }
}

/// Where something stands, each with its neighbours.
fn listed(text: &str, places: Vec<Range<usize>>, what: &str, bound: Bound) -> String {
    let each = places.into_iter().map(|place| word_at(text, place));
    numbered(each, bound, &format!("no {what}"))
}

fn last_character(text: &str) -> String {
    plain(&text.chars().last().map(String::from).unwrap_or_default())
}

fn title(text: &str) -> String {
    let of_line = |line: &str| {
        let (from, to) = line.find("<<").zip(line.rfind(">>")).filter(|(from, to)| from < to)?;
        Some(plain(&beginning(line.get(from..to + 2)?, QUOTED_MAX)))
    };
    text.lines().find_map(of_line).unwrap_or_else(|| "no <<title>>".to_owned())
}

/// The first word with such a letter.
fn letter(text: &str, is: fn(char) -> bool, what: &str) -> String {
    let found = text.split_whitespace().find(|word| word.contains(is));
    found.map_or_else(|| format!("no {what}"), |word| format!("{what} in: {}", plain(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_is_named() {
        for (name, value, response, wanted) in [
            ("punctuation:no_comma", "", "In the end, we go", "comma in: the end, we"),
            ("punctuation:no_comma", "", "We go", "no comma"),
            ("keywords:existence", "apple, pear", "An Apple pie", "apple in: Apple pie; no pear"),
            ("keywords:forbidden_words", "the, a", "Go to the end", "the in: the end"),
            ("keywords:forbidden_words", "the, a", "Go", "no the, no a"),
            ("keywords:frequency", "so at least 2", "So, so and so", "1 So, 2 so, more"),
            ("keywords:letter_frequency", "q at least 1", "plain", "no q"),
            ("length_constraints:number_words", "less than 20", "one two three", "fewer than 5"),
            ("length_constraints:number_words", "at least 3", "It isn't", "3 t"),
            ("length_constraints:number_words", "2", "one, two three", "2 two, 3 three"),
            ("length_constraints:number_words", "at least 6", "a b c d e f g", "5 e, 6 f"),
            (
                "length_constraints:number_sentences",
                "less than 3",
                "One it is. Two. Three.",
                "1 One it, 2 Two., 3 Three.",
            ),
            ("length_constraints:number_paragraphs", "2", "a b c\n***\nd", "1 a b, 2 d"),
            (
                "detectable_format:number_bullet_lists",
                "1",
                "* One x\n- Two\n* Three",
                "1 One, 2 Two, more",
            ),
            (
                "detectable_content:number_placeholders",
                "at least 2",
                "[name] of [\"place\"]",
                "1 [name], 2 ['place']",
            ),
            (
                "detectable_content:postscript",
                "P.S.",
                "Bye.\np.s. call \"me\"\nx",
                "p.s. call 'me'",
            ),
            ("detectable_content:postscript", "P.S.", "Bye.", "no P.S."),
            ("detectable_format:title", "", "<<On fruit>>\nIt", "<<On fruit>>"),
            ("detectable_format:title", "", "<On fruit>", "no <<title>>"),
            ("detectable_format:json_format", "", "{\"a\": 1}", "begins {'a': 1}, ends }"),
            ("change_case:english_lowercase", "", "all is Well", "capital letter in: Well"),
            ("change_case:english_capital", "", "ALL 1", "no small letter"),
            ("startend:end_checker", "The end.", "a b c d e f g", "ends: b c d e f g"),
            ("startend:quotation", "", "\"all\"", "begins with a quotation mark, ends with one"),
            ("startend:quotation", "", "all", "begins without a quotation mark, ends without one"),
        ] {
            let constraint = Constraint::of(name, value).expect(name);
            assert_eq!(found(&constraint, response), wanted, "{name} {value} {response:?}");
            assert!(evidence(&constraint, response).ends_with('.'), "{name} {value} {response:?}");
            let empty = evidence(&constraint, "");
            assert!(!empty.is_empty() && !empty.contains('\n'), "{name}: {empty:?}");
        }
    }
}
