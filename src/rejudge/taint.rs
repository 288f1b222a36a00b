//! What a rubric that turned out bad has touched, directly and through the models that were trained
//! on its pairs; and the same run from before it.

use super::Past;
use super::branch::{Beginning, new_to};
use crate::domain::{Event, Iteration, Offset, PairId, Panel, PolicyId, PromptId, RubricId};
use crate::error::{Code, Error};
use crate::runtime::Folder;
use crate::stage::judge::panel::name_of;
use crate::view::{GateDecision, IterationView, PromptJudgments, RunView};
use serde::Serialize;
use std::collections::BTreeSet;

/// A prompt that a rubric judged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaintedPrompt {
    /// Which.
    pub prompt: PromptId,
    /// The record of its judgments.
    pub judged: Option<Offset>,
    /// The pair that was formed of them.
    pub pair: Option<PairId>,
    /// Whether that was trained on.
    pub trained: bool,
}

/// What a rubric touched in one iteration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaintedIteration {
    /// Which.
    pub iteration: Iteration,
    /// Its policy was trained on pairs of the rubric: whatever it did is touched.
    pub inherited: bool,
    /// Prompts that the rubric judged, in order.
    pub prompts: Vec<TaintedPrompt>,
    /// Its judgments of these prompts.
    pub judgments: u32,
    /// Pairs that were formed from them.
    pub pairs: u32,
    /// Of those, how many were trained on.
    pub trained: u32,
    /// The rubric measured the iteration's model, or the gate's opponent.
    pub measured: bool,
    /// The model that was trained on touched pairs or made from a touched one.
    pub checkpoint: Option<PolicyId>,
    /// That model acts, or acted.
    pub promoted: bool,
}

/// Everything that a rubric touched.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Taint {
    /// Which.
    pub rubric: RubricId,
    /// What it calls itself.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// It judges now.
    pub judges: bool,
    /// Iterations with something touched, in order.
    pub iterations: Vec<TaintedIteration>,
    /// Prompts that it judged besides, and that were judged again after it was rolled back: nothing
    /// came of it.
    pub taken_back: u32,
    /// The model that acts now is touched.
    pub acting: bool,
    /// The first record that the rubric had a hand in; none when the log does not have it any more
    /// or the rubric touched nothing.
    pub first: Option<Offset>,
}

/// One iteration, knowing which models are touched.
fn touched(
    rubric: &RubricId,
    iteration: Iteration,
    open: &IterationView,
    models: &BTreeSet<PolicyId>,
) -> TaintedIteration {
    let sealed: BTreeSet<&PairId> = open.sealed.iter().flatten().collect();
    let mut judgments = 0;
    let mut prompts = Vec::new();
    for prompt in open.prompts.iter().flatten() {
        // A pair is of the judgments it was formed from, whoever judged the prompt since.
        let ours = |judged_by: &PromptJudgments| judged_by.rubrics.contains(rubric);
        let formed = open.formed_from(prompt).filter(|(judged_by, _)| ours(judged_by));
        let now =
            open.prompt_judgments.get(prompt).map(|now| &**now).filter(|judged_by| ours(judged_by));
        let now = now.zip(open.judged.get(prompt).copied());
        let Some((judged_by, judged)) = formed.or(now) else { continue };
        judgments += judged_by.judgments_by(rubric);
        let pair = formed.and_then(|_| open.pairs.get(prompt)).map(|(pair, _)| pair.clone());
        let trained = pair.as_ref().is_some_and(|pair| sealed.contains(pair));
        prompts.push(TaintedPrompt { prompt: prompt.clone(), judged: Some(judged), pair, trained });
    }
    let pairs = prompts.iter().filter(|prompt| prompt.pair.is_some()).count() as u32;
    let trained = prompts.iter().filter(|prompt| prompt.trained).count() as u32;
    let inherited = [&open.policy, &open.reference].iter().any(|p| models.contains(&p.id()));
    let checkpoint = open.checkpoint.as_ref().filter(|_| inherited || trained > 0);
    TaintedIteration {
        iteration,
        inherited,
        judgments,
        pairs,
        trained,
        measured: open
            .evaluation
            .as_ref()
            .is_some_and(|e| open.panel.has(rubric) || e.is_refereed_under(rubric)),
        promoted: checkpoint.is_some() && open.decision == Some(GateDecision::Promoted),
        checkpoint: checkpoint.map(|checkpoint| checkpoint.policy.id()),
        prompts,
    }
}

impl TaintedIteration {
    fn is_clean(&self) -> bool {
        !self.inherited && self.prompts.is_empty() && !self.measured
    }
}

impl Past {
    /// What a rubric touched.
    ///
    /// # Errors
    /// When it was never installed.
    pub fn taint(&self, rubric: &RubricId) -> Result<Taint, Error> {
        let missing = || {
            Error::refused(
                Code::RubricUnknown,
                format!("rubric {} is not installed", rubric.short()),
            )
        };
        let facts = self.run.view.rubrics.installed.get(rubric).ok_or_else(missing)?;
        let (mut models, mut iterations) = (BTreeSet::new(), Vec::new());
        for (iteration, open) in &self.run.view.iterations {
            let found = touched(rubric, *iteration, open, &models);
            models.extend(found.checkpoint.clone());
            if !found.is_clean() {
                iterations.push(found);
            }
        }
        let first = iterations.first().and_then(|found| self.first_of(rubric, found));
        Ok(Taint {
            rubric: rubric.clone(),
            name: facts.name.clone(),
            version: facts.version.clone(),
            judges: self.run.view.panel.as_ref().is_some_and(|panel| panel.has(rubric)),
            taken_back: self
                .run
                .view
                .iterations
                .values()
                .map(|open| open.taken_back_of(rubric))
                .sum(),
            acting: self
                .run
                .view
                .policy
                .as_ref()
                .is_some_and(|policy| models.contains(&policy.id())),
            first,
            iterations,
        })
    }

    /// The first record in an iteration that a rubric had a hand in.
    fn first_of(&self, rubric: &RubricId, found: &TaintedIteration) -> Option<Offset> {
        let ours = |event: &Event| match event {
            Event::JudgeProbed { rubric: theirs, .. } => theirs == rubric,
            // What was taken back is in the log too, and touched nothing.
            Event::JudgmentsRecorded { judgments, prompt, .. } => {
                let counts = found.prompts.iter().any(|ours| ours.prompt == *prompt);
                counts && judgments.iter().any(|judgment| judgment.rubric == *rubric)
            }
            Event::HeldOutJudged { .. } | Event::EvaluationFinished { .. } => found.measured,
            _ => false,
        };
        let mut records = self.excerpt.of_iteration(found.iteration);
        records.find(|record| ours(&record.event)).map(|record| record.offset)
    }

    /// Begins another run in the folder `to`: this one from before the rubric's first judgment, with
    /// the panel that judged before it, or `instead`. The rubric is retired there.
    ///
    /// # Errors
    /// Those of [`Past::may_begin`]; when it touched nothing, nothing else can judge, or the log was
    /// compacted.
    pub fn begin_before(
        &self,
        taint: &Taint,
        instead: Option<&RubricId>,
        to: &Folder,
    ) -> Result<Iteration, Error> {
        let nothing = || {
            let (name, version) = (&taint.name, &taint.version);
            Error::refused(
                Code::NothingTouched,
                format!("{name}@{version} touched nothing: there is nothing to rebuild"),
            )
        };
        let iteration = taint.iterations.first().ok_or_else(nothing)?.iteration;
        let dropped = || {
            Error::refused(
                Code::RecordsDropped,
                "the log was compacted: what to begin with is gone".to_owned(),
            )
        };
        let until = taint.first.ok_or_else(dropped)?;
        let before = self.known_before(until)?;
        let back_to = match instead {
            Some(rubric) => Panel::one(self.rubric(rubric)?.id().clone()),
            None => panel_without(&before, &taint.rubric).ok_or_else(|| {
                Error::refused(
                    Code::NobodyLeftToJudge,
                    "no other rubric judged before it: say which one is to judge instead"
                        .to_owned(),
                )
            })?,
        };
        let mut panel = Vec::new();
        for member in back_to.members() {
            panel.extend(new_to(&before, &name_of(&self.rubric(&member.rubric)?)));
        }
        let reason = "what it touched was left out by hand (gradus rubric taint)".to_owned();
        let (rubric, taken_back) = (taint.rubric.clone(), vec![taint.rubric.clone()]);
        panel.push(Event::RubricRolledBack { rubric, back_to, reason, taken_back });
        self.branch(to, &Beginning { iteration, until, panel, judged: Vec::new() })?;
        Ok(iteration)
    }
}

/// The last panel without a rubric, else what is left of the one that judges.
fn panel_without(view: &RunView, rubric: &RubricId) -> Option<Panel> {
    let mut earlier = view.rubrics.earlier.iter().rev();
    let former = earlier.find(|panel| !panel.has(rubric)).cloned();
    former.or_else(|| view.panel.as_ref()?.without(rubric).ok())
}
