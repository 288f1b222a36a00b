//! A run whose model computes on a GPU: what lies there, by the formulae of `lm::estimate::gpu`,
//! and what the machine's own memory holds beside it.
//!
//! A policy that is open lies on the device while others train and draw; a trainer's weights, moments
//! and activations are gone from it when its segment is saved. Of both, the machine's memory sees
//! what passes through: files as bytes beside their tensors. What the driver takes of it is not
//! counted; it has not been measured.

use super::{F32_BYTES, Kinds, Lengths, MemoryNeeds, Outline, adapter_parameters, parameters};
use crate::config::Dtype;
use crate::lm::estimate::gpu::{
    Drawing, PROCESS_BYTES, Training, frozen_bytes, logit_bytes, reading_bytes,
};

impl Outline<'_> {
    fn dtype(&self) -> Dtype {
        self.config.dtype
    }

    /// What each stage holds of the device at its worst moment, bytes.
    pub(super) fn on_gpu(&self) -> MemoryNeeds {
        let (last, beside) = self.open_policies();
        let acting = PROCESS_BYTES + self.open(last);
        let measuring = PROCESS_BYTES + self.open(beside);
        let (answering, judging) = (self.drawing(self.answering()), self.drawing(self.judging()));
        MemoryNeeds {
            sampler: acting + answering,
            judge: acting + judging,
            reference: acting + self.scoring(),
            trainer: (acting + self.preference().bytes(self.model)).max(self.supervised()),
            opening: measuring,
            evaluator: measuring + answering.max(judging),
        }
    }

    /// What each stage holds of the machine's memory meanwhile: a file of weights as bytes and as
    /// tensors; when a trainer saves or goes on, the same of both moments.
    pub(super) fn beside_gpu(&self) -> MemoryNeeds {
        let base = self.process_bytes();
        let weights = parameters(self.model) * F32_BYTES;
        let moving = match self.config.train.use_peft {
            true => adapter_parameters(self.model, self.config) * F32_BYTES,
            false => weights,
        };
        let loading = base + 2 * weights;
        MemoryNeeds {
            sampler: loading,
            judge: base,
            reference: loading,
            trainer: base + (2 * weights).max(2 * (2 * moving)),
            opening: loading,
            evaluator: base,
        }
    }

    /// So many open policies. Those that differ in an adapter share what it lies on.
    fn open(&self, policies: u64) -> u64 {
        let frozen = frozen_bytes(self.model, self.dtype());
        if !self.config.train.use_peft {
            return policies * frozen;
        }
        let adapter = adapter_parameters(self.model, self.config) * self.dtype().bytes();
        frozen + policies * adapter
    }

    fn drawing(&self, (live, tokens): (usize, usize)) -> u64 {
        let (live, tokens) = (live as u64, tokens as u64);
        Drawing { live, tokens, dtype: self.dtype() }.bytes(self.model)
    }

    /// Scoring under the reference, whose weights are those of the policy that acts: a chunk of rows
    /// with their logits.
    fn scoring(&self) -> u64 {
        let (model, dtype) = (self.model, self.dtype());
        let Training { items, rows, .. } = self.preference();
        let rows = items * rows;
        reading_bytes(model, dtype, rows) + logit_bytes(model, dtype, rows)
    }

    fn preference(&self) -> Training {
        let Lengths { prompt, answer, .. } = self.lengths();
        let train = &self.config.train;
        Training {
            adapter: train.use_peft.then(|| adapter_parameters(self.model, self.config)),
            items: u64::from(train.dpo.per_device_train_batch_size),
            rows: (prompt + 2 * answer) as u64,
            saved: self.saved_activations(),
            dtype: self.dtype(),
        }
    }

    /// The supervised iteration, where it is to come: the base alone is open.
    fn supervised(&self) -> u64 {
        if self.kinds == Kinds::Preference {
            return 0;
        }
        let Lengths { prompt, answer, .. } = self.lengths();
        let training = Training {
            items: u64::from(self.config.train.sft.per_device_train_batch_size),
            rows: (prompt + answer) as u64,
            ..self.preference()
        };
        PROCESS_BYTES + frozen_bytes(self.model, self.dtype()) + training.bytes(self.model)
    }
}
