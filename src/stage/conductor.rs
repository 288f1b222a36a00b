//! Decides about the run and does nothing else: opens an iteration, seals its prompts and pairs,
//! holds the gate, ends it. Its tasks cost nothing, so each is simply the events to append.
//!
//! Departure from the paper: a gate stands between a checkpoint and the policy (the paper always
//! goes on with the new model), and an iteration with too few pairs ends `NoSignal`.

use super::{Desk, Stage, StageError, Weight, task_key};
use crate::config::{Config, GateMode};
use crate::domain::evaluation::{Evaluation, Referee};
use crate::domain::event::{IterationKind, IterationOutcome};
use crate::domain::{Event, Iteration, PromptId, TaskKey};
use crate::view::{CheckpointFacts, IterationView, RunView};
use std::sync::Arc;

/// The conductor stage.
pub struct Conductor {
    config: Arc<Config>,
}

impl Conductor {
    /// A conductor with these settings.
    pub fn new(config: Arc<Config>) -> Conductor {
        Conductor { config }
    }

    fn decide(&self, view: &RunView) -> Option<Vec<Event>> {
        if view.paused || view.seed.is_none() {
            return None;
        }
        let Some((iteration, open)) = view.open() else {
            return self.open_iteration(view);
        };
        if self.gave_up(view, open) {
            let reason = "a task failed three times; `gradus log show` has the reason".to_owned();
            let outcome = IterationOutcome::Failed { reason };
            return Some(vec![Event::IterationFinished { iteration, outcome }]);
        }
        match open.kind {
            IterationKind::Sft => self.finish(iteration, open),
            IterationKind::Dpo => self
                .seal_prompts(view, iteration, open)
                .or_else(|| self.seal_pairs(iteration, open))
                .or_else(|| self.finish(iteration, open)),
        }
    }

    fn gave_up(&self, view: &RunView, _open: &IterationView) -> bool {
        let spent = view.iterations.values().filter(|i| is_failed(i)).count() as u32;
        let failed = view.failures.values().filter(|n| **n >= super::ATTEMPTS_MAX).count() as u32;
        failed > spent
    }

    fn open_iteration(&self, view: &RunView) -> Option<Vec<Event>> {
        if view.finished() >= self.config.iterations {
            return None;
        }
        let policy = view.policy.clone()?;
        let rubric = view.rubric.clone()?;
        let (iteration, kind) = view.next_iteration();
        let reference = policy.clone();
        Some(vec![Event::IterationStarted { iteration, kind, policy, reference, rubric }])
    }

    /// Seals the prompts once enough wait, or once no more will come.
    fn seal_prompts(
        &self,
        view: &RunView,
        iteration: Iteration,
        open: &IterationView,
    ) -> Option<Vec<Event>> {
        if open.prompts.is_some() {
            return None;
        }
        let wanted = self.config.prompts.per_iteration as usize;
        let waiting: Vec<PromptId> = view.unused().map(|(id, _)| id.clone()).collect();
        if waiting.len() < wanted && super::sampler::may_write(&self.config, open) {
            return None;
        }
        if waiting.is_empty() {
            let reason = "no unused prompt is left: add prompts, or set prompts.generate: true";
            let outcome = IterationOutcome::NoSignal { reason: reason.to_owned() };
            return Some(vec![Event::IterationFinished { iteration, outcome }]);
        }
        let prompts = waiting.into_iter().take(wanted).collect();
        Some(vec![Event::PromptsSealed { iteration, prompts }])
    }

    fn seal_pairs(&self, iteration: Iteration, open: &IterationView) -> Option<Vec<Event>> {
        if open.sealed.is_some() || !open.all_decided() {
            return None;
        }
        let wanted = self.config.pairs.min_pairs as usize;
        if open.pairs.len() < wanted.max(1) {
            let outcome = IterationOutcome::NoSignal { reason: no_signal(open, wanted) };
            return Some(vec![Event::IterationFinished { iteration, outcome }]);
        }
        let pairs = open.pairs.values().map(|(id, _)| id.clone()).collect();
        Some(vec![Event::PairsSealed { iteration, pairs }])
    }

    fn finish(&self, iteration: Iteration, open: &IterationView) -> Option<Vec<Event>> {
        let evaluation = open.evaluation.as_ref()?;
        let CheckpointFacts { policy, .. } = open.checkpoint.clone()?;
        Some(match self.gate(open.kind, evaluation) {
            Ok(()) => vec![
                Event::CheckpointPromoted { iteration, policy },
                Event::IterationFinished { iteration, outcome: IterationOutcome::Promoted },
            ],
            Err(reason) => vec![
                Event::CheckpointRejected { iteration, policy, reason: reason.clone() },
                Event::IterationFinished {
                    iteration,
                    outcome: IterationOutcome::Rejected { reason },
                },
            ],
        })
    }

    /// The gate. A supervised checkpoint always passes: there is nothing to fall back to that
    /// can judge. `lenient` stops what is worse with certainty, `strict` wants it better.
    fn gate(&self, kind: IterationKind, evaluation: &Evaluation) -> Result<(), String> {
        let gate = &self.config.evaluate.gate;
        // Only the judge's verdict counts here: an oracle, where there is one, is for the report.
        let versus = evaluation
            .head_to_head
            .iter()
            .find(|h| h.opponent == "previous" && h.referee == Referee::Judge);
        let (IterationKind::Dpo, Some(versus)) = (kind, versus) else {
            return Ok(());
        };
        let rate = versus.win_rate;
        let figures = format!(
            "win rate against the previous policy {:.1} % [{:.1}, {:.1}] of {} prompts",
            rate.mean * 100.0,
            rate.low * 100.0,
            rate.high * 100.0,
            rate.n
        );
        let passed = match gate.mode {
            GateMode::Off => true,
            GateMode::Lenient => rate.high >= gate.min_win_rate,
            GateMode::Strict => rate.mean >= gate.min_win_rate,
        };
        if passed {
            Ok(())
        } else {
            Err(format!("{figures}, the gate asks for {:.1} %", gate.min_win_rate * 100.0))
        }
    }
}

fn is_failed(iteration: &IterationView) -> bool {
    matches!(iteration.outcome, Some(IterationOutcome::Failed { .. }))
}

fn no_signal(open: &IterationView, wanted: usize) -> String {
    let mut reasons = std::collections::BTreeMap::<&str, u32>::new();
    for reason in open.skipped.values() {
        *reasons.entry(reason.as_str()).or_default() += 1;
    }
    let list: Vec<String> = reasons.iter().map(|(r, n)| format!("{n} {r}")).collect();
    let (judged, unscored) = open.judgments;
    let share = f64::from(unscored) / f64::from(judged.max(1));
    let advice = if share > 0.5 {
        "GRADUS0301 most judgments have no score: small models often ignore the form they are \
         asked for. Set judge.readout: expected, raise judge.max_new_tokens, or take another rubric"
    } else {
        "GRADUS0304 raise sampling.temperature, sampling.candidates or judge.samples, set \
         judge.readout: expected for finer scores, or take another rubric"
    };
    format!(
        "{} prompts gave {} pairs, fewer than pairs.min_pairs = {wanted} ({}); {unscored} of \
         {judged} judgments have no score. {advice}",
        open.prompts.as_ref().map_or(0, Vec::len),
        open.pairs.len(),
        list.join(", "),
    )
}

impl Stage for Conductor {
    type Task = Vec<Event>;
    const NAME: &'static str = "conductor";
    const WEIGHT: Weight = Weight::Light;

    fn next(&self, view: &RunView) -> Option<(TaskKey, Vec<Event>)> {
        let events = self.decide(view)?;
        Some((task_key(Self::NAME, view, &events), events))
    }

    fn run(
        &mut self,
        task: Vec<Event>,
        _view: &RunView,
        _desk: &Desk,
    ) -> Result<Vec<Event>, StageError> {
        Ok(task)
    }
}
