//! WHAT TRAINING AND DRAWING HOLD IN MEMORY, by shapes and formulae: on the CPU ([`cpu`]) and on a GPU
//! ([`gpu`]). Pure. The bounds in here are those that the trainer and the generator keep to, so what
//! a run is planned with is what it does.
//!
//! Letters: H width of the residual stream, I of the MLP, q and kv of queries and of keys (or
//! values), V the vocabulary, L the layers, W the bytes of a number as a device computes with it.
//!
//! Training and drawing do not overlap, for one heavy task computes at a time; policies stay open
//! beside either. Who adds all of it up for a run is `src/estimate` in gradus.

pub mod cpu;
pub mod gpu;

use super::config::ModelConfig;

/// Which activations of the forward pass are saved for the backward one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavedActivations {
    /// Those of every layer.
    All,
    /// Every layer's input; the rest is computed again (`train.gradient_checkpointing`).
    LayerInputs,
}

/// The widths that the formulae are made of, in numbers.
struct Widths {
    hidden: u64,
    inner: u64,
    queries: u64,
    keys: u64,
    heads: u64,
    layers: u64,
}

impl Widths {
    fn of(model: &ModelConfig) -> Widths {
        let attention = model.attention();
        Widths {
            hidden: model.hidden_size as u64,
            inner: model.intermediate_size as u64,
            queries: attention.query_width() as u64,
            keys: attention.key_width() as u64,
            heads: attention.queries as u64,
            layers: model.num_hidden_layers as u64,
        }
    }

    /// Queries, keys and values together.
    fn projected(&self) -> u64 {
        self.queries + 2 * self.keys
    }
}
