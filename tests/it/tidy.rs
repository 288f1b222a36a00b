//! The house rules that a compiler does not know: which room may look into which, in which direction
//! the files of a room use each other, module heads,
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
const MAY_SEE: [(&str, &[&str]); 32] = [
    // The table of codes, which every room may see.
    ("codes", &["machine"]),
    // The model layer, a crate of its own: the words that both speak are at home there.
    ("domain", &["lm"]),
    ("stats", &[]),
    ("faults", &[]),
    ("machine", &[]),
    ("space", &[]),
    ("atomic_file", &["faults"]),
    ("dice", &["domain"]),
    ("lm", &[]),
    ("rubric", &["atomic_file", "domain"]),
    ("log", &["atomic_file", "domain", "faults", "machine", "space"]),
    ("blob", &["atomic_file", "domain", "machine"]),
    ("config", &["domain", "lm"]),
    ("prompts", &["domain", "stats"]),
    ("engine", &["blob", "config", "domain", "lm"]),
    // It brings its prompt writer as any host does, through the port.
    ("demo", &["dice", "domain", "engine", "lm", "prompts", "stage"]),
    ("view", &["domain", "log", "stats"]),
    ("report", &["domain", "view"]),
    (
        "stage",
        &[
            "blob", "config", "domain", "engine", "lm", "log", "machine", "prompts", "rubric",
            "stats", "view",
        ],
    ),
    ("estimate", &["config", "domain", "engine", "error", "lm", "space", "view"]),
    // Of `lm` the flag by which work is stopped, and the error that says so; of `blob` and `engine`
    // what its tests fake.
    ("actor", &["blob", "config", "domain", "engine", "faults", "lm", "log", "stage", "view"]),
    (
        "runtime",
        &[
            "actor",
            "atomic_file",
            "blob",
            "config",
            "domain",
            "engine",
            "error",
            "estimate",
            "lm",
            "log",
            "machine",
            "prompts",
            "report",
            "rubric",
            "space",
            "stage",
            "view",
        ],
    ),
    (
        "doctor",
        &[
            "blob", "config", "domain", "engine", "error", "estimate", "lm", "log", "rubric",
            "runtime", "space", "stage", "view",
        ],
    ),
    (
        "rejudge",
        &[
            "config", "domain", "engine", "error", "lm", "log", "rubric", "runtime", "stage",
            "stats", "view",
        ],
    ),
    (
        "assess",
        &[
            "dice", "domain", "error", "lm", "log", "prompts", "report", "rubric", "runtime",
            "stage", "stats", "view",
        ],
    ),
    ("eft", &["dice", "domain", "error", "lm", "rubric"]),
    ("http", &["domain", "error", "lm", "log", "report", "runtime"]),
    (
        "export",
        &[
            "atomic_file",
            "blob",
            "config",
            "domain",
            "engine",
            "error",
            "estimate",
            "lm",
            "log",
            "report",
            "runtime",
            "stage",
            "view",
        ],
    ),
    ("error", &["blob", "config", "domain", "engine", "lm", "log", "prompts", "rubric", "stage"]),
    ("lib", &["domain", "error", "lm", "runtime"]),
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
            let may = seen == "codes" || allowed.contains(&seen.as_str());
            if is_room && seen != room && !may {
                wrong.push(format!("{path} sees {seen}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Rooms whose files use each other in one direction only. The head of each lists its files from the
/// bottom to the top; to hold another room to it, write the list and add the room here.
const ORDERED_ROOMS: [&str; 5] =
    ["src/domain", "src/log", "src/runtime", "crates/lm/src", "crates/lm/src/gpu"];

/// How code names an ordered room from the root of its crate: `crate::log::`; of a crate's own root
/// `crate::`.
fn from_the_root(room: &str) -> String {
    let (_, inside) = room.split_once("src").unwrap();
    inside
        .split('/')
        .filter(|part| !part.is_empty())
        .fold("crate::".to_owned(), |path, part| format!("{path}{part}::"))
}

/// A file of a room: its path in there, a crate's root being a head like any other, and its text, with
/// every path into the room written as one that goes up to it.
fn inside_room(room: &str, (path, text): (String, String)) -> (String, String) {
    let path = path.strip_prefix(&format!("{room}/")).unwrap();
    let path = if path == "lib.rs" { "mod.rs" } else { path };
    let depth = path.split('/').count() - usize::from(path.ends_with("mod.rs"));
    let up = "super::".repeat(depth);
    (path.to_owned(), text.replace(&from_the_root(room), &up))
}

/// The code of a file: no comments, and nothing that is compiled for tests alone. The modules among
/// that are the second part.
fn without_tests(text: &str) -> (String, BTreeSet<String>) {
    let (mut code, mut tests) = (String::new(), BTreeSet::new());
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    while let Some(line) = lines.next() {
        if line != "#[cfg(test)]" {
            code.push_str(line);
            code.push('\n');
            continue;
        }
        let item = lines.next().unwrap_or_default();
        match item.strip_suffix(';').and_then(|item| item.split_once("mod ")) {
            Some((_, name)) => drop(tests.insert(name.to_owned())),
            None => drop(lines.by_ref().find(|line| *line == "}")),
        }
    }
    (code, tests)
}

fn is_part_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The names that a path begins with, after what was cut off its front: `{a::B, c}` is two.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| text.trim().chars().take_while(|c| is_part_of_a_name(*c)).collect();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut depth, mut names, mut start) = (0, Vec::new(), 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' | ',' if depth == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name: &String| !name.is_empty());
    names
}

/// What follows every occurrence of `front` in a code that nothing of a path stands before.
fn after_each<'a>(code: &'a str, front: &str) -> Vec<&'a str> {
    let free = |at: &usize| !code[..*at].ends_with(|c: char| is_part_of_a_name(c) || c == ':');
    code.match_indices(front)
        .map(|(at, _)| at)
        .filter(free)
        .map(|at| &code[at + front.len()..])
        .collect()
}

/// Names that a room's head takes from its files and hands on, with the file of each; and the rest of
/// the head's code.
fn names_handed_on(head: &str, files: &BTreeSet<String>) -> (BTreeMap<String, String>, String) {
    let (mut names, mut body) = (BTreeMap::new(), String::new());
    let mut lines = head.lines();
    while let Some(line) = lines.next() {
        let Some(at) = line.find("use ").filter(|at| *at == 0 || line.starts_with("pub")) else {
            if !(line.contains("mod ") && line.ends_with(';')) {
                body.push_str(line);
                body.push('\n');
            }
            continue;
        };
        let mut path = line[at + "use ".len()..].to_owned();
        while !path.contains(';') {
            path.push_str(lines.next().unwrap_or(";"));
        }
        let (file, rest) = path.split_once("::").unwrap_or((&path, ""));
        if files.contains(file) {
            names.extend(first_names(rest).into_iter().map(|name| (name, file.to_owned())));
        }
    }
    (names, body)
}

/// A room: its files (a folder in it counts as one) and which of them each uses.
fn uses_in_room(files: &[(String, String)]) -> BTreeMap<String, BTreeSet<String>> {
    let head = files.iter().find(|(path, _)| path == "mod.rs").map_or("", |(_, text)| text);
    let (head, tests) = without_tests(head);
    let node = |path: &str| path.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
    let nodes: BTreeSet<String> = files.iter().map(|(path, _)| node(path)).collect();
    let (handed_on, body) = names_handed_on(&head, &nodes);
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in files {
        let from = node(path);
        if tests.contains(&from) || path.ends_with("tests.rs") {
            continue;
        }
        let seen = uses.entry(from.clone()).or_default();
        let names: Vec<String> = if path == "mod.rs" {
            let modules =
                nodes.iter().filter(|node| !after_each(&body, &format!("{node}::")).is_empty());
            let words =
                body.split(|c| !is_part_of_a_name(c)).filter(|word| handed_on.contains_key(*word));
            modules.cloned().chain(words.map(str::to_owned)).collect()
        } else {
            let depth = path.split('/').count() - usize::from(path.ends_with("/mod.rs"));
            let (code, _) = without_tests(text);
            let paths = after_each(&code, &"super::".repeat(depth));
            paths
                .into_iter()
                .filter(|path| !path.starts_with("super::"))
                .flat_map(first_names)
                .collect()
        };
        for name in names {
            let to = if nodes.contains(&name) {
                name
            } else {
                handed_on.get(&name).cloned().unwrap_or("mod".to_owned())
            };
            if to != from && !tests.contains(&to) {
                seen.insert(to);
            }
        }
    }
    uses
}

/// The files that a room's head lists, from the bottom to the top.
fn listed(head: &str) -> Vec<String> {
    let lines = head.lines().take_while(|line| line.starts_with("//!"));
    let after = lines.skip_while(|line| !line.contains("from the bottom to the top"));
    let rows = after.filter_map(|line| line.strip_prefix("//! - `"));
    rows.filter_map(|row| Some(row.split_once('`')?.0.to_owned())).collect()
}

#[test]
fn files_of_a_room_use_only_those_below_them() {
    let mut wrong = Vec::new();
    for room in ORDERED_ROOMS {
        let files: Vec<(String, String)> =
            sources(&[room]).into_iter().map(|file| inside_room(room, file)).collect();
        let (_, head) = files.iter().find(|(path, _)| path == "mod.rs").unwrap();
        let (order, uses) = (listed(head), uses_in_room(&files));
        let height = |file: &String| order.iter().position(|listed| listed == file);
        let unlisted = uses.keys().filter(|file| height(file).is_none());
        // A crate's root declares its rooms and uses none.
        let unlisted = unlisted.filter(|file| file.as_str() != "mod" || !uses["mod"].is_empty());
        wrong.extend(unlisted.map(|file| format!("{room}: the head's list lacks {file}")));
        let gone = order.iter().filter(|file| !uses.contains_key(*file));
        wrong.extend(gone.map(|file| format!("{room}: the head lists {file}, which is not there")));
        for (from, to) in uses.iter().flat_map(|(from, all)| all.iter().map(move |to| (from, to))) {
            if height(to) >= height(from) {
                wrong.push(format!("{room}: {from} uses {to}, which is not below it"));
            }
        }
        assert!(uses.values().map(BTreeSet::len).sum::<usize>() > uses.len(), "{uses:#?}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What the test above looks at is seen.
#[test]
fn uses_in_a_room_are_found() {
    let files = [
        (
            "mod.rs",
            "mod a;\n#[cfg(test)]\nmod c;\nmod b;\npub use a::{A,\n Other};\nfn f(a: A) {}\n",
        ),
        ("a.rs", "use super::b::{B, C};\n// use super::c;\nfn f() { super::g::h() }\n"),
        ("b.rs", "use super::{A, g::{X, Y}, own};\n#[cfg(test)]\nmod tests {\nuse super::a;\n}\n"),
        ("c.rs", "use super::*;\n"),
        ("g/mod.rs", "use super::a;\n"),
        ("g/h.rs", "use super::own;\nuse super::super::b;\n"),
    ];
    let files = files.map(|(path, text)| (path.to_owned(), text.to_owned()));
    let found = uses_in_room(&files);
    let found: Vec<String> = found.iter().map(|(from, to)| format!("{from}: {to:?}")).collect();
    let expected =
        ["a: {\"b\", \"g\"}", "b: {\"a\", \"g\", \"mod\"}", "g: {\"a\", \"b\"}", "mod: {\"a\"}"];
    assert_eq!(found, expected);
    let head = "//! Files, from the bottom to the top:\n//! - `a`: one\n//! - `b`: two\n";
    assert_eq!(listed(head), ["a", "b"]);
}

/// The model layer is a crate of its own: of ours it may depend on its kernels and on nothing else.
#[test]
fn the_model_layer_depends_on_its_kernels_alone() {
    let manifest = std::fs::read_to_string(root().join("crates/lm/Cargo.toml")).unwrap();
    let ours: BTreeSet<&str> = manifest
        .lines()
        .filter(|line| line.contains("path = "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(ours, BTreeSet::from(["cuda-lazy", "gradus-kernels"]));
}

#[test]
fn heavy_crates_stay_in_their_rooms() {
    let homes = [
        ("actix", vec!["actor"]),
        ("candle_core", vec![]),
        ("candle_nn", vec![]),
        ("candle_transformers", vec![]),
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
            // The frozen models of candle-transformers are wrapped there, and our own decoder is held
            // to them: a room of its own would be one more that knows tensors.
            if krate.starts_with("candle") && path.starts_with("src/engine/candle") {
                continue;
            }
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

/// A declaration without its `pub` or `pub(...)`.
fn without_visibility(line: &str) -> &str {
    match line.strip_prefix("pub(") {
        Some(scoped) => scoped.split_once(") ").map_or(line, |(_, rest)| rest),
        None => line.strip_prefix("pub ").unwrap_or(line),
    }
}

/// Functions with their first line and length, found by indentation: rustfmt puts the closing
/// brace under the `fn`.
fn functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let body = line.trim_start();
        let indent = line.len() - body.len();
        let is_fn = without_visibility(body).starts_with("fn ")
            || without_visibility(body).starts_with("const fn ");
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

/// Names of types, and where each is declared; what an `impl` says of a trait's types is indented.
fn declared_types(sources: &[(String, String)]) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, text) in sources {
        for line in text.lines() {
            let alias = line.trim_start().starts_with("type ") && line.starts_with(' ');
            let rest = without_visibility(line.trim_start());
            let kinds = ["struct ", "enum ", "trait ", "union ", "type "];
            let Some(rest) = kinds.iter().find_map(|kind| rest.strip_prefix(kind)) else {
                continue;
            };
            let name = rest.split(|c| !is_part_of_a_name(c)).next().unwrap_or_default();
            if !alias && name.starts_with(|c: char| c.is_ascii_uppercase()) {
                found.entry(name.to_owned()).or_default().push(path.clone());
            }
        }
    }
    found
}

#[test]
fn one_name_of_a_type_means_one_thing() {
    let sources = sources(&["src", "crates/lm/src", "crates/kernels/src", "crates/cuda-lazy/src"]);
    // `Arguments` are those of the verb whose file it is.
    let same_thing = ["Arguments"];
    let twice: Vec<_> = declared_types(&sources)
        .into_iter()
        .filter(|(name, paths)| paths.len() > 1 && !same_thing.contains(&name.as_str()))
        .collect();
    assert!(twice.is_empty(), "declared more than once: {twice:#?}");
}

#[test]
fn types_of_one_name_are_found() {
    let text = "pub struct Row;\nstruct Row<'a> {\n    type Row = u8;\npub(super) enum Column {\n";
    let found = declared_types(&[("a.rs".to_owned(), text.to_owned())]);
    assert_eq!(found["Row"].len(), 2);
    assert_eq!(found["Column"].len(), 1);
}

/// Pages for people, by their paths.
fn pages() -> Vec<(String, String)> {
    let docs = std::fs::read_dir(root().join("docs")).unwrap();
    let docs = docs.map(|entry| format!("docs/{}", entry.unwrap().file_name().to_string_lossy()));
    let all = ["README.md", "ARCHITECTURE.md"].map(str::to_owned).into_iter().chain(docs);
    all.filter(|path| path.ends_with(".md"))
        .map(|path| {
            let text = std::fs::read_to_string(root().join(&path)).unwrap();
            (path, text)
        })
        .collect()
}

/// What stands in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Whether a file is meant by the end of its path.
fn is_named(file: &str, path: &str) -> bool {
    file == path || file.ends_with(&format!("/{path}"))
}

#[test]
fn pages_name_files_that_there_are() {
    let files = sources(&["src", "crates", "tests", "examples", "benches", "plugins"]);
    let wrong: Vec<String> = pages()
        .iter()
        .flat_map(|(page, text)| quoted(text).into_iter().map(move |name| (page, name)))
        .filter(|(_, name)| name.ends_with(".rs") && !name.contains([' ', 'N', '<', '{', '\n']))
        .filter(|(_, name)| !files.iter().any(|(file, _)| is_named(file, name)))
        .map(|(page, name)| format!("{page}: {name}"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The walk of a prompt names functions, each in its file, and each step has some.
#[test]
fn the_walk_of_a_prompt_names_functions_that_there_are() {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, walk) = page.split_once("## One prompt's journey").unwrap();
    let (walk, _) = walk.split_once("\n## ").unwrap();
    let sources = sources(&["src"]);
    let mut steps = 0;
    for row in walk.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| -")) {
        let named = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let (mut file, mut functions) = (None, 0);
        for name in quoted(named) {
            if name.ends_with(".rs") {
                let found = sources.iter().find(|(path, _)| is_named(path, name));
                file = Some(found.unwrap_or_else(|| panic!("{name} is not there")));
            } else {
                let (path, text) = file.expect("a file comes first");
                assert!(text.contains(&format!("fn {name}(")), "{path} has no {name}");
                functions += 1;
            }
        }
        steps += usize::from(functions > 0);
        assert!(functions > 0 || named == "functions", "no function: {row}");
    }
    assert!(steps >= 12, "{steps}");
}
