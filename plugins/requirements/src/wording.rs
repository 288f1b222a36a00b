//! What a constraint asks for, in words, for prompts that bring constraints and no words of their own.
//! The names are IFEval's, as the `verifier` reads them.

/// A count as the `verifier` reads it (`at least 3`, `less than 3`, `3`), of some things.
fn count(value: &str, things: &str) -> String {
    let value = value.trim();
    match value.strip_prefix("at least ").or_else(|| value.strip_prefix("less than ")) {
        Some(_) => format!("{value} {things}"),
        None => format!("exactly {value} {things}"),
    }
}

/// The number of a count that is a least one anyway.
fn bare(value: &str) -> &str {
    value.strip_prefix("at least ").unwrap_or(value)
}

/// `word at least 3`: how often the word shall be there.
fn frequency(value: &str, kind: &str) -> String {
    let relation = [" at least ", " less than "].iter().filter_map(|one| value.rfind(one)).max();
    match relation.or_else(|| value.rfind(char::is_whitespace)) {
        Some(at) => {
            let (word, times) = value.split_at(at);
            format!("The {kind} {word} is there {}.", count(times, "times"))
        }
        None => format!("The {kind} {value} is there."),
    }
}

/// What a constraint asks for; `None`: it is not known.
pub fn wording(name: &str, value: &str) -> Option<String> {
    let value = value.trim();
    let name = name.split_once('#').map_or(name, |(name, _)| name);
    Some(match name {
        "keywords:existence" => format!("It has the words: {value}."),
        "keywords:forbidden_words" => format!("It does not have the words: {value}."),
        "keywords:frequency" => frequency(value, "word"),
        "keywords:letter_frequency" => frequency(value, "letter"),
        "length_constraints:number_words" => format!("It has {}.", count(value, "words")),
        "length_constraints:number_sentences" => format!("It has {}.", count(value, "sentences")),
        "length_constraints:number_paragraphs" => {
            format!("It has {} with *** between them.", count(value, "paragraphs"))
        }
        "detectable_format:number_bullet_lists" => {
            format!(
                "It has {}, each a line that begins with a star.",
                count(value, "bullet points")
            )
        }
        "detectable_format:json_format" => "All of it is JSON.".to_owned(),
        "detectable_format:title" => {
            "It has a title in double angle brackets, like <<title>>.".to_owned()
        }
        "detectable_content:number_placeholders" => {
            let least = bare(value);
            format!("It has at least {least} blanks in square brackets, like [name].")
        }
        "detectable_content:postscript" => {
            format!("It has a postscript that begins with {value}")
        }
        "change_case:english_lowercase" => "It has no capital letters.".to_owned(),
        "change_case:english_capital" => "It is all in capital letters.".to_owned(),
        "change_case:capital_word_frequency" => {
            format!("It has {}.", count(value, "words all in capitals"))
        }
        "punctuation:no_comma" => "It has no comma.".to_owned(),
        "startend:end_checker" => format!("It ends with exactly this: {value}"),
        "startend:quotation" => "All of it stands between double quotation marks.".to_owned(),
        "detectable_format:number_highlighted_sections" => {
            format!("It has at least {} parts between stars, like *this*.", bare(value))
        }
        "detectable_format:multiple_sections" => match value.rsplit_once(char::is_whitespace) {
            Some((splitter, n)) => {
                format!("It has {n} sections that begin with {splitter} and a number.")
            }
            None => return None,
        },
        "detectable_format:constrained_response" => {
            "It says one of these: My answer is yes. My answer is no. My answer is maybe."
                .to_owned()
        }
        "language:response_language" => format!("It is in the language {value}."),
        "combination:two_responses" => {
            "It is two different answers with ****** between them.".to_owned()
        }
        "combination:repeat_prompt" if !value.is_empty() => {
            format!("It begins by repeating this, word for word: {value}")
        }
        _ => return None,
    })
}
