//! Answers of a model to prompts, drawn outside a run: what seed data is made of before there is one.

use super::{EftPrompt, GivenAnswer};
use crate::domain::{Completion, Prompt, Seed, StopReason};
use crate::lm::cancel::Cancel;
use crate::lm::device::{Dtype, SelectedDevice};
use crate::lm::error::LmError;
use crate::lm::generate::{DrawRequest, Sampling};
use crate::lm::gpu::{Base, Gpu};
use crate::lm::model_files::ModelFiles;
use crate::lm::policy::{LanguageModel, Policy};
use std::sync::Arc;

/// A model as its files have it, ready to answer.
///
/// # Errors
/// Weights that cannot be read or do not fit; a GPU that cannot be had.
pub fn open_model(
    files: &Arc<ModelFiles>,
    device: &SelectedDevice,
    dtype: Dtype,
) -> Result<Policy, LmError> {
    let weights = files.weights()?;
    match Gpu::of(device, dtype)? {
        Some(gpu) => {
            let base = Base::new(&gpu, files.config(), weights)?;
            Policy::on(&gpu, files.clone(), base, None)
        }
        None => Policy::new(files.clone(), weights, None),
    }
}

/// Prompts that are answered together.
const TOGETHER: usize = 16;

/// Draws `each` answers to every prompt; `tell` hears how many prompts are done.
///
/// # Errors
/// When a prompt does not fit the model, or the drawing is stopped.
pub fn draw_answers(
    model: &dyn LanguageModel,
    prompts: &[Prompt],
    (each, sampling, seed): (u32, &Sampling, Seed),
    cancel: &Cancel,
    tell: &dyn Fn(usize),
) -> Result<Vec<EftPrompt>, LmError> {
    let mut all = Vec::with_capacity(prompts.len());
    for chunk in prompts.chunks(TOGETHER) {
        let request = |prompt: &Prompt| {
            let seed = seed.derive(prompt.id.as_str());
            Ok(DrawRequest {
                prompt: model.encode_chat(&prompt.messages)?,
                seeds: (0..u64::from(each)).map(|n| seed.index(n)).collect(),
                sampling: Sampling { stop_ids: model.stop_ids().to_vec(), ..sampling.clone() },
            })
        };
        let requests = chunk.iter().map(request).collect::<Result<Vec<_>, LmError>>()?;
        for (prompt, drawn) in chunk.iter().zip(model.draw(&requests, cancel)?) {
            let given = |one: Completion| GivenAnswer {
                ended: one.stop == StopReason::TurnEnd,
                text: one.text,
            };
            let answers = drawn.into_iter().map(given).collect();
            all.push(EftPrompt { prompt: prompt.clone(), answers });
        }
        tell(all.len());
    }
    Ok(all)
}
