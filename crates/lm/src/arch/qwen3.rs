//! Qwen3: each head of queries and keys is RMS-normed before it is rotated.

use super::llama::LLAMA;
use super::{Description, GgufFormat, RowOrder};

pub(super) const QWEN3: Description = Description {
    model_type: "qwen3",
    class: "Qwen3ForCausalLM",
    qk_norm: true,
    has_window_keys: true,
    gguf: Some(GgufFormat { architecture: "qwen3", query_key_rows: RowOrder::HalfApart }),
    ..LLAMA
};
