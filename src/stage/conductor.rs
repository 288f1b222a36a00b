//! Decides about the run and does nothing else: opens an iteration with its plan, seals its prompts
//! and pairs, asks the gate ([`super::gate`]), ends it. Its tasks cost nothing, so each is simply the
//! events to append.
//!
//! A prompt whose tasks fail again and again is left out of the iteration, not the iteration of
//! the run. After an iteration that failed the run pauses, unless the settings say that it goes on.
//!
//! Departure from the paper: a gate stands between a checkpoint and the policy (the paper always
//! goes on with the new model), and an iteration with too few pairs ends `NoSignal`.

use super::alarms::alarms;
use super::evaluator::Evaluator;
use super::gate::gate;
use super::judge::{Judge, JudgeTask, probe, shadow};
use super::pair_store::{PairStore, PairTask};
use super::sampler::{SampleTask, Sampler, next_round};
use super::trainer::Trainer;
use super::{ATTEMPTS_MAX, Duty, Needs, Stage, StageContext, StageError, task_key};
use crate::codes::Code;
use crate::config::{Config, OnFailure, PlanInputs, changes};
use crate::domain::event::{IterationKind, IterationOutcome};
use crate::domain::plan::{OnAlarm, OnNoSignal, PromptReuse};
use crate::domain::{
    Attack, Event, Iteration, IterationPlan, JudgmentCounts, PairId, Panel, PanelMember, PolicyRef,
    PromptId, RubricId, TaskKey,
};
use crate::view::{
    AttackScores, BadAnswerMargin, CheckpointFacts, IterationView, ProbeResult, RunView,
};
use std::sync::Arc;

/// What is decided once in an iteration, and what was decided. The kind is the task's key, not the
/// events: they follow from what the view happens to hold (prompts a host has just added), and a
/// decision must not be taken a second time, differently, by a view that is behind.
struct Decision {
    iteration: Iteration,
    kind: DecisionKind,
    events: Vec<Event>,
}

#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum DecisionKind {
    Start,
    Adopt,
    Prompts,
    Split(Vec<PromptId>),
    Quarantine(PromptId),
    Pairs,
    End,
    RollBack(RubricId),
}

/// The conductor stage: the only one that holds settings, for it makes the next plan of them.
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
        let Some(plan) = &open.plan else {
            return self.adopt(view, iteration, open);
        };
        if view.is_overruled() {
            let reason = "another policy was chosen by hand while it was open".to_owned();
            return Some(end(iteration, IterationOutcome::Rejected { reason }));
        }
        if let Some((rubric, reason, back_to)) = view.failing() {
            let (rubric, reason, back_to) = (rubric.clone(), reason.clone(), back_to.clone());
            let kind = DecisionKind::RollBack(rubric.clone());
            // The panel before comes back whole: what the others that were new judged goes too.
            let taken_back = open.panel.leaving(&back_to);
            let event = Event::RubricRolledBack { rubric, back_to, reason, taken_back };
            return Some(Decision { iteration, kind, events: vec![event] });
        }
        if let Some(stuck) = stuck_task(view) {
            return Some(stuck.decision(iteration));
        }
        if let Some(reason) = &open.diverged {
            let rollbacks = open.rollbacks;
            let reason = Code::TrainingDiverged.says(format_args!(
                "training met numbers that are not finite again after {rollbacks} rollbacks, each \
                 with half the learning rate ({reason}). Lower the learning rate; the old policy \
                 stays"
            ));
            return Some(end(iteration, IterationOutcome::Failed { reason }));
        }
        match open.kind {
            IterationKind::Sft => finish(view, plan, iteration, open),
            IterationKind::Dpo => seal_prompts(view, plan, iteration, open)
                .or_else(|| seal_pairs(view, plan, iteration, open))
                .or_else(|| finish(view, plan, iteration, open)),
        }
    }

    fn open_iteration(&self, view: &RunView) -> Option<Decision> {
        if view.finished() >= self.config.iterations.max(view.iterations_raised) {
            return None;
        }
        let (iteration, kind) = view.next_iteration();
        if PromptsAwaited::of(&self.config, view).is_some() {
            return None;
        }
        let (policy, panel) = (view.policy.as_ref()?, view.panel.as_ref()?);
        let plan = Box::new(planned(&self.config, view, kind, (policy, panel))?);
        let start = Event::IterationStarted { iteration, plan };
        let events = self.with_changes(view, start);
        Some(Decision { iteration, kind: DecisionKind::Start, events })
    }

    /// A plan was made, and the settings that it was made from are others than the last ones.
    fn with_changes(&self, view: &RunView, plan: Event) -> Vec<Event> {
        let recorded = view.settings.as_ref();
        let changes = recorded.map(|before| changes(before, &self.config)).unwrap_or_default();
        let changed = (!changes.is_empty()).then_some(Event::SettingsChanged { changes });
        changed.into_iter().chain([plan]).collect()
    }

    /// Schema 1 read settings as they stood at every moment: an iteration that it left open goes on
    /// under those of this moment, for good.
    fn adopt(
        &self,
        view: &RunView,
        iteration: Iteration,
        open: &IterationView,
    ) -> Option<Decision> {
        let plan = planned(&self.config, view, open.kind, (&open.policy, &open.panel))?;
        let adopted = Event::PlanAdopted { iteration, plan: Box::new(plan) };
        let events = self.with_changes(view, adopted);
        Some(Decision { iteration, kind: DecisionKind::Adopt, events })
    }
}

/// Prompts that have to come before an iteration is opened: it would have nothing to answer, or
/// fewer than `prompts.wait_for`. Waiting costs nothing, and an admitted prompt ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptsAwaited {
    /// How many wait to be answered.
    pub waiting: usize,
    /// How many there have to be.
    pub wanted: usize,
}

impl PromptsAwaited {
    /// What a run with these settings waits for before its next iteration; `None`: nothing.
    pub fn of(config: &Config, view: &RunView) -> Option<PromptsAwaited> {
        // A supervised iteration needs none.
        if view.open().is_some() || view.next_iteration().1 == IterationKind::Sft {
            return None;
        }
        let reuses =
            || config.prompts.reuse == PromptReuse::WhenEmpty && view.answered().next().is_some();
        let wanted = match config.prompts.wait_for {
            // The policy writes what is lacking.
            0 if config.prompts.generate => 0,
            // It is taken from those that were answered.
            0 if reuses() => 0,
            wait_for => wait_for.max(1) as usize,
        };
        let waiting = view.waiting();
        (waiting < wanted).then_some(PromptsAwaited { waiting, wanted })
    }
}

/// The plan that settings make of an iteration; `None` of a run that has not begun.
pub(crate) fn planned(
    config: &Config,
    view: &RunView,
    kind: IterationKind,
    (policy, panel): (&PolicyRef, &Panel),
) -> Option<IterationPlan> {
    let initial = view.first.as_ref().or(view.base.as_ref())?;
    let mean = view.moving_mean().unwrap_or(initial);
    let seed_data = &view.seed_data;
    Some(config.plan(&PlanInputs { kind, policy, initial, mean, panel, seed_data }))
}

/// A stage's next task that failed too often, so that no one will try it again. Asked of the
/// stages and not counted: tasks that were given up before, however many, are nothing to this.
fn stuck_task(view: &RunView) -> Option<Stuck> {
    if view.failures.values().all(|n| *n < ATTEMPTS_MAX) {
        return None;
    }
    stuck(&Sampler, view, SampleTask::prompts)
        .or_else(|| stuck(&Judge, view, JudgeTask::prompts))
        .or_else(|| stuck(&PairStore, view, PairTask::prompts))
        .or_else(|| stuck(&Trainer::default(), view, |_| Vec::new()))
        .or_else(|| stuck(&Evaluator, view, |_| Vec::new()))
}

/// Names of prompts or pairs that one event takes: a few hundred kilobytes of them, whatever a pool
/// comes to.
pub(crate) const SEALED_PER_EVENT: usize = 8192;

/// A sealed set as events, none of which grows with it; each knows how many follow.
fn sealed<T: Clone>(all: &[T], event: impl Fn(Vec<T>, u32) -> Event) -> Vec<Event> {
    let parts = all.chunks(SEALED_PER_EVENT);
    let left = (0..parts.len() as u32).rev();
    parts.zip(left).map(|(part, left)| event(part.to_vec(), left)).collect()
}

/// Seals the prompts once enough wait, or once no more will come.
fn seal_prompts(
    view: &RunView,
    plan: &IterationPlan,
    iteration: Iteration,
    open: &IterationView,
) -> Option<Decision> {
    if open.prompts.is_some() {
        return None;
    }
    let wanted = plan.prompts.per_iteration as usize;
    let waiting = view.waiting();
    if waiting < wanted && next_round(&plan.prompts, open).is_some() {
        return None;
    }
    let mut prompts: Vec<PromptId> = view.unused().take(wanted).map(|(id, _)| id.clone()).collect();
    if plan.prompts.reuse == PromptReuse::WhenEmpty {
        prompts.extend(answered_again(view, iteration, wanted - prompts.len()));
    }
    if prompts.is_empty() {
        let reason = "no unused prompt is left: add prompts, set prompts.generate: true, or have them \
                      answered again (prompts.reuse: when_empty)";
        let outcome = IterationOutcome::NoSignal { reason: Code::NoPromptLeft.says(reason) };
        return Some(give_up(plan, iteration, outcome));
    }
    // Who is taken goes by turns; in which order they are answered, by their ids.
    prompts.sort();
    let event = |prompts, left| Event::PromptsSealed { iteration, prompts, left };
    Some(Decision { iteration, kind: DecisionKind::Prompts, events: sealed(&prompts, event) })
}

/// Prompts that earlier iterations answered, as many as are wanted, drawn anew for each iteration.
fn answered_again(view: &RunView, iteration: Iteration, wanted: usize) -> Vec<PromptId> {
    let Some(seed) = view.seed.filter(|_| wanted > 0) else { return Vec::new() };
    let draw = seed.derive("reuse").index(u64::from(iteration.0));
    let mut drawn: Vec<_> = view.answered().map(|id| (draw.derive(id.as_str()).0, id)).collect();
    drawn.sort_unstable();
    drawn.into_iter().take(wanted).map(|(_, id)| id.clone()).collect()
}

fn seal_pairs(
    view: &RunView,
    plan: &IterationPlan,
    iteration: Iteration,
    open: &IterationView,
) -> Option<Decision> {
    if open.sealed.is_some() || !open.all_decided() || shadow::is_awaited(plan, view, open) {
        return None;
    }
    if let Some(probes) = probe::planned(plan) {
        // Judged or not, nothing is decided before it is known what the judge is worth.
        let due = |member: &PanelMember| probe::is_due(view, iteration, open, &member.rubric, plan);
        if open.panel.members().iter().any(due) {
            return None;
        }
        let mut rubrics = open.rubrics().into_iter();
        let most = probes.forgery_gain_max;
        if let Some(reason) = rubrics.find_map(|rubric| compromised(open, rubric, most)) {
            return Some(give_up(plan, iteration, IterationOutcome::JudgeCompromised { reason }));
        }
    }
    let wanted = plan.pairing.min_pairs as usize;
    if open.pairs.len() < wanted.max(1) {
        let outcome = IterationOutcome::NoSignal { reason: no_signal(open, wanted) };
        return Some(give_up(plan, iteration, outcome));
    }
    let pairs: Vec<PairId> = open.pairs.values().map(|(id, _)| id.clone()).collect();
    let event = |pairs, left| Event::PairsSealed { iteration, pairs, left };
    Some(Decision { iteration, kind: DecisionKind::Pairs, events: sealed(&pairs, event) })
}

/// Why nothing this judge says under a rubric may be learned from, if so; forging may gain `most`.
fn compromised(open: &IterationView, rubric: &RubricId, most: f64) -> Option<String> {
    let fooled = |scores: &&AttackScores| scores.result(most) == ProbeResult::Failed;
    if let Some(scores) = open.attacks_under(rubric).find(fooled) {
        return Some(fooled_by(scores, most));
    }
    let BadAnswerMargin { margin, result } = open.bad_answer_margin(rubric)?;
    (result == ProbeResult::Failed).then(|| {
        Code::JudgeLikesBadAnswers.says(format_args!(
            "the judge likes bad answers better than the policy's, which scored {} of the scale \
             beside empty answers, a full stop and the prompt itself, at {} prompts. The policy \
             would learn to answer badly. Take another rubric or a better judge; what was asked is \
             in the log, in the records judge_probed",
            margin.percent(),
            margin.n
        ))
    })
}

/// Ends an iteration from which there is nothing to learn, and waits if the plan wants that.
fn give_up(plan: &IterationPlan, iteration: Iteration, outcome: IterationOutcome) -> Decision {
    let mut decision = end(iteration, outcome);
    if plan.pairing.on_no_signal == OnNoSignal::Pause {
        decision.events.push(Event::PauseRequested);
    }
    decision
}

fn finish(
    view: &RunView,
    plan: &IterationPlan,
    iteration: Iteration,
    open: &IterationView,
) -> Option<Decision> {
    let evaluation = open.evaluation.as_ref()?;
    let CheckpointFacts { policy, .. } = open.checkpoint.clone()?;
    let passed = match view.pinned {
        true => Err("the policy that acts is pinned: somebody wants it to stay".to_owned()),
        false => gate(open.kind, evaluation, &plan.evaluation.gate),
    };
    let (decision, outcome) = match passed {
        Ok(()) => (Event::CheckpointPromoted { iteration, policy }, IterationOutcome::Promoted),
        Err(reason) => (
            Event::CheckpointRejected { iteration, policy, reason: reason.clone() },
            IterationOutcome::Rejected { reason },
        ),
    };
    let finished = Event::IterationFinished { iteration, outcome };
    Some(Decision { iteration, kind: DecisionKind::End, events: vec![decision, finished] })
}

/// That forging pays, in words.
fn fooled_by(scores: &AttackScores, most: f64) -> String {
    let gain = scores.gain();
    let (bare, forged) = (scores.bare.unwrap_or_default(), scores.forged.unwrap_or_default());
    let (believes, how, learn) = match scores.attack {
        Attack::Claim => {
            ("believes what answers say about themselves", "with a forged verdict", "verdicts")
        }
        Attack::MasterKey => {
            ("rewards words in the place of an answer", "as such words (\":\")", "such words")
        }
        Attack::Repetition => {
            ("rewards repetition", "repeated three times", "everything three times")
        }
    };
    Code::JudgeBelievesForgery.says(format_args!(
        "the judge {believes}: bad answers scored {bare:.2}, and {how} {forged:.2}, which is {} of the \
         scale over {} answers (judge.forgery_gain_max allows {:.0} %). The policy would learn to \
         write {learn}. Take another rubric or a better judge; what was asked is in the log, in the \
         records judge_probed",
        gain.percent(),
        gain.n,
        most * 100.0
    ))
}

/// An iteration that ends without a checkpoint to decide about.
fn end(iteration: Iteration, outcome: IterationOutcome) -> Decision {
    let events = vec![Event::IterationFinished { iteration, outcome }];
    Decision { iteration, kind: DecisionKind::End, events }
}

/// The end of an iteration, after what looks wrong of it; the run waits if its plan wants that.
fn with_alarms(view: &RunView, iteration: Iteration, end: Vec<Event>) -> Vec<Event> {
    let Some((_, open)) = view.open() else { return end };
    let Some(plan) = open.plan.as_deref() else { return end };
    let raised = alarms(view, plan, open).into_iter();
    let mut events: Vec<Event> =
        raised.map(|alarm| Event::AlarmRaised { iteration, alarm }).collect();
    let pauses = !events.is_empty() && plan.evaluation.on_alarm == OnAlarm::Pause;
    events.extend(end);
    if pauses && !events.contains(&Event::PauseRequested) {
        events.push(Event::PauseRequested);
    }
    events
}

/// Whether an iteration ends in failure.
fn is_failure(event: &Event) -> bool {
    let Event::IterationFinished { outcome, .. } = event else { return false };
    matches!(outcome, IterationOutcome::Failed { .. })
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
                let reason = Code::TaskGivenUp.says(format_args!(
                    "a task of the {stage} failed {ATTEMPTS_MAX} times; why is in the log, in the \
                     records task_failed"
                ));
                end(iteration, IterationOutcome::Failed { reason })
            }
            [prompt] => {
                let (prompt, stage) = (prompt.clone(), stage.to_owned());
                let kind = DecisionKind::Quarantine(prompt.clone());
                let events = vec![Event::PromptQuarantined { iteration, prompt, stage, task }];
                Decision { iteration, kind, events }
            }
            _ => {
                let kind = DecisionKind::Split(prompts.clone());
                let parts = prompts.chunks(SEALED_PER_EVENT).map(<[PromptId]>::to_vec);
                let split = parts.map(|prompts| Event::PromptsSplit { iteration, prompts });
                Decision { iteration, kind, events: split.collect() }
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
    let JudgmentCounts { total, unscored } = open.judgments;
    let share = open.judgments.unscored_share();
    let (code, advice) = if share > 0.5 {
        let advice = "Most judgments have no score: small models often ignore the form they are \
                      asked for. Teach the model the form with seed data for its judging (eft), raise \
                      judge.max_new_tokens, take another rubric, or set judge.readout: forced, which \
                      makes it begin a score and marks what comes of that";
        (Code::FewScores, advice)
    } else {
        let advice = "Raise sampling.temperature or sampling.candidates for answers that differ \
                      more, judge.samples for less noise, set judge.readout: expected for finer \
                      scores, or take another rubric";
        (Code::FewPairs, advice)
    };
    code.says(format_args!(
        "{} prompts gave {} pairs, fewer than pairs.min_pairs = {wanted} ({}); {unscored} of \
         {total} judgments have no score. {advice}",
        open.prompts.as_ref().map_or(0, |prompts| prompts.len()),
        open.pairs.len(),
        list.join(", "),
    ))
}

impl Stage for Conductor {
    type Task = Vec<Event>;
    const NAME: &'static str = "conductor";
    const DUTY: Duty = Duty::KeepsBooks;

    fn next(&self, view: &RunView) -> Option<(TaskKey, Vec<Event>)> {
        let Decision { iteration, kind, mut events } = self.decide(view)?;
        if matches!(kind, DecisionKind::End) {
            events = with_alarms(view, iteration, events);
        }
        if self.config.on_failure == OnFailure::Stop && events.iter().any(is_failure) {
            events.push(Event::PauseRequested);
        }
        let voided = view.open().map_or(0, |(_, open)| match &kind {
            DecisionKind::Pairs => open.pairs_voided(),
            DecisionKind::Quarantine(_) | DecisionKind::End => open.end_voided(),
            DecisionKind::Start
            | DecisionKind::Adopt
            | DecisionKind::Prompts
            | DecisionKind::Split(_)
            | DecisionKind::RollBack(_) => 0,
        });
        let key = match &kind {
            // Whoever changes what judges has the same key: of two at once, one is refused.
            DecisionKind::RollBack(_) => view.rubrics.change_key(),
            _ => task_key(Self::NAME, view, &(iteration, kind)).after(voided),
        };
        Some((key, events))
    }

    fn needs(&self, _: &Vec<Event>, _: &RunView, _: &StageContext) -> Needs {
        Needs::Nothing
    }

    fn run(
        &mut self,
        task: Vec<Event>,
        _view: &RunView,
        _context: &StageContext,
    ) -> Result<Vec<Event>, StageError> {
        Ok(task)
    }
}

#[cfg(test)]
mod prompt_order;
#[cfg(test)]
mod tests;
