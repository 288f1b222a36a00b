//! What a report shows of a run's texts: read in one pass over the log, and then the few that were
//! chosen.

use super::RunExport;
use super::answers::JudgedAnswer;
use crate::config::{Config, differences};
use crate::domain::evaluation::Referee;
use crate::domain::{Event, Iteration, Message, Offset, PairId, PromptId, RubricId};
use crate::error::Error;
use crate::estimate::parameters;
use crate::lm::config::ModelConfig;
use crate::log::walk;
use crate::report::{
    AnswerExample, BeforeAfter, BeforeAfterExamples, EXAMPLES, IterationScores, PairExample,
    Report, ReportEvidence, RunFacts, decisive, even_places, histograms, rubric_name, verdicts,
    words_apart,
};
use crate::stage::StageError;
use crate::stage::held_out::HeldOutPrompt;
use crate::view::IterationView;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// What one pass over the log gathers.
#[derive(Default)]
struct Gathered {
    span_ms: Option<(u64, u64)>,
    scores: BTreeMap<Iteration, IterationScores>,
    /// How far the sides of each pair are apart that counts.
    gaps: BTreeMap<PairId, f64>,
    /// Of the iteration that the report is about.
    held_out: Vec<Event>,
}

impl RunExport {
    /// The texts that a report of the run shows. What was dropped when the log was compacted is missing
    /// and said to be.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn evidence(&self) -> Result<ReportEvidence, Error> {
        let report = Report::of(&self.view);
        let about = decisive(&report).map(|(row, versus)| {
            (Iteration(row.iteration), versus.opponent.clone(), versus.referee)
        });
        let gathered = self.gathered(about.as_ref().map(|(iteration, ..)| *iteration))?;
        let mut missing = Vec::new();
        let (pairs_of, pairs) = self.pair_examples(&gathered, &mut missing);
        let answers = about.and_then(|about| {
            let found = self.answer_examples(&report, &about, &gathered);
            found.unwrap_or_else(|error| {
                missing.push(format!("held-out answers: {error}"));
                None
            })
        });
        let scores: Vec<IterationScores> = gathered.scores.into_values().collect();
        let about = self.facts(gathered.span_ms, &mut missing);
        Ok(ReportEvidence { about, pairs_of, pairs, answers, scores: histograms(&scores), missing })
    }

    fn gathered(&self, about: Option<Iteration>) -> Result<Gathered, Error> {
        let mut found = Gathered::default();
        walk(&self.log, Offset(0), |record| {
            let first = found.span_ms.map_or(record.at_ms, |(first, _)| first);
            found.span_ms = Some((first, record.at_ms));
            match record.event {
                Event::JudgmentsRecorded { iteration, ref prompt, ref scores, .. }
                    if self.counts(iteration, prompt, record.offset) =>
                {
                    let empty = || IterationScores { iteration: iteration.0, ..Default::default() };
                    found.scores.entry(iteration).or_insert_with(empty).push(scores);
                }
                Event::PairFormed { pair, .. } => {
                    let gap = pair.chosen.score.zip(pair.rejected.score);
                    found.gaps.insert(pair.id, gap.map_or(0.0, |(a, b)| a - b));
                }
                event @ Event::HeldOutJudged { .. } if event.iteration() == about => {
                    found.held_out.push(event);
                }
                // After a rollback there may be others before them, of one that does not count.
                Event::EvaluationFinished { iteration, .. }
                    if Some(iteration) == about
                        && !self.is_evaluated_at(iteration, record.offset) =>
                {
                    found.held_out.clear();
                }
                _ => {}
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Whether these judgments are those that count: another rubric's may have come before.
    fn counts(&self, iteration: Iteration, prompt: &PromptId, at: Offset) -> bool {
        let open = self.view.iterations.get(&iteration);
        open.is_some_and(|open| open.judged.get(prompt) == Some(&at))
    }

    fn is_evaluated_at(&self, iteration: Iteration, at: Offset) -> bool {
        let open = self.view.iterations.get(&iteration);
        open.is_some_and(|open| open.evaluated_at.is_none_or(|evaluated| evaluated == at))
    }

    /// Examples of the last iteration that trained on pairs, and how many these are.
    fn pair_examples(
        &self,
        gathered: &Gathered,
        missing: &mut Vec<String>,
    ) -> (usize, Vec<PairExample>) {
        let trained = |(_, open): &(Iteration, &IterationView)| {
            open.sealed.as_ref().is_some_and(|s| !s.is_empty())
        };
        let Some((iteration, open)) = self.iterations(None).filter(trained).last() else {
            return (0, Vec::new());
        };
        let sealed: BTreeSet<&PairId> = open.sealed.iter().flatten().collect();
        let gap = |id: &PairId| gathered.gaps.get(id).copied().unwrap_or(0.0);
        let pairs = open.pairs.iter().filter(|(_, (id, _))| sealed.contains(id));
        let mut all: Vec<(f64, &PromptId, &PairId, Offset)> =
            pairs.map(|(prompt, (id, at))| (gap(id), prompt, id, *at)).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.2.cmp(b.2)));
        let mut examples = Vec::new();
        for at in even_places(all.len(), EXAMPLES) {
            let Some((_, prompt, id, at)) = all.get(at) else { continue };
            match self.pair_example(iteration, open, (prompt, id, *at)) {
                Ok(example) => examples.push(example),
                Err(error) => {
                    missing
                        .push(format!("pairs of M{iteration}: {}", self.unread(iteration, error)));
                    break;
                }
            }
        }
        (all.len(), examples)
    }

    fn pair_example(
        &self,
        iteration: Iteration,
        open: &IterationView,
        (prompt, id, at): (&PromptId, &PairId, Offset),
    ) -> Result<PairExample, StageError> {
        let row = self.pair_row(iteration, open, prompt, at)?;
        let answered = self.answered(iteration, open, prompt)?;
        let answers = answered.map(|answered| answered.answers).unwrap_or_default();
        let said_of = |text: &str| {
            let of = |answer: &&JudgedAnswer| answer.text == text;
            answers.iter().find(of).map(|answer| answer.verdicts.clone()).unwrap_or_default()
        };
        let [chosen, rejected] = words_apart(&row.chosen, &row.rejected);
        Ok(PairExample {
            id: id.0.clone(),
            iteration: iteration.0,
            asked: asked(&row.prompt),
            chosen: AnswerExample {
                pieces: chosen,
                score: row.pair.chosen.score,
                verdicts: said_of(&row.chosen),
            },
            rejected: AnswerExample {
                pieces: rejected,
                score: row.pair.rejected.score,
                verdicts: said_of(&row.rejected),
            },
        })
    }

    fn answer_examples(
        &self,
        report: &Report,
        (iteration, role, referee): &(Iteration, String, Referee),
        gathered: &Gathered,
    ) -> Result<Option<BeforeAfterExamples>, StageError> {
        let mut all: Vec<(f64, HeldOutPrompt)> = Vec::new();
        for one in HeldOutPrompt::gathered(&gathered.held_out) {
            let score = |role| one.answer_as(role).and_then(|answer| answer.score(*referee));
            if let Some((ours, theirs)) = score("checkpoint").zip(score(role)) {
                all.push((ours - theirs, one));
            }
        }
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.prompt.cmp(&b.1.prompt)));
        if all.is_empty() {
            return Ok(None);
        }
        let mut examples = Vec::new();
        for at in even_places(all.len(), EXAMPLES) {
            let Some((_, one)) = all.get(at) else { continue };
            examples.extend(self.before_after(one, role, *referee)?);
        }
        let before = match decisive(report) {
            Some((row, versus)) => crate::report::opponent(report, row, versus),
            None => role.clone(),
        };
        Ok(Some(BeforeAfterExamples {
            iteration: iteration.0,
            before,
            after: format!("M{iteration}"),
            referee: *referee,
            of: all.len(),
            examples,
        }))
    }

    fn before_after(
        &self,
        one: &HeldOutPrompt,
        role: &str,
        referee: Referee,
    ) -> Result<Option<BeforeAfter>, StageError> {
        let prompt = self.bodies().prompt(&self.view, &one.prompt)?;
        let (Some(after), Some(before)) = (one.answer_as("checkpoint"), one.answer_as(role)) else {
            return Ok(None);
        };
        let named = |rubric: &RubricId| rubric_name(&self.view, rubric);
        let said = |role: &str| {
            let is = |known: &String| known == role;
            let at = one.answers.iter().position(|answer| answer.roles.iter().any(is));
            at.map(|at| verdicts(&named, &one.judgments, at as u32)).unwrap_or_default()
        };
        let [earlier, later] = words_apart(&before.completion.text, &after.completion.text);
        let (old, new) = (before.score(referee), after.score(referee));
        Ok(Some(BeforeAfter {
            asked: asked(&prompt.messages),
            before: AnswerExample { pieces: earlier, score: old, verdicts: said(role) },
            after: AnswerExample { pieces: later, score: new, verdicts: said("checkpoint") },
        }))
    }

    /// What the run is, as far as its files say it.
    fn facts(&self, span_ms: Option<(u64, u64)>, missing: &mut Vec<String>) -> RunFacts {
        let config = Config::from_yaml(&self.folder.config());
        let model = self.base().map(|base| described(base.files.config()));
        let members = self.view.panel.iter().flat_map(|panel| panel.members());
        let rubric = |id: &RubricId| format!("{} ({})", rubric_name(&self.view, id), id.short());
        let settings = config.as_ref().map(|config| differences(&Config::default(), config));
        missing.extend(config.as_ref().err().map(|error| format!("the settings: {error}")));
        missing.extend(model.as_ref().err().map(|error| format!("the model's files: {error}")));
        RunFacts {
            name: self.name(),
            base_name: self.base_name(),
            model: model.unwrap_or_default(),
            seed: config.as_ref().ok().map(|config| config.seed),
            span_ms,
            rubrics: members.map(|member| rubric(&member.rubric)).collect(),
            settings: settings.iter().flatten().map(ToString::to_string).collect(),
            command: format!("gradus report {}", self.folder.path().display()),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// A network in words.
fn described(shape: &ModelConfig) -> String {
    format!(
        "{}, {} layers of width {}, {:.1} M parameters, {} tokens of context",
        shape.description().model_type,
        shape.num_hidden_layers,
        shape.hidden_size,
        parameters(shape) as f64 / 1e6,
        shape.max_position_embeddings
    )
}

/// The last turn of a prompt.
fn asked(prompt: &[Message]) -> String {
    prompt.last().map(|turn| turn.content.clone()).unwrap_or_default()
}
