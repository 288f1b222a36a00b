//! What is known of rubrics: which are installed, which judged before, and whether a new one keeps
//! what it promised.

use crate::domain::{Event, Judgment, Outcome, Panel, RubricId, Trial};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Prompts at which a rubric may trap before it is put away.
const STRIKES_MAX: u32 = 3;
/// Former panels that are remembered.
const EARLIER_MAX: usize = 16;

/// An installed rubric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RubricFacts {
    /// What it calls itself.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// How many were installed before it.
    pub serial: u32,
    /// Prompts at which it trapped.
    pub strikes: u32,
}

/// A rubric on trial: its judgments so far, and those without a score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnTrial {
    /// What is asked of it.
    pub trial: Trial,
    /// Its judgments so far.
    pub judged: u32,
    /// Those without a score.
    pub unscored: u32,
}

/// What is known of rubrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RubricsView {
    /// Everything installed.
    pub installed: BTreeMap<RubricId, RubricFacts>,
    /// Panels that judged before, the last one last.
    pub earlier: Vec<Panel>,
    /// Rubrics whose first judgments are counted.
    pub trials: BTreeMap<RubricId, OnTrial>,
    /// Rubrics that failed at work and are not rolled back yet, and why.
    pub failed: BTreeMap<RubricId, String>,
    /// Rubrics that were rolled back, and why: they are not activated again.
    pub put_away: BTreeMap<RubricId, String>,
    /// Rubrics that judge beside the panel and count for nothing.
    #[serde(default)]
    pub shadows: Vec<RubricId>,
}

impl RubricsView {
    /// Folds an event; `panel` is the one that judged until here, `last` whether the open iteration
    /// has no judgments to wait for after this event.
    pub(super) fn apply(&mut self, event: &Event, panel: Option<&Panel>, last: bool) {
        match event {
            Event::RubricInstalled { rubric, name, version } => {
                let (name, version) = (name.clone(), version.clone());
                let serial = self.installed.len() as u32;
                let facts = RubricFacts { name, version, serial, strikes: 0 };
                self.installed.entry(rubric.clone()).or_insert(facts);
            }
            Event::RubricActivated { panel: next, trial, .. } => {
                let Some(panel) = panel.filter(|panel| *panel != next) else { return };
                self.earlier.push(panel.clone());
                let surplus = self.earlier.len().saturating_sub(EARLIER_MAX);
                self.earlier.drain(..surplus);
                self.trials.retain(|rubric, _| next.has(rubric));
                self.shadows.retain(|rubric| !next.has(rubric));
                for seat in next.seats() {
                    self.pardon(&seat.rubric);
                }
                let new = next.seats().iter().map(|seat| &seat.rubric).filter(|r| !panel.has(r));
                for (rubric, trial) in new.zip(std::iter::repeat(trial)) {
                    if let Some(trial) = trial {
                        let on_trial = OnTrial { trial: *trial, judged: 0, unscored: 0 };
                        self.trials.insert(rubric.clone(), on_trial);
                    }
                }
            }
            Event::RubricRolledBack { rubric, reason, .. } => {
                self.put_away.insert(rubric.clone(), reason.clone());
                self.failed.remove(rubric);
                self.trials.remove(rubric);
                self.earlier.retain(|earlier| !earlier.has(rubric));
            }
            Event::ShadowsSet { rubrics } => self.shadows.clone_from(rubrics),
            Event::JudgmentsRecorded { judgments, .. } => self.count(judgments, last),
            Event::PromptQuarantined { .. } => self.conclude(last),
            _ => {}
        }
    }

    /// Somebody wants a rubric to judge: what it did before is forgotten.
    fn pardon(&mut self, rubric: &RubricId) {
        self.put_away.remove(rubric);
        self.failed.remove(rubric);
        if let Some(facts) = self.installed.get_mut(rubric) {
            facts.strikes = 0;
        }
    }

    fn count(&mut self, judgments: &[Judgment], last: bool) {
        let rubrics: BTreeSet<&RubricId> = judgments.iter().map(|j| &j.rubric).collect();
        for rubric in rubrics {
            let ours = || judgments.iter().filter(|j| j.rubric == *rubric);
            let trap = ours().find_map(|j| match &j.outcome {
                Outcome::Trapped { reason } => Some(reason),
                _ => None,
            });
            if let (Some(reason), Some(facts)) = (trap, self.installed.get_mut(rubric)) {
                facts.strikes += 1;
                if facts.strikes >= STRIKES_MAX {
                    let why =
                        format!("it trapped at {STRIKES_MAX} prompts, the last time: {reason}");
                    self.failed.entry(rubric.clone()).or_insert(why);
                }
            }
            if let Some(on_trial) = self.trials.get_mut(rubric) {
                on_trial.judged += ours().count() as u32;
                on_trial.unscored += ours().filter(|j| j.outcome.score().is_none()).count() as u32;
            }
        }
        self.conclude(last);
    }

    /// Ends trials that have their judgments, or get no more in this iteration.
    fn conclude(&mut self, last: bool) {
        let over = |t: &OnTrial| t.judged >= t.trial.judgments || (last && t.judged > 0);
        let ended: Vec<(RubricId, OnTrial)> = self
            .trials
            .iter()
            .filter(|(_, t)| over(t))
            .map(|(r, t)| (r.clone(), t.clone()))
            .collect();
        for (rubric, OnTrial { trial, judged, unscored }) in ended {
            self.trials.remove(&rubric);
            let share = f64::from(unscored) / f64::from(judged);
            if share > trial.unparsed_max {
                let why = format!(
                    "{unscored} of its first {judged} judgments have no score, {:.0} %; \
                     rubrics.unparsed_max allows {:.0} %",
                    share * 100.0,
                    trial.unparsed_max * 100.0
                );
                self.failed.entry(rubric).or_insert(why);
            }
        }
    }

    /// The last panel before this one that can judge again.
    pub fn fallback(&self, panel: &Panel) -> Option<&Panel> {
        let bad = |rubric: &RubricId| {
            self.put_away.contains_key(rubric) || self.failed.contains_key(rubric)
        };
        let sound = |earlier: &&Panel| earlier.seats().iter().all(|seat| !bad(&seat.rubric));
        self.earlier.iter().rev().filter(sound).find(|earlier| *earlier != panel)
    }

    /// Whether a rubric of this panel is on trial.
    pub fn on_trial(&self, panel: &Panel) -> bool {
        panel.seats().iter().any(|seat| self.trials.contains_key(&seat.rubric))
    }
}
