//! Held-out prompts are measured on and never trained on: what equals one of them, or nearly does,
//! is taken out of the prompts and rows that train.

use super::alike::{Known, Likeness};
use crate::domain::event::SeedRow;
use crate::domain::{Message, Prompt, PromptOrigin, Role, Seed};

/// Held-out prompts, ready to be looked for.
#[derive(Default)]
pub struct HeldOut {
    /// By how many user turns they have, from 1.
    by_turns: Vec<Known>,
}

/// What was left out of a file, by how it was like a held-out prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Rows there were.
    pub of: usize,
    /// Word for word.
    pub equal: usize,
    /// Nearly equal.
    pub nearly: usize,
    /// With a held-out prompt inside.
    pub containing: usize,
}

impl LeftOut {
    /// How many rows were left out.
    pub fn rows(&self) -> usize {
        self.equal + self.nearly + self.containing
    }

    /// A line for a person, when something was left out of the file `name`.
    pub fn summary(&self, name: &str) -> Option<String> {
        let counts = [
            (self.equal, "word for word"),
            (self.nearly, "nearly"),
            (self.containing, "inside a longer text"),
        ];
        let some = counts.iter().filter(|(n, _)| *n > 0);
        let how = some.map(|(n, how)| format!("{n} {how}")).collect::<Vec<_>>().join(", ");
        let (rows, of) = (self.rows(), self.of);
        let why = "left out: their prompt is held out";
        (rows > 0).then(|| format!("{rows} of {of} rows of {name} {why} ({how})"))
    }

    fn count(&mut self, found: Option<Likeness>) {
        self.of += 1;
        match found {
            Some(Likeness::WordForWord) => self.equal += 1,
            Some(Likeness::Nearly) => self.nearly += 1,
            Some(Likeness::Contains) => self.containing += 1,
            None => {}
        }
    }
}

/// What the user says, in order.
fn user_turns(messages: &[Message]) -> Vec<&str> {
    let users = messages.iter().filter(|message| message.role == Role::User);
    users.map(|message| message.content.as_str()).collect()
}

/// All that the user says in a chat, as one text.
pub fn text_of(messages: &[Message]) -> String {
    joined(&user_turns(messages))
}

/// Turns as one text. One turn is itself.
fn joined(turns: &[&str]) -> String {
    turns.join("\n\n")
}

impl HeldOut {
    /// Of prompts whatever their origin says.
    pub fn of<'p>(prompts: impl IntoIterator<Item = &'p Prompt>) -> HeldOut {
        let mut held = HeldOut::default();
        prompts.into_iter().for_each(|prompt| held.add(prompt));
        held
    }

    /// One more.
    pub fn add(&mut self, prompt: &Prompt) {
        let turns = user_turns(&prompt.messages);
        let Some(at) = turns.len().checked_sub(1) else { return };
        while self.by_turns.len() <= at {
            self.by_turns.push(Known::default());
        }
        if let Some(known) = self.by_turns.get_mut(at) {
            known.add(&joined(&turns));
        }
    }

    /// How a chat is like a held-out prompt: whether any of its user turns (or as many in a row as
    /// the held-out prompt has) equals it or nearly does.
    pub fn in_chat(&self, messages: &[Message]) -> Option<Likeness> {
        self.found_in_chat(messages).map(|(likeness, _)| likeness)
    }

    /// As [`HeldOut::in_chat`], with the held-out prompt as [`text_of`] gives it, trimmed.
    pub fn found_in_chat(&self, messages: &[Message]) -> Option<(Likeness, &str)> {
        let turns = user_turns(messages);
        let windows = self.by_turns.iter().enumerate().filter(|(_, known)| !known.is_empty());
        let found = windows.flat_map(|(at, known)| {
            turns.windows(at + 1).filter_map(|window| known.same(&joined(window)))
        });
        found.min()
    }

    /// The same of a judge's question, inside which a prompt may stand.
    pub fn in_question(&self, messages: &[Message]) -> Option<Likeness> {
        self.found_in_question(messages).map(|(likeness, _)| likeness)
    }

    /// As [`HeldOut::in_question`], with the held-out prompt.
    pub fn found_in_question(&self, messages: &[Message]) -> Option<(Likeness, &str)> {
        self.found_in_chat(messages).or_else(|| {
            let mut known = self.by_turns.iter();
            known.find_map(|known| messages.iter().find_map(|m| known.inside(&m.content)))
        })
    }

    /// Takes prompts that are held out from those to train on.
    pub fn keep_prompts(&self, prompts: &mut Vec<Prompt>) -> LeftOut {
        let mut left = LeftOut::default();
        prompts.retain(|prompt| {
            let found = self.in_chat(&prompt.messages);
            left.count(found);
            found.is_none()
        });
        left
    }

    /// Takes rows whose prompt is held out from instructions with answers (IFT).
    pub fn keep_rows(&self, rows: &mut Vec<SeedRow>) -> LeftOut {
        keep(rows, |row| self.in_chat(&row.messages))
    }

    /// Takes rows that ask about a held-out prompt from a judge's questions (EFT).
    pub fn keep_questions(&self, rows: &mut Vec<SeedRow>) -> LeftOut {
        keep(rows, |row| self.in_question(&row.messages))
    }
}

fn keep(rows: &mut Vec<SeedRow>, find: impl Fn(&SeedRow) -> Option<Likeness>) -> LeftOut {
    let mut left = LeftOut::default();
    rows.retain(|row| {
        let found = find(row);
        left.count(found);
        found.is_none()
    });
    left
}

/// Prompts in the order in which they are held out: by the hash of the run's seed and their id, so
/// that the choice does not depend on a file's order.
pub fn order(prompts: &mut [Prompt], root: Seed) {
    let root = root.derive("held out");
    prompts.sort_by_cached_key(|prompt| root.derive(prompt.id.as_str()).0);
}

/// Picks `wanted` prompts to hold out, at most a quarter: those to train on, and those held out.
pub fn pick(mut all: Vec<Prompt>, wanted: usize, seed: u64) -> (Vec<Prompt>, Vec<Prompt>) {
    order(&mut all, Seed::root(seed));
    let train = all.split_off(wanted.min(all.len() / 4));
    (train, held_out(all))
}

/// The same prompts, held out.
pub fn held_out(prompts: Vec<Prompt>) -> Vec<Prompt> {
    prompts.into_iter().map(|prompt| Prompt { origin: PromptOrigin::HeldOut, ..prompt }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(text: &str) -> Prompt {
        Prompt::user(text, PromptOrigin::Given)
    }

    fn row(messages: &[Message]) -> SeedRow {
        SeedRow { messages: messages.to_vec(), completion: "x".to_owned() }
    }

    fn sums() -> Vec<Prompt> {
        let pairs = (1..13).flat_map(|a| (1..13).map(move |b| (a, b)));
        pairs.map(|(a, b)| prompt(&format!("add {a} and {b} ."))).collect()
    }

    #[test]
    fn of_sums_only_the_held_out_ones_are_left_out() {
        let (mut train, held) = pick(sums(), 16, 7);
        assert_eq!((train.len(), held.len()), (128, 16));
        assert!(held.iter().all(|prompt| prompt.origin == PromptOrigin::HeldOut));
        let index = HeldOut::of(&held);
        let none = LeftOut { of: 128, ..LeftOut::default() };
        assert_eq!(index.keep_prompts(&mut train), none);
        assert_eq!((train.len(), none.summary("x")), (128, None));
        let mut rows: Vec<SeedRow> = sums().iter().map(|prompt| row(&prompt.messages)).collect();
        let left = index.keep_rows(&mut rows);
        assert_eq!((left.equal, left.nearly, rows.len()), (16, 0, 128));
        let said = left.summary("sums-ift.jsonl").unwrap();
        let wanted = "16 of 144 rows of sums-ift.jsonl left out: their prompt is held out (16 word \
                      for word)";
        assert_eq!(said, wanted);
        assert!(rows.iter().all(|row| index.in_chat(&row.messages).is_none()));
        let question =
            |sum: &Prompt| row(&[Message::user(format!("<task> {} <answer> 3", sum.task_text()))]);
        let mut questions: Vec<SeedRow> = sums().iter().map(question).collect();
        assert_eq!(index.keep_questions(&mut questions).containing, 16);
        assert_eq!(questions.len(), 128);
    }

    #[test]
    fn any_user_turn_counts_and_turns_together() {
        let turns = |texts: &[&str]| -> Vec<Message> {
            texts.iter().flat_map(|t| [Message::user(*t), Message::assistant("well")]).collect()
        };
        let one = HeldOut::of([&prompt("add 1 and 1 .")]);
        assert_eq!(one.in_chat(&turns(&["hi", "Add 1 and 1", "bye"])), Some(Likeness::Nearly));
        assert_eq!(one.in_chat(&[Message::assistant("add 1 and 1 .")]), None, "the model says it");
        let chat = turns(&["I have 3 cats.", "How many legs have they?"]);
        let two = HeldOut::of([&Prompt::new(chat, PromptOrigin::HeldOut)]);
        let both = ["hello", "I have 3 cats", "how many legs have they"];
        assert_eq!(two.in_chat(&turns(&both)), Some(Likeness::Nearly));
        assert_eq!(two.in_chat(&turns(&["I have 4 cats", "how many legs have they"])), None);
        assert_eq!(two.in_chat(&turns(&["how many legs have they"])), None);
    }

    #[test]
    fn the_choice_does_not_depend_on_the_order() {
        let mut other = sums();
        other.reverse();
        assert_eq!(pick(sums(), 16, 7), pick(other, 16, 7));
        assert_ne!(pick(sums(), 16, 7), pick(sums(), 16, 8));
        assert_eq!(pick(sums(), 400, 7).1.len(), 36, "at most a quarter");
    }
}
