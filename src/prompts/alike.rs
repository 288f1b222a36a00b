//! When two tasks are the same: word for word, or but for case, width, accents, punctuation,
//! spacing, words of courtesy and a little else. In any script.
//!
//! The rule: *nearly equal* are texts with the same numbers and signs in the same order whose units
//! have a ROUGE-L F1 of [`NEARLY`] or more, words of courtesy at either end left out. So `add 3 and
//! 4 .` and `Add 3 and 4, please` are one task, `add 3 and 5 .` is another.

use crate::stats::{Unit, figures, rouge_l_of, units};
use std::collections::HashMap;
use std::sync::OnceLock;

/// ROUGE-L F1 of units from which on two texts with the same numbers are the same task.
pub const NEARLY: f64 = 0.9;
/// Shorter texts are found inside others only as a whole line: they may stand anywhere.
const INSIDE_MIN: usize = 3;
/// Words of courtesy, which may stand at a task's ends without making another of it.
const COURTESY: [&str; 36] = [
    "please",
    "kindly",
    "thanks",
    "thank you",
    "hi",
    "hello",
    "can you",
    "could you",
    "would you",
    "will you",
    "bitte",
    "danke",
    "por favor",
    "gracias",
    "s il vous plait",
    "s il te plait",
    "merci",
    "per favore",
    "grazie",
    "obrigado",
    "пожалуйста",
    "спасибо",
    "请你",
    "请",
    "请您",
    "謝謝",
    "谢谢",
    "お願いします",
    "ください",
    "下さい",
    "주세요",
    "من فضلك",
    "กรุณา",
    "ครับ",
    "कृपया",
    "lutfen",
];

/// How a text is like another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Likeness {
    /// It is the same text.
    WordForWord,
    /// It is nearly equal.
    Nearly,
    /// The other stands in it.
    Contains,
}

/// Gives words numbers, so that they are compared quickly.
#[derive(Default)]
struct WordIds(HashMap<String, u32>);

impl WordIds {
    fn learn(&mut self, word: &str) -> u32 {
        if let Some(known) = self.0.get(word) {
            return *known;
        }
        let next = self.0.len() as u32;
        self.0.insert(word.to_owned(), next);
        next
    }

    /// Words that were never learned are one number, which no learned word has.
    fn of(&self, word: &str) -> u32 {
        self.0.get(word).copied().unwrap_or(u32::MAX)
    }
}

/// The words of a text in order, and sorted.
struct Words {
    order: Vec<u32>,
    bag: Vec<u32>,
}

impl Words {
    fn of(order: Vec<u32>) -> Words {
        let mut bag = order.clone();
        bag.sort_unstable();
        Words { order, bag }
    }
}

/// A text, made ready to be compared.
struct Text {
    /// As it stands.
    raw: String,
    all: Words,
    /// Without words of courtesy at the ends.
    core: Words,
    figures: Vec<String>,
}

impl Text {
    fn of(raw: &str, mut number: impl FnMut(&str) -> u32) -> Text {
        let units = units(raw);
        let mut numbers = |units: &[Unit]| units.iter().map(|u| number(&u.text)).collect();
        Text {
            raw: raw.trim().to_owned(),
            all: Words::of(numbers(&units)),
            core: Words::of(numbers(without_courtesy(&units))),
            figures: figures(raw),
        }
    }
}

/// Texts of units that a new one is compared with.
#[derive(Default)]
pub struct Known {
    vocabulary: WordIds,
    texts: Vec<Text>,
    /// The first text that stands so, word for word.
    by_raw: HashMap<String, usize>,
    /// Groups of texts with the same numbers.
    by_figures: HashMap<Vec<String>, u32>,
    /// Texts by their group and some of their words ([`Known::telling`]), in order.
    by_word: HashMap<(u32, u32), Vec<usize>>,
    /// How many texts are found by each word.
    found_by: HashMap<u32, u32>,
}

impl Known {
    /// Adds a text.
    pub fn add(&mut self, text: &str) {
        let text = Text::of(text, |word| self.vocabulary.learn(word));
        let (at, next) = (self.texts.len(), self.by_figures.len() as u32);
        let group = *self.by_figures.entry(text.figures.clone()).or_insert(next);
        for word in self.telling(&text.core) {
            self.by_word.entry((group, word)).or_default().push(at);
            *self.found_by.entry(word).or_default() += 1;
        }
        self.by_raw.entry(text.raw.clone()).or_insert(at);
        self.texts.push(text);
    }

    /// Words of a text of which every one that nearly equals it has at least one; the rarest there
    /// are. Of m and n words L are common and 2L / (m + n) is 0.9 or more ([`NEARLY`]); as m is at
    /// least L, L is at least 9n/11. So of n words, one more than may be missing are enough.
    fn telling(&self, words: &Words) -> Vec<u32> {
        let n = words.bag.len();
        let may_be_missing = n - (9 * n).div_ceil(11);
        let mut bag = words.bag.clone();
        bag.sort_by_key(|word| self.found_by.get(word).copied().unwrap_or_default());
        bag.truncate(may_be_missing + 1);
        bag.sort_unstable();
        bag.dedup();
        bag
    }

    /// The known texts that may be nearly equal to a new one, in order.
    fn candidates(&self, new: &Text) -> Vec<usize> {
        let Some(group) = self.by_figures.get(&new.figures) else { return Vec::new() };
        let mut words = new.core.bag.clone();
        words.dedup();
        let found = words.iter().filter_map(|word| self.by_word.get(&(*group, *word)));
        let mut all: Vec<usize> = found.flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The first known text that this one resembles more than `above` (ROUGE-L F1 of all units),
    /// and how much.
    pub fn resembles(&self, text: &str, above: f64) -> Option<(f64, &str)> {
        let new = self.read(text);
        self.texts.iter().find_map(|known| {
            let f1 = f1_if(&new.all, &known.all, |f1| f1 > above)?;
            Some((f1, known.raw.as_str()))
        })
    }

    /// The known text that this one equals or nearly equals.
    pub fn same(&self, text: &str) -> Option<(Likeness, &str)> {
        if let Some((equal, _)) = self.by_raw.get_key_value(text.trim()) {
            return Some((Likeness::WordForWord, equal));
        }
        let new = self.read(text);
        let candidates = self.candidates(&new);
        let mut known = candidates.iter().filter_map(|at| self.texts.get(*at));
        let near = |known: &&Text| f1_if(&new.core, &known.core, |f1| f1 >= NEARLY).is_some();
        known.find(near).map(|near| (Likeness::Nearly, near.raw.as_str()))
    }

    /// A known text that stands in this one: as a line or a paragraph of its own (nearly equal is
    /// enough), or anywhere between two marks of punctuation.
    pub fn inside(&self, text: &str) -> Option<(Likeness, &str)> {
        let parts = text.lines().chain(text.split("\n\n"));
        let part = |part: &str| {
            let labelled = part.split_once([':', '：']).map(|(_, rest)| rest);
            let found = |part: &str| self.same(part).map(|(_, raw)| raw);
            found(part).or_else(|| labelled.and_then(found))
        };
        let spans = || self.spans(&units(text));
        self.same(text)
            .or_else(|| spans().map(|raw| (Likeness::Contains, raw)))
            .or_else(|| parts.into_iter().find_map(|p| Some((Likeness::Contains, part(p)?))))
    }

    /// A known text whose units follow each other in these, with a break before and after.
    fn spans(&self, units: &[Unit]) -> Option<&str> {
        let words: Vec<u32> = units.iter().map(|unit| self.vocabulary.of(&unit.text)).collect();
        let after_break = |at: usize| units.get(at).is_none_or(|unit| unit.after_break);
        let starts = || (0..words.len()).filter(|at| after_break(*at));
        self.texts.iter().find_map(|known| {
            let stands = |sought: &[u32], at: usize| {
                let found = words.get(at..).is_some_and(|rest| rest.starts_with(sought));
                found && after_break(at + sought.len())
            };
            let mut sought = [&known.all.order, &known.core.order].into_iter();
            let found = sought.any(|s| s.len() >= INSIDE_MIN && starts().any(|at| stands(s, at)));
            found.then_some(known.raw.as_str())
        })
    }

    fn read(&self, text: &str) -> Text {
        Text::of(text, |word| self.vocabulary.of(word))
    }
}

/// The F1 of two texts where it may be worth the time: where neither their lengths nor the words
/// they have in common rule out that it passes.
fn f1_if(a: &Words, b: &Words, passes: impl Fn(f64) -> bool) -> Option<f64> {
    let (m, n) = (a.order.len(), b.order.len());
    let bound = |common: usize| 2.0 * common as f64 / (m + n) as f64;
    if m == 0 || n == 0 || !passes(bound(m.min(n))) || !passes(bound(common(&a.bag, &b.bag))) {
        return None;
    }
    Some(rouge_l_of(&a.order, &b.order)).filter(|f1| passes(*f1))
}

/// How many numbers two sorted lists have in common.
fn common(a: &[u32], b: &[u32]) -> usize {
    let (mut b, mut count) = (b.iter().peekable(), 0);
    for x in a {
        while b.next_if(|y| *y < x).is_some() {}
        count += usize::from(b.next_if_eq(&x).is_some());
    }
    count
}

/// The units without words of courtesy at either end; all of them when nothing else is there.
fn without_courtesy(all: &[Unit]) -> &[Unit] {
    static PHRASES: OnceLock<Vec<Vec<Unit>>> = OnceLock::new();
    let phrases = PHRASES.get_or_init(|| COURTESY.iter().map(|phrase| units(phrase)).collect());
    let is = |part: &[Unit], phrase: &[Unit]| {
        part.iter().map(|unit| &unit.text).eq(phrase.iter().map(|unit| &unit.text))
    };
    let mut rest = all;
    loop {
        let shorter = phrases.iter().find_map(|phrase| {
            let (front, after) = rest.split_at_checked(phrase.len())?;
            let (before, back) = rest.split_at_checked(rest.len() - phrase.len())?;
            let stripped = is(front, phrase).then_some(after);
            stripped.or_else(|| is(back, phrase).then_some(before))
        });
        match shorter {
            Some([]) => return all,
            Some(shorter) => rest = shorter,
            None => return rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(texts: &[&str]) -> Known {
        let mut known = Known::default();
        texts.iter().for_each(|text| known.add(text));
        known
    }

    #[test]
    fn the_same_task_in_any_script() {
        for (held, new) in [
            ("add 3 and 4 .", "Add 3 and 4?"),
            ("add 3 and 4 .", "please add 3 and 4"),
            ("add 3 and 4 .", "Could you please add 3 and 4, please?"),
            ("add 3 and 4 .", "  ＡＤＤ　３ and ４。"),
            ("Write a poem about the sea.", "write a poem about the sea, please!"),
            ("写一首关于春天的诗。", "请写一首关于春天的诗"),
            ("写一首关于春天的诗。", "写一首关于春天的诗！"),
            ("日本の首都はどこですか。", "日本の首都は、どこですか？"),
            ("ﾃﾞｰﾀとは何ですか", "データとは何ですか？"),
            ("Назови столицу России.", "назови столицу россии, пожалуйста"),
            ("Расскажи ещё раз о море", "Расскажи еще раз о море!"),
            ("اكتب قصة قصيرة عن البحر", "اُكْتُبْ قصة قصيرة عن البحر من فضلك؟"),
            ("اكتب ٣ جمل عن البحر", "اكتب 3 جمل عن البحر."),
            ("เขียนบทกวีเกี่ยวกับทะเล", "กรุณาเขียนบทกวี เกี่ยวกับทะเล ครับ"),
            ("서울의 인구는 얼마인가요?", "서울의  인구는 얼마인가요"),
            ("भारत की राजधानी क्या है?", "भारत की राजधानी क्या है"),
            ("¿Cuál es la capital de España?", "cual es la capital de españa"),
            ("Wie heißt der höchste Berg?", "WIE HEIßT DER HÖCHSTE BERG"),
        ] {
            let found = known(&[held]).same(new).map(|(likeness, _)| likeness);
            assert_eq!(found, Some(Likeness::Nearly), "{held} / {new}");
            let itself = known(&[held]).same(held).map(|(likeness, _)| likeness);
            assert_eq!(itself, Some(Likeness::WordForWord), "{held}");
        }
    }

    #[test]
    fn other_tasks_are_other_tasks() {
        for (held, new) in [
            ("add 3 and 4 .", "add 3 and 5 ."),
            ("add 3 and 4 .", "add 4 and 3 ."),
            ("What is 3 + 4?", "What is 3 - 4?"),
            ("name cat and dog and cow .", "name cat and dog and pig ."),
            ("Write a poem about the sea", "Write a poem about the sea in French"),
            ("写一首关于春天的诗", "写一首关于秋天的诗"),
            (
                "写三首关于春天的诗歌给我的朋友们和我的家人们看",
                "写五首关于春天的诗歌给我的朋友们和我的家人们看",
            ),
            ("日本の首都はどこですか", "中国の首都はどこですか"),
            ("Назови столицу России", "Назови столицу Франции"),
            ("เขียนบทกวีเกี่ยวกับทะเล", "เขียนนิทานเกี่ยวกับภูเขา"),
            ("اكتب قصة عن البحر", "اكتب قصة عن الجبل"),
            (
                "Tom has three red apples and buys four more apples today, how many has he now?",
                "Tom has three red apples and buys nine more apples today, how many has he now?",
            ),
            ("🙂", "🙁"),
        ] {
            assert_eq!(known(&[held]).same(new), None, "{held} / {new}");
        }
    }

    #[test]
    fn a_task_inside_a_judges_question() {
        let sums = known(&["add 1 and 1 .", "Write a poem", "写一首诗。", "hi"]);
        for text in [
            "<task> Add 1 and 1 . <answer> 2 .",
            "Review the response.\n\nUser: please add 1 and 1\n<response>2</response>",
            "Question: \"write a poem\"; answer: no",
            "任务：写一首诗。回答：好",
            "User: Hi!\nAssistant: Hello.",
        ] {
            assert!(sums.inside(text).is_some(), "{text}");
        }
        for text in [
            "<task> add 1 and 11 . <answer> 12 .",
            "<task> add 1 and 1 and 2 . <answer> 4 .",
            "User: write a poem about the sea\n<response>no</response>",
            "任务：写一首诗歌的评论。回答：好",
            "User: she said hi to me\nAssistant: Hello.",
        ] {
            assert_eq!(sums.inside(text), None, "{text}");
        }
    }

    #[test]
    fn resemblance_counts_all_words_and_is_strict() {
        let one = known(&["Explain why the sky looks blue at noon"]);
        let (f1, raw) = one.resembles("Explain why the sky looks blue at noon today", 0.7).unwrap();
        assert!(f1 > 0.9 && raw.starts_with("Explain"));
        assert_eq!(one.resembles("Explain why grass is green", 0.7), None);
        assert_eq!(known(&["a b c d e f g x y z"]).resembles("a b c d e f g 1 2 3", 0.7), None);
        let chinese = known(&["解释为什么天空是蓝色的"]);
        assert!(chinese.resembles("解释为什么海水是蓝色的", 0.7).is_some());
    }

    /// Nothing is overlooked that comparing with every text would find.
    #[test]
    fn what_is_looked_up_is_what_comparing_with_all_finds() {
        let mut state = 1u32;
        let mut below = |n: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % n
        };
        let mut text = |_: u32| {
            let words = 1 + below(14);
            let word = |n: u32| ["ka", "ke", "ki", "ko", "ku", "ky"][n as usize];
            (0..words).map(|_| word(below(6))).collect::<Vec<_>>().join(" ")
        };
        let held: Vec<String> = (0..600).map(&mut text).collect();
        let known = known(&held.iter().map(String::as_str).collect::<Vec<_>>());
        let mut nearly = 0;
        let others: Vec<String> = (0..3000).map(&mut text).collect();
        // Among them some that hold a word more than one that is known.
        let longer = held.iter().map(|held| format!("{held} ka"));
        for new in others.into_iter().chain(longer) {
            let read = known.read(&new);
            let equal = held.iter().find(|held| **held == new);
            let near = known.texts.iter().find(|known| {
                let near = f1_if(&read.core, &known.core, |f1| f1 >= NEARLY).is_some();
                near && known.figures == read.figures
            });
            let near = near.map(|near| (Likeness::Nearly, near.raw.as_str()));
            let all = equal.map(|equal| (Likeness::WordForWord, equal.as_str())).or(near);
            assert_eq!(known.same(&new), all, "{new}");
            nearly += usize::from(equal.is_none() && near.is_some());
        }
        assert!(nearly > 100, "{nearly}");
    }

    #[test]
    fn thousands_of_rows_take_no_time() {
        let words = ["cat", "dog", "cow", "pig", "hen", "red", "blue", "old", "new", "big"];
        let word = |n: usize| *words.get(n % words.len()).unwrap();
        let text = |n: usize| {
            let some = (0..20).map(|i| word(n / (i + 1) + i * n)).collect::<Vec<_>>();
            format!("describe {}", some.join(" "))
        };
        let mut held = Known::default();
        (0..400).for_each(|n| held.add(&text(n)));
        let began = std::time::Instant::now();
        let found = (400..3_600).filter(|n| held.same(&text(*n)).is_some()).count();
        assert!(found < 3_200);
        assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    }
}
