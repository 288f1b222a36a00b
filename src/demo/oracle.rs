//! The truth about an answer: the additive score 0 to 5, one point each for relevant, useful,
//! complete, correct and clean.

use super::grammar::{Instruction, WantedItems, parse};
use super::words::FILLERS;

/// One position of the walk over an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct GradedStep {
    /// The item found there; `none` past the end of the answer.
    pub item: String,
    /// What decides: the wanted item of a sequence, the item's category (or letter) in a set,
    /// `twice` for a repeat, `more` for one too many, `none` past the end of what was wanted.
    pub key: String,
    /// Whether the item counts as right.
    pub right: bool,
}

/// An answer, graded.
#[derive(Clone, Debug, PartialEq)]
pub struct GradedAnswer {
    /// The walk.
    pub steps: Vec<GradedStep>,
    /// Items that count.
    pub right: usize,
    /// Items that do not.
    pub wrong: usize,
    /// Items that were wanted.
    pub wanted: usize,
    /// relevant, useful, complete, correct, clean.
    pub points: [bool; 5],
}

impl GradedAnswer {
    /// How many points.
    pub fn score(&self) -> u32 {
        self.points.iter().filter(|p| **p).count() as u32
    }
}

fn is_item(token: &str) -> bool {
    !token.is_empty() && token != "." && token != "," && !FILLERS.contains(&token)
}

fn walk_set(instruction: &Instruction, items: &[&str]) -> Vec<GradedStep> {
    let WantedItems::Set(slots) = &instruction.wanted else { return Vec::new() };
    let mut room: Vec<usize> = slots.iter().map(|slot| slot.count).collect();
    let mut seen: Vec<&str> = Vec::new();
    let mut steps = Vec::new();
    for item in items {
        let home = slots.iter().position(|slot| slot.allowed.iter().any(|w| w == item));
        let (key, right) = match home {
            _ if seen.contains(item) => ("twice".to_owned(), false),
            Some(at) => match room.get_mut(at) {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    let slot = slots.get(at);
                    let letter = slot.and_then(|s| s.letter.clone());
                    (letter.or(slot.map(|s| s.category.clone())).unwrap_or_default(), true)
                }
                _ => ("more".to_owned(), false),
            },
            None => (stranger(instruction, item), false),
        };
        // A repeat of a wrong word is wrong for its own reason, so only right ones are kept.
        if right {
            seen.push(item);
        }
        steps.push(GradedStep { item: (*item).to_owned(), key, right });
    }
    steps
}

/// Why a word is outside every slot: its category, or its letter where only that is wrong.
fn stranger(instruction: &Instruction, item: &str) -> String {
    let Some(category) = super::words::category_of(item) else { return "no".to_owned() };
    let WantedItems::Set(slots) = &instruction.wanted else { return "no".to_owned() };
    let lettered = slots.iter().any(|s| s.letter.is_some() && s.category == category.name);
    if lettered { item.chars().take(1).collect() } else { category.name.to_owned() }
}

fn walk_sequence(target: &[String], items: &[&str]) -> Vec<GradedStep> {
    let steps = items.iter().enumerate().map(|(at, item)| {
        let key = target.get(at).cloned().unwrap_or_else(|| "none".to_owned());
        GradedStep { item: (*item).to_owned(), right: key == *item, key }
    });
    steps.collect()
}

/// Grades an answer to an instruction that was understood.
pub fn grade(instruction: &Instruction, answer: &str) -> GradedAnswer {
    let tokens: Vec<&str> = answer.split(' ').collect();
    let items: Vec<&str> = tokens.iter().filter(|t| is_item(t)).copied().collect();
    let wanted = instruction.size();
    let mut steps = match &instruction.wanted {
        WantedItems::Set(_) => walk_set(instruction, &items),
        WantedItems::Sequence(target) => walk_sequence(target, &items),
    };
    let right = steps.iter().filter(|s| s.right).count();
    let wrong = items.len() - right;
    for at in items.len()..wanted {
        let key = match &instruction.wanted {
            WantedItems::Sequence(target) => target.get(at).cloned().unwrap_or_default(),
            WantedItems::Set(_) => "none".to_owned(),
        };
        steps.push(GradedStep { item: "none".to_owned(), key, right: false });
    }
    let inside = items.iter().filter(|i| instruction.domain.iter().any(|d| d == *i)).count();
    let some = !items.is_empty();
    let owned: Vec<String> = items.iter().map(|i| (*i).to_owned()).collect();
    let points = [
        some && 2 * inside >= items.len(),
        right >= 1 && 2 * right >= wanted,
        right == wanted,
        some && wrong == 0,
        some && answer == instruction.answer(&owned),
    ];
    GradedAnswer { steps, right, wrong, wanted, points }
}

/// The score of an answer, or `None` when the instruction is not of the grammar.
pub fn score(task: &str, answer: &str) -> Option<f64> {
    let instruction = parse(task)?;
    Some(f64::from(grade(&instruction, answer).score()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::grammar::{FAMILIES, draw};
    use crate::dice::Dice;
    use crate::domain::Seed;

    #[test]
    fn a_right_answer_of_every_family_has_full_marks() {
        let mut dice = Dice::new(Seed::root(8));
        for family in FAMILIES {
            for _ in 0..200 {
                let instruction = parse(&draw(family, &mut dice)).unwrap();
                let gold = instruction.gold(&mut dice);
                let answer = instruction.answer(&gold);
                assert_eq!(grade(&instruction, &answer).score(), 5, "{instruction:?} {answer}");
            }
        }
    }

    /// Points stated by hand: relevant, useful, complete, correct, clean.
    #[test]
    fn hand_cases() {
        for (task, answer, expected) in [
            ("name 3 animals .", "cat , dog , cow .", "11111"),
            ("name 3 animals .", "cat , dog .", "11011"),
            ("name 3 animals .", "cat .", "10011"),
            ("name 3 animals .", "cat , dog , cow , bear .", "11101"),
            ("name 3 animals .", "cat , cat , dog .", "11001"),
            ("name 3 animals .", "cat dog cow .", "11110"),
            ("name 3 animals .", "sure cat , dog , cow .", "11110"),
            ("name 3 animals .", "cat , dog , cow", "11110"),
            ("name 3 animals .", "red , blue , saw .", "00001"),
            ("name 3 animals .", "", "00000"),
            ("name 3 animals .", ".", "00000"),
            ("reverse : cat dog red .", "red dog cat .", "11111"),
            ("reverse : cat dog red .", "cat dog red .", "10001"),
            ("reverse : cat dog red .", "red dog .", "11011"),
            ("add 2 and 3 .", "5 .", "11111"),
            ("add 2 and 3 .", "6 .", "10001"),
            ("name 1 animals that start with c .", "dog .", "10001"),
            ("name 2 animals that start with c .", "cat , cow .", "11111"),
            ("name 2 animals and 1 colors .", "cat , red , dog .", "11111"),
            ("name 1 animals and 1 colors .", "cat , dog .", "11001"),
        ] {
            let graded = grade(&parse(task).unwrap(), answer);
            let points: String = graded.points.iter().map(|p| if *p { '1' } else { '0' }).collect();
            assert_eq!(points, expected, "{task} {answer}");
        }
        assert_eq!(score("what is love ?", "yes ."), None);
    }
}
