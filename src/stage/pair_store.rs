//! Judgments become pairs, or a reason why not. The smallest stage: read it first.

use super::bodies::SamplePlaces;
use super::judge::aggregate::AggregateScore;
use super::select::{Candidate, PairIndices, select};
use super::{Duty, Needs, Stage, StageContext, StageError, task_key};
use crate::domain::plan::PairingRule;
use crate::domain::{
    Completion, Event, Iteration, Offset, PairId, PreferencePair, PromptId, Side, StopReason,
    TaskKey, TextRef,
};
use crate::view::RunView;

/// The pair store stage.
#[derive(Debug, Default)]
pub struct PairStore;

/// Where one prompt's completions and judgments are.
#[derive(Clone, Debug)]
struct JudgedPrompt {
    prompt: PromptId,
    samples: SamplePlaces,
    judged: Offset,
    /// The last rollback that took its judgments back; 0 for none.
    voided: u32,
}

/// Decide about the prompts of one chunk.
#[derive(Clone, Debug)]
pub struct PairTask {
    iteration: Iteration,
    rule: PairingRule,
    prompts: Vec<JudgedPrompt>,
}

impl PairTask {
    /// The prompts it decides about.
    pub fn prompts(&self) -> Vec<PromptId> {
        self.prompts.iter().map(|judged| judged.prompt.clone()).collect()
    }

    fn decide(&self, judged: &JudgedPrompt, context: &StageContext) -> Result<Event, StageError> {
        let answers = context.bodies().answers(&judged.samples)?;
        let recorded = context.bodies().judgments(judged.judged, answers.texts.len())?;
        let candidates = candidates(&answers.texts, &answers.completions, &recorded.scores);
        let (iteration, prompt) = (self.iteration, judged.prompt.clone());
        Ok(match select(&candidates, &self.rule) {
            Err(reason) => Event::PairSkipped { iteration, prompt, reason },
            Ok(PairIndices { chosen, rejected }) => {
                let (Some(c), Some(r)) = (candidates.get(chosen), candidates.get(rejected)) else {
                    return Err(StageError::Missing(format!("candidates of prompt {prompt}")));
                };
                let pair = PreferencePair {
                    id: PairId::of(iteration, &prompt, judged.voided),
                    prompt,
                    chosen: c.side(),
                    rejected: r.side(),
                    weight: 1.0,
                    label: 1.0,
                };
                Event::PairFormed { iteration, pair }
            }
        })
    }
}

impl Candidate {
    fn side(&self) -> Side {
        let (text, tokens) = (self.text.clone(), self.length_tokens);
        Side { text, score: self.score, error: self.standard_error, tokens }
    }
}

/// Completions and what they came to, as the choice sees them.
pub(crate) fn candidates(
    texts: &[TextRef],
    completions: &[Completion],
    scores: &[Option<AggregateScore>],
) -> Vec<Candidate> {
    let all = texts.iter().zip(completions).zip(scores);
    let candidate =
        |((text, completion), score): ((&TextRef, &Completion), &Option<AggregateScore>)| {
            Candidate {
                text: text.clone(),
                score: score.map(|one| one.score),
                standard_error: score.and_then(|one| one.standard_error),
                length_tokens: completion.token_ids.len() as u32,
                ended: completion.stop != StopReason::Length,
                token_ids: completion.token_ids.clone(),
            }
        };
    all.map(candidate).collect()
}

impl Stage for PairStore {
    type Task = PairTask;
    const NAME: &'static str = "pair_store";
    const DUTY: Duty = Duty::KeepsBooks;

    fn next(&self, view: &RunView) -> Option<(TaskKey, PairTask)> {
        let (iteration, open) = view.open()?;
        // What a rubric on trial says counts once it has passed.
        let trial = view.rubrics.on_trial(&open.panel) && !open.all_judged();
        if trial || view.failing().is_some() {
            return None;
        }
        let undecided = |p: &PromptId| !open.pairs.contains_key(p) && !open.skipped.contains_key(p);
        let plan = open.plan.as_ref()?;
        let chunk = open.chunks(plan.batch_prompts).find(|chunk| {
            chunk.iter().all(|p| open.judged.contains_key(p)) && chunk.iter().any(undecided)
        })?;
        // Of a chunk, a rollback may have taken back only some.
        let prompts = chunk
            .iter()
            .filter(|prompt| undecided(prompt))
            .filter_map(|prompt| {
                let (samples, judged) = (open.samples_of(prompt)?, *open.judged.get(prompt)?);
                let voided = open.prompt_voided(prompt);
                Some(JudgedPrompt { prompt: prompt.clone(), samples, judged, voided })
            })
            .collect();
        let rule = plan.pairing.rule.clone();
        let parts = (iteration, chunk, &rule, open.rubrics_rolled_back);
        let key = task_key(Self::NAME, view, &parts).after(open.chunk_voided(chunk));
        Some((key, PairTask { iteration, rule, prompts }))
    }

    fn needs(&self, _: &PairTask, _: &RunView, _: &StageContext) -> Needs {
        Needs::Nothing
    }

    fn run(
        &mut self,
        task: PairTask,
        _: &RunView,
        context: &StageContext,
    ) -> Result<Vec<Event>, StageError> {
        task.prompts.iter().map(|judged| task.decide(judged, context)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{SkipReason, Trial};
    use crate::stage::testing::{Run, names, rubric};

    /// The prompts that are decided about next.
    fn next(run: &Run) -> String {
        PairStore.next(&run.view).map_or_else(String::new, |(_, task)| names(&task.prompts()))
    }

    #[test]
    fn what_is_paired_next() {
        let sampled = || Run::begun(4).opened().sealed(0..4).sampled(0..4);
        let judged = |n| sampled().judged("a", 0..n, [1.0, 2.0]);
        let on_trial = |prompts| {
            let trial = Trial { prompts, ..Trial::default() };
            sampled().swapped("b", Some(trial))
        };
        let swapped = || {
            let first = judged(1).swapped("b", None).judged("b", 1..4, [1.0, 2.0]);
            first.paired(0..4).rolled_back("b", "a")
        };
        for (what, given, then) in [
            ("no iteration is open", Run::begun(4), ""),
            ("nothing is judged", sampled(), ""),
            ("half of a chunk is judged", judged(1), ""),
            ("a chunk is judged", judged(2), "p0 p1"),
            ("everything is judged", judged(4), "p0 p1"),
            ("the first chunk has a pair", judged(4).paired(0..1), "p1"),
            ("the first chunk is decided", judged(4).paired(0..2), "p2 p3"),
            ("every prompt is decided", judged(4).paired(0..2).skipped(2..4, SkipReason::Tie), ""),
            ("a rubric is on trial", on_trial(9).judged("b", 0..2, [1.0, 2.0]), ""),
            (
                "a trial does not outlast the iteration's judging",
                on_trial(9).judged("b", 0..4, [1.0, 2.0]),
                "p0 p1",
            ),
            ("a trial is passed", on_trial(2).judged("b", 0..2, [1.0, 2.0]), "p0 p1"),
            ("a rubric has failed and is to be rolled back", on_trial(2).unparsed("b", 0..2), ""),
            ("what a rollback took back is judged again", swapped(), ""),
            ("and then decided again", swapped().judged("a", 1..2, [1.0, 2.0]), "p1"),
        ] {
            assert_eq!(next(&given), then, "{what}");
        }
    }

    /// What is decided anew after a rollback has another key, by which late records are known.
    #[test]
    fn a_rollback_makes_a_task_another() {
        let judged = |run: Run, by: &str| run.judged(by, 0..2, [1.0, 2.0]);
        let open = || Run::begun(4).opened().sealed(0..4).sampled(0..4);
        let key = |run: &Run| PairStore.next(&run.view).expect("it has a task").0;
        let calm = judged(open(), "a");
        let again = judged(judged(open().swapped("b", None), "b").rolled_back("b", "a"), "a");
        assert_eq!((key(&calm).rollback(), key(&again).rollback()), (0, 1));
        assert!(again.view.rubrics.retired.contains_key(&rubric("b")));
    }
}
