//! Whether answers still read like a model's: how often they repeat themselves, and how likely the base
//! finds them. A loop can meet every requirement in prose that is broken.

use crate::domain::{Message, Prompt};
use crate::error::Error;
use crate::lm::cancel::Cancel;
use crate::lm::policy::LanguageModel;
use std::collections::HashSet;

/// Words of a sequence that is looked for again.
const REPEATED_WORDS: usize = 4;

/// Share of an answer's sequences of four words that stood in it before.
pub(super) fn repetition(text: &str) -> f64 {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut seen = HashSet::new();
    let all = words.windows(REPEATED_WORDS);
    let (count, again) = all.fold((0usize, 0usize), |(count, again), window| {
        (count + 1, again + usize::from(!seen.insert(window)))
    });
    if count == 0 { 0.0 } else { again as f64 / count as f64 }
}

/// Nats and tokens of answers to a prompt, under a model: log-probabilities of their own tokens, without
/// the end of the turn.
pub(super) fn nats(
    model: &dyn LanguageModel,
    prompt: &Prompt,
    answers: &[&str],
    cancel: &Cancel,
) -> Result<Vec<(f64, u32)>, Error> {
    let messages: &[Message] = &prompt.messages;
    let context = model.encode_chat(messages).map_err(Error::Model)?;
    let ids = answers.iter().map(|text| model.encode_text(text));
    let ids: Vec<Vec<u32>> = ids.collect::<Result<_, _>>().map_err(Error::Model)?;
    let some: Vec<Vec<u32>> = ids.iter().filter(|ids| !ids.is_empty()).cloned().collect();
    let mut found = match some.is_empty() {
        true => Vec::new(),
        false => {
            let all = model.choice_logps(&[context], &some, cancel).map_err(Error::Model)?;
            all.into_iter().next().unwrap_or_default()
        }
    }
    .into_iter();
    let each = ids.iter().map(|ids| match ids.len() {
        0 => (0.0, 0),
        n => (found.next().unwrap_or_default(), n as u32),
    });
    Ok(each.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stood_there_before_is_repetition() {
        assert_eq!(repetition("one two three"), 0.0);
        assert_eq!(repetition("a b c d e f"), 0.0);
        assert!((repetition("a b c d a b c d") - 1.0 / 5.0).abs() < 1e-12);
        assert!(repetition(&"so ".repeat(40)) > 0.9);
    }
}
