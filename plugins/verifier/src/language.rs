//! In which language a text is, approximately: by its script, and where languages share one by how many
//! of its words are among the commonest of each. Enough to tell a whole answer; of few words it says
//! little.

/// A script, as ranges of code points.
type Script = &'static [(char, char)];

const LATIN: Script = &[('A', 'Z'), ('a', 'z'), ('\u{c0}', '\u{24f}'), ('\u{1e00}', '\u{1eff}')];
const CYRILLIC: Script = &[('\u{400}', '\u{4ff}')];
const ARABIC: Script = &[('\u{600}', '\u{6ff}'), ('\u{750}', '\u{77f}')];
const DEVANAGARI: Script = &[('\u{900}', '\u{97f}')];

/// A language: its code, its script, and common words that tell it from others of that script.
struct Language(&'static str, Script, &'static [&'static str]);

const LANGUAGES: [Language; 27] = [
    Language(
        "en",
        LATIN,
        &[
            "the", "and", "of", "to", "is", "in", "that", "it", "you", "for", "are", "with", "not",
            "this", "have", "was", "be", "can", "your", "we",
        ],
    ),
    Language(
        "de",
        LATIN,
        &[
            "der", "die", "das", "und", "ist", "nicht", "ein", "eine", "zu", "mit", "sie", "ich",
            "es", "den", "auf", "für", "wir", "von", "dem", "auch",
        ],
    ),
    Language(
        "fr",
        LATIN,
        &[
            "le", "la", "les", "et", "est", "des", "une", "un", "pas", "pour", "que", "dans",
            "vous", "nous", "il", "du", "qui", "ce", "sur", "avec",
        ],
    ),
    Language(
        "es",
        LATIN,
        &[
            "el", "la", "los", "las", "y", "es", "que", "un", "una", "para", "con", "por", "del",
            "se", "no", "lo", "su", "está", "más", "como",
        ],
    ),
    Language(
        "pt",
        LATIN,
        &[
            "o", "os", "as", "e", "é", "que", "um", "uma", "para", "com", "não", "por", "do", "da",
            "dos", "das", "em", "você", "mais", "são",
        ],
    ),
    Language(
        "it",
        LATIN,
        &[
            "il", "lo", "gli", "e", "è", "che", "un", "una", "per", "con", "non", "di", "della",
            "del", "sono", "si", "nel", "più", "anche", "questo",
        ],
    ),
    Language(
        "fi",
        LATIN,
        &[
            "ja", "on", "ei", "se", "että", "oli", "hän", "mutta", "kun", "ovat", "tai", "myös",
            "joka", "kuin", "minä", "sinun", "niin", "voi", "olla", "tämä",
        ],
    ),
    Language(
        "sw",
        LATIN,
        &[
            "na", "ya", "wa", "kwa", "ni", "katika", "kwamba", "la", "za", "hii", "yake", "kuwa",
            "au", "sana", "lakini", "hiyo", "kama", "watu", "ili", "huu",
        ],
    ),
    Language(
        "vi",
        LATIN,
        &[
            "và", "là", "của", "có", "cho", "không", "được", "một", "người", "những", "các",
            "trong", "với", "đã", "này", "để", "tôi", "bạn", "khi", "rất",
        ],
    ),
    Language(
        "nl",
        LATIN,
        &[
            "de", "het", "een", "en", "van", "is", "niet", "dat", "op", "te", "zijn", "voor",
            "met", "ik", "je", "aan", "er", "ook", "maar", "wij",
        ],
    ),
    Language(
        "ru",
        CYRILLIC,
        &[
            "и",
            "в",
            "не",
            "на",
            "я",
            "что",
            "он",
            "с",
            "это",
            "как",
            "по",
            "но",
            "они",
            "мы",
            "из",
            "для",
            "вы",
            "был",
            "которые",
            "или",
        ],
    ),
    Language(
        "bg",
        CYRILLIC,
        &[
            "и",
            "да",
            "е",
            "на",
            "се",
            "за",
            "от",
            "са",
            "не",
            "ще",
            "с",
            "това",
            "като",
            "по",
            "той",
            "си",
            "но",
            "беше",
            "които",
            "или",
        ],
    ),
    Language(
        "uk",
        CYRILLIC,
        &[
            "і", "в", "не", "на", "що", "з", "та", "є", "це", "як", "до", "у", "він", "для", "але",
            "ми", "від", "які", "був", "або",
        ],
    ),
    Language(
        "ar",
        ARABIC,
        &[
            "في", "من", "على", "إلى", "أن", "هذا", "التي", "الذي", "عن", "مع", "هو", "هذه", "كان",
            "لا", "ما", "أو", "هي", "ذلك", "قد", "كل",
        ],
    ),
    Language(
        "fa",
        ARABIC,
        &[
            "و", "در", "به", "از", "که", "این", "است", "را", "با", "برای", "آن", "یک", "می", "هم",
            "خود", "تا", "های", "ما", "شما", "بود",
        ],
    ),
    Language(
        "ur",
        ARABIC,
        &[
            "کے", "میں", "کی", "ہے", "اور", "سے", "کا", "کو", "یہ", "نے", "پر", "ہیں", "کہ", "ایک",
            "تھا", "وہ", "بھی", "آپ", "کر", "تھی",
        ],
    ),
    Language(
        "hi",
        DEVANAGARI,
        &[
            "है",
            "के",
            "में",
            "की",
            "और",
            "का",
            "से",
            "को",
            "हैं",
            "यह",
            "पर",
            "एक",
            "नहीं",
            "ने",
            "भी",
            "कि",
            "था",
            "हम",
            "तो",
            "लिए",
        ],
    ),
    Language(
        "mr",
        DEVANAGARI,
        &[
            "आहे",
            "आणि",
            "या",
            "हा",
            "ही",
            "हे",
            "नाही",
            "आहेत",
            "तो",
            "ते",
            "मी",
            "की",
            "च्या",
            "होते",
            "साठी",
            "एक",
            "त्या",
            "मला",
            "तुम्ही",
            "होता",
        ],
    ),
    Language(
        "ne",
        DEVANAGARI,
        &[
            "छ",
            "र",
            "को",
            "मा",
            "हो",
            "ले",
            "छन्",
            "पनि",
            "यो",
            "लाई",
            "गर्न",
            "भएको",
            "थियो",
            "म",
            "हरू",
            "तपाईं",
            "एक",
            "त्यो",
            "गरेको",
            "हुन्छ",
        ],
    ),
    Language("bn", &[('\u{980}', '\u{9ff}')], &[]),
    Language("pa", &[('\u{a00}', '\u{a7f}')], &[]),
    Language("gu", &[('\u{a80}', '\u{aff}')], &[]),
    Language("ta", &[('\u{b80}', '\u{bff}')], &[]),
    Language("te", &[('\u{c00}', '\u{c7f}')], &[]),
    Language("kn", &[('\u{c80}', '\u{cff}')], &[]),
    Language("th", &[('\u{e00}', '\u{e7f}')], &[]),
    Language("ko", &[('\u{1100}', '\u{11ff}'), ('\u{ac00}', '\u{d7af}')], &[]),
];

fn letters(text: &str, script: Script) -> usize {
    let inside = |c: &char| script.iter().any(|(from, to)| (*from..=*to).contains(c));
    text.chars().filter(inside).count()
}

/// Letters and the marks that belong to them: what a word is made of in every script here.
fn in_a_word(c: char) -> bool {
    c.is_alphanumeric() || ('\u{900}'..='\u{dff}').contains(&c)
}

fn common(text: &str, words: &[&str]) -> usize {
    let low = text.to_lowercase();
    low.split(|c: char| !in_a_word(c)).filter(|word| words.contains(word)).count()
}

/// Whether a text is in the language with a code.
///
/// Errors: the code is not among those that are known; that is the prompt's fault.
pub fn is_in(text: &str, code: &str) -> Result<bool, String> {
    let known = LANGUAGES.iter().find(|language| language.0 == code.trim()).ok_or_else(|| {
        let codes: Vec<&str> = LANGUAGES.iter().map(|language| language.0).collect();
        format!("{code:?} is no language that is known here: {}", codes.join(", "))
    })?;
    let ours = letters(text, known.1);
    let most = LANGUAGES.iter().map(|language| letters(text, language.1)).max().unwrap_or(0);
    if ours == 0 || ours < most {
        return Ok(false);
    }
    // Of those that share the script the one with most of its common words.
    let mine = common(text, known.2);
    let others = LANGUAGES.iter().filter(|other| other.1 == known.1 && other.0 != known.0);
    Ok(others.map(|other| common(text, other.2)).max().is_none_or(|other| mine > other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_is_told_by_its_script_and_its_words() {
        for (code, text) in [
            ("en", "The answer is that you can do this with your friends."),
            (
                "de",
                "Die Antwort ist nicht so einfach, aber wir haben eine gute Idee für den Abend.",
            ),
            ("fr", "La réponse n'est pas simple pour nous, et il faut du temps dans une vie."),
            ("es", "La respuesta no es fácil, y los amigos lo saben por una buena razón."),
            ("pt", "A resposta não é fácil para você, e os amigos são uma boa razão."),
            ("it", "La risposta non è facile, e gli amici sono anche di questo mondo."),
            ("fi", "Vastaus ei ole helppo, mutta se on hyvä ja hän voi olla täällä."),
            ("sw", "Jibu ni rahisi sana kwa watu wa nchi hii, lakini ya kwanza ni ngumu."),
            ("vi", "Câu trả lời không dễ cho một người trong những ngày này."),
            ("ru", "Это не так просто, как вы думаете, но мы знаем, что он был прав."),
            ("bg", "Това не е толкова лесно, но ще се справим с него като хора."),
            ("ar", "هذا هو الجواب الذي كان في الكتاب عن الناس"),
            ("fa", "این یک پاسخ است که در کتاب برای شما بود"),
            ("ur", "یہ ایک جواب ہے اور وہ بھی آپ کے لیے"),
            ("hi", "यह एक अच्छा उत्तर है और हम सब के लिए है"),
            ("mr", "हे उत्तर चांगले आहे आणि ते मला आवडते"),
            ("ne", "यो राम्रो जवाफ हो र म यसलाई मन पराउँछ"),
            ("bn", "এটি একটি ভাল উত্তর"),
            ("ta", "இது ஒரு நல்ல பதில்"),
            ("th", "นี่คือคำตอบที่ดี"),
            ("ko", "이것은 좋은 대답입니다"),
        ] {
            for other in ["en", "de", "ru", "ar", "hi", code] {
                assert_eq!(is_in(text, other), Ok(other == code), "{code} as {other}: {text}");
            }
        }
        assert_eq!(is_in("42", "en"), Ok(false));
        assert!(is_in("a", "xx").is_err());
    }
}
