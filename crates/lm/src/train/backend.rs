//! What a trainer asks of whoever computes a step: gradients, the optimiser, and what is saved.

use super::{LossTerm, StepMetrics};
use crate::cancel::Cancel;
use crate::error::LmError;
use crate::optimizer::OptimizerSettings;
use crate::weights::Weights;
use std::collections::BTreeMap;

/// Memory of a device that was not there, and what was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortOfMemory {
    /// Rows that a micro-batch has at most from here on.
    pub rows: usize,
    /// What did not fit.
    pub reason: String,
}

/// Whoever computes gradients and moves weights by them.
pub(crate) trait StepBackend: Send {
    /// Steps taken, also before a restart.
    fn step(&self) -> u32;

    /// Forgets the gradients of before, and adds up those of these terms; figures of each.
    ///
    /// # Errors
    /// [`LmError::Cancelled`], or what does not fit.
    fn gradients(
        &mut self,
        terms: &[LossTerm<'_>],
        cancel: &Cancel,
    ) -> Result<Vec<StepMetrics>, LmError>;

    /// Moves the weights, where all is finite: then norm and learning rate are among the figures;
    /// else nothing has moved, and the inner error says what is not finite.
    ///
    /// # Errors
    /// What a device says.
    fn apply(
        &mut self,
        settings: &OptimizerSettings,
        figures: &mut StepMetrics,
    ) -> Result<Result<(), String>, LmError>;

    /// The gradients by tensor name, flat.
    ///
    /// # Errors
    /// What a device says.
    fn named_gradients(&mut self) -> Result<BTreeMap<String, Vec<f32>>, LmError>;

    /// Weights that belong to no adapter.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    fn base(&self) -> Result<Weights, LmError>;

    /// Weights of the adapter.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    fn adapter(&self) -> Result<Weights, LmError>;

    /// The optimiser's state: `first.NAME`, `second.NAME`, `step`.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    fn optimizer_state(&self) -> Result<Weights, LmError>;

    /// Goes on with a saved state.
    ///
    /// # Errors
    /// When the state is damaged.
    fn restore_optimizer(&mut self, state: &Weights) -> Result<(), LmError>;

    /// What did not fit since the last call.
    fn short_of_memory(&mut self) -> Vec<ShortOfMemory>;

    /// How far, as a share, a loss may be from what it must be because numbers are rounded.
    fn rounding(&self) -> f64;
}
