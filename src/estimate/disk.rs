//! What a run takes of the disk: weights, the checkpoints of training, and texts of the length that
//! the settings allow. Pure arithmetic over shapes.

use super::{F32_BYTES, Kinds, Outline, adapter_parameters, parameters};
use crate::domain::plan::KeepCheckpoints;
use serde::Serialize;

/// Bytes of a token in the log: its text, its number as JSON, and the same in the store. Measured.
const ANSWER_BYTES_PER_TOKEN: u64 = 2 * 11;
/// The same of a reply of the judge, of which the text alone is kept.
const REPLY_BYTES_PER_TOKEN: u64 = 2 * 5;
/// The log without records, its ballast with it.
const LOG_BYTES: u64 = 5 << 20;

/// Bytes that a run takes of the disk at most, by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DiskNeeds {
    /// The weights that it begins with.
    pub base: u64,
    /// What its iterations promote.
    pub policies: u64,
    /// Checkpoints while it trains, or all of them where they are kept.
    pub training: u64,
    /// Prompts, answers and judgments, at the most that the settings allow.
    pub texts: u64,
}

impl DiskNeeds {
    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.base + self.policies + self.training + self.texts
    }
}

impl Outline<'_> {
    /// What a run of these settings takes of the disk. `seed_rows`: how many are learned first.
    pub fn disk(&self, seed_rows: usize) -> DiskNeeds {
        let (config, train) = (self.config, &self.config.train);
        let weights = parameters(self.model) * F32_BYTES;
        let moving = match train.use_peft {
            true => adapter_parameters(self.model, config) * F32_BYTES,
            false => weights,
        };
        // Weights that move and their two moments.
        let checkpoint = 3 * moving;
        let supervised = u64::from(self.kinds == Kinds::SupervisedFirst);
        let preference = u64::from(config.iterations).saturating_sub(supervised);
        let segments = |rows: u64, batch: u32, epochs: u32| {
            let steps = rows.div_ceil(u64::from(batch.max(1))) * u64::from(epochs.max(1));
            steps.div_ceil(u64::from(train.save_steps.max(1)))
        };
        let prompts = u64::from(config.prompts.per_iteration);
        let sft = segments(
            seed_rows as u64,
            train.sft.per_device_train_batch_size,
            train.sft.num_train_epochs,
        );
        let dpo =
            segments(prompts, train.dpo.per_device_train_batch_size, train.dpo.num_train_epochs);
        let training = match train.keep_checkpoints {
            // The newest, and the one that it takes the place of.
            KeepCheckpoints::Newest => 2 * checkpoint,
            KeepCheckpoints::All => (supervised * sft + preference * dpo) * checkpoint,
        };
        DiskNeeds {
            base: weights,
            policies: u64::from(config.iterations) * moving,
            training,
            texts: LOG_BYTES + preference * prompts * self.prompt_bytes(),
        }
    }

    /// What one prompt's answers and judgments come to.
    fn prompt_bytes(&self) -> u64 {
        let lengths = self.lengths();
        let answers = u64::from(self.config.sampling.candidates);
        let replies = answers * u64::from(self.config.judge.samples);
        (lengths.prompt as u64 + answers * lengths.answer as u64) * ANSWER_BYTES_PER_TOKEN
            + replies * lengths.reply as u64 * REPLY_BYTES_PER_TOKEN
    }
}
