//! What would fit: lighter settings, found by trying.

use super::{Memory, Outline, parameters};
use crate::config::{Config, Dtype};
use crate::lm::config::ModelConfig;
use serde::Serialize;

/// A change of settings and what the run would need with it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Remedy {
    /// Settings as they are written, or another model.
    pub change: String,
    /// Bytes at the peak with it.
    pub bytes: u64,
}

/// Lighter settings, those that cost least first. A smaller batch is none: a batch is cut into parts
/// that fit. For a device: what makes it hold less.
pub(super) fn lighter(config: &Config, memory: Memory) -> Vec<(String, Config)> {
    let mut all: Vec<(String, Config)> = Vec::new();
    let mut offer = |from: &(String, Config), text: String, change: &dyn Fn(&mut Config)| {
        let mut next = from.clone();
        change(&mut next.1);
        if next.1 != from.1 {
            next.0 = if from.0.is_empty() { text } else { format!("{} and {text}", from.0) };
            all.push(next.clone());
        }
        next
    };
    let mut plain = (String::new(), config.clone());
    if memory == Memory::Device {
        plain = offer(&plain, "dtype: bf16".to_owned(), &|c| c.dtype = Dtype::Bf16);
    }
    let recompute = |c: &mut Config| c.train.gradient_checkpointing = true;
    let adapter = |c: &mut Config| c.train.use_peft = true;
    let (recompute_text, adapter_text) =
        ("train.gradient_checkpointing: true".to_owned(), "train.use_peft: true".to_owned());
    offer(&plain, recompute_text.clone(), &recompute);
    let lora = offer(&plain, adapter_text, &adapter);
    let mut from = offer(&lora, recompute_text, &recompute);
    let rank = config.train.lora_r.min(16);
    from = offer(&from, format!("train.lora_r: {rank}"), &|c| c.train.lora_r = rank);
    let few = config.sampling.batch_prompts.div_ceil(4);
    from = offer(&from, format!("sampling.batch_prompts: {few}"), &|c| {
        c.sampling.batch_prompts = few;
    });
    if memory == Memory::Machine {
        from = offer(&from, "sampling.weight_bits: 8".to_owned(), &|c| c.sampling.weight_bits = 8);
    }
    for divisor in [2, 4] {
        let answer = (config.sampling.max_new_tokens / divisor).max(16);
        offer(&from, format!("sampling.max_new_tokens: {answer}"), &|c| {
            c.sampling.max_new_tokens = c.sampling.max_new_tokens.min(answer);
        });
    }
    all
}

/// What would fit into `available` bytes of a memory, found by trying: changes of settings, least
/// damage first, and the largest model of this make (fewer layers) that the lightest of them takes.
/// Empty where nothing does.
pub fn remedies(outline: &Outline<'_>, memory: Memory, available: u64) -> Vec<Remedy> {
    let peak = |model: &ModelConfig, config: &Config| {
        Outline { model, config, ..*outline }.needs(memory).peak().1
    };
    let tried = lighter(outline.config, memory);
    let all = tried.iter().map(|(change, config)| Remedy {
        change: change.clone(),
        bytes: peak(outline.model, config),
    });
    let fitting: Vec<Remedy> = all.filter(|remedy| remedy.bytes <= available).collect();
    if !fitting.is_empty() {
        return fitting;
    }
    let (change, config) =
        tried.last().cloned().unwrap_or_else(|| (String::new(), outline.config.clone()));
    let smaller = (1..outline.model.num_hidden_layers).rev().map(|layers| {
        let model = ModelConfig { num_hidden_layers: layers, ..outline.model.clone() };
        (parameters(&model), peak(&model, &config))
    });
    let found = smaller.into_iter().find(|(_, bytes)| *bytes <= available);
    let with = if change.is_empty() { change } else { format!(" with {change}") };
    let remedy = |(count, bytes): (u64, u64)| {
        let millions = count as f64 / 1e6;
        Remedy { change: format!("a model of at most {millions:.0} M parameters{with}"), bytes }
    };
    found.map(remedy).into_iter().collect()
}
