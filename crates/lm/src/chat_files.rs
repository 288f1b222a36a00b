//! What of a model's files is about text: its tokenizer, its chat template and what ends a turn.
//! Knows no network, so that it serves models whose networks are not ours too.

use super::chat::Message;
use super::error::LmError;
use super::gguf::Metadata;
use super::gguf_tokenizer::tokenizer_texts;
use super::template::{ChatTemplate, GenerationPrompt};
use super::tokenizer::TextTokenizer;
use super::vocabulary::Vocabulary;
use std::collections::BTreeMap;
use std::path::Path;

/// Texts that make up a model besides its weights. Those a base has are copied.
const TEXTS: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
];

/// What a network says about its texts.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Rows of its embedding.
    pub vocab_size: usize,
    /// Ids that end a turn or a text, as its configuration has them.
    pub eos_token_ids: Vec<u32>,
    /// Longest sequence, tokens.
    pub context_tokens_max: usize,
}

/// Tokenizer, template, and the texts that they were read from.
pub struct ChatFiles {
    /// By file name.
    texts: BTreeMap<String, String>,
    tokenizer: TextTokenizer,
    template: ChatTemplate,
    turn_end: u32,
    stop_ids: Vec<u32>,
    context_tokens_max: usize,
}

/// The texts of a Hugging Face folder, by file name.
///
/// # Errors
/// `config.json` or `tokenizer.json` is not there, or a file cannot be read.
pub fn read_texts(folder: &Path) -> Result<BTreeMap<String, String>, LmError> {
    let mut texts = BTreeMap::new();
    for name in TEXTS {
        let path = folder.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => drop(texts.insert(name.to_owned(), text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(LmError::io(path, e)),
        }
    }
    for name in ["config.json", "tokenizer.json"] {
        if !texts.contains_key(name) {
            return Err(missing(folder, name));
        }
    }
    Ok(texts)
}

/// The texts that a GGUF's metadata come to, all but `config.json`.
///
/// # Errors
/// Its tokenizer is of a kind that is not known.
pub fn gguf_texts(
    metadata: &Metadata<'_>,
    context: usize,
) -> Result<BTreeMap<String, String>, LmError> {
    let tokenizer = tokenizer_texts(metadata, context)?;
    let generation = serde_json::json!({
        "bos_token_id": metadata.id("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.id("tokenizer.ggml.eos_token_id"),
        "pad_token_id": metadata.id("tokenizer.ggml.padding_token_id"),
    });
    let mut texts = BTreeMap::from([
        ("generation_config.json".to_owned(), format!("{generation:#}\n")),
        ("tokenizer.json".to_owned(), tokenizer.tokenizer),
        ("tokenizer_config.json".to_owned(), tokenizer.config),
        ("special_tokens_map.json".to_owned(), tokenizer.specials),
    ]);
    if let Some(own) = metadata.text("tokenizer.chat_template") {
        texts.insert("chat_template.jinja".to_owned(), own.to_owned());
    }
    Ok(texts)
}

impl ChatFiles {
    /// Reads texts that are in memory, by file name; `template`: instead of the model's own.
    ///
    /// # Errors
    /// A text is missing or wrong, or nothing ends a turn.
    pub fn assemble(
        mut texts: BTreeMap<String, String>,
        bounds: Bounds,
        template: Option<&str>,
    ) -> Result<ChatFiles, LmError> {
        let json = |name: &str| -> Result<serde_json::Value, LmError> {
            let text = texts.get(name).map_or("{}", String::as_str);
            serde_json::from_str(text)
                .map_err(|e| LmError::Model(format!("{name} is not JSON: {e}")))
        };
        let tokenizer_config = json("tokenizer_config.json")?;
        let generation = json("generation_config.json")?;
        let tokenizer =
            TextTokenizer::from_json(texts.get("tokenizer.json").map_or("", String::as_str))?;
        if tokenizer.ids_bound() > bounds.vocab_size {
            return Err(LmError::Model(format!(
                "tokenizer.json has ids up to {}, but config.json has vocab_size {}",
                tokenizer.ids_bound().saturating_sub(1),
                bounds.vocab_size
            )));
        }
        let named = |key: &str| named_token(&tokenizer_config, key);
        let (bos, eos) = (named("bos_token"), named("eos_token"));
        let text = match template {
            Some(given) => given.to_owned(),
            None => own_template(&texts, &tokenizer_config)?,
        };
        let (bos, eos) = (bos.unwrap_or_default(), eos.unwrap_or_default());
        let chat = ChatTemplate::new(&text, &bos, &eos)?;
        let turn_end = turn_end(&chat, &tokenizer)?.or_else(|| tokenizer.id_of(&eos));
        let Some(turn_end) = turn_end.or(bounds.eos_token_ids.first().copied()) else {
            return Err(LmError::Model(
                "the model has no end-of-turn token: neither its chat template, \
                 tokenizer_config.json (eos_token) nor config.json (eos_token_id) names one"
                    .into(),
            ));
        };
        let mut stop_ids = vec![turn_end];
        stop_ids.extend(tokenizer.id_of(&eos));
        stop_ids.extend(&bounds.eos_token_ids);
        stop_ids.extend(ids_of(generation.get("eos_token_id")));
        stop_ids.retain(|&id| (id as usize) < bounds.vocab_size);
        stop_ids.sort_unstable();
        stop_ids.dedup();
        // A given template belongs to the model from here on: what is written must render alike.
        if template.is_some() || !texts.contains_key("chat_template.jinja") {
            texts.insert("chat_template.jinja".to_owned(), text);
        }
        let context_tokens_max = bounds.context_tokens_max;
        Ok(ChatFiles { texts, tokenizer, template: chat, turn_end, stop_ids, context_tokens_max })
    }

    /// The texts, by file name.
    pub fn texts(&self) -> &BTreeMap<String, String> {
        &self.texts
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The chat template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }
}

impl Vocabulary for ChatFiles {
    fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>, LmError> {
        let contents: Vec<&str> = messages.iter().map(|m| m.content.as_str()).collect();
        let guarded = self.tokenizer.guard(&contents, self.template.source());
        let messages: Vec<Message> = messages
            .iter()
            .zip(guarded.contents)
            .map(|(m, content)| Message { role: m.role, content })
            .collect();
        let text = self.template.render(&messages, GenerationPrompt::Open)?;
        self.tokenizer.encode_rendered(&text, guarded.mark)
    }

    fn encode_text(&self, text: &str) -> Result<Vec<u32>, LmError> {
        self.tokenizer.encode_plain(text)
    }

    fn encode_template(&self, text: &str) -> Result<Vec<u32>, LmError> {
        self.tokenizer.encode_trusted(text)
    }

    fn decode(&self, ids: &[u32]) -> Result<String, LmError> {
        self.tokenizer.decode(ids)
    }

    fn turn_end(&self) -> u32 {
        self.turn_end
    }

    fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    fn context_tokens_max(&self) -> usize {
        self.context_tokens_max
    }
}

fn missing(folder: &Path, name: &str) -> LmError {
    let mut has: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .collect();
    has.sort();
    has.truncate(12);
    let (has, at) = (has.join(", "), folder.display());
    LmError::Incomplete(if name == "tokenizer.json" {
        format!(
            "{at} has no tokenizer.json. It has: {has}. Convert once with transformers: \
             AutoTokenizer.from_pretrained(\"{at}\").save_pretrained(\"{at}\")"
        )
    } else {
        format!("{at} has no {name}. It has: {has}. Give a complete model folder")
    })
}

/// A named token: a text, or an object with the text in `content`.
pub(crate) fn named_token(config: &serde_json::Value, key: &str) -> Option<String> {
    let value = config.get(key)?;
    let text = value.as_str().or_else(|| value.get("content").and_then(|c| c.as_str()));
    text.map(str::to_owned)
}

fn ids_of(value: Option<&serde_json::Value>) -> Vec<u32> {
    let id = |v: &serde_json::Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(serde_json::Value::Array(ids)) => ids.iter().filter_map(id).collect(),
        Some(one) => id(one).into_iter().collect(),
        None => Vec::new(),
    }
}

/// The template: its own file, or `tokenizer_config.json`, as a text or as a list of named ones.
fn own_template(
    texts: &BTreeMap<String, String>,
    tokenizer_config: &serde_json::Value,
) -> Result<String, LmError> {
    if let Some(text) = texts.get("chat_template.jinja") {
        return Ok(text.clone());
    }
    let found = match tokenizer_config.get("chat_template") {
        Some(serde_json::Value::String(text)) => Some(text.clone()),
        Some(serde_json::Value::Array(named)) => named
            .iter()
            .find(|t| t.get("name").and_then(|n| n.as_str()) == Some("default"))
            .and_then(|t| t.get("template")?.as_str())
            .map(str::to_owned),
        _ => None,
    };
    found.ok_or(LmError::NoTemplate)
}

/// The special token that the template writes right after the model's words, if it does.
fn turn_end(template: &ChatTemplate, tokenizer: &TextTokenizer) -> Result<Option<u32>, LmError> {
    const WORDS: &str = "gradus-words";
    let turns = [Message::user("x"), Message::assistant(WORDS)];
    let Ok(text) = template.render(&turns, GenerationPrompt::Closed) else { return Ok(None) };
    let Some((_, after)) = text.rsplit_once(WORDS) else { return Ok(None) };
    let first = tokenizer.encode_trusted(after.trim_start())?.first().copied();
    Ok(first.filter(|id| tokenizer.specials().values().any(|special| special == id)))
}
