//! What is known of rubrics: which are installed, which judged before, and whether a new one keeps
//! what it promised.

use super::watch::{FailureStreak, RubricMonitor, prompt_stats};
use crate::domain::{Judgment, Outcome, Panel, RubricId, TaskKey, Trial};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Prompts at which a rubric may trap before it is retired.
const TRAPPED_PROMPTS_MAX: u32 = 3;
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
    #[serde(rename = "strikes")]
    pub trapped_prompts: u32,
}

/// A rubric on trial: its judgments so far, and those without a score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialProgress {
    /// What is asked of it.
    pub trial: Trial,
    /// Its judgments so far.
    pub judged: u32,
    /// Those without a score.
    pub unscored: u32,
    /// Prompts it judged so far.
    #[serde(default)]
    pub prompts: u32,
}

impl TrialProgress {
    fn new(trial: Trial) -> TrialProgress {
        TrialProgress { trial, judged: 0, unscored: 0, prompts: 0 }
    }

    /// Whether it has judged what was asked.
    fn is_over(&self) -> bool {
        let (prompts, judgments) = (self.trial.prompts, self.trial.judgments);
        (prompts > 0 && self.prompts >= prompts) || (judgments > 0 && self.judged >= judgments)
    }

    /// Prompts that are left; judgments in a trial of old, which did not count prompts.
    pub fn left(&self) -> u32 {
        match self.trial.prompts {
            0 => self.trial.judgments.saturating_sub(self.judged),
            prompts => prompts.saturating_sub(self.prompts),
        }
    }

    fn verdict(&self) -> Option<String> {
        let share = f64::from(self.unscored) / f64::from(self.judged.max(1));
        (share > self.trial.unparsed_max).then(|| {
            format!(
                "{} of its first {} judgments have no score, {:.0} %; rubrics.unparsed_max allows \
                 {:.0} %",
                self.unscored,
                self.judged,
                share * 100.0,
                self.trial.unparsed_max * 100.0
            )
        })
    }
}

/// What is known of rubrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RubricsView {
    /// Everything installed.
    pub installed: BTreeMap<RubricId, RubricFacts>,
    /// Panels that judged before, the last one last.
    pub earlier: Vec<Panel>,
    /// Rubrics whose first judgments are counted.
    pub trials: BTreeMap<RubricId, TrialProgress>,
    /// Rubrics that failed at work and are not rolled back yet, and why.
    pub failed: BTreeMap<RubricId, String>,
    /// Rubrics that were rolled back, and why. One judges again only after somebody activates it.
    #[serde(rename = "put_away")]
    pub retired: BTreeMap<RubricId, String>,
    /// Rubrics that judge beside the panel and count for nothing.
    #[serde(default)]
    pub shadows: Vec<RubricId>,
    /// The last prompts of every rubric that judges or may come back.
    #[serde(default, rename = "watched")]
    monitors: BTreeMap<RubricId, RubricMonitor>,
    /// Rubrics that fail and stay, for nobody judged before them that could come back; and why.
    #[serde(default, rename = "ailing")]
    kept_though_failing: BTreeMap<RubricId, String>,
    /// Failures of the judge in a row that its questions are to blame for.
    #[serde(default, rename = "stumbles")]
    failure_streak: FailureStreak,
    /// How often what judges was changed.
    #[serde(default)]
    changes: u64,
}

/// Who judges at the moment of an event, as [`RubricsView`] is told with it.
pub(super) struct PanelState<'a> {
    /// The panel that judges iterations to come.
    pub panel: Option<&'a Panel>,
    /// The panel of the open iteration.
    pub open: Option<&'a Panel>,
    /// Whether the open iteration has no judgments to wait for after the event.
    pub last: bool,
}

impl RubricsView {
    pub(super) fn install(&mut self, rubric: &RubricId, name: &str, version: &str) {
        let (name, version) = (name.to_owned(), version.to_owned());
        let serial = self.installed.len() as u32;
        let facts = RubricFacts { name, version, serial, trapped_prompts: 0 };
        self.installed.entry(rubric.clone()).or_insert(facts);
    }

    /// The judge was asked and replied: a streak of failures ends.
    pub(super) fn judge_replied(&mut self) {
        self.failure_streak = FailureStreak::default();
    }

    /// A prompt's answers were judged.
    pub(super) fn judged(&mut self, judgments: &[Judgment], panels: &PanelState<'_>) {
        self.judge_replied();
        self.count(judgments, panels);
    }

    /// A task failed, for what it `asks` or not.
    pub(super) fn failed_at(
        &mut self,
        stage: &str,
        (task, reason): (&TaskKey, &str),
        asks: bool,
        panels: &PanelState<'_>,
    ) {
        if asks && (stage == "judge" || stage == "evaluator") {
            self.count_failure(task, reason, panels);
        }
    }

    pub(super) fn activate(&mut self, next: &Panel, trial: Option<Trial>, panels: &PanelState<'_>) {
        self.changes += 1;
        let Some(panel) = panels.panel.filter(|panel| *panel != next) else { return };
        self.earlier.push(panel.clone());
        let surplus = self.earlier.len().saturating_sub(EARLIER_MAX);
        self.earlier.drain(..surplus);
        self.trials.retain(|rubric, _| next.has(rubric));
        self.shadows.retain(|rubric| !next.has(rubric));
        self.kept_though_failing.retain(|rubric, _| next.has(rubric));
        self.failure_streak = FailureStreak::default();
        for member in next.members() {
            self.reinstate(&member.rubric);
            if panel.has(&member.rubric) {
                continue;
            }
            self.monitors.remove(&member.rubric);
            if let Some(trial) = trial {
                self.monitors.insert(member.rubric.clone(), RubricMonitor::new(trial));
                if trial.is_due() {
                    self.trials.insert(member.rubric.clone(), TrialProgress::new(trial));
                }
            }
        }
        let earlier = &self.earlier;
        self.monitors.retain(|rubric, _| next.has(rubric) || earlier.iter().any(|p| p.has(rubric)));
    }

    /// `taken_back` is empty in records of old.
    pub(super) fn roll_back(&mut self, rubric: &RubricId, reason: &str, taken_back: &[RubricId]) {
        self.changes += 1;
        self.failure_streak = FailureStreak::default();
        self.retired.insert(rubric.clone(), reason.to_owned());
        self.failed.remove(rubric);
        for gone in taken_back.iter().chain([rubric]) {
            // Another rubric of the panel may have failed for a reason of its own.
            if let Some(reason) = self.failed.remove(gone) {
                self.retired.insert(gone.clone(), reason);
            }
            self.trials.remove(gone);
            self.monitors.remove(gone);
            self.kept_though_failing.remove(gone);
        }
        let retired = &self.retired;
        let sound =
            |panel: &Panel| panel.members().iter().all(|s| !retired.contains_key(&s.rubric));
        match taken_back {
            [] => self.earlier.retain(|earlier| !earlier.has(rubric)),
            _ => self.earlier.retain(sound),
        }
    }

    /// Somebody activates a rubric: what it did before, a retirement too, is forgotten.
    fn reinstate(&mut self, rubric: &RubricId) {
        self.retired.remove(rubric);
        self.failed.remove(rubric);
        self.kept_though_failing.remove(rubric);
        if let Some(monitor) = self.monitors.get_mut(rubric) {
            monitor.forget();
        }
        if let Some(facts) = self.installed.get_mut(rubric) {
            facts.trapped_prompts = 0;
        }
    }

    fn count(&mut self, judgments: &[Judgment], panels: &PanelState<'_>) {
        let rubrics: BTreeSet<&RubricId> = judgments.iter().map(|j| &j.rubric).collect();
        for rubric in rubrics {
            let ours = || judgments.iter().filter(|j| j.rubric == *rubric);
            let trap = ours().find_map(|j| match &j.outcome {
                Outcome::Trapped { reason } => Some(reason),
                _ => None,
            });
            if let (Some(reason), Some(facts)) = (trap, self.installed.get_mut(rubric)) {
                facts.trapped_prompts += 1;
                if facts.trapped_prompts >= TRAPPED_PROMPTS_MAX {
                    let why = format!(
                        "it trapped at {TRAPPED_PROMPTS_MAX} prompts, the last time: {reason}"
                    );
                    self.failed.entry(rubric.clone()).or_insert(why);
                }
            }
            let stats = prompt_stats(ours());
            if let Some(on_trial) = self.trials.get_mut(rubric) {
                on_trial.judged += stats.judged;
                on_trial.unscored += stats.unparsed;
                on_trial.prompts += 1;
            }
            if let Some(panel) = panels.open.filter(|panel| panel.has(rubric)) {
                self.monitors.entry(rubric.clone()).or_default().add(stats);
                self.check_monitor(rubric, panel);
            }
        }
        self.end_trials(panels.last);
    }

    /// Looks at a rubric's last prompts, once it is on trial no more. One that fails there makes way
    /// for the panel before it, where its activation says so and there is one; otherwise it stays,
    /// and that it fails is said.
    fn check_monitor(&mut self, rubric: &RubricId, panel: &Panel) {
        let Some(monitor) = self.monitors.get(rubric) else { return };
        if self.trials.contains_key(rubric) {
            return;
        }
        match monitor.verdict() {
            None => drop(self.kept_though_failing.remove(rubric)),
            Some(why) if monitor.is_enforced() && self.fallback_from(panel, rubric).is_some() => {
                self.kept_though_failing.remove(rubric);
                self.failed.entry(rubric.clone()).or_insert(why);
            }
            Some(why) => drop(self.kept_though_failing.insert(rubric.clone(), why)),
        }
    }

    /// A task that asks the judge failed for what was asked. New rubrics make way when theirs failed as
    /// often as it is tried, those that have judged well before a little later, and both before the
    /// stage is halted.
    fn count_failure(&mut self, task: &TaskKey, reason: &str, panels: &PanelState<'_>) {
        self.failure_streak.add(task);
        let Some(panel) = panels.open else { return };
        let Some(back_to) = self.fallback(panel) else { return };
        let new = panel.members().iter().map(|member| &member.rubric).filter(|r| !back_to.has(r));
        let new: Vec<RubricId> = new.cloned().collect();
        let on_probation = |rubric: &RubricId| {
            self.trials.contains_key(rubric)
                || self.monitors.get(rubric).is_none_or(|monitor| monitor.is_new())
        };
        let streak = &self.failure_streak;
        let (exhausted, near_halt) = (streak.task_is_exhausted(), streak.is_near_halt());
        let failed = new.into_iter().filter(|r| near_halt || (exhausted && on_probation(r)));
        for rubric in failed.collect::<Vec<_>>() {
            let why = format!("the judge could not ask what it asks: {reason}");
            self.failed.entry(rubric).or_insert(why);
        }
    }

    /// Ends trials that are over. One that gets no more in this iteration is judged by what it has,
    /// for pairs wait for it, and goes on in the next one.
    pub(super) fn end_trials(&mut self, last: bool) {
        let due = |t: &TrialProgress| t.is_over() || (last && t.judged > 0);
        let due: Vec<(RubricId, TrialProgress)> = self
            .trials
            .iter()
            .filter(|(_, t)| due(t))
            .map(|(r, t)| (r.clone(), t.clone()))
            .collect();
        for (rubric, on_trial) in due {
            let mass = self.monitors.get(&rubric).and_then(RubricMonitor::mass_verdict);
            let why = on_trial.verdict().or(mass);
            if why.is_some() || on_trial.is_over() || on_trial.trial.prompts == 0 {
                self.trials.remove(&rubric);
            }
            if let Some(why) = why {
                self.failed.entry(rubric).or_insert(why);
            }
        }
    }

    /// The last panel before this one that can judge again.
    pub fn fallback(&self, panel: &Panel) -> Option<&Panel> {
        self.last_sound(panel, |_| false)
    }

    /// The same, if this rubric failed too.
    fn fallback_from(&self, panel: &Panel, failing: &RubricId) -> Option<&Panel> {
        self.last_sound(panel, |rubric| rubric == failing)
    }

    /// The last panel that judged before and can judge again without this rubric.
    pub fn without(&self, rubric: &RubricId) -> Option<&Panel> {
        let bad = |r: &RubricId| self.is_bad(r) || r == rubric;
        self.earlier.iter().rev().find(|p| p.members().iter().all(|member| !bad(&member.rubric)))
    }

    fn is_bad(&self, rubric: &RubricId) -> bool {
        self.retired.contains_key(rubric) || self.failed.contains_key(rubric)
    }

    fn last_sound(&self, panel: &Panel, or_bad: impl Fn(&RubricId) -> bool) -> Option<&Panel> {
        let bad = |rubric: &RubricId| self.is_bad(rubric) || or_bad(rubric);
        let sound = |earlier: &&Panel| earlier.members().iter().all(|member| !bad(&member.rubric));
        self.earlier.iter().rev().filter(sound).find(|earlier| *earlier != panel)
    }

    /// Why a rubric fails that is not rolled back, if it does.
    pub(super) fn kept_though_failing(&self, rubric: &RubricId) -> Option<&String> {
        self.kept_though_failing.get(rubric).or_else(|| self.failed.get(rubric))
    }

    /// The key under which what judges is changed next: the log takes one change for each state.
    pub fn change_key(&self) -> TaskKey {
        TaskKey::of("panel", &[&self.changes.to_le_bytes()])
    }

    /// Whether a rubric of this panel is on trial.
    pub fn on_trial(&self, panel: &Panel) -> bool {
        panel.members().iter().any(|member| self.trials.contains_key(&member.rubric))
    }
}
