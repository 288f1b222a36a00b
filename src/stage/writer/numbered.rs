//! The product's own way of asking for prompts: a numbered list that the model goes on with in its
//! turn. (Asked in the user's turn, a small model repeats the list or answers it.)

use super::{Asked, PromptFilter, PromptWriter, WriterQuestion};
use crate::domain::plan::WriterPlan;
use crate::domain::{Completion, Message, Prompt, PromptOrigin, StopReason};
use crate::engine::EngineError;
use crate::prompts::alike::Known;
use crate::prompts::held_out::HeldOut;
use crate::prompts::list::{self, ListItem};
use crate::prompts::self_instruct;

/// With fewer demonstrations than this that show what is wanted, the others are shown too.
const GOOD_MIN: usize = 8;

/// Asks for a numbered list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Numbered;

impl PromptWriter for Numbered {
    fn name(&self) -> &str {
        WriterPlan::NUMBERED
    }

    /// Leaves the texts that show what is wanted; all of them where hardly any does.
    fn demonstrating(&self, texts: Vec<String>) -> Vec<String> {
        let good = texts.iter().filter(|text| self_instruct::demonstrates(text));
        let good: Vec<String> = good.cloned().collect();
        if good.len() >= GOOD_MIN.min(texts.len()) { good } else { texts }
    }

    /// The request, and the model's own turn begun with the demonstrations: it goes on with the
    /// list.
    fn ask(
        &self,
        mut demonstrations: Vec<String>,
        max_new_tokens: u32,
        asked: &Asked<'_>,
    ) -> Result<WriterQuestion, EngineError> {
        let most = asked.model.context_tokens_max();
        loop {
            let begun = self_instruct::open_list(&demonstrations);
            let request = [Message::user(self_instruct::REQUEST)];
            let prompt = asked.model.prepare(&request, &begun)?;
            let fits = most.is_none_or(|most| prompt.ids.len() + max_new_tokens as usize <= most);
            let longest =
                (0..demonstrations.len()).max_by_key(|at| demonstrations.get(*at).map(String::len));
            match longest.filter(|_| !fits) {
                Some(at) => drop(demonstrations.remove(at)),
                None => return Ok(WriterQuestion { prompt, stop_ids: Vec::new() }),
            }
        }
    }

    fn items(&self, said: &Completion) -> Vec<ListItem> {
        list::split(&said.text, said.stop == StopReason::Length)
    }

    fn filter(&self) -> Box<dyn PromptFilter> {
        Box::new(Different::default())
    }
}

/// What is unlike every known prompt, and far from every held-out one.
#[derive(Default)]
struct Different {
    known: Known,
    held_out: HeldOut,
}

impl PromptFilter for Different {
    fn know(&mut self, prompt: &Prompt) {
        self.known.add(prompt.task_text());
        if prompt.origin == PromptOrigin::HeldOut {
            self.held_out.add(prompt);
        }
    }

    fn accept(&self, item: &ListItem) -> Result<(), String> {
        if self.held_out.in_chat(&[Message::user(item.text.as_str())]).is_some() {
            return Err("is held out, or nearly: what is measured is not trained on".into());
        }
        self_instruct::accept(item, &self.known)
    }
}
