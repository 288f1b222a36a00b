//! What is seen of a tokenizer and a chat template together: texts and chats become token ids, and ids
//! become text. Knows no network.

use super::chat::Message;
use super::error::LmError;

/// How texts and chats become token ids, and back.
pub trait Vocabulary: Send + Sync {
    /// Ids of a chat, with the model's turn opened. Contents cannot forge special tokens.
    ///
    /// # Errors
    /// The template refuses the turns.
    fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>, LmError>;

    /// Ids of untrusted text: no special token is added or recognised.
    ///
    /// # Errors
    /// The tokenizer refuses.
    fn encode_text(&self, text: &str) -> Result<Vec<u32>, LmError>;

    /// Ids of trusted text: special tokens in it are recognised.
    ///
    /// # Errors
    /// The tokenizer refuses.
    fn encode_template(&self, text: &str) -> Result<Vec<u32>, LmError>;

    /// Text without special tokens.
    ///
    /// # Errors
    /// The tokenizer refuses.
    fn decode(&self, ids: &[u32]) -> Result<String, LmError>;

    /// The token that ends the model's turn.
    fn turn_end(&self) -> u32;

    /// Every token that ends a completion; sorted, the turn's end among them.
    fn stop_ids(&self) -> &[u32];

    /// Longest sequence, prompt and completion together.
    fn context_tokens_max(&self) -> usize;
}
