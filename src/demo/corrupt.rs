//! How answers go wrong: k corruptions on a right answer, with the weights the demo's experiments
//! settled on. Dropping and adding items weigh the same, so length alone says nothing of quality.

use super::grammar::{FAMILIES, Instruction, draw, parse};
use super::words::{self, NUMBER_MAX};
use crate::dice::Dice;

/// How often an answer gets 0, 1, 2 or 3 corruptions.
pub type Mix = [f64; 4];
/// Careless, as the web is.
pub const WEB: Mix = [0.35, 0.35, 0.20, 0.10];
/// Mostly right.
pub const CLEANISH: Mix = [0.80, 0.12, 0.06, 0.02];
/// For seed judgments: all scores occur.
pub const JUDGED: Mix = [0.25, 0.35, 0.25, 0.15];
/// Seed answers of people in a hurry: what leaves the loop something to gain.
pub const IMPERFECT: Mix = [0.30, 0.35, 0.22, 0.13];

const WEIGHTS: [f64; 11] = [3.0, 3.0, 2.0, 2.0, 2.0, 1.0, 2.0, 1.5, 1.0, 1.0, 2.0];

struct SpoiledAnswer {
    items: Vec<String>,
    separator: &'static str,
    before: &'static str,
    after: &'static str,
    stop: bool,
}

fn any_word(items: &[String], dice: &mut Dice) -> String {
    if items.first().is_some_and(|w| w.parse::<usize>().is_ok()) {
        return words::number(dice.range(0, NUMBER_MAX));
    }
    dice.pick(&words::members()).to_owned()
}

fn near_word(instruction: &Instruction, dice: &mut Dice) -> String {
    let domain: Vec<&str> = instruction.domain.iter().map(String::as_str).collect();
    dice.pick(&domain).to_owned()
}

fn place(items: &[String], dice: &mut Dice) -> usize {
    dice.range(0, items.len().saturating_sub(1))
}

fn set(items: &mut [String], at: usize, word: String) {
    if let Some(item) = items.get_mut(at) {
        *item = word;
    }
}

fn off_topic(dice: &mut Dice) -> Vec<String> {
    let family = dice.pick(&FAMILIES);
    let other = parse(&draw(family, dice));
    let mut items = other.map(|i| i.gold(dice)).unwrap_or_default();
    items.truncate(5);
    items
}

fn corrupt(draft: &mut SpoiledAnswer, instruction: &Instruction, dice: &mut Dice) {
    let items = &mut draft.items;
    match dice.weighted(&WEIGHTS) {
        0 if items.len() > 1 => drop(items.remove(place(items, dice))),
        1 => {
            let at = dice.range(0, items.len());
            items.insert(at, near_word(instruction, dice));
        }
        2 => {
            let word = items.get(place(items, dice)).cloned().unwrap_or_default();
            let at = place(items, dice);
            set(items, at, word);
        }
        3 => {
            let word = any_word(items, dice);
            let at = place(items, dice);
            set(items, at, word);
        }
        4 if items.len() > 1 => {
            let at = dice.range(0, items.len() - 2);
            items.swap(at, at + 1);
        }
        5 => *items = off_topic(dice),
        6 => draft.before = dice.pick(&["well , ", "sure , ", "um ", "maybe "]),
        7 => draft.stop = false,
        8 => draft.separator = if draft.separator == " " { " , " } else { " " },
        9 => draft.after = dice.pick(&[" thanks", " okay", " maybe"]),
        10 => {
            let at = place(items, dice);
            set(items, at, near_word(instruction, dice));
        }
        _ => {}
    }
}

/// An answer with corruptions drawn from `mix`.
pub fn sloppy(instruction: &Instruction, mix: &Mix, dice: &mut Dice) -> String {
    let mut draft = SpoiledAnswer {
        items: instruction.gold(dice),
        separator: instruction.separator(),
        before: "",
        after: "",
        stop: true,
    };
    for _ in 0..dice.weighted(mix) {
        corrupt(&mut draft, instruction, dice);
    }
    let SpoiledAnswer { items, separator, before, after, stop } = draft;
    let stop = if stop { " ." } else { "" };
    format!("{before}{}{after}{stop}", items.join(separator))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::oracle::grade;
    use crate::domain::Seed;

    #[test]
    fn the_imperfect_mix_leaves_headroom_without_favouring_short_answers() {
        let mut dice = Dice::new(Seed::root(4));
        let vocabulary = words::all();
        let (mut sum, mut n) = (0.0, 0.0);
        let (mut long, mut short) = (Vec::new(), Vec::new());
        for _ in 0..4000 {
            let instruction = parse(&draw(dice.pick(&FAMILIES), &mut dice)).unwrap();
            let answer = sloppy(&instruction, &IMPERFECT, &mut dice);
            for word in answer.split(' ') {
                assert!(vocabulary.iter().any(|v| v == word), "{word:?} in {answer:?}");
            }
            let graded = grade(&instruction, &answer);
            let score = f64::from(graded.score());
            sum += score;
            n += 1.0;
            let items = graded.right + graded.wrong;
            match items.cmp(&instruction.size()) {
                std::cmp::Ordering::Less => short.push(score),
                std::cmp::Ordering::Greater => long.push(score),
                std::cmp::Ordering::Equal => {}
            }
        }
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        assert!((3.3..4.0).contains(&(sum / n)), "{}", sum / n);
        assert!((mean(&long) - mean(&short)).abs() < 0.5, "{} {}", mean(&long), mean(&short));
    }
}
