//! Log-probabilities of responses: shifted, response tokens only, summed.

use super::cancel::Cancel;
use super::decoder::{Decoder, PackedRows};
use super::error::LmError;

/// Rows of one forward pass when no gradient is wanted.
const ROWS_MAX: usize = 2048;

/// Where the scored tokens of a packed batch are.
#[derive(Clone, Debug, Default)]
pub struct Scored {
    /// Rows whose next token is scored.
    pub at: Vec<u32>,
    /// The scored tokens.
    pub targets: Vec<u32>,
}

impl Scored {
    /// Adds a response of `response` tokens that begins at row `first` (which is at least 1): the
    /// row before a token predicts it.
    pub fn push(&mut self, first: usize, response: &[u32]) {
        self.at.extend((first as u32 - 1..).take(response.len()));
        self.targets.extend_from_slice(response);
    }
}

/// Summed natural-log probability of each response after its prompt, in f64.
///
/// # Errors
/// [`LmError::Training`] for an empty prompt (its first token would have nothing to be predicted
/// from); [`LmError::Cancelled`].
pub fn sequence_logps(
    decoder: &Decoder,
    sequences: &[(Vec<u32>, Vec<u32>)],
    cancel: &Cancel,
) -> Result<Vec<f64>, LmError> {
    let mut sums = Vec::with_capacity(sequences.len());
    let mut from = 0;
    while from < sequences.len() {
        cancel.check()?;
        let mut rows = PackedRows::default();
        let mut scored = Scored::default();
        let mut lengths = Vec::new();
        for (prompt, response) in sequences.iter().skip(from) {
            let size = prompt.len() + response.len();
            if !lengths.is_empty() && rows.ids.len() + size > ROWS_MAX {
                break;
            }
            if prompt.is_empty() {
                return Err(LmError::Training("a sequence has an empty prompt".to_owned()));
            }
            let placed = rows.push(&[prompt.as_slice(), response.as_slice()].concat());
            scored.push(placed.start + prompt.len(), response);
            lengths.push(response.len());
        }
        from += lengths.len();
        let hidden = decoder.hidden(&rows)?;
        let logps = decoder.logps_detached(&hidden, &scored.at, &scored.targets)?;
        let mut logps = logps.into_iter();
        for length in lengths {
            sums.push(logps.by_ref().take(length).map(f64::from).sum());
        }
    }
    Ok(sums)
}
