//! What is measured: the networks and their work, from `shapes.json`, which the peers read as well.

use crate::Failure;
use gradus::domain::Seed;
use gradus::lm::config::ModelConfig;
use gradus::lm::generate::{DrawRequest, Sampling};
use gradus::lm::train::{Belief, DpoExample};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// How much of everything.
#[derive(Clone, Debug, Deserialize)]
pub struct Work {
    /// Tokens that a sequence has while it is drawn, in the mean.
    pub context: usize,
    /// Sequences that are drawn together.
    pub batches: Vec<usize>,
    /// Tokens of the short draw and of the long one, whose difference is timed.
    pub tokens: [usize; 2],
    /// Prompts that are read, and how long each is.
    pub prefill: Vec<[usize; 2]>,
    /// Tokens of a pair's prompt.
    pub prompt: usize,
    /// Tokens of each of its completions.
    pub response: usize,
    /// Steps before those that count.
    pub warm_steps: usize,
    /// Steps that count.
    pub steps: usize,
}

impl Work {
    /// Tokens of the prompts that are drawn after: the context is right halfway.
    pub fn drawn_after(&self) -> usize {
        self.context.saturating_sub((self.tokens[0] + self.tokens[1]) / 2).max(1)
    }
}

/// A network, and its work.
pub struct Shape {
    pub name: String,
    /// The model that has this shape.
    pub of: String,
    pub config: ModelConfig,
    pub work: Work,
    /// Pairs of a step.
    pub pairs: usize,
}

#[derive(Deserialize)]
struct File {
    shapes: BTreeMap<String, Written>,
    works: BTreeMap<String, Work>,
}

#[derive(Deserialize)]
struct Written {
    of: String,
    work: String,
    pairs: usize,
    config: Box<RawValue>,
}

/// The shapes of these names, in this order; `tiny` stands for all toys.
pub fn shapes(names: &[String]) -> Result<Vec<Shape>, Failure> {
    let file: File = serde_json::from_str(include_str!("shapes.json"))?;
    let mut all: Vec<String> = Vec::new();
    for name in names {
        match name.as_str() {
            "tiny" => all.extend(["tiny", "tiny-untied"].map(str::to_owned)),
            _ => all.push(name.clone()),
        }
    }
    let shape = |name: String| {
        let known = || file.shapes.keys().cloned().collect::<Vec<_>>().join(", ");
        let written =
            file.shapes.get(&name).ok_or_else(|| format!("no shape {name}: {}", known()))?;
        let config = ModelConfig::from_hf_json(written.config.get())?;
        let work = file.works.get(&written.work).ok_or("a shape without work")?.clone();
        Ok(Shape { name, of: written.of.clone(), config, work, pairs: written.pairs })
    };
    all.into_iter().map(shape).collect()
}

/// `len` ids. Those of different `of` begin differently, so that nothing is shared.
pub fn ids(of: usize, len: usize, vocab: usize) -> Vec<u32> {
    let span = vocab - 4;
    (0..len).map(|at| (4 + (of * 7919 + at * 31) % span) as u32).collect()
}

/// One completion of exactly so many tokens after each prompt.
pub fn requests(prompts: &[Vec<u32>], tokens: usize) -> Vec<DrawRequest> {
    let sampling = Sampling {
        temperature: 0.7,
        top_p: 0.9,
        top_k: None,
        min_p: None,
        repetition_penalty: 1.0,
        max_new_tokens: tokens,
        stop_ids: Vec::new(),
    };
    let request = |(n, prompt): (u64, &Vec<u32>)| DrawRequest {
        prompt: prompt.clone(),
        seeds: vec![Seed::root(7).index(n)],
        sampling: sampling.clone(),
    };
    (0..).zip(prompts).map(request).collect()
}

/// So many pairs. The reference's log-probabilities are given, as a run's trainer has them; these
/// are those of a network that knows nothing.
pub fn pairs(shape: &Shape, count: usize) -> Vec<DpoExample> {
    let (work, vocab) = (&shape.work, shape.config.vocab_size);
    let reference = -(work.response as f64) * (vocab as f64).ln();
    let pair = |n: usize| DpoExample {
        prompt: ids(3 * n, work.prompt, vocab),
        chosen: ids(3 * n + 1, work.response, vocab),
        rejected: ids(3 * n + 2, work.response, vocab),
        reference_chosen: reference,
        reference_rejected: reference,
        belief: Belief::SURE,
    };
    (0..count).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read() {
        let names = ["135M", "1B", "7B", "tiny"].map(str::to_owned);
        let shapes = shapes(&names).unwrap();
        assert_eq!(shapes.len(), 5, "tiny is two");
        assert_eq!(shapes[1].config.head_dim, 64);
        assert!(shapes[2].config.description().qkv_bias && !shapes[2].config.tie_word_embeddings);
        let work = &shapes[0].work;
        assert_eq!(work.drawn_after() + (work.tokens[0] + work.tokens[1]) / 2, work.context);
        assert!(super::shapes(&["2B".to_owned()]).is_err());
    }

    #[test]
    fn nothing_is_shared_between_sequences() {
        for vocab in [256, 49_152] {
            let firsts: std::collections::BTreeSet<u32> =
                (0..vocab.min(256) - 4).map(|of| ids(of, 1, vocab)[0]).collect();
            assert_eq!(firsts.len(), vocab.min(256) - 4);
        }
        assert!(ids(5, 1000, 256).iter().all(|id| (4..256).contains(id)));
    }
}
