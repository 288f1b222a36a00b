//! WHAT A RUN HOLDS IN MEMORY, by shapes and formulae: the one estimate that `init`, `run` and
//! `doctor` share. It says what every stage holds at its worst moment, in the last of the run's
//! iterations (later ones have more policies open), and what to change where that is too much.
//!
//! It counts what the code holds by design, and what glibc's allocator keeps of memory that was given
//! back: pieces of less than 32 MiB stay in the heap, where the next stage finds them. All threads
//! share one heap, as those of the `gradus` command do; in a host with a heap for each thread every
//! stage keeps its own, and that comes on top. How much there is in truth `doctor` measures.
//!
//! Where a GPU computes there are two memories: what lies on the device, and what passes through the
//! machine's on its way there and back (`gpu`).

mod disk;
mod fit;
mod gpu;
mod remedies;
#[cfg(test)]
mod tests;

pub use fit::{check, check_now, gib, refusal};
pub use remedies::{Remedy, remedies};

use crate::config::Config;
use crate::domain::event::IterationKind;
use crate::engine::local::{OPEN_POLICIES_MAX, storage};
use crate::lm::config::ModelConfig;
use crate::lm::device::{DeviceKind, SelectedDevice};
use crate::lm::estimate::SavedActivations;
use crate::lm::estimate::cpu::{
    LOGIT_BYTES_MAX, MICRO_BATCH_BYTES, activation_bytes_per_row, cache_bytes,
    data_parallel_workers, drawing_bytes, open_bytes,
};
use crate::lm::generate::live_max;
pub use crate::lm::tensors::parameters;
use crate::lm::tensors::{TensorSpec, tensors};
use crate::view::RunView;
pub use disk::DiskNeeds;
use serde::Serialize;

const F32_BYTES: u64 = size_of::<f32>() as u64;
/// The process without a model: sandboxes, the log, threads. Measured.
const PROCESS_BYTES: u64 = 40 << 20;
/// What a tokenizer takes for each of its tokens. Measured.
const TOKENIZER_BYTES_PER_TOKEN: u64 = 700;
/// Positions that a sequence's keys and values are set aside for together, at the most.
const BLOCK_TOKENS: usize = 32;

/// Larger pieces go back to the system at once (mallopt(3), M_MMAP_THRESHOLD).
const KEPT_BYTES_MAX: u64 = 32 << 20;

/// Share of the weights in tensors so small that the heap keeps their memory.
fn kept_share(config: &ModelConfig) -> f64 {
    let small = |spec: &&TensorSpec| spec.count() * F32_BYTES < KEPT_BYTES_MAX;
    let kept: u64 = tensors(config).iter().filter(small).map(TensorSpec::count).sum();
    kept as f64 / parameters(config).max(1) as f64
}

/// Parameters of an adapter with these settings.
fn adapter_parameters(model: &ModelConfig, config: &Config) -> u64 {
    let wanted = |spec: &&TensorSpec| {
        let targets = &config.train.lora_target_modules;
        targets.iter().any(|part| spec.linear_name().ends_with(&format!(".{part}")))
    };
    let all = tensors(model);
    let layers = all.iter().filter(|spec| spec.shape.len() == 2).filter(wanted);
    let sides = layers.map(|spec| spec.shape.iter().sum::<usize>() as u64);
    u64::from(config.train.lora_r) * sides.sum::<u64>()
}

/// How long things are, in tokens. Bounds before anything is known, means once it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Lengths {
    /// A prompt, as the model is shown it.
    pub prompt: usize,
    /// An answer.
    pub answer: usize,
    /// What all of the judge's questions begin with.
    pub rubric: usize,
    /// The rest of a question.
    pub question: usize,
    /// The judge's reply.
    pub reply: usize,
}

impl Lengths {
    /// The most that these settings allow, with prompts and rubrics of a usual length.
    pub fn most(config: &Config) -> Lengths {
        let answer = config.sampling.max_new_tokens as usize;
        let reply = config.judge.max_new_tokens as usize;
        Lengths { prompt: 256, answer, rubric: 512, question: 256 + answer, reply }
    }

    /// Not longer than these settings and the model's context allow: a bound that was lowered cuts
    /// what was measured.
    fn within(self, config: &Config, context: usize) -> Lengths {
        let answer = self.answer.min(config.sampling.max_new_tokens as usize).min(context);
        let cut = self.answer - answer;
        let reply = self.reply.min(config.judge.max_new_tokens as usize).min(context);
        let question = self.question.saturating_sub(cut).min(context);
        let (prompt, rubric) = (self.prompt.min(context), self.rubric.min(context));
        Lengths { prompt, answer, rubric, question, reply }
    }
}

/// How iterations train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    /// All by preference.
    Preference,
    /// The first, which is to come, by supervision.
    SupervisedFirst,
}

impl Kinds {
    /// How a run's iterations train from here on.
    pub fn of(view: &RunView) -> Kinds {
        let upcoming = view.open().map_or_else(|| view.next_iteration().1, |(_, open)| open.kind);
        match upcoming {
            IterationKind::Sft => Kinds::SupervisedFirst,
            IterationKind::Dpo => Kinds::Preference,
        }
    }
}

/// Which memory is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// The machine's.
    Machine,
    /// That of the GPU that computes.
    Device,
}

/// What is to be estimated.
#[derive(Clone, Copy, Debug)]
pub struct Outline<'a> {
    /// The model.
    pub model: &'a ModelConfig,
    /// The settings.
    pub config: &'a Config,
    /// How iterations train.
    pub kinds: Kinds,
    /// How long things are; `None`: the most that the settings allow.
    pub lengths: Option<Lengths>,
    /// What computes.
    pub device: DeviceKind,
}

/// Bytes at the worst moment of each stage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MemoryNeeds {
    /// Opening a policy, and answering.
    pub sampler: u64,
    /// Judging.
    pub judge: u64,
    /// Scoring pairs under the reference.
    pub reference: u64,
    /// Training: loading, steps, saving a checkpoint, going on from it.
    pub trainer: u64,
    /// Opening the checkpoint beside the policies that are open.
    pub opening: u64,
    /// Measuring a checkpoint.
    pub evaluator: u64,
}

impl MemoryNeeds {
    /// The stages with what they hold, in their order.
    pub fn stages(&self) -> [(&'static str, u64); 5] {
        [
            ("sampler", self.sampler),
            ("judge", self.judge),
            ("reference", self.reference),
            ("trainer", self.trainer),
            ("evaluator", self.evaluator.max(self.opening)),
        ]
    }

    /// The stage that holds most, and how much.
    pub fn peak(&self) -> (&'static str, u64) {
        self.stages().into_iter().max_by_key(|(_, bytes)| *bytes).unwrap_or_default()
    }
}

/// The heap: what it once held in small pieces it keeps, for whoever comes next.
#[derive(Default)]
struct Heap {
    most: u64,
}

impl Heap {
    /// How large it is when so many bytes of it are in use, in the order of the stages.
    fn holds(&mut self, bytes: u64) -> u64 {
        self.most = self.most.max(bytes);
        self.most
    }
}

/// What one training holds, bytes.
struct TrainingMemory {
    /// All weights, an adapter's too.
    weights: u64,
    /// Those that move.
    moving: u64,
    /// Of these, for every thread that has its own.
    gradients: u64,
    /// Activations and logits.
    step: u64,
}

impl TrainingMemory {
    /// At its worst moment. Loading: bytes and tensors, of what moves its moments too. A step:
    /// weights, gradients, two moments, activations and logits. Saving: beside that, once more
    /// both moments as tensors and as bytes.
    fn peak(&self) -> u64 {
        let steady = self.weights + self.gradients + 2 * self.moving + self.step;
        let loading = 2 * self.weights;
        let restoring = self.weights + self.gradients + 4 * self.moving;
        (steady + 4 * self.moving).max(loading).max(restoring)
    }

    /// What of it is in small pieces, which the heap keeps afterwards. The bytes of a checkpoint are
    /// one large piece.
    fn small(&self, share: f64) -> u64 {
        let all = self.weights + self.gradients + 4 * self.moving;
        ((share * all as f64) as u64 + self.step).min(self.peak())
    }
}

impl<'a> Outline<'a> {
    /// Of a run with things as long as the settings allow.
    pub fn of(
        model: &'a ModelConfig,
        config: &'a Config,
        kinds: Kinds,
        device: &SelectedDevice,
    ) -> Outline<'a> {
        Outline { model, config, kinds, lengths: None, device: device.kind }
    }

    fn lengths(&self) -> Lengths {
        let lengths = self.lengths.unwrap_or_else(|| Lengths::most(self.config));
        lengths.within(self.config, self.model.max_position_embeddings)
    }

    /// What each stage holds of a memory at its worst moment, bytes.
    pub fn needs(&self, memory: Memory) -> MemoryNeeds {
        match (memory, self.device) {
            (Memory::Device, _) => self.on_gpu(),
            (Memory::Machine, DeviceKind::Cuda(_)) => self.beside_gpu(),
            (Memory::Machine, _) => self.on_cpu(),
        }
    }

    /// The process, its tokenizer with it, and frozen models beside the run's own.
    fn process_bytes(&self) -> u64 {
        let tokenizer = self.model.vocab_size as u64 * TOKENIZER_BYTES_PER_TOKEN;
        PROCESS_BYTES + tokenizer + self.config.brought.memory_bytes
    }

    /// Policies that are open when the last iteration begins, and with its checkpoint.
    fn open_policies(&self) -> (u64, u64) {
        let (iterations, most) =
            (u64::from(self.config.iterations.max(1)), OPEN_POLICIES_MAX as u64);
        (iterations.min(most), (iterations + 1).min(most))
    }

    fn on_cpu(&self) -> MemoryNeeds {
        let (model, config) = (self.model, self.config);
        let base = self.process_bytes();
        let weights = parameters(model) * F32_BYTES;
        let (last, beside) = self.open_policies();
        let open = open_bytes(model, storage(&config.engine()));
        let (acting, measuring) = (base + last * open, base + beside * open);
        let (answering, judging) = (self.answering_bytes(), self.judging_bytes());
        let share = kept_share(model);
        let tensors = (share * weights as f64) as u64;
        let large = weights - tensors;
        let training = self.training(weights);
        let mut heap = Heap::default();
        // A policy on its way in: its bytes beside its tensors, or its tensors before and after an
        // adapter is added.
        let sampler = acting + (large + heap.holds(tensors)).max(heap.holds(answering));
        let judge = acting + heap.holds(judging);
        let reference = acting + 2 * large + heap.holds(2 * tensors);
        let supervised = self.supervised_peak(weights);
        let steps = training.peak() - training.small(share) + heap.holds(training.small(share));
        MemoryNeeds {
            sampler,
            judge,
            reference,
            trainer: acting + steps.max(supervised),
            opening: measuring + large + heap.holds(tensors),
            evaluator: measuring + heap.holds(judging.max(answering)),
        }
    }

    fn answering_bytes(&self) -> u64 {
        let (live, tokens) = self.answering();
        cache_bytes(self.model, tokens) + drawing_bytes(self.model, live)
    }

    fn judging_bytes(&self) -> u64 {
        let (live, tokens) = self.judging();
        cache_bytes(self.model, tokens) + drawing_bytes(self.model, live)
    }

    /// Answers that are drawn together, and the tokens that are held for them.
    fn answering(&self) -> (usize, usize) {
        let Lengths { prompt, answer, .. } = self.lengths();
        let settings = &self.config.sampling;
        let rows = (settings.batch_prompts * settings.candidates) as usize;
        let live = rows.min(live_max(self.model, self.device));
        let prompts = live.div_ceil(settings.candidates.max(1) as usize);
        (live, prompts * blocks(prompt) + live * blocks(answer))
    }

    /// Replies that are drawn together, and the tokens that are held for them.
    fn judging(&self) -> (usize, usize) {
        let Lengths { rubric, question, reply, .. } = self.lengths();
        let (settings, sampling) = (&self.config.judge, &self.config.sampling);
        let questions = (sampling.batch_prompts * sampling.candidates) as usize;
        let rows = questions * settings.samples as usize;
        let live = rows.min(live_max(self.model, self.device));
        let asked = live.div_ceil(settings.samples.max(1) as usize);
        // What two questions begin with is one more piece, and so is what two replies do.
        let tokens =
            blocks(rubric) + asked * (BLOCK_TOKENS + blocks(question)) + live * blocks(reply);
        (live, tokens)
    }

    fn saved_activations(&self) -> SavedActivations {
        match self.config.train.gradient_checkpointing {
            true => SavedActivations::LayerInputs,
            false => SavedActivations::All,
        }
    }

    /// Activations of a part of a batch, and a chunk of logits.
    fn step_bytes(&self, items: u32, rows: usize) -> u64 {
        let per_row = activation_bytes_per_row(self.model, self.saved_activations()) as u64;
        let (items, rows) = (u64::from(items.max(1)), rows as u64);
        let cut = (items * rows * per_row).min((MICRO_BATCH_BYTES as u64).max(rows * per_row));
        cut + self.logit_bytes(items * rows)
    }

    /// Training in preference iterations; `weights` are the model's bytes.
    fn training(&self, weights: u64) -> TrainingMemory {
        let Lengths { prompt, answer, .. } = self.lengths();
        let batch = self.config.train.dpo.per_device_train_batch_size;
        self.training_by(weights, self.step_bytes(batch, prompt + 2 * answer))
    }

    /// Training whose steps take so many bytes: of all weights, or of an adapter.
    fn training_by(&self, weights: u64, step: u64) -> TrainingMemory {
        let train = &self.config.train;
        let adapter = adapter_parameters(self.model, self.config) * F32_BYTES;
        let (moving, frozen) = if train.use_peft { (adapter, weights) } else { (weights, 0) };
        // Threads of a small model have gradients of their own.
        let workers = data_parallel_workers(weights as usize, train.threads as usize) as u64;
        TrainingMemory { weights: frozen + moving, moving, gradients: workers * moving, step }
    }

    /// The supervised iteration's peak, where it is to come. It is the first: of the policies that
    /// are open in the last one it has but one.
    fn supervised_peak(&self, weights: u64) -> u64 {
        if self.kinds == Kinds::Preference {
            return 0;
        }
        let Lengths { prompt, answer, .. } = self.lengths();
        let step =
            self.step_bytes(self.config.train.sft.per_device_train_batch_size, prompt + answer);
        let open = open_bytes(self.model, storage(&self.config.engine()));
        let spared = u64::from(self.config.iterations.clamp(1, 3) - 1) * open;
        self.training_by(weights, step).peak().saturating_sub(spared)
    }

    fn logit_bytes(&self, rows: u64) -> u64 {
        let row = self.model.vocab_size as u64 * F32_BYTES;
        (rows * row).min((LOGIT_BYTES_MAX as u64).max(16 * row))
    }
}

fn blocks(tokens: usize) -> usize {
    tokens.next_multiple_of(BLOCK_TOKENS)
}
