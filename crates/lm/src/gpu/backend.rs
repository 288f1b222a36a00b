//! Weights in training on a device: a step's gradients in micro-batches that fit, and the optimiser
//! over all that moves in one go. What does not fit is taken again in smaller parts.

use super::buffer::DeviceBuffer;
use super::context::Gpu;
use super::driver::ElementType;
use super::kernels::{self, AdamWBuffers};
use super::layout::Trainable;
use super::passes::GpuDecoder;
use super::weights::{AdapterUse, Base, TrainedBuffers, WeightStore};
use crate::cancel::Cancel;
use crate::config::ModelConfig;
use crate::device::Dtype;
use crate::error::LmError;
use crate::estimate::SavedActivations;
use crate::estimate::gpu::{LOGIT_BYTES_MAX, MICRO_BATCH_BYTES, activation_bytes_per_row};
use crate::optimizer::state::{self, Moment, SavedState};
use crate::optimizer::{OptimizerSettings, StepNumbers};
use crate::seed::Seed;
use crate::train::{
    LossTerm, Method, ShortOfMemory, StepBackend, StepMetrics, TrainSession, TrainSettings, lora_of,
};
use crate::weights::Weights;
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Weights that training on a device begins with: those below an adapter, or those that move.
pub enum BaseWeights {
    /// Weights of the host, which are copied to the device.
    Host(Weights),
    /// Weights that others on the device read as well; only an adapter can be trained over them.
    Shared(Arc<Base>),
}

impl TrainSession {
    /// As [`TrainSession::new`], on a device. Full training needs weights of its own.
    ///
    /// # Errors
    /// As there, and [`LmError::DeviceMemory`].
    pub fn on(
        gpu: &Gpu,
        config: &ModelConfig,
        base: BaseWeights,
        adapter: Option<&Weights>,
        settings: TrainSettings,
        seed: Seed,
    ) -> Result<TrainSession, LmError> {
        let store = match (lora_of(config, adapter, &settings, seed)?, base) {
            (None, BaseWeights::Host(weights)) => WeightStore::moving(gpu, config, weights)?,
            (None, BaseWeights::Shared(_)) => {
                let what = "full training moves its weights, so nobody else can read them";
                return Err(LmError::Training(what.to_owned()));
            }
            (Some(lora), base) => {
                let base = match base {
                    BaseWeights::Host(weights) => Base::new(gpu, config, weights)?,
                    BaseWeights::Shared(base) => base,
                };
                let adapters = AdapterUse { lora: &lora, moves: Trainable::Adapters };
                WeightStore::over(gpu, config, base, Some(&adapters))?
            }
        };
        Ok(trainer(store, settings))
    }

    /// As [`TrainSession::on`], with all weights made up on the device: for benchmarks.
    ///
    /// # Errors
    /// As there.
    pub fn on_made_up(
        gpu: &Gpu,
        config: &ModelConfig,
        settings: TrainSettings,
    ) -> Result<TrainSession, LmError> {
        if matches!(settings.method, Method::Lora(_)) {
            let base = BaseWeights::Shared(Base::made_up(gpu, config)?);
            return TrainSession::on(gpu, config, base, None, settings, Seed::root(1));
        }
        let store = WeightStore::moving_made_up(gpu, config)?;
        Ok(trainer(store, settings))
    }
}

fn trainer(store: WeightStore, settings: TrainSettings) -> TrainSession {
    TrainSession::over(Box::new(GpuBackend::new(store, settings.saved())), settings)
}

/// More rows than this at once give nothing: every product is large enough long before.
const ROWS_MAX: u64 = 65_536;

/// Weights in training.
pub(crate) struct GpuBackend {
    decoder: GpuDecoder,
    saved: SavedActivations,
    step: u32,
    /// Bound of all values and moments; infinite where it is not known.
    bound: f32,
    /// Rows that a micro-batch has at most.
    rows_max: usize,
    short: Vec<ShortOfMemory>,
}

impl GpuBackend {
    /// Weights that move.
    pub fn new(store: WeightStore, saved: SavedActivations) -> GpuBackend {
        // Logits and the moments come on top; of what is left, some is spared.
        let moments = store.moving.as_ref().map_or(0, |moving| 8 * moving.x.len() as u64);
        let free = store.gpu.free().saturating_sub(LOGIT_BYTES_MAX + moments) / 4 * 3;
        let row = activation_bytes_per_row(&store.config, store.gpu.dtype(), saved);
        let rows_max = (free.max(MICRO_BATCH_BYTES) / row).clamp(1, ROWS_MAX) as usize;
        let decoder = GpuDecoder::new(store);
        GpuBackend { decoder, saved, step: 0, bound: f32::INFINITY, rows_max, short: Vec::new() }
    }

    fn store(&self) -> &WeightStore {
        &self.decoder.store
    }

    fn moving(&self) -> Result<&TrainedBuffers, LmError> {
        let nothing = || LmError::Training("there is nothing that moves".to_owned());
        self.store().moving.as_ref().ok_or_else(nothing)
    }

    fn attempt(
        &self,
        terms: &[LossTerm<'_>],
        cancel: &Cancel,
    ) -> Result<Vec<StepMetrics>, LmError> {
        kernels::fill(&self.moving()?.g, 0.0)?;
        let of_term = |term: &LossTerm<'_>| {
            let mut sum = StepMetrics::default();
            for part in term.micro_batches(0..term.len(), self.rows_max) {
                cancel.check()?;
                let more = term.compute(part, &mut |rows, scored, loss_gradient| {
                    self.decoder.differentiate(rows, scored, loss_gradient, self.saved)
                });
                sum.add(&more?);
            }
            Ok(sum)
        };
        terms.iter().map(of_term).collect()
    }

    /// Makes the micro-batches smaller after one did not fit.
    fn halve(&mut self, terms: &[LossTerm<'_>], why: LmError) -> Result<(), LmError> {
        let sizes = |most: usize| terms.iter().map(move |term| term.rows_max(most)).max();
        let largest = sizes(self.rows_max).unwrap_or(0);
        let half = (largest / 2).max(1);
        if sizes(half).unwrap_or(0) >= largest {
            return Err(LmError::Training(format!(
                "{why}: a sequence or pair of {largest} tokens does not fit by itself. Settings \
                 that need less: train.gradient_checkpointing: true, train.use_peft: true, shorter sequences"
            )));
        }
        self.rows_max = half;
        self.short.push(ShortOfMemory { rows: half, reason: why.to_string() });
        Ok(())
    }

    /// Moments, made when they are first needed.
    fn ensure_moments(&mut self) -> Result<(), LmError> {
        let gpu = self.store().gpu.clone();
        let Some(moving) = &mut self.decoder.store.moving else { return Ok(()) };
        if moving.moments.is_none() {
            let zeros = || DeviceBuffer::zeros(&gpu, ElementType::F32, moving.x.len());
            moving.moments = Some((zeros()?, zeros()?));
        }
        Ok(())
    }

    fn checked(
        &self,
        moving: &AdamWBuffers<'_>,
        numbers: &StepNumbers,
        norm: f64,
    ) -> Result<(), StepFailure> {
        if numbers.is_surely_finite(self.bound, norm) {
            return Ok(());
        }
        let what = match kernels::adamw_finite(moving, numbers)? {
            (true, true) => return Ok(()),
            (false, _) => "the optimiser's moments would not be finite",
            _ => "a weight would not be finite",
        };
        Err(StepFailure::Skip(what.to_owned()))
    }

    fn take(
        &mut self,
        settings: &OptimizerSettings,
        figures: &mut StepMetrics,
    ) -> Result<(), StepFailure> {
        self.ensure_moments()?;
        let moving = self.moving()?;
        let Some((m, v)) = &moving.moments else { return Ok(()) };
        figures.grad_norm = kernels::square_sum(&moving.g)?.sqrt();
        figures.check().map_err(StepFailure::Skip)?;
        let rate = settings.learning_rate_at(self.step);
        let numbers = StepNumbers::new(settings, self.step, rate, figures.grad_norm);
        let all = AdamWBuffers { x: &moving.x, m, v, g: &moving.g, work: moving.work.as_ref() };
        self.checked(&all, &numbers, figures.grad_norm)?;
        self.bound = kernels::adamw(&all, &numbers)?;
        self.store().gpu.phase("optimiser")?;
        self.step += 1;
        figures.learning_rate = rate;
        Ok(())
    }

    fn tensors(&self, low_rank: bool) -> Result<Weights, LmError> {
        let store = self.store();
        let parameters =
            store.parameters.iter().enumerate().filter(|(_, p)| p.low_rank == low_rank);
        let named = parameters.map(|(id, p)| {
            let tensor = Tensor::from_vec(store.value(id)?, p.shape.as_slice(), &Device::Cpu)?;
            Ok((p.name.clone(), tensor))
        });
        Ok(Weights(named.collect::<Result<_, LmError>>()?))
    }
}

/// Why a step was not taken.
enum StepFailure {
    /// What would not be finite.
    Skip(String),
    Failed(LmError),
}

impl From<LmError> for StepFailure {
    fn from(error: LmError) -> StepFailure {
        StepFailure::Failed(error)
    }
}

impl StepBackend for GpuBackend {
    fn step(&self) -> u32 {
        self.step
    }

    fn gradients(
        &mut self,
        terms: &[LossTerm<'_>],
        cancel: &Cancel,
    ) -> Result<Vec<StepMetrics>, LmError> {
        loop {
            match self.attempt(terms, cancel) {
                Err(why @ LmError::DeviceMemory { .. }) => self.halve(terms, why)?,
                done => return done,
            }
        }
    }

    fn apply(
        &mut self,
        settings: &OptimizerSettings,
        figures: &mut StepMetrics,
    ) -> Result<Result<(), String>, LmError> {
        match self.take(settings, figures) {
            Ok(()) => Ok(Ok(())),
            Err(StepFailure::Skip(reason)) => Ok(Err(reason)),
            Err(StepFailure::Failed(error)) => Err(error),
        }
    }

    fn named_gradients(&mut self) -> Result<BTreeMap<String, Vec<f32>>, LmError> {
        self.store().named(&self.moving()?.g)
    }

    fn base(&self) -> Result<Weights, LmError> {
        self.tensors(false)
    }

    fn adapter(&self) -> Result<Weights, LmError> {
        self.tensors(true)
    }

    fn optimizer_state(&self) -> Result<Weights, LmError> {
        let mut state = SavedState::new(self.step)?;
        if let Some((first, second)) = &self.moving()?.moments {
            for (moment, buffer) in [(Moment::First, first), (Moment::Second, second)] {
                for (name, values) in self.store().named(buffer)? {
                    state.put(moment, &name, &values)?;
                }
            }
        }
        Ok(state.into_weights())
    }

    fn restore_optimizer(&mut self, state: &Weights) -> Result<(), LmError> {
        self.step = state::step(state)?;
        self.bound = f32::INFINITY;
        if self.step == 0 {
            return Ok(());
        }
        self.ensure_moments()?;
        let Some((first, second)) = &self.moving()?.moments else { return Ok(()) };
        for (moment, buffer) in [(Moment::First, first), (Moment::Second, second)] {
            self.store().write_named(buffer, |name| state::moment(state, moment, name).ok())?;
        }
        Ok(())
    }

    fn short_of_memory(&mut self) -> Vec<ShortOfMemory> {
        std::mem::take(&mut self.short)
    }

    /// The reference was scored in other batches, for which products have another order. In bf16 a
    /// hundred tokens may so come to some hundredths, which beta brings to the third digit; a wrong
    /// reference, mask or shift comes to many nats.
    fn rounding(&self) -> f64 {
        match self.store().gpu.dtype() {
            Dtype::Bf16 => 2e-2,
            Dtype::F32 => 1e-3,
        }
    }
}
