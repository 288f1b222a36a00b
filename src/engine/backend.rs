//! The bundle that stages hold: who answers with the run's policies, who scores, who trains, the
//! frozen models beside them by name, and how texts become the ids that are trained on.

use super::{Capabilities, ChatModel, Engine, EngineError, Needs, Prepared, Scorer, TrainBackend};
use crate::domain::plan::{
    self, AnswersWith, IterationPlan, JudgeSource, NamedEngine, ReadoutMode,
};
use crate::domain::{BlobHash, Completion, Message, PolicyRef, StopReason};
use crate::lm::fork::continuation;
use crate::lm::model_files::ModelFiles;
use crate::lm::policy::Vocabulary;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How texts become the ids of the run's policies.
#[derive(Clone)]
pub struct PolicyTokens {
    /// Encodes and decodes.
    pub vocabulary: Arc<dyn Vocabulary>,
    /// BLAKE3 of its `tokenizer.json`.
    pub id: BlobHash,
}

impl PolicyTokens {
    /// Those of a model's files.
    pub fn of(model: &ModelFiles) -> PolicyTokens {
        let text = model.text("tokenizer.json").unwrap_or("");
        PolicyTokens {
            vocabulary: model.chat().clone(),
            id: BlobHash(blake3::hash(text.as_bytes()).to_hex().to_string()),
        }
    }
}

/// Models, behind their ports.
#[derive(Clone)]
pub struct ModelBackend {
    policy: Arc<dyn Engine>,
    /// What the policy's engine is, where it is not the one that plans call local.
    policy_is: Option<NamedEngine>,
    engines: BTreeMap<String, Arc<dyn Engine>>,
    scorer: Arc<dyn Scorer>,
    trainer: Arc<dyn TrainBackend>,
    tokens: PolicyTokens,
}

impl ModelBackend {
    /// All three ports in one, as plans that say `local` mean it.
    pub fn local<M>(model: Arc<M>, tokens: PolicyTokens) -> ModelBackend
    where
        M: Engine + Scorer + TrainBackend + 'static,
    {
        ModelBackend {
            policy: model.clone(),
            policy_is: None,
            engines: BTreeMap::new(),
            scorer: model.clone(),
            trainer: model,
            tokens,
        }
    }

    /// With another engine that answers with the run's policies.
    ///
    /// # Errors
    /// [`EngineError::Lacks`]: it answers with weights of its own.
    pub fn with_engine(mut self, engine: Arc<dyn Engine>) -> Result<ModelBackend, EngineError> {
        let identity = engine.identity();
        if identity.answers_with == AnswersWith::Own {
            return Err(EngineError::Lacks {
                engine: identity.what,
                lacks: "answers with weights of its own, and the run's policies change".to_owned(),
                cure: "Give it a name instead (Builder::named_engine), and let judge.engine or \
                       sampling.engine name it"
                    .to_owned(),
            });
        }
        self.policy_is = Some(identity.named(NamedEngine::POLICY));
        self.policy = engine;
        Ok(self)
    }

    /// With an engine that plans call `name`.
    #[must_use]
    pub fn with_named(mut self, name: &str, engine: Arc<dyn Engine>) -> ModelBackend {
        self.engines.insert(name.to_owned(), engine);
        self
    }

    /// With another scorer.
    #[must_use]
    pub fn with_scorer(mut self, scorer: Arc<dyn Scorer>) -> ModelBackend {
        self.scorer = scorer;
        self
    }

    /// With another training backend.
    #[must_use]
    pub fn with_trainer(mut self, trainer: Arc<dyn TrainBackend>) -> ModelBackend {
        self.trainer = trainer;
        self
    }

    /// What the policy's engine is, where it is not the one that plans call local.
    pub fn policy_is(&self) -> Option<&NamedEngine> {
        self.policy_is.as_ref()
    }

    /// What the engines beside the policy's are, by name.
    pub fn named(&self) -> BTreeMap<String, NamedEngine> {
        let named = |(name, engine): (&String, &Arc<dyn Engine>)| {
            (name.clone(), engine.identity().named(name))
        };
        self.engines.iter().map(named).collect()
    }

    /// The engine that a plan means.
    ///
    /// # Errors
    /// [`EngineError::Another`]: it is not there, or is another than when the plan was made.
    fn engine(&self, plan: &plan::PlannedEngine) -> Result<&Arc<dyn Engine>, EngineError> {
        let another = |why: String| Err(EngineError::Another(why));
        match (plan, &self.policy_is) {
            (plan::PlannedEngine::Local { .. }, None) => Ok(&self.policy),
            (plan::PlannedEngine::Local { .. }, Some(now)) => another(format!(
                "the iteration was begun with the model on this machine, and the host brought {}. \
                 Start the run without it until the iteration is over",
                now.what
            )),
            (plan::PlannedEngine::Named(named), now) if named.name == NamedEngine::POLICY => {
                match now {
                    Some(now) if now.identity == named.identity => Ok(&self.policy),
                    _ => another(format!(
                        "the iteration was begun with {}, which the host brought. Bring it again \
                     (Builder::engine), until the iteration is over",
                        named.what
                    )),
                }
            }
            (plan::PlannedEngine::Named(named), _) => {
                let name = &named.name;
                let Some(engine) = self.engines.get(name) else {
                    return another(format!(
                        "the iteration was begun with the engine {name} ({}), and there is none of \
                         that name. Put it back under engines: in gradus.yaml, or let the host bring \
                         it (Builder::named_engine)",
                        named.what
                    ));
                };
                let now = engine.identity();
                match now.hash == named.identity {
                    true => Ok(engine),
                    false => another(format!(
                        "the engine {name} was {} ({}) when the iteration began and is {} ({}) now. \
                         What two models say does not compare: put the first one back until the \
                         iteration is over",
                        named.what,
                        named.identity.short(),
                        now.what,
                        now.hash.short()
                    )),
                }
            }
        }
    }

    /// The model that answers when a plan asks a policy.
    ///
    /// # Errors
    /// [`EngineError::Another`], and what [`Engine::open`] says.
    pub fn answering(
        &self,
        policy: &PolicyRef,
        plan: &plan::PlannedEngine,
    ) -> Result<Arc<dyn ChatModel>, EngineError> {
        self.engine(plan)?.open(policy, plan)
    }

    /// What answering takes; of an engine that is not there, nothing: it will say so.
    pub fn needs(&self, plan: &plan::PlannedEngine) -> Needs {
        self.engine(plan).map_or(Needs::Nothing, |engine| engine.needs())
    }

    /// Log-probabilities of given text.
    pub fn scorer(&self) -> &dyn Scorer {
        self.scorer.as_ref()
    }

    /// What moves weights.
    pub fn trainer(&self) -> &dyn TrainBackend {
        self.trainer.as_ref()
    }

    /// How texts become the ids that are trained on.
    pub fn vocabulary(&self) -> &dyn Vocabulary {
        self.tokens.vocabulary.as_ref()
    }

    /// Whether what this engine draws are ids of the policy.
    pub fn draws_policy_ids(&self, plan: &plan::PlannedEngine) -> bool {
        let vocabulary = self.engine(plan).ok().and_then(|engine| engine.capabilities().vocabulary);
        vocabulary.as_ref() == Some(&self.tokens.id)
    }

    /// A prompt as the policy reads it.
    ///
    /// # Errors
    /// The template refuses the turns.
    pub fn prompt_ids(&self, messages: &[Message]) -> Result<Vec<u32>, EngineError> {
        Ok(self.vocabulary().encode_chat(messages)?)
    }

    /// An answer of an engine with another vocabulary, as the policy would have written it after
    /// `prompt_ids`: its text is encoded once, and where the engine ended its turn, the end is the
    /// policy's own. How likely it was under the engine's own ids is not kept, for it says nothing
    /// of these; and what the policy cannot spell is not in the text that is judged either.
    ///
    /// # Errors
    /// The tokenizer refuses.
    pub fn spelled(
        &self,
        prompt_ids: &[u32],
        answer: Completion,
    ) -> Result<Completion, EngineError> {
        let vocabulary = self.vocabulary();
        let mut token_ids = continuation(vocabulary, prompt_ids, &answer.text)?;
        if answer.stop != StopReason::Length {
            token_ids.push(vocabulary.turn_end());
        }
        let stop = match answer.stop {
            StopReason::Length => StopReason::Length,
            StopReason::TurnEnd | StopReason::StopText => StopReason::TurnEnd,
        };
        let text = vocabulary.decode(&token_ids)?;
        Ok(Completion { token_ids, text, logp: None, stop })
    }

    /// Whether everything that a plan asks of its engines can be had.
    ///
    /// # Errors
    /// [`EngineError::Lacks`] or [`EngineError::Another`], with what to do.
    pub fn check(&self, plan: &IterationPlan) -> Result<(), EngineError> {
        for set in &plan.samples {
            self.told_of_seeds(&set.engine)?;
        }
        let own = plan.policy_engine();
        let can = self.engine(&own)?.capabilities();
        if plan.prompts.writer.is_some() && !can.begun_turns {
            return Err(EngineError::Lacks {
                engine: self.called(&own),
                lacks: "cannot begin the model's turn, which writing new prompts needs".to_owned(),
                cure: "Set prompts.generate: false, and give the run its prompts".to_owned(),
            });
        }
        let judge = &plan.judge;
        if judge.source == JudgeSource::Oracle {
            return Ok(());
        }
        self.told_of_seeds(&judge.engine)?;
        let can = self.engine(&judge.engine)?.capabilities();
        if judge.readout != ReadoutMode::Parsed && !can.choice_logps {
            return Err(EngineError::Lacks {
                engine: self.called(&judge.engine),
                lacks: format!(
                    "gives no log-probabilities of choices, which judge.readout: {} reads scores \
                     from",
                    judge.readout.as_str()
                ),
                cure: "Set judge.readout: parsed, with judge.samples: 3 or more, or let another \
                       engine judge"
                    .to_owned(),
            });
        }
        Ok(())
    }

    /// An engine without seeds is used without them, and that is said.
    fn told_of_seeds(&self, plan: &plan::PlannedEngine) -> Result<(), EngineError> {
        let Capabilities { seeds, .. } = self.engine(plan)?.capabilities();
        if !seeds {
            tracing::warn!(
                engine = self.called(plan),
                "this engine takes no seeds: a task that is done again after a crash may come to \
                 other answers, and only what is recorded counts"
            );
        }
        Ok(())
    }

    /// What people call an engine.
    fn called(&self, plan: &plan::PlannedEngine) -> String {
        match plan {
            plan::PlannedEngine::Local { .. } => "on this machine".to_owned(),
            plan::PlannedEngine::Named(named) if named.name == NamedEngine::POLICY => {
                named.what.clone()
            }
            plan::PlannedEngine::Named(named) => format!("{} ({})", named.name, named.what),
        }
    }
}

/// A chat for an engine that takes text alone: what [`ChatModel::prepare`] of such an engine gives.
///
/// # Errors
/// [`EngineError::Lacks`]: the model's turn is to begin with given words.
pub fn text_alone(
    engine: &str,
    messages: &[Message],
    begun: &str,
) -> Result<Prepared, EngineError> {
    match begun.is_empty() {
        true => Ok(Prepared { messages: messages.to_vec(), ..Prepared::default() }),
        false => Err(EngineError::Lacks {
            engine: engine.to_owned(),
            lacks: "cannot begin the model's turn".to_owned(),
            cure: "Set prompts.generate: false, and give the run its prompts".to_owned(),
        }),
    }
}
