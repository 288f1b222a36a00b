//! What lies in the folder or the file of a frozen model: its texts, its kind of network, and its
//! identity, which is the hash of all of it.

use super::folder::{NetworkShape, weight_files};
use super::network::Frozen;
use super::quantised::Quantised;
use crate::domain::BlobHash;
use crate::lm::chat_files::{Bounds, ChatFiles, gguf_texts, read_texts};
use crate::lm::error::LmError;
use crate::lm::gguf::Metadata;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

enum NetworkFiles {
    Folder(PathBuf, Box<NetworkShape>),
    Gguf(Quantised),
}

/// A frozen model's files, its weights not read.
pub(super) struct Files {
    network: NetworkFiles,
    chat: Arc<ChatFiles>,
    identity: BlobHash,
}

/// Texts that stand beside a GGUF file and come before what its metadata say.
const BESIDE: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

impl Files {
    /// Opens a Hugging Face folder or a `.gguf` file.
    ///
    /// # Errors
    /// What is missing or not known, and what to do.
    pub fn open(path: &Path) -> Result<Files, LmError> {
        if path.is_dir() {
            return Files::folder(path);
        }
        if path.extension().is_some_and(|end| end == "gguf") && path.is_file() {
            return Files::gguf(path);
        }
        let whence = " (a relative path begins at the run's folder)";
        Err(LmError::NoModel { path: path.to_owned(), whence })
    }

    fn folder(path: &Path) -> Result<Files, LmError> {
        let texts = read_texts(path)?;
        let shape = NetworkShape::of(texts.get("config.json").map_or("", String::as_str))?;
        let mut hasher = identity();
        hash_texts(&mut hasher, &texts);
        for file in weight_files(path)? {
            hash_file(&mut hasher, &file)?;
        }
        let bounds = Bounds {
            vocab_size: shape.vocab_size,
            eos_token_ids: shape.eos_token_ids.clone(),
            context_tokens_max: shape.context_tokens_max,
        };
        Ok(Files {
            chat: Arc::new(ChatFiles::assemble(texts, bounds, None)?),
            network: NetworkFiles::Folder(path.to_owned(), Box::new(shape)),
            identity: BlobHash(hasher.finalize().to_hex().to_string()),
        })
    }

    fn gguf(path: &Path) -> Result<Files, LmError> {
        let (quantised, content) = Quantised::open(path)?;
        let mut beside = BTreeMap::new();
        for name in BESIDE {
            let file = path.with_file_name(name);
            match std::fs::read_to_string(&file) {
                Ok(text) => drop(beside.insert(name.to_owned(), text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(LmError::io(file, error)),
            }
        }
        let mut hasher = identity();
        hash_texts(&mut hasher, &beside);
        hash_file(&mut hasher, path)?;
        let metadata = Metadata::of(&content);
        let mut texts = match beside.contains_key("tokenizer.json") {
            true => BTreeMap::new(),
            false => gguf_texts(&metadata, quantised.context_tokens_max)?,
        };
        if let Some(own) = metadata.text("tokenizer.chat_template") {
            texts.insert("chat_template.jinja".to_owned(), own.to_owned());
        }
        texts.extend(beside);
        let bounds = Bounds {
            vocab_size: quantised.vocab_size,
            eos_token_ids: quantised.eos_token_ids.clone(),
            context_tokens_max: quantised.context_tokens_max,
        };
        Ok(Files {
            chat: Arc::new(ChatFiles::assemble(texts, bounds, None)?),
            network: NetworkFiles::Gguf(quantised),
            identity: BlobHash(hasher.finalize().to_hex().to_string()),
        })
    }

    /// How texts and chats become ids.
    pub fn chat(&self) -> &Arc<ChatFiles> {
        &self.chat
    }

    /// The hash of everything: a file that changes makes another engine.
    pub fn identity(&self) -> &BlobHash {
        &self.identity
    }

    /// BLAKE3 of the tokenizer.
    pub fn vocabulary(&self) -> BlobHash {
        let text = self.chat.texts().get("tokenizer.json").map_or("", String::as_str);
        BlobHash(blake3::hash(text.as_bytes()).to_hex().to_string())
    }

    /// What it is, for people.
    pub fn what(&self) -> String {
        match &self.network {
            NetworkFiles::Folder(_, shape) => shape.model_type.to_owned(),
            NetworkFiles::Gguf(quantised) => quantised.what.clone(),
        }
    }

    /// Reads the weights.
    ///
    /// # Errors
    /// A tensor is missing, broken or of the wrong shape.
    pub fn network(&self) -> Result<Frozen, LmError> {
        match &self.network {
            NetworkFiles::Folder(path, shape) => shape.load(path),
            NetworkFiles::Gguf(quantised) => quantised.load(),
        }
    }
}

fn identity() -> blake3::Hasher {
    blake3::Hasher::new_derive_key("gradus candle engine v1")
}

fn hash_texts(hasher: &mut blake3::Hasher, texts: &BTreeMap<String, String>) {
    for (name, text) in texts {
        for part in [name, text] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
    }
}

fn hash_file(hasher: &mut blake3::Hasher, path: &Path) -> Result<(), LmError> {
    let file = File::open(path).map_err(|error| LmError::io(path, error))?;
    let length = file.metadata().map_err(|error| LmError::io(path, error))?.len();
    hasher.update(&length.to_le_bytes());
    hasher.update_reader(file).map_err(|error| LmError::io(path, error))?;
    Ok(())
}
