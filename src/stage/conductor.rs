//! Decides about the run and does nothing else: opens an iteration, seals its prompts and pairs,
//! asks the gate ([`super::gate`]), ends it. Its tasks cost nothing, so each is simply the events to append.
//!
//! A prompt whose tasks fail again and again is left out of the iteration, not the iteration of
//! the run.
//!
//! Departure from the paper: a gate stands between a checkpoint and the policy (the paper always
//! goes on with the new model), and an iteration with too few pairs ends `NoSignal`.

use super::evaluator::Evaluator;
use super::gate::gate;
use super::judge::{Judge, JudgeTask, probes_are_due};
use super::pair_store::{PairStore, PairTask};
use super::probe;
use super::sampler::{SampleTask, Sampler};
use super::shadow;
use super::trainer::Trainer;
use super::{ATTEMPTS_MAX, Desk, Stage, StageError, Weight, task_key};
use crate::config::{Config, OnNoSignal};
use crate::domain::event::{IterationKind, IterationOutcome};
use crate::domain::{Bait, Event, Iteration, PromptId, RubricId, Seat, TaskKey};
use crate::view::{CheckpointFacts, IterationView, Known, Liking, Probed, RunView};
use std::sync::Arc;

/// What is decided once in an iteration, and what was decided. The slot is the task's key, not the
/// events: they follow from what the view happens to hold (prompts a host has just added), and a
/// decision must not be taken a second time, differently, by a view that is behind.
type Decision = (Iteration, Slot, Vec<Event>);

#[derive(Clone, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Slot {
    Start,
    Prompts,
    Split(Vec<PromptId>),
    Quarantine(PromptId),
    Pairs,
    End,
    RollBack(RubricId),
}

/// The conductor stage.
pub struct Conductor {
    config: Arc<Config>,
}

impl Conductor {
    /// A conductor with these settings.
    pub fn new(config: Arc<Config>) -> Conductor {
        Conductor { config }
    }

    fn decide(&self, view: &RunView) -> Option<Decision> {
        if view.paused || view.seed.is_none() {
            return None;
        }
        let Some((iteration, open)) = view.open() else {
            return self.open_iteration(view);
        };
        if let Some((rubric, reason, back_to)) = view.failing() {
            let (rubric, reason, back_to) = (rubric.clone(), reason.clone(), back_to.clone());
            let slot = Slot::RollBack(rubric.clone());
            // The panel before comes back whole: what the others that were new judged goes too.
            let taken_back = open.panel.leaving(&back_to);
            let event = Event::RubricRolledBack { rubric, back_to, reason, taken_back };
            return Some((iteration, slot, vec![event]));
        }
        if let Some(stuck) = self.stuck(view) {
            return Some(stuck.decision(iteration));
        }
        if let Some(reason) = &open.diverged {
            let rollbacks = open.rollbacks;
            let reason = format!(
                "training met numbers that are not finite again after {rollbacks} rollbacks, each \
                 with half the learning rate ({reason}). Lower the learning rate; the old policy \
                 stays"
            );
            return Some(end(iteration, IterationOutcome::Failed { reason }));
        }
        match open.kind {
            IterationKind::Sft => self.finish(iteration, open),
            IterationKind::Dpo => self
                .seal_prompts(view, iteration, open)
                .or_else(|| self.seal_pairs(view, iteration, open))
                .or_else(|| self.finish(iteration, open)),
        }
    }

    /// A stage's next task that failed too often, so that no one will try it again. Asked of the
    /// stages and not counted: tasks that were given up before, however many, are nothing to this.
    fn stuck(&self, view: &RunView) -> Option<Stuck> {
        if view.failures.values().all(|n| *n < ATTEMPTS_MAX) {
            return None;
        }
        let config = || self.config.clone();
        stuck(&Sampler::new(config()), view, SampleTask::prompts)
            .or_else(|| stuck(&Judge::new(config()), view, JudgeTask::prompts))
            .or_else(|| stuck(&PairStore::new(config()), view, PairTask::prompts))
            .or_else(|| stuck(&Trainer::new(config()), view, |_| Vec::new()))
            .or_else(|| stuck(&Evaluator::new(config()), view, |_| Vec::new()))
    }

    fn open_iteration(&self, view: &RunView) -> Option<Decision> {
        if view.finished() >= self.config.iterations {
            return None;
        }
        let policy = view.policy.clone()?;
        let panel = view.panel.clone()?;
        let (iteration, kind) = view.next_iteration();
        let reference = policy.clone();
        let event = Event::IterationStarted { iteration, kind, policy, reference, panel };
        Some((iteration, Slot::Start, vec![event]))
    }

    /// Seals the prompts once enough wait, or once no more will come.
    fn seal_prompts(
        &self,
        view: &RunView,
        iteration: Iteration,
        open: &IterationView,
    ) -> Option<Decision> {
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
            return Some(self.give_up(iteration, outcome));
        }
        let prompts = waiting.into_iter().take(wanted).collect();
        Some((iteration, Slot::Prompts, vec![Event::PromptsSealed { iteration, prompts }]))
    }

    fn seal_pairs(
        &self,
        view: &RunView,
        iteration: Iteration,
        open: &IterationView,
    ) -> Option<Decision> {
        if open.sealed.is_some()
            || !open.all_decided()
            || shadow::is_awaited(&self.config, view, open)
        {
            return None;
        }
        if probes_are_due(&self.config) {
            // Judged or not, nothing is decided before it is known what the judge is worth.
            let judge = &self.config.judge;
            let due = |seat: &Seat| probe::is_due(view, iteration, open, &seat.rubric, judge);
            if open.panel.seats().iter().any(due) {
                return None;
            }
            let mut rubrics = open.rubrics().into_iter();
            if let Some(reason) = rubrics.find_map(|rubric| self.compromised(open, rubric)) {
                return Some(
                    self.give_up(iteration, IterationOutcome::JudgeCompromised { reason }),
                );
            }
        }
        let wanted = self.config.pairs.min_pairs as usize;
        if open.pairs.len() < wanted.max(1) {
            let outcome = IterationOutcome::NoSignal { reason: no_signal(open, wanted) };
            return Some(self.give_up(iteration, outcome));
        }
        let pairs = open.pairs.values().map(|(id, _)| id.clone()).collect();
        Some((iteration, Slot::Pairs, vec![Event::PairsSealed { iteration, pairs }]))
    }

    /// Why nothing this judge says under a rubric may be learned from, if so.
    fn compromised(&self, open: &IterationView, rubric: &RubricId) -> Option<String> {
        let most = self.config.judge.forgery_gain_max;
        let fooled = |probed: &&Probed| probed.known(most) == Known::Fooled;
        if let Some(probed) = open.baited_under(rubric).find(fooled) {
            return Some(fooled_by(probed, most));
        }
        let Liking { more, known } = open.liking(rubric)?;
        (known == Known::Fooled).then(|| {
            format!(
                "GRADUS0306 the judge likes bad answers better than the policy's, which scored {} of \
                 the scale beside empty answers, a full stop and the prompt itself, at {} prompts. The \
                 policy would learn to answer badly. Take another rubric or a better judge; what was \
                 asked: gradus log show --kind judge_probed DIR",
                more.percent(),
                more.n
            )
        })
    }

    /// Ends an iteration from which there is nothing to learn, and waits if the host wants that.
    fn give_up(&self, iteration: Iteration, outcome: IterationOutcome) -> Decision {
        let (iteration, slot, mut events) = end(iteration, outcome);
        if self.config.pairs.on_no_signal == OnNoSignal::Pause {
            events.push(Event::PauseRequested);
        }
        (iteration, slot, events)
    }

    fn finish(&self, iteration: Iteration, open: &IterationView) -> Option<Decision> {
        let evaluation = open.evaluation.as_ref()?;
        let CheckpointFacts { policy, .. } = open.checkpoint.clone()?;
        let settings = &self.config.evaluate.gate;
        let (decision, outcome) = match gate(open.kind, evaluation, settings) {
            Ok(()) => (Event::CheckpointPromoted { iteration, policy }, IterationOutcome::Promoted),
            Err(reason) => (
                Event::CheckpointRejected { iteration, policy, reason: reason.clone() },
                IterationOutcome::Rejected { reason },
            ),
        };
        let finished = Event::IterationFinished { iteration, outcome };
        Some((iteration, Slot::End, vec![decision, finished]))
    }
}

/// That forging pays, in words.
fn fooled_by(probed: &Probed, most: f64) -> String {
    let gain = probed.gain();
    let (bare, forged) = (probed.bare.unwrap_or_default(), probed.forged.unwrap_or_default());
    let (believes, how, learn) = match probed.bait {
        Bait::Claim => {
            ("believes what answers say about themselves", "with a forged verdict", "verdicts")
        }
        Bait::MasterKey => {
            ("rewards words in the place of an answer", "as such words (\":\")", "such words")
        }
        Bait::Repetition => {
            ("rewards repetition", "repeated three times", "everything three times")
        }
    };
    format!(
        "GRADUS0305 the judge {believes}: bad answers scored {bare:.2}, and {how} {forged:.2}, which \
         is {} of the scale over {} answers (judge.forgery_gain_max allows {:.0} %). The policy would \
         learn to write {learn}. Take another rubric or a better judge; what was asked: gradus log \
         show --kind judge_probed DIR",
        gain.percent(),
        gain.n,
        most * 100.0
    )
}

/// An iteration that ends without a checkpoint to decide about.
fn end(iteration: Iteration, outcome: IterationOutcome) -> Decision {
    (iteration, Slot::End, vec![Event::IterationFinished { iteration, outcome }])
}

/// A task that nobody tries any more.
struct Stuck {
    stage: &'static str,
    task: TaskKey,
    /// The prompts it is about; none when it is about the whole iteration.
    prompts: Vec<PromptId>,
}

impl Stuck {
    /// Its prompts are tried alone; one that fails alone is left out; what is about the whole
    /// iteration ends it.
    fn decision(self, iteration: Iteration) -> Decision {
        let Stuck { stage, task, prompts } = self;
        match prompts.as_slice() {
            [] => {
                let reason = format!(
                    "a task of the {stage} failed {ATTEMPTS_MAX} times; why: gradus log show \
                     --kind task_failed DIR"
                );
                end(iteration, IterationOutcome::Failed { reason })
            }
            [prompt] => {
                let (prompt, stage) = (prompt.clone(), stage.to_owned());
                let slot = Slot::Quarantine(prompt.clone());
                (iteration, slot, vec![Event::PromptQuarantined { iteration, prompt, stage, task }])
            }
            _ => {
                let slot = Slot::Split(prompts.clone());
                (iteration, slot, vec![Event::PromptsSplit { iteration, prompts }])
            }
        }
    }
}

fn stuck<S: Stage>(
    stage: &S,
    view: &RunView,
    prompts: impl Fn(&S::Task) -> Vec<PromptId>,
) -> Option<Stuck> {
    let (key, task) = stage.next(view)?;
    let failures = view.failures.get(&key).copied().unwrap_or_default();
    let given_up = failures >= ATTEMPTS_MAX;
    given_up.then(|| Stuck { stage: S::NAME, prompts: prompts(&task), task: key })
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
         asked for. Teach it the form (gradus init --eft FILE), raise judge.max_new_tokens, take \
         another rubric, or set judge.readout: forced, which makes it begin a score and marks what \
         comes of that"
    } else {
        "GRADUS0304 raise sampling.temperature or sampling.candidates for answers that differ more, \
         judge.samples for less noise, set judge.readout: expected for finer scores, or take another \
         rubric"
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
        let (iteration, slot, events) = self.decide(view)?;
        let voided = view.open().map_or(0, |(_, open)| match &slot {
            Slot::Pairs => open.pairs_voided(),
            Slot::Quarantine(_) | Slot::End => open.end_voided(),
            Slot::Start | Slot::Prompts | Slot::Split(_) | Slot::RollBack(_) => 0,
        });
        let key = match &slot {
            // Whoever changes what judges has the same key: of two at once, one is refused.
            Slot::RollBack(_) => view.rubrics.change_key(),
            _ => task_key(Self::NAME, view, &(iteration, slot)).after(voided),
        };
        Some((key, events))
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
