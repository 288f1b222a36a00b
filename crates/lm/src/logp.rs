//! Log-probabilities of responses: shifted, response tokens only, summed.

use super::cancel::Cancel;
use super::decoder::PackedRows;
use super::error::LmError;
use std::collections::BTreeMap;
use std::ops::Range;

/// Where the scored tokens of a packed batch are. They come in units: the tokens that one loss is
/// made of.
#[derive(Clone, Debug, Default)]
pub struct Scored {
    /// Rows whose next token is scored, P of them.
    pub at: Vec<u32>,
    /// The scored tokens.
    pub targets: Vec<u32>,
    /// Where each unit ends.
    ends: Vec<usize>,
}

impl Scored {
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
pub trait Scores {
    /// Natural-log probability of everything scored in these rows.
    ///
    /// # Errors
    /// When a sequence is longer than the model's context, or an id is outside the vocabulary.
    fn scored(&self, rows: &PackedRows, scored: &Scored) -> Result<Vec<f32>, LmError>;

    /// Rows that it reads in one go.
    fn rows_max(&self) -> usize;
}

/// A response without its last token, which is predicted and predicts nothing: it needs no row.
pub(crate) fn rows_of(response: &[u32]) -> &[u32] {
    response.split_last().map_or(&[], |(_, rows)| rows)
}

/// Summed natural-log probability of each response after its prompt, in f64. Responses to the same
/// prompt are read after one reading of it.
///
/// # Errors
/// [`LmError::Training`] for an empty prompt (its first token would have nothing to be predicted
/// from); [`LmError::Cancelled`].
pub fn sequence_logps(
    decoder: &dyn Scores,
    sequences: &[(Vec<u32>, Vec<u32>)],
    cancel: &Cancel,
) -> Result<Vec<f64>, LmError> {
    if sequences.iter().any(|(prompt, _)| prompt.is_empty()) {
        return Err(LmError::Training("a sequence has an empty prompt".to_owned()));
    }
    let mut most = decoder.rows_max();
    // Responses that are read after one reading of their prompt.
    let mut together = 8;
    loop {
        match sums_of(decoder, sequences, (most, together), cancel) {
            // A device that has no room for so many rows may have it for fewer.
            Err(LmError::DeviceMemory { wanted, held, why }) if most > 1 => {
                (most, together) = (most / 2, 1);
                tracing::warn!(wanted, held, why, most, "fewer rows at a time");
            }
            done => return done,
        }
    }
}

/// With at most `most` rows at a time, or one sequence's.
fn sums_of(
    decoder: &dyn Scores,
    sequences: &[(Vec<u32>, Vec<u32>)],
    (most, together): (usize, usize),
    cancel: &Cancel,
) -> Result<Vec<f64>, LmError> {
    let mut families: BTreeMap<&[u32], Vec<usize>> = BTreeMap::new();
    for (index, (prompt, _)) in sequences.iter().enumerate() {
        families.entry(prompt).or_default().push(index);
    }
    let mut sums = vec![0f64; sequences.len()];
    let mut batch: Vec<(&[u32], &[usize])> = Vec::new();
    let mut held = 0;
    for (prompt, members) in &families {
        for members in members.chunks(together) {
            let rests = members.iter().map(|at| sequences[*at].1.len());
            let size = prompt.len() + rests.sum::<usize>();
            if held + size > most && !batch.is_empty() {
                add_sums(decoder, sequences, &batch, &mut sums, cancel)?;
                (held, batch) = (0, Vec::new());
            }
            held += size;
            batch.push((prompt, members));
        }
    }
    add_sums(decoder, sequences, &batch, &mut sums, cancel)?;
    Ok(sums)
}

fn add_sums(
    decoder: &dyn Scores,
    sequences: &[(Vec<u32>, Vec<u32>)],
    batch: &[(&[u32], &[usize])],
    sums: &mut [f64],
    cancel: &Cancel,
) -> Result<(), LmError> {
    cancel.check()?;
    let (mut rows, mut scored) = (PackedRows::default(), Scored::default());
    for (prompt, members) in batch {
        let before = rows.ids.len() + prompt.len() - 1;
        let rests: Vec<&[u32]> = members.iter().map(|at| rows_of(&sequences[*at].1)).collect();
        for (first, at) in rows.push_family(prompt, &rests).into_iter().zip(*members) {
            scored.push_response(before, first, &sequences[*at].1);
        }
    }
    let mut logps = decoder.scored(&rows, &scored)?.into_iter();
    for at in batch.iter().flat_map(|(_, members)| *members) {
        sums[*at] = logps.by_ref().take(sequences[*at].1.len()).map(f64::from).sum();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_chunked_whole() {
        let mut scored = Scored::default();
        for length in [2usize, 3, 9, 0, 1] {
            (0..length).for_each(|at| scored.push(at, 7));
            scored.end_unit();
        }
        assert_eq!(scored.unit(1), 2..5);
        let chunks = scored.chunks(5);
        assert_eq!(chunks, [(0..2, 0..5), (2..3, 5..14), (3..5, 14..15)]);
        assert!(Scored::default().chunks(5).is_empty());
    }
}
