//! Log-probabilities of responses: shifted, response tokens only, summed.

use super::cancel::Cancel;
use super::error::LmError;
use super::packed::{PackedRows, ScoredTokens, TokenScorer, rows_of};
use std::collections::BTreeMap;

/// Summed natural-log probability of each response after its prompt, in f64. Responses to the same
/// prompt are read after one reading of it.
///
/// # Errors
/// [`LmError::Training`] for an empty prompt (its first token would have nothing to be predicted
/// from); [`LmError::Cancelled`].
pub fn sequence_logps(
    decoder: &dyn TokenScorer,
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
    decoder: &dyn TokenScorer,
    sequences: &[(Vec<u32>, Vec<u32>)],
    (most, together): (usize, usize),
    cancel: &Cancel,
) -> Result<Vec<f64>, LmError> {
    let mut groups: BTreeMap<&[u32], Vec<usize>> = BTreeMap::new();
    for (index, (prompt, _)) in sequences.iter().enumerate() {
        groups.entry(prompt).or_default().push(index);
    }
    let mut sums = vec![0f64; sequences.len()];
    let mut batch: Vec<(&[u32], &[usize])> = Vec::new();
    let mut held = 0;
    for (prompt, members) in &groups {
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
    decoder: &dyn TokenScorer,
    sequences: &[(Vec<u32>, Vec<u32>)],
    batch: &[(&[u32], &[usize])],
    sums: &mut [f64],
    cancel: &Cancel,
) -> Result<(), LmError> {
    cancel.check()?;
    let (mut rows, mut scored) = (PackedRows::default(), ScoredTokens::default());
    for (prompt, members) in batch {
        let before = rows.ids.len() + prompt.len() - 1;
        let rests: Vec<&[u32]> = members.iter().map(|at| rows_of(&sequences[*at].1)).collect();
        for (first, at) in rows.push_group(prompt, &rests).into_iter().zip(*members) {
            scored.push_response(before, first, &sequences[*at].1);
        }
    }
    let mut logps = decoder.scored(&rows, &scored)?.into_iter();
    for at in batch.iter().flat_map(|(_, members)| *members) {
        sums[*at] = logps.by_ref().take(sequences[*at].1.len()).map(f64::from).sum();
    }
    Ok(())
}
