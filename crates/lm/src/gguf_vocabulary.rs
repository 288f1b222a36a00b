//! A model's tokenizer and chat template as GGUF metadata: byte-level BPE, as
//! [`super::gguf_tokenizer`] reads it.

use super::chat_files::named_token;
use super::error::LmError;
use super::gguf_tokenizer::{
    CONTROL, NAMED_TOKENS, NORMAL, SPLITTERS, UNUSED, USER_DEFINED, splitter,
};
use super::model_files::ModelFiles;
use candle_core::quantized::gguf_file::Value;
use serde_json::Value as Json;

/// Metadata under the keys of `tokenizer.*`.
///
/// # Errors
/// [`LmError::Tokenizer`] for another kind of tokenizer, or a way of splitting that llama.cpp has no
/// name for that is known here.
pub fn tokenizer_metadata(files: &ModelFiles) -> Result<Vec<(String, Value)>, LmError> {
    let json = |name: &str| -> Result<Json, LmError> {
        serde_json::from_str(files.text(name).unwrap_or("{}"))
            .map_err(|e| LmError::Tokenizer(format!("{name} is not JSON: {e}")))
    };
    let (tokenizer, config) = (json("tokenizer.json")?, json("tokenizer_config.json")?);
    let model = tokenizer.get("model").unwrap_or(&Json::Null);
    let is = |key: &str, wanted: Json| model.get(key).is_some_and(|said| *said == wanted);
    if !is("type", "BPE".into()) || is("byte_fallback", true.into()) {
        return Err(other("byte-level BPE is the kind that is written"));
    }
    let split = split_name(&tokenizer)?;
    let (tokens, types) = tokens(&tokenizer, files.config().vocab_size)?;
    let texts = |all: Vec<String>| Value::Array(all.into_iter().map(Value::String).collect());
    let text = |text: &str| Value::String(text.to_owned());
    let mut all = vec![
        ("tokenizer.ggml.model".to_owned(), text("gpt2")),
        ("tokenizer.ggml.pre".to_owned(), text(split)),
        ("tokenizer.ggml.tokens".to_owned(), texts(tokens)),
        ("tokenizer.ggml.token_type".to_owned(), Value::Array(types)),
        ("tokenizer.ggml.merges".to_owned(), texts(merges(model)?)),
        ("tokenizer.chat_template".to_owned(), text(files.template().source())),
        ("tokenizer.ggml.add_bos_token".to_owned(), Value::Bool(adds_bos(&tokenizer, &config))),
        // Ends an answer, whatever ends a text.
        ("tokenizer.ggml.eot_token_id".to_owned(), Value::U32(files.turn_end())),
    ];
    for (name, key) in NAMED_TOKENS {
        let token = named_token(&config, name);
        if let Some(id) = token.and_then(|token| files.tokenizer().id_of(&token)) {
            all.push((format!("tokenizer.ggml.{key}"), Value::U32(id)));
        }
    }
    Ok(all)
}

fn other(what: &str) -> LmError {
    LmError::Tokenizer(format!(
        "this tokenizer is not written into GGUF files: {what}. Export the Hugging Face folder, and \
         convert that with llama.cpp's convert_hf_to_gguf.py"
    ))
}

/// Every id's token and kind. Rows of the embedding that no token has are there, unused.
fn tokens(tokenizer: &Json, rows: usize) -> Result<(Vec<String>, Vec<Value>), LmError> {
    let mut tokens: Vec<String> = (0..rows).map(|id| format!("[PAD{id}]")).collect();
    let mut types = vec![UNUSED; rows];
    let mut set = |id: Option<u64>, token: &str, kind: i64| {
        let at = id.and_then(|id| usize::try_from(id).ok()).filter(|at| *at < rows);
        match at.map(|at| (tokens.get_mut(at), types.get_mut(at))) {
            Some((Some(place), Some(known))) => {
                token.clone_into(place);
                *known = kind;
                Ok(())
            }
            _ => Err(other(&format!("its token {token:?} has no row in the embedding"))),
        }
    };
    let vocab = tokenizer.pointer("/model/vocab").and_then(Json::as_object);
    for (token, id) in vocab.ok_or_else(|| other("it has no vocabulary"))? {
        set(id.as_u64(), token, NORMAL)?;
    }
    for token in tokenizer.get("added_tokens").and_then(Json::as_array).into_iter().flatten() {
        let special = token.get("special").and_then(Json::as_bool).unwrap_or(false);
        let content = token.get("content").and_then(Json::as_str).unwrap_or_default();
        let kind = if special { CONTROL } else { USER_DEFINED };
        set(token.get("id").and_then(Json::as_u64), content, kind)?;
    }
    let types = types.into_iter().map(|kind| Value::I32(kind as i32)).collect();
    Ok((tokens, types))
}

/// Its merges, best first: `a b`.
fn merges(model: &Json) -> Result<Vec<String>, LmError> {
    let all = model.get("merges").and_then(Json::as_array).ok_or_else(|| other("no merges"))?;
    let one = |merge: &Json| match merge {
        Json::String(pair) => Some(pair.clone()),
        Json::Array(pair) => match pair.as_slice() {
            [Json::String(a), Json::String(b)] => Some(format!("{a} {b}")),
            _ => None,
        },
        _ => None,
    };
    all.iter().map(|merge| one(merge).ok_or_else(|| other("a merge is no pair"))).collect()
}

/// Whether a text that is encoded begins with the token that begins sequences.
fn adds_bos(tokenizer: &Json, config: &Json) -> bool {
    if let Some(said) = config.get("add_bos_token").and_then(Json::as_bool) {
        return said;
    }
    let Some(bos) = named_token(config, "bos_token") else { return false };
    let processor = tokenizer.get("post_processor").unwrap_or(&Json::Null);
    let several = processor.get("processors").and_then(Json::as_array);
    let begins = |processor: &Json| {
        let first = processor.pointer("/single/0/SpecialToken/id").and_then(Json::as_str);
        first == Some(bos.as_str())
    };
    begins(processor) || several.into_iter().flatten().any(begins)
}

/// The name that llama.cpp has for how a tokenizer splits text before it merges.
fn split_name(tokenizer: &Json) -> Result<&'static str, LmError> {
    let normalizer = tokenizer.pointer("/normalizer/type").and_then(Json::as_str);
    if normalizer.is_some_and(|kind| kind != "NFC") {
        return Err(other(&format!("it normalises text ({})", normalizer.unwrap_or_default())));
    }
    let own = essence(tokenizer.get("pre_tokenizer").unwrap_or(&Json::Null));
    for name in SPLITTERS {
        if essence(&splitter(name)?) == own {
            return Ok(name);
        }
    }
    Err(other(&format!("it splits text in a way of its own ({} are known)", SPLITTERS.join(", "))))
}

/// What of a pre-tokenizer decides where it splits.
fn essence(of: &Json) -> Json {
    match of {
        Json::Object(map) => {
            let mut kept: serde_json::Map<String, Json> = map
                .iter()
                .filter(|(key, _)| *key != "trim_offsets")
                .map(|(key, value)| (key.clone(), essence(value)))
                .collect();
            if map.get("type").is_some_and(|kind| kind == "ByteLevel") {
                kept.entry("use_regex").or_insert(Json::Bool(true));
            }
            kept.sort_keys();
            Json::Object(kept)
        }
        Json::Array(all) => Json::Array(all.iter().map(essence).collect()),
        plain => plain.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_way_of_splitting_has_its_name_back() {
        for name in SPLITTERS {
            let tokenizer = json!({ "pre_tokenizer": splitter(name).unwrap() });
            assert_eq!(split_name(&tokenizer).unwrap(), name);
        }
        let mut qwen = splitter("qwen2").unwrap();
        qwen["pretokenizers"][1]["trim_offsets"] = false.into();
        let tokenizer = json!({ "normalizer": {"type": "NFC"}, "pre_tokenizer": qwen });
        assert_eq!(split_name(&tokenizer).unwrap(), "qwen2");
        let own = json!({ "pre_tokenizer": {"type": "Whitespace"} });
        assert!(split_name(&own).unwrap_err().to_string().contains("convert_hf_to_gguf"));
        let lower = json!({ "normalizer": {"type": "Lowercase"}, "pre_tokenizer": splitter("gpt-2").unwrap() });
        assert!(split_name(&lower).is_err());
    }

    #[test]
    fn who_begins_with_a_token_says_so() {
        let bos = json!({ "bos_token": {"content": "<s>"} });
        let begins = json!({"post_processor": {"type": "Sequence", "processors": [
            {"type": "ByteLevel"},
            {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}]},
        ]}});
        assert!(adds_bos(&begins, &bos));
        assert!(!adds_bos(&json!({}), &bos));
        let said = json!({ "bos_token": "<s>", "add_bos_token": false });
        assert!(!adds_bos(&begins, &said));
    }
}
