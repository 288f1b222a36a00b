//! What people are told: every code is in the table, in `docs/errors.md` and in the code that gives
//! it; nobody writes a code by hand; settings that texts name are settings that there are.

use gradus::config::Config;
use gradus::error::{Code, Retry};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files below folders, by their path from the root, that end so.
fn files(dirs: &[&str], ends: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, ends: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                walk(&path, ends, found);
            } else if path.to_string_lossy().ends_with(ends) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    dirs.iter().for_each(|dir| walk(&root().join(dir), ends, &mut found));
    found.sort();
    let name = |p: &PathBuf| p.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    found.iter().map(|p| (name(p), std::fs::read_to_string(p).unwrap())).collect()
}

/// A file without its tests; nothing of one that is all tests.
fn working(path: &str, text: &str) -> String {
    if path.ends_with("tests.rs") {
        return String::new();
    }
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

/// The texts in quotes of a Rust file, comments left out.
fn literals(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let here = &rest[at..];
        if here.starts_with("//") {
            rest = here.find('\n').map_or("", |end| &here[end..]);
        } else if let Some(quoted) = here.strip_prefix('"') {
            let raw = rest[..at].ends_with("r#").then_some("\"#");
            let (text, after) = quoted_text(quoted, raw);
            found.push(text);
            rest = after;
        } else {
            // A quote as a character, or anything else that begins so.
            let skip = if here.starts_with("'\"'") || here.starts_with("'\\'") { 3 } else { 1 };
            rest = &here[skip..];
        }
    }
    found
}

/// The text up to its closing quote, lines that go on joined, and what comes after it.
fn quoted_text<'a>(quoted: &'a str, raw: Option<&str>) -> (String, &'a str) {
    if let Some(end) = raw {
        let (text, after) = quoted.split_once(end).unwrap_or((quoted, ""));
        return (text.to_owned(), after);
    }
    let (mut text, mut chars) = (String::new(), quoted.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (text, &quoted[at + 1..]),
            '\\' => match chars.next() {
                Some((at, '\n')) => {
                    let indent = quoted[at + 1..].find(|c: char| !c.is_whitespace()).unwrap_or(0);
                    chars = quoted.char_indices();
                    let next = at + 1 + indent;
                    chars.by_ref().take_while(|(seen, _)| *seen + 1 < next).for_each(drop);
                }
                Some((_, 'n' | 't')) => text.push(' '),
                Some((_, escaped)) => text.push(escaped),
                None => {}
            },
            c => text.push(c),
        }
    }
    (text, "")
}

#[test]
fn texts_in_quotes_are_found() {
    let code =
        "let a = \"one \\\n        two\"; // \"not\" this\nlet b = '\"'; f(r#\"three \"x\"\"#);";
    assert_eq!(literals(code), ["one two", "three \"x\""]);
}

/// One row of the page: its cells.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let rows = page.lines().filter(|line| line.starts_with("| GRADUS"));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

#[test]
fn the_page_is_the_table_with_cause_and_cure() {
    let page = std::fs::read_to_string(root().join("docs/errors.md")).unwrap();
    let rows = rows(&page);
    let codes: Vec<Option<Code>> = rows.iter().map(|row| Code::parse(row[0])).collect();
    let table: Vec<Option<Code>> = Code::ALL.iter().copied().map(Some).collect();
    assert_eq!(codes, table, "left: docs/errors.md; right: src/codes.rs");
    for row in rows {
        let code = Code::parse(row[0]).unwrap();
        assert_eq!(row.len(), 5, "{code}: a cell has a |, or one is missing: {row:?}");
        assert_eq!(row[1], code.summary(), "{code}");
        assert_eq!(row[4], if code.retry() == Retry::Later { "yes" } else { "no" }, "{code}");
        for cell in [row[2], row[3]] {
            assert!(cell.len() > 5 && cell.ends_with(['.', '?']), "{code}: {cell:?}");
        }
    }
}

/// A code that nobody gives would be a promise that nobody keeps.
#[test]
fn every_code_is_given_somewhere() {
    let mut given = BTreeSet::new();
    for (path, text) in files(&["src"], ".rs") {
        if path == "src/cli/hints.rs" {
            continue;
        }
        // Of the table's file what comes after the table.
        let text = text.split("/// The code with a number").last().unwrap_or_default();
        for part in working(&path, text).split("Code::").skip(1) {
            given.insert(part.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned());
        }
    }
    let never: Vec<&str> =
        Code::ALL.iter().map(|code| code.name()).filter(|name| !given.contains(*name)).collect();
    assert!(never.is_empty(), "in the table and nowhere given: {never:?}");
}

#[test]
fn nobody_writes_a_code_by_hand() {
    let mut by_hand = Vec::new();
    for (path, text) in files(&["src", "crates"], ".rs") {
        if path == "src/codes.rs" {
            continue;
        }
        let texts = literals(&working(&path, &text));
        by_hand.extend(
            texts.iter().filter(|text| has_code(text)).map(|text| format!("{path}: {text}")),
        );
    }
    assert!(by_hand.is_empty(), "{by_hand:#?}");
}

fn has_code(text: &str) -> bool {
    let digits = |rest: &str| rest.len() >= 4 && rest.bytes().take(4).all(|b| b.is_ascii_digit());
    text.split("GRADUS").skip(1).any(digits)
}

/// Whether there is a setting of that name, as the file's reader sees it.
fn is_a_setting(key: &str) -> bool {
    let levels: Vec<&str> = key.split('.').collect();
    let mut yaml = String::new();
    for (depth, level) in levels.iter().enumerate() {
        yaml.push_str(&format!("{}{level}:", "  ".repeat(depth)));
        yaml.push_str(if depth + 1 == levels.len() { " 0\n" } else { "\n" });
    }
    match Config::parse(Path::new("gradus.yaml"), &yaml) {
        Ok(_) => true,
        // A value of another kind is the key's; a key that is not there is not.
        Err(error) => !error.to_string().contains("unknown key"),
    }
}

/// What stands in a text as `group.key`, where the group is one of settings.
fn settings_named(text: &str, groups: &[String]) -> Vec<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
    let words = text.split(|c: char| !word(c)).map(|word| word.trim_matches(['.', '-']));
    let named = words.filter(|word| {
        let group = word.split_once('.').map(|(group, _)| group);
        group.is_some_and(|group| groups.iter().any(|known| known == group))
    });
    // Files and paths, and fields and methods of Rust in examples.
    let files = [
        "rs",
        "md",
        "json",
        "jsonl",
        "parquet",
        "txt",
        "wasm",
        "wit",
        "yaml",
        "html",
        "len",
        "iter",
        "into_iter",
    ];
    let is_file = |word: &&str| {
        word.contains('/') || files.contains(&word.rsplit('.').next().unwrap_or_default())
    };
    named.filter(|word| !is_file(word)).map(str::to_owned).collect()
}

#[test]
fn settings_that_texts_name_are_there() {
    let all = serde_json::to_value(Config::default()).unwrap();
    let groups = all.as_object().unwrap().iter().filter(|(_, value)| value.is_object());
    let groups: Vec<String> = groups.map(|(key, _)| key.clone()).collect();
    assert!(groups.contains(&"train".to_owned()) && !is_a_setting("train.method"));
    assert!(is_a_setting("train.lora_r") && is_a_setting("train.sft.learning_rate"));
    let (mut unknown, mut count) = (Vec::new(), 0);
    let mut look = |path: &str, text: &str| {
        for key in settings_named(text, &groups) {
            count += 1;
            if !is_a_setting(&key) {
                unknown.push(format!("{path}: {key}"));
            }
        }
    };
    for (path, text) in files(&["src", "crates"], ".rs") {
        let literals = literals(&working(&path, &text));
        literals.iter().for_each(|text| look(&path, text));
    }
    for (path, text) in files(&["docs"], ".md") {
        look(&path, &text);
    }
    for path in ["README.md", "ARCHITECTURE.md"] {
        look(path, &std::fs::read_to_string(root().join(path)).unwrap());
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
    // In code most of them are put together by a macro (`config/groups.rs`).
    assert!(count > 120, "only {count} settings were found in all texts");
}
