//! Prompt files as people have them: which shape a file has is recognised, said, and checked line
//! by line. Knows files and the words of the domain, no model.

pub mod alike;
pub mod held_out;
mod ifeval;
pub mod list;
mod pointing;
pub mod request;
pub mod self_instruct;
mod sentences;
mod shapes;

pub use shapes::Shape;

use crate::codes::Code;
use crate::domain::event::SeedRow;
use crate::domain::{Message, Notes, Prompt, PromptId, PromptOrigin, Role};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// What can go wrong with a prompt file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromptsError {
    /// The file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is not what the file's other lines are.
    #[error("{path}:{line} {reason}")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What does not fit, and what to do.
        reason: String,
    },
    /// No prompt is in the file.
    #[error(
        "{0} holds no prompt. One per line, as text, as a JSON string, or as an object \
         with messages, prompt, instruction or conversations"
    )]
    Empty(PathBuf),
}

impl PromptsError {
    /// What happened, as programs tell it apart.
    pub fn code(&self) -> Code {
        match self {
            PromptsError::Io { source, .. } => Code::of_io(source),
            PromptsError::Line { .. } => Code::PromptLineUnreadable,
            PromptsError::Empty(_) => Code::PromptFileEmpty,
        }
    }

    /// Whether the same call may succeed later, with nothing in it changed.
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }
}

/// A prompt and, where the file has one, a known answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The turns up to the answer.
    pub messages: Vec<Message>,
    /// The answer.
    pub completion: Option<String>,
    /// What comes with it for rubrics.
    pub notes: Notes,
}

/// A prompt file, read.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptFile {
    /// What its lines are.
    pub shape: Shape,
    /// Its prompts, without repeats, in order.
    pub rows: Vec<Row>,
    /// Repeats that were left out.
    pub repeats: usize,
}

impl PromptFile {
    /// The prompts.
    pub fn prompts(self, origin: PromptOrigin) -> Vec<Prompt> {
        let prompt = |row: Row| Prompt::new(row.messages, origin).noted(row.notes);
        self.rows.into_iter().map(prompt).collect()
    }

    /// The prompts that have an answer, each with it.
    pub fn answered(self, origin: PromptOrigin) -> Vec<(Prompt, String)> {
        let with_answer = self.rows.into_iter().filter_map(|row| {
            Some((Prompt::new(row.messages, origin).noted(row.notes), row.completion?))
        });
        with_answer.collect()
    }

    /// The rows that have an answer, as seed data.
    pub fn seed_rows(self) -> Vec<SeedRow> {
        let with_answer = self.rows.into_iter().filter_map(|row| {
            Some(SeedRow { completion: row.completion?, messages: row.messages })
        });
        with_answer.collect()
    }

    /// One line for a person: what was recognised.
    pub fn summary(&self) -> String {
        let answered = self.rows.iter().filter(|row| row.completion.is_some()).count();
        format!(
            "{} prompts ({}), {answered} with an answer, {} repeats left out",
            self.rows.len(),
            self.shape.describe(),
            self.repeats
        )
    }
}

/// Reads a prompt file (`.jsonl`, `.json` with an array, or text).
///
/// # Errors
/// [`PromptsError`] with file, line and what to do.
pub fn read(path: &Path) -> Result<PromptFile, PromptsError> {
    parse(path, &text_in(path)?)
}

/// As [`read`], from a text; `path` is for messages.
///
/// # Errors
/// As [`read`].
pub fn parse(path: &Path, text: &str) -> Result<PromptFile, PromptsError> {
    rows(path, text, RepeatRule::SamePrompt)
}

/// IFEval's prompts, which come with gradus (CC BY 4.0, `assets/ifeval`).
///
/// # Errors
/// None: they are read by a test.
pub fn ifeval_prompts() -> Result<PromptFile, PromptsError> {
    parse(Path::new("ifeval"), include_str!("../../assets/ifeval/input_data.jsonl"))
}

/// As [`read`], where several rows may have the same prompt: those with another answer are no repeats.
///
/// # Errors
/// As [`read`].
pub fn read_answers(path: &Path) -> Result<PromptFile, PromptsError> {
    rows(path, &text_in(path)?, RepeatRule::SameAnswer)
}

fn text_in(path: &Path) -> Result<String, PromptsError> {
    std::fs::read_to_string(path)
        .map_err(|source| PromptsError::Io { path: path.to_owned(), source })
}

/// Which rows of a file are repeats.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RepeatRule {
    /// Those with a prompt that an earlier one has.
    SamePrompt,
    /// Those with its answer, too.
    SameAnswer,
}

fn rows(path: &Path, text: &str, repeats: RepeatRule) -> Result<PromptFile, PromptsError> {
    let bad =
        |line: usize, reason: String| PromptsError::Line { path: path.to_owned(), line, reason };
    let mut seen = HashSet::new();
    let mut file: Option<PromptFile> = None;
    for value in shapes::lines(path, text)? {
        let (line, value) = value?;
        let shape = match &file {
            Some(file) => file.shape,
            None => Shape::of(&value).map_err(|reason| bad(line, reason))?,
        };
        let file = file.get_or_insert(PromptFile { shape, rows: Vec::new(), repeats: 0 });
        let row = shape.row(value).map_err(|reason| bad(line, reason))?;
        let asked = row.messages.last().is_some_and(|m| m.role == Role::User);
        if !asked || row.messages.iter().any(|m| m.content.trim().is_empty()) {
            let reason = "the last turn is not the user's, or a turn is empty".to_owned();
            return Err(bad(line, reason));
        }
        let answer = row.completion.clone().filter(|_| repeats == RepeatRule::SameAnswer);
        if seen.insert((PromptId::of(&row.messages), answer)) {
            file.rows.push(row);
        } else {
            file.repeats += 1;
        }
    }
    file.ok_or_else(|| PromptsError::Empty(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<PromptFile, String> {
        parse(Path::new("p.jsonl"), text).map_err(|e| e.to_string())
    }

    #[test]
    fn shapes_are_recognised() {
        for (text, shape, asked, answer) in [
            (r#"{"messages":[{"role":"user","content":"hi"}]}"#, Shape::Messages, "hi", None),
            (
                r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"ho"}]}"#,
                Shape::Messages,
                "hi",
                Some("ho"),
            ),
            (r#"{"prompt":"hi","completion":"ho"}"#, Shape::Prompt, "hi", Some("ho")),
            (r#"{"prompt":[{"role":"user","content":"hi"}]}"#, Shape::Prompt, "hi", None),
            (r#"{"instruction":"a","input":"b","output":"c"}"#, Shape::Alpaca, "a\n\nb", Some("c")),
            (r#"{"instruction":"a","input":"","output":""}"#, Shape::Alpaca, "a", None),
            (
                r#"{"conversations":[{"from":"human","value":"hi"},{"from":"gpt","value":"ho"}]}"#,
                Shape::ShareGpt,
                "hi",
                Some("ho"),
            ),
            (
                r#"{"instruction":"a","instances":[{"input":"b","output":"c"}],"id":"x"}"#,
                Shape::SelfInstruct,
                "a\n\nb",
                Some("c"),
            ),
            (r#""hi""#, Shape::JsonString, "hi", None),
            ("what is {this}?", Shape::Text, "what is {this}?", None),
        ] {
            let file = check(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(file.shape, shape, "{text}");
            assert_eq!(file.rows[0].messages.last().unwrap().content, asked);
            assert_eq!(file.rows[0].completion.as_deref(), answer, "{text}");
        }
        let array = check("[{\"prompt\":\"a\"},\n {\"prompt\":\"b\"}]").unwrap();
        assert_eq!(array.rows.len(), 2);
    }

    #[test]
    fn a_mixed_file_names_the_line_and_the_keys() {
        let text = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n\n{\"question\":\"q\",\"answer\":\"a\"}";
        let error = check(text).unwrap_err();
        assert!(error.contains("p.jsonl:3") && error.contains("question, answer"), "{error}");
        assert!(error.contains("messages"), "{error}");
    }

    #[test]
    fn bad_lines_and_empty_files() {
        assert!(check("").unwrap_err().contains("no prompt"));
        assert!(check("{\"prompt\": 3}").unwrap_err().contains(":1"));
        assert!(check("{\"prompt\": \"a\"").unwrap_err().contains("not valid JSON"));
        assert!(check("{\"prompt\": \"  \"}").unwrap_err().contains("empty"));
    }

    #[test]
    fn what_rubrics_want_to_know_comes_with_the_prompt() {
        let text =
            r#"{"prompt":"a","tags":["math"],"reference":"b","fields":{"keywords:existence":"c"}}"#;
        let prompt = check(text).unwrap().prompts(PromptOrigin::Given).remove(0);
        assert_eq!(prompt.notes.tags, ["math"]);
        assert_eq!(prompt.notes.reference.as_deref(), Some("b"));
        assert_eq!(prompt.notes.fields["keywords:existence"], "c");
        for (text, what) in [
            (r#"{"prompt":"a","tags":"math"}"#, "tags is not a list of texts"),
            (r#"{"prompt":"a","fields":["x"]}"#, "fields is not an object of texts"),
            (r#"{"prompt":"a","reference":3}"#, "reference is not text"),
        ] {
            assert!(check(text).unwrap_err().contains(what), "{text}");
        }
    }

    #[test]
    fn repeats_are_counted() {
        let file = check("\"a\"\n\"b\"\n\"a\"").unwrap();
        assert_eq!((file.rows.len(), file.repeats), (2, 1));
        assert!(file.summary().contains("2 prompts (JSON strings)"), "{}", file.summary());
    }
}
