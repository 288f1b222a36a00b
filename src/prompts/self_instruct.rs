//! Self-Instruct (arXiv 2212.10560): a numbered list of demonstrations that the model goes on
//! with, and the filters of the original implementation (yizhongw/self-instruct).
//!
//! Departures: Self-Instruct writes instructions first and their inputs in a second step; here a
//! prompt is what is written, so a task must have the input that it speaks of ([`super::request`]).
//! Its filters know English; here lengths, likeness and first letters are those of any script.

use super::alike::Known;
use super::list::ListItem;
use super::request;
use super::sentences::is_one_sentence;
use crate::stats::{is_unspaced, units};

/// Most alike that a new prompt may be to any known one.
const ROUGE_L_MAX: f64 = 0.7;
/// Words of a task; in scripts without spaces up to twice as many characters.
const WORDS: std::ops::RangeInclusive<usize> = 4..=150;
/// Longest demonstration, in words: tasks of a line, which is what the list asks for.
const DEMONSTRATION_WORDS: usize = 60;
/// Things a text model cannot do.
const KEYWORDS: [&str; 13] = [
    "image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps",
    "draw", "plot", "go to",
];
/// What only a body can do, where a sentence that is all of the task begins with it.
const BODILY: [&str; 27] = [
    "read a",
    "read your",
    "watch",
    "listen to",
    "visit",
    "eat",
    "drink",
    "buy",
    "walk",
    "meet",
    "wear",
    "drive",
    "attend",
    "take a",
    "have a",
    "get a",
    "tell someone",
    "help someone",
    "ask someone",
    "ask your",
    "ask a",
    "encourage your",
    "invite your",
    "talk to",
    "give your",
    "help your",
    "tell your",
];
/// What the writer is asked. Its own turn is then begun with the demonstrations.
pub const REQUEST: &str = "Come up with a series of tasks.";

/// The demonstrations as a list, with the next number open.
pub fn open_list(demonstrations: &[String]) -> String {
    let mut text = String::new();
    for (n, task) in demonstrations.iter().enumerate() {
        let line = task.split_whitespace().collect::<Vec<_>>().join(" ");
        text.push_str(&format!("{}. {line}\n", n + 1));
    }
    text.push_str(&format!("{}.", demonstrations.len() + 1));
    text
}

/// Whether a known prompt shows what is wanted: one line, whole, with all that it speaks of. A task
/// with its input on lines of its own would be taken for the task alone.
pub fn demonstrates(prompt: &str) -> bool {
    let line = !prompt.trim().contains('\n');
    line && length(prompt) <= DEMONSTRATION_WORDS && request::check(prompt.trim()).is_ok()
}

/// Whether a task passes the filters; the reason when it does not.
///
/// # Errors
/// The reason, for the log.
pub fn accept(item: &ListItem, known: &Known) -> Result<(), String> {
    let task = item.text.as_str();
    if item.cut {
        return Err("cut off by prompts.max_new_tokens".to_owned());
    }
    within_length(task)?;
    let lower = task.to_lowercase();
    if let Some(word) = KEYWORDS.iter().find(|keyword| holds_word(&lower, keyword)) {
        return Err(format!("asks for something a text model cannot do: {word}"));
    }
    if lower.starts_with("write a program") {
        return Err("asks for a program".to_owned());
    }
    let begins = |deed: &&&str| {
        let rest = lower.strip_prefix(**deed);
        rest.is_some_and(|rest| rest.starts_with(' ') && is_one_sentence(&lower))
    };
    if let Some(deed) = BODILY.iter().find(begins).filter(|_| !lower.contains(['?', ':'])) {
        return Err(format!("asks for something a text model cannot do: {deed}"));
    }
    request::check(task)?;
    if let Some((alike, other)) = known.resembles(task, ROUGE_L_MAX) {
        return Err(format!("ROUGE-L {alike:.2} with {:?}", shortened(other)));
    }
    Ok(())
}

fn is_mostly_unspaced(text: &str) -> bool {
    let letters = || text.chars().filter(|c| c.is_alphanumeric());
    letters().filter(|c| is_unspaced(*c)).count() * 2 > letters().count()
}

/// Words as Self-Instruct counts them, or characters in scripts without spaces.
fn length(text: &str) -> usize {
    match is_mostly_unspaced(text) {
        true => units(text).len(),
        false => text.split_whitespace().count(),
    }
}

fn within_length(task: &str) -> Result<(), String> {
    let (count, (least, most)) = (length(task), (*WORDS.start(), *WORDS.end()));
    let (most, what) =
        if is_mostly_unspaced(task) { (2 * most, "characters") } else { (most, "words") };
    match (least..=most).contains(&count) {
        true => Ok(()),
        false => Err(format!("{count} {what}, not {least} to {most}")),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

fn holds_word(text: &str, word: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    text.match_indices(word).any(|(at, found)| {
        let before = text.get(..at).and_then(|t| t.chars().next_back());
        let after = text.get(at + found.len()..).and_then(|t| t.chars().next());
        edge(before) && edge(after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(text: &str) -> ListItem {
        ListItem { text: text.to_owned(), cut: false }
    }

    #[test]
    fn the_list_is_left_open() {
        let shots = ["Name a\nfruit.".to_owned(), "Add 2 and 3.".to_owned()];
        assert_eq!(open_list(&shots), "1. Name a fruit.\n2. Add 2 and 3.\n3.");
    }

    #[test]
    fn every_filter_has_its_reason() {
        let mut known = Known::default();
        known.add("Explain why the sky looks blue at noon");
        known.add("解释为什么天空是蓝色的。");
        for (task, reason) in [
            ("Too short", "2 words"),
            ("写诗", "2 characters"),
            ("Draw me a house on a hill", "draw"),
            ("Describe the map of Rome in words", "map"),
            ("Write a program that sorts a list", "program"),
            ("Read a book by a woman named Emma.", "cannot do: read a"),
            ("Help someone with their homework.", "cannot do: help someone"),
            ("Can you help me with a project I am working on?", "does not have"),
            ("- list five kinds of apples", "begins with"),
            ("Explain why the sky looks blue at noon today", "ROUGE-L"),
            ("请解释为什么天空是蓝色的", "ROUGE-L"),
            ("Summarize the following article.", "does not have"),
        ] {
            let found = accept(&item(task), &known).unwrap_err();
            assert!(found.contains(reason), "{task}: {found}");
        }
        for task in [
            "Give three reasons to drink more water",
            "Summarise the graphic novel Maus in a line",
            "Read a book in your mind. What does it say?",
            "Help me with a plan for learning Spanish.",
            "Überlege dir einen guten Namen dafür",
            "写一首诗",
            "Объясни, почему трава зелёная.",
            "¿Cuál es la capital de España?",
        ] {
            assert_eq!(accept(&item(task), &known), Ok(()), "{task}");
        }
        let cut = ListItem { cut: true, ..item("Give three reasons to drink more") };
        assert!(accept(&cut, &known).unwrap_err().contains("cut off"));
        assert!(accept(&item(&"word ".repeat(151)), &known).unwrap_err().contains("151 words"));
    }

    #[test]
    fn demonstrations_are_whole_tasks_of_a_line() {
        assert!(demonstrates("Name three salty snacks."));
        assert!(!demonstrates("Summarize the article.\n\nIt rained today."));
        assert!(!demonstrates("Summarize the following article."));
        assert!(!demonstrates(&"word ".repeat(80)));
    }
}
