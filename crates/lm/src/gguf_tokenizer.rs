//! A `tokenizer.json` from GGUF metadata: byte-level BPE, as GPT-2, Llama 3 and SmolLM2 have it.

use super::error::LmError;
use super::gguf::Metadata;
use serde_json::{Map, Value, json};

/// Token types of GGUF.
pub(crate) const NORMAL: i64 = 1;
pub(crate) const CONTROL: i64 = 3;
pub(crate) const USER_DEFINED: i64 = 4;
pub(crate) const UNUSED: i64 = 5;

/// Tokens by what they are for: in `tokenizer_config.json`, and after `tokenizer.ggml.`.
pub(crate) const NAMED_TOKENS: [(&str, &str); 4] = [
    ("bos_token", "bos_token_id"),
    ("eos_token", "eos_token_id"),
    ("pad_token", "padding_token_id"),
    ("unk_token", "unknown_token_id"),
];

/// llama.cpp's names for the ways of splitting text that are known here, each once.
pub(crate) const SPLITTERS: [&str; 4] = ["gpt-2", "smollm", "llama-bpe", "qwen2"];

/// Texts that describe a tokenizer, from GGUF metadata.
pub struct TokenizerTexts {
    /// `tokenizer.json`.
    pub tokenizer: String,
    /// `tokenizer_config.json`.
    pub config: String,
    /// `special_tokens_map.json`.
    pub specials: String,
}

/// Builds the texts.
///
/// # Errors
/// [`LmError::Tokenizer`] for another kind of tokenizer or a way of splitting that is not known.
pub fn tokenizer_texts(metadata: &Metadata<'_>, context: usize) -> Result<TokenizerTexts, LmError> {
    let bad = |what: String| LmError::Tokenizer(what);
    let kind = metadata.text("tokenizer.ggml.model").unwrap_or("none");
    if kind != "gpt2" {
        return Err(bad(format!(
            "the GGUF's tokenizer is of kind {kind}; gpt2 (byte-level BPE) is supported. Use the \
             model's Hugging Face folder instead"
        )));
    }
    let need = |key: &str| bad(format!("the GGUF has no usable {key}"));
    let tokens =
        metadata.texts("tokenizer.ggml.tokens").ok_or_else(|| need("tokenizer.ggml.tokens"))?;
    let merges =
        metadata.texts("tokenizer.ggml.merges").ok_or_else(|| need("tokenizer.ggml.merges"))?;
    let types = metadata.numbers("tokenizer.ggml.token_type").unwrap_or_default();
    let mut vocab = Map::new();
    let mut added = Vec::new();
    for (id, token) in tokens.iter().enumerate() {
        vocab.insert((*token).to_owned(), id.into());
        let kind = types.get(id).copied().unwrap_or(NORMAL);
        if kind == CONTROL || kind == USER_DEFINED {
            added.push(added_token(id, token, kind == CONTROL));
        }
    }
    let pre = metadata.text("tokenizer.ggml.pre").unwrap_or("default");
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": if pre == "qwen2" { json!({"type": "NFC"}) } else { Value::Null },
        "pre_tokenizer": splitter(pre)?,
        "post_processor": null,
        "decoder": byte_level(true),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            // A word of Llama 3 that the merges would take apart stays whole.
            "ignore_merges": is_llama_3(pre),
            "vocab": vocab,
            "merges": merges,
        },
    });
    let named = named_specials(metadata, &tokens);
    let mut config = json!({
        "add_prefix_space": false,
        "added_tokens_decoder": added_by_id(&added),
        "clean_up_tokenization_spaces": false,
        "model_max_length": context,
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    if let Some(config) = config.as_object_mut() {
        config.extend(named.clone());
    }
    Ok(TokenizerTexts {
        tokenizer: format!("{tokenizer:#}\n"),
        config: format!("{config:#}\n"),
        specials: format!("{:#}\n", Value::Object(named)),
    })
}

fn added_token(id: usize, content: &str, special: impl Into<Value>) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": special.into(),
    })
}

fn added_by_id(added: &[Value]) -> Value {
    let mut by_id = Map::new();
    for token in added {
        let mut token = token.clone();
        let id = token.as_object_mut().and_then(|t| t.remove("id")).unwrap_or_default();
        by_id.insert(id.to_string(), token);
    }
    Value::Object(by_id)
}

fn named_specials(metadata: &Metadata<'_>, tokens: &[&str]) -> Map<String, Value> {
    let mut named = Map::new();
    for (name, key) in NAMED_TOKENS {
        let id = metadata.id(&format!("tokenizer.ggml.{key}"));
        if let Some(token) = id.and_then(|id| tokens.get(id as usize)) {
            named.insert(name.to_owned(), (*token).into());
        }
    }
    named
}

fn byte_level(use_regex: impl Into<Value>) -> Value {
    json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": use_regex.into(),
    })
}

fn is_llama_3(pre: &str) -> bool {
    ["llama-bpe", "llama3", "llama-v3"].contains(&pre)
}

/// The pattern of Llama 3 and Qwen2, which differ in how they split numbers.
fn by_pattern(numbers: &str) -> Value {
    let pattern = format!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    );
    json!({
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            byte_level(false),
        ],
    })
}

/// How text is split before merging, by the name that llama.cpp gives it (`llama-vocab.cpp`).
pub(crate) fn splitter(pre: &str) -> Result<Value, LmError> {
    match pre {
        "gpt-2" => Ok(byte_level(true)),
        // Digits stand alone, then GPT-2's pattern.
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" => Ok(json!({
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": true}, byte_level(true)],
        })),
        // Numbers in groups of up to three, or alone.
        _ if is_llama_3(pre) => Ok(by_pattern(r"\p{N}{1,3}")),
        "qwen2" => Ok(by_pattern(r"\p{N}")),
        other => Err(LmError::Tokenizer(format!(
            "the GGUF splits text by {other:?}; {} are known. Put the \
             model's tokenizer.json beside the file, or use its Hugging Face folder instead",
            SPLITTERS.join(", ")
        ))),
    }
}
