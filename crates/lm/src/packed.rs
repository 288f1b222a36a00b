//! Sequences packed one after another, and which of their tokens are scored: what the decoders take,
//! wherever they compute. Sequences that begin alike hold their beginning once.

use super::config::ModelConfig;
use super::error::LmError;
use super::ops::PrefixGroup;
use std::ops::Range;

/// Sequences, one after another.
#[derive(Clone, Debug, Default)]
pub struct PackedRows {
    /// Token ids, T of them.
    pub ids: Vec<u32>,
    /// Position of each row in its own sequence.
    pub positions: Vec<u32>,
    /// The rows of sequences that begin alike.
    pub groups: Vec<PrefixGroup>,
}

impl PackedRows {
    /// Appends a sequence; gives the rows it takes.
    pub fn push(&mut self, ids: &[u32]) -> Range<usize> {
        let from = self.ids.len();
        self.push_group(ids, &[]);
        from..self.ids.len()
    }

    /// Appends sequences that all begin with `prefix`; gives the first row of each one's rest.
    pub fn push_group(&mut self, prefix: &[u32], rests: &[&[u32]]) -> Vec<usize> {
        let from = self.ids.len();
        self.ids.extend_from_slice(prefix);
        self.positions.extend((0u32..).take(prefix.len()));
        let mut firsts = Vec::with_capacity(rests.len());
        for rest in rests {
            firsts.push(self.ids.len());
            self.ids.extend_from_slice(rest);
            self.positions.extend((prefix.len() as u32..).take(rest.len()));
        }
        let branches = rests.iter().map(|rest| rest.len()).collect();
        self.groups.push(PrefixGroup {
            rows: from..self.ids.len(),
            prefix: prefix.len(),
            branches,
        });
        firsts
    }
}

/// Whether a network of this shape can read the rows.
///
/// # Errors
/// When a sequence is longer than the model's context, or an id is outside the vocabulary.
pub(crate) fn check_rows(config: &ModelConfig, rows: &PackedRows) -> Result<(), LmError> {
    let most = config.max_position_embeddings;
    if let Some(position) = rows.positions.iter().find(|p| **p as usize >= most) {
        return Err(LmError::Model(format!(
            "a sequence of more than {position} tokens is longer than the model's context of {most}"
        )));
    }
    check_ids(config, &rows.ids)
}

/// Whether all ids are in the vocabulary.
///
/// # Errors
/// [`LmError::Model`] with the first that is not.
pub(crate) fn check_ids(config: &ModelConfig, ids: &[u32]) -> Result<(), LmError> {
    let size = config.vocab_size;
    match ids.iter().find(|id| **id as usize >= size) {
        None => Ok(()),
        Some(id) => Err(LmError::Model(format!("token {id} is outside the vocabulary of {size}"))),
    }
}

/// Where the scored tokens of a packed batch are. They come in units: the tokens that one loss is
/// made of.
#[derive(Clone, Debug, Default)]
pub struct ScoredTokens {
    /// Rows whose next token is scored, P of them.
    pub at: Vec<u32>,
    /// The scored tokens.
    pub targets: Vec<u32>,
    /// Where each unit ends.
    ends: Vec<usize>,
}

impl ScoredTokens {
    /// Scores `token`, which row `before` predicts.
    pub fn push(&mut self, before: usize, token: u32) {
        self.at.push(before as u32);
        self.targets.push(token);
    }

    /// Scores a response whose first token row `before` predicts, and whose own rows begin at
    /// `first`.
    pub fn push_response(&mut self, before: usize, first: usize, response: &[u32]) {
        let rows = std::iter::once(before).chain(first..);
        rows.zip(response).for_each(|(row, token)| self.push(row, *token));
    }

    /// What was pushed since the last end is a unit.
    pub fn end_unit(&mut self) {
        self.ends.push(self.at.len());
    }

    /// Positions of a unit.
    pub fn unit(&self, unit: usize) -> Range<usize> {
        let end = |unit: usize| self.ends.get(unit).copied().unwrap_or(self.at.len());
        unit.checked_sub(1).map_or(0, end)..end(unit)
    }

    /// Units of at most `most` positions together, or one that is longer alone; and their
    /// positions.
    pub fn chunks(&self, most: usize) -> Vec<(Range<usize>, Range<usize>)> {
        let mut chunks: Vec<(Range<usize>, Range<usize>)> = Vec::new();
        for unit in 0..self.ends.len() {
            let rows = self.unit(unit);
            match chunks.last_mut() {
                Some((units, held)) if rows.end - held.start <= most => {
                    units.end = unit + 1;
                    held.end = rows.end;
                }
                _ => chunks.push((unit..unit + 1, rows)),
            }
        }
        chunks
    }
}

/// A network that can say how likely tokens are, wherever it computes.
pub trait TokenScorer {
    /// Natural-log probability of everything scored in these rows.
    ///
    /// # Errors
    /// When a sequence is longer than the model's context, or an id is outside the vocabulary.
    fn scored(&self, rows: &PackedRows, scored: &ScoredTokens) -> Result<Vec<f32>, LmError>;

    /// Rows that it reads in one go.
    fn rows_max(&self) -> usize;
}

/// A response without its last token, which is predicted and predicts nothing: it needs no row.
pub(crate) fn rows_of(response: &[u32]) -> &[u32] {
    response.split_last().map_or(&[], |(_, rows)| rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_chunked_whole() {
        let mut scored = ScoredTokens::default();
        for length in [2usize, 3, 9, 0, 1] {
            (0..length).for_each(|at| scored.push(at, 7));
            scored.end_unit();
        }
        assert_eq!(scored.unit(1), 2..5);
        let chunks = scored.chunks(5);
        assert_eq!(chunks, [(0..2, 0..5), (2..3, 5..14), (3..5, 14..15)]);
        assert!(ScoredTokens::default().chunks(5).is_empty());
    }
}
