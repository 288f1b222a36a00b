//! Prompts: which wait to be answered and in which order, and which are never trained on. Kept as
//! they come and go, so that nobody who asks goes through the pool.

use super::{PromptFacts, RunView, SharedSet};
use crate::domain::{Iteration, Offset, Prompt, PromptId, PromptOrigin};
use std::cmp::Reverse;

/// A prompt's place among those that wait: the least is answered next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    priority: Reverse<i32>,
    /// Where it was admitted; 0 for all that were there before the first iteration, which are taken
    /// in the order of their ids. Those are hashes: a file that is sorted by topic is mixed so.
    arrived: Offset,
    prompt: PromptId,
}

fn is_trained_on(origin: PromptOrigin) -> bool {
    matches!(origin, PromptOrigin::Given | PromptOrigin::Generated)
}

impl RunView {
    fn turn(&self, prompt: &PromptId, facts: &PromptFacts) -> Turn {
        let from_the_first = self.began.is_none_or(|began| facts.offset < began);
        let arrived = if from_the_first { Offset(0) } else { facts.offset };
        Turn { priority: Reverse(facts.priority), arrived, prompt: prompt.clone() }
    }

    pub(super) fn admit(&mut self, prompt: &Prompt, offset: Offset) {
        let facts = PromptFacts { offset, origin: prompt.origin, priority: prompt.priority };
        // The first one counts; there hardly ever is a second.
        match self.prompts.insert(prompt.id.clone(), facts) {
            None => self.index_prompt(&prompt.id, &facts),
            Some(before) => drop(self.prompts.insert(prompt.id.clone(), before)),
        }
    }

    fn index_prompt(&mut self, prompt: &PromptId, facts: &PromptFacts) {
        if facts.origin == PromptOrigin::HeldOut {
            self.never_trained_on.insert(prompt.clone());
        } else if is_trained_on(facts.origin) && !self.used.contains(prompt) {
            self.waiting.insert(self.turn(prompt, facts));
        }
    }

    /// Makes the indices anew, of a view that was read.
    pub(super) fn index_prompts(&mut self) {
        (self.waiting, self.never_trained_on) = (SharedSet::default(), SharedSet::default());
        let prompts = self.prompts.clone();
        for (prompt, facts) in &prompts {
            self.index_prompt(prompt, facts);
        }
    }

    /// An iteration answers these.
    pub(super) fn use_prompts(&mut self, iteration: Iteration, prompts: &[PromptId]) {
        let again = prompts.iter().filter(|prompt| self.used.contains(*prompt)).count();
        if let Some(open) = self.iterations.get_mut(&iteration) {
            open.reused += again as u32;
        }
        for prompt in prompts {
            if let Some(facts) = self.prompts.get(prompt) {
                let turn = self.turn(prompt, facts);
                self.waiting.remove(&turn);
            }
            self.used.insert(prompt.clone());
        }
    }

    /// These prompts are held out from here on.
    pub(super) fn hold_out(&mut self, prompts: &[PromptId], wanted: u32) {
        for id in prompts {
            let Some(facts) = self.prompts.get(id) else { continue };
            let turn = self.turn(id, facts);
            self.waiting.remove(&turn);
            self.never_trained_on.insert(id.clone());
            if let Some(facts) = self.prompts.get_mut(id) {
                facts.origin = PromptOrigin::HeldOut;
            }
        }
        self.held_out_wanted = Some(wanted);
        self.measured_max = Some(wanted);
    }

    fn with_facts<'v>(
        &'v self,
        prompts: impl Iterator<Item = &'v PromptId>,
    ) -> impl Iterator<Item = (&'v PromptId, &'v PromptFacts)> {
        prompts.filter_map(|prompt| Some((prompt, self.prompts.get(prompt)?)))
    }

    /// Prompts for training that no iteration has used, in the order in which they are answered: of a
    /// higher priority first, then those that were there before the first iteration, in the order of
    /// their ids, then the others as they came.
    pub fn unused(&self) -> impl Iterator<Item = (&PromptId, &PromptFacts)> {
        self.with_facts(self.waiting.iter().map(|turn| &turn.prompt))
    }

    /// How many those are.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Prompts for training that an iteration has answered, in the order of their ids.
    pub fn answered(&self) -> impl Iterator<Item = &PromptId> {
        let known = self.with_facts(self.used.iter());
        known.filter(|(_, facts)| is_trained_on(facts.origin)).map(|(prompt, _)| prompt)
    }

    /// Prompts that are never trained on, in the order of their ids.
    pub fn never_trained_on(&self) -> impl Iterator<Item = (&PromptId, &PromptFacts)> {
        self.with_facts(self.never_trained_on.iter())
    }

    /// How many those are. They become more, and never fewer.
    pub fn never_trained_on_count(&self) -> usize {
        self.never_trained_on.len()
    }

    /// Prompts to measure on, in the order of their ids: those that are never trained on, or as
    /// many of them as `prompts.held_out` was changed to.
    pub fn held_out(&self) -> impl Iterator<Item = (&PromptId, &PromptFacts)> {
        let most = self.measured_max.map_or(usize::MAX, |most| most as usize);
        self.never_trained_on().take(most)
    }
}
