//! What must hold of any log, however the run went.

use super::flaky::Disk;
use super::world;
use gradus::config::Config;
use gradus::domain::evaluation::{Evaluation, HeldOutAnswer, Referee};
use gradus::domain::event::IterationOutcome;
use gradus::domain::plan::ReferenceRule;
use gradus::domain::{
    Completion, Event, Iteration, Judgment, Offset, PairId, PolicyRef, PreferencePair, PromptId,
    RubricId, Side, StopReason, TextRef,
};
use gradus::log::{Log, Recorded, verify};
use gradus::stage::held_out::HeldOutPrompt;
use gradus::stage::verdict::head_to_head;
use gradus::view::RunView;
use std::collections::{BTreeMap, BTreeSet};

/// Every record of a log.
pub fn records(disk: &Disk) -> Vec<Recorded> {
    disk.log.read(Offset(0), usize::MAX).unwrap()
}

/// The log is whole, no key is taken twice, and every batch is one stretch of records.
pub fn keys_are_taken_once(disk: &Disk) {
    let found = verify(disk.log.as_ref());
    assert_eq!(found.first_error, None);
    let mut keys = BTreeSet::new();
    let mut next = None;
    for (key, first, tail) in disk.taken.lock().unwrap().iter() {
        assert!(next.is_none_or(|next| *first >= next), "a batch inside another");
        next = Some(*tail);
        if let Some(key) = key {
            assert!(keys.insert(key.clone()), "task {} is recorded twice", key.short());
        }
    }
}

/// What one iteration did to one prompt.
#[derive(Default)]
struct Journey {
    /// The policy's own, and after them those of another sample set.
    completions: Option<Vec<Completion>>,
    /// How many are the policy's own.
    own: u32,
    judgments: Option<Vec<Judgment>>,
    /// The rubrics that asked, those without a judgment too.
    asked: BTreeSet<RubricId>,
    scores: Vec<Option<f64>>,
    /// Judgments that were taken back, with the rubric that failed.
    taken_back: u32,
    decided: bool,
    quarantined: bool,
}

/// One iteration, as its records tell it in their order.
#[derive(Default)]
struct Story {
    policy: Option<PolicyRef>,
    prompts: Option<Vec<PromptId>>,
    journeys: BTreeMap<PromptId, Journey>,
    pairs: BTreeSet<PairId>,
    sealed: Option<BTreeSet<PairId>>,
    probed: BTreeSet<(RubricId, u32)>,
    scored: BTreeSet<PairId>,
    steps: u32,
    good: u32,
    last_skipped: bool,
    rollbacks: i32,
    diverged: bool,
    checkpoint: Option<(PolicyRef, bool)>,
    held_out: Vec<Event>,
    evaluated: bool,
    promoted: Option<PolicyRef>,
    outcome: Option<IterationOutcome>,
}

impl Story {
    fn tell(&mut self, event: &Event) {
        match event {
            Event::CompletionsSampled { .. }
            | Event::JudgmentsRecorded { .. }
            | Event::PairFormed { .. }
            | Event::PairSkipped { .. }
            | Event::PromptQuarantined { .. } => self.tell_journey(event),
            Event::PromptsSealed { prompts, .. } => {
                assert!(self.prompts.replace(prompts.clone()).is_none(), "prompts sealed twice");
            }
            Event::JudgeProbed { judge, report, rubric, round, .. } => {
                assert_eq!(*judge, self.policy.as_ref().unwrap().id());
                // A program has no judge to fool.
                let program = *rubric == world::verifier();
                assert!(!program || report.answers.is_empty());
                assert!(self.probed.insert((rubric.clone(), *round)), "probed twice");
            }
            Event::PairsSealed { pairs, .. } => {
                let all = self.prompts.as_ref().unwrap().iter();
                assert!(all.into_iter().all(|p| self.journeys[p].decided), "sealed too early");
                let pairs: BTreeSet<PairId> = pairs.iter().cloned().collect();
                assert_eq!(pairs, self.pairs);
                assert!(self.sealed.replace(pairs).is_none(), "pairs sealed twice");
            }
            _ => self.tell_training(event),
        }
    }

    /// A rubric failed: what it judged is judged again, but for what is decided.
    fn take_back(&mut self, rubric: &RubricId) {
        if self.sealed.is_some() || self.outcome.is_some() {
            return;
        }
        self.probed.retain(|(probed, _)| probed != rubric);
        for (prompt, journey) in &mut self.journeys {
            let pair = self.pairs.iter().any(|pair| pair.0.ends_with(prompt.as_str()));
            let ours = journey.judgments.iter().flatten().any(|j| j.rubric == *rubric);
            if ours && !pair {
                journey.judgments = None;
                journey.taken_back += 1;
                journey.decided &= journey.quarantined;
            }
        }
    }

    /// What these rubrics judged counts for nothing, and nothing that came of it.
    fn take_all_back(&mut self, rubrics: &[RubricId], judged_now: bool, view: &RunView) {
        if self.outcome.is_some() {
            return;
        }
        let mut any = false;
        for (prompt, journey) in &mut self.journeys {
            let again = journey.quarantined
                && view.open().is_some_and(|(_, open)| !open.is_quarantined(prompt));
            let judged = journey.judgments.is_some();
            if (judged && rubrics.iter().any(|rubric| journey.asked.contains(rubric))) || again {
                any = true;
                journey.judgments = None;
                journey.taken_back += 1;
                journey.quarantined &= !again;
                journey.decided = journey.quarantined;
                self.pairs.retain(|pair| !pair.0.contains(prompt.as_str()));
            }
        }
        self.probed.retain(|(rubric, _)| !rubrics.contains(rubric));
        self.evaluated &= !(any || judged_now);
        if any {
            let (policy, outcome) = (self.policy.take(), self.outcome.take());
            let (prompts, journeys) = (self.prompts.take(), std::mem::take(&mut self.journeys));
            let (pairs, probed) =
                (std::mem::take(&mut self.pairs), std::mem::take(&mut self.probed));
            *self = Story { policy, outcome, prompts, journeys, pairs, probed, ..Story::default() };
        }
    }

    fn journey(&mut self, prompt: &PromptId) -> &mut Journey {
        let sealed = self.prompts.as_ref().expect("prompts are sealed before they are answered");
        assert!(sealed.contains(prompt), "{prompt} is not among the sealed ones");
        self.journeys.entry(prompt.clone()).or_default()
    }

    fn tell_journey(&mut self, event: &Event) {
        let acts = self.policy.as_ref().unwrap().id();
        match event {
            Event::CompletionsSampled { prompt, policy, completions, set, .. }
                if set == "policy" =>
            {
                assert_eq!(*policy, acts);
                let journey = self.journey(prompt);
                journey.own = completions.len() as u32;
                let before = journey.completions.replace(completions.clone());
                assert!(before.is_none(), "{prompt} is answered twice");
            }
            Event::CompletionsSampled { prompt, completions, .. } => {
                let journey = self.journey(prompt);
                let all = journey.completions.as_mut().expect("the policy's own come first");
                assert_eq!(all.len() as u32, journey.own, "{prompt} is answered twice");
                all.extend(completions.iter().cloned());
            }
            Event::JudgmentsRecorded { prompt, judge, judgments, scores, rubrics, .. } => {
                assert_eq!(*judge, acts);
                let journey = self.journey(prompt);
                let completions = journey.completions.as_ref().expect("answered before judged");
                assert!(judgments.iter().all(|j| (j.candidate as usize) < completions.len()));
                assert_eq!(scores.len(), completions.len());
                let asked: BTreeSet<&RubricId> = judgments.iter().map(|j| &j.rubric).collect();
                assert!(asked.iter().all(|id| rubrics.iter().any(|named| named.rubric == **id)));
                journey.scores.clone_from(scores);
                let named = rubrics.iter().map(|named| &named.rubric);
                journey.asked = asked.into_iter().chain(named).cloned().collect();
                let before = journey.judgments.replace(judgments.clone());
                assert!(before.is_none(), "{prompt} is judged twice");
            }
            Event::PairFormed { pair, .. } => {
                assert!(self.pairs.insert(pair.id.clone()), "{:?} twice", pair.id);
                let journey = self.journey(&pair.prompt);
                assert!(!std::mem::replace(&mut journey.decided, true), "decided twice");
                check_pair(pair, journey);
            }
            Event::PromptQuarantined { prompt, .. } => {
                let journey = self.journey(prompt);
                assert!(!std::mem::replace(&mut journey.decided, true), "decided twice");
                journey.quarantined = true;
            }
            Event::PairSkipped { prompt, .. } => {
                let journey = self.journey(prompt);
                assert!(journey.judgments.is_some(), "judged before decided");
                assert!(!std::mem::replace(&mut journey.decided, true), "decided twice");
            }
            _ => {}
        }
    }

    fn tell_training(&mut self, event: &Event) {
        match event {
            Event::ReferenceScored { logps, .. } => {
                let sealed = self.sealed.as_ref().expect("pairs are sealed before");
                for pair in logps.iter().map(|l| &l.pair) {
                    assert!(sealed.contains(pair) && self.scored.insert(pair.clone()), "once each");
                }
            }
            Event::StepTaken { step, .. } | Event::StepSkipped { step, .. } => {
                assert_eq!(*step, self.steps, "steps follow each other");
                self.steps += 1;
                self.last_skipped = event.kind() == "step_skipped";
            }
            Event::MemoryShort { step, rows, .. } => {
                assert!(*step >= self.steps && *rows > 0, "of a step that is to come");
            }
            Event::TrainingRolledBack { step, scale, .. } => {
                assert_eq!(*step, self.good, "back to the last checkpoint that ends well");
                self.steps = *step;
                self.rollbacks += 1;
                assert_eq!(*scale, 0.5f64.powi(self.rollbacks), "half the rate each time");
                assert!(self.rollbacks <= 2, "too many rollbacks");
            }
            Event::TrainingDiverged { step, .. } => {
                assert_eq!((*step, self.rollbacks), (self.good, 2));
                self.diverged = true;
            }
            Event::CheckpointSaved { step, steps_total, policy, .. } => {
                assert!(!self.diverged, "nothing is saved after training was given up");
                if !self.last_skipped {
                    self.good = *step;
                }
                assert_eq!(*step, self.steps, "a checkpoint holds the steps before it");
                self.checkpoint = Some((policy.clone(), step == steps_total));
            }
            Event::HeldOutJudged { judge, .. } => {
                assert_eq!(*judge, self.policy.as_ref().unwrap().id());
                assert!(!self.evaluated, "answers come before what is made of them");
                self.held_out.push(event.clone());
            }
            Event::EvaluationFinished { evaluation, .. } => {
                audit(&std::mem::take(&mut self.held_out), evaluation);
                let (policy, whole) = self.checkpoint.as_ref().unwrap();
                assert!(*whole && evaluation.policy == policy.id());
                assert!(!std::mem::replace(&mut self.evaluated, true), "evaluated twice");
            }
            Event::CheckpointPromoted { policy, .. } => {
                assert_eq!(Some(&(policy.clone(), true)), self.checkpoint.as_ref());
                assert!(self.evaluated && self.promoted.replace(policy.clone()).is_none());
            }
            Event::IterationFinished { outcome, .. } => {
                assert!(self.outcome.replace(outcome.clone()).is_none(), "finished twice");
                let promoted = *outcome == IterationOutcome::Promoted;
                assert_eq!(self.promoted.is_some(), promoted);
                let failed = matches!(outcome, IterationOutcome::Failed { .. });
                assert!(failed || !self.diverged, "what diverged has failed");
                if matches!(
                    outcome,
                    IterationOutcome::NoSignal { .. } | IterationOutcome::JudgeCompromised { .. }
                ) {
                    assert!(self.steps == 0 && self.checkpoint.is_none(), "trained on nothing");
                }
            }
            _ => {}
        }
    }
}

/// Every figure of an evaluation follows from the answers recorded before it: by the evaluator's own
/// functions, and counted here by hand.
fn audit(events: &[Event], evaluation: &Evaluation) {
    let held_out = HeldOutPrompt::gathered(events);
    let prompts: BTreeSet<&PromptId> = held_out.iter().map(|one| &one.prompt).collect();
    assert_eq!(prompts.len(), held_out.len(), "each prompt once");
    assert_eq!(evaluation.length.n as usize, held_out.len());
    let gate = evaluation.gate_referee.as_ref().unwrap();
    assert_ne!(gate.referee, Referee::Oracle);
    assert!(evaluation.before_the_gate().is_some(), "also where nothing was compared");
    for found in &evaluation.head_to_head {
        let opponent = (found.opponent.as_str(), found.policy.clone());
        let growth = Config::default().evaluate.gate.length_growth_max;
        assert_eq!(*found, head_to_head(&held_out, opponent, found.referee, growth));
        let mut counts = [0, 0, 0];
        for one in &held_out {
            assert!(one.judgments.iter().all(|j| (j.candidate as usize) < one.answers.len()));
            let asked = |id: &RubricId| one.rubrics.iter().any(|named| named.rubric == *id);
            assert!(one.judgments.iter().all(|j| asked(&j.rubric)));
            let score = |role: &str| {
                let is = |answer: &&HeldOutAnswer| answer.roles.iter().any(|known| known == role);
                one.answers.iter().find(is).unwrap().score(found.referee)
            };
            if let (Some(our), Some(their)) = (score("checkpoint"), score(&found.opponent)) {
                counts[usize::from(our < their + 1e-9) + usize::from(our < their - 1e-9)] += 1;
            }
        }
        assert_eq!(counts, [found.wins, found.ties, found.losses]);
    }
}

/// Chosen is better than rejected by the recorded judgments, not only by the pair's own word.
fn check_pair(pair: &PreferencePair, journey: &Journey) {
    let (chosen, rejected) = (index(&pair.chosen, journey.own), index(&pair.rejected, journey.own));
    let pairs_scores = (pair.chosen.score.unwrap(), pair.rejected.score.unwrap());
    assert!(pairs_scores.0 > pairs_scores.1, "{pair:?}");
    let judgments = journey.judgments.as_ref().expect("judged before paired");
    let recorded = |candidate: u32| journey.scores[candidate as usize].expect("it has a score");
    assert_eq!((recorded(chosen), recorded(rejected)), pairs_scores);
    let rubrics: BTreeSet<&RubricId> = judgments.iter().map(|j| &j.rubric).collect();
    if rubrics == BTreeSet::from([&world::demo()]) {
        let mean = |candidate: u32| {
            let ours = judgments.iter().filter(|j| j.candidate == candidate);
            let scores: Vec<f64> = ours.filter_map(|j| j.outcome.score()).collect();
            scores.iter().sum::<f64>() / scores.len() as f64
        };
        assert_eq!((mean(chosen), mean(rejected)), pairs_scores);
    }
    let completions = journey.completions.as_ref().unwrap();
    let (chosen, rejected) = (&completions[chosen as usize], &completions[rejected as usize]);
    assert_ne!(chosen.token_ids, rejected.token_ids);
    assert!([chosen, rejected].iter().all(|c| c.stop != StopReason::StopText));
}

/// Which of a prompt's completions a side is, of which `own` are the policy's own.
fn index(side: &Side, own: u32) -> u32 {
    match &side.text {
        TextRef::Completion { set, index } if set == "policy" => *index,
        TextRef::Completion { index, .. } => own + index,
        other => panic!("{other:?} is no completion"),
    }
}

/// No pair that was trained on is of judgments that were taken back: each is of the judgments that
/// the view holds, and no rubric among them was rolled back in the iteration.
pub fn nothing_taken_back_is_trained_on(disk: &Disk, view: &RunView) -> u32 {
    let all = records(disk);
    let mut sealed_pairs = 0;
    for (iteration, open) in &view.iterations {
        let sealed: BTreeSet<&PairId> = open.sealed.iter().flatten().collect();
        let kept: BTreeSet<&PairId> = open.pairs.values().map(|(pair, _)| pair).collect();
        assert!(open.sealed.is_none() || sealed == kept, "iteration {iteration}");
        for (prompt, (id, formed)) in &open.pairs {
            let [at, formed] =
                [*open.judged.get(prompt).unwrap(), *formed].map(|at| &all[at.0 as usize].event);
            let (
                Event::JudgmentsRecorded { judgments, scores, .. },
                Event::PairFormed { pair, .. },
            ) = (at, formed)
            else {
                panic!("{at:?} {formed:?}")
            };
            assert_eq!((&pair.id, &pair.prompt), (id, prompt));
            let score = |candidate: u32| scores[candidate as usize].unwrap();
            assert_eq!(
                (score(index(&pair.chosen, 0)), score(index(&pair.rejected, 0))),
                (pair.chosen.score.unwrap(), pair.rejected.score.unwrap()),
                "the pair is of these judgments"
            );
            for judgment in judgments {
                assert!(!open.is_taken_back(&judgment.rubric), "{prompt} in iteration {iteration}");
            }
            sealed_pairs += u32::from(open.sealed.is_some());
        }
    }
    sealed_pairs
}

/// The whole run, record by record.
pub fn the_story_holds(disk: &Disk) {
    let mut stories: BTreeMap<Iteration, Story> = BTreeMap::new();
    let mut view = RunView::default();
    let mut acting = None;
    for record in records(disk) {
        let (before, counts) = (view.clone(), view.accepts(&record));
        view.apply(&record);
        if !counts {
            continue;
        }
        match &record.event {
            Event::RunStarted { base, .. } => acting = Some(base.clone()),
            Event::IterationStarted { iteration, plan } => {
                let open = stories.values().filter(|story| story.outcome.is_none()).count();
                assert_eq!(open, 0, "one iteration at a time");
                assert_eq!(Some(&plan.policy), acting.as_ref());
                let against = plan.reference.policy.as_ref();
                let wanted = match plan.reference.rule {
                    ReferenceRule::Previous => Some(&plan.policy),
                    ReferenceRule::Initial => before.first.as_ref().or(before.base.as_ref()),
                    ReferenceRule::None => None,
                    ReferenceRule::Ema if plan.reference.made_of.is_some() => None,
                    ReferenceRule::Ema => Some(&plan.policy),
                    other => panic!("the story does not know {other:?}"),
                };
                assert_eq!(against, wanted);
                let story = Story { policy: Some(plan.policy.clone()), ..Story::default() };
                assert!(stories.insert(*iteration, story).is_none(), "started twice");
            }
            Event::RubricRolledBack { rubric, taken_back, .. } => {
                let Some(story) = stories.values_mut().last() else { continue };
                match (taken_back.as_slice(), before.open()) {
                    ([], _) => story.take_back(rubric),
                    (taken_back, Some((_, open))) => {
                        let judged_now = taken_back.iter().any(|rubric| open.panel.has(rubric));
                        story.take_all_back(taken_back, judged_now, &view);
                    }
                    (_, None) => {}
                }
            }
            event => {
                let Some(iteration) = event.iteration() else { continue };
                stories.get_mut(&iteration).expect("an iteration starts first").tell(event);
            }
        }
        if let Event::CheckpointPromoted { policy, .. } = &record.event {
            acting = Some(policy.clone());
        }
    }
    assert_eq!(view.policy, acting, "the last promoted checkpoint acts");
    let used: Vec<&PromptId> =
        stories.values().flat_map(|story| story.prompts.iter().flatten()).collect();
    let once: BTreeSet<&PromptId> = used.iter().copied().collect();
    assert_eq!(used.len(), once.len(), "a prompt is trained on in one iteration");
    for (held_out, _) in view.held_out() {
        assert!(!once.contains(held_out), "{held_out} is held out");
    }
    for (iteration, story) in &stories {
        whole(*iteration, story);
    }
}

/// An iteration that did not fail left no prompt half way.
fn whole(iteration: Iteration, story: &Story) {
    match story.outcome.as_ref() {
        None => panic!("iteration {iteration} is not over"),
        Some(IterationOutcome::Failed { .. }) => {}
        Some(_) => {
            for prompt in story.prompts.iter().flatten() {
                let journey = &story.journeys[prompt];
                let judged = journey.completions.is_some() && journey.judgments.is_some();
                assert!(judged || journey.quarantined, "{prompt} in iteration {iteration}");
                assert!(journey.decided, "{prompt} in iteration {iteration}");
            }
        }
    }
}
