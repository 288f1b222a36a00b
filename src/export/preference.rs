//! The forms that preference pairs can take, one object a row.

use super::pairs::PairsFormat;
use crate::domain::{Message, PreferencePair, Role};
use serde_json::{Map, Value, json};

/// A pair with its texts, and where they are from.
pub(super) struct PairRow {
    pub pair: PreferencePair,
    pub prompt: Vec<Message>,
    pub chosen: String,
    pub rejected: String,
    pub iteration: u32,
    /// The policy that answered.
    pub policy: String,
    /// What judged.
    pub rubrics: Vec<String>,
}

fn turns(messages: &[Message]) -> Value {
    let turn = |message: &Message| json!({ "role": message.role, "content": message.content });
    messages.iter().map(turn).collect()
}

fn answer(text: &str) -> Value {
    json!({ "role": "assistant", "content": text })
}

/// Turns as ShareGPT names them.
fn conversation(messages: &[Message]) -> Value {
    let from = |role: Role| match role {
        Role::System => "system",
        Role::User => "human",
        Role::Assistant => "gpt",
    };
    let turn = |message: &Message| json!({ "from": from(message.role), "value": message.content });
    messages.iter().map(turn).collect()
}

impl PairRow {
    /// The pair as rows of a form: one, but for KTO two.
    pub fn rows(&self, format: PairsFormat) -> Vec<Value> {
        let (chosen, rejected) = (&self.chosen, &self.rejected);
        let with = |texts: Value| self.with_origin(texts);
        match format {
            PairsFormat::Trl => vec![with(json!({
                "prompt": turns(&self.prompt),
                "chosen": [answer(chosen)],
                "rejected": [answer(rejected)],
            }))],
            PairsFormat::TrlImplicit => {
                let whole = |text: &str| {
                    let mut all = self.prompt.clone();
                    all.push(Message::assistant(text));
                    turns(&all)
                };
                vec![with(json!({ "chosen": whole(chosen), "rejected": whole(rejected) }))]
            }
            PairsFormat::Kto => {
                let one = |text: &str, label: bool| {
                    with(json!({
                        "prompt": turns(&self.prompt), "completion": [answer(text)], "label": label,
                    }))
                };
                vec![one(chosen, true), one(rejected, false)]
            }
            PairsFormat::Axolotl => vec![with(json!({
                "messages": turns(&self.prompt),
                "chosen": answer(chosen),
                "rejected": answer(rejected),
            }))],
            PairsFormat::LlamaFactory => vec![with(json!({
                "conversations": conversation(&self.prompt),
                "chosen": { "from": "gpt", "value": chosen },
                "rejected": { "from": "gpt", "value": rejected },
            }))],
        }
    }

    /// Where it is from, beside its texts: columns that trainers pass over.
    fn with_origin(&self, texts: Value) -> Value {
        let mut row = match texts {
            Value::Object(row) => row,
            _ => Map::new(),
        };
        let PreferencePair { id, prompt, chosen, rejected, weight, label } = &self.pair;
        row.insert("score_chosen".to_owned(), json!(chosen.score));
        row.insert("score_rejected".to_owned(), json!(rejected.score));
        row.insert("weight".to_owned(), json!(weight));
        row.insert("certainty".to_owned(), json!(label));
        row.insert("pair_id".to_owned(), json!(id));
        row.insert("prompt_id".to_owned(), json!(prompt));
        row.insert("iteration".to_owned(), json!(self.iteration));
        row.insert("policy".to_owned(), json!(self.policy));
        row.insert("rubrics".to_owned(), json!(self.rubrics.join(", ")));
        Value::Object(row)
    }
}
