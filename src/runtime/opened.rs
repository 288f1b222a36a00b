//! A RUN THAT IS ASKED: its policies answer, or its model judges, and nothing of it changes. Works beside
//! a process that works on it.

use super::answering::AnsweringPolicies;
use super::rubrics;
use super::served::ServedPolicy;
use super::{Folder, PolicyRow, find_policy, fold, identity, models};
use crate::config::Config;
use crate::domain::{RubricId, RubricName};
use crate::engine::PolicyTokens;
use crate::engine::local::LocalModel;
use crate::error::{Code, Error};
use crate::lm::cancel::Cancel;
use crate::lm::device::{DeviceChoice, SelectedDevice, select};
use crate::lm::model_files::ModelFiles;
use crate::log::Log;
use crate::rubric::{Rubric, RubricEngine, Subject, bundled};
use crate::stage::judge::panel::name_of;
use crate::stage::writer::numbered::Numbered;
use crate::stage::{Ample, Gauge, StageContext};
use crate::view::RunView;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A run whose policies can be asked.
pub struct OpenedRun {
    view: RunView,
    config: Config,
    device: SelectedDevice,
    local: Arc<LocalModel>,
    answering: AnsweringPolicies,
}

impl OpenedRun {
    /// Opens a run for reading. `device`: what shall compute, instead of what the settings say.
    ///
    /// # Errors
    /// When the folder holds no run, its log or settings cannot be read, its base's files are not those
    /// that it began with, or the device cannot be had.
    pub fn open(folder: &Folder, device: Option<DeviceChoice>) -> Result<OpenedRun, Error> {
        let view = fold(&folder.read_log()?)?;
        let config = Config::from_yaml(&folder.config())?;
        let device = select(device.unwrap_or(config.device))?;
        let model = Arc::new(ModelFiles::open(&folder.model())?);
        identity::check_model(&view, &model, folder)?;
        let local = LocalModel::new(model, folder.blobs(), &device, config.dtype)?
            .with_adapters_of_old(identity::adapters_of_old(&view, &config));
        let answering = AnsweringPolicies::default();
        Ok(OpenedRun { view, config, device, local: Arc::new(local), answering })
    }

    /// What computes, and why.
    pub fn device(&self) -> &SelectedDevice {
        &self.device
    }

    /// The policy that a person means: `latest`, `base`, `M2`, or the beginning of its hash.
    ///
    /// # Errors
    /// [`Error::Refused`] with the names that there are.
    pub fn policy(&self, wanted: &str) -> Result<PolicyRow, Error> {
        if self.view.policy.is_none() {
            let message = "the run has not started, so it has no policy that could answer";
            return Err(Error::refused(Code::RunNotBegun, message));
        }
        find_policy(&self.view, wanted)
    }

    /// Every policy of the run, in the order in which they came about.
    pub fn policies(&self) -> Vec<PolicyRow> {
        super::policies::list(&self.view)
    }

    /// A policy, ready to answer.
    ///
    /// # Errors
    /// When its weights are missing or damaged.
    pub fn serve(&self, row: &PolicyRow) -> Result<ServedPolicy, Error> {
        let how = (&self.config.engine(), &self.config.sampling.drawing());
        self.answering.serve(row, &self.local, how)
    }
}

/// A run whose model judges, over a log that somebody gives.
pub(crate) struct JudgingRun {
    pub view: RunView,
    pub config: Config,
    pub device: SelectedDevice,
    pub context: StageContext,
    /// The run's own model, to be asked in token ids.
    pub local: Arc<LocalModel>,
    engine: RubricEngine,
    /// Components that are not installed in the run.
    pub brought: BTreeMap<RubricId, Vec<u8>>,
}

impl JudgingRun {
    /// Over what is known of a run, and the records that are needed of it.
    ///
    /// # Errors
    /// When its settings, model or rubrics cannot be read; when the device cannot be had.
    pub fn over(
        folder: &Folder,
        (view, log): (RunView, Arc<dyn Log>),
        (cancel, gauge): (&Cancel, Arc<dyn Gauge>),
        device: Option<DeviceChoice>,
    ) -> Result<JudgingRun, Error> {
        let mut config = Config::from_yaml(&folder.config())?;
        let device = select(device.unwrap_or(config.device))?;
        let model = Arc::new(ModelFiles::open(&folder.model())?);
        let local = LocalModel::new(model.clone(), folder.blobs(), &device, config.dtype)?;
        let local = local.with_adapters_of_old(identity::adapters_of_old(&view, &config));
        let local = Arc::new(local);
        let ours = (local.clone(), PolicyTokens::of(&model));
        let models = models::HostEngines::default().models(ours, &mut config, folder)?;
        let engine = RubricEngine::new()?;
        let context = StageContext {
            log,
            models: Arc::new(models),
            blobs: folder.blobs(),
            writer: Arc::new(Numbered),
            rubrics: folder.open_rubrics(&engine)?,
            oracle: None,
            cancel: cancel.clone(),
            gauge,
            headroom: Arc::new(Ample),
        };
        Ok(JudgingRun { view, config, device, context, local, engine, brought: BTreeMap::new() })
    }

    /// An installed rubric: its name, `name@version`, or the beginning of its hash.
    ///
    /// # Errors
    /// [`Error::Refused`] with what is installed.
    pub fn installed(&self, named: &str) -> Result<RubricId, Error> {
        rubrics::find(&self.view, named)
    }

    /// The rubric that a person means: a file, an installed one, or a bundled one.
    ///
    /// # Errors
    /// As [`JudgingRun::installed`] and [`JudgingRun::bring`].
    pub fn meant(&mut self, named: &str) -> Result<RubricId, Error> {
        let path = Path::new(named);
        if path.is_file() {
            return self.bring(&std::fs::read(path).map_err(|error| Error::io(path, error))?);
        }
        let ours = bundled::ALL.iter().find(|(name, _)| *name == named);
        match (self.installed(named), ours) {
            (Err(_), Some((_, bytes))) => self.bring(bytes),
            (found, _) => found,
        }
    }

    /// A component that judges nothing in the run.
    ///
    /// # Errors
    /// As [`JudgingRun::bring`].
    pub fn load(&self, bytes: &[u8]) -> Result<Rubric, Error> {
        Ok(Rubric::load(&self.engine, bytes)?)
    }

    /// A component that need not be installed.
    ///
    /// # Errors
    /// [`crate::rubric::RubricError`] saying what is wrong with it.
    pub fn bring(&mut self, bytes: &[u8]) -> Result<RubricId, Error> {
        let rubric = Rubric::load(&self.engine, bytes)?;
        let id = rubric.id().clone();
        self.context.rubrics.install(rubric);
        if !self.view.rubrics.installed.contains_key(&id) {
            self.brought.insert(id.clone(), bytes.to_vec());
        }
        Ok(id)
    }

    /// A rubric that judges answers, ready to judge.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is not there, and of one that judges judgments.
    pub fn rubric(&self, id: &RubricId) -> Result<Rubric, Error> {
        let rubrics = &self.context.rubrics;
        let missing = || {
            let (id, why) = (id.short(), rubrics.why_not(id));
            Error::refused(Code::RubricMissing, format!("rubric {id} cannot be used: {why}"))
        };
        let rubric = rubrics.get(id).ok_or_else(missing)?;
        if rubric.info().subject == Subject::Judgment {
            let name = &rubric.info().name;
            return Err(Error::refused(
                Code::RubricJudgesJudgments,
                format!("{name} judges judgments, not answers: there is nothing for it to judge"),
            ));
        }
        Ok(rubric)
    }

    /// What a rubric is called, installed or not.
    pub fn name(&self, id: &RubricId) -> Option<RubricName> {
        self.context.rubrics.get(id).map(|rubric| name_of(&rubric))
    }
}
