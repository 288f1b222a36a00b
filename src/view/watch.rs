//! What is seen of a rubric as long as it judges: its last prompts, and how often what it asks fails.

use crate::domain::{Judgment, TaskKey, Trial};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Prompts that are remembered of a rubric, whatever is wanted.
const LOOKS_MAX: usize = 1024;
/// A new rubric whose question fails so often is not tried again.
const EARLY: u32 = 3;
/// The same of one that has judged before, whatever the question: one less than what halts a stage.
const LATE: u32 = 4;

/// What a rubric said of one prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Look {
    /// Its judgments.
    pub judged: u32,
    /// Those without a score.
    pub unparsed: u32,
    /// Sum of the probabilities that the judge put on the choices, and of how many judgments.
    mass: (f64, u32),
}

/// Looks at a rubric's judgments of one prompt.
pub(super) fn look<'a>(judgments: impl Iterator<Item = &'a Judgment>) -> Look {
    let mut look = Look::default();
    for judgment in judgments {
        look.judged += 1;
        look.unparsed += u32::from(!judgment.is_parsed());
        if let Some(mass) = judgment.mass() {
            look.mass.0 += mass;
            look.mass.1 += 1;
        }
    }
    look
}

/// A rubric's last prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Watched {
    rule: Trial,
    /// Whether its activation says so. Otherwise what is found is said, and nothing is done.
    asked: bool,
    /// Prompts it has judged, at most so many as are asked of a new one.
    prompts: u32,
    looks: VecDeque<Look>,
}

impl Default for Watched {
    /// One of which its activation asks nothing: the first rubric of a run.
    fn default() -> Watched {
        Watched { rule: Trial::default(), asked: false, prompts: 0, looks: VecDeque::new() }
    }
}

impl Watched {
    pub fn new(rule: Trial) -> Watched {
        Watched { rule, asked: rule.watch > 0, ..Watched::default() }
    }

    /// Whether it makes way when it fails.
    pub fn is_asked(&self) -> bool {
        self.asked
    }

    /// Whether it has not judged so many prompts as are asked of a new one.
    pub fn is_new(&self) -> bool {
        self.prompts < self.rule.prompts.max(1)
    }

    pub fn add(&mut self, look: Look) {
        self.prompts = (self.prompts + 1).min(self.rule.prompts.max(1));
        self.looks.push_back(look);
        let most = self.rule.watch.max(self.rule.prompts).max(1) as usize;
        while self.looks.len() > most.min(LOOKS_MAX) {
            self.looks.pop_front();
        }
    }

    /// What it did before is forgotten; what is asked of it stays.
    pub fn forget(&mut self) {
        self.looks.clear();
    }

    /// Why its last prompts are not what was asked, if they are not. Nothing is said of too few.
    pub fn verdict(&self) -> Option<String> {
        let Trial { watch, prompts, unparsed_max, .. } = self.rule;
        let least = if prompts > 0 { watch.min(prompts) } else { watch } as usize;
        if watch == 0 || self.looks.len() < least.min(LOOKS_MAX) {
            return None;
        }
        let sum = |of: fn(&Look) -> u32| self.looks.iter().map(of).sum::<u32>();
        let (judged, unparsed) = (sum(|l| l.judged), sum(|l| l.unparsed));
        let share = f64::from(unparsed) / f64::from(judged.max(1));
        if share > unparsed_max {
            return Some(format!(
                "{unparsed} of the {judged} judgments of its last {} prompts have no score, \
                 {:.0} %; rubrics.unparsed_max allows {:.0} %",
                self.looks.len(),
                share * 100.0,
                unparsed_max * 100.0
            ));
        }
        self.mass_verdict()
    }

    /// Why the judge does not answer in the rubric's words, if it does not.
    pub fn mass_verdict(&self) -> Option<String> {
        let (sum, n) = self.looks.iter().fold((0.0, 0), |(sum, n), look| {
            let (mass, judgments) = look.mass;
            (sum + mass, n + judgments)
        });
        let mean = sum / f64::from(n.max(1));
        (n > 0 && mean < self.rule.mass_min).then(|| {
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
pub(super) struct Stumbles {
    in_a_row: u32,
    /// The last task, and how many of them in a row were its.
    task: Option<(TaskKey, u32)>,
}

impl Stumbles {
    pub fn add(&mut self, task: &TaskKey) {
        self.in_a_row += 1;
        let before = self.task.take().filter(|(last, _)| last == task).map_or(0, |(_, n)| n);
        self.task = Some((task.clone(), before + 1));
    }

    /// Whether one question failed as often as it is tried.
    pub fn early(&self) -> bool {
        self.task.as_ref().is_some_and(|(_, n)| *n >= EARLY)
    }

    /// Whether it is nearly so many that the stage is halted.
    pub fn late(&self) -> bool {
        self.in_a_row >= LATE
    }
}
