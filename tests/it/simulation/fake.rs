//! A model behind every port that costs nothing: what they say is a hash of what they are asked, so a
//! task that is done again says the same, and anything else about it (who asks, when, what else is
//! in the batch) cannot show. Blobs lie on the simulated disk and must be there when named.

use super::flaky::Blobs;
use crate::dice::{hash, share};
use gradus::domain::event::StepMetrics;
use gradus::domain::plan::{self, AnswersWith, MovingMean};
use gradus::domain::{
    AdapterRef, AdapterShape, BlobHash, Completion, Message, PolicyId, PolicyRef, Seed, StopReason,
};
use gradus::engine::tokens::TokenChat;
use gradus::engine::training::{
    SKIPPED_IN_A_ROW_MAX, Saved, SegmentRequest, StepData, StepResult, TrainedSegment,
    skipped_in_a_row,
};
use gradus::engine::{
    Capabilities, ChatModel, Engine, EngineError, Identity, ModelBackend, Needs, PolicyTokens,
    Scorer, TrainBackend,
};
use gradus::lm::cancel::Cancel;
use gradus::lm::error::LmError;
use gradus::lm::generate::DrawRequest;
use gradus::lm::policy::{LanguageModel, Vocabulary};
use gradus::lm::train::{Method, ShortOfMemory};
use gradus::stage::Oracle;
use std::sync::Arc;

/// Ids below are bytes of text.
const END: u32 = 256;
const BOS: u32 = 257;
const TASK: u32 = 258;
const POINTS: [&str; 5] = ["relevant", "useful", "complete", "correct", "clean"];

/// What a world's model is like when it judges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Its points belong to the answer.
    Fair,
    /// Every answer gets these points.
    Always(usize),
    /// An answer that praises itself gets all points.
    Fooled,
    /// Of two, the first is always better; alone, as `Fair`.
    First,
    /// Answers that show zeal get most points.
    Zeal,
    /// The wrong way round: answers that show zeal get the fewest.
    Sloth,
}

/// What a world's model is like.
#[derive(Clone, Copy, Debug)]
pub struct Temper {
    /// Different answers it knows to one prompt; 1 makes all candidates the same.
    pub answers: u64,
    /// Percent of its completions that are cut off by the bound on their length.
    pub cut_off: u64,
    /// Percent of its judgments that cannot be read.
    pub unreadable: u64,
    /// How it judges.
    pub verdict: Verdict,
    /// Percent of optimiser steps with non-finite numbers.
    pub skipped_steps: u64,
    /// Percent of optimiser steps for which the machine has too little memory at first. Nothing of
    /// what is computed depends on it.
    pub short_steps: u64,
    /// Its answers show zeal or sloth, the more of either the more of it was chosen in training.
    pub learns: bool,
}

/// Percent of the base's answers that show zeal.
const HABIT: i64 = 50;

/// The habit that weights were saved with.
fn habit(weights: &[u8]) -> i64 {
    let text = String::from_utf8_lossy(weights);
    text.rsplit_once(" habit ").map_or(HABIT, |(_, habit)| habit.parse().unwrap())
}

fn shows_zeal(ids: &[u32]) -> bool {
    text(ids).contains("zeal")
}

fn bytes(ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

fn ids(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

fn text(ids: &[u32]) -> String {
    let bytes: Vec<u8> = ids.iter().filter_map(|id| u8::try_from(*id).ok()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Says what the hash of policy, prompt and seed says.
struct FakeModel {
    policy: PolicyId,
    temper: Temper,
    habit: i64,
}

impl FakeModel {
    fn hash(&self, prompt: &[u32], rest: &[u8]) -> [u8; 32] {
        hash(&[self.policy.as_str().as_bytes(), &bytes(prompt), rest])
    }

    fn say(&self, prompt: &[u32], seed: &Seed) -> String {
        let drawn = self.hash(prompt, &seed.0);
        let asked = text(prompt);
        if asked.contains("give points for") {
            return self.judge(prompt, &drawn);
        }
        if asked.contains("Better: A, B or tie") {
            return self.compare(&asked);
        }
        if prompt.contains(&TASK) {
            // Some are too short, some are known already: the filters have work.
            let n = share(&drawn, 0, 40);
            return if n < 4 { "say .".to_owned() } else { format!("say it {n} times .") };
        }
        if asked.contains("Come up with a series of tasks") {
            let one = |at: usize| {
                let word = |k: usize| ["sea", "sky", "sun", "ice", "oak"][drawn[k] as usize % 5];
                let (a, b) = (word(at), word(at + 1));
                format!("Explain {a} and {b} to {} people", drawn[at + 2])
            };
            return format!(" {}\n9. {}\n10. Draw it", one(3), one(7));
        }
        let which = share(&drawn, 0, self.temper.answers);
        if self.temper.learns {
            let zeal = (share(&drawn, 8, 100) as i64) < self.habit;
            return format!("{which} {}.", if zeal { "zeal" } else { "sloth" });
        }
        let answer = self.hash(prompt, &which.to_le_bytes());
        format!("{which}{}.", " so".repeat(1 + answer[0] as usize % 8))
    }

    /// Which of two answers is better belongs to the answers: their order does not matter to a fair
    /// judge.
    fn compare(&self, asked: &str) -> String {
        let strength = |name: &str| {
            let (_, rest) = asked.split_once(&format!("Response {name}:\n")).expect("it is there");
            let (_, rest) = rest.split_once("]\n").expect("a mark opens it");
            let (answer, _) = rest.split_once("\n[response-").expect("a mark closes it");
            self.hash(&ids(answer), b"strength")
        };
        let first = self.temper.verdict == Verdict::First || strength("A") > strength("B");
        format!("I see.\nBetter: {}", if first { "A" } else { "B" })
    }

    /// A reply in the demo rubric's words. Its points belong to the answer that is judged, but for
    /// one that each draw takes anew.
    fn judge(&self, prompt: &[u32], drawn: &[u8; 32]) -> String {
        let asked = text(prompt);
        let mut points = self.hash(prompt, b"points");
        points[drawn[1] as usize % 5] = drawn[2];
        match self.temper.verdict {
            Verdict::Always(n) => points = std::array::from_fn(|at| u8::from(at >= n)),
            Verdict::Fooled if asked.contains("perfect in every") => points = [0; 32],
            Verdict::Zeal | Verdict::Sloth => {
                let liked = asked.contains("zeal") == (self.temper.verdict == Verdict::Zeal);
                let few = usize::from(drawn[2] % 2);
                let n = if liked { 5 - few } else { few };
                points = std::array::from_fn(|at| u8::from(at >= n));
            }
            Verdict::Fooled | Verdict::Fair | Verdict::First => {}
        }
        let mut reply = String::new();
        for (name, byte) in POINTS.iter().zip(points) {
            reply.push_str(&format!("{name} {} ", if byte % 2 == 0 { "yes" } else { "no" }));
        }
        let score = points.iter().take(5).filter(|byte| **byte % 2 == 0).count();
        match share(drawn, 8, 100) < self.temper.unreadable {
            true if drawn[3] < 128 => reply,
            true => format!("{reply}. score : {}", (score + 1) % 6),
            false => format!("{reply}. score : {score}"),
        }
    }

    fn complete(&self, request: &DrawRequest, seed: &Seed) -> Completion {
        let said = self.say(&request.prompt, seed);
        let mut token_ids = ids(&said);
        token_ids.push(END);
        let drawn = self.hash(&request.prompt, &seed.0);
        let most = match share(&drawn, 24, 100) < self.temper.cut_off {
            true => token_ids.len() - 1, // just before it would have ended
            false => request.sampling.max_new_tokens,
        };
        token_ids.truncate(most);
        let ended = token_ids.last() == Some(&END);
        let stop = if ended { StopReason::TurnEnd } else { StopReason::Length };
        let logp = -(share(&drawn, 16, 100_000) as f64) / 1000.0;
        Completion { text: text(&token_ids), token_ids, logp: Some(logp), stop }
    }
}

/// How the fake reads and writes, whatever its weights.
pub struct FakeVocabulary;

impl Vocabulary for FakeVocabulary {
    fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>, LmError> {
        let turn = |m: &Message| format!("{}: {}\n", m.role.as_str(), m.content);
        Ok(messages.iter().flat_map(|m| ids(&turn(m))).collect())
    }

    fn encode_text(&self, text: &str) -> Result<Vec<u32>, LmError> {
        Ok(ids(text))
    }

    fn encode_template(&self, text: &str) -> Result<Vec<u32>, LmError> {
        let mut all = Vec::new();
        for word in text.split_inclusive(' ') {
            match word.trim_end() {
                "<bos>" => all.push(BOS),
                "<task>" => all.push(TASK),
                _ => all.extend(ids(word)),
            }
        }
        Ok(all)
    }

    fn decode(&self, ids: &[u32]) -> Result<String, LmError> {
        Ok(text(ids))
    }

    fn turn_end(&self) -> u32 {
        END
    }

    fn stop_ids(&self) -> &[u32] {
        &[END]
    }

    fn context_tokens_max(&self) -> usize {
        4096
    }
}

impl Vocabulary for FakeModel {
    fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>, LmError> {
        FakeVocabulary.encode_chat(messages)
    }

    fn encode_text(&self, text: &str) -> Result<Vec<u32>, LmError> {
        FakeVocabulary.encode_text(text)
    }

    fn encode_template(&self, text: &str) -> Result<Vec<u32>, LmError> {
        FakeVocabulary.encode_template(text)
    }

    fn decode(&self, ids: &[u32]) -> Result<String, LmError> {
        FakeVocabulary.decode(ids)
    }

    fn turn_end(&self) -> u32 {
        END
    }

    fn stop_ids(&self) -> &[u32] {
        &[END]
    }

    fn context_tokens_max(&self) -> usize {
        FakeVocabulary.context_tokens_max()
    }
}

impl LanguageModel for FakeModel {
    fn draw(
        &self,
        requests: &[DrawRequest],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<Completion>>, LmError> {
        cancel.check()?;
        let all = requests.iter().map(|r| r.seeds.iter().map(|s| self.complete(r, s)).collect());
        Ok(all.collect())
    }

    fn choice_logps(
        &self,
        contexts: &[Vec<u32>],
        choices: &[Vec<u32>],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<f64>>, LmError> {
        cancel.check()?;
        let one = |context: &[u32], choice: &[u32]| {
            let h = self.hash(context, &bytes(choice));
            -(share(&h, 0, 8000) as f64) / 1000.0
        };
        Ok(contexts.iter().map(|c| choices.iter().map(|x| one(c, x)).collect()).collect())
    }
}

/// Weights are names; training gives the name of everything that went into it.
pub struct FakeBackend {
    /// What survives a power cut.
    pub blobs: Blobs,
    /// The model's character.
    pub temper: Temper,
}

/// What the fake's ids are called.
fn vocabulary() -> BlobHash {
    BlobHash("bytes".to_owned())
}

impl FakeBackend {
    /// The bundle that stages hold.
    pub fn backend(blobs: Blobs, temper: Temper) -> ModelBackend {
        let tokens = PolicyTokens { vocabulary: Arc::new(FakeVocabulary), id: vocabulary() };
        ModelBackend::local(Arc::new(FakeBackend { blobs, temper }), tokens)
    }

    fn blob(&self, hash: &BlobHash) -> Result<Vec<u8>, EngineError> {
        self.blobs.get(hash).ok_or_else(|| EngineError::Missing(format!("blob {hash}")))
    }

    fn model(&self, policy: &PolicyRef) -> Result<FakeModel, EngineError> {
        let habit = habit(&self.blob(&policy.weights)?);
        if let Some(adapter) = &policy.adapter {
            assert!(adapter.shape.is_some(), "an adapter knows what it is");
            self.blob(&adapter.weights)?;
        }
        Ok(FakeModel { policy: policy.id(), temper: self.temper, habit })
    }
}

/// Pairs of a step that teach zeal, less those that teach sloth.
fn lesson(step: &StepData) -> i64 {
    let StepData::Dpo { pairs, .. } = step else { return 0 };
    let zeal = |ids: &[u32]| i64::from(shows_zeal(ids));
    pairs.iter().map(|pair| zeal(&pair.chosen) - zeal(&pair.rejected)).sum()
}

fn metrics(name: &[u8; 32]) -> StepMetrics {
    let figure = |at| share(name, at, 1_000_000) as f64 / 1e6;
    StepMetrics {
        loss: figure(0),
        grad_norm: figure(8),
        rewards_margin: figure(16),
        ..StepMetrics::default()
    }
}

impl Engine for FakeBackend {
    fn identity(&self) -> Identity {
        let hash = vocabulary();
        Identity { what: "fake".to_owned(), hash, answers_with: AnswersWith::Policy }
    }

    fn capabilities(&self) -> Capabilities {
        let vocabulary = Some(vocabulary());
        Capabilities { vocabulary, choice_logps: true, seeds: true, begun_turns: true }
    }

    fn needs(&self) -> Needs {
        Needs::Device
    }

    fn open(
        &self,
        policy: &PolicyRef,
        _: &plan::PlannedEngine,
    ) -> Result<Arc<dyn ChatModel>, EngineError> {
        Ok(TokenChat::over(Arc::new(self.model(policy)?)))
    }
}

impl Scorer for FakeBackend {
    fn logps(
        &self,
        policy: &PolicyRef,
        sequences: &[(Vec<u32>, Vec<u32>)],
        cancel: &Cancel,
    ) -> Result<Vec<f64>, EngineError> {
        cancel.check()?;
        let model = self.model(policy)?;
        let one = |(prompt, response): &(Vec<u32>, Vec<u32>)| {
            -(share(&model.hash(prompt, &bytes(response)), 0, 90_000) as f64) / 1000.0
        };
        Ok(sequences.iter().map(one).collect())
    }
}

impl TrainBackend for FakeBackend {
    fn merge(&self, policy: &PolicyRef) -> Result<PolicyRef, EngineError> {
        let habit = self.model(policy)?.habit;
        let merged = format!("{} merged habit {habit}", policy.id());
        Ok(PolicyRef::full(self.blobs.put(merged.as_bytes())))
    }

    fn average(&self, of: &MovingMean) -> Result<PolicyRef, EngineError> {
        let habit = self.model(&of.newest)?.habit;
        self.model(&of.mean)?;
        let (mean, newest) = (of.mean.id(), of.newest.id());
        let text = format!("{} of {mean} and {newest} habit {habit}", of.decay);
        Ok(PolicyRef::full(self.blobs.put(text.as_bytes())))
    }

    fn discard(&self, blobs: &[BlobHash]) {
        blobs.iter().for_each(|blob| self.blobs.remove(blob));
    }

    fn train(&self, request: SegmentRequest<'_>) -> Result<TrainedSegment, EngineError> {
        request.cancel.check()?;
        self.model(request.start)?;
        let settings = format!("{:?} {:?} {:?}", request.settings, request.dpo, request.seed);
        let mut state = match &request.saved {
            Some(saved) => {
                self.model(&saved.policy)?;
                let (policy, optimizer) = (saved.policy.id(), self.blob(&saved.optimizer)?);
                hash(&[policy.as_str().as_bytes(), &optimizer, settings.as_bytes()])
            }
            None => hash(&[request.start.id().as_str().as_bytes(), settings.as_bytes()]),
        };
        let mut steps = Vec::with_capacity(request.steps.len());
        let mut short = Vec::new();
        let from = request.saved.as_ref().map_or(request.start, |saved| &saved.policy);
        let mut habit = self.model(from)?.habit;
        for (done, data) in request.steps.iter().enumerate() {
            state = hash(&[&state, format!("{data:?}").as_bytes()]);
            habit = (habit + 4 * lesson(data)).clamp(5, 95);
            (request.on_step)(done as u64 + 1);
            if share(&state, 16, 100) < self.temper.short_steps {
                // Halved, and halved again.
                let parts = [64, 32].map(|rows| ShortOfMemory { rows, reason: "full".to_owned() });
                short.extend(parts.map(|part| (done, part)));
            }
            let skipped = share(&state, 24, 100) < self.temper.skipped_steps;
            steps.push(match skipped {
                true => StepResult::Skipped("the loss is not finite".to_owned()),
                false => StepResult::Taken(metrics(&state)),
            });
            if skipped_in_a_row(request.skipped_before, &steps) >= SKIPPED_IN_A_ROW_MAX {
                return Ok(TrainedSegment { steps, saved: None, short });
            }
        }
        let habit = if self.temper.learns { format!(" habit {habit}") } else { String::new() };
        let trained = [state.as_slice(), b" weights", habit.as_bytes()].concat();
        let trained = self.blobs.put(&trained);
        let optimizer = self.blobs.put(&[state.as_slice(), b" optimizer"].concat());
        let policy = match &request.settings.method {
            Method::Full => PolicyRef::full(trained),
            Method::Lora(settings) => {
                let shape = AdapterShape {
                    r: settings.r as u32,
                    alpha: settings.alpha,
                    target_modules: settings.target_modules.clone(),
                };
                let known = request.start.adapter.as_ref().and_then(|a| a.shape.as_ref());
                assert!(known.is_none_or(|known| *known == shape), "an adapter stays what it is");
                let adapter = Some(AdapterRef { weights: trained, shape: Some(shape) });
                PolicyRef { weights: request.start.weights.clone(), adapter }
            }
        };
        Ok(TrainedSegment { steps, saved: Some(Saved { policy, optimizer }), short })
    }
}

/// Likes long answers.
pub struct FakeOracle;

impl Oracle for FakeOracle {
    fn score(&self, _task: &str, completion: &str) -> Option<f64> {
        Some((completion.len() % 6) as f64)
    }
}
