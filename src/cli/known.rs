//! Which verbs and flags there are, by clap's own tree: what texts say to type is held to it by tests.

use super::Arguments;
use clap::{Command, CommandFactory};

/// Every verb with its long flags, as `rubric activate`; of the whole command under the empty name.
fn verbs() -> Vec<(String, Vec<String>)> {
    fn walk(command: &Command, name: &str, all: &mut Vec<(String, Vec<String>)>) {
        let flags = command.get_arguments().filter_map(|argument| argument.get_long());
        let flags = flags.map(str::to_owned).chain(["help".to_owned(), "version".to_owned()]);
        all.push((name.to_owned(), flags.collect()));
        for verb in command.get_subcommands() {
            walk(verb, format!("{name} {}", verb.get_name()).trim_start(), all);
        }
    }
    let mut all = Vec::new();
    walk(&Arguments::command(), "", &mut all);
    all
}

/// The words of a verb or flag in what follows `gradus` in a text, up to what ends a command there.
fn command(text: &str) -> &str {
    let end = text.find(['`', '\n', ';', ')', '(', '|', '\\', '>', '"', ',']);
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

/// Verbs and flags that a text says to type after `gradus` and that are not there.
pub fn unknown_in(text: &str) -> Vec<String> {
    let verbs = verbs();
    let mut unknown = Vec::new();
    for (at, word) in text.match_indices("gradus ") {
        // A path, a name or the end of a longer word.
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        if before.is_some_and(|c| c.is_alphanumeric() || "/-_.".contains(c)) {
            continue;
        }
        let words = command(text.get(at + word.len()..).unwrap_or_default()).split_whitespace();
        // Another command may follow in the same sentence.
        let words = words.take_while(|word| *word != "gradus");
        unknown.extend(unknown_of(&words.collect::<Vec<_>>(), &verbs));
    }
    unknown
}

/// The first word that is not there of a command's words.
fn unknown_of(words: &[&str], verbs: &[(String, Vec<String>)]) -> Option<String> {
    let (mut name, mut flags) = verbs.first().cloned()?;
    for word in words {
        let word = word.trim_end_matches(['.', ':']);
        if let Some(flag) = word.strip_prefix("--") {
            let flag = flag.split('=').next().unwrap_or(flag);
            if !flag.is_empty() && !flags.iter().any(|known| known == flag) {
                return Some(format!("gradus {name} --{flag}"));
            }
            continue;
        }
        let deeper = format!("{name} {word}");
        match verbs.iter().find(|(known, _)| known == deeper.trim_start()) {
            Some(found) => (name, flags) = found.clone(),
            // The name of the program in a sentence, or what a verb is about.
            None if name.is_empty() => return None,
            None if is_a_group(&name, verbs) => return Some(format!("gradus {deeper}")),
            None => {}
        }
    }
    None
}

/// Whether a verb only has verbs below it.
fn is_a_group(name: &str, verbs: &[(String, Vec<String>)]) -> bool {
    verbs
        .iter()
        .any(|(known, _)| known.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_found() {
        for (text, unknown) in [
            ("gradus rubric activate DIR NAME --again; gradus run DIR", None),
            ("gradus rejudge --into or gradus rubric taint --rebuild", None),
            ("gradus rejudge --rebuild or gradus run", Some("gradus rejudge --rebuild")),
            ("| `gradus log show\\|tail DIR` |", None),
            ("`gradus rubric enable DIR`", Some("gradus rubric enable")),
            ("go on: gradus run DIR --for-ever.", Some("gradus run --for-ever")),
            ("gradus log --json", Some("gradus log --json")),
            ("a gradus of another version; crates/gradus run --nothing", None),
        ] {
            let found = unknown_in(text);
            assert_eq!(found.first().map(String::as_str), unknown, "{text}");
        }
    }

    /// Whether a line names what a hash is for, as `"gradus prompt id v1"`, and no command.
    fn is_hash_context(line: &str) -> bool {
        let quoted = line.split_once("\"gradus ").and_then(|(_, rest)| rest.split_once('"'));
        let version = quoted.and_then(|(text, _)| text.rsplit_once(" v"));
        version.is_some_and(|(_, number)| number.parse::<u32>().is_ok())
    }

    /// What people read: pages, and what the program says.
    #[test]
    fn pages_and_messages_name_commands_that_there_are() {
        fn walk(dir: &std::path::Path, texts: &mut Vec<(String, String)>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, texts);
                } else if path.extension().is_some_and(|e| e == "rs" || e == "md") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    // Lines of one text, and without what only tests say.
                    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
                    let text = text.replace("\\\n", " ");
                    let lines = text.lines().filter(|line| !is_hash_context(line));
                    let text = lines.collect::<Vec<_>>().join("\n");
                    texts.push((path.display().to_string(), text));
                }
            }
        }
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut texts = Vec::new();
        ["src", "docs", "crates"].iter().for_each(|dir| walk(&root.join(dir), &mut texts));
        for page in ["README.md", "ARCHITECTURE.md"] {
            texts.push((page.to_owned(), std::fs::read_to_string(root.join(page)).unwrap()));
        }
        let mut wrong = Vec::new();
        for (path, text) in &texts {
            wrong.extend(unknown_in(text).into_iter().map(|unknown| format!("{path}: {unknown}")));
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(texts.iter().map(|(_, text)| text.matches("gradus ").count()).sum::<usize>() > 100);
    }
}
