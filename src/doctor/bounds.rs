//! HOW MUCH OF AN ITERATION IS TRIED, so that finding out what a run takes is over in about a minute: a
//! few tokens are drawn first, and what they took bounds how long the answers and replies of the
//! miniature may get. What was cut off is longer than it was seen to be, and counted so.

use super::measure::time_of;
use super::rehearsal::{Cast, RehearsedRun};
use super::watch::TimedCall;
use crate::config::Config;
use crate::engine::Prepared;
use crate::engine::tokens::draw_request;
use crate::error::Error;
use crate::stage::StageError;
use crate::stage::sampler::request;
use std::sync::Arc;

/// Seconds that drawing answers, and drawing replies, may take in the miniature.
const DRAWING_SECONDS: f64 = 9.0;
/// Seconds that writing prompts may take there.
const WRITING_SECONDS: f64 = 6.0;
/// Seconds that training on what was drawn may take.
const TRAINING_SECONDS: f64 = 12.0;
/// A row of training beside one that is read: forward, back twice, and the optimiser's pass over all
/// weights, which weighs the more the fewer rows a step has.
const TRAINED_BY_READ: f64 = 14.0;
/// Fewer tokens than this say nothing of how long answers are.
const TOKENS_MIN: u32 = 24;
/// Tokens that are drawn to find out.
const PROBED: usize = 4;

/// Bounds on what the miniature draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DrawBounds {
    /// Tokens of an answer.
    pub answer: u32,
    /// Tokens of a judge's reply.
    pub reply: u32,
    /// Draws of a round of writing prompts.
    pub written: u32,
}

impl DrawBounds {
    /// What the settings say.
    pub fn of(config: &Config) -> DrawBounds {
        DrawBounds {
            answer: config.sampling.max_new_tokens,
            reply: config.judge.max_new_tokens,
            written: config.prompts.draws_per_round,
        }
    }
}

/// What the probe found, seconds.
#[derive(Clone, Copy, Debug)]
struct Probed {
    /// A token of every answer of the miniature.
    step: f64,
    /// Answers of the miniature.
    answers: f64,
    /// A token of a prompt that is read.
    read: f64,
    /// Tokens of a prompt.
    prompt: f64,
}

/// Seconds of opening the policy, and the bounds that keep the miniature short.
pub(super) fn bounds(play: &RehearsedRun, cast: &Cast) -> Result<(f64, DrawBounds), Error> {
    let wanted = DrawBounds::of(&cast.config);
    let (sampling, judge) = (&cast.config.sampling, &cast.config.judge);
    if sampling.engine.is_some() || judge.engine.is_some() {
        // How fast another engine is, this one does not say.
        return Ok((0.0, wanted));
    }
    let Some(policy) = &play.view.base else { return Ok((0.0, wanted)) };
    let model = play.watched.tokens(policy, &cast.config.engine()).map_err(StageError::from)?;
    let mut requests = Vec::new();
    for prompt in cast.prompts(play.prompts)? {
        let ids = model.encode_chat(&prompt.messages)?;
        let prepared = Arc::new(Prepared { ids, ..Prepared::default() });
        let seed = crate::domain::Seed::root(cast.config.seed);
        let asked = request(prepared, seed, sampling.candidates, &sampling.drawing());
        requests.push(draw_request(model.as_ref(), &asked));
    }
    let rows = requests.len() * sampling.candidates as usize;
    let first = time_of(model.as_ref(), &requests, rows, 1)?;
    let all = time_of(model.as_ref(), &requests, rows, 1 + PROBED)?;
    let tokens: usize = requests.iter().map(|request| request.prompt.len()).sum();
    let probed = Probed {
        step: (all - first).max(1e-6) / PROBED as f64,
        answers: rows as f64,
        read: first / tokens.max(1) as f64,
        prompt: tokens as f64 / requests.len().max(1) as f64,
    };
    let opened = play.watched.take().into_iter().map(|call| match call {
        TimedCall::Opened { seconds } => seconds,
        _ => 0.0,
    });
    let mut bounds = short(probed, wanted, (play.prompts, judge.samples));
    let drawing = &cast.config.prompts;
    bounds.written = probed.draws(wanted.written, (drawing.shots, drawing.max_new_tokens));
    Ok((opened.sum(), bounds))
}

impl Probed {
    /// How many of so many draws, each of so many demonstrations and new tokens, there is time for.
    fn draws(&self, wanted: u32, (shots, tokens): (u32, u32)) -> u32 {
        let read = self.read * self.prompt * f64::from(shots);
        let each = read + self.step / self.answers.max(1.0) * f64::from(tokens);
        wanted.min(((WRITING_SECONDS / each) as u32).max(1))
    }
}

/// The bounds that so many prompts and replies to a question leave.
fn short(probed: Probed, wanted: DrawBounds, (prompts, samples): (usize, u32)) -> DrawBounds {
    let whole = |tokens: f64, most: u32| most.min((tokens as u32).max(TOKENS_MIN));
    let drawn = DRAWING_SECONDS / probed.step;
    // Three rounds over every pair: the prompt once and both answers.
    let rows = TRAINING_SECONDS / (probed.read * TRAINED_BY_READ) / (3 * prompts.max(1)) as f64;
    let trained = (rows - probed.prompt) / 2.0;
    DrawBounds {
        answer: whole(drawn.min(trained), wanted.answer),
        reply: whole(drawn / f64::from(samples.max(1)), wanted.reply),
        ..wanted
    }
}

/// Lengths as they would be without the bound: of what was cut off, as long again as is usual after so
/// many tokens (as if an answer might end at any of them), and never more than the settings allow.
pub(super) fn without_bound(lengths: &[usize], bound: u32, most: u32) -> Vec<usize> {
    let (bound, most) = (bound as usize, most as usize);
    if bound >= most {
        return lengths.to_vec();
    }
    let ended = lengths.iter().filter(|length| **length < bound).count();
    let tokens: usize = lengths.iter().sum();
    let usual = tokens.checked_div(ended).unwrap_or(most);
    let longer = |length: &usize| {
        if *length < bound { *length } else { (length + usual).min(most) }
    };
    lengths.iter().map(longer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_model_draws_less_and_a_fast_one_as_much_as_it_may() {
        let wanted = DrawBounds { answer: 512, reply: 256, written: 32 };
        let fast = Probed { step: 0.001, answers: 48.0, read: 1e-6, prompt: 40.0 };
        assert_eq!(short(fast, wanted, (48, 3)), wanted);
        let slow = Probed { step: 0.1, answers: 12.0, read: 0.001, prompt: 60.0 };
        let bounds = short(slow, wanted, (4, 3));
        assert!((24..=90).contains(&bounds.answer), "{bounds:?}");
        assert_eq!(bounds.reply, 30);
        let slower = Probed { step: 10.0, answers: 12.0, read: 1.0, prompt: 60.0 };
        assert_eq!(short(slower, wanted, (4, 3)), DrawBounds { answer: 24, reply: 24, ..wanted });
        assert_eq!(fast.draws(32, (8, 96)), 32);
        assert!((2..=12).contains(&slow.draws(32, (8, 96))), "{}", slow.draws(32, (8, 96)));
        assert_eq!(slower.draws(32, (8, 96)), 1);
    }

    #[test]
    fn what_was_cut_off_is_longer_than_it_was_seen() {
        assert_eq!(
            without_bound(&[10, 20, 30], 30, 30),
            [10, 20, 30],
            "that is the settings' bound"
        );
        // 50 tokens and two ends: twenty-five more.
        assert_eq!(without_bound(&[10, 10, 30], 30, 512), [10, 10, 55]);
        assert_eq!(without_bound(&[30, 30], 30, 512), [512, 512], "nobody ended");
        assert_eq!(without_bound(&[5, 30], 30, 40), [5, 40]);
        assert_eq!(without_bound(&[], 30, 40), Vec::<usize>::new());
    }
}
