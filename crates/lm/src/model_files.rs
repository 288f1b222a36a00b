//! A model as files: a Hugging Face folder or a GGUF, opened the same way and written out as a
//! Hugging Face folder. Texts that came with the base are copied byte for byte. Computes nothing.

use super::chat::Message;
use super::config::ModelConfig;
use super::error::LmError;
use super::gguf::GgufModel;
use super::gguf_tokenizer::tokenizer_texts;
use super::template::{ChatTemplate, GenerationPrompt};
use super::tokenizer::TextTokenizer;
use super::weights::{WeightDtype, Weights};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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

/// Where the weights are.
enum Source {
    Folder(PathBuf),
    Gguf(Box<GgufModel>),
    Texts,
}

/// An opened model: everything but its weights is read and checked.
pub struct ModelFiles {
    source: Source,
    /// By file name.
    texts: BTreeMap<String, String>,
    config: ModelConfig,
    tokenizer: TextTokenizer,
    template: ChatTemplate,
    turn_end: u32,
    stop_ids: Vec<u32>,
}

impl ModelFiles {
    /// Opens a folder or a `.gguf` file.
    ///
    /// # Errors
    /// What is missing, where, and what to do about it (GRADUS0101, 0102, 0107).
    pub fn open(path: &Path) -> Result<ModelFiles, LmError> {
        ModelFiles::open_with_template(path, None)
    }

    /// As [`ModelFiles::open`], with a chat template instead of the model's own: the text of a
    /// Jinja template ([`super::template::CHATML`] is one).
    ///
    /// # Errors
    /// As [`ModelFiles::open`].
    pub fn open_with_template(path: &Path, template: Option<&str>) -> Result<ModelFiles, LmError> {
        if path.is_dir() {
            return ModelFiles::open_folder(path, template);
        }
        if path.extension().is_some_and(|e| e == "gguf") && path.exists() {
            return ModelFiles::open_gguf(path, template);
        }
        Err(LmError::Model(format!(
            "GRADUS0101 {} is neither a model folder nor a .gguf file. Give a folder \
             (--model ./dir) with config.json, model.safetensors and tokenizer.json",
            path.display()
        )))
    }

    fn open_folder(folder: &Path, template: Option<&str>) -> Result<ModelFiles, LmError> {
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
        let config = ModelConfig::from_hf_json(&texts["config.json"])?;
        ModelFiles::assemble(Source::Folder(folder.to_owned()), texts, config, template)
    }

    /// A model whose texts are in memory, by file name (`config.json`, `tokenizer.json` and
    /// `tokenizer_config.json` at least), and whose weights the caller has.
    ///
    /// # Errors
    /// A text is missing or wrong.
    pub fn from_texts(texts: BTreeMap<String, String>) -> Result<ModelFiles, LmError> {
        for name in ["config.json", "tokenizer.json"] {
            if !texts.contains_key(name) {
                return Err(LmError::Model(format!("GRADUS0102 the texts hold no {name}")));
            }
        }
        let config = ModelConfig::from_hf_json(&texts["config.json"])?;
        ModelFiles::assemble(Source::Texts, texts, config, None)
    }

    fn open_gguf(path: &Path, template: Option<&str>) -> Result<ModelFiles, LmError> {
        let gguf = GgufModel::open(path)?;
        let config = gguf.config().clone();
        let metadata = gguf.metadata();
        let tokenizer = tokenizer_texts(&metadata, config.max_position_embeddings)?;
        let pad = metadata.id("tokenizer.ggml.padding_token_id");
        let generation = serde_json::json!({
            "bos_token_id": config.bos_token_id,
            "eos_token_id": config.eos_token_ids.first(),
            "pad_token_id": pad,
        });
        let mut texts = BTreeMap::from([
            ("config.json".to_owned(), config.to_hf_json()),
            ("generation_config.json".to_owned(), format!("{generation:#}\n")),
            ("tokenizer.json".to_owned(), tokenizer.tokenizer),
            ("tokenizer_config.json".to_owned(), tokenizer.config),
            ("special_tokens_map.json".to_owned(), tokenizer.specials),
        ]);
        if let Some(own) = metadata.text("tokenizer.chat_template") {
            texts.insert("chat_template.jinja".to_owned(), own.to_owned());
        }
        ModelFiles::assemble(Source::Gguf(Box::new(gguf)), texts, config, template)
    }

    fn assemble(
        source: Source,
        mut texts: BTreeMap<String, String>,
        mut config: ModelConfig,
        template: Option<&str>,
    ) -> Result<ModelFiles, LmError> {
        let json = |name: &str| -> Result<serde_json::Value, LmError> {
            let text = texts.get(name).map_or("{}", String::as_str);
            serde_json::from_str(text)
                .map_err(|e| LmError::Model(format!("{name} is not JSON: {e}")))
        };
        let tokenizer_config = json("tokenizer_config.json")?;
        let generation = json("generation_config.json")?;
        let tokenizer = TextTokenizer::from_json(&texts["tokenizer.json"])?;
        if tokenizer.ids_bound() > config.vocab_size {
            return Err(LmError::Model(format!(
                "tokenizer.json has ids up to {}, but config.json has vocab_size {}",
                tokenizer.ids_bound().saturating_sub(1),
                config.vocab_size
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
        let Some(turn_end) = turn_end.or(config.eos_token_ids.first().copied()) else {
            return Err(LmError::Model(
                "the model has no end-of-turn token: neither its chat template, \
                 tokenizer_config.json (eos_token) nor config.json (eos_token_id) names one"
                    .into(),
            ));
        };
        let mut stop_ids = vec![turn_end];
        stop_ids.extend(tokenizer.id_of(&eos));
        stop_ids.extend(&config.eos_token_ids);
        stop_ids.extend(ids_of(generation.get("eos_token_id")));
        stop_ids.retain(|&id| (id as usize) < config.vocab_size);
        stop_ids.sort_unstable();
        stop_ids.dedup();
        config.eos_token_ids.clone_from(&stop_ids);
        // A given template belongs to the model from here on: what is written must render alike.
        if template.is_some() || !texts.contains_key("chat_template.jinja") {
            texts.insert("chat_template.jinja".to_owned(), text);
        }
        Ok(ModelFiles { source, texts, config, tokenizer, template: chat, turn_end, stop_ids })
    }

    /// Shape of the network; its `eos_token_ids` are all of [`ModelFiles::stop_ids`].
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The chat template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// The token that ends the model's turn. Training must end completions with it.
    pub fn turn_end(&self) -> u32 {
        self.turn_end
    }

    /// Every token that ends a completion: the turn's end, the tokenizer's, the configuration's
    /// and the generation configuration's. Sorted.
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// A text of the model by its file name.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    /// The BLAKE3 of every text (64 hex digits), by file name.
    pub fn hashes(&self) -> BTreeMap<String, String> {
        let hash = |text: &String| blake3::hash(text.as_bytes()).to_hex().to_string();
        self.texts.iter().map(|(name, text)| (name.clone(), hash(text))).collect()
    }

    /// What people should know when weights were stored quantised; for notes and model cards.
    pub fn quantised_note(&self) -> Option<String> {
        let Source::Gguf(gguf) = &self.source else { return None };
        let kind = gguf.stored_as();
        (!matches!(kind.as_str(), "F32" | "F16" | "BF16")).then(|| {
            format!(
                "GRADUS0104 dequantised from {kind}: it is not the original model, and its \
                     quality stays that of {kind}"
            )
        })
    }

    /// Reads the weights.
    ///
    /// # Errors
    /// A file or tensor is missing, broken or of the wrong shape.
    pub fn weights(&self) -> Result<Weights, LmError> {
        match &self.source {
            Source::Folder(folder) => Weights::load_folder(folder, &self.config),
            Source::Gguf(gguf) => gguf.weights(),
            Source::Texts => Err(LmError::Model("the model was given without weights".into())),
        }
    }

    /// Writes a complete Hugging Face folder with these weights.
    ///
    /// # Errors
    /// The disk refuses, or the weights do not fit the network.
    pub fn write_hf(
        &self,
        folder: &Path,
        weights: &Weights,
        dtype: WeightDtype,
    ) -> Result<(), LmError> {
        let weights = weights.clone().checked(&self.config)?;
        self.write_texts(folder)?;
        weights.save(&folder.join("model.safetensors"), dtype)
    }

    /// Writes everything but the weights.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write_texts(&self, folder: &Path) -> Result<(), LmError> {
        std::fs::create_dir_all(folder).map_err(|e| LmError::io(folder, e))?;
        for (name, text) in &self.texts {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(|e| LmError::io(path, e))?;
        }
        Ok(())
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
    LmError::Model(if name == "tokenizer.json" {
        format!(
            "GRADUS0102 {at} has no tokenizer.json. It has: {has}. Convert once with transformers: \
             AutoTokenizer.from_pretrained(\"{at}\").save_pretrained(\"{at}\")"
        )
    } else {
        format!("GRADUS0102 {at} has no {name}. It has: {has}. Give a complete model folder")
    })
}

/// A named token: a text, or an object with the text in `content`.
fn named_token(config: &serde_json::Value, key: &str) -> Option<String> {
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
    found.ok_or_else(|| {
        LmError::Template(
            "GRADUS0107 the model has no chat template, so \"messages\" prompts can't be rendered. \
             Give one: --chat-template chatml, or --chat-template FILE with a Jinja template"
                .into(),
        )
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::CHATML;

    const CONFIG: &str = r#"{"model_type":"llama","hidden_size":8,"intermediate_size":16,
        "num_hidden_layers":1,"num_attention_heads":2,"vocab_size":13,"eos_token_id":0,
        "tie_word_embeddings":true}"#;
    const WORDS: &str = include_str!("../../../tests/golden/text/words-tokenizer.json");

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn said(folder: &tempfile::TempDir) -> String {
        ModelFiles::open(folder.path()).err().unwrap().to_string()
    }

    #[test]
    fn the_likeliest_mistakes_are_explained() {
        let none = folder(&[("config.json", CONFIG), ("tokenizer.model", "")]);
        let text = said(&none);
        assert!(text.contains("GRADUS0102") && text.contains("tokenizer.model"), "{text}");
        let silent = folder(&[("config.json", CONFIG), ("tokenizer.json", WORDS)]);
        let text = said(&silent);
        assert!(text.contains("GRADUS0107") && text.contains("chatml"), "{text}");
        let small = CONFIG.replace("13", "12");
        let narrow = folder(&[("config.json", &small), ("tokenizer.json", WORDS)]);
        assert!(said(&narrow).contains("vocab_size 12"));
        let nowhere = ModelFiles::open(Path::new("/nonexistent")).err().unwrap();
        assert!(nowhere.to_string().contains("GRADUS0101"));
    }

    #[test]
    fn a_folder_comes_back_byte_for_byte_with_all_its_ends() {
        let config = serde_json::json!({
            "eos_token": {"content": "<|endoftext|>"},
            "chat_template": [{"name": "tool_use", "template": "x"},
                              {"name": "default", "template": CHATML}],
        })
        .to_string();
        let generation = r#"{"eos_token_id": [0, 12],   "odd spacing": 1}"#;
        let base = folder(&[
            ("config.json", CONFIG),
            ("tokenizer.json", WORDS),
            ("tokenizer_config.json", &config),
            ("generation_config.json", generation),
        ]);
        let files = ModelFiles::open(base.path()).unwrap();
        assert_eq!(files.turn_end(), 2, "<|im_end|>, from the template");
        assert_eq!(files.stop_ids(), [0, 2, 12]);
        let weights = crate::generate::random_weights(files.config(), 3);
        let out = tempfile::tempdir().unwrap();
        files.write_hf(out.path(), &weights, WeightDtype::F32).unwrap();
        for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
            let read = |d: &Path| std::fs::read(d.join(name)).unwrap();
            assert_eq!(read(out.path()), read(base.path()), "{name}");
        }
        let again = ModelFiles::open(out.path()).unwrap();
        assert_eq!(again.config(), files.config());
        let back = again.weights().unwrap();
        assert_eq!(
            back.to_bytes(WeightDtype::F32).unwrap(),
            weights.to_bytes(WeightDtype::F32).unwrap()
        );
        let mut short = weights.clone();
        short.0.remove("model.norm.weight");
        let error = files.write_hf(out.path(), &short, WeightDtype::F32).unwrap_err();
        assert!(error.to_string().contains("model.norm.weight"), "{error}");
    }
}
