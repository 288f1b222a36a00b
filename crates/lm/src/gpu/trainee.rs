//! Weights in training on a device: a step's gradients in micro-batches that fit, and the optimiser
//! over all that moves in one go. What does not fit is taken again in smaller parts.

use super::Kind;
use super::kernels::{self, Moving};
use super::numbers::Numbers;
use super::passes::GpuDecoder;
use super::store::{MovingNumbers, Store};
use crate::cancel::Cancel;
use crate::device::Dtype;
use crate::device::estimate::{Kept, LOGIT_BYTES_MAX, MICRO_BATCH_BYTES, activation_bytes_per_row};
use crate::error::LmError;
use crate::optimizer::{OptimizerSettings, StepNumbers, step_of, step_tensor};
use crate::train::{Seat, ShortOfMemory, StepMetrics, Work};
use crate::weights::Weights;
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;

/// More rows than this at once give nothing: every product is large enough long before.
const ROWS_MAX: u64 = 65_536;

/// Weights in training.
pub(crate) struct Trainee {
    decoder: GpuDecoder,
    kept: Kept,
    step: u32,
    /// Bound of all values and moments; infinite where it is not known.
    bound: f32,
    /// Rows that a micro-batch has at most.
    rows_max: usize,
    short: Vec<ShortOfMemory>,
}

impl Trainee {
    /// Weights that move.
    pub fn new(store: Store, kept: Kept) -> Trainee {
        // Logits and the moments come on top; of what is left, some is spared.
        let moments = store.moving.as_ref().map_or(0, |moving| 8 * moving.x.len() as u64);
        let free = store.gpu.free().saturating_sub(LOGIT_BYTES_MAX + moments) / 4 * 3;
        let row = activation_bytes_per_row(&store.config, store.gpu.dtype(), kept);
        let rows_max = (free.max(MICRO_BATCH_BYTES) / row).clamp(1, ROWS_MAX) as usize;
        let decoder = GpuDecoder::new(store);
        Trainee { decoder, kept, step: 0, bound: f32::INFINITY, rows_max, short: Vec::new() }
    }

    fn store(&self) -> &Store {
        &self.decoder.store
    }

    fn moving(&self) -> Result<&MovingNumbers, LmError> {
        let nothing = || LmError::Training("there is nothing that moves".to_owned());
        self.store().moving.as_ref().ok_or_else(nothing)
    }

    fn attempt(&self, works: &[Work<'_>], cancel: &Cancel) -> Result<Vec<StepMetrics>, LmError> {
        kernels::fill(&self.moving()?.g, 0.0)?;
        let of_work = |work: &Work<'_>| {
            let mut sum = StepMetrics::default();
            for part in work.micro_batches(0..work.len(), self.rows_max) {
                cancel.check()?;
                let more = work.compute(part, &mut |rows, scored, slopes| {
                    self.decoder.differentiate(rows, scored, slopes, self.kept)
                });
                sum.add(&more?);
            }
            Ok(sum)
        };
        works.iter().map(of_work).collect()
    }

    /// Makes the micro-batches smaller after one did not fit.
    fn halve(&mut self, works: &[Work<'_>], why: LmError) -> Result<(), LmError> {
        let sizes = |most: usize| works.iter().map(move |work| work.rows_max(most)).max();
        let largest = sizes(self.rows_max).unwrap_or(0);
        let half = (largest / 2).max(1);
        if sizes(half).unwrap_or(0) >= largest {
            return Err(LmError::Training(format!(
                "{why}: a sequence or pair of {largest} tokens does not fit by itself. Settings \
                 that need less: train.gradient_checkpointing, train.method lora, shorter sequences"
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
            let zeros = || Numbers::zeros(&gpu, Kind::F32, moving.x.len());
            moving.moments = Some((zeros()?, zeros()?));
        }
        Ok(())
    }

    fn checked(
        &self,
        moving: &Moving<'_>,
        numbers: &StepNumbers,
        norm: f64,
    ) -> Result<(), Refused> {
        if numbers.is_surely_finite(self.bound, norm) {
            return Ok(());
        }
        let what = match kernels::adamw_finite(moving, numbers)? {
            (true, true) => return Ok(()),
            (false, _) => "the optimiser's moments would not be finite",
            _ => "a weight would not be finite",
        };
        Err(Refused::Skip(what.to_owned()))
    }

    fn take(
        &mut self,
        settings: &OptimizerSettings,
        figures: &mut StepMetrics,
    ) -> Result<(), Refused> {
        self.ensure_moments()?;
        let moving = self.moving()?;
        let Some((m, v)) = &moving.moments else { return Ok(()) };
        figures.grad_norm = kernels::square_sum(&moving.g)?.sqrt();
        figures.check().map_err(Refused::Skip)?;
        let rate = settings.learning_rate_at(self.step);
        let numbers = StepNumbers::new(settings, self.step, rate, figures.grad_norm);
        let all = Moving { x: &moving.x, m, v, g: &moving.g, work: moving.work.as_ref() };
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
enum Refused {
    /// What would not be finite.
    Skip(String),
    Failed(LmError),
}

impl From<LmError> for Refused {
    fn from(error: LmError) -> Refused {
        Refused::Failed(error)
    }
}

impl Seat for Trainee {
    fn step(&self) -> u32 {
        self.step
    }

    fn gradients(
        &mut self,
        works: &[Work<'_>],
        cancel: &Cancel,
    ) -> Result<Vec<StepMetrics>, LmError> {
        loop {
            match self.attempt(works, cancel) {
                Err(why @ LmError::DeviceMemory { .. }) => self.halve(works, why)?,
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
            Err(Refused::Skip(reason)) => Ok(Err(reason)),
            Err(Refused::Failed(error)) => Err(error),
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
        let mut tensors = BTreeMap::from([("step".to_owned(), step_tensor(self.step)?)]);
        if let Some((m, v)) = &self.moving()?.moments {
            for (label, numbers) in [("first", m), ("second", v)] {
                for (name, values) in self.store().named(numbers)? {
                    let tensor = Tensor::from_slice(&values, values.len(), &Device::Cpu)?;
                    tensors.insert(format!("{label}.{name}"), tensor);
                }
            }
        }
        Ok(Weights(tensors))
    }

    fn restore_optimizer(&mut self, state: &Weights) -> Result<(), LmError> {
        self.step = step_of(state)?;
        self.bound = f32::INFINITY;
        if self.step == 0 {
            return Ok(());
        }
        self.ensure_moments()?;
        let Some((m, v)) = &self.moving()?.moments else { return Ok(()) };
        for (label, numbers) in [("first", m), ("second", v)] {
            self.store().write_named(numbers, |name| {
                let tensor = state.get(&format!("{label}.{name}")).ok()?;
                tensor.to_vec1::<f32>().ok()
            })?;
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
