//! The pairs that iterations trained on, as preference data that other trainers open.

use super::RunExport;
use super::manifest::Manifest;
use super::parquet::from_json_lines;
use super::preference::PairRow;
use super::target::NewFolder;
use crate::domain::{Iteration, Offset, PairId, PromptId};
use crate::error::{Code, Error};
use crate::log::Log;
use crate::stage::StageError;
use crate::stage::bodies::Bodies;
use crate::view::IterationView;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;

/// Rows of an export that has rows.
pub(super) const ROWS: &str = "train.jsonl";
/// The same as Parquet.
const PARQUET: &str = "train.parquet";

/// Writes an export's rows as Parquet, too.
pub(super) fn also_parquet(folder: &NewFolder) -> Result<(), Error> {
    from_json_lines(&folder.path().join(ROWS), &folder.path().join(PARQUET))
}

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
        let mut file = folder.rows(ROWS)?;
        for (iteration, open) in self.iterations(only) {
            let trained =
                self.rows_of(iteration, open)?.into_iter().filter(|(_, trained)| *trained);
            let mut rows = trained.flat_map(|(pair, _)| pair.rows(format));
            rows.try_for_each(|row| file.push(&row))?;
        }
        let which = only.map_or_else(String::new, |n| format!(" in iteration {n}"));
        let rows = file.finish(&format!("the run has trained on no pairs{which}"))?;
        manifest.rows = Some(rows);
        also_parquet(&folder)?;
        if format == PairsFormat::LlamaFactory {
            folder.write("dataset_info.json", format!("{:#}\n", dataset_info(&self.name())))?;
        }
        let what = format!(
            "pairs of answers (form `{}`), chosen and rejected by the model's own judgment, that the run \
             trained on. `score_*` are the judge's means (null: nobody scored it), `weight` and \
             `certainty` are what the pair's loss was weighted by and how certainly chosen is the better \
             side, `policy` is who answered and `rubrics` under what was judged",
            format.name()
        );
        folder.write("README.md", self.data_card("Pairs", &what, rows))?;
        manifest.finish(folder)
    }

    /// The run's iterations, all of them or one.
    pub(super) fn iterations(
        &self,
        only: Option<Iteration>,
    ) -> impl Iterator<Item = (Iteration, &IterationView)> {
        let wanted = move |iteration: &Iteration| only.is_none_or(|only| only == *iteration);
        let all = self.view.iterations.iter().map(|(iteration, open)| (*iteration, &**open));
        all.filter(move |(iteration, _)| wanted(iteration))
    }

    /// What is recorded in the run's log.
    pub(super) fn bodies(&self) -> Bodies<'_> {
        Bodies { log: &self.log, blobs: self.blobs.as_ref() }
    }

    /// The pairs that an iteration formed, with their texts, and whether it trained on them.
    pub(super) fn rows_of(
        &self,
        iteration: Iteration,
        open: &IterationView,
    ) -> Result<Vec<(PairRow, bool)>, Error> {
        let sealed: BTreeSet<&PairId> = open.sealed.iter().flatten().collect();
        let row = |(prompt, (id, at)): (&PromptId, &(PairId, Offset))| {
            Ok((self.pair_row(iteration, open, prompt, *at)?, sealed.contains(id)))
        };
        let rows: Result<Vec<(PairRow, bool)>, StageError> = open.pairs.iter().map(row).collect();
        rows.map_err(|error| self.unread(iteration, error))
    }

    pub(super) fn pair_row(
        &self,
        iteration: Iteration,
        open: &IterationView,
        prompt: &PromptId,
        at: Offset,
    ) -> Result<PairRow, StageError> {
        let bodies = self.bodies();
        let pair = bodies.pair(at)?;
        let missing = || StageError::Missing(format!("the answers to prompt {prompt}"));
        let answers = bodies.answers(&open.samples_of(prompt).ok_or_else(missing)?)?;
        let rubrics = open.prompt_judgments.get(prompt);
        let named = |rubric| crate::report::rubric_name(&self.view, rubric);
        Ok(PairRow {
            prompt: bodies.prompt(&self.view, prompt)?.messages,
            chosen: bodies.side_text(&pair.chosen, &answers)?,
            rejected: bodies.side_text(&pair.rejected, &answers)?,
            iteration: iteration.0,
            policy: open.policy.id().to_string(),
            rubrics: rubrics.iter().flat_map(|j| &j.rubrics).map(named).collect(),
            pair,
        })
    }

    /// Why an iteration's texts cannot be read.
    pub(super) fn unread(&self, iteration: Iteration, error: StageError) -> Error {
        match error {
            StageError::Missing(what) if self.log.compacted().is_some() => Error::refused(
                Code::RecordsDropped,
                format!(
                    "iteration {iteration}'s texts were dropped when the log was compacted ({what}). \
                     Ask for later iterations (--iteration), or for a copy of the folder from before that"
                ),
            ),
            other => other.into(),
        }
    }

    /// `README.md` of rows, with what `datasets.load_dataset(FOLDER)` looks for.
    pub(super) fn data_card(&self, title: &str, what: &str, rows: u64) -> String {
        let name = self.name();
        format!(
            "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {ROWS}\ntags: \
             [preference, gradus]\n---\n\n# {title} of {name}\n\n{rows} rows from the gradus run `{name}`: \
             {what}.\n\n`{PARQUET}` has the same rows. `gradus.json` has every file with its SHA-256. The licence is that of the prompts \
             and of the model.\n",
        )
    }
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
