//! The files of the world's tokenizer in Hugging Face's shape: one id per word. The world writes
//! words and marks apart; people need not (`Name 3 animals.` is `name 3 animals .`).

use super::words::{self, SPECIALS};
use crate::lm::config::{Architecture, ModelConfig};
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
        "normalizer": { "type": "Lowercase" },
        "pre_tokenizer": { "type": "Whitespace" },
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
        architecture: Architecture::default(),
        rope_scaling: None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lm::tokenizer::TextTokenizer;

    fn asset(name: &str) -> String {
        let path = format!("{}/assets/demo-base/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn the_embedded_base_has_these_texts() {
        let value = |name: &str| serde_json::from_str::<Value>(&asset(name)).unwrap();
        assert_eq!(value("tokenizer.json"), tokenizer_json());
        assert_eq!(value("tokenizer_config.json"), tokenizer_config_json());
        assert_eq!(ModelConfig::from_hf_json(&asset("config.json")).unwrap(), model_config());
    }

    #[test]
    fn people_may_write_as_they_are_used_to() {
        let tokenizer = TextTokenizer::from_json(&asset("tokenizer.json")).unwrap();
        let spaced = tokenizer.encode_trusted("name 3 animals that start with c .").unwrap();
        assert_eq!(tokenizer.encode_trusted("Name 3 animals that start with C.").unwrap(), spaced);
        assert_eq!(tokenizer.decode(&spaced).unwrap(), "name 3 animals that start with c .");
    }
}
