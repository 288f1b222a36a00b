//! What a person sees while a run works: a bar per stage on a terminal, else one line per stage
//! change; and `status.json`, for `gradus status` from another process.

use gradus::actor::shell::ShellState;
use gradus::domain::event::IterationKind;
use gradus::log::Health;
use gradus::runtime::{Folder, Runtime};
use gradus::stage::Gauge;
use gradus::view::RunView;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two writes of `status.json`.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// `status.json` has this size, or a multiple of it.
const STATUS_BYTES: usize = 16 << 10;

/// What `status.json` holds. Never truth: the log is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pulse {
    /// The process.
    pub pid: u32,
    /// What computes.
    #[serde(default)]
    pub device: String,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// `M2`, or nothing before the first iteration.
    pub model: String,
    /// The stage that reported last.
    pub stage: String,
    /// Done and total of each stage in this iteration.
    pub progress: BTreeMap<String, (u64, u64)>,
    /// Iterations that are over.
    pub finished: u32,
    /// Records of the log.
    pub records: u64,
    /// What each stage is doing, its failures and restarts.
    #[serde(default)]
    pub stages: BTreeMap<String, ShellState>,
    /// Whether the log takes events.
    #[serde(default)]
    pub log: Health,
}

struct State {
    pulse: Pulse,
    bars: BTreeMap<String, ProgressBar>,
    written: Option<Instant>,
}

/// The screen of one run.
pub struct Screen {
    label: String,
    folder: Folder,
    began: Instant,
    multi: Option<MultiProgress>,
    state: Mutex<State>,
}

impl Screen {
    /// A screen for the run in `folder`; `label` comes before the model's name.
    pub fn new(label: &str, folder: &Folder) -> Screen {
        let multi = std::io::stderr().is_terminal().then(MultiProgress::new);
        let pulse = Pulse { pid: std::process::id(), ..Pulse::default() };
        Screen {
            label: label.to_owned(),
            folder: folder.clone(),
            began: Instant::now(),
            multi,
            state: Mutex::new(State { pulse, bars: BTreeMap::new(), written: None }),
        }
    }

    /// Called some ten times a second with what is known.
    pub fn tick(&self, view: &RunView, runtime: &Runtime) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let model = match view.open() {
            Some((iteration, open)) => {
                let kind = if open.kind == IterationKind::Sft { "SFT" } else { "DPO" };
                format!("{}M{iteration} {kind}", self.label)
            }
            None => String::new(),
        };
        if state.pulse.model != model && !model.is_empty() {
            state.pulse.model = model;
            state.pulse.progress.clear();
            for (_, bar) in std::mem::take(&mut state.bars) {
                bar.finish_and_clear();
            }
        }
        let stages = runtime.stages().into_iter();
        state.pulse.stages = stages.map(|s| (s.stage.to_owned(), s.state)).collect();
        state.pulse.device = runtime.device().kind.to_string();
        state.pulse.log = runtime.log_health();
        state.pulse.finished = view.finished();
        state.pulse.records = view.next.0;
        if state.written.is_none_or(|at| at.elapsed() >= STATUS_EVERY) {
            state.written = Some(Instant::now());
            state.pulse.at_ms = now_ms();
            self.write(&state.pulse);
        }
    }

    /// A status file is a courtesy: a full disk must not stop a run over it. It is written over
    /// in place, with room to grow, for on a full disk there is no other, and that is when it is
    /// read.
    fn write(&self, pulse: &Pulse) {
        let mut body = serde_json::to_vec(pulse).unwrap_or_default();
        body.resize(body.len().next_multiple_of(STATUS_BYTES), b' ');
        let mut open = std::fs::File::options();
        let file = open.write(true).create(true).truncate(false).open(self.folder.status());
        let _ = file.and_then(|mut file| {
            file.write_all(&body)?;
            file.set_len(body.len() as u64)
        });
    }

    /// Takes bars and the status file down.
    pub fn close(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, bar) in std::mem::take(&mut state.bars) {
            bar.finish_and_clear();
        }
        let _ = std::fs::remove_file(self.folder.status());
    }

    fn bar(&self, state: &mut State, stage: &str, total: u64) -> Option<ProgressBar> {
        let multi = self.multi.as_ref()?;
        let model = state.pulse.model.clone();
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

fn now_ms() -> u64 {
    use gradus::log::Clock;
    gradus::actor::clock::SystemClock.now_ms()
}

impl Gauge for Screen {
    fn progress(&self, stage: &'static str, done: u64, total: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let new = !state.pulse.progress.contains_key(stage);
        state.pulse.stage = stage.to_owned();
        state.pulse.progress.insert(stage.to_owned(), (done, total));
        match self.bar(&mut state, stage, total) {
            Some(bar) => {
                bar.set_length(total);
                bar.set_position(done);
            }
            None if new => {
                let (model, passed) = (&state.pulse.model, self.began.elapsed().as_secs_f64());
                eprintln!("{passed:>7.1} s  {model}  {stage}  {done}/{total}");
            }
            None => {}
        }
    }
}
