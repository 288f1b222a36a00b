//! The model on this machine, behind all three ports: weights as blobs, opened with `lm`, drawn
//! from and trained there. Everything that reads the same weights on a GPU shares them.

use super::tokens::TokenChat;
use super::training::{
    SKIPPED_IN_A_ROW_MAX, Saved, SegmentRequest, StepData, StepResult, TrainBackend,
    TrainedSegment, skipped_in_a_row,
};
use super::{Capabilities, ChatModel, Engine, EngineError, Identity, Needs, PolicyTokens, Scorer};
use crate::blob::BlobStore;
use crate::domain::plan::{self, AnswersWith, MovingMean, ReferenceRule};
use crate::domain::{AdapterRef, AdapterShape, BlobHash, PolicyRef};
use crate::lm::cancel::Cancel;
use crate::lm::decoder::Decoder;
use crate::lm::device::{Dtype, SelectedDevice};
use crate::lm::error::LmError;
use crate::lm::gpu::{Base, BaseWeights, Gpu};
use crate::lm::logp::sequence_logps;
use crate::lm::model_files::ModelFiles;
use crate::lm::ops::Storage;
use crate::lm::policy::{Adapter, Policy, scores_on};
use crate::lm::train::{Method, StepReport, TrainSession};
use crate::lm::weights::{WeightDtype, Weights};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Policies kept open: the one that acts, the one before, and one being measured.
pub const OPEN_POLICIES_MAX: usize = 3;

/// Weights in a blob store, for one kind of model.
pub struct LocalModel {
    model: Arc<ModelFiles>,
    blobs: Arc<BlobStore>,
    /// What adapters of schema 1 are, whose records do not say it.
    of_old: Option<AdapterShape>,
    open: Mutex<Vec<(PolicyRef, Storage, Arc<Policy>)>>,
    gpu: Option<Gpu>,
    /// Weights that someone on the GPU still reads.
    bases: Mutex<Vec<(BlobHash, Weak<Base>)>>,
}

impl LocalModel {
    /// For policies of the shape of `model`; computes on `device`, there with `dtype`.
    ///
    /// # Errors
    /// A GPU that cannot be had.
    pub fn new(
        model: Arc<ModelFiles>,
        blobs: Arc<BlobStore>,
        device: &SelectedDevice,
        dtype: Dtype,
    ) -> Result<Self, LmError> {
        Ok(LocalModel::on(Gpu::of(device, dtype)?, model, blobs))
    }

    /// As [`LocalModel::new`], on this GPU, or on the CPU.
    pub fn on(gpu: Option<Gpu>, model: Arc<ModelFiles>, blobs: Arc<BlobStore>) -> Self {
        let (open, bases) = (Mutex::default(), Mutex::default());
        LocalModel { model, blobs, of_old: None, open, gpu, bases }
    }

    /// The same for a run whose first adapters have records of schema 1: all were trained with what
    /// its settings said.
    #[must_use]
    pub fn with_adapters_of_old(mut self, shape: AdapterShape) -> Self {
        self.of_old = Some(shape);
        self
    }

    /// How texts become ids of the policies that this is for.
    pub fn tokens(&self) -> PolicyTokens {
        PolicyTokens::of(&self.model)
    }

    /// Weights on the GPU: those that someone there has already, or sent over.
    fn base(&self, gpu: &Gpu, hash: &BlobHash) -> Result<Arc<Base>, EngineError> {
        let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        bases.retain(|(_, base)| base.strong_count() > 0);
        let known = bases.iter().find(|(known, _)| known == hash);
        if let Some(base) = known.and_then(|(_, base)| base.upgrade()) {
            return Ok(base);
        }
        let base = Base::new(gpu, self.model.config(), self.weights(hash)?)?;
        bases.push((hash.clone(), Arc::downgrade(&base)));
        Ok(base)
    }

    fn unmerged(&self, policy: &PolicyRef) -> Result<Option<Adapter>, EngineError> {
        policy.adapter.as_ref().map(|adapter| self.adapter(adapter)).transpose()
    }

    fn weights(&self, hash: &BlobHash) -> Result<Weights, EngineError> {
        Ok(Weights::from_bytes(&self.blobs.read(hash)?)?)
    }

    fn adapter(&self, adapter: &AdapterRef) -> Result<Adapter, EngineError> {
        let shape = adapter.shape.as_ref().or(self.of_old.as_ref()).ok_or_else(|| {
            let hash = &adapter.weights;
            EngineError::Missing(format!("what the adapter {hash} is scaled by is not recorded"))
        })?;
        let weights = self.weights(&adapter.weights)?;
        Ok(Adapter { weights, alpha: shape.alpha, rank: shape.r as usize })
    }

    /// Full weights of a policy, its adapter merged.
    ///
    /// # Errors
    /// When blobs are missing, damaged or do not fit.
    pub fn merged(&self, policy: &PolicyRef) -> Result<Weights, EngineError> {
        let weights = self.weights(&policy.weights)?;
        Ok(match self.unmerged(policy)? {
            Some(adapter) => weights.merged(&adapter.weights, adapter.scale()?)?,
            None => weights,
        })
    }

    /// The policy, opened or from the few that are open.
    ///
    /// # Errors
    /// As [`LocalModel::merged`]; an engine that is for the CPU alone, on a GPU.
    pub fn policy(
        &self,
        policy: &PolicyRef,
        engine: &plan::PlannedEngine,
    ) -> Result<Arc<Policy>, EngineError> {
        let storage = storage(engine);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let known = open.iter().position(|(known, kept, _)| known == policy && *kept == storage);
        if let Some(at) = known {
            let entry = open.remove(at);
            let opened = entry.2.clone();
            open.push(entry);
            return Ok(opened);
        }
        if open.len() >= OPEN_POLICIES_MAX {
            open.remove(0);
        }
        let model = self.model.clone();
        let opened = Arc::new(match &self.gpu {
            None => Policy::stored(model, self.merged(policy)?, None, storage)?,
            Some(_) if storage != Storage::Exact => {
                return Err(LmError::Config(
                    "sampling.weight_bits 8 is for the CPU; a GPU keeps weights as `dtype` says. \
                     Take the setting out, or take `device: cpu`"
                        .to_owned(),
                )
                .into());
            }
            Some(gpu) => {
                let base = self.base(gpu, &policy.weights)?;
                Policy::on(gpu, model, base, self.unmerged(policy)?.as_ref())?
            }
        });
        open.push((policy.clone(), storage, opened.clone()));
        Ok(opened)
    }

    fn trainer(&self, request: &SegmentRequest<'_>) -> Result<TrainSession, EngineError> {
        let at = request.saved.as_ref().map_or(request.start, |saved| &saved.policy);
        let adapter = self.unmerged(at)?.map(|adapter| adapter.weights);
        let (config, settings, seed) =
            (self.model.config(), request.settings.clone(), request.seed);
        let mut trainer = match &self.gpu {
            None => {
                let weights = self.weights(&at.weights)?;
                TrainSession::new(config, weights, adapter.as_ref(), settings, seed)?
            }
            Some(gpu) => {
                let under = match settings.method {
                    Method::Full => BaseWeights::Host(self.weights(&at.weights)?),
                    Method::Lora(_) => BaseWeights::Shared(self.base(gpu, &at.weights)?),
                };
                TrainSession::on(gpu, config, under, adapter.as_ref(), settings, seed)?
            }
        };
        if let Some(saved) = &request.saved {
            trainer.restore_optimizer(&self.weights(&saved.optimizer)?)?;
        }
        Ok(trainer)
    }

    fn save(
        &self,
        trainer: &TrainSession,
        request: &SegmentRequest<'_>,
    ) -> Result<Saved, EngineError> {
        let policy = match (trainer.adapter()?, &request.settings.method) {
            (Some(adapter), Method::Lora(settings)) => {
                let shape = AdapterShape {
                    r: settings.r as u32,
                    alpha: settings.alpha,
                    target_modules: settings.target_modules.clone(),
                };
                let weights = self.blobs.put(&adapter.to_bytes(WeightDtype::F32)?)?;
                let adapter = Some(AdapterRef { weights, shape: Some(shape) });
                PolicyRef { weights: request.start.weights.clone(), adapter }
            }
            _ => PolicyRef::full(self.blobs.put(&trainer.weights()?.to_bytes(WeightDtype::F32)?)?),
        };
        let optimizer = self.blobs.put(&trainer.optimizer_state()?.to_bytes(WeightDtype::F32)?)?;
        Ok(Saved { policy, optimizer })
    }
}

/// How the network that draws keeps its matrices.
pub(crate) fn storage(engine: &plan::PlannedEngine) -> Storage {
    match engine {
        plan::PlannedEngine::Local { weight_bits: 8 } => Storage::EightBit,
        plan::PlannedEngine::Local { .. } | plan::PlannedEngine::Named(_) => Storage::Exact,
    }
}

fn first_checks(trainer: &mut TrainSession, request: &SegmentRequest<'_>) -> Result<(), LmError> {
    match request.steps.first() {
        Some(StepData::Sft(rows)) => trainer.check_gradient_coverage(rows),
        // Against another reference than the start the first loss is not known beforehand.
        Some(StepData::Dpo { pairs, .. }) if request.reference == ReferenceRule::Previous => {
            trainer.check_initial_dpo_loss(pairs, &request.dpo)
        }
        Some(StepData::Dpo { .. }) => Ok(()),
        None => Ok(()),
    }
}

impl Engine for LocalModel {
    fn identity(&self) -> Identity {
        Identity {
            what: "this machine".to_owned(),
            hash: self.tokens().id,
            answers_with: AnswersWith::Policy,
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            vocabulary: Some(self.tokens().id),
            choice_logps: true,
            seeds: true,
            begun_turns: true,
        }
    }

    fn needs(&self) -> Needs {
        Needs::Device
    }

    fn open(
        &self,
        policy: &PolicyRef,
        plan: &plan::PlannedEngine,
    ) -> Result<Arc<dyn ChatModel>, EngineError> {
        Ok(TokenChat::over(self.policy(policy, plan)?))
    }
}

impl Scorer for LocalModel {
    fn logps(
        &self,
        policy: &PolicyRef,
        sequences: &[(Vec<u32>, Vec<u32>)],
        cancel: &Cancel,
    ) -> Result<Vec<f64>, EngineError> {
        let config = self.model.config();
        match &self.gpu {
            None => {
                let decoder = Decoder::new(config, self.merged(policy)?, None)?;
                Ok(sequence_logps(&decoder, sequences, cancel)?)
            }
            Some(gpu) => {
                let base = self.base(gpu, &policy.weights)?;
                let scores = scores_on(gpu, config, base, self.unmerged(policy)?.as_ref())?;
                Ok(sequence_logps(&*scores, sequences, cancel)?)
            }
        }
    }
}

impl TrainBackend for LocalModel {
    fn train(&self, request: SegmentRequest<'_>) -> Result<TrainedSegment, EngineError> {
        let mut trainer = self.trainer(&request)?;
        if request.saved.is_none() {
            first_checks(&mut trainer, &request)?;
        }
        let mut steps = Vec::with_capacity(request.steps.len());
        let mut short = Vec::new();
        for data in &request.steps {
            let report = match data {
                StepData::Sft(rows) => trainer.sft_step(rows, request.cancel),
                StepData::Dpo { pairs, rehearsal } => {
                    trainer.dpo_step(pairs, rehearsal, &request.dpo, request.cancel)
                }
            };
            // A step that was not finished changed nothing; those before it are kept.
            let cut = matches!(report, Err(LmError::Cancelled)) && request.cancel.is_interrupted();
            if cut && !steps.is_empty() {
                break;
            }
            let report = report?;
            short.extend(trainer.short_of_memory().into_iter().map(|s| (steps.len(), s)));
            steps.push(match report {
                StepReport::Taken(metrics) => StepResult::Taken(metrics),
                StepReport::Skipped { reason } => StepResult::Skipped(reason),
            });
            (request.on_step)(steps.len() as u64);
            if skipped_in_a_row(request.skipped_before, &steps) >= SKIPPED_IN_A_ROW_MAX {
                return Ok(TrainedSegment { steps, saved: None, short });
            }
        }
        let saved = Some(self.save(&trainer, &request)?);
        Ok(TrainedSegment { steps, saved, short })
    }

    fn merge(&self, policy: &PolicyRef) -> Result<PolicyRef, EngineError> {
        Ok(PolicyRef::full(self.blobs.put(&self.merged(policy)?.to_bytes(WeightDtype::F32)?)?))
    }

    fn average(&self, of: &MovingMean) -> Result<PolicyRef, EngineError> {
        let mean = self.merged(&of.mean)?.mixed(&self.merged(&of.newest)?, of.decay)?;
        Ok(PolicyRef::full(self.blobs.put(&mean.to_bytes(WeightDtype::F32)?)?))
    }

    fn discard(&self, blobs: &[BlobHash]) {
        for blob in blobs {
            if let Err(error) = self.blobs.remove(blob) {
                tracing::warn!(%error, "a checkpoint that nothing needs stays on the disk");
            }
        }
    }
}
