//! What 8-bit weights do to judgments, beside what chance does to them: the same answers judged by
//! the same model with 32 bits, with 8, and with 32 again under other seeds.
//!
//! usage: eight-bits MODEL PROMPTS [prompts]

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that stops has failed"
)]

use gradus::domain::{Message, Prompt, PromptOrigin, Seed};
use gradus::lm::cancel::Cancel;
use gradus::lm::fork::{Written, exclusive, fork};
use gradus::lm::generate::{DrawRequest, Sampling};
use gradus::lm::model_files::ModelFiles;
use gradus::lm::ops::Storage;
use gradus::lm::policy::{LanguageModel, Policy};
use gradus::lm::vocabulary::Vocabulary;
use gradus::rubric::{Rendered, Rubric, RubricEngine, RubricInput, bundled};
use gradus::stats::spearman;
use std::path::Path;
use std::sync::Arc;

type Failure = Box<dyn std::error::Error>;

/// Which answer is chosen, and which rejected.
type Pair = (usize, usize);

const CANDIDATES: u64 = 4;
const SAMPLES: u64 = 3;

fn sampling(policy: &Policy, temperature: f32, max_new_tokens: usize) -> Sampling {
    Sampling {
        temperature,
        top_p: 0.9,
        top_k: None,
        min_p: None,
        repetition_penalty: 1.0,
        max_new_tokens,
        stop_ids: policy.stop_ids().to_vec(),
    }
}

/// Four answers to each prompt.
fn answers(policy: &Policy, prompts: &[Prompt]) -> Result<Vec<Vec<String>>, Failure> {
    let mut requests = Vec::new();
    for (n, prompt) in (0..).zip(prompts) {
        requests.push(DrawRequest {
            prompt: policy.encode_chat(&[Message::user(prompt.task_text())])?,
            seeds: (0..CANDIDATES).map(|i| Seed::root(1).index(n).index(i)).collect(),
            sampling: sampling(policy, 0.7, 96),
        });
    }
    let drawn = policy.draw(&requests, &Cancel::default())?;
    Ok(drawn.into_iter().map(|all| all.into_iter().map(|c| c.text).collect()).collect())
}

/// The expected score that each question gets when every reply is made to go on with a score, the
/// mean over its replies.
fn scores(policy: &Policy, asked: &[Rendered], seed: Seed) -> Result<Vec<f64>, Failure> {
    let mut requests = Vec::new();
    for (n, rendered) in (0..).zip(asked) {
        requests.push(DrawRequest {
            prompt: policy.encode_chat(&rendered.messages)?,
            seeds: (0..SAMPLES).map(|i| seed.index(n).index(i)).collect(),
            sampling: sampling(policy, 0.7, 96),
        });
    }
    let replies = policy.draw(&requests, &Cancel::default())?;
    let readout = asked[0].readout.as_ref().ok_or("the rubric has no readout")?;
    let words: Vec<String> =
        readout.choices.iter().map(|(text, _)| text.trim().to_owned()).collect();
    let (mut contexts, mut choices) = (Vec::new(), Vec::new());
    for (request, reply) in
        requests.iter().zip(&replies).flat_map(|(r, all)| all.iter().map(move |a| (r, a)))
    {
        let said = reply.token_ids.strip_suffix(&[policy.turn_end()]);
        let text = format!("{}\n{} ", reply.text, readout.lead.trim());
        let prompt = request.prompt.as_slice();
        let written = Written { prompt, reply: said.unwrap_or(&reply.token_ids), text: &text };
        let spelling: &dyn Vocabulary = policy;
        let found = fork(spelling, written, &words)?.ok_or("the model has no such words")?;
        contexts.push(found.context);
        choices = found.choices;
    }
    let logps = policy.choice_logps(&contexts, &choices, &Cancel::default())?;
    let logps: Vec<Vec<f64>> = logps.iter().map(|one| exclusive(one, &choices)).collect();
    let expected = |logps: &Vec<f64>| {
        let weights: Vec<f64> = logps.iter().map(|l| l.exp()).collect();
        let values = readout.choices.iter().map(|(_, scores)| scores[0]);
        weights.iter().zip(values).map(|(w, v)| w * v).sum::<f64>() / weights.iter().sum::<f64>()
    };
    let all: Vec<f64> = logps.iter().map(expected).collect();
    Ok(all.chunks(SAMPLES as usize).map(|c| c.iter().sum::<f64>() / c.len() as f64).collect())
}

/// Best and worst of every prompt's answers.
fn pairs(scores: &[f64]) -> Vec<Pair> {
    let order = |group: &[f64]| {
        let mut order: Vec<usize> = (0..group.len()).collect();
        order.sort_by(|a, b| group[*a].total_cmp(&group[*b]));
        (order[group.len() - 1], order[0])
    };
    scores.chunks(CANDIDATES as usize).map(order).collect()
}

fn compare(name: &str, exact: &[f64], other: &[f64]) {
    let gaps: Vec<f64> = exact.iter().zip(other).map(|(a, b)| (a - b).abs()).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let most = gaps.iter().copied().fold(0.0, f64::max);
    let both: Vec<_> = pairs(exact).into_iter().zip(pairs(other)).collect();
    let share = |same: fn(Pair, Pair) -> bool| {
        100.0 * both.iter().filter(|(a, b)| same(*a, *b)).count() as f64 / both.len() as f64
    };
    println!(
        "{name}: |difference| {mean:.3} (most {most:.3}), spearman {:.3}; chosen the same {:.0} %, \
         rejected the same {:.0} %, turned round {:.0} %",
        spearman(exact, other).unwrap_or(f64::NAN),
        share(|a, b| a.0 == b.0),
        share(|a, b| a.1 == b.1),
        share(|a, b| a.0 == b.1 && a.1 == b.0),
    );
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, file, rest @ ..] = arguments.as_slice() else {
        return Err("usage: eight-bits MODEL PROMPTS [prompts]".into());
    };
    let count = rest.first().map_or(Ok(32), |n| n.parse())?;
    let files = Arc::new(ModelFiles::open(Path::new(model))?);
    let open = |storage| Policy::stored(files.clone(), files.weights()?, None, storage);
    let exact = open(Storage::Exact)?;
    let mut prompts = gradus::prompts::read(Path::new(file))?.prompts(PromptOrigin::Given);
    prompts.truncate(count);
    let rubric = Rubric::load(&RubricEngine::new()?, bundled::ADDITIVE_FIVE)?;
    let mut asked = Vec::new();
    for (prompt, answers) in prompts.iter().zip(answers(&exact, &prompts)?) {
        for answer in answers {
            asked.push(rubric.render(&RubricInput {
                task: prompt.task_text().to_owned(),
                context: prompt.context(),
                reference: None,
                candidates: vec![answer],
                fields: Vec::new(),
            })?);
        }
    }
    let first = scores(&exact, &asked, Seed::root(2))?;
    let again = scores(&exact, &asked, Seed::root(3))?;
    drop(exact);
    let eight = scores(&open(Storage::EightBit)?, &asked, Seed::root(2))?;
    println!("{} answers to {} prompts, {SAMPLES} replies to each", asked.len(), prompts.len());
    compare("8 bits, same seeds", &first, &eight);
    compare("32 bits, other seeds", &first, &again);
    Ok(())
}
