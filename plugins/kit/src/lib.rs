//! What rubrics that ask a model share: fencing text that must not be believed, and reading the
//! judge's last words. Plain text in and out.

/// A mark that none of the texts contains: FNV-1a over them, moved on until it is absent. Texts that
/// are judged stand between two of them; they were written before the mark was made.
pub fn mark(texts: &[&str]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in texts.iter().flat_map(|text| text.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    loop {
        let mark = format!("response-{:08x}", hash >> 32);
        if texts.iter().all(|text| !text.contains(&mark)) {
            return mark;
        }
        hash = hash.wrapping_mul(0x0100_0000_01b3).wrapping_add(1);
    }
}

const ORNAMENTS: &str = "*_#-`>[]()\u{feff}";

/// The lines of a reply that are the judge's own: not quoted with `>`.
pub fn own_lines(reply: &str) -> impl DoubleEndedIterator<Item = &str> {
    reply.lines().filter(|line| !line.trim_start().starts_with('>'))
}

fn plain(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ORNAMENTS.contains(c))
}

/// What follows `word:` on lines that begin with it, whatever its case or the marks around it.
pub fn claims<'a>(reply: &'a str, word: &str) -> Vec<&'a str> {
    own_lines(reply)
        .filter_map(|line| {
            let line = plain(line);
            let head = line.get(..word.len())?;
            let rest = head.eq_ignore_ascii_case(word).then(|| &line[word.len()..])?;
            let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || "*_".contains(c));
            rest.strip_prefix(':').or_else(|| rest.strip_prefix('=')).map(plain)
        })
        .collect()
}

/// Which of two a judge preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    A,
    B,
    Tie,
}

/// What a comparison says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duel {
    Preferred(Side),
    Missing,
    Ambiguous(Vec<String>),
    Malformed(String),
}

fn side(written: &str) -> Option<Side> {
    let word = plain(written).trim_end_matches(['.', '!']);
    let word = plain(word);
    let last = match word.split_once(' ') {
        Some((head, last))
            if ["response", "answer", "judgment"].iter().any(|w| head.eq_ignore_ascii_case(w)) =>
        {
            last
        }
        _ => word,
    };
    match plain(last) {
        "A" | "a" => Some(Side::A),
        "B" | "b" => Some(Side::B),
        tie if tie.eq_ignore_ascii_case("tie") => Some(Side::Tie),
        _ => None,
    }
}

/// Reads `word: A`, `word: B` or `word: tie` from a reply. All such lines must agree; a line that
/// names neither is malformed, for taking its first letter would be a guess.
pub fn duel(reply: &str, word: &str) -> Duel {
    let found = claims(reply, word);
    let Some(first) = found.first() else { return Duel::Missing };
    let sides: Vec<Option<Side>> = found.iter().map(|written| side(written)).collect();
    if sides.iter().any(|s| *s != sides[0]) {
        return Duel::Ambiguous(found.iter().map(|s| (*s).to_owned()).collect());
    }
    match sides[0] {
        Some(side) => Duel::Preferred(side),
        None => Duel::Malformed((*first).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_in_none_of_the_texts() {
        let first = mark(&["a", "b"]);
        let second = mark(&["a", &format!("b {first}")]);
        assert_ne!(first, second);
        assert_eq!(mark(&["a", "b"]), first);
    }

    /// Outcomes stated by hand.
    #[test]
    fn duels() {
        use Side::{A, B, Tie};
        for (reply, expected) in [
            ("A is clearer.\nBetter: A", Duel::Preferred(A)),
            ("**Better:** B", Duel::Preferred(B)),
            ("better: b.", Duel::Preferred(B)),
            ("Better: [[A]]", Duel::Preferred(A)),
            ("Better: Response B", Duel::Preferred(B)),
            ("### Better: **Answer A**", Duel::Preferred(A)),
            ("Better: tie", Duel::Preferred(Tie)),
            ("Better = TIE", Duel::Preferred(Tie)),
            ("Better: A\nBetter: A", Duel::Preferred(A)),
            ("> Better: A\nIt praises itself.\nBetter: B", Duel::Preferred(B)),
            ("Better: A\nBetter: B", Duel::Ambiguous(vec!["A".into(), "B".into()])),
            ("Better: A or B", Duel::Malformed("A or B".into())),
            ("Better: A/B", Duel::Malformed("A/B".into())),
            ("Better: neither", Duel::Malformed("neither".into())),
            ("Better: 1", Duel::Malformed("1".into())),
            ("Better:", Duel::Malformed(String::new())),
            ("A is better.", Duel::Missing),
            ("> Better: A", Duel::Missing),
            ("I would say Better: A", Duel::Missing),
            ("A", Duel::Missing),
            ("", Duel::Missing),
            ("Better: \u{0410}", Duel::Malformed("\u{0410}".into())),
            ("Better: \u{ff21}", Duel::Malformed("\u{ff21}".into())),
        ] {
            assert_eq!(duel(reply, "Better"), expected, "{reply:?}");
        }
    }
}
