//! The pairs that iterations trained on, as preference data that other trainers open.

use super::RunExport;
use super::manifest::Manifest;
use super::preference::PairRow;
use super::target::NewFolder;
use crate::domain::{Iteration, PairId, PromptId};
use crate::error::{Code, Error};
use crate::log::Log;
use crate::stage::StageError;
use crate::stage::bodies::Bodies;
use crate::view::IterationView;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;

/// Rows of an export of pairs.
const ROWS: &str = "train.jsonl";

/// The form that rows have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PairsFormat {
    /// TRL's conversational preference with an explicit prompt, which it recommends.
    #[default]
    Trl,
    /// The same with the prompt inside both sides.
    TrlImplicit,
    /// TRL's unpaired preference: a row for each side, and whether it is wanted.
    Kto,
    /// axolotl's `chat_template.default`.
    Axolotl,
    /// LLaMA-Factory's ShareGPT ranking.
    LlamaFactory,
}

impl PairsFormat {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            PairsFormat::Trl => "trl",
            PairsFormat::TrlImplicit => "trl-implicit",
            PairsFormat::Kto => "kto",
            PairsFormat::Axolotl => "axolotl",
            PairsFormat::LlamaFactory => "llama-factory",
        }
    }
}

impl RunExport {
    /// Exports the pairs that the run's iterations trained on, of all or of one.
    ///
    /// # Errors
    /// When something is at `to`, there are no pairs, their texts were dropped when the log was
    /// compacted, or the disk refuses.
    pub fn pairs(
        &self,
        to: &Path,
        format: PairsFormat,
        only: Option<Iteration>,
    ) -> Result<Manifest, Error> {
        let folder = NewFolder::begin(to)?;
        let mut manifest = self.manifest("pairs", None, format.name().to_owned());
        let (mut text, mut rows) = (String::new(), 0u64);
        for (iteration, open) in &self.view.iterations {
            if only.is_some_and(|only| only != *iteration) {
                continue;
            }
            for pair in self.rows_of(*iteration, open)? {
                for row in pair.rows(format) {
                    rows += 1;
                    text += &row.to_string();
                    text.push('\n');
                }
            }
        }
        if rows == 0 {
            let which = only.map_or_else(String::new, |n| format!(" in iteration {n}"));
            let message =
                format!("the run has trained on no pairs{which}: there is nothing to export");
            return Err(Error::refused(Code::NothingToExport, message));
        }
        manifest.rows = Some(rows);
        folder.write(ROWS, text)?;
        if format == PairsFormat::LlamaFactory {
            folder.write("dataset_info.json", format!("{:#}\n", dataset_info(&self.name())))?;
        }
        folder.write("README.md", self.data_card(format, rows))?;
        manifest.finish(folder)
    }

    /// The pairs that an iteration trained on, with their texts.
    fn rows_of(&self, iteration: Iteration, open: &IterationView) -> Result<Vec<PairRow>, Error> {
        let blobs = self.folder.blobs();
        let bodies = Bodies { log: &self.log, blobs: blobs.as_ref() };
        let sealed: BTreeSet<&PairId> = open.sealed.iter().flatten().collect();
        let trained = open.pairs.iter().filter(|(_, (id, _))| sealed.contains(id));
        let row = |prompt: &PromptId, at| -> Result<PairRow, StageError> {
            let pair = bodies.pair(at)?;
            let places = open.samples_of(prompt).ok_or_else(|| dropped(prompt))?;
            let answers = bodies.answers(&places)?;
            let rubrics = open.prompt_judgments.get(prompt);
            Ok(PairRow {
                prompt: bodies.prompt(&self.view, prompt)?.messages,
                chosen: bodies.side_text(&pair.chosen, &answers)?,
                rejected: bodies.side_text(&pair.rejected, &answers)?,
                iteration: iteration.0,
                policy: open.policy.id().to_string(),
                rubrics: rubrics.iter().flat_map(|j| &j.rubrics).map(ToString::to_string).collect(),
                pair,
            })
        };
        let rows = trained.map(|(prompt, (_, at))| row(prompt, *at));
        rows.collect::<Result<Vec<PairRow>, StageError>>().map_err(|error| match error {
            StageError::Missing(what) if self.log.compacted().is_some() => Error::refused(
                Code::RecordsDropped,
                format!(
                    "iteration {iteration}'s texts were dropped when the log was compacted ({what}). \
                     Export later iterations (--iteration), or a copy of the folder from before that"
                ),
            ),
            other => other.into(),
        })
    }

    fn data_card(&self, format: PairsFormat, rows: u64) -> String {
        let name = self.name();
        format!(
            "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {ROWS}\ntags: \
             [preference, dpo, gradus]\n---\n\n# Pairs of {name}\n\n{rows} rows of the form `{}`, which \
             the gradus run `{name}` trained on: answers of a model, chosen and rejected by its own \
             judgment. `score_*` are the judge's means (null: nobody scored it), `weight` and `certainty` \
             are what the pair's loss was weighted by and how certainly chosen is the better side, \
             `policy` is who answered and `rubrics` under what was judged.\n\n`gradus.json` has every \
             file with its SHA-256. The licence is that of the prompts and of the model.\n",
            format.name()
        )
    }
}

fn dropped(prompt: &PromptId) -> StageError {
    StageError::Missing(format!("the answers to prompt {prompt}"))
}

/// How LLaMA-Factory is told of the file.
fn dataset_info(name: &str) -> serde_json::Value {
    json!({ name: {
        "file_name": ROWS,
        "formatting": "sharegpt",
        "ranking": true,
        "columns": {
            "messages": "conversations", "chosen": "chosen", "rejected": "rejected",
        },
    }})
}
