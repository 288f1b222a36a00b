//! The files of the world's tokenizer in Hugging Face's shape: one id per word, words divided by
//! single spaces.

use super::words::{self, SPECIALS};
use crate::lm::config::ModelConfig;
use serde_json::{Value, json};

/// `tokenizer.json`.
pub fn tokenizer_json() -> Value {
    let vocabulary: serde_json::Map<String, Value> =
        words::all().into_iter().zip(0u32..).map(|(word, id)| (word, json!(id))).collect();
    let added: Vec<Value> = SPECIALS
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({ "id": id, "content": content, "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": true })
        })
        .collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": null,
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>" }
    })
}

/// The chat template: `<bos> <user> ... <bot>`, answers ended by `<eos>`.
pub const CHAT_TEMPLATE: &str = "<bos>{% for m in messages %}{% if m['role'] == 'assistant' %} \
    <bot> {{ m['content'] }} <eos>{% else %} <user> {{ m['content'] }}{% endif %}{% endfor %}\
    {% if add_generation_prompt %} <bot>{% endif %}";

/// `tokenizer_config.json`.
pub fn tokenizer_config_json() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": false,
        "chat_template": CHAT_TEMPLATE
    })
}

/// The shape of the demo's base.
pub fn model_config() -> ModelConfig {
    ModelConfig {
        vocab_size: words::all().len(),
        hidden_size: 128,
        intermediate_size: 344,
        num_hidden_layers: 6,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        head_dim: 32,
        rms_norm_eps: 1e-5,
        rope_theta: 10000.0,
        max_position_embeddings: 256,
        tie_word_embeddings: false,
        bos_token_id: Some(1),
        eos_token_ids: vec![2],
    }
}
