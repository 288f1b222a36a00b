//! Which models a run has: the one on this machine, what the host brings in its place or beside it,
//! and those that the settings name.

use super::Folder;
use crate::config::Config;
use crate::domain::plan::NamedEngine;
use crate::engine::{self, Engine, EngineError, ModelBackend, PolicyTokens, Scorer, TrainBackend};
use crate::error::{Code, Error};
use crate::stage::conductor::planned;
use crate::stage::writer::numbered::Numbered;
use crate::stage::{PromptWriter, StageError};
use crate::view::RunView;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a host brings.
#[derive(Default)]
pub(crate) struct HostEngines {
    pub engine: Option<Arc<dyn Engine>>,
    pub named: BTreeMap<String, Arc<dyn Engine>>,
    pub scorer: Option<Arc<dyn Scorer>>,
    pub trainer: Option<Arc<dyn TrainBackend>>,
    pub writer: Option<Arc<dyn PromptWriter>>,
}

impl HostEngines {
    /// The prompt writer, and its name in the settings that plans are made of.
    ///
    /// # Errors
    /// A file of old asks for a writer that is not there.
    pub fn writer(&self, config: &mut Config) -> Result<Arc<dyn PromptWriter>, Error> {
        let writer = self.writer.clone().unwrap_or_else(|| Arc::new(Numbered));
        if let Some(of_old) = &config.brought.writer_of_old
            && config.prompts.generate
            && of_old != writer.name()
        {
            return Err(Error::refused(
                Code::SettingGone,
                format!(
                    "gradus.yaml says prompts.writer: {of_old}, which is no setting any more: how \
                 the policy is asked for prompts comes with the host, and this one brings {:?}. The \
                 demo's (tagged) is there under gradus run and gradus demo; a host brings it with \
                 Builder::prompt_writer(gradus::demo::writer::Tagged). Or delete the line",
                    writer.name()
                ),
            ));
        }
        config.brought.writer = Some(writer.name().to_owned());
        Ok(writer)
    }

    /// The bundle, and in the settings what it consists of, for plans to record.
    ///
    /// # Errors
    /// An engine that settings name cannot be opened or has no entry; one of the host's cannot do
    /// what it is brought for.
    pub fn models<M>(
        self,
        (local, tokens): (Arc<M>, PolicyTokens),
        config: &mut Config,
        folder: &Folder,
    ) -> Result<ModelBackend, Error>
    where
        M: Engine + Scorer + TrainBackend + 'static,
    {
        let mut models = ModelBackend::local(local, tokens);
        if let Some(engine) = self.engine {
            models = models.with_engine(engine).map_err(failed)?;
        }
        for (name, settings) in &config.engines {
            let known = self.named.contains_key(name);
            refuse_name(name)?;
            if !known {
                let opened = engine::open(settings, folder.path());
                let opened = opened.map_err(|error| unusable(name, &error))?;
                models = models.with_named(name, opened);
            }
        }
        for (name, engine) in self.named {
            refuse_name(&name)?;
            models = models.with_named(&name, engine);
        }
        if let Some(scorer) = self.scorer {
            models = models.with_scorer(scorer);
        }
        if let Some(trainer) = self.trainer {
            models = models.with_trainer(trainer);
        }
        config.brought.policy = models.policy_is().cloned();
        config.brought.engines = models.named();
        for (key, name) in config.engines_used() {
            if !config.brought.engines.contains_key(name) {
                let known: Vec<&str> = config.brought.engines.keys().map(String::as_str).collect();
                return Err(Error::refused(
                    Code::EngineUnknown,
                    format!(
                        "{key} is {name:?}, and no engine has that name; there are: {}. Add it \
                     under engines: in gradus.yaml (engines: {{ {name}: {{ kind: candle, model: PATH }} }}), \
                     or take the setting out",
                        if known.is_empty() { "none".to_owned() } else { known.join(", ") }
                    ),
                ));
            }
        }
        Ok(models)
    }
}

fn failed(error: EngineError) -> Error {
    StageError::from(error).into()
}

fn unusable(name: &str, error: &EngineError) -> Error {
    Error::refused(error.code(), format!("engines.{name}: {error}"))
}

fn refuse_name(name: &str) -> Result<(), Error> {
    match name == NamedEngine::POLICY {
        true => Err(Error::refused(
            Code::EngineUnknown,
            format!(
                "an engine cannot be called {name:?}: plans call the run's own so. Give it another \
             name"
            ),
        )),
        false => Ok(()),
    }
}

/// Refuses what the engines of the open iteration, or of the one that comes next, cannot do.
///
/// # Errors
/// What is lacking, and what to do.
pub(super) fn check(models: &ModelBackend, config: &Config, view: &RunView) -> Result<(), Error> {
    if let Some(plan) = view.open().and_then(|(_, open)| open.plan.as_ref()) {
        models.check(plan).map_err(failed)?;
    }
    let (_, kind) = view.next_iteration();
    let (Some(policy), Some(panel)) = (&view.policy, &view.panel) else { return Ok(()) };
    match planned(config, view, kind, (policy, panel)) {
        Some(plan) => models.check(&plan).map_err(failed),
        None => Ok(()),
    }
}
