//! What the model answered. The token ids are the truth; the text is for people and rubrics.

use serde::{Deserialize, Serialize};

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model ended its turn; the turn-end token is the last id.
    TurnEnd,
    /// The bound on new tokens was reached.
    Length,
    /// A stop text came up.
    StopText,
}

/// One answer drawn for a prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The drawn token ids, the turn-end token included. Training uses exactly these. Of an engine
    /// with another vocabulary, or without one: what the policy's tokenizer makes of the text.
    pub token_ids: Vec<u32>,
    /// The ids as text, without special tokens.
    pub text: String,
    /// Sum of the natural-log probabilities of the drawn tokens under the unmodified distribution
    /// (temperature 1, no cut); not known of an engine that does not say it, or whose ids were others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logp: Option<f64>,
    /// Why it ended.
    pub stop: StopReason,
}
