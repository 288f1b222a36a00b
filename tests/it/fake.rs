//! A model and a workshop that cost nothing: everything they say is a hash of what they are asked,
//! so the loop can be turned thousands of times a minute. Judge replies are in the demo rubric's
//! words, and some are unreadable on purpose.

use gradus::domain::event::StepMetrics;
use gradus::domain::{BlobHash, Completion, Message, PolicyRef, Seed, StopReason};
use gradus::lm::cancel::Cancel;
use gradus::lm::error::LmError;
use gradus::lm::generate::DrawRequest;
use gradus::lm::policy::LanguageModel;
use gradus::stage::workshop::{Saved, Segment, SegmentRequest, StepData, StepResult, Workshop};
use gradus::stage::{Oracle, StageError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Ids are code points; this one ends a turn.
const END: u32 = 0x11_0000;

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

fn ids(text: &str) -> Vec<u32> {
    text.chars().map(u32::from).collect()
}

fn text(ids: &[u32]) -> String {
    ids.iter().filter_map(|id| char::from_u32(*id)).collect()
}

fn bytes(ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

/// Says what the hash of policy, prompt and seed says.
pub struct FakeModel(PolicyRef);

impl FakeModel {
    fn say(&self, prompt: &[u32], seed: &Seed) -> String {
        let h = hash(&[self.0.id().as_str().as_bytes(), &bytes(prompt), &seed.0]);
        let asked = text(prompt);
        if asked.contains("give points for") {
            return judge_reply(&h);
        }
        if asked.contains("<task>") {
            return format!("name {} things like {} .", h[0] % 7, u16::from_le_bytes([h[1], h[2]]));
        }
        // Few different answers, so that some prompts have four equal ones.
        format!("answer {} .", h[0] % 3)
    }
}

fn judge_reply(h: &[u8; 32]) -> String {
    const POINTS: [&str; 5] = ["relevant", "useful", "complete", "correct", "clean"];
    let mut reply = String::new();
    let mut score = 0;
    for (name, byte) in POINTS.iter().zip(h) {
        let yes = byte % 2 == 0;
        score += u32::from(yes);
        reply.push_str(&format!("{name} {} ", if yes { "yes" } else { "no" }));
    }
    match h[9] % 10 {
        0 => "nothing that counts".to_owned(),
        1 => format!("{reply}. score : {}", (score + 1) % 6),
        _ => format!("{reply}. score : {score}"),
    }
}

impl LanguageModel for FakeModel {
    fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>, LmError> {
        let said: Vec<&str> = messages.iter().map(|m| m.content.as_str()).collect();
        Ok(ids(&said.join("\n")))
    }

    fn encode_text(&self, text: &str) -> Result<Vec<u32>, LmError> {
        Ok(ids(text))
    }

    fn encode_template(&self, text: &str) -> Result<Vec<u32>, LmError> {
        Ok(ids(text))
    }

    fn decode(&self, ids: &[u32]) -> Result<String, LmError> {
        Ok(text(ids))
    }

    fn draw(
        &self,
        requests: &[DrawRequest],
        _cancel: &Cancel,
    ) -> Result<Vec<Vec<Completion>>, LmError> {
        let one = |request: &DrawRequest, seed: &Seed| {
            let said = self.say(&request.prompt, seed);
            let mut token_ids = ids(&said);
            token_ids.push(END);
            Completion { token_ids, text: said, logp: -1.0, stop: StopReason::TurnEnd }
        };
        let all = requests.iter().map(|r| r.seeds.iter().map(|seed| one(r, seed)).collect());
        Ok(all.collect())
    }

    fn choice_logps(
        &self,
        contexts: &[Vec<u32>],
        choices: &[Vec<u32>],
        _cancel: &Cancel,
    ) -> Result<Vec<Vec<f64>>, LmError> {
        let one = |context: &Vec<u32>, choice: &Vec<u32>| {
            let h = hash(&[self.0.id().as_str().as_bytes(), &bytes(context), &bytes(choice)]);
            -f64::from(h[0]) / 32.0
        };
        Ok(contexts.iter().map(|c| choices.iter().map(|x| one(c, x)).collect()).collect())
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

/// Weights are names; training gives the name of everything that went into it.
#[derive(Default)]
pub struct FakeWorkshop {
    blobs: Mutex<BTreeMap<BlobHash, Vec<u8>>>,
    /// Makes every training task fail.
    pub broken: bool,
}

impl FakeWorkshop {
    /// Stores bytes under their hash.
    pub fn put(&self, bytes: Vec<u8>) -> BlobHash {
        let name = BlobHash(blake3::hash(&bytes).to_hex().to_string());
        self.blobs.lock().unwrap().insert(name.clone(), bytes);
        name
    }
}

fn step_name(data: &StepData) -> Vec<u8> {
    match data {
        StepData::Sft(rows) => rows.iter().flat_map(|row| bytes(&row.ids)).collect(),
        StepData::Dpo { pairs, rehearsal } => {
            let mut name = Vec::new();
            for pair in pairs {
                for part in [&pair.prompt, &pair.chosen, &pair.rejected] {
                    name.extend(bytes(part));
                }
                name.extend(pair.reference_chosen.to_le_bytes());
                name.extend(pair.reference_rejected.to_le_bytes());
            }
            name.extend(rehearsal.iter().flat_map(|row| bytes(&row.ids)));
            name
        }
    }
}

impl Workshop for FakeWorkshop {
    fn policy(&self, policy: &PolicyRef) -> Result<Arc<dyn LanguageModel>, StageError> {
        Ok(Arc::new(FakeModel(policy.clone())))
    }

    fn logps(
        &self,
        policy: &PolicyRef,
        sequences: &[(Vec<u32>, Vec<u32>)],
        _cancel: &Cancel,
    ) -> Result<Vec<f64>, StageError> {
        let one = |(prompt, response): &(Vec<u32>, Vec<u32>)| {
            let h = hash(&[policy.id().as_str().as_bytes(), &bytes(prompt), &bytes(response)]);
            -f64::from(u16::from_le_bytes([h[0], h[1]])) / 1000.0
        };
        Ok(sequences.iter().map(one).collect())
    }

    fn train(&self, request: SegmentRequest<'_>) -> Result<Segment, StageError> {
        if self.broken {
            return Err(StageError::Missing("the trainer is broken".to_owned()));
        }
        let begin = match &request.saved {
            Some(saved) => format!("{}{}", saved.policy.id(), saved.optimizer),
            None => request.start.id().to_string(),
        };
        let names: Vec<Vec<u8>> = request.steps.iter().map(step_name).collect();
        let mut parts: Vec<&[u8]> = vec![begin.as_bytes()];
        parts.extend(names.iter().map(Vec::as_slice));
        let h = hash(&parts);
        let policy = PolicyRef { weights: self.put([h.as_slice(), b"w"].concat()), adapter: None };
        let optimizer = self.put([h.as_slice(), b"o"].concat());
        let steps = names
            .iter()
            .map(|name| {
                let loss = f64::from(hash(&[name])[0]) / 100.0;
                StepResult::Taken(StepMetrics { loss, ..StepMetrics::default() })
            })
            .collect();
        Ok(Segment { steps, saved: Saved { policy, optimizer } })
    }

    fn blob(&self, hash: &BlobHash) -> Result<Vec<u8>, StageError> {
        let blobs = self.blobs.lock().unwrap();
        blobs.get(hash).cloned().ok_or_else(|| StageError::Missing(format!("blob {hash}")))
    }
}

/// Scores by the last digit of the answer.
pub struct FakeOracle;

impl Oracle for FakeOracle {
    fn score(&self, _task: &str, completion: &str) -> Option<f64> {
        completion.chars().filter_map(|c| c.to_digit(10)).next_back().map(f64::from)
    }
}
