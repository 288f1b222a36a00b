//! From the held-out answers of two policies to one of three words: better, unproven, worse. Pure:
//! the evaluator calls it on what it has just recorded, an audit on the records alone.
//!
//! *Better* and *worse* are said at 95 % certainty, by the exact sign test over prompts. A win that
//! much longer answers may have bought is unproven, and answers that surely end less often by
//! themselves are worse whatever they score. Of two equal policies at most one in twenty is called
//! better, and one in twenty worse (`tests/it/verdicts.rs` counts).

use super::held_out::HeldOutPrompt;
use crate::domain::evaluation::{
    Ended, Estimate, Finding, HeadToHead, HeldOutAnswer, Referee, Verdict,
};
use crate::domain::{PolicyId, StopReason};
use crate::stats::{self, ALPHA};

/// Scores that differ by less are the same: means of k scores differ in the last bits.
const SAME: f64 = 1e-9;

/// So many prompts must differ before a sign test can say anything: 2 / 2^6 < 0.05.
const DIFFERING_MIN: u32 = 6;

/// One policy's answer to one prompt, as far as a comparison looks at it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ComparedAnswer {
    /// Its score by the referee; `None`: no score.
    pub score: Option<f64>,
    /// Its tokens.
    pub tokens: u32,
    /// Whether it ended by itself.
    pub ended: bool,
}

impl ComparedAnswer {
    /// Of a recorded answer, by a referee.
    pub fn of(answer: &HeldOutAnswer, by: Referee) -> ComparedAnswer {
        ComparedAnswer {
            score: answer.score(by),
            tokens: answer.tokens,
            ended: answer.completion.stop != StopReason::Length,
        }
    }
}

/// Two policies' answers to the same prompts, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Compared {
    /// Prompts on which ours scored higher.
    pub wins: u32,
    /// Prompts with equal scores.
    pub ties: u32,
    /// Prompts on which it scored lower.
    pub losses: u32,
    /// Mean tokens of ours over the prompts with both scores; 0 without any.
    pub length: f64,
    /// The same of the opponent's.
    pub opponent_length: f64,
    /// Of all prompts.
    pub ended: Ended,
}

impl Compared {
    /// Counts ours against the opponent's answer, prompt by prompt.
    pub fn of(sides: impl IntoIterator<Item = (ComparedAnswer, ComparedAnswer)>) -> Compared {
        let mut found = Compared::default();
        let (mut ours_tokens, mut their_tokens) = (0.0, 0.0);
        for (ours, theirs) in sides {
            let ended = &mut found.ended;
            *match (ours.ended, theirs.ended) {
                (true, true) => &mut ended.both,
                (true, false) => &mut ended.ours,
                (false, true) => &mut ended.theirs,
                (false, false) => &mut ended.neither,
            } += 1;
            let (Some(our), Some(their)) = (ours.score, theirs.score) else { continue };
            *match our - their {
                gap if gap > SAME => &mut found.wins,
                gap if gap < -SAME => &mut found.losses,
                _ => &mut found.ties,
            } += 1;
            ours_tokens += f64::from(ours.tokens);
            their_tokens += f64::from(theirs.tokens);
        }
        let n = f64::from(found.prompts().max(1));
        Compared { length: ours_tokens / n, opponent_length: their_tokens / n, ..found }
    }

    /// What a record says of it; one of old does not say which answers ended.
    pub fn recorded(versus: &HeadToHead, length: f64) -> Compared {
        let HeadToHead { wins, ties, losses, opponent_length, .. } = *versus;
        Compared { wins, ties, losses, length, opponent_length, ended: Ended::default() }
    }

    /// Prompts with a score on both sides.
    pub fn prompts(&self) -> u32 {
        self.wins + self.ties + self.losses
    }

    /// The win rate with its interval; of nothing, a half of which nothing is known.
    pub fn win_rate(&self) -> Estimate {
        let n = self.prompts();
        match stats::win_rate(self.wins, self.ties, self.losses) {
            Some(rate) => known(rate, n),
            None => Estimate { mean: 0.5, low: None, high: None, n },
        }
    }

    /// What it shows. Answers that are longer than the opponent's by more than `length_growth_max`
    /// of those cannot be better.
    pub fn finding(&self, length_growth_max: f64) -> Finding {
        let p_value = stats::sign_test(self.wins, self.losses);
        let (verdict, reason) = self.word(p_value, length_growth_max);
        Finding {
            verdict,
            reason,
            p_value,
            length: self.length,
            opponent_length: self.opponent_length,
            ended: self.ended,
        }
    }

    fn word(&self, p_value: f64, length_growth_max: f64) -> (Verdict, String) {
        let Ended { ours, theirs, .. } = self.ended;
        let p = probability(p_value);
        if self.prompts() == 0 {
            let nothing = "nothing was compared: no held-out prompt has a score on both sides";
            return (Verdict::Unproven, nothing.to_owned());
        }
        let p_ended = stats::sign_test(ours, theirs);
        if p_ended < ALPHA && theirs > ours {
            let p = probability(p_ended);
            return (Verdict::Worse, format!("its answers surely end less often ({p})"));
        }
        let differ = self.wins + self.losses;
        if p_value >= ALPHA {
            let few = "too few to show anything";
            let chance = "chance may be all there is to it";
            let why = if differ < DIFFERING_MIN { few } else { chance };
            let why =
                format!("on {differ} of {} prompts scores differ, {why} ({p})", self.prompts());
            return (Verdict::Unproven, why);
        }
        if self.losses > self.wins {
            return (Verdict::Worse, format!("it loses more than chance explains ({p})"));
        }
        let growth = self.length / self.opponent_length - 1.0;
        if growth > length_growth_max {
            let why = format!(
                "it wins more than chance explains ({p}), but with answers that are {:.0} % longer, \
                 which may be why (evaluate.gate.length_growth_max allows {:.0} %)",
                growth * 100.0,
                length_growth_max * 100.0
            );
            return (Verdict::Unproven, why);
        }
        (Verdict::Better, format!("it wins more than chance explains ({p})"))
    }
}

fn probability(p: f64) -> String {
    if p < 0.001 { "p < 0.001".to_owned() } else { format!("p = {p:.3}") }
}

fn known(interval: stats::Interval, n: u32) -> Estimate {
    Estimate::between(interval.mean, interval.low, interval.high, n)
}

/// A mean with Student's interval.
pub(super) fn estimate(values: &[f64]) -> Estimate {
    known(stats::mean_interval(values), values.len() as u32)
}

/// A share of counted things with Wilson's interval; `None` of nothing.
pub(super) fn share(k: u32, n: u32) -> Option<Estimate> {
    Some(known(stats::wilson(k, n)?, n))
}

/// The answers that a policy gave as `role`, with the prompts where it gave one.
pub(super) fn answers_as<'h>(
    held_out: &'h [HeldOutPrompt],
    role: &str,
) -> impl Iterator<Item = &'h HeldOutAnswer> {
    held_out.iter().filter_map(move |prompt| prompt.answer_as(role))
}

/// The checkpoint against the policy that is `opponent` in the records, by a referee: everything
/// that is said of it, from recorded answers alone.
pub fn head_to_head(
    held_out: &[HeldOutPrompt],
    (opponent, policy): (&str, PolicyId),
    referee: Referee,
    length_growth_max: f64,
) -> HeadToHead {
    let sides = held_out.iter().filter_map(|prompt| {
        let (ours, theirs) = (prompt.answer_as("checkpoint")?, prompt.answer_as(opponent)?);
        Some((ComparedAnswer::of(ours, referee), ComparedAnswer::of(theirs, referee)))
    });
    let compared = Compared::of(sides);
    let theirs = || answers_as(held_out, opponent);
    let scores: Vec<f64> = theirs().filter_map(|answer| answer.score(referee)).collect();
    let lengths: Vec<f64> = theirs().map(|answer| f64::from(answer.tokens)).collect();
    HeadToHead {
        opponent: opponent.to_owned(),
        policy,
        referee,
        opponent_score: estimate(&scores),
        opponent_length: estimate(&lengths).mean,
        wins: compared.wins,
        ties: compared.ties,
        losses: compared.losses,
        win_rate: compared.win_rate(),
        finding: Some(compared.finding(length_growth_max)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(score: impl Into<Option<f64>>, tokens: u32, ended: bool) -> ComparedAnswer {
        ComparedAnswer { score: score.into(), tokens, ended }
    }

    /// So many wins, ties and losses, our answers of `tokens` tokens against ten.
    fn split(wins: usize, ties: usize, losses: usize, tokens: u32) -> Compared {
        let (a, b) = (|score| side(score, tokens, true), |score| side(score, 10, true));
        let wins = std::iter::repeat_n((a(3.0), b(2.0)), wins);
        let ties = std::iter::repeat_n((a(2.0), b(2.0 + 1e-12)), ties);
        let losses = std::iter::repeat_n((a(1.0), b(2.0)), losses);
        Compared::of(wins.chain(ties).chain(losses))
    }

    #[test]
    fn what_one_side_lacks_is_not_compared() {
        let sides = [
            (side(3.0, 4, true), side(2.0, 8, true)),
            (side(2.0, 4, true), side(2.0, 8, false)),
            (side(1.0, 7, false), side(3.0, 8, true)),
            (side(None, 99, false), side(1.0, 8, false)),
            (side(4.0, 99, true), side(None, 8, true)),
        ];
        let found = Compared::of(sides);
        assert_eq!((found.wins, found.ties, found.losses), (1, 1, 1));
        assert_eq!((found.length, found.opponent_length), (5.0, 8.0), "of what was compared");
        assert_eq!(found.ended, Ended { both: 2, ours: 1, theirs: 1, neither: 1 });
        assert_eq!(found.win_rate().mean, 0.5);
    }

    #[test]
    fn three_words() {
        use Verdict::{Better, Unproven, Worse};
        for (compared, verdict, why) in [
            (split(0, 0, 0, 10), Unproven, "nothing was compared"),
            (split(1, 0, 5, 10), Unproven, "on 6 of 6 prompts scores differ, chance may be"),
            (split(0, 4, 0, 10), Unproven, "on 0 of 4 prompts scores differ, too few"),
            (
                split(0, 0, 1, 10),
                Unproven,
                "on 1 of 1 prompts scores differ, too few to show anything (p = 1.000)",
            ),
            (split(5, 0, 0, 10), Unproven, "too few to show anything (p = 0.062)"),
            (split(6, 0, 0, 10), Better, "wins more than chance explains (p = 0.031)"),
            (split(0, 6, 10, 10), Worse, "it loses more than chance explains (p = 0.002)"),
            (split(60, 0, 20, 15), Better, "p < 0.001"),
            (split(60, 0, 20, 16), Unproven, "60 % longer, which may be why"),
            (split(20, 0, 60, 99), Worse, "it loses"),
        ] {
            let found = compared.finding(0.5);
            assert_eq!(found.verdict, verdict, "{found:?}");
            assert!(found.reason.contains(why), "{found:?}");
        }
    }

    /// Whatever a referee says of answers that do not end.
    #[test]
    fn answers_that_end_less_often_are_worse() {
        let alike = |n| std::iter::repeat_n((side(3.0, 9, true), side(2.0, 9, true)), n);
        let endless = |n| std::iter::repeat_n((side(3.0, 9, false), side(2.0, 9, true)), n);
        let verdict = |n, m| Compared::of(alike(n).chain(endless(m))).finding(0.5);
        assert_eq!(verdict(30, 5).verdict, Verdict::Better, "five in 35 may be chance");
        let found = verdict(30, 6);
        assert_eq!(found.verdict, Verdict::Worse);
        assert!(found.reason.contains("surely end less often (p = 0.031)"), "{found:?}");
        let cured = Compared::of(endless(12).map(|(a, b)| (b, a)));
        assert_eq!(cured.finding(0.5).verdict, Verdict::Worse, "it ends, and loses");
    }
}
