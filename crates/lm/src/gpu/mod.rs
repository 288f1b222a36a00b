//! THE GPU: the decoder's passes on candle tensors in a device's memory, by our own kernels
//! (`crates/kernels`) and cuBLAS. What it computes is what [`super::decoder`] and
//! [`super::generate`] compute on the CPU; tests hold both together.
//!
//! Files, from the bottom to the top (each uses only those above it in this list):
//!
//! - `driver`: NVIDIA's driver and cuBLAS, or the emulator: kernels by name, memory by address
//! - `context`: one device: its driver, how much is held, whose turn it is
//! - `buffer`: stretches of numbers in its memory, and scratch that is kept from use to use
//! - `kernels`: every kernel and product, called with buffers
//! - `layout`: where each parameter lies
//! - `weights`: weights on the device: shared, adapters, trained
//! - `batch`: rows as kernels want them: who sees whom, rotary angles
//! - `linear`: linear layers with their adapters
//! - `layer`: one layer forward and backward
//! - `head`: logits, log-probabilities and back
//! - `passes`: the whole network
//! - `session`: drawing: implements crate::generate's KvSession
//! - `backend`: an optimiser step: implements crate::train's StepBackend
//! - `speed`: what the device allows
//!
//! Numbers: matrices and what lies between them are bf16 (or f32, for comparisons); the residual
//! stream, its gradient, norms, logits, losses, gradients of weights, master weights and the
//! optimiser's moments are f32. Products accumulate in f32.
//!
//! Without a GPU the same passes and the same kernels run on an emulator, which is how they are
//! tested; only cuBLAS and the driver are not seen then.

mod backend;
mod batch;
mod buffer;
mod context;
mod driver;
mod head;
mod kernels;
mod layer;
mod layout;
mod linear;
mod passes;
mod session;
mod speed;
#[cfg(test)]
mod tests;
mod weights;

pub use backend::BaseWeights;
pub use context::Gpu;
pub(crate) use layout::Trainable;
pub(crate) use passes::GpuDecoder;
pub use speed::{Ceilings, ceilings};
pub use weights::Base;
pub(crate) use weights::{AdapterUse, WeightStore};
