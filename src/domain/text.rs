//! Texts that others wrote, as they are recorded: with an end.

/// A text's first `most` characters; one that has more says how many it had.
pub fn bounded(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => {
            let (kept, all) = (text.get(..end).unwrap_or_default(), text.chars().count());
            format!("{kept} [cut for the record: {all} characters in all]")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        assert_eq!(bounded("abc", 3), "abc");
        assert_eq!(bounded("äöü!", 2), "äö [cut for the record: 4 characters in all]");
        assert_eq!(bounded("", 0), "");
    }
}
