//! AdamW with decoupled decay (torch's arithmetic), global-norm clipping and learning-rate
//! schedules (transformers'), with all state in the open so that it can be saved.

use super::error::LmError;
use super::weights::Weights;
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
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

/// Values and moments of every trained tensor.
#[derive(Clone, Debug, Default)]
pub struct AdamW {
    moments: BTreeMap<String, (Vec<f32>, Vec<f32>)>,
    step: u32,
}

/// sqrt of the sum of squares over all gradients, in f64.
pub fn global_norm(grads: &BTreeMap<String, Vec<f32>>) -> f64 {
    let square = |g: &Vec<f32>| g.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
    grads.values().map(square).sum::<f64>().sqrt()
}

impl AdamW {
    /// Steps taken.
    pub fn step(&self) -> u32 {
        self.step
    }

    /// Moves `values` by one step. `norm` is the gradients' global norm before clipping; gives
    /// the learning rate used.
    pub fn update(
        &mut self,
        settings: &OptimizerSettings,
        values: &mut BTreeMap<String, Vec<f32>>,
        grads: &BTreeMap<String, Vec<f32>>,
        norm: f64,
    ) -> f64 {
        let rate = settings.learning_rate_at(self.step);
        self.step += 1;
        // torch.nn.utils.clip_grad_norm_ adds 1e-6 to the norm and never scales up.
        let clip = match settings.max_grad_norm {
            max if max > 0.0 => (max / (norm + 1e-6)).min(1.0),
            _ => 1.0,
        } as f32;
        let (b1, b2) = (settings.beta1, settings.beta2);
        let first = 1.0 - b1.powi(self.step as i32);
        let second = (1.0 - b2.powi(self.step as i32)).sqrt();
        // The complements are taken before rounding, as torch does: 1 - 0.999 in f32 is off by
        // 5e-5, which the bias correction would not cancel.
        let (c1, c2) = ((1.0 - b1) as f32, (1.0 - b2) as f32);
        let (b1, b2) = (b1 as f32, b2 as f32);
        let keep = (1.0 - rate * settings.weight_decay) as f32;
        let (size, second, eps) = ((rate / first) as f32, second as f32, settings.eps as f32);
        for (name, grad) in grads {
            let Some(values) = values.get_mut(name) else { continue };
            let empty = || (vec![0f32; grad.len()], vec![0f32; grad.len()]);
            let (m, v) = self.moments.entry(name.clone()).or_insert_with(empty);
            for (((x, g), m), v) in values.iter_mut().zip(grad).zip(m).zip(v) {
                let g = g * clip;
                *m = b1 * *m + c1 * g;
                *v = b2 * *v + c2 * g * g;
                *x = *x * keep - size * *m / (v.sqrt() / second + eps);
            }
        }
        rate
    }

    /// Whether all moments are finite: a finite gradient may have an infinite square.
    pub fn is_finite(&self) -> bool {
        let finite = |moment: &Vec<f32>| moment.iter().all(|x| x.is_finite());
        self.moments.values().all(|(first, second)| finite(first) && finite(second))
    }

    /// Moments and step as tensors: `first.NAME`, `second.NAME`, and `step` in two halves that
    /// f32 holds exactly.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn state(&self) -> Result<Weights, LmError> {
        let mut tensors = BTreeMap::new();
        for (name, (m, v)) in &self.moments {
            for (label, data) in [("first", m), ("second", v)] {
                let tensor = Tensor::from_slice(data, data.len(), &Device::Cpu)?;
                tensors.insert(format!("{label}.{name}"), tensor);
            }
        }
        let halves = [(self.step >> 16) as f32, (self.step & 0xffff) as f32];
        tensors.insert("step".to_owned(), Tensor::from_slice(&halves, 2, &Device::Cpu)?);
        Ok(Weights(tensors))
    }

    /// The optimiser that [`AdamW::state`] described.
    ///
    /// # Errors
    /// [`LmError::Training`] naming what is missing.
    pub fn from_state(state: &Weights) -> Result<AdamW, LmError> {
        let step = match state.get("step")?.to_vec1::<f32>()?.as_slice() {
            [high, low] => (*high as u32) << 16 | *low as u32,
            _ => return Err(LmError::Training("optimiser state: step is damaged".to_owned())),
        };
        let mut moments = BTreeMap::new();
        for (name, first) in &state.0 {
            if let Some(name) = name.strip_prefix("first.") {
                let second = state.get(&format!("second.{name}"))?;
                let pair = (first.to_vec1::<f32>()?, second.to_vec1::<f32>()?);
                moments.insert(name.to_owned(), pair);
            }
        }
        Ok(AdamW { moments, step })
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
        let mut values = BTreeMap::from([("w".to_owned(), vec![1.0f32, 1.0])]);
        let grads = BTreeMap::from([("w".to_owned(), vec![3.0f32, -0.2])]);
        AdamW::default().update(&s, &mut values, &grads, global_norm(&grads));
        // Decay multiplies by 1 - 0.1 * 0.5, the step is 0.1 against the sign.
        let w = &values["w"];
        assert!((w[0] - 0.85).abs() < 1e-5 && (w[1] - 1.05).abs() < 1e-5, "{w:?}");
    }
}
