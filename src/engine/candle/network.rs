//! A network of candle-transformers as it is loaded, and a conversation with it. All of them
//! compute the logits after the last token that they are given, and keep what they have read.

use crate::lm::error::LmError;
use candle_core::{DType, Device, Result, Tensor};

/// A network with what it has read so far.
pub(super) trait Network: Send + Sync {
    /// Logits after the last of `ids` ([1, n]), the first of which stands at place `at`.
    fn forward(&mut self, ids: &Tensor, at: usize) -> Result<Tensor>;

    /// Another one over the same weights, which has read the same.
    fn fork(&self) -> Box<dyn Network>;
}

/// Whether conversations that go on from the same prompt may share what was read of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prompts {
    /// What was read is not changed any more: each conversation adds to a copy, or behind it.
    Shared,
    /// What was read is written over (a window that moves, one memory for all): each conversation
    /// reads its prompt anew.
    ReadAnew,
}

/// Weights that nobody moves, having read nothing.
pub(super) struct Frozen {
    network: Box<dyn Network>,
    prompts: Prompts,
    /// Tokens of a prompt that are read at once.
    part: usize,
}

impl Frozen {
    pub fn new(network: Box<dyn Network>, prompts: Prompts) -> Frozen {
        Frozen { network, prompts, part: usize::MAX }
    }

    /// One that reads its prompts a token at a time.
    pub fn token_by_token(self) -> Frozen {
        Frozen { part: 1, ..self }
    }

    /// A conversation that has not begun.
    pub fn begin(&self) -> Conversation<'_> {
        Conversation { frozen: self, network: self.network.fork(), tokens: 0 }
    }

    /// A conversation that has read a prompt, and the logits after it.
    pub fn read(
        &self,
        prompt: &[u32],
    ) -> std::result::Result<(Conversation<'_>, Vec<f32>), LmError> {
        let mut conversation = self.begin();
        let logits = conversation.read(prompt)?;
        Ok((conversation, logits))
    }
}

/// A sequence that a network reads token after token.
pub(super) struct Conversation<'a> {
    frozen: &'a Frozen,
    network: Box<dyn Network>,
    tokens: usize,
}

impl<'a> Conversation<'a> {
    /// Reads on; the logits after the last id. Several ids are read in one go only at the
    /// beginning: not every network gets a mask right in the middle.
    pub fn read(&mut self, ids: &[u32]) -> std::result::Result<Vec<f32>, LmError> {
        let mut logits = None;
        let part = if self.tokens == 0 { self.frozen.part } else { 1 };
        for part in ids.chunks(part.min(ids.len()).max(1)) {
            let input = Tensor::from_slice(part, (1, part.len()), &Device::Cpu)?;
            logits = Some(self.network.forward(&input, self.tokens)?);
            self.tokens += part.len();
        }
        let logits = logits.ok_or_else(|| LmError::Model("there is nothing to read".to_owned()))?;
        Ok(logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
    }

    /// Another conversation that has read `prompt`, which is what this one has read. Only one of
    /// them goes on at a time.
    pub fn branch(&mut self, prompt: &[u32]) -> std::result::Result<Conversation<'a>, LmError> {
        match self.frozen.prompts {
            Prompts::Shared => Ok(Conversation {
                frozen: self.frozen,
                network: self.network.fork(),
                tokens: self.tokens,
            }),
            Prompts::ReadAnew => Ok(self.frozen.read(prompt)?.0),
        }
    }
}

/// A network that keeps what it has read in itself.
macro_rules! keeps_in_itself {
    ($($network:ty),+ $(,)?) => {$(
        impl Network for $network {
            fn forward(&mut self, ids: &Tensor, at: usize) -> Result<Tensor> {
                <$network>::forward(self, ids, at)
            }

            fn fork(&self) -> Box<dyn Network> {
                Box::new(self.clone())
            }
        }
    )+};
}

pub(super) use keeps_in_itself;

/// What builds a network may panic where a tensor is missing; a broken model must not end the
/// process.
pub(super) fn built<T>(
    what: &str,
    build: impl FnOnce() -> std::result::Result<T, LmError>,
) -> std::result::Result<T, LmError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(build)).unwrap_or_else(|panic| {
        let why = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let why = why.unwrap_or_else(|| "it panicked without a message".to_owned());
        Err(LmError::Model(format!("{what} does not fit its configuration: {why}")))
    })
}
