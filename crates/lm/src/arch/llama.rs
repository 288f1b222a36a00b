//! Llama 2 and 3.x, SmolLM2: the network that the other families are described against.

use super::{Description, GgufFormat, RowOrder, TensorName, TensorRole};
use candle_nn::Activation;

pub(super) const LLAMA: Description = Description {
    model_type: "llama",
    class: "LlamaForCausalLM",
    qkv_bias: false,
    qk_norm: false,
    activation: Activation::Silu,
    has_window_keys: false,
    name,
    // llama.cpp stores rows that are rotated together side by side, for this family alone.
    gguf: Some(GgufFormat { architecture: "llama", query_key_rows: RowOrder::SideBySide }),
};

/// transformers' names and llama.cpp's, of this family and of all that follow its layout.
fn name(role: TensorRole) -> TensorName {
    let (hf, gguf) = match role {
        TensorRole::Embedding => ("model.embed_tokens.weight", "token_embd.weight"),
        TensorRole::FinalNorm => ("model.norm.weight", "output_norm.weight"),
        TensorRole::Head => ("lm_head.weight", "output.weight"),
        TensorRole::AttentionNorm => ("input_layernorm.weight", "attn_norm.weight"),
        TensorRole::MlpNorm => ("post_attention_layernorm.weight", "ffn_norm.weight"),
        TensorRole::Query => ("self_attn.q_proj.weight", "attn_q.weight"),
        TensorRole::Key => ("self_attn.k_proj.weight", "attn_k.weight"),
        TensorRole::Value => ("self_attn.v_proj.weight", "attn_v.weight"),
        TensorRole::Output => ("self_attn.o_proj.weight", "attn_output.weight"),
        TensorRole::Gate => ("mlp.gate_proj.weight", "ffn_gate.weight"),
        TensorRole::Up => ("mlp.up_proj.weight", "ffn_up.weight"),
        TensorRole::Down => ("mlp.down_proj.weight", "ffn_down.weight"),
        TensorRole::QueryBias => ("self_attn.q_proj.bias", "attn_q.bias"),
        TensorRole::KeyBias => ("self_attn.k_proj.bias", "attn_k.bias"),
        TensorRole::ValueBias => ("self_attn.v_proj.bias", "attn_v.bias"),
        TensorRole::QueryNorm => ("self_attn.q_norm.weight", "attn_q_norm.weight"),
        TensorRole::KeyNorm => ("self_attn.k_norm.weight", "attn_k_norm.weight"),
    };
    TensorName { hf, gguf }
}
