//! Constraints that a program can check, named as IFEval names them (arXiv 2311.07911). The value
//! of each is written in words: `at least 50`, `less than 3`, `apples, pears`.

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

/// `word at least 3`: the word and the bound.
fn word_bound(value: &str) -> Result<(&str, Bound), String> {
    let (word, rest) = value
        .trim()
        .split_once(char::is_whitespace)
        .ok_or_else(|| format!("{value:?} is no frequency: write `word at least 3`"))?;
    Ok((word, bound(rest)?))
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

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '\''))
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

/// How often `wanted`, which may be several words, is in the text as whole words.
fn occurrences(text: &str, wanted: &str) -> usize {
    let (text, wanted): (Vec<String>, Vec<String>) =
        (words(text).collect(), words(wanted).collect());
    if wanted.is_empty() {
        return 0;
    }
    text.windows(wanted.len()).filter(|window| *window == wanted.as_slice()).count()
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
    let bullet = |line: &str| {
        let line = line.trim_start();
        ["* ", "- "].iter().any(|mark| line.starts_with(mark))
    };
    text.lines().filter(|line| bullet(line)).count()
}

/// Parts in square brackets.
fn placeholders(text: &str) -> usize {
    text.split('[').skip(1).filter(|rest| rest.find(']').is_some_and(|end| end > 0)).count()
}

fn title(text: &str) -> bool {
    text.split("<<").skip(1).any(|rest| {
        rest.split_once(">>")
            .is_some_and(|(title, _)| !title.trim().is_empty() && !title.contains('\n'))
    })
}

fn json(text: &str) -> bool {
    let text = text.trim();
    let text = ["```json", "```Json", "```JSON", "```"]
        .iter()
        .find_map(|fence| text.strip_prefix(fence))
        .map_or(text, |rest| rest.trim_end().strip_suffix("```").unwrap_or(rest));
    serde_json::from_str::<serde_json::Value>(text.trim()).is_ok()
}

fn paragraphs(text: &str) -> usize {
    text.split("***").filter(|part| !part.trim().is_empty()).count()
}

fn capital_words(text: &str) -> usize {
    let capital = |word: &&str| {
        word.chars().any(char::is_alphabetic) && !word.chars().any(char::is_lowercase)
    };
    text.split(|c: char| !c.is_alphanumeric()).filter(capital).count()
}

/// Whether a response meets a constraint.
///
/// Errors: the constraint is not known, or its value makes no sense; both are the prompt's fault.
pub fn holds(name: &str, value: &str, task: &str, response: &str) -> Result<bool, String> {
    let text = response.trim();
    let lower = || text.to_lowercase();
    Ok(match name {
        "keywords:existence" => list(value)?.iter().all(|word| occurrences(text, word) > 0),
        "keywords:forbidden_words" => list(value)?.iter().all(|word| occurrences(text, word) == 0),
        "keywords:frequency" => {
            let (word, bound) = word_bound(value)?;
            bound.holds(occurrences(text, word))
        }
        "keywords:letter_frequency" => {
            let (letter, bound) = word_bound(value)?;
            bound.holds(lower().matches(&letter.to_lowercase()).count())
        }
        "length_constraints:number_words" => bound(value)?.holds(words(text).count()),
        "length_constraints:number_sentences" => bound(value)?.holds(sentences(text)),
        "length_constraints:number_paragraphs" => bound(value)?.holds(paragraphs(text)),
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
        "detectable_content:postscript" => lower().lines().any(|line| {
            let line = line.trim_start();
            line.starts_with(&value.trim().to_lowercase()) && !value.trim().is_empty()
        }),
        "change_case:english_lowercase" => !text.chars().any(char::is_uppercase),
        "change_case:english_capital" => !text.chars().any(char::is_lowercase),
        "change_case:capital_word_frequency" => bound(value)?.holds(capital_words(text)),
        "punctuation:no_comma" => !text.contains(','),
        "startend:end_checker" => {
            let end = value.trim().trim_matches('"').to_lowercase();
            lower().trim_matches('"').ends_with(&end)
        }
        "startend:quotation" => text.len() > 1 && text.starts_with('"') && text.ends_with('"'),
        "combination:two_responses" => {
            let parts: Vec<&str> = text.split("******").map(str::trim).collect();
            matches!(parts.as_slice(), [a, b] if !a.is_empty() && !b.is_empty() && a != b)
        }
        "combination:repeat_prompt" => {
            let wanted = if value.trim().is_empty() { task } else { value };
            lower().starts_with(&wanted.trim().to_lowercase())
        }
        _ => return Err(format!("{name} is no constraint that this rubric knows")),
    })
}

/// Whether a field of the item is a constraint at all: they have a family and a name.
pub fn is_constraint(name: &str) -> bool {
    name.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outcomes stated by hand.
    #[test]
    fn constraints() {
        let long = "word ".repeat(50);
        for (name, value, response, expected) in [
            ("keywords:existence", "apple, pear", "An Apple and a pear.", true),
            ("keywords:existence", "apple, pear", "Apples and a pear.", false),
            ("keywords:existence", "good day", "A Good  day, sir.", true),
            ("keywords:forbidden_words", "bad", "Badly put.", true),
            ("keywords:forbidden_words", "bad", "It is BAD!", false),
            ("keywords:frequency", "so at least 2", "So, so.", true),
            ("keywords:frequency", "so less than 2", "So, so.", false),
            ("keywords:letter_frequency", "e at least 3", "See me", true),
            ("keywords:letter_frequency", "! less than 2", "Oh!!", false),
            ("length_constraints:number_words", "at least 50", &long, true),
            ("length_constraints:number_words", "less than 50", &long, false),
            ("length_constraints:number_words", "less than 4", "It isn't long", true),
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
            ("detectable_content:number_placeholders", "2", "[name] and []", false),
            ("detectable_content:postscript", "P.S.", "Bye.\np.s. call me", true),
            ("detectable_content:postscript", "P.S.", "Bye. Not p.s. here", false),
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
            ("keywords:existence", " , "),
        ] {
            assert!(holds(name, value, "", "a").is_err(), "{name} {value}");
        }
    }
}
