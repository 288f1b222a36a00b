//! Figures of a training step, by TRL's names.

use serde::{Deserialize, Serialize};

/// TRL's training metrics of one optimiser step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// The loss that was minimised.
    pub loss: f64,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Mean implicit reward of the chosen completions (DPO only, as the next five).
    pub rewards_chosen: f64,
    /// Mean implicit reward of the rejected completions.
    pub rewards_rejected: f64,
    /// Share of pairs whose chosen reward is strictly higher.
    pub rewards_accuracy: f64,
    /// Mean difference of the two rewards.
    pub rewards_margin: f64,
    /// Mean summed log-probability of the chosen completions.
    pub logps_chosen: f64,
    /// Mean summed log-probability of the rejected completions.
    pub logps_rejected: f64,
    /// Tokens the step saw.
    pub num_tokens: u64,
}

impl StepMetrics {
    /// Adds the sums of another part of the same step: everything but the learning rate and the
    /// gradient norm, which only a whole step has.
    pub(crate) fn add(&mut self, part: &StepMetrics) {
        self.loss += part.loss;
        self.rewards_chosen += part.rewards_chosen;
        self.rewards_rejected += part.rewards_rejected;
        self.rewards_margin += part.rewards_margin;
        self.rewards_accuracy += part.rewards_accuracy;
        self.logps_chosen += part.logps_chosen;
        self.logps_rejected += part.logps_rejected;
        self.num_tokens += part.num_tokens;
    }

    /// Refuses what is not finite.
    ///
    /// # Errors
    /// Both numbers.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.loss.is_finite() && self.grad_norm.is_finite() {
            true => Ok(()),
            false => Err(format!("loss {} with gradient norm {}", self.loss, self.grad_norm)),
        }
    }
}
