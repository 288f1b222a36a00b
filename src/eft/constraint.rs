//! A constraint as the bundled `verifier` reads it, taken apart: IFEval's names, and values in words.

/// How a count compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    AtLeast(usize),
    LessThan(usize),
    Exactly(usize),
}

impl Bound {
    /// `at least 3`, `less than 3`, `3`.
    pub fn of(value: &str) -> Option<Bound> {
        let value = value.trim();
        let number = |text: &str| text.trim().parse().ok();
        match (value.strip_prefix("at least "), value.strip_prefix("less than ")) {
            (Some(n), _) => number(n).map(Bound::AtLeast),
            (_, Some(n)) => number(n).map(Bound::LessThan),
            _ => number(value).map(Bound::Exactly),
        }
    }

    /// The count that comes closest to breaking it and does not.
    pub fn edge(self) -> usize {
        match self {
            Bound::AtLeast(n) | Bound::Exactly(n) => n,
            Bound::LessThan(n) => n.saturating_sub(1),
        }
    }
}

/// What a response has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Constraint {
    /// It has these words, also within others.
    Words(Vec<String>),
    /// It has none of these words.
    NotWords(Vec<String>),
    /// A word so often, also within others.
    WordTimes(String, Bound),
    /// A letter so often.
    LetterTimes(String, Bound),
    WordCount(Bound),
    Sentences(Bound),
    Paragraphs(Bound),
    Bullets(Bound),
    Json,
    Title,
    Placeholders(usize),
    Postscript(String),
    Lowercase,
    Capitals,
    NoComma,
    Ending(String),
    Quotation,
}

fn list(value: &str) -> Option<Vec<String>> {
    let words = value.split(',').map(|word| word.trim().to_owned());
    let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
    (!words.is_empty()).then_some(words)
}

fn times(value: &str) -> Option<(String, Bound)> {
    let value = value.trim();
    let relation = [" at least ", " less than "].iter().filter_map(|one| value.rfind(one)).max();
    let (word, bound) = value.split_at(relation.or_else(|| value.rfind(char::is_whitespace))?);
    Some((word.trim().to_owned(), Bound::of(bound)?))
}

impl Constraint {
    /// `None`: it is not one of which evidence can be written here.
    pub fn of(name: &str, value: &str) -> Option<Constraint> {
        // A prompt may have two of a kind: `keywords:frequency#2`.
        let name = name.split_once('#').map_or(name, |(name, _)| name);
        Some(match name {
            "keywords:existence" => Constraint::Words(list(value)?),
            "keywords:forbidden_words" => Constraint::NotWords(list(value)?),
            "keywords:frequency" => {
                let (word, bound) = times(value)?;
                Constraint::WordTimes(word, bound)
            }
            "keywords:letter_frequency" => {
                let (letter, bound) = times(value)?;
                Constraint::LetterTimes(letter, bound)
            }
            "length_constraints:number_words" => Constraint::WordCount(Bound::of(value)?),
            "length_constraints:number_sentences" => Constraint::Sentences(Bound::of(value)?),
            "length_constraints:number_paragraphs" => Constraint::Paragraphs(Bound::of(value)?),
            "detectable_format:number_bullet_lists" => Constraint::Bullets(Bound::of(value)?),
            "detectable_format:json_format" => Constraint::Json,
            "detectable_format:title" => Constraint::Title,
            "detectable_content:number_placeholders" => {
                Constraint::Placeholders(Bound::of(value)?.edge())
            }
            "detectable_content:postscript" => Constraint::Postscript(value.trim().to_owned()),
            "change_case:english_lowercase" => Constraint::Lowercase,
            "change_case:english_capital" => Constraint::Capitals,
            "punctuation:no_comma" => Constraint::NoComma,
            "startend:end_checker" => Constraint::Ending(value.trim().to_owned()),
            "startend:quotation" => Constraint::Quotation,
            _ => return None,
        })
    }
}

/// Whether a prompt's field names a constraint: they have a family and a name.
pub(super) fn is_constraint(field: &str) -> bool {
    field.split_once(':').is_some_and(|(family, _)| !family.contains('.'))
}
