//! The gate between a checkpoint and the policy. Pure.
//!
//! Departure from the paper, which always goes on with the new model (`evaluate.gate.mode: paper`).
//! It looks at the head-to-head with the previous policy by the evaluation's referee, and never at
//! an oracle's: that one is for the report. What is not known does not pass.

use super::verdict::Compared;
use crate::codes::Code;
use crate::domain::evaluation::{Evaluation, Verdict};
use crate::domain::event::IterationKind;
use crate::domain::plan::{Gate, GateMode};

/// What to do where a gate has nothing to go by.
const TO_COMPARE: &str = "The gate needs held-out prompts (prompts.held_out, evaluate.prompts) and \
                          a referee that scores the answers to them (what it said is in the log, in \
                          the records held_out_judged); evaluate.gate.mode: paper promotes without";

/// Whether the checkpoint becomes the policy.
///
/// # Errors
/// Why not, with the figures.
pub fn gate(kind: IterationKind, evaluation: &Evaluation, settings: &Gate) -> Result<(), String> {
    // What was supervised always passes: the base before it neither answers nor judges as the loop
    // needs it, so keeping it would end the run; and its rows are the user's, not the judge's.
    if kind == IterationKind::Sft || settings.mode == GateMode::Paper {
        return Ok(());
    }
    let Some(versus) = evaluation.before_the_gate() else {
        let reason = "nothing was compared with the previous policy";
        return Err(Code::NothingCompared.says(format_args!("{reason}. {TO_COMPARE}")));
    };
    let compared = Compared::recorded(versus, evaluation.length.mean);
    let finding = versus.finding.clone();
    let finding = finding.unwrap_or_else(|| compared.finding(settings.length_growth_max));
    let figures = evaluation.figures(versus);
    if compared.prompts() == 0 {
        let reason = &finding.reason;
        return Err(Code::NothingCompared.says(format_args!("{reason}. {TO_COMPARE}")));
    }
    let (verdict, reason) = (finding.verdict, &finding.reason);
    let word = verdict.as_str();
    match settings.mode {
        _ if verdict == Verdict::Worse => Err(format!("{word}: {reason}; {figures}")),
        GateMode::Paper => Ok(()),
        GateMode::Better if verdict == Verdict::Better => Ok(()),
        GateMode::Better => {
            Err(format!("{word}, and the gate asks for better: {reason}; {figures}"))
        }
        GateMode::NotWorse => {
            let least = 0.5 - settings.margin;
            // Judged anew and not as recorded: records of old have another interval.
            if compared.win_rate().low.is_some_and(|low| low > least) {
                return Ok(());
            }
            Err(format!(
                "{word}: {reason}; {figures}. The gate asks that the win rate is surely above \
                 {:.1} % (evaluate.gate.margin: {}); more held-out prompts narrow what is not known",
                least * 100.0,
                settings.margin
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::PolicyId;
    use crate::domain::evaluation::HeadToHead;
    use crate::stage::testing::evaluation;

    fn measured(verdict: Verdict) -> Evaluation {
        evaluation(PolicyId("checkpoint".to_owned()), verdict)
    }

    /// Why a checkpoint does not pass; nothing where it does.
    fn why_not(kind: IterationKind, mode: GateMode, evaluation: &Evaluation) -> String {
        let settings = Gate { mode, margin: 0.05, length_growth_max: 0.5 };
        gate(kind, evaluation, &settings).err().unwrap_or_default()
    }

    #[test]
    fn what_passes() {
        use GateMode::{Better, NotWorse, Paper};
        use IterationKind::{Dpo, Sft};
        for (kind, mode, verdict, why) in [
            (Sft, Better, Verdict::Worse, ""),
            (Dpo, Paper, Verdict::Worse, ""),
            (Dpo, Better, Verdict::Better, ""),
            (Dpo, Better, Verdict::Unproven, "unproven, and the gate asks for better"),
            (Dpo, Better, Verdict::Worse, "worse: "),
            (Dpo, NotWorse, Verdict::Better, ""),
            (Dpo, NotWorse, Verdict::Unproven, "surely above 45.0 %"),
            (Dpo, NotWorse, Verdict::Worse, "worse: "),
        ] {
            let found = why_not(kind, mode, &measured(verdict));
            assert_eq!(found.is_empty(), why.is_empty(), "{mode:?} {verdict:?}: {found}");
            assert!(found.contains(why), "{mode:?} {verdict:?}: {found}");
        }
    }

    #[test]
    fn what_is_not_known_does_not_pass() {
        let nothing = Evaluation { head_to_head: Vec::new(), ..measured(Verdict::Better) };
        let without_scores =
            |versus: &HeadToHead| HeadToHead { wins: 0, ties: 0, losses: 0, ..versus.clone() };
        let better = measured(Verdict::Better);
        let head_to_head = better.head_to_head.iter().map(without_scores).collect();
        let unscored = Evaluation { head_to_head, ..better.clone() };
        for mode in [GateMode::NotWorse, GateMode::Better] {
            for evaluation in [&nothing, &unscored] {
                let found = why_not(IterationKind::Dpo, mode, evaluation);
                assert!(found.contains("The gate needs held-out prompts"), "{found}");
            }
        }
    }
}
