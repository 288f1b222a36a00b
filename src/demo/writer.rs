//! How the demo's model is asked for prompts: its grammar has a token that begins a task, and it
//! goes on with the list. The model knows no chat about tasks, so it is asked in bare ids.

use crate::domain::{Completion, Prompt};
use crate::engine::{EngineError, Prepared};
use crate::prompts::list::ListItem;
use crate::stage::writer::{Asked, PromptFilter, PromptWriter, WriterQuestion};
use std::collections::BTreeSet;

/// Asks with the demo's `<task>` token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tagged;

impl Tagged {
    /// Its name in plans, and in settings of old.
    pub const NAME: &str = "tagged";
}

impl PromptWriter for Tagged {
    fn name(&self) -> &str {
        Tagged::NAME
    }

    fn ask(
        &self,
        demonstrations: Vec<String>,
        _: u32,
        asked: &Asked<'_>,
    ) -> Result<WriterQuestion, EngineError> {
        let mut text = String::from("<bos> <task>");
        for shot in &demonstrations {
            text.push_str(&format!(" {shot} <task>"));
        }
        let ids = asked.vocabulary.encode_template(&text)?;
        let stop_ids = asked.vocabulary.encode_template("<task>")?;
        Ok(WriterQuestion { prompt: Prepared { ids, ..Prepared::default() }, stop_ids })
    }

    fn items(&self, said: &Completion) -> Vec<ListItem> {
        vec![ListItem { text: said.text.trim().to_owned(), cut: false }]
    }

    fn filter(&self) -> Box<dyn PromptFilter> {
        Box::new(Sentence::default())
    }
}

/// What is a sentence of the demo's grammar and not known word for word.
#[derive(Default)]
struct Sentence {
    known: BTreeSet<String>,
}

impl PromptFilter for Sentence {
    fn know(&mut self, prompt: &Prompt) {
        self.known.insert(prompt.task_text().to_owned());
    }

    fn accept(&self, item: &ListItem) -> Result<(), String> {
        let text = item.text.as_str();
        let words = text.split_whitespace().count();
        if !(3..=16).contains(&words) {
            return Err(format!("{words} words, not 3 to 16"));
        }
        if !text.ends_with('.') || text.contains('<') {
            return Err("no full stop at the end, or a special token inside".to_owned());
        }
        if self.known.contains(text) {
            return Err("known already".to_owned());
        }
        Ok(())
    }
}
