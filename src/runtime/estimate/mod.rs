//! WHAT A RUN HOLDS IN MEMORY, by shapes and formulae: the one estimate that `init`, `run` and
//! `doctor` share. It says what every stage holds at its worst moment, in the last of the run's
//! iterations (later ones have more policies open), and what to change where that is too much.
//!
//! It counts what the code holds by design, and what glibc's allocator keeps of memory that was given
//! back: pieces of less than 32 MiB stay with the thread that had them, and every stage has a thread
//! of its own. How much of that there is in truth [`super::doctor`] measures.

use crate::config::Config;
use crate::lm::config::ModelConfig;
use crate::lm::generate::{cache_bytes, drawing_bytes, live_max, open_bytes};
use crate::lm::train::{LOGIT_BYTES_MAX, MICRO_BATCH_BYTES, activation_bytes_per_row, lanes_of};
use crate::lm::weights::expected_shapes;
use crate::stage::candle_workshop::OPEN_POLICIES_MAX;
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

/// Parameters of a network of this shape.
pub fn parameters(config: &ModelConfig) -> u64 {
    expected_shapes(config).iter().map(|(_, shape)| numbers(shape)).sum()
}

/// Share of the weights in tensors so small that a thread keeps their memory.
fn kept_share(config: &ModelConfig) -> f64 {
    let small = |(_, shape): &&(String, Vec<usize>)| numbers(shape) * F32_BYTES < KEPT_BYTES_MAX;
    let all = expected_shapes(config);
    let kept: u64 = all.iter().filter(small).map(|(_, shape)| numbers(shape)).sum();
    kept as f64 / parameters(config).max(1) as f64
}

fn numbers(shape: &[usize]) -> u64 {
    shape.iter().map(|n| *n as u64).product()
}

/// Parameters of an adapter with these settings.
fn adapter_parameters(model: &ModelConfig, config: &Config) -> u64 {
    let wanted = |name: &str| {
        let layer = name.strip_suffix(".weight").unwrap_or(name);
        config.train.lora_target_modules.iter().any(|part| layer.ends_with(&format!(".{part}")))
    };
    let all = expected_shapes(model);
    let pairs = all.iter().filter(|(name, shape)| shape.len() == 2 && wanted(name));
    pairs.map(|(_, shape)| u64::from(config.train.lora_r) * (shape[0] + shape[1]) as u64).sum()
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

/// How iterations train: what decides whether all weights move although an adapter is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    /// All by preference.
    Preference,
    /// The first, which is to come, by supervision.
    SupervisedFirst,
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
}

/// Bytes at the worst moment of each stage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Needs {
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

impl Needs {
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

/// What one training holds, bytes.
struct Training {
    /// All weights, an adapter's too.
    weights: u64,
    /// Those that move.
    moving: u64,
    /// Of these, for every thread that has its own.
    gradients: u64,
    /// Activations and logits.
    step: u64,
}

impl Training {
    /// At its worst moment. Loading: bytes and tensors, of what moves its moments too. A step:
    /// weights, gradients, two moments, activations and logits. Saving: beside that, once more
    /// both moments as tensors and as bytes.
    fn peak(&self) -> u64 {
        let steady = self.weights + self.gradients + 2 * self.moving + self.step;
        let loading = 2 * self.weights;
        let restoring = self.weights + self.gradients + 4 * self.moving;
        (steady + 4 * self.moving).max(loading).max(restoring)
    }

    /// What its thread keeps afterwards: everything in small pieces. The bytes of a checkpoint are
    /// one large piece.
    fn kept(&self, share: f64) -> u64 {
        let all = self.weights + self.gradients + 4 * self.moving;
        (share * all as f64) as u64 + self.step
    }
}

impl Outline<'_> {
    fn lengths(&self) -> Lengths {
        let lengths = self.lengths.unwrap_or_else(|| Lengths::most(self.config));
        lengths.within(self.config, self.model.max_position_embeddings)
    }

    /// What each stage holds at its worst moment, bytes.
    pub fn needs(&self) -> Needs {
        let (model, config) = (self.model, self.config);
        let vocabulary = model.vocab_size as u64 * TOKENIZER_BYTES_PER_TOKEN;
        let base = PROCESS_BYTES + vocabulary;
        let weights = parameters(model) * F32_BYTES;
        // Those open when the last iteration begins, and with its checkpoint.
        let last = (config.iterations.max(1) as usize).min(OPEN_POLICIES_MAX) as u64;
        let beside = (u64::from(config.iterations.max(1)) + 1).min(OPEN_POLICIES_MAX as u64);
        let open = open_bytes(model, config.sampling.storage());
        let acting = base + last * open;
        let (answering, judging) = (self.answering_bytes(), self.judging_bytes());
        // A policy on its way in: its bytes beside its tensors, or its tensors before and after an
        // adapter is added.
        let opening = weights;
        // What the sampler's thread keeps of opening, and then the judge's of its cache.
        let share = kept_share(model);
        let tensors = (share * weights as f64) as u64;
        let later = tensors + judging;
        let training = self.training(weights);
        let measuring = base + beside * open + later + training.kept(share);
        Needs {
            sampler: acting + opening.max(tensors + answering),
            judge: acting + tensors + judging,
            reference: acting + later + 2 * weights,
            trainer: acting + later + training.peak().max(self.supervised_peak(weights)),
            opening: measuring + opening,
            evaluator: measuring + tensors + judging.max(answering),
        }
    }

    fn answering_bytes(&self) -> u64 {
        let Lengths { prompt, answer, .. } = self.lengths();
        let settings = &self.config.sampling;
        let rows = (settings.batch_prompts * settings.candidates) as usize;
        let live = rows.min(live_max(self.model));
        let prompts = live.div_ceil(settings.candidates.max(1) as usize);
        let tokens = prompts * blocks(prompt) + live * blocks(answer);
        cache_bytes(self.model, tokens) + drawing_bytes(self.model, live)
    }

    fn judging_bytes(&self) -> u64 {
        let Lengths { rubric, question, reply, .. } = self.lengths();
        let (settings, sampling) = (&self.config.judge, &self.config.sampling);
        let questions = (sampling.batch_prompts * sampling.candidates) as usize;
        let rows = questions * settings.samples as usize;
        let live = rows.min(live_max(self.model));
        let asked = live.div_ceil(settings.samples.max(1) as usize);
        // What two questions begin with is one more piece, and so is what two replies do.
        let tokens =
            blocks(rubric) + asked * (BLOCK_TOKENS + blocks(question)) + live * blocks(reply);
        cache_bytes(self.model, tokens) + drawing_bytes(self.model, live)
    }

    /// Activations of a part of a batch, and a chunk of logits.
    fn step_bytes(&self, items: u32, rows: usize) -> u64 {
        let checkpointing = self.config.train.gradient_checkpointing;
        let per_row = activation_bytes_per_row(self.model, checkpointing) as u64;
        let (items, rows) = (u64::from(items.max(1)), rows as u64);
        let cut = (items * rows * per_row).min((MICRO_BATCH_BYTES as u64).max(rows * per_row));
        cut + self.logit_bytes(items * rows)
    }

    /// Training in preference iterations; `weights` are the model's bytes.
    fn training(&self, weights: u64) -> Training {
        let Lengths { prompt, answer, .. } = self.lengths();
        let train = &self.config.train;
        let step = self.step_bytes(train.dpo.train_batch_size, prompt + 2 * answer);
        let adapter = adapter_parameters(self.model, self.config) * F32_BYTES;
        let (moving, frozen) = if train.use_peft { (adapter, weights) } else { (weights, 0) };
        // Threads of a small model have gradients of their own.
        let lanes = lanes_of(weights as usize, train.threads as usize) as u64;
        Training { weights: frozen + moving, moving, gradients: lanes * moving, step }
    }

    /// The supervised iteration's peak, where it is to come. It is the first: of the policies that
    /// are open in the last one it has but one, and nothing was judged before it.
    fn supervised_peak(&self, weights: u64) -> u64 {
        if self.kinds == Kinds::Preference {
            return 0;
        }
        let Lengths { prompt, answer, .. } = self.lengths();
        let step = self.step_bytes(self.config.train.sft.train_batch_size, prompt + answer);
        let lanes = lanes_of(weights as usize, self.config.train.threads as usize) as u64;
        let training = Training { weights, moving: weights, gradients: lanes * weights, step };
        let open = open_bytes(self.model, self.config.sampling.storage());
        let spared = u64::from(self.config.iterations.clamp(1, 3) - 1) * open;
        training.peak().saturating_sub(spared + self.judging_bytes())
    }

    fn logit_bytes(&self, rows: u64) -> u64 {
        let row = self.model.vocab_size as u64 * F32_BYTES;
        (rows * row).min((LOGIT_BYTES_MAX as u64).max(16 * row))
    }
}

fn blocks(tokens: usize) -> usize {
    tokens.next_multiple_of(BLOCK_TOKENS)
}

/// A change of settings and what the run would need with it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Remedy {
    /// Settings as they are written, or another model.
    pub change: String,
    /// Bytes at the peak with it.
    pub bytes: u64,
}

/// Lighter settings, those that cost least first. A smaller batch is none: a batch is cut into parts
/// that fit.
fn lighter(config: &Config) -> Vec<(String, Config)> {
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
    let plain = (String::new(), config.clone());
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
    from = offer(&from, "sampling.weight_bits: 8".to_owned(), &|c| c.sampling.weight_bits = 8);
    for divisor in [2, 4] {
        let answer = (config.sampling.max_new_tokens / divisor).max(16);
        offer(&from, format!("sampling.max_new_tokens: {answer}"), &|c| {
            c.sampling.max_new_tokens = c.sampling.max_new_tokens.min(answer);
        });
    }
    all
}

/// What would fit into `available` bytes, found by trying: changes of settings, least damage first,
/// and the largest model of this make (fewer layers) that the lightest of them takes. Empty where
/// nothing does.
pub fn remedies(outline: &Outline<'_>, available: u64) -> Vec<Remedy> {
    let peak = |model: &ModelConfig, config: &Config| {
        Outline { model, config, ..*outline }.needs().peak().1
    };
    let tried = lighter(outline.config);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::memory::{check, refusal};

    /// SmolLM2-135M has 134,515,008 parameters (its model card).
    const SMOLLM2: &str = r#"{"model_type":"llama","hidden_size":576,"intermediate_size":1536,
        "num_hidden_layers":30,"num_attention_heads":9,"num_key_value_heads":3,
        "vocab_size":49152,"max_position_embeddings":8192,"rope_theta":100000.0,
        "rms_norm_eps":1e-5,"eos_token_id":2,"tie_word_embeddings":true}"#;

    #[test]
    fn counts_parameters() {
        let model = ModelConfig::from_hf_json(SMOLLM2).unwrap();
        assert_eq!(parameters(&model), 134_515_008);
    }

    fn smollm2() -> ModelConfig {
        ModelConfig::from_hf_json(SMOLLM2).unwrap()
    }

    fn outline<'a>(model: &'a ModelConfig, config: &'a Config) -> Outline<'a> {
        Outline { model, config, kinds: Kinds::Preference, lengths: None }
    }

    fn peak(change: impl Fn(&mut Config)) -> u64 {
        let mut config = Config::default();
        change(&mut config);
        outline(&smollm2(), &config).needs().peak().1
    }

    #[test]
    fn lighter_settings_need_less() {
        let plain = peak(|_| {});
        let recomputing = peak(|c| c.train.gradient_checkpointing = true);
        let adapter = peak(|c| c.train.use_peft = true);
        assert!(recomputing < plain && adapter < recomputing, "{plain} {recomputing} {adapter}");
        assert!(peak(|c| c.iterations = 1) < plain, "fewer policies are open");
        let judged = |change: &dyn Fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            outline(&smollm2(), &config).needs().judge
        };
        assert!(judged(&|c| c.judge.max_new_tokens = 64) < judged(&|_| {}));
        assert!(judged(&|c| c.sampling.batch_prompts = 2) < judged(&|_| {}));
        // A batch is cut into parts that fit.
        assert_eq!(peak(|c| c.train.dpo.train_batch_size = 64), plain);
    }

    #[test]
    fn all_weights_move_in_a_supervised_iteration_whatever_is_set() {
        let (model, mut config) = (smollm2(), Config::preset("tiny").unwrap());
        let plain = outline(&model, &config).needs();
        let seeded = Outline { kinds: Kinds::SupervisedFirst, ..outline(&model, &config) }.needs();
        assert!(seeded.trainer > plain.trainer + 4 * parameters(&model), "{seeded:?} {plain:?}");
        config.train.use_peft = false;
        assert!(outline(&model, &config).needs().trainer >= seeded.trainer);
    }

    #[test]
    fn what_was_measured_counts_up_to_what_the_settings_allow() {
        let (model, mut config) = (smollm2(), Config::default());
        let seen = Lengths { prompt: 40, answer: 70, rubric: 400, question: 150, reply: 90 };
        let known = |config: &Config| {
            let lengths = Some(seen);
            Outline { lengths, ..outline(&model, config) }.needs().judge
        };
        let before = known(&config);
        assert!(before < outline(&model, &config).needs().judge);
        config.judge.max_new_tokens = 32;
        assert!(known(&config) < before);
    }

    /// Every change that a refusal names fits by the same estimate when it is made.
    #[test]
    fn a_refusal_names_what_fits() {
        let (model, config) = (smollm2(), Config::default());
        let whole = outline(&model, &config);
        let peak = whole.needs().peak();
        assert!(check(&whole, None).is_ok() && check(&whole, Some(peak.1)).is_ok());
        let mut seen = 0;
        for available in (1..40).map(|tenths| peak.1 / 40 * tenths) {
            let error = check(&whole, Some(available)).unwrap_err().to_string();
            assert!(error.contains("GRADUS0110"), "{error}");
            let text = refusal(&whole, peak, available);
            for Remedy { change, bytes } in remedies(&whole, available) {
                assert!(bytes <= available && text.contains(&change), "{text}");
                let Some(tried) = lighter(&config).into_iter().find(|(name, _)| *name == change)
                else {
                    assert!(change.starts_with("a model of at most"), "{change}");
                    continue;
                };
                assert!(check(&outline(&model, &tried.1), Some(available)).is_ok(), "{change}");
                seen += 1;
            }
        }
        assert!(seen > 20, "{seen} changes were tried");
        assert!(remedies(&whole, 1 << 20).is_empty());
        assert!(refusal(&whole, peak, 1 << 20).contains("No setting makes it fit"));
    }

    #[test]
    fn changes_are_written_as_settings_are() {
        let named: Vec<String> =
            lighter(&Config::default()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(named[0], "train.gradient_checkpointing: true");
        assert_eq!(named[1], "train.use_peft: true");
        let lora = Config::preset("tiny").unwrap();
        assert!(lighter(&lora).iter().all(|(name, _)| !name.contains("use_peft")));
    }
}
