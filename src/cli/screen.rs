//! What a person sees while a run works: a bar per stage on a terminal, else one line per stage
//! change; a line when something is waited for, and when that is over; and `status.json`, for
//! `gradus status` from another process.

use gradus::actor::shell::ShellState;
use gradus::domain::event::IterationKind;
use gradus::log::Health;
use gradus::runtime::{Folder, Runtime};
use gradus::stage::Gauge;
use gradus::view::RunView;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{IsTerminal, Seek, Write};
use std::os::unix::fs::MetadataExt;
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
    /// `status.json`, open as long as the run is: when handles are used up, or the folder is moved,
    /// it is written all the same, and that is when it is read.
    file: Option<File>,
    /// Who waits, as it was said.
    waiting: BTreeSet<String>,
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
            state: Mutex::new(State {
                pulse,
                bars: BTreeMap::new(),
                written: None,
                file: None,
                waiting: BTreeSet::new(),
            }),
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
        self.tell_who_waits(&mut state);
        state.pulse.finished = view.finished();
        state.pulse.records = view.next.0;
        if state.written.is_none_or(|at| at.elapsed() >= STATUS_EVERY) {
            state.written = Some(Instant::now());
            state.pulse.at_ms = now_ms();
            self.write(&mut state);
        }
    }

    /// Says once that somebody waits and for what, and once that it is over.
    fn tell_who_waits(&self, state: &mut State) {
        let State { pulse, waiting, .. } = state;
        let stages = pulse.stages.iter();
        let mut now: BTreeMap<&str, &str> = stages
            .filter_map(|(stage, found)| Some((stage.as_str(), found.waiting.as_deref()?)))
            .collect();
        if let Health::Full { reason } = &pulse.log {
            now.insert("log", reason);
        }
        let seconds = self.began.elapsed().as_secs_f64();
        let mut lines = Vec::new();
        for (who, reason) in now.iter().filter(|(who, _)| !waiting.contains(**who)) {
            lines.push(format!("{seconds:>7.1} s  the {who} waits: {reason}"));
        }
        for who in waiting.iter().filter(|who| !now.contains_key(who.as_str())) {
            lines.push(format!("{seconds:>7.1} s  the {who} goes on"));
        }
        *waiting = now.into_keys().map(str::to_owned).collect();
        for line in lines {
            match &self.multi {
                Some(multi) => drop(multi.println(line)),
                None => eprintln!("{line}"),
            }
        }
    }

    /// A status file is a courtesy: a full disk must not stop a run over it. It is written over
    /// in place, with room to grow, for on a full disk there is no other, and that is when it is
    /// read.
    fn write(&self, state: &mut State) {
        let mut body = serde_json::to_vec(&state.pulse).unwrap_or_default();
        body.resize(body.len().next_multiple_of(STATUS_BYTES), b' ');
        if state.file.is_none() {
            let mut open = File::options();
            let open = open.write(true).create(true).truncate(false);
            state.file = open.open(self.folder.status()).ok();
        }
        let Some(file) = &mut state.file else { return };
        let _ = file
            .rewind()
            .and_then(|()| file.write_all(&body))
            .and_then(|()| file.set_len(body.len() as u64));
    }

    /// Takes bars and the status file down.
    pub fn close(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, bar) in std::mem::take(&mut state.bars) {
            bar.finish_and_clear();
        }
        // Another run's may lie in the place of ours.
        let number = |found: std::fs::Metadata| (found.dev(), found.ino());
        let ours = state.file.take().and_then(|file| file.metadata().ok()).map(number);
        let there = std::fs::metadata(self.folder.status()).ok().map(number);
        if ours.is_some() && ours == there {
            let _ = std::fs::remove_file(self.folder.status());
        }
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
