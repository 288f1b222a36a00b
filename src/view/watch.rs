//! What is seen of a rubric as long as it judges: its last prompts, and how often what it asks fails.

use super::figures::RunningMean;
use crate::domain::{Judgment, TaskKey, Trial};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Prompts that are remembered of a rubric, whatever a record wants.
const PROMPTS_SEEN_MAX: usize = Trial::PROMPTS_MAX as usize;
/// A task that fails so often is given up: a new rubric that asked for it makes way then.
const SAME_TASK_MAX: u32 = 3;
/// After so many failures in a row, of whatever tasks, one that has judged before makes way too: one
/// fewer than what halts a stage.
const IN_A_ROW_MAX: u32 = 4;

/// What a rubric's judgments of one prompt came to, as far as they tell whether it works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PromptStats {
    /// Its judgments.
    pub judged: u32,
    /// Those without a score.
    pub unparsed: u32,
    /// The probabilities that the judge put on the choices, where they were looked up.
    mass: RunningMean,
}

/// A rubric's judgments of one prompt, counted.
pub(super) fn prompt_stats<'a>(judgments: impl Iterator<Item = &'a Judgment>) -> PromptStats {
    let mut stats = PromptStats::default();
    for judgment in judgments {
        stats.judged += 1;
        stats.unparsed += u32::from(!judgment.is_parsed());
        if let Some(mass) = judgment.mass() {
            stats.mass.push(mass);
        }
    }
    stats
}

/// A rubric's last prompts: what tells whether it still works.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RubricMonitor {
    rule: Trial,
    /// Whether its activation says that it makes way when it fails. Otherwise what is found is said,
    /// and nothing is done.
    #[serde(rename = "asked")]
    enforced: bool,
    /// Prompts it has judged, at most so many as are asked of a new one.
    prompts: u32,
    #[serde(rename = "looks")]
    prompts_seen: VecDeque<PromptStats>,
}

impl Default for RubricMonitor {
    /// One of which its activation asks nothing: the first rubric of a run.
    fn default() -> RubricMonitor {
        RubricMonitor {
            rule: Trial::default(),
            enforced: false,
            prompts: 0,
            prompts_seen: VecDeque::new(),
        }
    }
}

impl RubricMonitor {
    pub fn new(rule: Trial) -> RubricMonitor {
        RubricMonitor { rule, enforced: rule.watch > 0, ..RubricMonitor::default() }
    }

    /// Whether it makes way when it fails.
    pub fn is_enforced(&self) -> bool {
        self.enforced
    }

    /// Whether it has not judged so many prompts as are asked of a new one.
    pub fn is_new(&self) -> bool {
        self.prompts < self.rule.prompts.max(1)
    }

    pub fn add(&mut self, stats: PromptStats) {
        self.prompts = (self.prompts + 1).min(self.rule.prompts.max(1));
        self.prompts_seen.push_back(stats);
        let most = self.rule.watch.max(self.rule.prompts).max(1) as usize;
        while self.prompts_seen.len() > most.min(PROMPTS_SEEN_MAX) {
            self.prompts_seen.pop_front();
        }
    }

    /// What it did before is forgotten; what is asked of it stays.
    pub fn forget(&mut self) {
        self.prompts_seen.clear();
    }

    /// Why its last prompts are not what was asked, if they are not. Nothing is said of too few.
    pub fn verdict(&self) -> Option<String> {
        let Trial { watch, prompts, unparsed_max, .. } = self.rule;
        let least = if prompts > 0 { watch.min(prompts) } else { watch } as usize;
        if watch == 0 || self.prompts_seen.len() < least.min(PROMPTS_SEEN_MAX) {
            return None;
        }
        let sum = |of: fn(&PromptStats) -> u32| self.prompts_seen.iter().map(of).sum::<u32>();
        let (judged, unparsed) = (sum(|l| l.judged), sum(|l| l.unparsed));
        let share = f64::from(unparsed) / f64::from(judged.max(1));
        if share > unparsed_max {
            return Some(format!(
                "{unparsed} of the {judged} judgments of its last {} prompts have no score, \
                 {:.0} %; rubrics.unparsed_max allows {:.0} %",
                self.prompts_seen.len(),
                share * 100.0,
                unparsed_max * 100.0
            ));
        }
        self.mass_verdict()
    }

    /// Why the judge does not answer in the rubric's words, if it does not.
    pub fn mass_verdict(&self) -> Option<String> {
        let mut mass = RunningMean::default();
        self.prompts_seen.iter().for_each(|stats| mass.add(stats.mass));
        let (mean, n) = (mass.mean()?, mass.count);
        (mean < self.rule.mass_min).then(|| {
            format!(
                "the judge puts {:.1} % of its probability on the words of its scores, over {n} \
                 judgments; rubrics.mass_min asks for {:.1} %",
                mean * 100.0,
                self.rule.mass_min * 100.0
            )
        })
    }
}

/// Failures of the judge in a row for what was asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct FailureStreak {
    in_a_row: u32,
    /// The last task, and how many of them in a row were its.
    task: Option<(TaskKey, u32)>,
}

impl FailureStreak {
    pub fn add(&mut self, task: &TaskKey) {
        self.in_a_row += 1;
        let before = self.task.take().filter(|(last, _)| last == task).map_or(0, |(_, n)| n);
        self.task = Some((task.clone(), before + 1));
    }

    /// Whether one question failed as often as it is tried.
    pub fn task_is_exhausted(&self) -> bool {
        self.task.as_ref().is_some_and(|(_, n)| *n >= SAME_TASK_MAX)
    }

    /// Whether it is nearly so many that the stage is halted.
    pub fn is_near_halt(&self) -> bool {
        self.in_a_row >= IN_A_ROW_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::IterationKind;
    use crate::domain::{
        BlobHash, Event, Iteration, Offset, Outcome, PairId, Panel, PolicyId, PolicyRef,
        PreferencePair, PromptId, RubricId, Side, TaskKey, TextRef, When,
    };
    use crate::log::Recorded;
    use crate::view::RunView;

    /// A run with one open iteration of some prompts.
    struct Story(RunView);

    impl Story {
        fn new(prompts: usize) -> Story {
            let mut story = Story(RunView::default());
            let policy = PolicyRef::full(BlobHash("w".into()));
            let panel = Panel::one(RubricId("a".into()));
            let (settings, base) = (serde_json::Value::Null, policy.clone());
            let iteration = Iteration(1);
            for event in [
                Event::RubricActivated {
                    panel: panel.clone(),
                    when: When::NextIteration,
                    trial: None,
                },
                Event::RunStarted { seed: 1, base, settings },
                Event::IterationStartedUnplanned {
                    iteration,
                    kind: IterationKind::Dpo,
                    policy: policy.clone(),
                    reference: policy,
                    panel,
                },
                Event::PromptsSealed {
                    iteration,
                    prompts: (0..prompts).map(prompt).collect(),
                    left: 0,
                },
            ] {
                story.tell(event);
            }
            story
        }

        fn tell(&mut self, event: Event) {
            let (offset, key) = (self.0.next, None);
            self.0.apply(&Recorded { offset, at_ms: 0, key, event });
        }

        fn activate(&mut self, rubric: &str, trial: Option<Trial>) {
            let (panel, when) = (Panel::one(RubricId(rubric.into())), When::Immediately);
            self.tell(Event::RubricActivated { panel, when, trial });
        }

        /// Three judgments of a prompt, so many of them with a score.
        fn judge(&mut self, rubric: &str, at: usize, parsed: usize) {
            let judgment = |sample: usize| Judgment {
                rubric: RubricId(rubric.into()),
                candidate: 0,
                sample: sample as u32,
                outcome: match sample < parsed {
                    true => Outcome::Scored { score: 1.0, parsed: Some(1.0) },
                    false => Outcome::Unparsed { reason: "no".into() },
                },
                text: String::new(),
                fuel: 0,
                seen: Vec::new(),
                scores: Vec::new(),
                readout: None,
                remarks: Default::default(),
            };
            self.tell(Event::JudgmentsRecorded {
                iteration: Iteration(1),
                prompt: prompt(at),
                judge: PolicyId("w".into()),
                judgments: (0..3).map(judgment).collect(),
                scores: Vec::new(),
                errors: Vec::new(),
                lengths: Vec::new(),
                not_compared: 0,
                rubrics: Vec::new(),
            });
        }

        fn pair(&mut self, at: usize) {
            let pair = PreferencePair {
                id: PairId::of(Iteration(1), &prompt(at), 0),
                prompt: prompt(at),
                chosen: side(0, 2.0, 3),
                rejected: side(1, 1.0, 4),
                weight: 1.0,
                label: 1.0,
            };
            self.tell(Event::PairFormed { iteration: Iteration(1), pair });
        }

        fn failing(&self) -> Option<String> {
            self.0.failing().map(|(_, why, _)| why.clone())
        }
    }

    fn prompt(at: usize) -> PromptId {
        PromptId(format!("p{at:03}"))
    }

    fn side(index: u32, score: f64, tokens: u32) -> Side {
        Side { text: TextRef::own(index), score: Some(score), error: None, tokens }
    }

    /// Case A7: 36 of 48 in the trial, then a quarter.
    #[test]
    fn a_rubric_that_grows_bad_after_its_trial_is_caught() {
        let mut story = Story::new(200);
        story.activate("b", Some(Trial::default()));
        for at in 0..16 {
            assert!(story.0.rubrics.trials.contains_key(&RubricId("b".into())), "{at}");
            story.judge("b", at, if at % 4 == 0 { 0 } else { 3 });
        }
        assert!(story.0.rubrics.trials.is_empty() && story.failing().is_none(), "it has passed");
        let bad = (16..).find(|at| {
            story.judge("b", *at, if at % 4 == 0 { 3 } else { 0 });
            story.failing().is_some()
        });
        let caught = bad.unwrap_or_default();
        assert!((30..=36).contains(&caught), "{caught}");
        let why = story.failing().unwrap_or_default();
        assert!(why.contains("of its last 32 prompts have no score"), "{why}");
        // An activation that asks nothing is of old: what is found is said, and nothing is done.
        let mut story = Story::new(200);
        let old = Trial { judgments: 40, prompts: 0, watch: 0, mass_min: 0.0, unparsed_max: 0.5 };
        story.activate("b", Some(old));
        (0..14).for_each(|at| story.judge("b", at, 3));
        (14..100).for_each(|at| story.judge("b", at, 0));
        assert_eq!(story.failing(), None);
        assert_eq!(story.0.kept_though_failing(&RubricId("b".into())), None);
        let mut story = Story::new(200);
        (0..40).for_each(|at| story.judge("a", at, 1));
        assert!(
            story.0.kept_though_failing(&RubricId("a".into())).is_some(),
            "the first one's failing is said"
        );
        (40..80).for_each(|at| story.judge("a", at, 3));
        assert_eq!(story.0.kept_though_failing(&RubricId("a".into())), None, "until it is over");
    }

    #[test]
    fn a_judge_that_does_not_answer_in_the_rubrics_words_is_seen() {
        let seen = |mass: f64| PromptStats {
            judged: 3,
            unparsed: 0,
            mass: RunningMean { sum: 3.0 * mass, count: 3 },
        };
        let mut monitor = RubricMonitor::new(Trial::default());
        (0..32).for_each(|_| monitor.add(seen(0.9)));
        assert_eq!((monitor.verdict(), monitor.mass_verdict()), (None, None));
        (0..31).for_each(|_| monitor.add(seen(0.001)));
        let why = monitor.verdict().unwrap_or_default();
        assert!(why.contains("puts 2.9 % of its probability"), "{why}");
        assert!(monitor.prompts_seen.len() == 32 && !monitor.is_new());
        let mut any = RubricMonitor::new(Trial { mass_min: 0.0, ..Trial::default() });
        (0..32).for_each(|_| any.add(seen(0.0)));
        assert_eq!(any.verdict(), None);
    }

    #[test]
    fn failures_in_a_row_are_counted_by_task_and_in_all() {
        let [a, b] = ["a", "b"].map(|name| TaskKey(name.into()));
        let mut streak = FailureStreak::default();
        for (task, exhausted, near_halt) in
            [(&a, false, false), (&b, false, false), (&b, false, false), (&b, true, true)]
        {
            streak.add(task);
            assert_eq!((streak.task_is_exhausted(), streak.is_near_halt()), (exhausted, near_halt));
        }
    }

    /// A record of old leaves pairs that were formed; what judged them is known all the same.
    #[test]
    fn a_pair_is_of_the_judgments_it_was_formed_from() {
        let [a, b] = ["a", "b"].map(|name| RubricId(name.into()));
        let mut story = Story::new(4);
        story.activate("b", None);
        (0..3).for_each(|at| story.judge("b", at, 3));
        story.pair(0);
        story.pair(1);
        let (rubric, back_to, reason) = (b.clone(), Panel::one(a.clone()), "bad".to_owned());
        let taken_back = Vec::new();
        story.tell(Event::RubricRolledBack { rubric, back_to, reason, taken_back });
        // Its pair was on the way when the rubric was rolled back.
        story.pair(2);
        for at in 0..4 {
            story.judge("a", at, 3);
        }
        // One was formed again of the new judgments.
        story.pair(1);
        story.pair(3);
        let open = &story.0.iterations[&Iteration(1)];
        let of = |at| {
            let (prompt_judgments, judged) = open.formed_from(&prompt(at)).expect("it has a pair");
            (prompt_judgments.rubrics.iter().next().expect("a rubric").clone(), judged)
        };
        assert_eq!(of(0), (b.clone(), Offset(5)));
        assert_eq!(of(1).0, a);
        assert_eq!(of(2), (b.clone(), Offset(7)));
        assert_eq!(of(3).0, a);
        // A rollback of today takes them all back, and the sums with them.
        let (rubric, back_to, reason) = (b.clone(), Panel::one(a), "bad".to_owned());
        let taken_back = vec![b];
        story.tell(Event::RubricRolledBack { rubric, back_to, reason, taken_back });
        let open = &story.0.iterations[&Iteration(1)];
        assert_eq!(open.pairs.keys().cloned().collect::<Vec<_>>(), [prompt(1), prompt(3)]);
        assert_eq!(open.pair_sums.length_chosen, 6.0);
    }
}
