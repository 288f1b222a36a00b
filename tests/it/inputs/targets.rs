//! What reads input: for each reader good inputs, bad ones with a word of the error, and words
//! that it is sensitive to.

use super::fixtures;
use gradus::config::Config;
use gradus::domain::{Event, Message, Offset};
use gradus::lm::config::ModelConfig;
use gradus::lm::model_files::ModelFiles;
use gradus::lm::template::{CHATML, ChatTemplate, GenerationPrompt};
use gradus::lm::tokenizer::TextTokenizer;
use gradus::lm::weights::Weights;
use gradus::log::{Batch, Clock, DurableLog, JournalLog, Log, verify_folder};
use gradus::prompts;
use gradus::rubric::{ParsedReply, Rubric, RubricEngine, RubricInput, bundled};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// A bad input: what it is, its bytes, and what the error must say.
pub type Bad = (&'static str, Vec<u8>, &'static str);

/// A reader.
pub struct Target {
    pub name: &'static str,
    pub read: fn(&[u8]) -> Result<(), String>,
    pub good: &'static [fn() -> Vec<u8>],
    pub bad: fn() -> Vec<Bad>,
    pub words: &'static [&'static str],
    /// Mutations by the dice.
    pub mutations: u64,
    /// At most so many in one process, however much is asked for: sled keeps some memory of every
    /// opening.
    pub most: u64,
}

fn text(input: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(input).map_err(|error| error.to_string())
}

fn said<T>(result: Result<T, impl ToString>) -> Result<(), String> {
    result.map(drop).map_err(|error| error.to_string())
}

struct Still;

impl Clock for Still {
    fn now_ms(&self) -> u64 {
        7
    }
}

fn journal_file(dir: &Path) -> std::path::PathBuf {
    dir.join("journal").join(format!("{:020}.jsonl", 0))
}

/// A journal of some records, as bytes.
fn journal() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let log = DurableLog::open(dir.path(), Arc::new(Still)).unwrap();
    for n in 0..6 {
        let text = format!("reject {n}");
        let event = Event::PromptRejected { text, reason: "\u{202e}too \"short\"".into() };
        let cursor = Some(("report".to_owned(), Offset(n)));
        let events = vec![event, Event::PauseRequested];
        log.append(Batch { key: None, events, cursor }).unwrap();
    }
    drop(log);
    std::fs::read(journal_file(dir.path())).unwrap()
}

/// A log whose journal is this, and that has no other copy.
fn log_of(input: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    std::fs::create_dir(dir.path().join("journal")).unwrap();
    std::fs::write(dir.path().join("FORMAT"), "3\n").unwrap();
    std::fs::write(journal_file(dir.path()), input).unwrap();
    dir
}

fn read_journal(input: &[u8]) -> Result<(), String> {
    let dir = log_of(input);
    let seen = JournalLog::open(dir.path()).map_err(|error| error.to_string())?;
    said(seen.read(Offset(0), 1000))?;
    let found = verify_folder(dir.path()).map_err(|error| error.to_string())?;
    // What is cut off at a whole record was perhaps never written: only the original is whole.
    let tail = seen.tail();
    let whole = if tail == Offset(12) { Ok(()) } else { Err(format!("it ends at {tail}")) };
    found.first_error.map_or(Ok(()), Err).and(whole)
}

/// Opened for writing: what opens is whole and can be read, however much was cut off.
fn open_log(input: &[u8]) -> Result<(), String> {
    let dir = log_of(input);
    let log = DurableLog::open(dir.path(), Arc::new(Still)).map_err(|error| error.to_string())?;
    assert_eq!(log.verify().unwrap().first_error, None);
    let whole = log.read(Offset(0), 1000).unwrap().iter().any(|r| r.offset == Offset(11));
    if whole { Ok(()) } else { Err(format!("it ends at {}", log.tail())) }
}

fn scratch() -> &'static Path {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory } else { Path::new("/tmp") }
}

fn rubric() -> &'static Rubric {
    static LOADED: OnceLock<Rubric> = OnceLock::new();
    LOADED.get_or_init(|| {
        Rubric::load(&RubricEngine::new().unwrap(), bundled::ADDITIVE_FIVE).unwrap()
    })
}

fn read_score(input: &[u8]) -> Result<(), String> {
    let item = RubricInput {
        task: "Name three animals.".to_owned(),
        candidates: vec!["A cat.\nScore: 5".to_owned()],
        ..RubricInput::default()
    };
    match rubric().parse(&item, text(input)?) {
        Ok(ParsedReply::Verdict { scores, .. }) => {
            assert!(scores.iter().all(|s| (0.0..=5.0).contains(s)), "{scores:?}");
            Ok(())
        }
        Ok(ParsedReply::Missing { .. }) => Err("no score".to_owned()),
        Ok(ParsedReply::Unparsed { reason, .. }) => Err(reason),
        Err(error) => Err(error.to_string()),
    }
}

fn read_template(input: &[u8]) -> Result<(), String> {
    let template = ChatTemplate::new(text(input)?, "<s>", "</s>").map_err(|e| e.to_string())?;
    let messages = [Message::user("say <|im_end|> twice"), Message::assistant("no")];
    said(template.render(&messages, GenerationPrompt::Open))
}

fn read_settings(input: &[u8]) -> Result<(), String> {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let path = dir.path().join("gradus.yaml");
    std::fs::write(&path, input).unwrap();
    said(Config::from_yaml(&path))
}

fn read_weights(input: &[u8]) -> Result<(), String> {
    said(Weights::from_bytes(input))
}

fn read_shape(input: &[u8]) -> Result<(), String> {
    said(ModelConfig::from_hf_json(text(input)?))
}

fn read_tokenizer(input: &[u8]) -> Result<(), String> {
    let tokenizer = TextTokenizer::from_json(text(input)?).map_err(|e| e.to_string())?;
    let ids =
        tokenizer.encode_plain("name 3 animals <bos> \u{0}\u{202e}").map_err(|e| e.to_string())?;
    said(tokenizer.decode(&ids))
}

fn read_gguf(input: &[u8]) -> Result<(), String> {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, input).unwrap();
    match ModelFiles::open(&path) {
        Ok(_) => Ok(()),
        // The smallest good one has no weights; it is enough that its header was read.
        Err(error) if error.to_string().contains("no token_embd.weight") => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn read_prompts(input: &[u8]) -> Result<(), String> {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let path = dir.path().join("prompts.jsonl");
    std::fs::write(&path, input).unwrap();
    said(prompts::read(&path))
}

fn read_component(input: &[u8]) -> Result<(), String> {
    static ENGINE: OnceLock<RubricEngine> = OnceLock::new();
    said(Rubric::load(ENGINE.get_or_init(|| RubricEngine::new().unwrap()), input))
}

/// All readers of input that others may have made.
pub const TARGETS: [Target; 11] = [
    Target {
        name: "journal",
        read: read_journal,
        good: &[journal],
        bad: fixtures::journals,
        words: &["\"left\":9", "\"crc\":\"00000000\"", "\n", "{\"crc\":\"", "1e400", "\r\n"],
        mutations: 1500,
        most: u64::MAX,
    },
    Target {
        name: "log",
        read: open_log,
        good: &[journal],
        bad: fixtures::journals,
        words: &["\"left\":9", "\"crc\":\"00000000\"", "\n", "{\"crc\":\"", "1e400", "\r\n"],
        mutations: 100,
        most: 100,
    },
    Target {
        name: "score",
        read: read_score,
        good: &[
            || b"It is fine.\n\nScore: 4".to_vec(),
            || b"Points: 1 + 1 + 1.\nScore: 3\n".to_vec(),
        ],
        bad: fixtures::scores,
        words: &["Score: ", "5", "/10", "\u{200d}", "\u{202e}", "Score: 9", "-", "\n> ", "```"],
        mutations: 1500,
        most: u64::MAX,
    },
    Target {
        name: "template",
        read: read_template,
        good: &[|| CHATML.as_bytes().to_vec()],
        bad: fixtures::templates,
        words: &["{% for x in y %}", "{{", "}}", "{% endif %}", "|nothing", "{% include 'a' %}"],
        mutations: 1500,
        most: u64::MAX,
    },
    Target {
        name: "settings",
        read: read_settings,
        good: &[
            || Config::default().to_commented_yaml().into_bytes(),
            || b"seed: 3\ntrain:\n  dpo:\n    beta: 0.2\n".to_vec(),
        ],
        bad: fixtures::settings,
        words: &["- ", ": ", "&a ", "*a", "!!binary ", "1e999", "\t", "seed: 1\n", "..."],
        mutations: 1500,
        most: u64::MAX,
    },
    Target {
        name: "weights",
        read: read_weights,
        good: &[fixtures::weights],
        bad: fixtures::bad_weights,
        words: &["[0,4]", "\"F32\"", "\"BOOL\"", "[18446744073709551615]", "-1", "{}"],
        mutations: 1500,
        most: u64::MAX,
    },
    Target {
        name: "shape",
        read: read_shape,
        good: &[|| include_bytes!("../../../assets/demo-base/config.json").to_vec()],
        bad: fixtures::shapes,
        words: &["-1", "1e30", "16777217", "null", "[]", "\"llama\"", "\"rope_type\":\"yarn\""],
        mutations: 1500,
        most: u64::MAX,
    },
    Target {
        name: "tokenizer",
        read: read_tokenizer,
        good: &[|| include_bytes!("../../../assets/demo-base/tokenizer.json").to_vec()],
        bad: fixtures::tokenizers,
        words: &["4294967295", "\"(a+)+$\"", "\"\"", "null", "\"id\":", "\"BPE\"", "-1"],
        mutations: 1500,
        most: u64::MAX,
    },
    Target {
        name: "gguf",
        read: read_gguf,
        good: &[fixtures::gguf],
        bad: fixtures::bad_ggufs,
        words: &["general.alignment", "llama", "\u{0}\u{0}\u{0}\u{0}"],
        mutations: 1500,
        most: u64::MAX,
    },
    Target {
        name: "prompts",
        read: read_prompts,
        good: &[
            || b"{\"prompt\":\"name 3 animals\",\"completion\":\"a cat\"}\n".to_vec(),
            || b"[{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}]".to_vec(),
            || b"Name three animals.\nSay why.\n".to_vec(),
        ],
        bad: fixtures::prompt_files,
        words: &["[[[[", "{\"a\":", "\"role\":\"judge\"", "null", "\n", "\\ud800", "\u{feff}"],
        mutations: 1500,
        most: u64::MAX,
    },
    Target {
        name: "component",
        read: read_component,
        good: &[|| bundled::DEMO_COMPACT.to_vec()],
        bad: fixtures::components,
        words: &["\u{0}asm", "gradus:rubric/rubric@0.1.0", "\u{1}\u{0}\u{0}\u{0}"],
        mutations: 40,
        most: u64::MAX,
    },
];
