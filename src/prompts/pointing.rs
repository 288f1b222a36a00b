//! Tasks that speak of an input which they do not have: `Summarize the following article.` By words
//! that point at something, and things that are handed over, in a dozen languages.

use super::sentences::sentences;
use crate::stats::{figures, is_unspaced, units};

/// Words of a language that point at an input, and things they then point at. Both may be the
/// beginnings of words.
struct Language {
    /// Point at what is handed over with the task.
    pointers: &'static [&'static str],
    /// Point at what was said before: an input only where nothing was.
    back: &'static [&'static str],
    things: &'static [&'static str],
    /// Where the thing may stand, in characters before and after the pointing word.
    reach: (usize, usize),
}

const LANGUAGES: [Language; 11] = [
    Language {
        pointers: &[
            "the following",
            "following",
            "given",
            "provided",
            "attached",
            "the above",
            "the below",
            "below",
        ],
        back: &["this", "these"],
        things: &[
            "sentence",
            "paragraph",
            "text",
            "passage",
            "article",
            "excerpt",
            "email",
            "e-mail",
            "code",
            "snippet",
            "list",
            "word",
            "phrase",
            "story",
            "stories",
            "poem",
            "conversation",
            "dialog",
            "table",
            "document",
            "essay",
            "question",
            "problem",
            "equation",
            "statement",
            "review",
            "tweet",
            "quote",
            "input",
            "number",
            "data",
            "letter",
            "function",
            "program",
            "string",
            "array",
            "dictionary",
            "recipe",
            "information",
            "fact",
            "topic",
            "expression",
            "term",
            "item",
            "scenario",
            "situation",
            "context",
            "description",
            "set",
            "instruction",
            "task",
            "option",
            "pair",
            "name",
            "book",
            "movie",
            "song",
            "message",
            "post",
            "title",
            "event",
            "step",
            "object",
            "ingredient",
            "example",
            "matrix",
            "url",
            "link",
            "person",
            "character",
            "line",
            "verse",
            "lyrics",
            "report",
            "response",
            "answer",
            "product",
            "image",
        ],
        reach: (0, 24),
    },
    Language {
        pointers: &["以下", "下面", "下列", "下述", "上述", "上面", "给定", "給定", "所给"],
        back: &["这段", "這段", "这篇", "這篇", "这个", "這個", "该", "該"],
        things: &[
            "句", "文", "段", "词", "詞", "字", "代码", "代碼", "列表", "数", "數", "问题", "問題",
            "内容", "內容", "对话", "邮件", "郵件", "故事", "诗", "信息", "表",
        ],
        reach: (0, 6),
    },
    Language {
        pointers: &["次の", "以下の", "上記の", "下記の", "与えられた"],
        back: &["この"],
        things: &[
            "文",
            "段落",
            "テキスト",
            "単語",
            "言葉",
            "コード",
            "リスト",
            "数",
            "質問",
            "会話",
            "メール",
            "記事",
            "表",
            "問題",
        ],
        reach: (0, 6),
    },
    Language {
        pointers: &["다음", "아래", "위의", "주어진"],
        back: &["이 "],
        things: &[
            "문장",
            "글",
            "단락",
            "텍스트",
            "단어",
            "코드",
            "목록",
            "숫자",
            "질문",
            "대화",
            "이메일",
            "기사",
            "문제",
        ],
        reach: (0, 8),
    },
    Language {
        pointers: &["следующ", "приведен", "приведён", "данн", "заданн"],
        back: &["этот", "этой", "эту", "этом", "этого"],
        things: &[
            "предложени",
            "текст",
            "абзац",
            "слов",
            "код",
            "списо",
            "стать",
            "отрыв",
            "вопрос",
            "чис",
            "письм",
            "фраз",
        ],
        reach: (0, 24),
    },
    Language {
        pointers: &["siguiente", "seguinte", "dado", "dada", "abaixo", "adjunto"],
        back: &["este ", "esta "],
        things: &[
            "frase",
            "oración",
            "texto",
            "párrafo",
            "palabra",
            "código",
            "lista",
            "artículo",
            "correo",
            "pregunta",
            "número",
            "problema",
            "parágrafo",
            "palavra",
            "artigo",
        ],
        reach: (12, 20),
    },
    Language {
        pointers: &["suivant", "ci-dessous", "ci-dessus", "donné"],
        back: &["cette ", "ce "],
        things: &[
            "phrase",
            "texte",
            "paragraphe",
            "mot",
            "code",
            "liste",
            "article",
            "courriel",
            "question",
            "nombre",
            "passage",
        ],
        reach: (14, 16),
    },
    Language {
        pointers: &["folgend", "gegeben", "obig", "unten"],
        back: &["diese"],
        things: &[
            "satz", "sätze", "text", "absatz", "wort", "wörter", "code", "liste", "artikel",
            "e-mail", "frage", "zahl",
        ],
        reach: (0, 24),
    },
    Language {
        pointers: &["seguente", "seguenti"],
        back: &["questo ", "questa "],
        things: &["frase", "testo", "paragrafo", "parola", "codice", "lista", "articolo"],
        reach: (12, 20),
    },
    Language {
        pointers: &["التالي", "أدناه", "المعطى"],
        back: &["هذا", "هذه"],
        things: &["نص", "جملة", "فقرة", "كلمة", "قائمة", "مقال"],
        reach: (12, 12),
    },
    Language {
        pointers: &["ต่อไปนี้", "ข้างต้น", "ที่ให้มา"],
        back: &[],
        things: &["ข้อความ", "ประโยค", "คำ", "ย่อหน้า", "รายการ", "บทความ"],
        reach: (14, 6),
    },
];
/// Things that are an input when `the` stands before them and nothing says which.
const DEFINITE: [&str; 36] = [
    "sentence",
    "sentences",
    "paragraph",
    "passage",
    "text",
    "article",
    "excerpt",
    "email",
    "snippet",
    "phrase",
    "conversation",
    "dialogue",
    "document",
    "statement",
    "tweet",
    "input",
    "list",
    "code",
    "equation",
    "story",
    "poem",
    "words",
    "numbers",
    "word",
    "person",
    "city",
    "movie",
    "film",
    "team",
    "book",
    "song",
    "game",
    "company",
    "product",
    "series",
    "author",
];
/// Who writes one of these says with `given` what it takes.
const CODE: [&str; 8] = [
    "function",
    "program",
    "script",
    "algorithm",
    "method",
    "class",
    "query",
    "regular expression",
];

/// What a text (in lower case) points at without having it.
pub(super) fn missing_input(lower: &str) -> Option<String> {
    if has_inline_input(lower) {
        return None;
    }
    let all = sentences(lower);
    let first = all.first().copied().unwrap_or_default();
    let codes = CODE.iter().any(|word| lower.contains(word));
    let pointed = LANGUAGES.iter().find_map(|language| {
        let there = language.pointers.iter().filter(|word| !(codes && **word == "given"));
        let mut there = there.filter_map(|pointer| points(lower, pointer, language));
        let mut back = language.back.iter().filter_map(|pointer| points(first, pointer, language));
        there.next().or_else(|| back.next())
    });
    let itself = || ITSELF.iter().find(|words| lower.contains(**words)).map(|w| (*w).to_owned());
    let own = || OWN.pointers.iter().find_map(|pointer| points(lower, pointer, &OWN));
    pointed
        .or_else(|| definite(first))
        .or_else(|| help_with_what(&all))
        .or_else(own)
        .or_else(itself)
}

/// `Help me with my project.`, and no word of what it is.
fn help_with_what(sentences: &[&str]) -> Option<String> {
    let [only] = sentences else { return None };
    let (_, with) = only.split_once("help me with ").or_else(|| only.split_once("help me on "))?;
    let what = VAGUE.iter().find(|word| occurrences(with, word).next().is_some())?;
    Some(format!("help me with {what}"))
}

fn points(text: &str, pointer: &str, language: &Language) -> Option<String> {
    occurrences(text, pointer).find_map(|at| {
        let (before, after) = (text.get(..at)?, text.get(at + pointer.len()..)?);
        let (back, forth) = language.reach;
        let from = before.char_indices().rev().take(back).last().map_or(before.len(), |(i, _)| i);
        let to = after.char_indices().nth(forth).map_or(after.len(), |(i, _)| i);
        let near = [before.get(from..)?, after.get(..to)?];
        let things = || language.things.iter();
        let holds = |part: &&str| things().find(|thing| occurrences(part, thing).next().is_some());
        near.iter().find_map(|part| Some(format!("{pointer} {}", holds(part)?)))
    })
}

/// Where something stands; at the beginning of a word in scripts that have words.
fn occurrences<'t>(text: &'t str, sought: &'t str) -> impl Iterator<Item = usize> {
    // An article may be written together with its noun.
    let spaced = sought.starts_with(|c: char| c.is_ascii_alphabetic() || is_cyrillic(c));
    text.match_indices(sought).map(|(at, _)| at).filter(move |at| {
        let before = text.get(..*at).and_then(|before| before.chars().next_back());
        !spaced || before.is_none_or(|c| !c.is_alphanumeric() || is_unspaced(c))
    })
}

fn is_cyrillic(c: char) -> bool {
    ('\u{400}'..='\u{52f}').contains(&c)
}

/// `the article` at a sentence's end, where no article was spoken of.
fn definite(first: &str) -> Option<String> {
    let words: Vec<&str> = first.split_whitespace().collect();
    let plain = |word: &str| word.trim_end_matches(|c: char| !c.is_alphanumeric()).to_owned();
    words.windows(2).enumerate().find_map(|(at, pair)| {
        let [the, thing] = pair else { return None };
        let (ends, thing) =
            (words.get(at + 2).is_none_or(|next| !SAYS_WHICH.contains(next)), *thing);
        let name = plain(thing);
        let named = *the == "the" && DEFINITE.contains(&name.as_str());
        let before = words.iter().take(at).any(|word| plain(word) == name);
        (named && ends && !before).then(|| format!("the {name}"))
    })
}

/// How a task speaks of itself as if it were another, or of an input that is to come.
const ITSELF: [&str; 4] = ["this question", "this prompt", "this task", "i will give you"];
/// Things of the asker's that have to be seen.
const OWN: Language = Language {
    pointers: &["my"],
    back: &[],
    things: &[
        "code",
        "program ",
        "essay",
        "paragraph",
        "sentence",
        "homework",
        "assignment",
        "project",
        "problem",
        "error",
        "draft",
        "paper ",
        "poem",
        "story",
    ],
    reach: (0, 12),
};
/// What help is asked with when it is not said with what.
const VAGUE: [&str; 11] = [
    "project",
    "problem",
    "issue",
    "homework",
    "task",
    "question",
    "assignment",
    "situation",
    "something",
    "essay",
    "work",
];
/// Words that go on to say which one is meant.
const SAYS_WHICH: [&str; 16] = [
    "of", "about", "that", "for", "in", "from", "on", "which", "to", "by", "with", "where", "you",
    "i", "used", "called",
];

/// Whether something is handed over in the text itself: quoted, listed after a colon, in brackets,
/// or as numbers.
fn has_inline_input(text: &str) -> bool {
    let quoted = text.matches('"').count() >= 2
        || text.contains(['“', '«', '「', '『', '`', '{', '['])
        || text.contains(" '") && text.matches('\'').count() >= 2;
    let listed = text.split_once([':', '：']).is_some_and(|(_, rest)| !units(rest).is_empty());
    quoted || listed || text.contains('\n') || figures(text).len() >= 2
}
