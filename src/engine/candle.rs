//! Any causal model of candle-transformers, frozen: a judge or a sampler beside the run's own
//! policy. From a Hugging Face folder with safetensors, or from a GGUF file, whose weights stay
//! quantised as they are. It has its own tokenizer and chat template; tokens are drawn by the same
//! rule and from the same derived streams as the policy's, so that the same seed gives the same
//! answer.
//!
//! It computes on the CPU, one sequence after another: for models that are not ours, exactness and
//! breadth come before speed. It is also what our own decoder is held to (`tests/it/oracle.rs`).
//!
//! | room | what it is for |
//! | --- | --- |
//! | `files` | what lies in the folder or the file: texts, kind of network, identity |
//! | `folder` | networks from safetensors, by `model_type` |
//! | `quantised` | networks from GGUF, by `general.architecture` |
//! | `network` | what all of them have in common: a step of a conversation |

mod files;
mod folder;
mod network;
mod quantised;

use super::tokens::TokenChat;
use super::{Capabilities, ChatModel, Engine, EngineError, Identity, Needs};
use crate::domain::plan::{self, AnswersWith};
use crate::domain::{Completion, Message, PolicyRef, Seed, StopReason};
use crate::lm::cancel::Cancel;
use crate::lm::chat_files::ChatFiles;
use crate::lm::error::LmError;
use crate::lm::generate::{DrawRequest, Sampling, choose, logp_of, penalised};
use crate::lm::policy::{LanguageModel, Vocabulary};
use files::Files;
use network::{Conversation, Frozen};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A frozen model. Its weights are read when it is first asked, and stay then.
pub struct CandleEngine {
    files: Files,
    loaded: Mutex<Option<Arc<CandleModel>>>,
}

/// A frozen model with its weights in memory.
pub struct CandleModel {
    chat: Arc<ChatFiles>,
    frozen: Frozen,
    context_tokens_max: usize,
    /// One conversation at a time.
    turn: Mutex<()>,
}

impl CandleEngine {
    /// Opens a folder or a `.gguf` file: reads its texts and hashes all of it.
    ///
    /// # Errors
    /// What is missing, or what candle-transformers would compute wrongly.
    pub fn open(path: &Path) -> Result<CandleEngine, EngineError> {
        Ok(CandleEngine { files: Files::open(path)?, loaded: Mutex::default() })
    }

    /// The model, its weights read now or before.
    ///
    /// # Errors
    /// A tensor is missing, broken or of the wrong shape.
    pub fn model(&self) -> Result<Arc<CandleModel>, EngineError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = loaded.as_ref() {
            return Ok(model.clone());
        }
        let model = Arc::new(CandleModel {
            chat: self.files.chat().clone(),
            frozen: self.files.network()?,
            context_tokens_max: self.files.chat().context_tokens_max(),
            turn: Mutex::default(),
        });
        *loaded = Some(model.clone());
        Ok(model)
    }
}

/// Bytes that a frozen model's weights take in memory: of a GGUF file what they take in it, of a folder
/// four for each number.
pub(super) fn memory_bytes(path: &Path) -> u64 {
    match path.is_dir() {
        true => folder::memory_bytes(path),
        false => std::fs::metadata(path).map_or(0, |file| file.len()),
    }
}

impl Engine for CandleEngine {
    fn identity(&self) -> Identity {
        Identity {
            what: format!("candle {}", self.files.what()),
            hash: self.files.identity().clone(),
            answers_with: AnswersWith::Own,
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            vocabulary: Some(self.files.vocabulary()),
            choice_logps: true,
            seeds: true,
            begun_turns: true,
        }
    }

    fn needs(&self) -> Needs {
        Needs::Device
    }

    fn open(
        &self,
        _: &PolicyRef,
        _: &plan::PlannedEngine,
    ) -> Result<Arc<dyn ChatModel>, EngineError> {
        Ok(TokenChat::over(self.model()?))
    }
}

/// The next number of a stream, in [0, 1): that of [`crate::lm::generate`].
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

impl CandleModel {
    /// Logits of what comes after `ids`, one for each row of the embedding.
    ///
    /// # Errors
    /// `ids` is empty or longer than the model can read; broken weights.
    pub fn logits(&self, ids: &[u32]) -> Result<Vec<f32>, LmError> {
        self.check(ids, 0)?;
        let _turn = self.turn();
        self.frozen.begin().read(ids)
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, ids: &[u32], more: usize) -> Result<(), LmError> {
        let most = self.context_tokens_max;
        match ids.is_empty() || ids.len() + more > most {
            false => Ok(()),
            true => Err(LmError::Model(format!(
                "a context of {} tokens and {more} more: there must be at least 1, and at most the \
                 {most} that this model can read",
                ids.len()
            ))),
        }
    }

    /// Draws one answer after a prompt that was read.
    fn draw_one(
        &self,
        mut at: Conversation,
        mut logits: Vec<f32>,
        (request, seed): (&DrawRequest, Seed),
        cancel: &Cancel,
    ) -> Result<Completion, LmError> {
        let Sampling { repetition_penalty, max_new_tokens, stop_ids, .. } = &request.sampling;
        let mut rng = ChaCha8Rng::from_seed(seed.0);
        let mut seen: Option<BTreeSet<u32>> =
            (*repetition_penalty != 1.0).then(|| request.prompt.iter().copied().collect());
        let (mut ids, mut logp): (Vec<u32>, f64) = (Vec::new(), 0.0);
        // An id without a text cannot be spoken; networks have more rows than their tokenizers.
        let spoken = self.chat.tokenizer().ids_bound();
        let stop = loop {
            cancel.check()?;
            logits.truncate(spoken);
            let id = match &seen {
                None => choose(&logits, &request.sampling, unit(&mut rng))?,
                Some(seen) => {
                    let less = penalised(&logits, seen, *repetition_penalty);
                    choose(&less, &request.sampling, unit(&mut rng))?
                }
            };
            if let Some(seen) = &mut seen {
                seen.insert(id);
            }
            logp += logp_of(&logits, id);
            ids.push(id);
            if stop_ids.contains(&id) {
                break StopReason::TurnEnd;
            }
            let full = request.prompt.len() + ids.len() >= self.context_tokens_max;
            if full || ids.len() >= *max_new_tokens {
                break StopReason::Length;
            }
            logits = at.read(&[id])?;
        };
        let text = self.chat.decode(&ids)?;
        Ok(Completion { token_ids: ids, text, logp: Some(logp), stop })
    }

    /// Log-probabilities of each choice right after a context.
    fn choices_after(
        &self,
        context: &[u32],
        choices: &[Vec<u32>],
        cancel: &Cancel,
    ) -> Result<Vec<f64>, LmError> {
        let mut found = Vec::with_capacity(choices.len());
        let (mut at, after) = self.frozen.read(context)?;
        for choice in choices {
            cancel.check()?;
            let Some((first, rest)) = choice.split_first() else {
                return Err(LmError::Model("a choice is empty".to_owned()));
            };
            let mut logp = likelihood(&after, *first)?;
            if !rest.is_empty() {
                let mut on = at.branch(context)?;
                let mut before = *first;
                for id in rest {
                    cancel.check()?;
                    logp += likelihood(&on.read(&[before])?, *id)?;
                    before = *id;
                }
            }
            found.push(logp);
        }
        Ok(found)
    }
}

fn likelihood(logits: &[f32], id: u32) -> Result<f64, LmError> {
    match (id as usize) < logits.len() {
        true => Ok(logp_of(logits, id)),
        false => Err(LmError::Model(format!("token {id} is outside the vocabulary"))),
    }
}

impl Vocabulary for CandleModel {
    fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>, LmError> {
        self.chat.encode_chat(messages)
    }

    fn encode_text(&self, text: &str) -> Result<Vec<u32>, LmError> {
        self.chat.encode_text(text)
    }

    fn encode_template(&self, text: &str) -> Result<Vec<u32>, LmError> {
        self.chat.encode_template(text)
    }

    fn decode(&self, ids: &[u32]) -> Result<String, LmError> {
        self.chat.decode(ids)
    }

    fn turn_end(&self) -> u32 {
        self.chat.turn_end()
    }

    fn stop_ids(&self) -> &[u32] {
        self.chat.stop_ids()
    }

    fn context_tokens_max(&self) -> usize {
        self.context_tokens_max
    }
}

impl LanguageModel for CandleModel {
    fn draw(
        &self,
        requests: &[DrawRequest],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<Completion>>, LmError> {
        let _turn = self.turn();
        let mut all = Vec::with_capacity(requests.len());
        for request in requests {
            cancel.check()?;
            self.check(&request.prompt, 1)?;
            request.sampling.validate()?;
            let (mut at, after) = self.frozen.read(&request.prompt)?;
            let mut answers = Vec::with_capacity(request.seeds.len());
            for seed in &request.seeds {
                let branch = at.branch(&request.prompt)?;
                answers.push(self.draw_one(branch, after.clone(), (request, *seed), cancel)?);
            }
            all.push(answers);
        }
        Ok(all)
    }

    fn choice_logps(
        &self,
        contexts: &[Vec<u32>],
        choices: &[Vec<u32>],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<f64>>, LmError> {
        let longest = choices.iter().map(Vec::len).max().unwrap_or(0);
        let _turn = self.turn();
        let mut all = Vec::with_capacity(contexts.len());
        for context in contexts {
            cancel.check()?;
            self.check(context, longest)?;
            all.push(self.choices_after(context, choices, cancel)?);
        }
        Ok(all)
    }
}
