//! The prompts of a run, and what became of each.

use super::RunExport;
use super::manifest::Manifest;
use super::pairs::{ROWS, also_parquet};
use super::target::NewFolder;
use crate::domain::{Iteration, Message, PromptId, PromptOrigin};
use crate::error::Error;
use crate::stage::StageError;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// What became of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptState {
    /// It waits to be answered.
    Waiting,
    /// An iteration answers or answered it.
    Answered,
    /// It is never trained on: policies are measured with it.
    HeldOut,
    /// It is shown when the policy writes new prompts.
    Demonstration,
}

/// A prompt of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PromptSummary {
    /// Its turns: what TRL calls a prompt-only row.
    pub prompt: Vec<Message>,
    /// Its id.
    pub prompt_id: PromptId,
    /// What became of it.
    pub state: PromptState,
    /// Where it came from.
    pub origin: PromptOrigin,
    /// The iterations that answered it.
    pub iterations: Vec<Iteration>,
    /// Of those that wait, the highest are answered first.
    pub priority: i32,
    /// A known good answer, for rubrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Which rubrics are for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl RunExport {
    /// All prompts of the run: those that wait, in the order in which they will be answered, then those
    /// that were answered, those that are held out, and those that are shown.
    fn prompt_ids(&self) -> Vec<(PromptId, PromptState)> {
        let view = &self.view;
        let mut all: Vec<(PromptId, PromptState)> =
            view.unused().map(|(id, _)| (id.clone(), PromptState::Waiting)).collect();
        all.extend(view.answered().map(|id| (id.clone(), PromptState::Answered)));
        all.extend(view.never_trained_on().map(|(id, _)| (id.clone(), PromptState::HeldOut)));
        let shown = view.prompts.iter().filter(|(_, f)| f.origin == PromptOrigin::Demonstration);
        all.extend(shown.map(|(id, _)| (id.clone(), PromptState::Demonstration)));
        all
    }

    /// The prompts of the run that are in a state, or all.
    ///
    /// # Errors
    /// When their texts cannot be read.
    pub fn prompt_list(&self, only: Option<PromptState>) -> Result<Vec<PromptSummary>, Error> {
        let mut answered_in: BTreeMap<&PromptId, Vec<Iteration>> = BTreeMap::new();
        for (iteration, open) in self.iterations(None) {
            for prompt in open.prompts.iter().flatten() {
                answered_in.entry(prompt).or_default().push(iteration);
            }
        }
        let bodies = self.bodies();
        let ids = self.prompt_ids();
        let wanted = ids.iter().filter(|(_, state)| only.is_none_or(|only| only == *state));
        let summary = |(id, state): &(PromptId, PromptState)| {
            let prompt = bodies.prompt(&self.view, id)?;
            let facts = self.view.prompts.get(id);
            Ok(PromptSummary {
                prompt_id: id.clone(),
                state: *state,
                // It may have been held out since.
                origin: facts.map_or(prompt.origin, |facts| facts.origin),
                iterations: answered_in.get(id).cloned().unwrap_or_default(),
                priority: prompt.priority,
                reference: prompt.notes.reference,
                tags: prompt.notes.tags,
                prompt: prompt.messages,
            })
        };
        let read: Result<Vec<PromptSummary>, StageError> = wanted.map(summary).collect();
        Ok(read?)
    }

    /// Exports the prompts of the run, all or those in a state, as prompt-only rows.
    ///
    /// # Errors
    /// When something is at `to`, there are none, their texts cannot be read, or the disk refuses.
    pub fn prompts(&self, to: &Path, only: Option<PromptState>) -> Result<Manifest, Error> {
        let folder = NewFolder::begin(to)?;
        let mut file = folder.rows(ROWS)?;
        self.prompt_list(only)?.iter().try_for_each(|prompt| file.push(prompt))?;
        let rows = file.finish("the run has no such prompts")?;
        also_parquet(&folder)?;
        let mut manifest = self.manifest("prompts", None, "jsonl".to_owned());
        manifest.rows = Some(rows);
        let what = "prompts, and what became of each (`state`, `iterations`)";
        folder.write("README.md", self.data_card("Prompts", what, rows))?;
        manifest.finish(folder)
    }
}
