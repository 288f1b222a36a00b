//! AdamW with decoupled decay (torch's arithmetic), global-norm clipping and learning-rate
//! schedules (transformers'), with all state in the open so that it can be saved.

pub(crate) mod state;

use super::error::LmError;
use super::ops::wide;
use super::weights::Weights;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use state::{Moment, SavedState};
use std::collections::BTreeMap;

/// How the learning rate moves after warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Stays.
    Constant,
    /// Falls linearly to the final ratio.
    Linear,
    /// Half a cosine down to the final ratio.
    #[default]
    Cosine,
    /// Stays for three quarters, then falls linearly to the final ratio. A run that has to end
    /// early can begin to fall then, and is the same as one that was planned so.
    WarmupStableDecay,
}

/// Numbers of the optimiser.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerSettings {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Shape after warm-up.
    pub schedule: Schedule,
    /// Steps of linear warm-up.
    pub warmup_steps: u32,
    /// Steps in all.
    pub steps_total: u32,
    /// Last learning rate as a share of the peak.
    pub final_ratio: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Gradients are scaled down to this global norm; 0 leaves them.
    pub max_grad_norm: f64,
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        OptimizerSettings {
            learning_rate: 1e-6,
            schedule: Schedule::Cosine,
            warmup_steps: 0,
            steps_total: 1,
            final_ratio: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
        }
    }
}

impl OptimizerSettings {
    /// Learning rate of step `step`, from 0.
    pub fn learning_rate_at(&self, step: u32) -> f64 {
        if step < self.warmup_steps {
            return self.learning_rate * f64::from(step) / f64::from(self.warmup_steps.max(1));
        }
        let span = self.steps_total.saturating_sub(self.warmup_steps).max(1);
        let done = (f64::from(step - self.warmup_steps) / f64::from(span)).min(1.0);
        let shape = match self.schedule {
            Schedule::Constant => return self.learning_rate,
            Schedule::Linear => 1.0 - done,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            Schedule::WarmupStableDecay => (4.0 * (1.0 - done)).min(1.0),
        };
        self.learning_rate * (self.final_ratio + (1.0 - self.final_ratio) * shape)
    }
}

/// Numbers that one thread takes at a time; sums are added in this order everywhere.
const PART: usize = 1 << 16;

/// Zeros in memory that has been written to. A page of fresh memory that is read before it is written
/// is mapped twice, and the second time every core of the process is interrupted: for the moments of
/// 135 M numbers that came to three seconds.
fn written_zeros(count: usize) -> Vec<f32> {
    let mut zeros = vec![0f32; count];
    zeros.par_chunks_mut(PART).for_each(|part| part.fill(0.0));
    zeros
}

/// A tensor that moves.
pub struct TrainedTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its numbers.
    pub value: &'a mut [f32],
    /// The loss's derivatives by them.
    pub grad: &'a [f32],
}

/// Moments of every trained tensor.
#[derive(Clone, Debug)]
pub struct AdamW {
    moments: BTreeMap<String, (Vec<f32>, Vec<f32>)>,
    step: u32,
    /// Bound of all values and moments; infinite where it is not known.
    bound: f32,
}

impl Default for AdamW {
    fn default() -> AdamW {
        AdamW { moments: BTreeMap::new(), step: 0, bound: f32::INFINITY }
    }
}

wide! {
    fn sum_of_squares<'a>(part: &'a [f32]) -> f64 {
        let mut lanes = [0f64; 16];
        for chunk in part.chunks(16) {
            for (lane, g) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(*g) * f64::from(*g);
            }
        }
        lanes.iter().sum::<f64>()
    }

    /// Moves a stretch; gives the largest of what it has become.
    fn take<'a>(
        step: StepNumbers,
        xg: (&'a mut [f32], &'a [f32]),
        mv: (&'a mut [f32], &'a mut [f32]),
    ) -> f32 {
        let mut most = [0f32; 16];
        let chunks = xg.0.chunks_mut(16).zip(xg.1.chunks(16));
        for ((x, g), (m, v)) in chunks.zip(mv.0.chunks_mut(16).zip(mv.1.chunks_mut(16))) {
            let elements = x.iter_mut().zip(g).zip(m.iter_mut().zip(v));
            for (((x, g), (m, v)), most) in elements.zip(&mut most) {
                (*x, *m, *v) = step.moved(*x, *g, *m, *v);
                *most = most.max(x.abs()).max(m.abs()).max(*v);
            }
        }
        most.iter().copied().fold(0.0, f32::max)
    }

    /// Whether a stretch would be finite: of the value, of the moments.
    fn finite<'a>(
        step: StepNumbers,
        xg: (&'a [f32], &'a [f32]),
        mv: (&'a [f32], &'a [f32]),
    ) -> (bool, bool) {
        let (mut values, mut moments) = (true, true);
        for ((x, g), (m, v)) in xg.0.iter().zip(xg.1).zip(mv.0.iter().zip(mv.1)) {
            let (x, m, v) = step.moved(*x, *g, *m, *v);
            values &= x.is_finite();
            moments &= m.is_finite() & v.is_finite();
        }
        (values, moments)
    }
}

/// sqrt of the sum of squares over all gradients, in f64.
pub fn global_norm<'a>(grads: impl Iterator<Item = &'a [f32]>) -> f64 {
    let tensor = |grad: &[f32]| {
        let parts: Vec<f64> = grad.par_chunks(PART).map(sum_of_squares).collect();
        parts.iter().sum::<f64>()
    };
    grads.map(tensor).sum::<f64>().sqrt()
}

/// The numbers of one step, as each element needs them ([`StepNumbers::moved`]).
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepNumbers {
    pub clip: f32,
    pub b1: f32,
    pub b2: f32,
    pub c1: f32,
    pub c2: f32,
    pub keep: f32,
    pub size: f32,
    pub second: f32,
    pub eps: f32,
}

impl StepNumbers {
    /// Of the step after `taken` steps, at a learning rate; `norm` is the gradients' global norm
    /// before clipping.
    pub fn new(settings: &OptimizerSettings, taken: u32, rate: f64, norm: f64) -> StepNumbers {
        let count = taken as i32 + 1;
        // torch.nn.utils.clip_grad_norm_ adds 1e-6 to the norm and never scales up.
        let clip = match settings.max_grad_norm {
            max if max > 0.0 => (max / (norm + 1e-6)).min(1.0),
            _ => 1.0,
        } as f32;
        let (b1, b2) = (settings.beta1, settings.beta2);
        // The complements are taken before rounding, as torch does: 1 - 0.999 in f32 is off by
        // 5e-5, which the bias correction would not cancel.
        StepNumbers {
            clip,
            b1: b1 as f32,
            b2: b2 as f32,
            c1: (1.0 - b1) as f32,
            c2: (1.0 - b2) as f32,
            keep: (1.0 - rate * settings.weight_decay) as f32,
            size: (rate / (1.0 - b1.powi(count))) as f32,
            second: (1.0 - b2.powi(count)).sqrt() as f32,
            eps: settings.eps as f32,
        }
    }

    /// Whether a step cannot leave anything that is not finite, when no value and no moment is
    /// larger than `bound`: no gradient is larger than the norm.
    pub fn is_surely_finite(&self, bound: f32, norm: f64) -> bool {
        let most = f64::from(bound).max(norm * f64::from(self.clip));
        let size = f64::from(self.size.abs()) / f64::from(self.eps.max(f32::MIN_POSITIVE));
        most * most < 1e37 && most * (size + f64::from(self.keep.abs())) < 1e37
    }

    /// New value and moments of one element.
    #[inline(always)]
    fn moved(&self, x: f32, g: f32, m: f32, v: f32) -> (f32, f32, f32) {
        let g = g * self.clip;
        let m = self.b1 * m + self.c1 * g;
        let v = self.b2 * v + self.c2 * g * g;
        (x * self.keep - self.size * m / (v.sqrt() / self.second + self.eps), m, v)
    }
}

impl AdamW {
    /// Steps taken.
    pub fn step(&self) -> u32 {
        self.step
    }

    /// Moves the tensors by one step, all of them in one pass over memory. `norm` is the
    /// gradients' global norm before clipping; gives the learning rate used.
    ///
    /// # Errors
    /// What would not be finite; then nothing has moved.
    pub fn update(
        &mut self,
        settings: &OptimizerSettings,
        tensors: &mut [TrainedTensor<'_>],
        norm: f64,
    ) -> Result<f64, String> {
        let rate = settings.learning_rate_at(self.step);
        let step = StepNumbers::new(settings, self.step, rate, norm);
        for TrainedTensor { name, grad, .. } in tensors.iter() {
            if !self.moments.contains_key(*name) {
                let empty = (written_zeros(grad.len()), written_zeros(grad.len()));
                self.moments.insert((*name).to_owned(), empty);
            }
        }
        self.check(&step, tensors, norm)?;
        self.step += 1;
        let mut most = 0f32;
        for TrainedTensor { name, value, grad } in tensors {
            let Some((m, v)) = self.moments.get_mut(*name) else { continue };
            let parts = value.par_chunks_mut(PART).zip(grad.par_chunks(PART));
            let moments = m.par_chunks_mut(PART).zip(v.par_chunks_mut(PART));
            let moved = parts.zip(moments).map(|(xg, mv)| take(step, xg, mv));
            most = most.max(moved.reduce(|| 0.0, f32::max));
        }
        self.bound = most;
        Ok(rate)
    }

    /// Refuses a step after which a number would not be finite; where the norm and the bound of the
    /// last step leave no doubt, nothing is read for it.
    fn check(
        &self,
        step: &StepNumbers,
        tensors: &[TrainedTensor<'_>],
        norm: f64,
    ) -> Result<(), String> {
        if step.is_surely_finite(self.bound, norm) {
            return Ok(());
        }
        for TrainedTensor { name, value, grad } in tensors {
            let Some((m, v)) = self.moments.get(*name) else { continue };
            let parts = value.par_chunks(PART).zip(grad.par_chunks(PART));
            let moments = m.par_chunks(PART).zip(v.par_chunks(PART));
            let finite = parts.zip(moments).map(|(xg, mv)| finite(*step, xg, mv));
            let (values, moments) = finite.reduce(|| (true, true), |a, b| (a.0 && b.0, a.1 && b.1));
            if !moments {
                return Err("the optimiser's moments would not be finite".to_owned());
            }
            if !values {
                return Err(format!("{name} would not be finite"));
            }
        }
        Ok(())
    }

    /// Moments and step, to be saved.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn state(&self) -> Result<Weights, LmError> {
        let mut state = SavedState::new(self.step)?;
        for (name, (first, second)) in &self.moments {
            state.put(Moment::First, name, first)?;
            state.put(Moment::Second, name, second)?;
        }
        Ok(state.into_weights())
    }

    /// The optimiser that [`AdamW::state`] described.
    ///
    /// # Errors
    /// [`LmError::Training`] naming what is missing.
    pub fn from_state(state: &Weights) -> Result<AdamW, LmError> {
        let step = state::step(state)?;
        let mut moments = BTreeMap::new();
        for name in state::names(state) {
            let of = |moment| state::moment(state, moment, name);
            moments.insert(name.to_owned(), (of(Moment::First)?, of(Moment::Second)?));
        }
        Ok(AdamW { moments, step, bound: f32::INFINITY })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_and_cosine() {
        let s = OptimizerSettings {
            learning_rate: 1.0,
            warmup_steps: 10,
            steps_total: 110,
            final_ratio: 0.1,
            ..OptimizerSettings::default()
        };
        assert_eq!(s.learning_rate_at(0), 0.0);
        assert_eq!(s.learning_rate_at(5), 0.5);
        assert_eq!(s.learning_rate_at(10), 1.0);
        assert!((s.learning_rate_at(60) - 0.55).abs() < 1e-12);
        assert!((s.learning_rate_at(110) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn stays_and_falls_in_the_last_quarter() {
        let s = OptimizerSettings {
            learning_rate: 1.0,
            schedule: Schedule::WarmupStableDecay,
            warmup_steps: 20,
            steps_total: 100,
            final_ratio: 0.0,
            ..OptimizerSettings::default()
        };
        assert_eq!((s.learning_rate_at(20), s.learning_rate_at(79)), (1.0, 1.0));
        assert!((s.learning_rate_at(90) - 0.5).abs() < 1e-12);
        assert_eq!(s.learning_rate_at(100), 0.0);
    }

    #[test]
    fn first_step_is_the_sign_of_the_gradient() {
        let s = OptimizerSettings {
            learning_rate: 0.1,
            schedule: Schedule::Constant,
            weight_decay: 0.5,
            max_grad_norm: 0.0,
            ..OptimizerSettings::default()
        };
        let (mut w, grad) = ([1.0f32, 1.0], [3.0f32, -0.2]);
        let norm = global_norm(std::iter::once(grad.as_slice()));
        let moving = TrainedTensor { name: "w", value: &mut w, grad: &grad };
        AdamW::default().update(&s, &mut [moving], norm).unwrap();
        // Decay multiplies by 1 - 0.1 * 0.5, the step is 0.1 against the sign.
        assert!((w[0] - 0.85).abs() < 1e-5 && (w[1] - 1.05).abs() < 1e-5, "{w:?}");
    }
}
