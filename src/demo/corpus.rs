//! Documents for pretraining, and the seed data and held-out prompts of the loop. All from seeds:
//! the same seed gives the same text on every machine.

use super::corrupt::{CLEANISH, IMPERFECT, JUDGED, Mix, WEB, sloppy};
use super::critique::{critic_prompt, judge_prompt, reply, verdict, walk};
use super::grammar::{FAMILIES, HELD_OUT_FAMILIES, Instruction, draw, parse};
use super::oracle::grade;
use super::words::{self, CATEGORIES, NUMBER_MAX};
use crate::dice::Dice;
use crate::domain::event::SeedRow;
use crate::domain::{Message, Prompt, PromptOrigin, Seed};
use std::collections::BTreeSet;

/// Kinds of pretraining documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DocumentKind {
    /// An instruction and an answer, right or not.
    Answer,
    /// A sentence about words and numbers.
    Fact,
    /// A question about one word and its short answer.
    Check,
    /// A list of instructions.
    Tasks,
    /// A walk over an answer (no points, no score).
    Critique,
}

const KINDS: [(DocumentKind, f64); 5] = [
    (DocumentKind::Answer, 0.42),
    (DocumentKind::Fact, 0.04),
    (DocumentKind::Check, 0.06),
    (DocumentKind::Tasks, 0.06),
    (DocumentKind::Critique, 0.42),
];

/// Tokens and what each weighs in the loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its kind.
    pub kind: DocumentKind,
    /// Its words, special tokens included.
    pub tokens: Vec<String>,
    /// One weight per token.
    pub weights: Vec<f32>,
}

/// Most words of a prompt are random: predicting them is noise in the gradient.
const PROMPT_WEIGHT: f32 = 0.03;
const TEXT_WEIGHT: f32 = 0.3;
const FLAG_WEIGHT: f32 = 2.0;

impl Document {
    fn new(kind: DocumentKind) -> Document {
        Document { kind, tokens: Vec::new(), weights: Vec::new() }
    }

    fn add(&mut self, text: &str, weight: f32) {
        for token in text.split_whitespace() {
            self.tokens.push(token.to_owned());
            self.weights.push(weight);
        }
    }

    fn chat(kind: DocumentKind, prompt: &str, answer: &str) -> Document {
        let mut document = Document::new(kind);
        document.add(&format!("<bos> <user> {prompt} <bot>"), PROMPT_WEIGHT);
        for token in answer.split_whitespace() {
            let flag = kind == DocumentKind::Critique && (token == "ok" || token == "bad");
            document.add(token, if flag { FLAG_WEIGHT } else { 1.0 });
        }
        document.add("<eos>", 1.0);
        document
    }
}

fn any_instruction(families: &[&str], dice: &mut Dice) -> Option<Instruction> {
    let family = dice.pick(families);
    parse(&draw(family, dice))
}

/// The n-th document of an endless stream; `progress` in [0, 1] is how far pretraining is. Answers
/// are careful first and as careless as the web in the last quarter: those are the habits the
/// base has when the loop begins.
pub fn document(seed: Seed, n: u64, progress: f64) -> Document {
    let mut dice = Dice::new(seed.derive("document").index(n));
    let weights = KINDS.map(|(_, weight)| weight);
    let at = dice.weighted(&weights);
    let kind = KINDS.get(at).map_or(DocumentKind::Answer, |(kind, _)| *kind);
    let answers = if progress < 0.75 { &CLEANISH } else { &WEB };
    match kind {
        DocumentKind::Fact => fact(&mut dice),
        DocumentKind::Check => check(&mut dice),
        DocumentKind::Tasks => tasks(&mut dice),
        DocumentKind::Answer => answer(answers, &mut dice),
        DocumentKind::Critique => critique(&mut dice),
    }
}

fn answer(mix: &Mix, dice: &mut Dice) -> Document {
    let Some(instruction) = any_instruction(&FAMILIES, dice) else {
        return Document::new(DocumentKind::Answer);
    };
    let answer = sloppy(&instruction, mix, dice);
    Document::chat(DocumentKind::Answer, &instruction.text, &answer)
}

fn critique(dice: &mut Dice) -> Document {
    let Some(instruction) = any_instruction(&FAMILIES, dice) else {
        return Document::new(DocumentKind::Critique);
    };
    let answer = sloppy(&instruction, &JUDGED, dice);
    let text = walk(&grade(&instruction, &answer));
    // Half in the judge's own layout, so that the loop's rubric finds the walk it asks for.
    let prompt = match dice.chance(0.5) {
        true => critic_prompt(&instruction.text, &answer),
        false => judge_prompt(&instruction.text, &answer),
    };
    Document::chat(DocumentKind::Critique, &prompt, &text)
}

fn fact(dice: &mut Dice) -> Document {
    let word = dice.pick(&words::members());
    let n = dice.range(0, NUMBER_MAX - 1);
    let text = match dice.weighted(&[0.35, 0.2, 0.15, 0.3]) {
        0 => format!("{word} is one of the {} .", home(word)),
        1 => format!("{word} starts with {} .", word.chars().take(1).collect::<String>()),
        2 => format!("{} comes after {n} .", n + 1),
        _ => {
            let m = dice.range(0, NUMBER_MAX - n);
            format!("{n} plus {m} is {} .", n + m)
        }
    };
    let mut document = Document::new(DocumentKind::Fact);
    document.add(&format!("<bos> {text} <eos>"), TEXT_WEIGHT);
    document
}

fn home(word: &str) -> &'static str {
    words::category_of(word).map_or("", |c| c.name)
}

fn check(dice: &mut Dice) -> Document {
    let members = words::members();
    let word = dice.pick(&members);
    let n = dice.range(1, 6);
    let list = dice.some(&members, n);
    let yes = |b: bool| if b { "yes ." } else { "no ." };
    let (question, answer) = match dice.weighted(&[0.5, 0.25, 0.25]) {
        0 => {
            let at = dice.range(0, CATEGORIES.len() - 1);
            let other = CATEGORIES.get(at).map_or("", |c| c.name);
            let name = if dice.chance(0.5) { home(word) } else { other };
            (format!("is {word} one of the {name} ?"), yes(home(word) == name).to_owned())
        }
        1 => (format!("count the words : {} .", list.join(" ")), format!("{n} .")),
        _ => {
            let word = if dice.chance(0.5) { dice.pick(&list) } else { word };
            let inside = list.contains(&word);
            (format!("is {word} in : {} ?", list.join(" ")), yes(inside).to_owned())
        }
    };
    Document::chat(DocumentKind::Check, &question, &answer)
}

fn tasks(dice: &mut Dice) -> Document {
    let mut document = Document::new(DocumentKind::Tasks);
    document.add("<bos>", TEXT_WEIGHT);
    for _ in 0..dice.range(3, 6) {
        if let Some(instruction) = any_instruction(&FAMILIES, dice) {
            document.add(&format!("<task> {}", instruction.text), TEXT_WEIGHT);
        }
    }
    document.add("<eos>", TEXT_WEIGHT);
    document
}

/// What the loop of one seed begins with.
pub struct SeedData {
    /// Instructions with imperfect human-like answers.
    pub ift: Vec<SeedRow>,
    /// Judge prompts with right replies, balanced over scores.
    pub eft: Vec<SeedRow>,
    /// Instructions shown as demonstrations when new ones are written.
    pub demonstrations: Vec<Prompt>,
    /// Instructions to measure on, never trained on.
    pub held_out: Vec<Prompt>,
}

/// How much of each.
#[derive(Clone, Copy, Debug)]
pub struct SeedSizes {
    /// IFT rows.
    pub ift: usize,
    /// EFT rows.
    pub eft: usize,
    /// Held-out prompts.
    pub held_out: usize,
}

fn different(
    n: usize,
    families: &[&str],
    taken: &mut BTreeSet<String>,
    dice: &mut Dice,
) -> Vec<Instruction> {
    let mut found = Vec::new();
    // A bound, because small families have few instructions.
    for _ in 0..n * 200 {
        if found.len() == n {
            break;
        }
        if let Some(instruction) = any_instruction(families, dice)
            && taken.insert(instruction.text.clone())
        {
            found.push(instruction);
        }
    }
    found
}

/// Seed data of a run. The held-out prompts depend on `test` alone, so that seeds can be compared
/// on the same ones, and recipes tuned on others.
pub fn seed_data(seed: Seed, test: Seed, sizes: SeedSizes) -> SeedData {
    let mut taken = BTreeSet::new();
    let mut dice = Dice::new(test.derive("held out"));
    let held_out = different(sizes.held_out, &FAMILIES, &mut taken, &mut dice);
    let seen: Vec<&str> =
        FAMILIES.iter().filter(|f| !HELD_OUT_FAMILIES.contains(f)).copied().collect();
    let mut dice = Dice::new(seed.derive("ift"));
    let shown = different(sizes.ift, &seen, &mut taken, &mut dice);
    let ift = shown.iter().map(|i| row(&i.text, sloppy(i, &IMPERFECT, &mut dice))).collect();
    let mut dice = Dice::new(seed.derive("eft"));
    let eft = eft_rows(sizes.eft, &seen, &taken, &mut dice);
    let prompts = |from: &[Instruction], origin: PromptOrigin| {
        from.iter().map(|i| Prompt::user(i.text.clone(), origin)).collect()
    };
    SeedData {
        ift,
        eft,
        demonstrations: prompts(&shown, PromptOrigin::Demonstration),
        held_out: prompts(&held_out, PromptOrigin::HeldOut),
    }
}

fn row(prompt: &str, completion: String) -> SeedRow {
    SeedRow { messages: vec![Message::user(prompt)], completion }
}

/// Share of each score 0 to 5 among EFT rows.
const EFT_SHARES: [f64; 6] = [0.08, 0.16, 0.19, 0.19, 0.18, 0.20];

fn eft_rows(
    n: usize,
    families: &[&str],
    taken: &BTreeSet<String>,
    dice: &mut Dice,
) -> Vec<SeedRow> {
    let mut room = EFT_SHARES.map(|share| (share * n as f64).round() as usize);
    let mut rows = Vec::new();
    for _ in 0..n * 200 {
        if room.iter().all(|left| *left == 0) {
            break;
        }
        let Some(instruction) = any_instruction(families, dice) else { continue };
        if taken.contains(&instruction.text) {
            continue;
        }
        let answer = sloppy(&instruction, &JUDGED, dice);
        let graded = grade(&instruction, &answer);
        let Some(left) = room.get_mut(graded.score() as usize).filter(|left| **left > 0) else {
            continue;
        };
        *left -= 1;
        let reply = format!("{} {}", walk(&graded), verdict(&graded));
        rows.push(row(&judge_prompt(&instruction.text, &answer), reply));
    }
    rows
}

/// Fresh (task, answer, right reply) triples to measure a critic on.
pub fn critic_cases(seed: Seed, n: usize) -> Vec<(String, String, String)> {
    let mut dice = Dice::new(seed.derive("critic cases"));
    let mut cases = Vec::new();
    while cases.len() < n {
        let Some(instruction) = any_instruction(&FAMILIES, &mut dice) else { continue };
        let answer = sloppy(&instruction, &JUDGED, &mut dice);
        if let Some(reply) = reply(&instruction.text, &answer) {
            cases.push((instruction.text, answer, reply));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_use_the_vocabulary_and_come_back_the_same() {
        let vocabulary = words::all();
        for n in 0..3000 {
            let document = super::document(Seed::root(1), n, n as f64 / 3000.0);
            assert!(document.tokens.len() > 2 && document.tokens.len() < 200);
            for token in &document.tokens {
                assert!(vocabulary.contains(token), "{token} in {document:?}");
            }
            assert!(!document.tokens.contains(&"score".to_owned()), "{document:?}");
            assert_eq!(document, super::document(Seed::root(1), n, n as f64 / 3000.0));
        }
    }

    #[test]
    fn seed_data_is_balanced_and_apart_from_what_is_measured() {
        let sizes = SeedSizes { ift: 300, eft: 600, held_out: 200 };
        let data = seed_data(Seed::root(1), Seed::root(99), sizes);
        assert_eq!((data.ift.len(), data.held_out.len()), (300, 200));
        assert!(data.eft.len() >= 590);
        let held: Vec<&str> = data.held_out.iter().map(Prompt::task_text).collect();
        for row in data.ift.iter().chain(&data.eft) {
            let text = &row.messages[0].content;
            assert!(!held.iter().any(|h| text.contains(h)), "{text}");
            assert!(!text.contains("twice :") && !text.contains("take the"), "{text}");
        }
        let count = |score: &str| data.eft.iter().filter(|r| r.completion.ends_with(score)).count();
        assert!(count(": 0") >= 40 && count(": 5") <= 130, "{} {}", count(": 0"), count(": 5"));
        let other = seed_data(Seed::root(2), Seed::root(99), sizes);
        assert_eq!(other.held_out, data.held_out);
        assert_ne!(other.ift, data.ift);
    }
}
