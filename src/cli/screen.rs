//! What a person sees while a run works: a bar per stage on a terminal, else one line per stage
//! change; and a line when something is waited for, and when that is over.

use gradus::actor::StageStatus;
use gradus::domain::event::IterationKind;
use gradus::log::Health;
use gradus::runtime::Runtime;
use gradus::stage::Gauge;
use gradus::view::RunView;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

#[derive(Default)]
struct State {
    /// `M2 DPO`, or nothing before the first iteration.
    model: String,
    /// The stages that reported in this iteration.
    reported: BTreeSet<&'static str>,
    bars: BTreeMap<String, ProgressBar>,
    /// Who waits, as it was said.
    waiting: BTreeSet<String>,
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
                for (_, bar) in std::mem::take(&mut state.bars) {
                    bar.finish_and_clear();
                }
            }
        }
        self.tell_who_waits(&mut state, &runtime.stages(), &runtime.log_health());
    }

    /// Says once that somebody waits and for what, and once that it is over.
    fn tell_who_waits(&self, state: &mut State, stages: &[StageStatus], log: &Health) {
        let waits = |s: &StageStatus| Some((s.stage.to_owned(), s.state.waiting.clone()?));
        let mut now: BTreeMap<String, String> = stages.iter().filter_map(waits).collect();
        if let Health::Full { reason } = log {
            now.insert("log".to_owned(), reason.clone());
        }
        let seconds = self.began.elapsed().as_secs_f64();
        let mut lines = Vec::new();
        for (who, reason) in now.iter().filter(|(who, _)| !state.waiting.contains(*who)) {
            lines.push(format!("{seconds:>7.1} s  the {who} waits: {reason}"));
        }
        for who in state.waiting.iter().filter(|who| !now.contains_key(*who)) {
            lines.push(format!("{seconds:>7.1} s  the {who} goes on"));
        }
        state.waiting = now.into_keys().collect();
        for line in lines {
            match &self.multi {
                Some(multi) => drop(multi.println(line)),
                None => eprintln!("{line}"),
            }
        }
    }

    /// Takes bars down.
    pub fn close(&self) {
        for (_, bar) in std::mem::take(&mut self.lock().bars) {
            bar.finish_and_clear();
        }
    }

    fn bar(&self, state: &mut State, stage: &str, total: u64) -> Option<ProgressBar> {
        let multi = self.multi.as_ref()?;
        let model = state.model.clone();
        let bar = state.bars.entry(stage.to_owned()).or_insert_with(|| {
            let template = "{prefix:>18} {bar:30} {pos}/{len} {elapsed} (left {eta})";
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = multi.add(ProgressBar::new(total).with_style(style));
            bar.set_prefix(format!("{model} {stage}"));
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
                let (model, passed) = (&state.model, self.began.elapsed().as_secs_f64());
                eprintln!("{passed:>7.1} s  {model}  {stage}  {done}/{total}");
            }
            None => {}
        }
    }
}
