//! RUBRICS of a run. A component is validated on the caller's thread, kept under its hash, and only
//! then known to the log; which rubrics judge is an event like everything else. So a swap needs no
//! lock and no drain: a judgment holds the rubric it began with, and the next one is decided from a
//! view that knows the new panel.

use super::folder::FOLD_RECORDS;
use crate::domain::{Event, Offset, Panel, RubricId, Seat, TaskKey, Trial, When};
use crate::error::Error;
use crate::log::{Appended, Batch, Log};
use crate::rubric::{Rubric, RubricEngine, RubricInfo, RubricRegistry, Subject};
use crate::view::{RubricFacts, RunView};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Everything that is known now; the shared view is brought up to it.
pub(super) fn known(view: &Mutex<RunView>, log: &dyn Log) -> Result<RunView, Error> {
    let mut view = view.lock().unwrap_or_else(PoisonError::into_inner);
    while view.follow(log, FOLD_RECORDS, |_| {})? > 0 {}
    Ok(view.clone())
}

/// A rubric somebody wants on the panel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wanted {
    /// Its name (the newest of that name), `name@version`, or the beginning of its hash.
    pub rubric: String,
    /// Its weight among several.
    pub weight: f64,
    /// The prompts it is for; none: all the others.
    pub tags: Vec<String>,
}

impl Wanted {
    /// One for every prompt.
    pub fn plain(rubric: impl Into<String>) -> Wanted {
        Wanted { rubric: rubric.into(), weight: 1.0, tags: Vec::new() }
    }
}

/// What was installed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Installed {
    /// sha256 of its bytes.
    pub rubric: RubricId,
    /// What it calls itself.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// Whether it was installed before.
    pub known: bool,
}

/// What judges from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Activated {
    /// The panel.
    pub panel: Panel,
    /// From when on.
    pub when: When,
    /// Where the log says so.
    pub at: Offset,
}

/// The rubrics of a run, to be changed while it works.
#[derive(Clone)]
pub struct Rubrics {
    dir: PathBuf,
    log: Weak<dyn Log>,
    view: Arc<Mutex<RunView>>,
    registry: Arc<RubricRegistry>,
    engine: RubricEngine,
    trial: Trial,
}

fn closed() -> Error {
    Error::Usage("the run was closed".to_owned())
}

impl Rubrics {
    /// The rubrics of the run whose log this is, as long as somebody holds it; `view` is what the
    /// caller knows, and grows with what is looked up here.
    pub(crate) fn new(
        dir: PathBuf,
        log: &Arc<dyn Log>,
        view: Arc<Mutex<RunView>>,
        registry: Arc<RubricRegistry>,
        engine: RubricEngine,
        trial: Trial,
    ) -> Rubrics {
        Rubrics { dir, log: Arc::downgrade(log), view, registry, engine, trial }
    }

    fn append(&self, batch: Batch) -> Result<Offset, Error> {
        match self.log.upgrade().ok_or_else(closed)?.append(batch)? {
            Appended::New { first, .. } | Appended::Duplicate { first } => Ok(first),
        }
    }

    fn view(&self) -> Result<RunView, Error> {
        known(&self.view, self.log.upgrade().ok_or_else(closed)?.as_ref())
    }

    /// Validates a component and keeps it. It judges nothing before it is activated.
    ///
    /// # Errors
    /// [`crate::rubric::RubricError`] saying what is wrong with it, down to the golden case.
    pub fn install(&self, bytes: &[u8]) -> Result<Installed, Error> {
        let rubric = Rubric::load(&self.engine, bytes)?;
        let known = self.registry.get(rubric.id()).is_some();
        if !known {
            keep(&self.dir, rubric.id(), bytes)?;
            self.registry.install(rubric.clone());
        }
        let RubricInfo { name, version, .. } = rubric.info().clone();
        let id = rubric.id().clone();
        let event = Event::RubricInstalled {
            rubric: id.clone(),
            name: name.clone(),
            version: version.clone(),
        };
        let key = Some(TaskKey::of("install", &[id.0.as_bytes()]));
        if !self.view()?.rubrics.installed.contains_key(&id) {
            self.append(Batch { key, events: vec![event], cursor: None })?;
        }
        Ok(Installed { rubric: id, name, version, known })
    }

    /// Lets these rubrics judge in the place of those that do.
    ///
    /// # Errors
    /// When one is not installed, does not judge answers, or was rolled back and `again` is not
    /// set; when they make no panel; when the log cannot be written.
    pub fn activate(
        &self,
        wanted: &[Wanted],
        when: When,
        again: Again,
    ) -> Result<Activated, Error> {
        let view = self.view()?;
        let mut seats = Vec::new();
        for one in wanted {
            let rubric = find(&view, &one.rubric)?;
            self.may_judge(&view, &rubric, again)?;
            seats.push(Seat { rubric, weight: one.weight, tags: one.tags.clone() });
        }
        let panel = Panel::new(seats).map_err(|error| Error::Usage(error.to_string()))?;
        self.seat(panel, when)
    }

    /// Lets a panel judge that was checked.
    fn seat(&self, panel: Panel, when: When) -> Result<Activated, Error> {
        let trial = Some(self.trial).filter(|trial| trial.judgments > 0);
        let event = Event::RubricActivated { panel: panel.clone(), when, trial };
        let at = self.append(Batch { key: None, events: vec![event], cursor: None })?;
        Ok(Activated { panel, when, at })
    }

    fn may_judge(&self, view: &RunView, rubric: &RubricId, again: Again) -> Result<(), Error> {
        let missing = || Error::Usage(format!("rubric {} is not installed", rubric.short()));
        let loaded = self.registry.get(rubric).ok_or_else(missing)?;
        let name = &loaded.info().name;
        if loaded.info().subject == Subject::Judgment {
            return Err(Error::Usage(format!(
                "GRADUS0506 {name} judges judgments, not answers: it cannot be activated"
            )));
        }
        match view.rubrics.put_away.get(rubric) {
            Some(reason) if again == Again::Refuse => Err(Error::Usage(format!(
                "GRADUS0507 {name} ({}) was rolled back: {reason}. Install a better version, or \
                 activate this one all the same with --again",
                rubric.short()
            ))),
            _ => Ok(()),
        }
    }

    /// Lets these rubrics judge beside the panel from now on, and no others: to see what they would
    /// do. Nothing is made of what they say; [`crate::rejudge::Past::diff`] compares it.
    ///
    /// # Errors
    /// When one is not installed, does not judge answers or is on the panel, or the log cannot be
    /// written.
    pub fn shadow(&self, wanted: &[String]) -> Result<Vec<RubricId>, Error> {
        let view = self.view()?;
        let mut rubrics = Vec::new();
        for one in wanted {
            let rubric = find(&view, one)?;
            self.may_judge(&view, &rubric, Again::Allow)?;
            if view.panel.as_ref().is_some_and(|panel| panel.has(&rubric)) {
                return Err(Error::Usage(format!(
                    "GRADUS0509 {one} ({}) is on the panel: what it says counts already",
                    rubric.short()
                )));
            }
            if !rubrics.contains(&rubric) {
                rubrics.push(rubric);
            }
        }
        if view.rubrics.shadows != rubrics {
            let event = Event::ShadowsSet { rubrics: rubrics.clone() };
            self.append(Batch { key: None, events: vec![event], cursor: None })?;
        }
        Ok(rubrics)
    }

    /// Puts the panel before this one back, at once, and what the new rubric judged in the open
    /// iteration counts for nothing.
    ///
    /// # Errors
    /// When no panel judged before, or the log cannot be written.
    pub fn roll_back(&self, reason: &str) -> Result<Activated, Error> {
        let view = self.view()?;
        let nothing = || Error::Usage("no other rubric judged before this one".to_owned());
        let panel = view.panel.as_ref().ok_or_else(nothing)?;
        let back_to = view.rubrics.fallback(panel).cloned().ok_or_else(nothing)?;
        let new = panel.seats().iter().find(|seat| !back_to.has(&seat.rubric));
        let Some(seat) = new else { return self.seat(back_to, When::Immediately) };
        let event = Event::RubricRolledBack {
            rubric: seat.rubric.clone(),
            back_to: back_to.clone(),
            reason: reason.to_owned(),
        };
        let at = self.append(Batch { key: None, events: vec![event], cursor: None })?;
        Ok(Activated { panel: back_to, when: When::Immediately, at })
    }

    /// Takes a component that appeared in the watched folder: a new version of a rubric that judges
    /// takes its seat; any other is only installed. What is wrong with it is recorded.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(crate) fn take(&self, path: &Path, bytes: &[u8], when: When) -> Result<(), Error> {
        let installed = match self.install(bytes) {
            Ok(installed) => installed,
            Err(error @ Error::Rubric(_)) => {
                let file = path.display().to_string();
                tracing::warn!(file, %error, "the rubrics that judge stay");
                let event = Event::RubricRefused { file, reason: error.to_string() };
                // Once, however often the run starts with it.
                let key = Some(TaskKey::of("refuse", &[blake3::hash(bytes).as_bytes()]));
                return self.append(Batch { key, events: vec![event], cursor: None }).map(drop);
            }
            Err(error) => return Err(error),
        };
        let view = self.view()?;
        let Some(panel) = &view.panel else { return Ok(()) };
        let same_name = |seat: &Seat| {
            let facts = view.rubrics.installed.get(&seat.rubric);
            facts.is_some_and(|facts| facts.name == installed.name)
        };
        // One that was here before was activated or not by somebody who knew it.
        if installed.known
            || !panel.seats().iter().any(same_name)
            || self.may_judge(&view, &installed.rubric, Again::Refuse).is_err()
        {
            return Ok(());
        }
        let seats = panel.seats().iter().map(|seat| match same_name(seat) {
            true => Seat { rubric: installed.rubric.clone(), ..seat.clone() },
            false => seat.clone(),
        });
        match Panel::new(seats.collect()) {
            Ok(panel) => self.seat(panel, when).map(drop),
            // Two seats of one name: which of them is meant nobody can tell.
            Err(_) => Ok(()),
        }
    }

    /// What is installed, and what each says of itself.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn list(&self) -> Result<Vec<RubricRow>, Error> {
        let view = self.view()?;
        let row = |(id, facts): (&RubricId, &RubricFacts)| {
            RubricRow::of(&view, id, facts, self.registry.get(id).map(|r| r.info().clone()))
        };
        Ok(view.rubrics.installed.iter().map(row).collect())
    }
}

/// Whether a rubric that was rolled back may judge again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Again {
    /// No.
    Refuse,
    /// Somebody says so.
    Allow,
}

/// A rubric of a run, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RubricRow {
    /// sha256 of its bytes.
    pub rubric: RubricId,
    /// What it calls itself.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// Its weight, where it judges.
    pub weight: Option<f64>,
    /// The prompts it is for.
    pub tags: Vec<String>,
    /// Judgments it still has to give before its trial ends.
    pub on_trial: Option<u32>,
    /// Prompts at which it trapped.
    pub strikes: u32,
    /// It judges beside the panel and counts for nothing.
    pub shadow: bool,
    /// Why it was rolled back.
    pub put_away: Option<String>,
    /// What it says of itself; not known from the log alone.
    pub info: Option<RubricInfo>,
}

impl RubricRow {
    /// A rubric as a view knows it.
    pub fn of(
        view: &RunView,
        id: &RubricId,
        facts: &RubricFacts,
        info: Option<RubricInfo>,
    ) -> RubricRow {
        let seats = view.panel.as_ref().map_or(&[][..], Panel::seats);
        let seat = seats.iter().find(|seat| seat.rubric == *id);
        let on_trial = view.rubrics.trials.get(id);
        RubricRow {
            rubric: id.clone(),
            name: facts.name.clone(),
            version: facts.version.clone(),
            weight: seat.map(|seat| seat.weight),
            tags: seat.map(|seat| seat.tags.clone()).unwrap_or_default(),
            on_trial: on_trial.map(|t| t.trial.judgments.saturating_sub(t.judged)),
            strikes: facts.strikes,
            shadow: view.rubrics.shadows.contains(id),
            put_away: view.rubrics.put_away.get(id).cloned(),
            info,
        }
    }
}

/// The installed rubric that somebody means.
///
/// # Errors
/// [`Error::Usage`] with what is installed, when it is none or not only one.
pub fn find(view: &RunView, wanted: &str) -> Result<RubricId, Error> {
    let found = view.rubrics_named(wanted);
    match found.as_slice() {
        [only] => Ok((*only).clone()),
        _ => {
            let known: Vec<String> = view
                .rubrics
                .installed
                .iter()
                .map(|(id, facts)| format!("{}@{} ({})", facts.name, facts.version, id.short()))
                .collect();
            let what = if found.is_empty() { "no" } else { "more than one" };
            Err(Error::Usage(format!(
                "GRADUS0508 {what} installed rubric is {wanted:?}; installed are {}. Install one: \
                 gradus rubric install DIR FILE",
                known.join(", ")
            )))
        }
    }
}

/// Keeps a component's bytes under their hash: whole, or not at all.
pub(crate) fn keep(dir: &Path, id: &RubricId, bytes: &[u8]) -> Result<(), Error> {
    let path = dir.join(format!("{id}.wasm"));
    write_whole(&path, bytes)
}

/// Writes a file so that it is there whole, also after a power cut, or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let part = path.with_extension(format!("part-{}", std::process::id()));
    let io = |error| Error::io(path, error);
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&part)?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.sync_all()?;
        std::fs::rename(&part, path)?;
        match path.parent() {
            Some(folder) => std::fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(io)
}
