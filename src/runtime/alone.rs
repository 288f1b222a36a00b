//! ALONE: what is asked of a run that no process works on.

use super::folder::Folder;
use super::rubrics::{Rubrics, Terms};
use crate::config::Config;
use crate::error::Error;
use crate::lm::model_files::ModelFiles;
use crate::log::{DurableLog, Log};
use crate::rubric::RubricEngine;
use crate::view::LiveView;
use std::sync::Arc;

impl Folder {
    /// The rubrics of a run that nobody works on; `log` is open, and `view` what is known of it.
    pub(super) fn rubrics_of(
        &self,
        log: &Arc<DurableLog>,
        view: &Arc<LiveView>,
    ) -> Result<Rubrics, Error> {
        let log: Arc<dyn Log> = log.clone();
        let config = Config::from_yaml(&self.config())?;
        let terms = Terms::of(&config, &Arc::new(ModelFiles::open(&self.model())?));
        let engine = RubricEngine::new()?;
        let registry = self.open_rubrics(&engine)?;
        Ok(Rubrics::new(self.rubrics(), &log, view.clone(), registry, engine, terms))
    }
}
