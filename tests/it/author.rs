//! `gradus rubric` for authors: what is begun, tried and shown, and what is said of a mistake.

use crate::rubric::guest::Guest;
use std::path::Path;
use std::process::Command;

/// Exit code, results and messages.
fn rubric(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gradus"));
    let out = command.current_dir(dir).arg("rubric").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (out.status.code(), text(out.stdout), text(out.stderr))
}

#[test]
fn a_rubric_begins_in_every_language() {
    let root = tempfile::tempdir().unwrap();
    for (lang, file) in [("rust", "src/lib.rs"), ("js", "rubric.js"), ("python", "app.py")] {
        let (code, said, error) = rubric(root.path(), &["new", lang, "--lang", lang]);
        assert_eq!(code, Some(0), "{error}");
        assert!(said.contains(&format!("gradus rubric build {lang}")), "{said}");
        let text = std::fs::read_to_string(root.path().join(lang).join(file)).unwrap();
        assert!(text.contains(lang) && !text.contains("NAME"), "{text}");
        assert!(root.path().join(lang).join("wit/rubric.wit").is_file());
    }
    for (arguments, part) in [
        (&["new", "rust"][..], "is there already"),
        (&["new", "../up"], "is no name for a rubric"),
        (&["new", "1st"], "is no name for a rubric"),
        (&["build", "."], "neither Cargo.toml, package.json nor app.py"),
        (&["test", "unheard.wasm"], "neither a file nor a bundled rubric"),
        (&["show", "verifier"], "the prompt has no constraint"),
    ] {
        let (code, _, error) = rubric(root.path(), arguments);
        assert!(code == Some(2) && error.contains(part), "{arguments:?}: {code:?} {error}");
    }
}

#[test]
fn a_rubric_is_tried() {
    let root = tempfile::tempdir().unwrap();
    for bundled in ["additive-five", "pairwise", "checklist", "meta-judge", "verifier"] {
        let (code, said, error) = rubric(root.path(), &["test", bundled, "--json"]);
        assert_eq!(code, Some(0), "{bundled}: {said}{error}");
        let tried: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(tried["passed"], true);
        assert!(tried["hostile"].as_array().unwrap().len() > 45);
    }
    // A golden case that fails, and candidates that a rubric counts its own words in.
    let path = root.path().join("bent.wasm");
    std::fs::write(&path, Guest::new().with("expected", "0").component()).unwrap();
    let (code, said, error) = rubric(root.path(), &["test", "bent.wasm"]);
    assert_ne!(code, Some(0));
    assert!(said.contains("good") && said.contains("not [0.0]"), "{said}{error}");
    let (code, said, _) = rubric(root.path(), &["show", "additive-five", "--task", "Say hi."]);
    assert!(code == Some(0) && said.contains("Instruction:\nSay hi."), "{said}");
    let (_, said, _) = rubric(root.path(), &["list"]);
    assert_eq!(said.lines().count(), 8, "{said}");
}
