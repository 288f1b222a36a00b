//! Where sentences end, in any script.

use super::list::is_end;

/// The sentences of a text; a full stop inside a word or number ends none.
pub(super) fn sentences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut from, mut at) = (0, 0);
    for word in text.split_inclusive(char::is_whitespace) {
        at += word.len();
        let ends = word.trim_end().trim_end_matches(['"', '\'', '”', ')', '」', '»']);
        if ends.ends_with(is_end) || word.contains(['。', '？', '！']) {
            found.extend(text.get(from..at));
            from = at;
        }
    }
    found.extend(text.get(from..).filter(|rest| !rest.trim().is_empty()));
    found
}

/// Whether a text is one sentence.
pub(super) fn is_one_sentence(text: &str) -> bool {
    sentences(text).len() == 1
}
