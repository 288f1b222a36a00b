//! What two texts are compared by, in any script: words where words are written apart, single
//! characters where they are not (Chinese, Japanese, Thai, ...). And the numbers of a text, which
//! make two tasks different however alike their words are.

use unicode_normalization_alignments::UnicodeNormalization;
use unicode_normalization_alignments::char::is_combining_mark;

/// A word or a character, as it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Without case, width and accents.
    pub text: String,
    /// Whether punctuation, a line's end or the text's beginning stands before it.
    pub after_break: bool,
}

/// Scripts that do not put spaces between words, first and last code point of each block: Thai,
/// Lao, Myanmar, Khmer, Tai and Javanese scripts, kana, Han.
const UNSPACED: [(u32, u32); 15] = [
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x1950, 0x19DF),
    (0x1A20, 0x1AAF),
    (0x1B00, 0x1B7F),
    (0x3005, 0x3007),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xA980, 0xA9DF),
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
];
/// Where the decimal digits of other scripts begin.
const ZEROS: [u32; 18] = [
    0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6, 0x0D66,
    0x0E50, 0x0ED0, 0x0F20, 0x1040, 0x17E0, 0x1810,
];
/// Written without being seen: zero-width characters, soft hyphens, the Arabic filler.
const UNSEEN: [char; 8] =
    ['\u{ad}', '\u{640}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{2060}', '\u{fe0f}', '\u{feff}'];
const NUMBER_WORDS: [&str; 28] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
    "thirty",
    "forty",
    "fifty",
    "sixty",
    "seventy",
    "eighty",
    "ninety",
];
const NUMBER_CHARACTERS: &str = "〇零一二三四五六七八九十百千万亿两";
const OPERATORS: &str = "+-*/^=<>%×÷±−–#";

/// Whether a character's script puts no spaces between words.
pub fn is_unspaced(c: char) -> bool {
    UNSPACED.iter().any(|(first, last)| (*first..=*last).contains(&u32::from(c)))
}

/// Letters whose accents and vowel marks are left out: Latin, Greek, Cyrillic, Hebrew, Arabic.
fn is_bare_without_marks(c: char) -> bool {
    matches!(u32::from(c), 0x41..=0x24F | 0x370..=0x52F | 0x590..=0x6FF | 0x1E00..=0x1FFF)
}

fn digit(c: char) -> Option<char> {
    let code = u32::from(c);
    let zero = ZEROS.iter().find(|zero| (**zero..**zero + 10).contains(&code))?;
    char::from_digit(code - zero, 10)
}

/// The text as it is compared: compatibility forms (full width, ligatures) made plain, lower case,
/// accents and what is not seen left out, digits of any script as `0` to `9`.
fn plain(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let mut kept = String::with_capacity(text.len());
    let mut bare = false;
    for (c, _) in text.nfkd() {
        if UNSEEN.contains(&c) || (bare && is_combining_mark(c)) {
            continue;
        }
        bare = is_bare_without_marks(c);
        kept.push(digit(c).unwrap_or(c));
    }
    kept.to_lowercase()
}

/// The units of a text, in order. Of text in ASCII they are the words of ROUGE: runs of letters and
/// digits in lower case.
pub fn units(text: &str) -> Vec<Unit> {
    let mut found: Vec<Unit> = Vec::new();
    let (mut after_break, mut open) = (true, false);
    for c in plain(text).chars() {
        if is_combining_mark(c) {
            // It belongs to the letter before it.
            if let Some(last) = found.last_mut() {
                last.text.push(c);
            }
        } else if is_unspaced(c) && c.is_alphanumeric() {
            found.push(Unit { text: c.to_string(), after_break });
            (after_break, open) = (false, false);
        } else if c.is_alphanumeric() {
            match found.last_mut().filter(|_| open) {
                Some(last) => last.text.push(c),
                None => found.push(Unit { text: c.to_string(), after_break }),
            }
            (after_break, open) = (false, true);
        } else {
            after_break |= c == '\n' || !c.is_whitespace();
            open = false;
        }
    }
    found
}

/// The numbers of a text and the signs between them, in order: of `add 3 and 4` `3`, `4`; of
/// `what is 3 - 4 ?` `3`, `-`, `4`. Separators of thousands are left out. A few number words count.
pub fn figures(text: &str) -> Vec<String> {
    let chars: Vec<char> = plain(text).chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = chars.get(at).copied() {
        let start = at;
        at += 1;
        if c.is_ascii_digit() {
            at = number_end(&chars, start);
            found.push(without_thousands(&chars, start, at));
        } else if NUMBER_CHARACTERS.contains(c) {
            found.push(c.to_string());
        } else if c.is_alphabetic() {
            while chars.get(at).is_some_and(|c| c.is_alphabetic() && !is_unspaced(*c)) {
                at += 1;
            }
            let word: String = chars.iter().take(at).skip(start).collect();
            found.extend(Some(word).filter(|word| NUMBER_WORDS.contains(&word.as_str())));
        } else if OPERATORS.contains(c) && is_operator(c, &chars, start) {
            found.push(if "−–".contains(c) { "-".to_owned() } else { c.to_string() });
        }
    }
    found
}

fn number_end(chars: &[char], start: usize) -> usize {
    let mut at = start;
    let is_digit = |at: usize| chars.get(at).is_some_and(char::is_ascii_digit);
    while is_digit(at) || (matches!(chars.get(at), Some('.' | ',')) && is_digit(at + 1)) {
        at += 1;
    }
    at
}

fn without_thousands(chars: &[char], start: usize, end: usize) -> String {
    let number: String = chars.iter().take(end).skip(start).collect();
    let whole = number.split('.').next().unwrap_or_default();
    let mut groups = whole.split(',');
    let leads = groups.next().is_some_and(|first| first.len() <= 3);
    let grouped = leads && whole.contains(',') && groups.all(|group| group.len() == 3);
    if grouped { number.replace(',', "") } else { number }
}

/// Whether a sign stands where an operator does: between numbers, brackets or single letters; or
/// right after a number (`50 %`) or a letter (`C++`, `C#`).
fn is_operator(sign: char, chars: &[char], at: usize) -> bool {
    let (left, right) = chars.split_at_checked(at).unwrap_or_default();
    let left = || left.iter().rev();
    let right = || right.iter().skip(1);
    let operand = |c: Option<&char>, beyond: Option<&char>| match c {
        Some(c) if c.is_alphabetic() => beyond.is_none_or(|c| !c.is_alphabetic()),
        Some(c) => c.is_ascii_digit() || "()".contains(*c),
        None => false,
    };
    let mut before = left().skip_while(|c| c.is_whitespace());
    let mut after = right().skip_while(|c| c.is_whitespace());
    let nearest = before.next();
    match sign {
        '%' => nearest.is_some_and(char::is_ascii_digit),
        '+' | '#' if left().next().is_some_and(|c| c.is_alphabetic() || *c == sign) => true,
        '#' => false,
        _ => operand(nearest, before.next()) && operand(after.next(), after.next()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        units(text).into_iter().map(|unit| unit.text).collect()
    }

    #[test]
    fn words_where_they_are_written_apart_and_characters_elsewhere() {
        assert_eq!(words("Don't  stop, Zoë!"), ["don", "t", "stop", "zoe"]);
        assert_eq!(words("Ｆｕｌｌ　ｗｉｄｔｈ ﬁne"), ["full", "width", "fine"]);
        assert_eq!(words("写一首关于ABC的诗。"), ["写", "一", "首", "关", "于", "abc", "的", "诗"]);
        assert_eq!(words("が行く").len(), 3, "a mark is part of its letter");
        assert_ne!(words("が"), words("か"));
        assert_eq!(words("Ещё раз, Всё"), ["еще", "раз", "все"]);
        assert_eq!(words("اُكْتُبْ قصّة"), words("اكتب قصة"));
        assert_eq!(words("ที่นี่"), ["ที่", "นี่"], "vowel and tone stay at their letter");
        assert_eq!(words("한국어 문장"), words("한국어  문장."));
        assert_eq!(words("हिन्दी में"), words("हिन्दी, में"));
        assert_eq!(words("zero\u{200b}width so\u{ad}ft"), ["zerowidth", "soft"]);
        assert!(words(" ?! 🙂 ").is_empty());
    }

    #[test]
    fn ascii_text_has_the_words_of_rouge() {
        let text = include_str!("../../tests/golden/stats/rouge.json");
        let rows: Vec<(String, String, f64)> = serde_json::from_str(text).unwrap();
        let ascii: Vec<_> = rows.iter().filter(|(a, b, _)| a.is_ascii() && b.is_ascii()).collect();
        assert!(ascii.len() > 50, "{}", ascii.len());
        for (a, b, expected) in ascii {
            let found = crate::stats::rouge_l_of(&words(a), &words(b));
            assert!((found - expected).abs() < 1e-12, "{a:?} {b:?} {found} {expected}");
        }
    }

    #[test]
    fn breaks_are_seen() {
        let breaks =
            |text: &str| -> Vec<bool> { units(text).iter().map(|u| u.after_break).collect() };
        assert_eq!(breaks("User: add 3 . Ok\nyes"), [true, true, false, true, true]);
        assert_eq!(breaks("写诗。好"), [true, false, true]);
    }

    #[test]
    fn numbers_and_the_signs_between_them() {
        for (text, found) in [
            ("add 3 and 4 .", vec!["3", "4"]),
            ("what is 3 - 4?", vec!["3", "-", "4"]),
            ("what is 3 − 4?", vec!["3", "-", "4"]),
            ("3.5 km, 1,000 m, 1.000,5", vec!["3.5", "1000", "1.000,5"]),
            ("add ３ and ٤", vec!["3", "4"]),
            ("x + y, (a) * b", vec!["+", "*"]),
            ("write C++ and C#", vec!["+", "+", "#"]),
            ("and/or - well, yes", vec![]),
            ("a 50 % share", vec!["50", "%"]),
            ("Three apples, none left, stone", vec!["three"]),
            ("写三首诗", vec!["三"]),
        ] {
            assert_eq!(figures(text), found, "{text}");
        }
    }
}
