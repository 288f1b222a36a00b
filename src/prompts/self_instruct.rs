//! Self-Instruct (arXiv 2212.10560): a numbered list of demonstrations that the model goes on
//! with, and the filters of the original implementation (yizhongw/self-instruct).

use crate::stats::rouge_l;

/// Most alike that a new prompt may be to any known one.
const ROUGE_L_MAX: f64 = 0.7;
/// Things a text model cannot do.
const KEYWORDS: [&str; 13] = [
    "image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps",
    "draw", "plot", "go to",
];

/// What the model is asked: the demonstrations as a list, with the next number open.
pub fn few_shot_prompt(demonstrations: &[String]) -> String {
    let mut text = String::from("Come up with a series of tasks:\n\n");
    for (n, task) in demonstrations.iter().enumerate() {
        let line = task.split_whitespace().collect::<Vec<_>>().join(" ");
        text.push_str(&format!("{}. {line}\n", n + 1));
    }
    text.push_str(&format!("{}.", demonstrations.len() + 1));
    text
}

/// The tasks of a reply that goes on with the list: split at lines that begin with a number.
pub fn split_numbered(reply: &str) -> Vec<String> {
    let mut tasks: Vec<String> = Vec::new();
    for line in reply.lines() {
        let line = line.trim();
        match after_number(line) {
            Some(rest) => tasks.push(rest.to_owned()),
            None if tasks.is_empty() => tasks.push(line.to_owned()),
            None => {
                if let Some(last) = tasks.last_mut() {
                    last.push(' ');
                    last.push_str(line);
                }
            }
        }
    }
    let tidy = |t: &String| t.split_whitespace().collect::<Vec<_>>().join(" ");
    tasks.iter().map(tidy).filter(|t| !t.is_empty()).collect()
}

fn after_number(line: &str) -> Option<&str> {
    let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = if rest.len() < line.len() { rest.trim_start() } else { return None };
    rest.strip_prefix('.').map(str::trim)
}

/// Whether a task passes the filters; the reason when it does not.
///
/// # Errors
/// The reason, for the log.
pub fn accept(task: &str, known: &[String]) -> Result<(), String> {
    let words = task.split_whitespace().count();
    if !(4..=150).contains(&words) {
        return Err(format!("{words} words, not 4 to 150"));
    }
    let lower = task.to_lowercase();
    if let Some(word) = KEYWORDS.iter().find(|keyword| holds_word(&lower, keyword)) {
        return Err(format!("asks for something a text model cannot do: {word}"));
    }
    if lower.starts_with("write a program") {
        return Err("asks for a program".to_owned());
    }
    match task.chars().next() {
        Some(first) if !first.is_ascii() => return Err("begins with a non-ASCII letter".into()),
        Some(first) if first.is_ascii_punctuation() => return Err("begins with punctuation".into()),
        _ => {}
    }
    for other in known {
        let alike = rouge_l(task, other);
        if alike > ROUGE_L_MAX {
            return Err(format!("ROUGE-L {alike:.2} with {:?}", shortened(other)));
        }
    }
    Ok(())
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

    #[test]
    fn a_list_is_continued_and_split() {
        let shots = ["Name a\nfruit.".to_owned(), "Add 2 and 3.".to_owned()];
        assert_eq!(
            few_shot_prompt(&shots),
            "Come up with a series of tasks:\n\n1. Name a fruit.\n2. Add 2 and 3.\n3."
        );
        let reply = " Write a poem\nabout the sea.\n4. Say why the sky is blue.\n5 . Ok";
        assert_eq!(
            split_numbered(reply),
            ["Write a poem about the sea.", "Say why the sky is blue.", "Ok"]
        );
    }

    #[test]
    fn every_filter_has_its_reason() {
        let known = ["Explain why the sky looks blue at noon".to_owned()];
        for (task, reason) in [
            ("Too short", "words"),
            ("Draw me a house on a hill", "draw"),
            ("Describe the map of Rome in words", "map"),
            ("Write a program that sorts a list", "program"),
            ("Überlege dir einen guten Namen dafür", "non-ASCII"),
            ("- list five kinds of apples", "punctuation"),
            ("Explain why the sky looks blue at noon today", "ROUGE-L"),
        ] {
            let found = accept(task, &known).unwrap_err();
            assert!(found.contains(reason), "{task}: {found}");
        }
        assert_eq!(accept("Give three reasons to drink more water", &known), Ok(()));
        assert_eq!(accept("Summarise the graphic novel in a line", &known), Ok(()));
    }
}
