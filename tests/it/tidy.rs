//! The house rules that a compiler does not know: which room may look into which, module heads,
//! the length of functions, no `matches!` whose answer is thrown away, no printing in the library, no
//! environment variable that is not documented.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// Every Rust file of our own, by its path from the root.
fn sources(dirs: &[&str]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for dir in dirs {
        walk(&root().join(dir), &mut files);
    }
    let name = |p: &PathBuf| p.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    files.iter().map(|p| (name(p), std::fs::read_to_string(p).unwrap())).collect()
}

fn room(path: &str) -> &str {
    let rest = path.strip_prefix("src/").unwrap();
    rest.split('/').next().unwrap().trim_end_matches(".rs")
}

/// Which rooms each room may look into. Below is never above: a cycle cannot be written down here
/// without being seen.
const MAY_SEE: [(&str, &[&str]); 22] = [
    // The model layer, a crate of its own: the words that both speak are at home there.
    ("domain", &["lm"]),
    ("stats", &[]),
    ("faults", &[]),
    ("machine", &[]),
    ("space", &[]),
    ("lm", &[]),
    ("rubric", &["domain"]),
    ("log", &["domain", "faults", "machine", "space"]),
    ("blob", &["domain", "faults", "machine"]),
    ("config", &["domain", "lm"]),
    ("prompts", &["domain", "stats"]),
    ("demo", &["domain", "lm"]),
    ("view", &["domain", "log", "stats"]),
    ("report", &["domain", "view"]),
    (
        "stage",
        &["blob", "config", "domain", "lm", "log", "machine", "prompts", "rubric", "stats", "view"],
    ),
    // Of `lm` the flag by which work is stopped, and the error that says so.
    ("actor", &["config", "domain", "faults", "lm", "log", "stage", "view"]),
    (
        "runtime",
        &[
            "actor", "blob", "config", "domain", "error", "lm", "log", "machine", "prompts",
            "rubric", "space", "stage", "view",
        ],
    ),
    (
        "rejudge",
        &["config", "domain", "error", "lm", "log", "rubric", "runtime", "stage", "stats", "view"],
    ),
    ("error", &["blob", "config", "lm", "log", "prompts", "rubric", "stage"]),
    ("lib", &["error", "runtime"]),
    ("main", &[]),
    ("cli", &[]),
];

/// Names after `crate::` in a text, comments left out.
fn rooms_seen(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut seen = BTreeSet::new();
    for line in code {
        for part in line.split("crate::").skip(1) {
            let name = part.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            seen.insert(name.to_owned());
        }
    }
    seen
}

#[test]
fn rooms_look_only_downwards() {
    let may: BTreeMap<&str, &[&str]> = MAY_SEE.into_iter().collect();
    let mut wrong = Vec::new();
    for (path, text) in sources(&["src"]) {
        let room = room(&path);
        let Some(allowed) = may.get(room) else {
            panic!("{path}: add the room {room} to MAY_SEE with what it may see");
        };
        for seen in rooms_seen(&text) {
            let is_room = may.contains_key(seen.as_str());
            if is_room && seen != room && !allowed.contains(&seen.as_str()) {
                wrong.push(format!("{path} sees {seen}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn heavy_crates_stay_in_their_rooms() {
    let homes = [
        ("actix", vec!["actor"]),
        ("candle_core", vec![]),
        ("candle_nn", vec![]),
        ("tokenizers", vec![]),
        ("wasmtime", vec!["rubric"]),
        ("sled", vec!["log"]),
        ("clap", vec!["cli"]),
        ("indicatif", vec!["cli"]),
    ];
    let mut wrong = Vec::new();
    for (path, text) in sources(&["src"]) {
        for (krate, rooms) in &homes {
            let uses = text.lines().any(|line| {
                let line = line.trim_start();
                !line.starts_with("//")
                    && (line.contains(&format!(" {krate}::"))
                        || line.starts_with(&format!("{krate}::"))
                        || line.contains(&format!("({krate}::"))
                        || line.contains(&format!("<{krate}::")))
            });
            // `log/sled.rs` is a module of ours with the crate's name.
            if uses && !rooms.contains(&room(&path)) {
                wrong.push(format!("{path} uses {krate}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_says_what_it_is_for() {
    let headless: Vec<String> =
        sources(&["src", "tests", "benches", "examples", "plugins", "crates"])
            .into_iter()
            .filter(|(path, text)| !text.starts_with("//!") && !path.contains("/target/"))
            .map(|(path, _)| path)
            .collect();
    assert!(headless.is_empty(), "no //! head: {headless:#?}");
}

/// Functions with their first line and length, found by indentation: rustfmt puts the closing
/// brace under the `fn`.
fn functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let body = line.trim_start();
        let indent = line.len() - body.len();
        let is_fn = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "const fn "]
            .iter()
            .any(|start| body.starts_with(start));
        if !is_fn {
            continue;
        }
        let end = format!("{}}}", " ".repeat(indent));
        let length = lines.iter().skip(at).position(|l| *l == end || l.trim_end().ends_with(';'));
        let closes = lines.iter().skip(at).position(|l| *l == end);
        // A signature that ends in `;` before any brace is a trait's; it has no body.
        let signature_only = lines
            .iter()
            .skip(at)
            .take_while(|l| !l.contains('{'))
            .any(|l| l.trim_end().ends_with(';'));
        if let (false, Some(closes), Some(_)) = (signature_only, closes, length) {
            found.push((at + 1, closes + 1));
        }
    }
    found
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for (path, text) in sources(&["src", "tests", "benches", "examples", "crates"]) {
        for (line, length) in functions(&text) {
            if length > 70 {
                long.push(format!("{path}:{line} has {length} lines"));
            }
        }
    }
    assert!(long.is_empty(), "{long:#?}");
    let counted = functions("fn a() {\n    b();\n}\n\nimpl X {\n    fn c(&self) {}\n}\n");
    assert_eq!(counted.first(), Some(&(1, 3)), "the counter itself works");
}

/// `matches!(x, ..);` as a statement tests nothing: an assertion was meant.
#[test]
fn no_answer_is_thrown_away() {
    let mut bare = Vec::new();
    for (path, text) in sources(&["src", "tests", "benches", "examples", "crates"]) {
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.starts_with(concat!("matches", "!(")) && line.ends_with(';') {
                bare.push(format!("{path}:{}", at + 1));
            }
        }
    }
    assert!(bare.is_empty(), "{bare:#?}");
}

#[test]
fn the_library_does_not_print() {
    let words = [concat!("print", "ln!("), concat!("print", "!("), concat!("dbg", "!(")];
    let mut loud = Vec::new();
    for (path, text) in sources(&["src", "crates/lm/src"]) {
        if path.starts_with("src/cli") || path.ends_with("tests.rs") {
            continue;
        }
        for (at, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                loud.push(format!("{path}:{}", at + 1));
            }
        }
    }
    assert!(loud.is_empty(), "{loud:#?}");
}

/// Who may read the environment, and what of it: what they read is documented in one list.
const READ_THE_ENVIRONMENT: [&str; 3] =
    ["src/cli/mod.rs", "src/rubric/cache.rs", "crates/cuda-lazy/src/places.rs"];

/// Whether a text is written as variables' names are: `HOME`, `GRADUS_LOG`.
fn is_a_variable(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    text.len() > 2 && text.starts_with(|c: char| c.is_ascii_uppercase()) && text.chars().all(fits)
}

/// A file without its tests and comments.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Variables in the first column of the list in docs/environment.md.
fn documented() -> BTreeSet<String> {
    let list = std::fs::read_to_string(root().join("docs/environment.md")).unwrap();
    let rows = list.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| row.split(" |").next());
    let names = cells.flat_map(|cell| cell.split([',', '`', ' ']));
    names.filter(|name| is_a_variable(name)).map(str::to_owned).collect()
}

#[test]
fn the_environment_is_read_as_documented_and_nowhere_else() {
    let ways = ["env::var", "var_os(", "env::vars", "vars_os(", "from_env(", "from_default_env("];
    let (mut elsewhere, mut read) = (Vec::new(), BTreeSet::new());
    for (path, text) in sources(&["src", "crates"]) {
        if !path.contains("src/") || path.ends_with("tests.rs") {
            continue;
        }
        let code = code(&text);
        if code.contains("temp_dir()") {
            read.insert("TMPDIR".to_owned());
        }
        if !ways.iter().any(|way| code.contains(way)) {
            continue;
        }
        match READ_THE_ENVIRONMENT.contains(&path.as_str()) {
            true => read.extend(code.split('"').filter(|t| is_a_variable(t)).map(str::to_owned)),
            false => elsewhere.push(path),
        }
    }
    assert!(elsewhere.is_empty(), "add it to READ_THE_ENVIRONMENT: {elsewhere:#?}");
    assert_eq!(read, documented(), "left: what is read; right: docs/environment.md");
    assert!(read.len() > 8, "{read:?}");
}
