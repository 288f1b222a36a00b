//! Instructions: what can be asked, how it is worded, and what a right answer is.

use super::words::{self, Category, NUMBER_MAX};
use crate::dice::Dice;

/// The families, in the order instructions are drawn. `double` and `take` are held out of the
/// seed data: the loop has to carry over to them.
pub const FAMILIES: [&str; 12] = [
    "list", "letter", "two", "reverse", "sort", "keep", "say", "count", "double", "replace", "add",
    "take",
];

/// Families that are never in the seed data.
pub const HELD_OUT_FAMILIES: [&str; 2] = ["double", "take"];

/// Items an answer must hold, and how they are checked.
#[derive(Clone, Debug, PartialEq)]
pub enum WantedItems {
    /// Any different words that fill the slots: how many, of which, and the slot's name.
    Set(Vec<Slot>),
    /// Exactly these, in this order.
    Sequence(Vec<String>),
}

/// So many different words of a set.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// How many.
    pub count: usize,
    /// Which are allowed.
    pub allowed: Vec<String>,
    /// The category they belong to.
    pub category: String,
    /// The letter they start with, where one was asked for.
    pub letter: Option<String>,
}

/// An instruction, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// Its family.
    pub family: &'static str,
    /// Its words.
    pub text: String,
    /// What a right answer holds.
    pub wanted: WantedItems,
    /// The words an answer may be about.
    pub domain: Vec<String>,
}

impl Instruction {
    /// How many items a right answer has.
    pub fn size(&self) -> usize {
        match &self.wanted {
            WantedItems::Set(slots) => slots.iter().map(|slot| slot.count).sum(),
            WantedItems::Sequence(items) => items.len(),
        }
    }

    /// The separator of items: a comma for sets, nothing for sequences.
    pub fn separator(&self) -> &'static str {
        match self.wanted {
            WantedItems::Set(_) => " , ",
            WantedItems::Sequence(_) => " ",
        }
    }

    /// The items of one right answer.
    pub fn gold(&self, dice: &mut Dice) -> Vec<String> {
        match &self.wanted {
            WantedItems::Sequence(items) => items.clone(),
            WantedItems::Set(slots) => {
                let mut items = Vec::new();
                for slot in slots {
                    items.extend(dice.shuffled(&slot.allowed).into_iter().take(slot.count));
                }
                items
            }
        }
    }

    /// Items as an answer.
    pub fn answer(&self, items: &[String]) -> String {
        format!("{} .", items.join(self.separator()))
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

fn slot(count: usize, category: &Category, letter: Option<&str>) -> Slot {
    let fits = |w: &&&str| letter.is_none_or(|l| w.starts_with(l));
    let allowed: Vec<&str> = category.members.iter().filter(fits).copied().collect();
    Slot {
        count,
        allowed: owned(&allowed),
        category: category.name.to_owned(),
        letter: letter.map(str::to_owned),
    }
}

fn numbers(from: usize, to: usize) -> Vec<String> {
    (from..=to).map(words::number).collect()
}

/// An instruction drawn from one family.
pub fn draw(family: &str, dice: &mut Dice) -> String {
    let members = words::members();
    let any = |dice: &mut Dice| {
        let names: Vec<&str> = words::CATEGORIES.iter().map(|c| c.name).collect();
        dice.pick(&names)
    };
    match family {
        "list" => {
            let verb = dice.pick(&["name", "list", "give me"]);
            format!("{verb} {} {} .", dice.range(2, 5), any(dice))
        }
        "letter" => draw_letter(dice),
        "two" => {
            let names: Vec<&str> = words::CATEGORIES.iter().map(|c| c.name).collect();
            let two = dice.some(&names, 2);
            let (k, j) = (dice.range(1, 3), dice.range(1, 3));
            format!("name {k} {} and {j} {} .", two.concat_at(0), two.concat_at(1))
        }
        "reverse" => {
            let n = dice.range(3, 5);
            format!("reverse : {} .", dice.some(&members, n).join(" "))
        }
        "sort" => {
            let all = numbers(0, 20);
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            let n = dice.range(3, 5);
            format!("sort : {} .", dice.some(&all, n).join(" "))
        }
        "keep" => draw_keep(dice),
        "say" => format!("say {} {} times .", dice.pick(&members), dice.range(2, 5)),
        "count" => {
            let a = dice.range(0, 20);
            let b = a + dice.range(2, 5);
            match dice.chance(0.5) {
                true => format!("count from {a} to {b} ."),
                false => format!("count down from {b} to {a} ."),
            }
        }
        "double" => {
            let n = dice.range(2, 3);
            format!("say each word twice : {} .", dice.some(&members, n).join(" "))
        }
        "replace" => {
            let n = dice.range(3, 5);
            let chosen = dice.some(&members, n + 1);
            let (new, list) = chosen.split_first().unwrap_or((&"", &[]));
            format!("replace {} with {new} in : {} .", dice.pick(list), list.join(" "))
        }
        "add" => format!("add {} and {} .", dice.range(0, 12), dice.range(0, 12)),
        _ => {
            let n = dice.range(3, 5);
            let list = dice.some(&members, n);
            let end = dice.pick(&["first", "last"]);
            format!("take the {end} {} of : {} .", dice.range(1, n - 1), list.join(" "))
        }
    }
}

trait ConcatAt {
    fn concat_at(&self, at: usize) -> &str;
}

impl ConcatAt for Vec<&str> {
    fn concat_at(&self, at: usize) -> &str {
        self.get(at).copied().unwrap_or_default()
    }
}

fn draw_letter(dice: &mut Dice) -> String {
    loop {
        let at = dice.range(0, words::CATEGORIES.len() - 1);
        let Some(category) = words::CATEGORIES.get(at) else { continue };
        let letter: String = dice.pick(&category.members).chars().take(1).collect();
        let matches = category.members.iter().filter(|m| m.starts_with(&letter)).count();
        // One match is an easy question and would crowd out the others.
        if matches > 1 || dice.chance(0.3) {
            let k = dice.range(1, matches.min(3));
            return format!("name {k} {} that start with {letter} .", category.name);
        }
    }
}

fn draw_keep(dice: &mut Dice) -> String {
    let at = dice.range(0, words::CATEGORIES.len() - 1);
    let Some(category) = words::CATEGORIES.get(at) else { return String::new() };
    let members = words::members();
    let others: Vec<&str> =
        members.iter().filter(|w| !category.members.contains(w)).copied().collect();
    let (k, j) = (dice.range(1, 3), dice.range(1, 3));
    let mut list = dice.some(&category.members, k);
    list.extend(dice.some(&others, j));
    format!("keep only the {} : {} .", category.name, dice.shuffled(&list).join(" "))
}

fn small(word: &str) -> Option<usize> {
    word.parse().ok().filter(|n| *n <= NUMBER_MAX && words::number(*n) == word)
}

fn is_members(list: &[&str], least: usize) -> bool {
    list.len() >= least && list.iter().all(|w| words::category_of(w).is_some())
}

fn set(text: &str, family: &'static str, slots: Vec<Slot>, names: &[&Category]) -> Instruction {
    let domain = names.iter().flat_map(|c| owned(&c.members)).collect();
    Instruction { family, text: text.to_owned(), wanted: WantedItems::Set(slots), domain }
}

fn sequence(
    text: &str,
    family: &'static str,
    items: Vec<String>,
    domain: Vec<String>,
) -> Instruction {
    let wanted = WantedItems::Sequence(items);
    Instruction { family, text: text.to_owned(), wanted, domain }
}

/// Understands an instruction of the grammar (with wider bounds than [`draw`] uses), or says
/// `None`. Used by the oracle, by evaluation and to make seed data; never by the loop.
pub fn parse(text: &str) -> Option<Instruction> {
    let tokens: Vec<&str> = text.split(' ').collect();
    let (last, body) = tokens.split_last()?;
    if *last != "." {
        return None;
    }
    parse_set(text, body).or_else(|| parse_list(text, body)).or_else(|| parse_number(text, body))
}

fn parse_set(text: &str, body: &[&str]) -> Option<Instruction> {
    match body {
        ["name" | "list", k, c] | ["give", "me", k, c] => {
            let (k, c) = (small(k)?, words::category(c)?);
            (1..=8).contains(&k).then(|| set(text, "list", vec![slot(k, c, None)], &[c]))
        }
        ["name", k, c, "that", "start", "with", letter] => {
            let (k, c) = (small(k)?, words::category(c)?);
            let slot = slot(k, c, Some(letter));
            let enough = k >= 1 && slot.allowed.len() >= k && letter.len() == 1;
            enough.then(|| set(text, "letter", vec![slot], &[c]))
        }
        ["name", k, c, "and", j, d] => {
            let (k, c) = (small(k)?, words::category(c)?);
            let (j, d) = (small(j)?, words::category(d)?);
            let sound = (1..=8).contains(&k) && (1..=8).contains(&j) && c.name != d.name;
            let slots = vec![slot(k, c, None), slot(j, d, None)];
            sound.then(|| set(text, "two", slots, &[c, d]))
        }
        _ => None,
    }
}

fn parse_list(text: &str, body: &[&str]) -> Option<Instruction> {
    let seq = |family, items: Vec<&str>, list: &[&str]| {
        Some(sequence(text, family, owned(&items), owned(list)))
    };
    match body {
        ["reverse", ":", list @ ..] if is_members(list, 2) => {
            seq("reverse", list.iter().rev().copied().collect(), list)
        }
        ["keep", "only", "the", c, ":", list @ ..] if is_members(list, 1) => {
            let c = words::category(c)?;
            let kept: Vec<&str> = list.iter().filter(|w| c.members.contains(w)).copied().collect();
            (!kept.is_empty()).then(|| seq("keep", kept, list))?
        }
        ["say", "each", "word", "twice", ":", list @ ..] if is_members(list, 1) => {
            seq("double", list.iter().flat_map(|w| [*w, *w]).collect(), list)
        }
        ["replace", old, "with", new, "in", ":", list @ ..]
            if is_members(list, 1) && list.contains(old) && is_members(&[*new], 1) =>
        {
            let swapped = list.iter().map(|w| if w == old { *new } else { *w }).collect();
            let domain: Vec<&str> = list.iter().copied().chain([*new]).collect();
            seq("replace", swapped, &domain)
        }
        ["take", "the", end @ ("first" | "last"), k, "of", ":", list @ ..]
            if is_members(list, 1) =>
        {
            let k = small(k).filter(|k| (1..=list.len()).contains(k))?;
            let from = if *end == "first" { 0 } else { list.len() - k };
            seq("take", list.iter().skip(from).take(k).copied().collect(), list)
        }
        ["say", word, k, "times"] if is_members(&[*word], 1) => {
            let k = small(k).filter(|k| (1..=10).contains(k))?;
            seq("say", vec![*word; k], &[*word])
        }
        _ => None,
    }
}

fn parse_number(text: &str, body: &[&str]) -> Option<Instruction> {
    let all = || numbers(0, NUMBER_MAX);
    match body {
        ["sort", ":", list @ ..] if list.len() >= 2 => {
            let mut sorted = list.iter().map(|w| small(w)).collect::<Option<Vec<usize>>>()?;
            sorted.sort_unstable();
            let items = sorted.into_iter().map(words::number).collect();
            Some(sequence(text, "sort", items, owned(list)))
        }
        ["count", "from", a, "to", b] => {
            let (a, b) = (small(a)?, small(b)?);
            (b > a && b - a < 10).then(|| sequence(text, "count", numbers(a, b), all()))
        }
        ["count", "down", "from", b, "to", a] => {
            let (a, b) = (small(a)?, small(b)?);
            let down = numbers(a, b).into_iter().rev().collect();
            (b > a && b - a < 10).then(|| sequence(text, "count", down, all()))
        }
        ["add", a, "and", b] => {
            let sum = small(a)? + small(b)?;
            let items = vec![words::number(sum)];
            (sum <= NUMBER_MAX).then(|| sequence(text, "add", items, all()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Seed;

    #[test]
    fn every_drawn_instruction_is_understood_as_its_family() {
        let mut dice = Dice::new(Seed::root(5));
        for family in FAMILIES {
            for _ in 0..300 {
                let text = draw(family, &mut dice);
                let parsed = parse(&text).unwrap_or_else(|| panic!("not understood: {text}"));
                assert_eq!(parsed.family, family, "{text}");
            }
        }
    }

    #[test]
    fn nonsense_is_not_understood() {
        for text in [
            "",
            ".",
            "name 3 animals",
            "name 0 animals .",
            "name 9 cats .",
            "add 20 and 20 .",
            "reverse : cat .",
            "keep only the animals : red blue .",
            "sort : cat dog .",
            "take the first 4 of : cat dog .",
            "count from 5 to 2 .",
            "name 3  animals .",
            "name 2 animals and 1 animals .",
            "add 01 and 2 .",
            "say 3 cat times .",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn right_answers() {
        let items = |text: &str| match parse(text).unwrap().wanted {
            WantedItems::Sequence(items) => items.join(" "),
            WantedItems::Set(_) => panic!("a set"),
        };
        assert_eq!(items("reverse : cat dog red ."), "red dog cat");
        assert_eq!(items("sort : 7 2 20 3 ."), "2 3 7 20");
        assert_eq!(items("keep only the animals : red cat saw dog ."), "cat dog");
        assert_eq!(items("say each word twice : cat red ."), "cat cat red red");
        assert_eq!(items("replace cat with dog in : cat red cat ."), "dog red dog");
        assert_eq!(items("take the last 2 of : cat dog red ."), "dog red");
        assert_eq!(items("count down from 7 to 5 ."), "7 6 5");
        assert_eq!(items("add 7 and 12 ."), "19");
        assert_eq!(items("say cat 3 times ."), "cat cat cat");
    }
}
