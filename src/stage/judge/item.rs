//! What is put before a rubric: the different answers to one prompt, where the replies about them
//! take their randomness from, and the replies that are recorded already.

use crate::domain::{Prompt, ReadoutFacts, Seed};
use crate::rubric::{Rubric, RubricInput};

/// Where a question's replies take their randomness from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SeedRule {
    /// From the question's place among those of its prompt.
    ByPosition(Seed),
    /// From the texts of the answers: the same answer is judged the same wherever it stands.
    ByText(Seed),
}

/// A reply that was given before, to a rubric that showed the same answers.
#[derive(Clone)]
pub(crate) struct RecordedReply {
    /// Who asked for it.
    pub rubric: Rubric,
    /// Which of the item's answers were shown, in order.
    pub shown: Vec<usize>,
    /// Which of the k replies.
    pub sample: u32,
    /// The judge's own words.
    pub text: String,
    /// What each answer that was shown got; none without a score.
    pub scores: Vec<f64>,
    /// How that was read from probabilities, if it was.
    pub readout: Option<ReadoutFacts>,
}

/// The different answers to one prompt, to be judged.
#[derive(Clone)]
pub(crate) struct JudgingItem<'a> {
    /// The prompt as rubrics see it, without candidates.
    pub input: RubricInput,
    /// Which rubrics are for the prompt.
    pub tags: Vec<String>,
    pub answers: Vec<&'a str>,
    pub seeds: SeedRule,
    /// Replies that need not be drawn again when the question is the same.
    pub recorded: Vec<RecordedReply>,
}

impl<'a> JudgingItem<'a> {
    /// Answers to a prompt.
    pub fn of(prompt: &Prompt, answers: Vec<&'a str>, seeds: SeedRule) -> JudgingItem<'a> {
        let (input, tags) = (RubricInput::of(prompt, Vec::new()), prompt.notes.tags.clone());
        JudgingItem { input, tags, answers, seeds, recorded: Vec::new() }
    }

    /// The same with randomness of its own for the panel's member at `place`, counted from 0.
    pub fn for_member(&self, place: usize) -> JudgingItem<'a> {
        let own = |seed: Seed| match place {
            0 => seed,
            // The label is what it was when the first runs were recorded.
            later => seed.derive("seat").index(later as u64),
        };
        let seeds = match self.seeds {
            SeedRule::ByPosition(seed) => SeedRule::ByPosition(own(seed)),
            SeedRule::ByText(seed) => SeedRule::ByText(own(seed)),
        };
        JudgingItem { seeds, ..self.clone() }
    }
}

/// Things of which some are the same, each once: a judge is asked about each once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Distinct<T> {
    /// The different ones, in the order in which each first appears.
    pub items: Vec<T>,
    /// For each of the things, which of the different ones it is.
    pub index_of: Vec<usize>,
}

impl<T> Distinct<T> {
    /// Whether two of them are the `same` is for the caller to say.
    pub fn of(all: impl IntoIterator<Item = T>, same: impl Fn(&T, &T) -> bool) -> Distinct<T> {
        let mut found = Distinct { items: Vec::new(), index_of: Vec::new() };
        for one in all {
            let known = found.items.iter().position(|known| same(known, &one));
            found.index_of.push(known.unwrap_or(found.items.len()));
            if known.is_none() {
                found.items.push(one);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_different_one_is_kept_once_in_order() {
        let found = Distinct::of(["b", "a", "b", "c", "a"], |a, b| a == b);
        assert_eq!(found.items, ["b", "a", "c"]);
        assert_eq!(found.index_of, [0, 1, 0, 2, 1]);
        let nothing = Distinct::of(Vec::<&str>::new(), |a, b| a == b);
        assert!(nothing.items.is_empty() && nothing.index_of.is_empty());
    }
}
