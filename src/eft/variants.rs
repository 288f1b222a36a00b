//! Responses changed so that they meet a constraint, and such that just miss it: what a judge has to tell
//! apart, where a model's own answers rarely meet anything. Whether a change did what it was meant to do
//! is for the verifier to say, not for this.

use super::constraint::{Bound, Constraint};
use super::text::{bullets, placeholders, places, sentences};
use crate::dice::Dice;

const BLANKS: [&str; 6] = ["[name]", "[date]", "[place]", "[number]", "[time]", "[topic]"];
const POSTSCRIPTS: [&str; 5] =
    ["Thank you.", "Take care.", "Ask me more.", "This is only a beginning.", "Good luck!"];
const AFTERTHOUGHTS: [&str; 5] =
    ["Thanks.", "Bye!", "I hope this helps.", "Let me know.", "And so on."];

fn words_of(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A place among so many words that is neither before the first nor behind the last, where there is one.
fn inside(dice: &mut Dice, words: usize) -> usize {
    dice.range(1.min(words), words.saturating_sub(1).max(1).min(words))
}

/// The response, changed to meet a constraint; `None`: it cannot be.
pub(super) fn meeting(constraint: &Constraint, response: &str, dice: &mut Dice) -> Option<String> {
    let text = response.trim();
    let mut words = words_of(text);
    if words.is_empty() {
        return None;
    }
    Some(match constraint {
        Constraint::Words(wanted) => {
            for word in wanted {
                let at = inside(dice, words.len());
                words.insert(at, word.clone());
            }
            words.join(" ")
        }
        Constraint::NotWords(unwanted) => without(text, unwanted),
        Constraint::WordTimes(word, bound) | Constraint::LetterTimes(word, bound) => {
            as_often(text, word, *bound, dice)
        }
        Constraint::WordCount(bound) => as_long(&words, *bound, dice)?,
        Constraint::Sentences(bound) => {
            let all = sentences(text);
            let kept = match *bound {
                Bound::LessThan(n) => dice.range(1, n.saturating_sub(1).max(1)).min(all.len()),
                Bound::AtLeast(n) | Bound::Exactly(n) => n,
            };
            all.get(..kept)?.join(" ")
        }
        Constraint::Paragraphs(bound) => parts(text, bound.edge())?.join("\n***\n"),
        Constraint::Bullets(bound) => {
            let parts = parts(text, bound.edge())?;
            parts.iter().map(|part| format!("* {part}")).collect::<Vec<_>>().join("\n")
        }
        Constraint::Json => serde_json::json!({ "answer": text }).to_string(),
        Constraint::Title => {
            let head = words.get(..4.min(words.len()))?.join(" ");
            format!("<<{}>>\n\n{text}", head.trim_matches(|c: char| c.is_ascii_punctuation()))
        }
        Constraint::Placeholders(least) => {
            for _ in 0..*least {
                let (at, blank) = (inside(dice, words.len()), dice.pick(&BLANKS));
                words.insert(at, blank.to_owned());
            }
            words.join(" ")
        }
        Constraint::Postscript(marker) => {
            format!("{text}\n\n{marker} {}", dice.pick(&POSTSCRIPTS))
        }
        Constraint::Lowercase => text.to_lowercase(),
        Constraint::Capitals => text.to_uppercase(),
        Constraint::NoComma => text.replace(',', ""),
        Constraint::Ending(end) => format!("{text} {end}"),
        Constraint::Quotation => format!("\"{}\"", text.trim_matches('"')),
    })
}

/// The text with a part so often as a bound wants.
fn as_often(text: &str, part: &str, bound: Bound, dice: &mut Dice) -> String {
    let mut words = words_of(text);
    match bound {
        Bound::LessThan(_) => without_those_with(&words, part),
        Bound::AtLeast(n) | Bound::Exactly(n) => {
            for _ in places(text, part, false).len()..n {
                let at = inside(dice, words.len());
                words.insert(at, part.to_owned());
            }
            words.join(" ")
        }
    }
}

/// The first words, as many as a bound wants.
fn as_long(words: &[String], bound: Bound, dice: &mut Dice) -> Option<String> {
    let kept = match bound {
        Bound::LessThan(n) => {
            dice.range(5.min(n.saturating_sub(1)), n.saturating_sub(1)).min(words.len())
        }
        Bound::AtLeast(_) => return None,
        Bound::Exactly(n) => n,
    };
    Some(words.get(..kept)?.join(" "))
}

/// A response that meets a constraint, spoiled a little; `None`: there is no way known.
pub(super) fn near_miss(constraint: &Constraint, meets: &str, dice: &mut Dice) -> Option<String> {
    let text = meets.trim();
    let mut words = words_of(text);
    if words.len() < 6 {
        return None;
    }
    let at = inside(dice, words.len());
    Some(match constraint {
        Constraint::Words(wanted) => {
            let lost = dice.range(0, wanted.len() - 1);
            without_part(text, wanted.get(lost)?)
        }
        Constraint::NotWords(unwanted) => {
            let which = dice.range(0, unwanted.len() - 1);
            words.insert(at, unwanted.get(which)?.clone());
            words.join(" ")
        }
        Constraint::WordTimes(word, bound) | Constraint::LetterTimes(word, bound) => {
            not_so_often(text, word, *bound, dice)?
        }
        Constraint::WordCount(bound) => not_so_long(&words, *bound, dice)?,
        Constraint::Sentences(bound) => one_sentence_more(&words, *bound),
        Constraint::Paragraphs(_) => match dice.chance(0.5) {
            true => format!("{text}\n***\n{}", words.get(..4)?.join(" ")),
            false => text.replacen("\n***\n", " ", 1),
        },
        Constraint::Bullets(_) => match dice.chance(0.5) {
            true => format!("{text}\n* {}", words.get(1..5)?.join(" ")),
            false => without_a_bullet(text)?,
        },
        Constraint::Json => match dice.chance(0.5) {
            true => text.strip_suffix('}')?.to_owned(),
            false => format!("Here it is: {text}"),
        },
        Constraint::Title => match dice.chance(0.5) {
            true => text.replace("<<", "<").replace(">>", ">"),
            false => text.replacen("<<", "", 1).replacen(">>", "", 1),
        },
        Constraint::Placeholders(_) => {
            let first = placeholders(text).into_iter().next()?;
            format!("{}{}", text.get(..first.start)?.trim_end(), text.get(first.end..)?)
        }
        Constraint::Postscript(marker) => without_part(text, marker),
        Constraint::Lowercase => capitalised(&mut words, at)?,
        Constraint::Capitals => {
            let word = words.get_mut(at)?;
            *word = word.to_lowercase();
            words.join(" ")
        }
        Constraint::NoComma => {
            let word = words.get_mut(at)?;
            *word = format!("{},", word.trim_end_matches(['.', '!', '?']));
            words.join(" ")
        }
        Constraint::Ending(_) => match dice.chance(0.5) {
            true => format!("{text} {}", dice.pick(&AFTERTHOUGHTS)),
            false => words.get(..words.len() - 2)?.join(" "),
        },
        Constraint::Quotation => match dice.chance(0.5) {
            true => text.strip_prefix('"')?.to_owned(),
            false => text.strip_suffix('"')?.to_owned(),
        },
    })
}

/// The text with a part once too often, or once too seldom.
fn not_so_often(text: &str, part: &str, bound: Bound, dice: &mut Dice) -> Option<String> {
    match bound {
        Bound::LessThan(n) => {
            let mut words = words_of(text);
            for _ in places(text, part, false).len()..n {
                let at = inside(dice, words.len());
                words.insert(at, part.to_owned());
            }
            Some(words.join(" "))
        }
        Bound::AtLeast(n) | Bound::Exactly(n) => {
            Some(without_surplus(text, part, n.checked_sub(1)?))
        }
    }
}

/// A word too many, or a few too few.
fn not_so_long(words: &[String], bound: Bound, dice: &mut Dice) -> Option<String> {
    match bound {
        Bound::LessThan(n) => {
            let all: Vec<String> = words.iter().cycle().take(n + 1).cloned().collect();
            Some(all.join(" "))
        }
        Bound::AtLeast(n) | Bound::Exactly(n) => {
            Some(words.get(..n.checked_sub(dice.range(1, 6))?)?.join(" "))
        }
    }
}

/// A sentence more than a bound speaks of, of a few words each.
fn one_sentence_more(words: &[String], bound: Bound) -> String {
    let (Bound::LessThan(n) | Bound::AtLeast(n) | Bound::Exactly(n)) = bound;
    let short = |part: &[String]| {
        let part = part.join(" ");
        format!("{}.", part.trim_end_matches(|c: char| c.is_ascii_punctuation()))
    };
    let size = (words.len() / (n + 1)).clamp(2, 8);
    words.chunks(size).take(n + 1).map(short).collect::<Vec<_>>().join(" ")
}

fn capitalised(words: &mut [String], at: usize) -> Option<String> {
    let word = words.get_mut(at)?;
    let mut rest = word.chars();
    let first = rest.next()?;
    *word = first.to_uppercase().chain(rest).collect();
    Some(words.join(" "))
}

/// So many parts of about the same length, of whole sentences where there are enough, else of words.
fn parts(text: &str, count: usize) -> Option<Vec<String>> {
    let text = text.replace("***", "").replace("* ", "").replace("- ", "");
    let sentences: Vec<String> = sentences(&text).into_iter().map(str::to_owned).collect();
    let pieces = if sentences.len() >= count { sentences } else { words_of(&text) };
    if count == 0 || pieces.len() < count {
        return None;
    }
    let part = |n: usize| {
        let (from, to) = (n * pieces.len() / count, (n + 1) * pieces.len() / count);
        pieces.get(from..to).unwrap_or_default().join(" ").replace('\n', " ")
    };
    Some((0..count).map(part).collect())
}

fn without(text: &str, unwanted: &[String]) -> String {
    let kept = |word: &&str| {
        let bare = word.to_lowercase();
        let bare = bare.trim_matches(|c: char| !c.is_alphanumeric());
        unwanted.iter().all(|unwanted| {
            !bare.split(|c: char| !c.is_alphanumeric()).any(|part| part == unwanted.to_lowercase())
        })
    };
    text.split_whitespace().filter(kept).collect::<Vec<_>>().join(" ")
}

fn without_those_with(words: &[String], part: &str) -> String {
    let part = part.to_lowercase();
    let kept = words.iter().filter(|word| !word.to_lowercase().contains(&part));
    kept.cloned().collect::<Vec<_>>().join(" ")
}

/// The text without a part, wherever it stands.
fn without_part(text: &str, part: &str) -> String {
    without_surplus(text, part, 0)
}

/// The text in which a part stands no more than so often.
fn without_surplus(text: &str, part: &str, kept: usize) -> String {
    let (mut left, mut from) = (String::with_capacity(text.len()), 0);
    for place in places(text, part, false).into_iter().skip(kept) {
        left.push_str(text.get(from..place.start).unwrap_or_default());
        from = place.end;
    }
    left.push_str(text.get(from..).unwrap_or_default());
    left
}

fn without_a_bullet(text: &str) -> Option<String> {
    let last = bullets(text).last().copied()?.to_owned();
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().rposition(|line| line.ends_with(&last))?;
    let kept = lines.iter().enumerate().filter(|(line, _)| *line != at).map(|(_, line)| *line);
    Some(kept.collect::<Vec<_>>().join("\n"))
}
