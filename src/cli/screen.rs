//! What a person sees while a run works: on a terminal a line on the whole and a bar for each stage,
//! else a line when a stage begins and at least every half minute; and a line when something is waited
//! for, and when that is over.

use super::{notify, progress};
use gradus::actor::StageStatus;
use gradus::domain::event::IterationKind;
use gradus::log::Health;
use gradus::runtime::{Runtime, Status};
use gradus::stage::Gauge;
use gradus::view::RunView;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Without a terminal something is said at least so often.
const AT_LEAST_EVERY: Duration = Duration::from_secs(25);
/// Between two looks at what the run is at.
const LOOK: Duration = Duration::from_millis(900);

#[derive(Default)]
struct State {
    /// `M2 DPO`, or nothing before the first iteration.
    model: String,
    /// The stages that reported in this iteration.
    reported: BTreeSet<&'static str>,
    bars: BTreeMap<String, ProgressBar>,
    /// The line above the bars.
    whole: Option<ProgressBar>,
    /// Who waits, as it was said.
    waiting: BTreeSet<String>,
    looked: Option<Instant>,
    said: Option<Instant>,
}

/// The screen of one run.
pub struct Screen {
    label: String,
    began: Instant,
    multi: Option<MultiProgress>,
    state: Mutex<State>,
}

impl Screen {
    /// A screen for a run; `label` comes before the model's name.
    pub fn new(label: &str) -> Screen {
        let multi = std::io::stderr().is_terminal().then(MultiProgress::new);
        let (label, state) = (label.to_owned(), Mutex::default());
        Screen { label, began: Instant::now(), multi, state }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called some ten times a second with what is known.
    pub fn tick(&self, view: &RunView, runtime: &Runtime) {
        let mut state = self.lock();
        if let Some((iteration, open)) = view.open() {
            let kind = if open.kind == IterationKind::Sft { "SFT" } else { "DPO" };
            let model = format!("{}M{iteration} {kind}", self.label);
            if state.model != model {
                state.model = model;
                state.reported.clear();
                self.clear(&mut state);
            }
        }
        self.tell_who_waits(&mut state, &runtime.stages(), &runtime.log_health());
        if state.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            state.looked = Some(Instant::now());
            if let Ok(status) = runtime.handle().status_blocking() {
                self.look(&mut state, &status);
            }
        }
    }

    fn clear(&self, state: &mut State) {
        let bars = std::mem::take(&mut state.bars).into_values().chain(state.whole.take());
        bars.for_each(|bar| bar.finish_and_clear());
    }

    /// Shows what the run is at.
    fn look(&self, state: &mut State, status: &Status) {
        notify::status(&progress::line(status));
        let Some(multi) = &self.multi else {
            let due = state.said.is_none_or(|said| said.elapsed() >= AT_LEAST_EVERY);
            if due && !status.progress.is_empty() {
                self.say(state, &format!("{}{}", self.label, progress::line(status)));
            }
            return;
        };
        if status.progress.is_empty() {
            return;
        }
        let whole = state.whole.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{msg}");
            let bar = ProgressBar::new(1);
            let bar = multi.insert(0, bar);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let parts = [progress::times(status), progress::figures(status)];
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let (n, of) = (status.finished + 1, status.wanted);
        whole.set_message(format!("{}, {n} of {of}: {}", state.model, parts.join("; ")));
        for one in progress::stages(status) {
            if let Some(bar) = state.bars.get(one.stage) {
                bar.set_message(one.beside);
            }
        }
    }

    /// A line with the time before it.
    fn say(&self, state: &mut State, text: &str) {
        state.said = Some(Instant::now());
        let line = format!("{:>7.1} s  {text}", self.began.elapsed().as_secs_f64());
        match &self.multi {
            Some(multi) => drop(multi.println(line)),
            None => eprintln!("{line}"),
        }
    }

    /// Says once that somebody waits and for what, and once that it is over.
    fn tell_who_waits(&self, state: &mut State, stages: &[StageStatus], log: &Health) {
        let waits = |s: &StageStatus| Some((s.stage.to_owned(), s.state.waiting.clone()?));
        let mut now: BTreeMap<String, String> = stages.iter().filter_map(waits).collect();
        if let Health::Full { reason } = log {
            now.insert("log".to_owned(), reason.clone());
        }
        let mut lines = Vec::new();
        for (who, reason) in now.iter().filter(|(who, _)| !state.waiting.contains(*who)) {
            lines.push(format!("the {who} waits: {reason}"));
        }
        for who in state.waiting.iter().filter(|who| !now.contains_key(*who)) {
            lines.push(format!("the {who} goes on"));
        }
        state.waiting = now.into_keys().collect();
        lines.iter().for_each(|line| self.say(state, line));
    }

    /// Takes bars down.
    pub fn close(&self) {
        self.clear(&mut self.lock());
    }

    fn bar(&self, state: &mut State, stage: &str, total: u64) -> Option<ProgressBar> {
        let multi = self.multi.as_ref()?;
        let bar = state.bars.entry(stage.to_owned()).or_insert_with(|| {
            let template = "  {prefix:<10} {bar:30} {pos}/{len} {msg}";
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = multi.add(ProgressBar::new(total).with_style(style));
            bar.set_prefix(stage.to_owned());
            bar
        });
        Some(bar.clone())
    }
}

impl Gauge for Screen {
    fn progress(&self, stage: &'static str, done: u64, total: u64) {
        let mut state = self.lock();
        let new = state.reported.insert(stage);
        match self.bar(&mut state, stage, total) {
            Some(bar) => {
                bar.set_length(total);
                bar.set_position(done);
            }
            None if new => {
                let line = format!("{}  {stage}  {done}/{total}", state.model);
                self.say(&mut state, &line);
            }
            None => {}
        }
    }
}
