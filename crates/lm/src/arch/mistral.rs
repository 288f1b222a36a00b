//! Mistral 7B: Llama's network. Where attention has a sliding window the context ends with it
//! ([`crate::config`]), for the passes see all positions.

use super::Description;
use super::llama::LLAMA;

pub(super) const MISTRAL: Description = Description {
    model_type: "mistral",
    class: "MistralForCausalLM",
    has_window_keys: true,
    // GGUF files have it as Llama's.
    ..LLAMA
};
