//! What carries out the surface ([`super::Command`], [`super::Query`]), of a run that this process has
//! open. Doors hold it weakly: when the runtime is shut down it is gone, and the folder is free.

use super::Folder;
use super::admission::AdmissionIndex;
use super::answering::AnsweringPolicies;
use super::intake::Intake;
use super::policies::{self, PolicyChoice};
use super::rubrics::{self, Rubrics};
use super::served::ServedPolicy;
use super::settings::ComparedSettings;
use super::status::{Activity, IterationProgress, Progress, Status, by_name};
use super::surface::{Admission, Answer, Command, Component, Query, Reply};
use super::votes;
use crate::actor::{StageStates, StageStatus};
use crate::blob::BlobStore;
use crate::config::Config;
use crate::domain::{Event, Message, Offset, Prompt};
use crate::engine::ModelBackend;
use crate::engine::local::LocalModel;
use crate::error::{Code, Error};
use crate::lm::cancel::Cancel;
use crate::log::{Appended, Batch, Clock, DurableLog, Health, Log};
use crate::stage::conductor::PromptsAwaited;
use crate::view::{LiveView, RunView};
use std::sync::Arc;

/// A run that this process has open.
pub(super) struct Core {
    pub(super) log: Arc<DurableLog>,
    pub(super) view: Arc<LiveView>,
    pub(super) admission: AdmissionIndex,
    pub(super) rubrics: Rubrics,
    pub(super) blobs: Arc<BlobStore>,
    /// What there is only while the run works.
    pub(super) live: Option<Live>,
}

/// What there is while a run works.
pub(super) struct Live {
    pub(super) local: Arc<LocalModel>,
    pub(super) models: Arc<ModelBackend>,
    pub(super) config: Arc<Config>,
    pub(super) settings: ComparedSettings,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) device: String,
    pub(super) progress: Arc<Progress>,
    pub(super) stages: StageStates,
    /// Set when somebody asks the process to end.
    pub(super) stop: Cancel,
    /// What all tasks work under: it counts the tokens that are drawn.
    pub(super) work: Cancel,
    /// Policies that answer callers; what they draw comes before what works.
    pub(super) answering: AnsweringPolicies,
    /// What of chats becomes prompts.
    pub(super) intake: Option<Intake>,
}

impl Core {
    /// A run that nobody works on, to be changed by this process.
    ///
    /// # Errors
    /// As [`Folder::open_log`], or when its settings, model or rubrics cannot be read.
    pub(super) fn alone(folder: &Folder) -> Result<Core, Error> {
        let log = folder.open_log()?;
        let view = Arc::default();
        let rubrics = folder.rubrics_of(&log, &view)?;
        let (admission, blobs) = (AdmissionIndex::default(), folder.blobs());
        Ok(Core { log, view, admission, rubrics, blobs, live: None })
    }

    /// What is known now, as far as it is needed to go on.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(super) fn view(&self) -> Result<Arc<RunView>, Error> {
        Ok(self.view.known(self.log.as_ref())?)
    }

    fn append(&self, events: Vec<Event>) -> Result<Offset, Error> {
        match self.log.append(Batch { key: None, events, cursor: None })? {
            Appended::New { first, .. } | Appended::Duplicate { first } => Ok(first),
        }
    }

    fn record(&self, event: Event) -> Result<Answer, Error> {
        Ok(Answer::Recorded { at: self.append(vec![event])? })
    }

    /// Does what is asked.
    ///
    /// # Errors
    /// What was wrong with it; nothing is changed then.
    pub(super) fn carry_out(&self, command: Command) -> Result<Answer, Error> {
        let rubrics = &self.rubrics;
        match command {
            Command::AddPrompts { prompts } => Ok(Answer::PromptsAdded(self.add_prompts(prompts)?)),
            Command::Pause => self.record(Event::PauseRequested),
            Command::Resume => self.record(Event::ResumeRequested),
            Command::Stop => self.stop(),
            Command::RaiseIterations { total } => self.raise_iterations(total),
            Command::ChoosePolicy { policy, pin, reason } => {
                let row = policies::find(self.view()?.as_ref(), &policy)?;
                Ok(Answer::PolicyChosen(self.choose(row, pin, reason)?))
            }
            Command::RollBackPolicy { reason } => {
                Ok(Answer::PolicyChosen(self.roll_back_policy(reason)?))
            }
            Command::UnpinPolicy { reason } => {
                let row = policies::find(self.view()?.as_ref(), "latest")?;
                Ok(Answer::PolicyChosen(self.choose(row, false, reason)?))
            }
            Command::Vote { vote } => self.record(Event::VoteRecorded { vote }),
            Command::InstallRubric { component: Component(bytes) } => {
                Ok(Answer::Installed(rubrics.install(&bytes)?))
            }
            Command::ActivateRubrics { wanted, when, again, if_current } => {
                Ok(Answer::Activated(match if_current {
                    None => rubrics.activate(&wanted, when, again)?,
                    Some(hash) => rubrics.activate_if_current(&wanted, when, again, &hash)?,
                }))
            }
            Command::ShadowRubrics { rubrics: wanted } => {
                Ok(Answer::Shadowed { rubrics: rubrics.shadow(&wanted)? })
            }
            Command::RollBackRubric { rubric: None, reason } => {
                Ok(Answer::Activated(rubrics.roll_back(&reason)?))
            }
            Command::RollBackRubric { rubric: Some(rubric), reason } => {
                Ok(Answer::Activated(rubrics.retire(&rubric, &reason)?))
            }
        }
    }

    /// Tells what is asked.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(super) fn tell(&self, query: &Query) -> Result<Reply, Error> {
        Ok(match query {
            Query::Status => Reply::Status(Box::new(self.status()?)),
            Query::Rubrics => Reply::Rubrics { rubrics: self.rubrics.list()? },
            Query::Policies => Reply::Policies { policies: policies::list(self.view()?.as_ref()) },
            Query::Votes { from, limit } => {
                votes::told(self.view()?.as_ref(), self.log.as_ref(), (*from, *limit))?
            }
        })
    }

    pub(super) fn add_prompts(&self, prompts: Vec<Prompt>) -> Result<Admission, Error> {
        self.admission.admit(prompts, &self.view, self.log.as_ref())
    }

    /// Takes a chat in, where the settings say so.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(super) fn take_in(&self, messages: &[Message]) -> Result<Option<Admission>, Error> {
        let intake = self.live.as_ref().and_then(|live| live.intake.as_ref());
        let prompt = intake.and_then(|intake| intake.prompt(messages));
        prompt.map(|prompt| self.add_prompts(vec![prompt])).transpose()
    }

    /// Whether chats are taken in.
    pub(super) fn takes_in(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.intake.is_some())
    }

    pub(super) fn roll_back_policy(&self, reason: String) -> Result<PolicyChoice, Error> {
        self.choose(policies::before(self.view()?.as_ref())?, false, reason)
    }

    fn stop(&self) -> Result<Answer, Error> {
        let nobody = || {
            Error::refused(Code::NobodyWorks, "no process works on the run: there is none to stop")
        };
        self.live.as_ref().ok_or_else(nobody)?.stop.cancel();
        Ok(Answer::Stopping)
    }

    fn raise_iterations(&self, total: u32) -> Result<Answer, Error> {
        let view = self.view()?;
        let (over, raised) = (view.finished(), view.iterations_raised);
        let settings = self.live.as_ref().map_or(0, |live| live.config.iterations);
        let wanted = settings.max(raised);
        if total <= wanted.max(over) {
            return Err(Error::refused(
                Code::IterationsNotRaised,
                format!(
                    "the run shall have {wanted} iterations already, and {over} are over: give a number \
                 above {}",
                    wanted.max(over)
                ),
            ));
        }
        self.record(Event::IterationsRaised { total })
    }

    fn choose(
        &self,
        row: policies::PolicyRow,
        pinned: bool,
        reason: String,
    ) -> Result<PolicyChoice, Error> {
        let gone = row.policy.blobs().find(|blob| !self.blobs.path(blob).is_file());
        if let Some(blob) = gone {
            return Err(Error::refused(
                Code::PolicyGone,
                format!(
                    "{} cannot act any more: its weights {blob} are not kept. The disk keeps the policies \
                 of finished iterations; train.keep_checkpoints: all keeps every one",
                    row.name
                ),
            ));
        }
        let (event, choice) = policies::choose(self.view()?.as_ref(), row, pinned, reason);
        let at = event.map(|event| self.append(vec![event])).transpose()?;
        Ok(PolicyChoice { at, ..choice })
    }

    /// A policy, opened: `latest`, `base`, `M2`, or the beginning of its hash.
    ///
    /// # Errors
    /// When there is none of that name; when its blobs are missing or damaged.
    pub(super) fn policy(&self, wanted: &str) -> Result<ServedPolicy, Error> {
        let none = || Error::refused(Code::RunNotBegun, "the run has no policy yet".to_owned());
        let live = self.live.as_ref().ok_or(Error::Closed)?;
        let view = self.view()?;
        view.policy.as_ref().ok_or_else(none)?;
        let row = policies::find(&view, wanted)?;
        let how = (&live.config.engine(), &live.config.sampling.drawing());
        live.answering.serve(&row, &live.local, how)
    }

    /// Answers to callers that wait for their first token, and those that are being drawn.
    pub(super) fn answering(&self) -> (usize, usize) {
        self.live.as_ref().map_or((0, 0), |live| live.answering.load())
    }

    /// What every stage is doing; nothing where none works.
    pub(super) fn stages(&self) -> Vec<StageStatus> {
        self.live.as_ref().map(|live| live.stages.read()).unwrap_or_default()
    }

    /// Whether the log takes events.
    pub(super) fn log_health(&self) -> Health {
        self.log.health()
    }

    /// How many iterations are wanted in all.
    pub(super) fn iterations_wanted(&self, view: &RunView) -> u32 {
        let settings = self.live.as_ref().map_or(0, |live| live.config.iterations);
        settings.max(view.iterations_raised)
    }

    /// What the run is doing.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(super) fn status(&self) -> Result<Status, Error> {
        Ok(self.status_of(self.view()?.as_ref()))
    }

    /// The same, of what was known last where the log cannot be read.
    pub(super) fn status_as_known(&self) -> Status {
        self.status_of(self.view().unwrap_or_else(|_| self.view.last()).as_ref())
    }

    fn status_of(&self, view: &RunView) -> Status {
        let wanted = self.iterations_wanted(view);
        let status = Status {
            activity: Activity::of(view, wanted, || self.awaited(view)),
            wanted,
            stages: by_name(self.stages()),
            log: self.log_health(),
            ..Status::of(view)
        };
        let Some(live) = &self.live else { return status };
        let open = view.open().map(|(iteration, _)| iteration);
        let known = live.progress.known(open, live.work.drawn());
        let at_ms = live.clock.now_ms();
        Status {
            device: live.device.clone(),
            at_ms,
            iteration: IterationProgress::of(view, at_ms, &known),
            stage: known.stage,
            progress: known.progress,
            tokens_per_second: known.tokens_per_second,
            settings_to_come: live.settings.to_come(view),
            ..status
        }
    }

    /// The time, as records have it; 0 where nobody works.
    pub(super) fn now_ms(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.clock.now_ms())
    }

    /// What the run waits for before its next iteration.
    pub(super) fn awaited(&self, view: &RunView) -> Option<PromptsAwaited> {
        PromptsAwaited::of(&self.live.as_ref()?.config, view)
    }
}

/// What a view tells of a run that nobody works on.
pub(super) fn told_by(view: &RunView, log: &dyn Log, query: &Query) -> Result<Reply, Error> {
    Ok(match query {
        Query::Status => Reply::Status(Box::new(Status::of(view))),
        Query::Rubrics => Reply::Rubrics { rubrics: rubrics::list(view, |_| None) },
        Query::Policies => Reply::Policies { policies: policies::list(view) },
        Query::Votes { from, limit } => votes::told(view, log, (*from, *limit))?,
    })
}
