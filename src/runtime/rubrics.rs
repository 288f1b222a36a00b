//! RUBRICS of a run. A component is validated on the caller's thread, kept under its hash, and only
//! then known to the log; which rubrics judge is an event like everything else. So a swap needs no
//! lock and no drain: a judgment holds the rubric it began with, and the next one is decided from a
//! view that knows the new panel.

use super::panels;
pub use super::panels::find;
use super::rubric_files::{keep, kept_at};
use super::spelling;
use crate::config::{Config, ReadoutMode};
use crate::domain::text::bounded;
use crate::domain::{Event, Offset, Panel, PanelMember, RubricId, TaskKey, Trial, When};
use crate::error::{Code, Error};
use crate::lm::model_files::ModelFiles;
use crate::log::{Appended, Batch, Log};
use crate::rubric::{Rubric, RubricEngine, RubricInfo, RubricRegistry, Subject};
use crate::view::{LiveView, RubricFacts, RunView, TrialProgress};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

/// Characters of the reason why a component is not used that are recorded.
const REFUSAL_CHARS_MAX: usize = 2000;

/// So often a change is tried when others change what judges at the same time.
const CHANGES_TRIED: u32 = 100;

/// A rubric somebody wants on the panel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RubricWanted {
    /// Its name (the newest of that name), `name@version`, or the beginning of its hash.
    pub rubric: String,
    /// Its weight among several.
    pub weight: f64,
    /// The prompts it is for; none: all the others.
    pub tags: Vec<String>,
}

impl RubricWanted {
    /// One for every prompt.
    pub fn plain(rubric: impl Into<String>) -> RubricWanted {
        RubricWanted { rubric: rubric.into(), weight: 1.0, tags: Vec::new() }
    }
}

/// What was installed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
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
#[non_exhaustive]
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
    view: Arc<LiveView>,
    registry: Arc<RubricRegistry>,
    engine: RubricEngine,
    terms: Terms,
}

/// What is asked of a rubric that is to judge.
#[derive(Clone)]
pub(crate) struct Terms {
    /// Of its first judgments, and of those after them.
    pub trial: Trial,
    /// Whose vocabulary must spell its choices; `None` where no probabilities are looked at.
    pub model: Option<Arc<ModelFiles>>,
}

impl Terms {
    /// Those of a run with these settings.
    pub fn of(config: &Config, model: &Arc<ModelFiles>) -> Terms {
        // Another judge spells in its own way.
        let own = config.judge.engine.is_none();
        let reads = own && config.judge.readout != ReadoutMode::Parsed;
        Terms { trial: config.rubrics.trial(), model: reads.then(|| model.clone()) }
    }
}

fn closed() -> Error {
    Error::Closed
}

impl Rubrics {
    /// The rubrics of the run whose log this is, as long as somebody holds it; `view` is what the
    /// caller knows, and grows with what is looked up here.
    pub(crate) fn new(
        dir: PathBuf,
        log: &Arc<dyn Log>,
        view: Arc<LiveView>,
        registry: Arc<RubricRegistry>,
        engine: RubricEngine,
        terms: Terms,
    ) -> Rubrics {
        Rubrics { dir, log: Arc::downgrade(log), view, registry, engine, terms }
    }

    fn append(&self, batch: Batch) -> Result<Offset, Error> {
        match self.log.upgrade().ok_or_else(closed)?.append(batch)? {
            Appended::New { first, .. } | Appended::Duplicate { first } => Ok(first),
        }
    }

    fn view(&self) -> Result<Arc<RunView>, Error> {
        Ok(self.view.known(self.log.upgrade().ok_or_else(closed)?.as_ref())?)
    }

    /// Validates a component and keeps it. It judges nothing before it is activated.
    ///
    /// # Errors
    /// [`crate::rubric::RubricError`] saying what is wrong with it, down to the golden case.
    pub fn install(&self, bytes: &[u8]) -> Result<Installed, Error> {
        let rubric = Rubric::load(&self.engine, bytes)?;
        let known = self.registry.get(rubric.id()).is_some();
        // Also one that is loaded, and whose file was damaged since.
        if !std::fs::read(kept_at(&self.dir, rubric.id())).is_ok_and(|kept| kept == bytes) {
            keep(&self.dir, rubric.id(), bytes)?;
        }
        if !known {
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

    /// Changes what judges, as `decide` wants it by what is known. Of two who change it at the same
    /// time one is refused by the log, and decides anew.
    fn change<T>(
        &self,
        decide: impl Fn(&RunView) -> Result<(Vec<Event>, T), Error>,
    ) -> Result<(T, Offset), Error> {
        for _ in 0..CHANGES_TRIED {
            let view = self.view()?;
            let (events, done) = decide(&view)?;
            let batch = Batch { key: Some(view.rubrics.change_key()), events, cursor: None };
            match self.log.upgrade().ok_or_else(closed)?.append(batch)? {
                Appended::New { first, .. } => return Ok((done, first)),
                Appended::Duplicate { .. } => {}
            }
        }
        Err(Error::refused(
            Code::PanelContended,
            format!(
                "others changed what judges {CHANGES_TRIED} times meanwhile: nothing was changed"
            ),
        ))
    }

    /// Lets these rubrics judge in the place of those that do.
    ///
    /// # Errors
    /// When one is not installed, does not judge answers, or was rolled back and `again` is not
    /// set; when they make no panel; when the log cannot be written.
    pub fn activate(
        &self,
        wanted: &[RubricWanted],
        when: When,
        again: Again,
    ) -> Result<Activated, Error> {
        self.activate_over(wanted, when, again, None)
    }

    /// The same, if what judges is what the caller thinks: `current` is the beginning of its
    /// rubric's hash, or those of all its rubrics with commas between them. Nobody can change it
    /// between the look and the change.
    ///
    /// # Errors
    /// Those of [`Rubrics::activate`]; [`Error::Refused`] with what judges now, when it is another.
    pub fn activate_if_current(
        &self,
        wanted: &[RubricWanted],
        when: When,
        again: Again,
        current: &str,
    ) -> Result<Activated, Error> {
        self.activate_over(wanted, when, again, Some(current))
    }

    fn activate_over(
        &self,
        wanted: &[RubricWanted],
        when: When,
        again: Again,
        current: Option<&str>,
    ) -> Result<Activated, Error> {
        let decide = |view: &RunView| {
            if let Some(current) = current {
                panels::must_be(view, current)?;
            }
            let mut members = Vec::new();
            for one in wanted {
                let rubric = find(view, &one.rubric)?;
                self.may_judge(view, &rubric, again)?;
                members.push(PanelMember { rubric, weight: one.weight, tags: one.tags.clone() });
            }
            let panel = Panel::new(members)?;
            Ok((vec![self.activation(&panel, when)], panel))
        };
        let (panel, at) = self.change(decide)?;
        Ok(Activated { panel, when, at })
    }

    /// A panel judges that was checked.
    fn activation(&self, panel: &Panel, when: When) -> Event {
        let trial = Some(self.terms.trial).filter(|trial| trial.is_due() || trial.watch > 0);
        Event::RubricActivated { panel: panel.clone(), when, trial }
    }

    fn may_judge(&self, view: &RunView, rubric: &RubricId, again: Again) -> Result<(), Error> {
        let missing = || {
            Error::refused(
                Code::RubricMissing,
                format!("rubric {} is not installed", rubric.short()),
            )
        };
        let loaded = self.registry.get(rubric).ok_or_else(missing)?;
        let name = &loaded.info().name;
        if loaded.info().subject == Subject::Judgment {
            return Err(Error::refused(
                Code::RubricJudgesJudgments,
                format!("{name} judges judgments, not answers: it cannot be activated"),
            ));
        }
        if let Some(model) = &self.terms.model {
            spelling::check(model.tokenizer(), &loaded)?;
        }
        match view.rubrics.retired.get(rubric) {
            Some(reason) if again == Again::Refuse => Err(Error::refused(
                Code::RubricRolledBack,
                format!(
                    "{name} ({}) was rolled back: {reason}. Install a better version, or activate \
                     this one again, saying that this is meant",
                    rubric.short()
                ),
            )),
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
                return Err(Error::refused(
                    Code::RubricOnPanel,
                    format!(
                        "{one} ({}) is on the panel: what it says counts already",
                        rubric.short()
                    ),
                ));
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

    /// Puts the panel before this one back, whole and at once. What the rubrics judged that are new
    /// in this one counts for nothing in the open iteration: pairs that were formed from it are
    /// formed again, and what was trained on those is trained again.
    ///
    /// # Errors
    /// When no panel judged before, or the log cannot be written.
    pub fn roll_back(&self, reason: &str) -> Result<Activated, Error> {
        let decide = |view: &RunView| {
            let nothing = || {
                Error::refused(
                    Code::NothingToRollBack,
                    "no other rubric judged before this one".to_owned(),
                )
            };
            let panel = view.panel.as_ref().ok_or_else(nothing)?;
            let back_to = view.rubrics.fallback(panel).cloned().ok_or_else(nothing)?;
            let mut gone = panel.leaving(&back_to);
            let mut events = Vec::new();
            while let Some(rubric) = gone.first().cloned() {
                let (back_to, reason) = (back_to.clone(), reason.to_owned());
                let taken_back = gone.clone();
                events.push(Event::RubricRolledBack { rubric, back_to, reason, taken_back });
                gone.remove(0);
            }
            if events.is_empty() {
                // The same rubrics, with other weights or tags.
                events.push(self.activation(&back_to, When::Immediately));
            }
            Ok((events, back_to))
        };
        let (panel, at) = self.change(decide)?;
        Ok(Activated { panel, when: When::Immediately, at })
    }

    /// Retires one rubric that judges, or judged in the open iteration: its name, `name@version`, or
    /// the beginning of its hash. The others of the panel go on judging where
    /// they make one; otherwise the last panel without it judges again. What it judged counts for
    /// nothing in the open iteration, as with [`Rubrics::roll_back`].
    ///
    /// # Errors
    /// When it does not judge, nobody else can, or the log cannot be written.
    pub fn retire(&self, rubric: &str, reason: &str) -> Result<Activated, Error> {
        let decide = |view: &RunView| {
            let rubric = panels::judging(view, rubric)?;
            let nobody = || {
                Error::refused(
                    Code::NobodyLeftToJudge,
                    format!(
                        "without {} nobody judges, and no panel without it judged before: activate \
                     another rubric in its place",
                        rubric.short()
                    ),
                )
            };
            let open = view.open().map(|(_, open)| &open.panel);
            let mut panels = view.panel.iter().chain(open);
            let back_to = match panels.find(|panel| panel.has(&rubric)) {
                // It judged in the open iteration and has no place any more: who has one keeps it.
                None => view.panel.clone(),
                Some(panel) => {
                    let rest = panel.without(&rubric).ok();
                    rest.or_else(|| view.rubrics.without(&rubric).cloned())
                }
            };
            let back_to = back_to.ok_or_else(nobody)?;
            let (reason, taken_back) = (reason.to_owned(), vec![rubric.clone()]);
            let event =
                Event::RubricRolledBack { rubric, back_to: back_to.clone(), reason, taken_back };
            Ok((vec![event], back_to))
        };
        let (panel, at) = self.change(decide)?;
        Ok(Activated { panel, when: When::Immediately, at })
    }

    /// Takes a component that appeared in the watched folder: a new version of a rubric that judges
    /// takes its place; any other, and an older one, is only installed. What is wrong with it is
    /// recorded.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(crate) fn take(&self, path: &Path, bytes: &[u8], when: When) -> Result<(), Error> {
        let installed = match self.install(bytes) {
            Ok(installed) => installed,
            Err(error @ Error::Rubric(_)) => return self.refuse(path, bytes, error.to_string()),
            Err(error) => return Err(error),
        };
        // One that was here before was activated or not by somebody who knew it.
        if installed.known {
            return Ok(());
        }
        let view = self.view()?;
        let Some(panel) = &view.panel else { return Ok(()) };
        let judging = panel.members().iter().filter_map(|member| {
            view.rubrics.installed.get(&member.rubric).filter(|facts| facts.name == installed.name)
        });
        let version = &installed.version;
        for facts in judging {
            let newer = panels::compare(version, &facts.version);
            if let Some(why) = not_newer(newer, version, &facts.version) {
                let (name, id) = (&installed.name, installed.rubric.short());
                let reason = format!(
                    "{name}@{version} ({id}) is installed and does not judge: {why}. Activate it by \
                     its hash if it is to judge"
                );
                return self.refuse(path, bytes, Code::RubricNotNewer.says(reason));
            }
            if newer == Some(Ordering::Equal) {
                let (file, name) = (path.display().to_string(), &installed.name);
                tracing::warn!(
                    file,
                    "{name}@{version} takes the place of one with the same name and version and other \
                     bytes: give a changed rubric another version"
                );
            }
        }
        self.take_place(&installed, when)
    }

    /// Records once why a component in the watched folder is not used, however often the run starts
    /// with it.
    fn refuse(&self, path: &Path, bytes: &[u8], reason: String) -> Result<(), Error> {
        let file = path.display().to_string();
        tracing::warn!(file, reason, "the rubrics that judge stay");
        let key = Some(TaskKey::of("refuse", &[blake3::hash(bytes).as_bytes()]));
        let reason = bounded(&reason, REFUSAL_CHARS_MAX);
        let event = Event::RubricRefused { file, reason };
        self.append(Batch { key, events: vec![event], cursor: None }).map(drop)
    }

    /// Lets a component judge where one of its name judges.
    fn take_place(&self, installed: &Installed, when: When) -> Result<(), Error> {
        let decide = |view: &RunView| {
            let nothing =
                || Error::refused(Code::PanelChanged, "nothing to take the place of".to_owned());
            let panel = view.panel.as_ref().ok_or_else(nothing)?;
            let same_name = |member: &PanelMember| {
                let facts = view.rubrics.installed.get(&member.rubric);
                facts.is_some_and(|facts| facts.name == installed.name)
            };
            self.may_judge(view, &installed.rubric, Again::Refuse)?;
            let members = panel.members().iter().map(|member| match same_name(member) {
                true => PanelMember { rubric: installed.rubric.clone(), ..member.clone() },
                false => member.clone(),
            });
            // Two members of one name: which of them is meant nobody can tell.
            let next = Panel::new(members.collect()).map_err(|_| nothing())?;
            if next == *panel {
                return Err(nothing());
            }
            Ok((vec![self.activation(&next, when)], ()))
        };
        match self.change(decide) {
            // It is installed, and that is all.
            Ok(_) | Err(Error::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What is installed, and what each says of itself.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn list(&self) -> Result<Vec<RubricRow>, Error> {
        let info = |id: &RubricId| self.registry.get(id).map(|rubric| rubric.info().clone());
        Ok(list(self.view()?.as_ref(), info))
    }
}

/// What is installed, with what `info` knows of each.
pub(super) fn list(
    view: &RunView,
    info: impl Fn(&RubricId) -> Option<RubricInfo>,
) -> Vec<RubricRow> {
    let row = |(id, facts): (&RubricId, &RubricFacts)| RubricRow::of(view, id, facts, info(id));
    view.rubrics.installed.iter().map(row).collect()
}

/// Why a version does not take the place of another by itself.
fn not_newer(newer: Option<Ordering>, version: &str, judges: &str) -> Option<String> {
    match newer {
        Some(Ordering::Less) => Some(format!("{version} is older than {judges} that judges")),
        None => Some(format!(
            "whether {version:?} is newer than {judges:?} that judges cannot be told (versions are \
             numbers with dots: 1.4.0)"
        )),
        Some(Ordering::Equal | Ordering::Greater) => None,
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
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
    /// Prompts it still has to judge before its trial ends.
    pub on_trial: Option<u32>,
    /// Why it fails and judges all the same, if so: nobody judged before it that could come back.
    pub failing: Option<String>,
    /// Prompts at which it trapped.
    pub trapped_prompts: u32,
    /// It judges beside the panel and counts for nothing.
    pub shadow: bool,
    /// Why it was rolled back.
    pub retired: Option<String>,
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
        let members = view.panel.as_ref().map_or(&[][..], Panel::members);
        let member = members.iter().find(|member| member.rubric == *id);
        let on_trial = view.rubrics.trials.get(id);
        RubricRow {
            rubric: id.clone(),
            name: facts.name.clone(),
            version: facts.version.clone(),
            weight: member.map(|member| member.weight),
            tags: member.map(|member| member.tags.clone()).unwrap_or_default(),
            on_trial: on_trial.map(TrialProgress::left),
            failing: view.kept_though_failing(id).cloned(),
            trapped_prompts: facts.trapped_prompts,
            shadow: view.rubrics.shadows.contains(id),
            retired: view.rubrics.retired.get(id).cloned(),
            info,
        }
    }
}
