//! Whether a text is a request that can be handed to an assistant as it stands: whole, with the
//! input it speaks of, and no introduction, statement or answer. By the marks of many scripts; the
//! words that it looks for are those of a dozen languages.

use super::pointing::missing_input;
use super::sentences::{is_one_sentence, sentences};
use crate::stats::{is_unspaced, units};

/// Marks that open a text and belong to it.
const OPENING: &str = "¿¡\"'“‘«„‚‹「『《〈（([【〔\u{201b}";
/// How an introduction or a closing begins.
const TALK: [&str; 44] = [
    "sure",
    "certainly",
    "of course",
    "absolutely",
    "okay",
    "ok,",
    "great",
    "i hope",
    "i'm sorry",
    "i am sorry",
    "i'm happy",
    "i'd be happy",
    "i'm ready",
    "let me know",
    "feel free",
    "as an ai",
    "好的",
    "当然",
    "當然",
    "希望",
    "はい",
    "もちろん",
    "わかりました",
    "承知",
    "네,",
    "물론",
    "알겠습니다",
    "конечно",
    "хорошо,",
    "надеюсь",
    "claro",
    "por supuesto",
    "espero",
    "bien sûr",
    "bien sur",
    "d'accord",
    "j'espère",
    "natürlich",
    "gerne",
    "ich hoffe",
    "certo,",
    "com certeza",
    "بالتأكيد",
    "بالطبع",
];
/// How the announcement of a list begins; it is one sentence.
const ANNOUNCING: [&str; 20] = [
    "here are",
    "here is",
    "here's",
    "below are",
    "below is",
    "the following are",
    "these are",
    "以下是",
    "这里有",
    "這裡有",
    "以下は",
    "ここに",
    "다음은",
    "вот ",
    "aquí",
    "voici",
    "hier sind",
    "ecco",
    "aqui estão",
    "إليك",
];
/// First words of English sentences that state and do not ask.
const STATING: [&str; 44] = [
    "i", "i'm", "i've", "i'll", "i'd", "you", "you're", "you've", "you'll", "he", "he's", "she",
    "she's", "it", "it's", "its", "we", "we're", "we've", "they", "they're", "the", "a", "an",
    "this", "that", "these", "those", "there", "there's", "my", "your", "his", "her", "our",
    "their", "some", "many", "most", "all", "no", "yes", "everyone", "people",
];
/// What makes a request of a sentence that states.
const ASKING: [&str; 30] = [
    "please",
    "can you",
    "could you",
    "would you",
    "will you",
    "i want you",
    "i need you",
    "i'd like you",
    "i would like you",
    "i want to know",
    "i need help",
    "i need to know",
    "help me",
    "tell me",
    "give me",
    "show me",
    "your task",
    "your job",
    "you need to",
    "you should",
    "you must",
    "you have to",
    "you will be",
    "you are asked",
    "how to",
    "how do",
    "how can",
    "i need advice",
    "i would like to know",
    "what should",
];
/// Question marks of all scripts.
const ASKS: [char; 3] = ['?', '？', '؟'];
/// What a person is asked and not a model, in a question.
const LIVING: [&str; 23] = [
    "you've ",
    "you have ever",
    "have you ever",
    "did you ever",
    "you ever",
    "your favorite",
    "your favourite",
    "about yourself",
    "your life",
    "your dream",
    "your day",
    "how old are you",
    "years old are you",
    "you own",
    "do you burn",
    "memory you",
    "dream you",
    "time when you",
    "a favorite ",
    "make you ",
    "makes you ",
    "given you",
    "first time you",
];
/// The same in any sentence.
const WISHING: [&str; 6] = [
    "you wish",
    "you would love",
    "inspired you",
    "you have listened",
    "you want to be",
    "you would want",
];
/// Words of a place that someone was to fill in.
const HOLES: [&str; 24] = [
    "insert",
    "your",
    "name",
    "topic",
    "person",
    "company",
    "date",
    "text",
    "input",
    "here",
    "word",
    "sentence",
    "subject",
    "title",
    "city",
    "country",
    "place",
    "location",
    "product",
    "number",
    "paragraph",
    "article",
    "blank",
    "noinput",
];
/// Verbs that end as gerunds do.
const RING: [&str; 12] = [
    "bring", "sing", "string", "ring", "swing", "spring", "sting", "fling", "ping", "wing",
    "sling", "king",
];
/// Words after which a text does not end.
const LEADING_ON: [&str; 34] = [
    "the", "a", "an", "of", "and", "or", "to", "for", "with", "in", "on", "at", "by", "from",
    "that", "which", "who", "whose", "is", "are", "was", "were", "your", "my", "their", "its",
    "if", "as", "than", "but", "because", "into", "between", "about",
];
/// Why a task cannot be handed over as it stands, if so.
///
/// # Errors
/// The reason, for the log.
pub fn check(task: &str) -> Result<(), String> {
    let (request, input) = task.split_once("\n\n").unwrap_or((task, ""));
    let lower = request.to_lowercase().replace('’', "'");
    beginning(request)?;
    if is_talk(&lower) {
        return Err("an introduction or a closing, not a task".to_owned());
    }
    if input.is_empty() {
        if lower.ends_with(|c| ":：,，、;-—(（“「".contains(c)) {
            return Err("ends where its input should begin".to_owned());
        }
        if ends_early(&lower) {
            return Err("is not whole: it ends in the middle of a sentence".to_owned());
        }
    }
    if let Some(mark) = left_open(task) {
        return Err(format!("is not whole: {mark} is opened and not closed"));
    }
    if let Some(hole) = placeholder(task) {
        return Err(format!("a template with a hole in it: {hole}"));
    }
    if input.is_empty()
        && let Some(pointed) = missing_input(&lower)
    {
        return Err(format!("speaks of an input that it does not have: {pointed}"));
    }
    if let Some(words) = repeats(task).or_else(|| circles(&lower)) {
        return Err(format!("says the same again and again: {words}"));
    }
    let question = lower.contains(ASKS);
    let mut living = LIVING.iter().filter(|_| question).chain(&WISHING);
    if let Some(words) = living.find(|words| lower.contains(**words)) {
        return Err(format!("asks about a life that a text model does not have: {words}"));
    }
    if states(&lower) {
        return Err("states something and asks for nothing".to_owned());
    }
    Ok(())
}

/// `a pizza without a pizza`, `a ship using a ship`, `unique and unique`: a word made of itself.
fn circles(lower: &str) -> Option<String> {
    let plain = |word: &&str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
    let all: Vec<&str> = lower.split_whitespace().collect();
    let words: Vec<String> = all.iter().map(plain).collect();
    words.iter().enumerate().find_map(|(at, by)| {
        let determined =
            words.get(at + 1).is_some_and(|w| ["a", "an", "any", "the"].contains(&w.as_str()));
        let again = words.get(at + 1 + usize::from(determined))?;
        let before = words.get(..at)?;
        let said = match by.as_str() {
            "using" | "without" => before.contains(again),
            "with" | "for" => determined && before.contains(again),
            "and" | "or" => before.last() == Some(again),
            _ => false,
        };
        (said && again.len() > 2).then(|| format!("{again} {by} {again}"))
    })
}

/// Whether the last word leads on to another, or the last sentence asks for nothing.
fn ends_early(lower: &str) -> bool {
    let bare = ["can you?", "could you?", "would you?", "will you?", "please.", "please?"];
    if sentences(lower).last().is_some_and(|last| bare.contains(&last.trim())) {
        return true;
    }
    let last = lower.split_whitespace().next_back().unwrap_or_default();
    LEADING_ON.contains(&last) || lower.ends_with("...") || lower.ends_with('…')
}

/// A text begins with a letter or digit of any script, or with a mark that opens a sentence.
fn beginning(task: &str) -> Result<(), String> {
    match task.chars().next() {
        Some(c) if c.is_alphanumeric() || OPENING.contains(c) => Ok(()),
        Some(c) => Err(format!("begins with {c:?}, neither a letter nor an opening mark")),
        None => Err("is empty".to_owned()),
    }
}

fn is_talk(lower: &str) -> bool {
    let begins = |start: &&str| {
        let rest = lower.strip_prefix(*start);
        let word = start.ends_with(|c: char| c.is_alphabetic() && !is_unspaced(c));
        rest.is_some_and(|rest| !word || !rest.starts_with(|c: char| c.is_alphanumeric()))
    };
    let one = is_one_sentence(lower);
    TALK.iter().any(|start| begins(start) && (one || !asks(lower)))
        || ANNOUNCING.iter().any(|start| begins(start) && one && !lower.contains(ASKS))
}

fn asks(lower: &str) -> bool {
    lower.contains(ASKS) || ASKING.iter().any(|cue| lower.contains(cue))
}

/// English text whose every sentence begins as a statement does, or that begins with a gerund.
fn states(lower: &str) -> bool {
    if asks(lower) {
        return false;
    }
    let first = |sentence: &str| {
        let word = sentence.split_whitespace().next().unwrap_or_default();
        word.trim_matches(|c: char| !c.is_alphanumeric() && c != '\'').to_owned()
    };
    let all: Vec<String> = sentences(lower).into_iter().map(first).collect();
    let opening = all.first().map_or("", String::as_str);
    let gerund = opening.len() > 4 && opening.ends_with("ing") && !RING.contains(&opening);
    all.iter().all(|word| STATING.contains(&word.as_str())) || gerund && !lower.contains(',')
}

/// A mark that is opened more often than closed.
fn left_open(text: &str) -> Option<char> {
    let count = |mark: char| text.matches(mark).count();
    let pairs =
        [('(', ')'), ('[', ']'), ('（', '）'), ('“', '”'), ('「', '」'), ('『', '』'), ('«', '»')];
    let open = pairs.into_iter().find(|(open, close)| count(*open) > count(*close));
    // Of inches and of quotations.
    let inches =
        text.as_bytes().windows(2).filter(|w| matches!(w, [digit, b'"'] if digit.is_ascii_digit()));
    let odd = (count('"') - inches.count()) % 2 == 1 && count('"') % 2 == 1;
    open.map(|(open, _)| open).or(odd.then_some('"'))
}

/// A place that someone was to fill in: `[your name]`, `{topic}`, `<insert text>`.
fn placeholder(text: &str) -> Option<&str> {
    [('[', ']'), ('{', '}'), ('<', '>')].into_iter().find_map(|(open, close)| {
        text.match_indices(open).find_map(|(at, _)| {
            let end = text.get(at..)?.find(close)?;
            let hole = text.get(at..=at + end)?;
            let inner = hole.trim_matches([open, close]).to_lowercase();
            let worded = inner.split_whitespace().count() <= 5
                && inner.chars().all(|c| c.is_alphabetic() || " _-'/".contains(c));
            let names = |word| HOLES.contains(&word);
            let named = inner.split(|c: char| !c.is_alphabetic()).any(names);
            (worded && named).then_some(hole)
        })
    })
}

/// Words that come three times in the same order, or four times in a row.
fn repeats(text: &str) -> Option<String> {
    let words: Vec<String> = units(text).into_iter().map(|unit| unit.text).collect();
    let unspaced = words.iter().filter(|w| w.starts_with(is_unspaced)).count() * 2 > words.len();
    let long = if unspaced { 6 } else { 3 };
    let row = words.windows(4).find(|w| w.iter().all(|word| Some(word) == w.first()));
    let mut seen = std::collections::HashMap::new();
    let again = words.windows(long).find(|run| {
        let times = seen.entry(*run).or_insert(0);
        *times += 1;
        *times == 3
    });
    row.or(again).map(|run| run.join(if unspaced { "" } else { " " }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_requests_pass_in_any_script() {
        for task in [
            "Write a story about the moon",
            "What is the best way to prepare for a marathon",
            "¿Cuál es la capital de España?",
            "写一首关于春天的诗。",
            "日本の首都はどこですか？",
            "「走れメロス」のあらすじを教えてください。",
            "Назови три города России.",
            "اكتب قصة قصيرة عن البحر.",
            "เขียนบทกวีเกี่ยวกับทะเล",
            "서울의 인구는 얼마인가요?",
            "Écris un poème sur la mer.",
            "Überlege dir einen guten Namen für meine Katze",
            "\"Carpe diem\": what does it mean?",
            "Rewrite the following sentence: he go to school.",
            "Explain the meaning of the sentence \"All that glitters is not gold\".",
            "Given a list of numbers, write a function that returns the largest.",
            "I have ants in my kitchen. How do I solve this problem?",
            "You are a pirate. Tell me about the sea.",
            "Write a song about your favorite animal.",
            "Compare a leap year with a normal year and a school year.",
            "How do I change my password?",
            "I am planning a trip to Rome. Can you make a plan for me?",
            "Sort the following numbers: 3, 1, 2",
            "Solve the following equation 3x + 5 = 14.",
            "Translate it into French.\n\nGood morning",
            "下面的句子是什么意思：生活就像一盒巧克力。",
            "Bring order into my day with a plan",
            "Write a poem. Here is its first line: The sea is wide.",
        ] {
            assert_eq!(check(task), Ok(()), "{task}");
        }
    }

    #[test]
    fn what_cannot_be_handed_over_has_its_reason() {
        for (task, reason) in [
            ("Sure, here are some new tasks for you:", "introduction"),
            ("Certainly! I came up with these.", "introduction"),
            ("Here are ten new tasks.", "introduction"),
            ("I hope this helps you with it!", "introduction"),
            ("好的，以下是一些新任务：", "introduction"),
            ("もちろんです。新しいタスクはこちら：", "introduction"),
            ("Конечно, вот новые задания:", "introduction"),
            ("Rewrite the following sentence:", "input should begin"),
            ("Write a story about a man who", "middle of a sentence"),
            ("Write a story about a (very old man", "not closed"),
            ("Say \"good day in French", "not closed"),
            ("Write an email to [insert name] about lunch", "hole"),
            ("Given the following paragraph, write a summary.", "does not have"),
            ("Summarize the article.", "does not have"),
            ("Identify the verb in the sentence.", "does not have"),
            ("Given a set of numbers, find the largest.", "does not have"),
            ("What does this word mean in English?", "does not have"),
            ("把下面的句子翻译成英文。", "does not have"),
            ("次の文章を要約してください。", "does not have"),
            ("다음 문장을 영어로 번역하세요.", "does not have"),
            ("Переведи следующее предложение на английский.", "does not have"),
            ("Resume el siguiente texto en dos frases.", "does not have"),
            ("Résume le texte suivant en deux phrases.", "does not have"),
            ("Fasse den folgenden Text kurz zusammen.", "does not have"),
            ("لخص النص التالي في جملتين.", "does not have"),
            ("สรุปข้อความต่อไปนี้ให้สั้นลง", "does not have"),
            ("I am a bumbling bumbling bumbling bumbling man, am I?", "again and again"),
            ("I am going to be giving you a gift.", "states"),
            ("The capital of France is Paris.", "states"),
            ("Writing a short story that has a horror scene", "states"),
            ("A list of the best ten books", "states"),
            ("How to make a spaceship using a spaceship.", "again and again"),
            ("Find the most unique and unique colors of a rainbow.", "again and again"),
            ("What is the best song you've ever listened to?", "does not have: you"),
            ("I love to craft things with my own hands. Can you?", "middle of a sentence"),
            ("I have a big error in my code, how can I fix it?", "does not have: my code"),
            ("What is the name of the person?", "does not have: the person"),
            ("List the best places to eat in the city.", "does not have: the city"),
            ("Try to answer this question using logic and math.", "does not have: this question"),
            ("Think of a person that you wish you had been.", "does not have: you wish"),
            (
                "Can you tell me about a time when you overcame a challenge?",
                "does not have: time when",
            ),
            ("- list five kinds of apples", "begins with"),
            ("🙂 smile at me now", "begins with"),
        ] {
            let found = check(task).unwrap_err();
            assert!(found.contains(reason), "{task}: {found}");
        }
    }
}
