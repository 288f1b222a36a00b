//! Qwen2 and Qwen2.5: the projections to queries, keys and values have biases.

use super::llama::LLAMA;
use super::{Description, GgufFormat, RowOrder};

pub(super) const QWEN2: Description = Description {
    model_type: "qwen2",
    class: "Qwen2ForCausalLM",
    qkv_bias: true,
    has_window_keys: true,
    gguf: Some(GgufFormat { architecture: "qwen2", query_key_rows: RowOrder::HalfApart }),
    ..LLAMA
};
