//! A model as files: a Hugging Face folder or a GGUF, opened the same way and written out as a
//! Hugging Face folder. Texts that came with the base are copied byte for byte. Computes nothing.

use super::chat_files::{Bounds, ChatFiles, gguf_texts, read_texts};
use super::config::ModelConfig;
use super::error::LmError;
use super::gguf::GgufModel;
use super::template::ChatTemplate;
use super::tokenizer::TextTokenizer;
use super::vocabulary::Vocabulary;
use super::weights::{WeightDtype, Weights};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CONFIG: &str = "config.json";
/// The keys of `config.json` for the type of the weights: of transformers since 4.56, and before.
const DTYPE_KEYS: [&str; 2] = ["dtype", "torch_dtype"];

/// Where the weights are.
enum Source {
    Folder(PathBuf),
    Gguf(Box<GgufModel>),
    Texts,
}

/// An opened model: everything but its weights is read and checked.
pub struct ModelFiles {
    source: Source,
    config: ModelConfig,
    chat: Arc<ChatFiles>,
}

impl ModelFiles {
    /// Opens a folder or a `.gguf` file.
    ///
    /// # Errors
    /// What is missing, where, and what to do about it.
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
        Err(LmError::NoModel { path: path.to_owned(), whence: "" })
    }

    fn open_folder(folder: &Path, template: Option<&str>) -> Result<ModelFiles, LmError> {
        let texts = read_texts(folder)?;
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
                return Err(LmError::Incomplete(format!("the texts hold no {name}")));
            }
        }
        let config = ModelConfig::from_hf_json(&texts["config.json"])?;
        ModelFiles::assemble(Source::Texts, texts, config, None)
    }

    fn open_gguf(path: &Path, template: Option<&str>) -> Result<ModelFiles, LmError> {
        let gguf = GgufModel::open(path)?;
        let config = gguf.config().clone();
        let mut texts = gguf_texts(&gguf.metadata(), config.max_position_embeddings)?;
        texts.insert("config.json".to_owned(), config.to_hf_json());
        ModelFiles::assemble(Source::Gguf(Box::new(gguf)), texts, config, template)
    }

    fn assemble(
        source: Source,
        texts: BTreeMap<String, String>,
        mut config: ModelConfig,
        template: Option<&str>,
    ) -> Result<ModelFiles, LmError> {
        let bounds = Bounds {
            vocab_size: config.vocab_size,
            eos_token_ids: config.eos_token_ids.clone(),
            context_tokens_max: config.max_position_embeddings,
        };
        let chat = ChatFiles::assemble(texts, bounds, template)?;
        config.eos_token_ids = chat.stop_ids().to_vec();
        Ok(ModelFiles { source, config, chat: Arc::new(chat) })
    }

    /// Shape of the network; its `eos_token_ids` are all of [`ModelFiles::stop_ids`].
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// How texts and chats become ids.
    pub fn chat(&self) -> &Arc<ChatFiles> {
        &self.chat
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &TextTokenizer {
        self.chat.tokenizer()
    }

    /// The chat template.
    pub fn template(&self) -> &ChatTemplate {
        self.chat.template()
    }

    /// The token that ends the model's turn. Training must end completions with it.
    pub fn turn_end(&self) -> u32 {
        self.chat.turn_end()
    }

    /// Every token that ends a completion: the turn's end, the tokenizer's, the configuration's
    /// and the generation configuration's. Sorted.
    pub fn stop_ids(&self) -> &[u32] {
        self.chat.stop_ids()
    }

    /// A text of the model by its file name.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.chat.texts().get(name).map(String::as_str)
    }

    /// The BLAKE3 of every text (64 hex digits), by file name.
    pub fn hashes(&self) -> BTreeMap<String, String> {
        let hash = |text: &String| blake3::hash(text.as_bytes()).to_hex().to_string();
        self.chat.texts().iter().map(|(name, text)| (name.clone(), hash(text))).collect()
    }

    /// What people should know when weights were stored quantised; for notes and model cards.
    pub fn quantised_note(&self) -> Option<String> {
        let Source::Gguf(gguf) = &self.source else { return None };
        let kind = gguf.stored_as();
        (!matches!(kind.as_str(), "F32" | "F16" | "BF16")).then(|| {
            format!(
                "dequantised from {kind}: it is not the original model, and its \
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

    /// How `config.json` says that the base's weights are stored; `None` where it does not say, or
    /// says something else.
    pub fn stored_dtype(&self) -> Option<WeightDtype> {
        let config: serde_json::Value = serde_json::from_str(self.text(CONFIG)?).ok()?;
        let said = DTYPE_KEYS.into_iter().find_map(|key| config.get(key)?.as_str());
        said.and_then(WeightDtype::of_hf_name)
    }

    /// Writes a complete Hugging Face folder with these weights: one file, or shards of at most
    /// `bytes_max` bytes.
    ///
    /// # Errors
    /// The disk refuses, or the weights do not fit the network.
    pub fn write_hf(
        &self,
        folder: &Path,
        weights: &Weights,
        dtype: WeightDtype,
        bytes_max: u64,
    ) -> Result<(), LmError> {
        let weights = weights.clone().checked(&self.config)?;
        self.write_texts(folder)?;
        if let Some(config) = self.config_text_with(dtype)? {
            let path = folder.join(CONFIG);
            std::fs::write(&path, config).map_err(|e| LmError::io(path, e))?;
        }
        weights.save_folder(folder, dtype, bytes_max)
    }

    /// `config.json` where it says another type than `dtype`: transformers opens a model in the type
    /// that stands there, whatever its file has. `None` where it may stay as it is, byte for byte.
    fn config_text_with(&self, dtype: WeightDtype) -> Result<Option<String>, LmError> {
        let bad = |e: serde_json::Error| LmError::Model(format!("{CONFIG} is not JSON: {e}"));
        let text = self.text(CONFIG).unwrap_or("{}");
        let mut config: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).map_err(bad)?;
        let key = DTYPE_KEYS.into_iter().find(|key| config.contains_key(*key));
        let said = key.and_then(|key| config.get(key)?.as_str());
        // Where nothing is said it is F32.
        if said.unwrap_or(WeightDtype::F32.hf_name()) == dtype.hf_name() {
            return Ok(None);
        }
        let key = key.unwrap_or(DTYPE_KEYS[1]);
        config.insert(key.to_owned(), dtype.hf_name().into());
        Ok(Some(format!("{:#}\n", serde_json::Value::Object(config))))
    }

    /// Writes everything but the weights.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write_texts(&self, folder: &Path) -> Result<(), LmError> {
        std::fs::create_dir_all(folder).map_err(|e| LmError::io(folder, e))?;
        for (name, text) in self.chat.texts() {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(|e| LmError::io(path, e))?;
        }
        Ok(())
    }
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
        assert!(text.contains("no tokenizer.json") && text.contains("tokenizer.model"), "{text}");
        let silent = folder(&[("config.json", CONFIG), ("tokenizer.json", WORDS)]);
        let text = said(&silent);
        assert!(text.contains("no chat template") && text.contains("chatml"), "{text}");
        let small = CONFIG.replace("13", "12");
        let narrow = folder(&[("config.json", &small), ("tokenizer.json", WORDS)]);
        assert!(said(&narrow).contains("vocab_size 12"));
        let nowhere = ModelFiles::open(Path::new("/nonexistent")).err().unwrap();
        assert!(matches!(nowhere, LmError::NoModel { .. }));
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
        files.write_hf(out.path(), &weights, WeightDtype::F32, u64::MAX).unwrap();
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
        let error = files.write_hf(out.path(), &short, WeightDtype::F32, u64::MAX).unwrap_err();
        assert!(error.to_string().contains("model.norm.weight"), "{error}");
    }
}
