//! The optimiser's state as it is saved, whoever computes: `first.NAME` and `second.NAME`, flat, and
//! `step` in two halves that f32 holds exactly.

use crate::error::LmError;
use crate::weights::Weights;
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;

/// The name of the step's tensor.
const STEP: &str = "step";

/// A moment of the gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Its moving mean.
    First,
    /// That of its square.
    Second,
}

impl Moment {
    /// What the names of its tensors begin with.
    fn prefix(self) -> &'static str {
        match self {
            Moment::First => "first.",
            Moment::Second => "second.",
        }
    }
}

/// A state that is being put together.
pub(crate) struct SavedState(BTreeMap<String, Tensor>);

impl SavedState {
    /// The state after so many steps, without moments.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn new(step: u32) -> Result<SavedState, LmError> {
        let halves = [(step >> 16) as f32, (step & 0xffff) as f32];
        let step = Tensor::from_slice(&halves, 2, &Device::Cpu)?;
        Ok(SavedState(BTreeMap::from([(STEP.to_owned(), step)])))
    }

    /// Adds a moment of the tensor of this name.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn put(&mut self, moment: Moment, name: &str, values: &[f32]) -> Result<(), LmError> {
        let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
        self.0.insert(format!("{}{name}", moment.prefix()), tensor);
        Ok(())
    }

    /// The tensors of the file.
    pub fn into_weights(self) -> Weights {
        Weights(self.0)
    }
}

/// Steps taken, of a saved state.
///
/// # Errors
/// When it is missing or damaged.
pub(crate) fn step(state: &Weights) -> Result<u32, LmError> {
    match state.get(STEP)?.to_vec1::<f32>()?.as_slice() {
        [high, low] => Ok((*high as u32) << 16 | *low as u32),
        _ => Err(LmError::Training("optimiser state: step is damaged".to_owned())),
    }
}

/// Names of the tensors that a saved state has moments of.
pub(crate) fn names(state: &Weights) -> impl Iterator<Item = &str> {
    state.0.keys().filter_map(|name| name.strip_prefix(Moment::First.prefix()))
}

/// A moment of the tensor of this name, of a saved state.
///
/// # Errors
/// When it is missing or damaged.
pub(crate) fn moment(state: &Weights, moment: Moment, name: &str) -> Result<Vec<f32>, LmError> {
    Ok(state.get(&format!("{}{name}", moment.prefix()))?.to_vec1::<f32>()?)
}
