//! Constraints that a program can check, named as IFEval names them (arXiv 2311.07911) and decided
//! as its program decides: the corpus `tests/golden/rubrics/ifeval.jsonl` is its verdicts. The value
//! of each is written in words: `at least 50`, `less than 3`, `apples, pears`.
//!
//! Other than there: keywords are plain text, not regular expressions; of a text in capitals or small
//! letters the language is not asked; sentences and words in capitals are counted without nltk, and a
//! language is told by its script and its commonest words ([`super::language`]). These are approximate.

use super::language;

/// How a count compares.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtLeast(usize),
    LessThan(usize),
    Exactly(usize),
}

impl Bound {
    fn holds(self, count: usize) -> bool {
        match self {
            Bound::AtLeast(n) => count >= n,
            Bound::LessThan(n) => count < n,
            Bound::Exactly(n) => count == n,
        }
    }
}

fn bound(value: &str) -> Result<Bound, String> {
    let value = value.trim().to_ascii_lowercase();
    let (kind, number): (fn(usize) -> Bound, &str) = match value.as_str() {
        v if v.starts_with("at least ") => (Bound::AtLeast, &v["at least ".len()..]),
        v if v.starts_with("less than ") => (Bound::LessThan, &v["less than ".len()..]),
        v => (Bound::Exactly, v),
    };
    let number = number
        .trim()
        .parse()
        .map_err(|_| format!("{value:?} is no count: write `at least 3`, `less than 3` or `3`"))?;
    Ok(kind(number))
}

/// `word at least 3`, `two words less than 3`, `word 3`: the words and the bound.
fn word_bound(value: &str) -> Result<(&str, Bound), String> {
    let value = value.trim();
    let relation = [" at least ", " less than "].iter().filter_map(|one| value.rfind(one)).max();
    let at = relation.or_else(|| value.rfind(char::is_whitespace));
    let (word, rest) = at
        .map(|at| value.split_at(at))
        .ok_or_else(|| format!("{value:?} is no frequency: write `word at least 3`"))?;
    Ok((word.trim(), bound(rest)?))
}

fn list(value: &str) -> Result<Vec<String>, String> {
    let words: Vec<String> = value
        .split(',')
        .map(|word| word.trim().to_lowercase())
        .filter(|word| !word.is_empty())
        .collect();
    if words.is_empty() {
        return Err(format!("{value:?} holds no words: write them with commas between"));
    }
    Ok(words)
}

fn in_a_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn words(text: &str) -> usize {
    text.split(|c: char| !in_a_word(c)).filter(|word| !word.is_empty()).count()
}

/// How often `wanted` is in the text, also within words.
fn occurrences(text: &str, wanted: &str) -> usize {
    text.to_lowercase().matches(&wanted.to_lowercase()).count()
}

/// Whether `wanted` is in the text and no word goes on before or after it.
fn as_words(text: &str, wanted: &str) -> bool {
    let (text, wanted) = (text.to_lowercase(), wanted.to_lowercase());
    let found = text.match_indices(&wanted).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + wanted.len()..].chars().next();
        ![before, after].into_iter().flatten().any(in_a_word)
    });
    found
}

/// Ends of sentences: `.`, `!` or `?` runs followed by space or the end, and a last one without.
fn sentences(text: &str) -> usize {
    let mut count = 0;
    let mut open = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if matches!(c, '.' | '!' | '?') {
            let ends =
                chars.peek().is_none_or(|next| next.is_whitespace() || "\"')".contains(*next));
            if open && ends {
                count += 1;
                open = false;
            }
        } else if c.is_alphanumeric() {
            open = true;
        }
    }
    count + usize::from(open)
}

fn bullets(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let dashes = lines.iter().filter(|line| line.starts_with('-')).count();
    let (mut stars, mut at) = (0, 0);
    while let Some(line) = lines.get(at) {
        at += 1;
        match line.strip_prefix('*') {
            // A star alone takes the next line with it.
            Some("") if at < lines.len() => (stars, at) = (stars + 1, at + 1),
            Some(rest) if !rest.is_empty() && !rest.starts_with('*') => stars += 1,
            _ => {}
        }
    }
    dashes + stars
}

/// Parts in square brackets that begin and end on one line.
fn placeholders(text: &str) -> usize {
    let of_line = |mut line: &str| {
        let mut count = 0;
        while let Some((_, rest)) = line.split_once('[') {
            let Some((_, rest)) = rest.split_once(']') else { break };
            (count, line) = (count + 1, rest);
        }
        count
    };
    text.lines().map(of_line).sum()
}

fn title(text: &str) -> bool {
    text.lines().any(|line| {
        let inside = line.find("<<").zip(line.rfind(">>")).filter(|(from, to)| from + 2 < *to);
        inside.is_some_and(|(from, to)| {
            let inside = &line[from..to + 2];
            !inside.trim_start_matches('<').trim_end_matches('>').trim().is_empty()
        })
    })
}

/// Parts with a mark between them; none when one in the middle is empty.
fn parts<'a>(text: &'a str, mark: &str) -> Option<Vec<&'a str>> {
    let all: Vec<&str> = text.split(mark).map(str::trim).collect();
    let middle = all.get(1..all.len() - 1).unwrap_or_default();
    let whole = middle.iter().all(|part| !part.is_empty());
    whole.then(|| all.into_iter().filter(|part| !part.is_empty()).collect())
}

/// `P.S.` also as `p. s.`, anywhere.
fn postscript(text: &str, marker: &str) -> bool {
    let text = text.to_lowercase();
    let dotted = |letters: &[&str], last: &str| {
        text.match_indices(letters[0]).any(|(at, _)| {
            let mut rest = &text[at..];
            for (place, letter) in letters.iter().enumerate() {
                if place > 0 {
                    rest = rest.strip_prefix(char::is_whitespace).unwrap_or(rest);
                }
                let Some(after) = rest.strip_prefix(letter) else { return false };
                rest = after;
            }
            rest.starts_with(last)
        })
    };
    match marker {
        "P.S." => dotted(&["p.", "s"], "."),
        "P.P.S" => dotted(&["p.", "p.", "s"], ""),
        "" => false,
        other => text.contains(&other.to_lowercase()),
    }
}

fn json(text: &str) -> bool {
    let text = text.trim();
    let text = ["```json", "```Json", "```JSON", "```"]
        .iter()
        .find_map(|fence| text.strip_prefix(fence))
        .map_or(text, |rest| rest.trim_end().strip_suffix("```").unwrap_or(rest));
    serde_json::from_str::<serde_json::Value>(text.trim()).is_ok()
}

/// Words without a small letter; `U.S.` and `ROCK-SOLID` are one.
fn capital_words(text: &str) -> usize {
    let capital =
        |word: &&str| word.chars().any(char::is_uppercase) && !word.chars().any(char::is_lowercase);
    text.split_whitespace().filter(capital).count()
}

/// Parts that stand between stars, once for `*a*` and twice for `**a**`, as IFEval's two searches count.
fn highlights(text: &str) -> usize {
    text.lines().map(|line| starred(line, "*") + starred(line, "**")).sum()
}

/// Parts of a line between two marks that hold no star and something beside space.
fn starred(line: &str, mark: &str) -> usize {
    let (mut count, mut rest) = (0, line);
    while let Some(at) = rest.find(mark) {
        let after = &rest[at + mark.len()..];
        let inside = after.find('*').unwrap_or(after.len());
        match after[inside..].strip_prefix(mark) {
            Some(behind) => {
                count += usize::from(!after[..inside].trim().is_empty());
                rest = behind;
            }
            // The star that stands in the way may open another one.
            None => rest = &rest[at + rest[at..].chars().next().map_or(1, char::len_utf8)..],
        }
    }
    count
}

/// How often the splitter is followed by a number: `SECTION 1`, `Day2`.
fn sections(text: &str, splitter: &str) -> usize {
    let numbered = |(at, _): &(usize, &str)| {
        let rest = &text[at + splitter.len()..];
        rest.strip_prefix(char::is_whitespace).unwrap_or(rest).starts_with(|c: char| c.is_numeric())
    };
    if splitter.is_empty() { 0 } else { text.match_indices(splitter).filter(numbered).count() }
}

/// `2 of 5 word`: of so many paragraphs the one that begins with a word.
fn paragraph_begins(value: &str, text: &str) -> Result<bool, String> {
    let bad = || format!("{value:?} is no paragraph: write `2 of 5 word`");
    let mut parts = value.split_whitespace();
    let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok());
    let nth = number().filter(|nth| *nth > 0).ok_or_else(bad)?;
    if value.split_whitespace().nth(1) != Some("of") {
        return Err(bad());
    }
    let mut rest = value.split_whitespace().skip(2);
    let wanted: usize = rest.next().and_then(|part| part.parse().ok()).ok_or_else(bad)?;
    let word = rest.next().ok_or_else(bad)?.to_lowercase();
    let all: Vec<&str> = text.split("\n\n").collect();
    let filled = all.iter().filter(|paragraph| !paragraph.trim().is_empty()).count();
    let Some(paragraph) = all.get(nth - 1).filter(|_| nth <= filled) else { return Ok(false) };
    let first = paragraph.split_whitespace().next().unwrap_or_default();
    let first = first.trim_start_matches('\'').trim_start_matches('"');
    let end = first.find(['.', ',', '?', '!', '\'', '"']).unwrap_or(first.len());
    Ok(filled == wanted && first[..end].to_lowercase() == word)
}

/// What IFEval lets a constrained response be.
const OPTIONS: [&str; 3] = ["My answer is yes.", "My answer is no.", "My answer is maybe."];

/// Whether a response meets a constraint.
///
/// Errors: the constraint is not known, or its value makes no sense; both are the prompt's fault.
pub fn holds(name: &str, value: &str, task: &str, response: &str) -> Result<bool, String> {
    let text = response.trim();
    let lower = || text.to_lowercase();
    // A prompt may have two of a kind: `keywords:frequency#2`.
    let name = name.split_once('#').map_or(name, |(name, _)| name);
    Ok(match name {
        "keywords:existence" => list(value)?.iter().all(|word| occurrences(text, word) > 0),
        "keywords:forbidden_words" => !list(value)?.iter().any(|word| as_words(text, word)),
        "keywords:frequency" => {
            let (word, bound) = word_bound(value)?;
            bound.holds(occurrences(text, word))
        }
        "keywords:letter_frequency" => {
            let (letter, bound) = word_bound(value)?;
            bound.holds(lower().matches(&letter.to_lowercase()).count())
        }
        "length_constraints:number_words" => bound(value)?.holds(words(text)),
        "length_constraints:number_sentences" => bound(value)?.holds(sentences(text)),
        "length_constraints:number_paragraphs" => {
            let bound = bound(value)?;
            parts(text, "***").is_some_and(|parts| bound.holds(parts.len()))
        }
        "detectable_format:number_bullet_lists" => bound(value)?.holds(bullets(text)),
        "detectable_format:json_format" => json(text),
        "detectable_format:title" => title(text),
        "detectable_content:number_placeholders" => {
            // IFEval states a least number.
            match bound(value)? {
                Bound::Exactly(n) => placeholders(text) >= n,
                bound => bound.holds(placeholders(text)),
            }
        }
        "detectable_content:postscript" => postscript(text, value.trim()),
        "change_case:english_lowercase" => {
            text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)
        }
        "change_case:english_capital" => {
            text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)
        }
        "change_case:capital_word_frequency" => bound(value)?.holds(capital_words(text)),
        "punctuation:no_comma" => !text.contains(','),
        "startend:end_checker" => {
            let end = value.trim().to_lowercase();
            lower().trim_matches('"').ends_with(&end)
        }
        "startend:quotation" => text.len() > 1 && text.starts_with('"') && text.ends_with('"'),
        "detectable_format:number_highlighted_sections" => match bound(value)? {
            Bound::Exactly(n) => highlights(text) >= n,
            bound => bound.holds(highlights(text)),
        },
        "detectable_format:multiple_sections" => {
            let (splitter, least) = word_bound(value)?;
            match least {
                Bound::Exactly(n) => sections(text, splitter) >= n,
                bound => bound.holds(sections(text, splitter)),
            }
        }
        "detectable_format:constrained_response" => {
            OPTIONS.iter().any(|option| text.contains(option))
        }
        "length_constraints:nth_paragraph_first_word" => paragraph_begins(value, response)?,
        "language:response_language" => language::is_in(text, value)?,
        "combination:two_responses" => {
            let parts = parts(text, "******").unwrap_or_default();
            matches!(parts.as_slice(), [a, b] if a != b)
        }
        "combination:repeat_prompt" => {
            let wanted = if value.trim().is_empty() { task } else { value };
            lower().starts_with(&wanted.trim().to_lowercase())
        }
        _ => return Err(format!("{name} is no constraint that this rubric knows")),
    })
}

/// Whether a field of the item is a constraint at all: they have a family and a name. What other rubrics
/// read may name one (`requirement.punctuation:no_comma`).
pub fn is_constraint(name: &str) -> bool {
    name.split_once(':').is_some_and(|(family, _)| !family.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_constraint_are_no_constraint() {
        for (name, wanted) in [
            ("punctuation:no_comma", true),
            ("requirement.punctuation:no_comma", false),
            ("requirement", false),
            ("weight.a", false),
        ] {
            assert_eq!(is_constraint(name), wanted, "{name}");
        }
    }

    /// Outcomes stated by hand.
    #[test]
    fn constraints() {
        let long = "word ".repeat(50);
        for (name, value, response, expected) in [
            ("keywords:existence", "apple, pear", "An Apple and a pear.", true),
            ("keywords:existence", "apple, pear", "Apples and a plum.", false),
            ("keywords:existence", "good day", "A Good day, sir.", true),
            ("keywords:forbidden_words", "bad", "Badly put.", true),
            ("keywords:forbidden_words", "bad", "It is BAD!", false),
            ("keywords:frequency", "so at least 2", "So, so.", true),
            ("keywords:frequency", "so less than 2", "So, so.", false),
            ("keywords:frequency", "good day at least 2", "Good day, a good day.", true),
            ("keywords:letter_frequency", "e at least 3", "See me", true),
            ("keywords:letter_frequency", "! less than 2", "Oh!!", false),
            ("length_constraints:number_words", "at least 50", &long, true),
            ("length_constraints:number_words", "less than 50", &long, false),
            ("length_constraints:number_words", "less than 4", "It isn't long", false),
            ("length_constraints:number_sentences", "2", "One. Two!", true),
            ("length_constraints:number_sentences", "less than 2", "Version 1.5 is out.", true),
            ("length_constraints:number_sentences", "at least 2", "Really?! Yes", true),
            ("length_constraints:number_paragraphs", "2", "a\n***\nb", true),
            ("detectable_format:number_bullet_lists", "2", "* a\n* b\n", true),
            ("detectable_format:number_bullet_lists", "2", "- a\n- b\n- c", false),
            ("detectable_format:json_format", "", "```json\n{\"a\": [1]}\n```", true),
            ("detectable_format:json_format", "", "{a: 1}", false),
            ("detectable_format:title", "", "<<On fruit>>\nIt is good.", true),
            ("detectable_format:title", "", "<< >>", false),
            ("detectable_content:number_placeholders", "2", "[name] of [place], [date]", true),
            ("detectable_content:number_placeholders", "2", "[name] and [\n]", false),
            ("detectable_content:postscript", "P.S.", "Bye.\np.s. call me", true),
            ("detectable_content:postscript", "P.S.", "Bye. Not here", false),
            ("change_case:english_lowercase", "", "all small, 1 two", true),
            ("change_case:english_lowercase", "", "Not all", false),
            ("change_case:english_capital", "", "LOUD 1!", true),
            ("change_case:capital_word_frequency", "at least 2", "NASA and ESA met", true),
            ("punctuation:no_comma", "", "a b", true),
            ("punctuation:no_comma", "", "a, b", false),
            ("startend:end_checker", "The end.", "So it goes. the END.", true),
            ("startend:end_checker", "The end.", "The end. No.", false),
            ("startend:quotation", "", "\"all of it\"", true),
            ("startend:quotation", "", "\"", false),
            ("combination:two_responses", "", "a\n******\nb", true),
            ("combination:two_responses", "", "a\n******\na", false),
            ("combination:repeat_prompt", "", "Say it. I say it.", true),
            ("detectable_format:number_highlighted_sections", "2", "*a* and *b c*", true),
            ("detectable_format:number_highlighted_sections", "2", "*a* and * *", false),
            ("detectable_format:number_highlighted_sections", "2", "**a**", false),
            (
                "detectable_format:multiple_sections",
                "SECTION 2",
                "SECTION 1\na\nSECTION 2\nb",
                true,
            ),
            ("detectable_format:multiple_sections", "SECTION 2", "SECTION one\nSECTION 2", false),
            ("detectable_format:constrained_response", "", "I think. My answer is no.", true),
            ("detectable_format:constrained_response", "", "No.", false),
            (
                "length_constraints:nth_paragraph_first_word",
                "2 of 2 then",
                "First.\n\nThen, more",
                true,
            ),
            (
                "length_constraints:nth_paragraph_first_word",
                "2 of 3 then",
                "First.\n\nThen, more",
                false,
            ),
            ("length_constraints:nth_paragraph_first_word", "1 of 1 it", "'It's so", true),
            (
                "language:response_language",
                "de",
                "Das ist nicht so einfach und wir wissen es.",
                true,
            ),
            ("language:response_language", "de", "This is not so easy and we know it.", false),
            ("keywords:frequency#2", "so at least 2", "So, so.", true),
        ] {
            assert_eq!(
                holds(name, value, "Say it.", response),
                Ok(expected),
                "{name} {value} {response}"
            );
        }
        for (name, value) in [
            ("keywords:rhyme", "x"),
            ("length_constraints:number_words", "many"),
            ("keywords:frequency", "so"),
            ("length_constraints:nth_paragraph_first_word", "2 then"),
            ("language:response_language", "xx"),
            ("keywords:existence", " , "),
        ] {
            assert!(holds(name, value, "", "a").is_err(), "{name} {value}");
        }
    }
}
