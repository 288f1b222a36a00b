//! What is remembered of an iteration that is over: as much as is needed to go on, and no more of it
//! than of any other. Reports, and whoever judges again, fold the log with everything kept.

use super::{GateDecision, IterationView, Keeps, RunView, Shared};
use crate::domain::event::{IterationKind, IterationOutcome};
use crate::domain::plan::ReferenceRule;
use crate::domain::{BlobHash, Iteration, Offset, PolicyRef};

/// What an iteration came to that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct FinishedIteration {
    /// Where it was opened.
    pub opened: Offset,
    /// How it trained.
    pub kind: IterationKind,
    /// How it ended.
    pub outcome: IterationOutcome,
    /// Whether training was given up for numbers that are not finite.
    pub diverged: bool,
    /// The weights that it trained to its end, if it did.
    pub made: Option<PolicyRef>,
    /// Why the gate did not promote these, where it did not.
    pub rejected: Option<String>,
    /// Its reference, where that was a moving mean of policies.
    pub(super) mean: Option<PolicyRef>,
    /// Whether a policy of it has an adapter whose record, of schema 1, does not say what it is.
    pub(super) adapters_of_old: bool,
    /// Blobs that its plan wants kept.
    pub(super) blobs: Vec<BlobHash>,
}

fn is_of_old(policy: &PolicyRef) -> bool {
    policy.adapter.iter().any(|adapter| adapter.shape.is_none())
}

impl IterationView {
    /// Its reference, if that is a moving mean of policies and was made.
    fn mean(&self) -> Option<&PolicyRef> {
        let rule = self.plan.as_ref().map(|plan| plan.reference.rule);
        let is_mean = rule == Some(ReferenceRule::Ema) && self.reference_to_make().is_none();
        is_mean.then_some(&self.reference)
    }

    /// The weights that it trained to its end, if it did.
    pub fn made(&self) -> Option<&PolicyRef> {
        let checkpoint = self.checkpoint.as_ref().filter(|c| c.step >= c.steps_total)?;
        Some(&checkpoint.policy)
    }

    /// Why the gate did not promote these, where it did not.
    pub fn rejected(&self) -> Option<&str> {
        match self.decision.as_ref()? {
            GateDecision::Rejected(reason) => Some(reason),
            GateDecision::Promoted => None,
        }
    }

    fn has_adapters_of_old(&self) -> bool {
        let saved = self.checkpoint.iter().map(|checkpoint| &checkpoint.policy);
        [&self.policy, &self.reference].into_iter().chain(saved).any(is_of_old)
    }

    /// What it came to, if it is over.
    fn finished(&self) -> Option<FinishedIteration> {
        Some(FinishedIteration {
            opened: self.opened,
            kind: self.kind,
            outcome: self.outcome.clone()?,
            diverged: self.diverged.is_some(),
            made: self.made().cloned(),
            rejected: self.rejected().map(str::to_owned),
            mean: self.mean().cloned(),
            adapters_of_old: self.has_adapters_of_old(),
            blobs: self.blobs(true).into_iter().collect(),
        })
    }
}

impl RunView {
    /// Forgets what finished iterations were made of, those to come too: for a run that goes on. The
    /// last one stays whole, for results of it that were in hand when it ended, until another is over.
    pub fn forget_finished(&mut self) {
        self.keeps = Keeps::ToGoOn;
        if let Some((last, _)) = self.past.last_key_value() {
            self.forget_before(*last);
        }
    }

    /// Whether the view has everything of every iteration, and not only what is needed to go on.
    pub fn is_whole(&self) -> bool {
        self.past.keys().all(|iteration| self.iterations.contains_key(iteration))
    }

    fn forget_before(&mut self, last: Iteration) {
        self.iterations.retain(|iteration, view| *iteration >= last || view.outcome.is_none());
    }

    /// An iteration is over, or something of it came late.
    pub(super) fn note_finished(&mut self, iteration: Iteration) {
        let Some(finished) = self.iterations.get(&iteration).and_then(|view| view.finished())
        else {
            return;
        };
        if self.past.insert(iteration, finished.into()).is_none() {
            self.failed_before += self.failures.len() as u64;
            self.failures.clear();
            if self.keeps == Keeps::ToGoOn {
                self.forget_before(iteration);
            }
        }
    }

    /// Makes the indices anew, of a view that was read.
    pub(super) fn index_iterations(&mut self) {
        self.began = self.iterations.values().next().map(|first| first.opened);
        let finished = |(iteration, view): (&Iteration, &Shared<IterationView>)| {
            Some((*iteration, view.finished()?.into()))
        };
        self.past = self.iterations.iter().filter_map(finished).collect();
    }

    /// What the iterations came to that are over, in order.
    pub fn past(&self) -> impl ExactSizeIterator<Item = (Iteration, &FinishedIteration)> {
        self.past.iter().map(|(iteration, finished)| (*iteration, &**finished))
    }

    /// What an iteration came to, if it is over.
    pub fn finished_iteration(&self, iteration: Iteration) -> Option<&FinishedIteration> {
        self.past.get(&iteration).map(|finished| &**finished)
    }

    /// The iteration that was opened last, and whether and how it ended.
    pub fn last_iteration(&self) -> Option<(Iteration, Option<&IterationOutcome>)> {
        if let Some((open, _)) = self.open() {
            return Some((open, None));
        }
        let (last, finished) = self.past.last_key_value()?;
        Some((*last, Some(&finished.outcome)))
    }

    /// How many iterations are over.
    pub fn finished(&self) -> u32 {
        u32::try_from(self.past.len()).unwrap_or(u32::MAX)
    }

    /// How many tasks failed, those of iterations that are over too.
    pub fn failed_tasks(&self) -> u64 {
        self.failed_before + self.failures.len() as u64
    }

    /// What the next iteration would be: supervised, if there is seed data, until one of that kind
    /// was promoted. What was to be taught before preferences is never left out.
    pub fn next_iteration(&self) -> (Iteration, IterationKind) {
        let next = self.last_iteration().map_or(Iteration(1), |(last, _)| last.next());
        let taught = || {
            self.past.values().any(|iteration| {
                let promoted = iteration.outcome == IterationOutcome::Promoted;
                iteration.kind == IterationKind::Sft && promoted
            })
        };
        let wanted = !self.seed_data.is_empty() && !taught();
        (next, if wanted { IterationKind::Sft } else { IterationKind::Dpo })
    }

    /// The last reference that was a moving mean of policies.
    pub fn moving_mean(&self) -> Option<&PolicyRef> {
        let of_open = self.open().and_then(|(_, open)| open.mean());
        of_open.or_else(|| self.past.values().filter_map(|past| past.mean.as_ref()).last())
    }

    /// Whether a policy has an adapter whose record, of schema 1, does not say what it is.
    pub fn has_adapters_of_old(&self) -> bool {
        let mut promoted = self.policy.iter().chain(&self.first);
        promoted.any(is_of_old)
            || self.past.values().any(|past| past.adapters_of_old)
            || self.iterations.values().any(|iteration| iteration.has_adapters_of_old())
    }
}
