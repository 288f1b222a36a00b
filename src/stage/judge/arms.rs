//! The control arms (`judge.source: random | oracle`). They replace the scores and nothing else, so
//! that what the loop gains beyond them is what its judge knows.

use super::aggregate::AggregateScore;
use super::item::Distinct;
use super::job::JudgingJob;
use super::panel::PanelResult;
use super::reply::JudgeReply;
use super::runner::RubricResult;
use crate::domain::{Completion, Outcome, Panel};
use crate::stage::StageContext;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// What the oracle says of a prompt's different answers, in the place of the panel's first rubric.
pub(super) fn oracle(job: &JudgingJob, panel: &Panel, context: &StageContext) -> PanelResult {
    let Distinct { items, .. } = job.distinct();
    let truth =
        |answer: &&Completion| context.oracle.as_ref()?.score(job.prompt.task_text(), &answer.text);
    let truths: Vec<Option<f64>> = items.iter().map(truth).collect();
    let reply = |(at, score): (usize, &Option<f64>)| {
        let outcome = match *score {
            Some(score) => Outcome::Scored { score, parsed: None },
            None => Outcome::Refused { reason: "the oracle does not know this task".into() },
        };
        JudgeReply {
            scores: score.iter().copied().collect(),
            ..JudgeReply::without_text(&[at], outcome)
        }
    };
    let replies = truths.iter().enumerate().map(reply).collect();
    let score =
        |score: &Option<f64>| score.map(|score| AggregateScore { score, standard_error: None });
    let scores: Vec<Option<AggregateScore>> = truths.iter().map(score).collect();
    let result = RubricResult { replies, scores: scores.clone(), groups_not_shown: 0 };
    let lead = panel.members().first().map(|member| (member.rubric.clone(), result));
    PanelResult { by_rubric: lead.into_iter().collect(), scores }
}

/// Everything the judge said, each answer's given to another one of the same prompt. So the random
/// arm has the very scores, ties, gaps and noise of the loop, and differs in nothing but whose they
/// are.
pub(super) fn random(job: &JudgingJob, result: PanelResult) -> PanelResult {
    let mut rng = ChaCha8Rng::from_seed(job.seed.derive("random arm").0);
    let mut to: Vec<usize> = (0..result.scores.len()).collect();
    for at in (1..to.len()).rev() {
        to.swap(at, (rng.next_u64() % (at as u64 + 1)) as usize);
    }
    let moved = |scores: &[Option<AggregateScore>]| {
        let mut moved = vec![None; scores.len()];
        for (one, to) in scores.iter().zip(&to) {
            if let Some(place) = moved.get_mut(*to) {
                *place = *one;
            }
        }
        moved
    };
    let whose = |shown: &[usize]| shown.iter().filter_map(|at| to.get(*at).copied()).collect();
    let by_rubric = result.by_rubric.into_iter().map(|(rubric, result)| {
        let reply = |reply: JudgeReply| JudgeReply { shown: whose(&reply.shown), ..reply };
        let scores = moved(&result.scores);
        let replies = result.replies.into_iter().map(reply).collect();
        let groups_not_shown = result.groups_not_shown;
        (rubric, RubricResult { replies, scores, groups_not_shown })
    });
    PanelResult { by_rubric: by_rubric.collect(), scores: moved(&result.scores) }
}
