//! What is seen of a model from outside this room. Text in, completions and probabilities out; no
//! tensor, no file name. [`Policy`] is the implementation that computes on this machine.

use super::cancel::Cancel;
use super::chat::Message;
use super::completion::Completion;
use super::config::ModelConfig;
use super::error::LmError;
use super::generate::{DrawRequest, DrawSource, Drawn, Generator, ToldToken};
use super::gpu::{AdapterUse, Base, Gpu, GpuDecoder, Trainable, WeightStore};
use super::lora::{Lora, LoraSettings};
use super::model_files::ModelFiles;
use super::ops::Storage;
use super::packed::TokenScorer;
pub use super::vocabulary::Vocabulary;
use super::weights::Weights;
use std::sync::Arc;

/// A language model that answers and reads.
pub trait LanguageModel: Vocabulary {
    /// Draws every candidate of every request. The result of a request does not depend on the
    /// others.
    ///
    /// # Errors
    /// See [`Generator::draw`].
    fn draw(
        &self,
        requests: &[DrawRequest],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<Completion>>, LmError>;

    /// Draws what a source asks for, requests that come later together with those in hand, until no
    /// more will come. The result of a request does not depend on the others. A model that draws one
    /// request after another tells its tokens when all of them are drawn.
    ///
    /// # Errors
    /// See [`Generator::draw_continuously`].
    fn draw_continuously(
        &self,
        source: &mut dyn DrawSource,
        cancel: &Cancel,
    ) -> Result<(), LmError> {
        let mut request = 0;
        while let Some(requests) = source.next(1, true) {
            for asked in requests {
                match self.draw(&[asked], cancel) {
                    Ok(drawn) => tell_whole(source, request, drawn.into_iter().flatten()),
                    Err(LmError::Cancelled) => return Err(LmError::Cancelled),
                    Err(why) => source.refused(request, why),
                }
                request += 1;
            }
        }
        Ok(())
    }

    /// Per context and choice: the log-probability of the choice right after the context.
    ///
    /// # Errors
    /// See [`Generator::choice_logps`].
    fn choice_logps(
        &self,
        contexts: &[Vec<u32>],
        choices: &[Vec<u32>],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<f64>>, LmError>;
}

/// Tells a source of answers that were drawn as a whole.
fn tell_whole(
    source: &mut dyn DrawSource,
    request: usize,
    answers: impl Iterator<Item = Completion>,
) {
    for (candidate, answer) in answers.enumerate() {
        let Completion { token_ids, logp, stop, .. } = answer;
        let mut wanted = true;
        for &id in &token_ids {
            wanted = wanted && source.token(ToldToken { request, candidate, id, logp: None });
        }
        if wanted {
            let logp = logp.unwrap_or_default();
            source.ended(request, candidate, Drawn { token_ids, logp, stop });
        }
    }
}

/// A LoRA adapter: PEFT's tensor names, and the numbers of its `adapter_config.json`.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// `base_model.model.{module}.lora_A.weight` and `.lora_B.weight`.
    pub weights: Weights,
    /// `lora_alpha`.
    pub alpha: f64,
    /// `r`.
    pub rank: usize,
}

impl Adapter {
    /// alpha / r.
    ///
    /// # Errors
    /// A rank of 0.
    pub fn scale(&self) -> Result<f64, LmError> {
        match self.rank {
            0 => Err(LmError::Config("the adapter's rank (r) is 0".into())),
            rank => Ok(self.alpha / rank as f64),
        }
    }
}

/// A model in memory.
pub struct Policy {
    files: Arc<ModelFiles>,
    generator: Generator,
}

impl Policy {
    /// Arranges weights, with an adapter merged in where one is given.
    ///
    /// # Errors
    /// Tensors are missing or do not fit.
    pub fn new(
        files: Arc<ModelFiles>,
        weights: Weights,
        adapter: Option<&Adapter>,
    ) -> Result<Policy, LmError> {
        Policy::stored(files, weights, adapter, Storage::Exact)
    }

    /// As [`Policy::new`], with the matrices kept as told.
    ///
    /// # Errors
    /// As [`Policy::new`].
    pub fn stored(
        files: Arc<ModelFiles>,
        weights: Weights,
        adapter: Option<&Adapter>,
        storage: Storage,
    ) -> Result<Policy, LmError> {
        let weights = match adapter {
            Some(adapter) => weights.merged(&adapter.weights, adapter.scale()?)?,
            None => weights,
        };
        let generator = Generator::stored(files.config(), weights, storage)?;
        Ok(Policy { files, generator })
    }

    /// A policy on a device, over weights that others there read as well. Its adapter is not merged,
    /// so that all policies of a run hold one copy of what they have in common.
    ///
    /// # Errors
    /// As [`Policy::new`], and [`LmError::DeviceMemory`].
    pub fn on(
        gpu: &Gpu,
        files: Arc<ModelFiles>,
        base: Arc<Base>,
        adapter: Option<&Adapter>,
    ) -> Result<Policy, LmError> {
        let decoder = reader_on(gpu, files.config(), base, adapter)?;
        let generator = Generator::on(files.config(), decoder);
        Ok(Policy { files, generator })
    }

    /// The files it was made from.
    pub fn files(&self) -> &Arc<ModelFiles> {
        &self.files
    }

    /// What draws, for callers that work on ids.
    pub fn generator(&self) -> &Generator {
        &self.generator
    }
}

impl Vocabulary for Policy {
    fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>, LmError> {
        self.files.chat().encode_chat(messages)
    }

    fn encode_text(&self, text: &str) -> Result<Vec<u32>, LmError> {
        self.files.chat().encode_text(text)
    }

    fn encode_template(&self, text: &str) -> Result<Vec<u32>, LmError> {
        self.files.chat().encode_template(text)
    }

    fn decode(&self, ids: &[u32]) -> Result<String, LmError> {
        self.files.chat().decode(ids)
    }

    fn turn_end(&self) -> u32 {
        self.files.chat().turn_end()
    }

    fn stop_ids(&self) -> &[u32] {
        self.files.chat().stop_ids()
    }

    fn context_tokens_max(&self) -> usize {
        self.files.chat().context_tokens_max()
    }
}

impl LanguageModel for Policy {
    fn draw(
        &self,
        requests: &[DrawRequest],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<Completion>>, LmError> {
        let drawn = self.generator.draw(requests, cancel)?;
        let completion = |d: super::generate::Drawn| {
            let text = self.files.tokenizer().decode(&d.token_ids)?;
            Ok(Completion { text, token_ids: d.token_ids, logp: Some(d.logp), stop: d.stop })
        };
        drawn.into_iter().map(|r| r.into_iter().map(completion).collect()).collect()
    }

    fn draw_continuously(
        &self,
        source: &mut dyn DrawSource,
        cancel: &Cancel,
    ) -> Result<(), LmError> {
        self.generator.draw_continuously(source, cancel)
    }

    fn choice_logps(
        &self,
        contexts: &[Vec<u32>],
        choices: &[Vec<u32>],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<f64>>, LmError> {
        self.generator.choice_logps(contexts, choices, cancel)
    }
}

fn reader_on(
    gpu: &Gpu,
    config: &ModelConfig,
    base: Arc<Base>,
    adapter: Option<&Adapter>,
) -> Result<GpuDecoder, LmError> {
    let lora = adapter.map(|adapter| {
        let Adapter { weights, alpha, rank } = adapter;
        let settings = LoraSettings { r: *rank, alpha: *alpha, target_modules: Vec::new() };
        Lora::new(weights, &settings)
    });
    let lora = lora.transpose()?;
    let adapters = lora.as_ref().map(|lora| AdapterUse { lora, moves: Trainable::Nothing });
    Ok(GpuDecoder::new(WeightStore::over(gpu, config, base, adapters.as_ref())?))
}

/// What says on a device how likely tokens are, over weights that others there read as well.
///
/// # Errors
/// As [`Policy::on`].
pub fn scores_on(
    gpu: &Gpu,
    config: &ModelConfig,
    base: Arc<Base>,
    adapter: Option<&Adapter>,
) -> Result<Box<dyn TokenScorer>, LmError> {
    Ok(Box::new(reader_on(gpu, config, base, adapter)?))
}

#[cfg(test)]
mod tests;
