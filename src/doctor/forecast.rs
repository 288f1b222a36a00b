//! From what a miniature showed to what the run will take: counts as the settings plan them, each
//! times its price. Pure.

use super::cost::{flow, like};
use super::measure::{Measured, TrainingCost};
use crate::config::{Config, JudgeSource};
use crate::domain::event::IterationKind;
use crate::domain::plan::PromptReuse;
use crate::estimate::Lengths;
use serde::Serialize;
use std::collections::BTreeMap;

/// One iteration to come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IterationForecast {
    /// Its number.
    pub iteration: u32,
    /// How it trains.
    pub kind: IterationKind,
    /// Prompts it answers.
    pub prompts: usize,
    /// Pairs, or supervised rows, it trains on.
    pub rows: usize,
    /// Optimiser steps.
    pub steps: u32,
    /// Seconds by stage.
    pub seconds_by_stage: BTreeMap<&'static str, f64>,
    /// Seconds of all stages.
    pub seconds: f64,
}

/// What the run has, beside its settings.
#[derive(Clone, Debug)]
pub(super) struct Stock {
    /// Number and kind of the next iteration.
    pub next: (u32, IterationKind),
    /// Prompts that no iteration has used.
    pub unused: usize,
    /// Prompts that an iteration has answered.
    pub answered: usize,
    /// Prompts to measure on.
    pub held_out: usize,
    /// Supervised rows.
    pub seed_rows: usize,
    /// Whether a program knows the truth about answers.
    pub oracle: bool,
    /// Questions that the panel asks about so many answers, by their number from 0.
    pub questions: Vec<usize>,
    /// Questions of a probed prompt.
    pub probes: usize,
    /// Sequences that are drawn at the same time.
    pub live_max: usize,
}

impl Stock {
    fn questions(&self, answers: usize) -> usize {
        self.questions.get(answers).or(self.questions.last()).copied().unwrap_or_default()
    }
}

/// The numbers behind a forecast.
pub(super) struct Forecast<'a> {
    pub config: &'a Config,
    pub stock: &'a Stock,
    pub found: &'a Measured,
}

/// `total` in parts of `size`; the last may be smaller.
fn parts(total: usize, size: u32) -> impl Iterator<Item = usize> {
    let size = size.max(1) as usize;
    (0..total).step_by(size).map(move |from| size.min(total - from))
}

impl Forecast<'_> {
    fn lengths(&self) -> Lengths {
        self.found.lengths.unwrap_or_else(|| Lengths::most(self.config))
    }

    /// Every iteration that is left.
    pub fn iterations(&self, left: u32) -> Vec<IterationForecast> {
        let (first, kind) = self.stock.next;
        let (mut unused, mut answered) = (self.stock.unused, self.stock.answered);
        let reuses = self.config.prompts.reuse == PromptReuse::WhenEmpty;
        let iterations = (first..first + left).map(|iteration| {
            if iteration == first && kind == IterationKind::Sft {
                return self.supervised(iteration);
            }
            let wanted = self.config.prompts.per_iteration as usize;
            let missing = wanted.saturating_sub(unused);
            let written = if self.config.prompts.generate { missing } else { 0 };
            let new = wanted.min(unused + written);
            unused = (unused + written).saturating_sub(new);
            let again = if reuses { answered.min(wanted - new) } else { 0 };
            answered += new;
            self.preference(iteration, new + again, written)
        });
        iterations.collect()
    }

    fn forecast(
        &self,
        (iteration, kind): (u32, IterationKind),
        (prompts, rows, steps): (usize, usize, u32),
        by_stage: [(&'static str, f64); 4],
    ) -> IterationForecast {
        let seconds = by_stage.iter().map(|(_, seconds)| seconds).sum();
        let seconds_by_stage = BTreeMap::from(by_stage);
        IterationForecast { iteration, kind, prompts, rows, steps, seconds_by_stage, seconds }
    }

    fn supervised(&self, iteration: u32) -> IterationForecast {
        let sft = &self.config.train.sft;
        let price = self.found.supervised.unwrap_or_default();
        let rows = self.stock.seed_rows;
        let (steps, trainer) =
            self.training(&price, rows, sft.per_device_train_batch_size, sft.num_train_epochs);
        let stages = [
            ("sampler", 0.0),
            ("judge", 0.0),
            ("trainer", self.found.opening + trainer),
            ("evaluator", self.evaluator(iteration)),
        ];
        self.forecast((iteration, IterationKind::Sft), (0, rows, steps), stages)
    }

    fn preference(&self, iteration: u32, prompts: usize, written: usize) -> IterationForecast {
        let (tried, paired) = self.found.paired;
        // One more of each: a few prompts say little of how many give none.
        let share = (paired + 1) as f64 / (tried + 1) as f64;
        let pairs = (prompts as f64 * share).round() as usize;
        let (dpo, price) = (&self.config.train.dpo, &self.found.preference);
        let (steps, trainer) =
            self.training(price, pairs, dpo.per_device_train_batch_size, dpo.num_train_epochs);
        let scored = self.lengths().prompt + 2 * self.lengths().answer;
        let opening = if iteration == self.stock.next.0 { self.found.opening } else { 0.0 };
        let reference =
            if pairs == 0 { 0.0 } else { self.found.reference.at((pairs * scored) as f64) };
        let stages = [
            ("sampler", opening + self.writing(written) + self.candidates(prompts)),
            ("judge", self.judging(prompts)),
            ("trainer", reference + trainer),
            ("evaluator", if steps == 0 { 0.0 } else { self.evaluator(iteration) }),
        ];
        self.forecast((iteration, IterationKind::Dpo), (prompts, pairs, steps), stages)
    }

    /// Drawing what competes, by the policy or another engine.
    fn candidates(&self, prompts: usize) -> f64 {
        match self.found.answered {
            Some(each) => prompts as f64 * each,
            None => self.answering(prompts, self.config.sampling.candidates),
        }
    }

    fn writing(&self, wanted: usize) -> f64 {
        let Some((seconds, given)) = self.found.writing else { return 0.0 };
        let rounds = wanted.div_ceil(given.max(1) as usize);
        rounds.min(self.config.prompts.rounds_max as usize) as f64 * seconds
    }

    /// Drawing `n` answers to each of `prompts` prompts, a batch at a time.
    fn answering(&self, prompts: usize, n: u32) -> f64 {
        let drawing = &self.found.sampling;
        let batch = |prompts: usize| {
            let lengths = like(&drawing.lengths, prompts * n as usize);
            let tokens = prompts * self.lengths().prompt;
            drawing.seconds(tokens as f64, flow(lengths, self.stock.live_max))
        };
        parts(prompts, self.config.sampling.batch_prompts).map(batch).sum()
    }

    /// Asking `questions` questions together, each `samples` times.
    fn asking(&self, questions: usize, samples: u32) -> f64 {
        if questions == 0 {
            return 0.0;
        }
        let (drawing, lengths) = (&self.found.judging, self.lengths());
        let replies = questions * samples as usize;
        let tokens = lengths.rubric + questions * lengths.question;
        let drawn = flow(like(&drawing.lengths, replies), self.stock.live_max);
        let read = tokens + replies * lengths.reply;
        drawing.seconds(tokens as f64, drawn) + self.found.readout * read as f64
    }

    /// Judging so many answers to each of `prompts` prompts, a batch at a time.
    fn judging_of(&self, prompts: usize, answers: usize, share: f64) -> f64 {
        let each = self.stock.questions(answers) as f64 * share;
        let batch = |prompts: usize| {
            let questions = (prompts as f64 * each).round() as usize;
            self.asking(questions, self.config.judge.samples)
        };
        let asked: f64 = parts(prompts, self.config.sampling.batch_prompts).map(batch).sum();
        asked + prompts as f64 * self.found.program
    }

    fn judging(&self, prompts: usize) -> f64 {
        if self.config.judge.source != JudgeSource::Model {
            return 0.0;
        }
        let probed = prompts.min(self.config.judge.probes as usize) * self.stock.probes;
        let candidates = self.config.sampling.candidates as usize;
        self.judging_of(prompts, candidates, self.found.asked) + self.asking(probed, 1)
    }

    /// Steps and seconds of a training.
    fn training(&self, price: &TrainingCost, rows: usize, batch: u32, epochs: u32) -> (u32, f64) {
        let steps = (rows as u32).div_ceil(batch.max(1)) * epochs;
        if steps == 0 {
            return (0, 0.0);
        }
        let segments = steps.div_ceil(self.config.train.save_steps.max(1));
        let all_rows = rows as f64 * f64::from(epochs) * price.rows;
        let stepping = f64::from(steps) * price.step.fixed + all_rows * price.step.each;
        let check = f64::from(batch.min(rows as u32)) * price.rows * price.step.each;
        (steps, price.first + check + f64::from(segments - 1) * price.next + stepping)
    }

    /// Answers of the checkpoint, of the policy before it and of the first one, where they differ,
    /// judged beside each other: under the panel, and by referees of their own as if these asked as
    /// much (a program asks less).
    fn evaluator(&self, iteration: u32) -> f64 {
        let policies = if iteration <= 2 { 2 } else { 3 };
        let prompts = (self.config.evaluate.prompts as usize).min(self.stock.held_out);
        let answering = f64::from(policies) * self.answering(prompts, 1);
        let panels = if self.config.evaluate.rubrics.is_empty() { 1.0 } else { 2.0 };
        let judging = panels * self.judging_of(prompts, policies as usize, 1.0);
        let quality = match self.stock.oracle {
            true => {
                let judged = prompts.min(self.config.evaluate.judge_prompts as usize);
                self.answering(prompts, 4) + self.judging_of(judged, 4, self.found.asked)
            }
            false => 0.0,
        };
        self.found.checkpoint + answering + judging + quality
    }
}
