//! Two texts beside each other: which words the other has too, in the same order.

use serde::Serialize;

/// Words that stand together, and whether the other text has them too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiffPiece {
    /// The words, with the space after each.
    pub text: String,
    /// Whether the other text has them, in this order.
    pub shared: bool,
}

/// Texts of more words than this are not compared word by word: it takes their product of steps.
const WORDS_MAX: usize = 3000;

/// Both texts in pieces; joined, the pieces are the texts.
pub fn words_apart(a: &str, b: &str) -> [Vec<DiffPiece>; 2] {
    let words = |text: &'_ str| -> Vec<String> {
        text.split_inclusive(char::is_whitespace).map(str::to_owned).collect()
    };
    let (a, b) = (words(a), words(b));
    let (mut in_a, mut in_b) = (vec![a == b; a.len()], vec![a == b; b.len()]);
    if a.len().max(b.len()) <= WORDS_MAX {
        for (at, other) in common(&a, &b) {
            if let (Some(one), Some(two)) = (in_a.get_mut(at), in_b.get_mut(other)) {
                (*one, *two) = (true, true);
            }
        }
    }
    [pieces(&a, &in_a), pieces(&b, &in_b)]
}

fn pieces(words: &[String], shared: &[bool]) -> Vec<DiffPiece> {
    let mut all: Vec<DiffPiece> = Vec::new();
    for (word, shared) in words.iter().zip(shared) {
        match all.last_mut().filter(|last| last.shared == *shared) {
            Some(last) => last.text.push_str(word),
            None => all.push(DiffPiece { text: word.clone(), shared: *shared }),
        }
    }
    all
}

/// Places of a longest common subsequence of words.
fn common(a: &[String], b: &[String]) -> Vec<(usize, usize)> {
    let same = |one: &str, two: &str| one.trim_end() == two.trim_end();
    // Lengths of the rest's, from the end on.
    let width = b.len() + 1;
    let mut longest = vec![0u32; (a.len() + 1) * width];
    let of = |longest: &[u32], i: usize, j: usize| longest.get(i * width + j).copied().unwrap_or(0);
    for (i, one) in a.iter().enumerate().rev() {
        for (j, two) in b.iter().enumerate().rev() {
            let best = match same(one, two) {
                true => of(&longest, i + 1, j + 1) + 1,
                false => of(&longest, i + 1, j).max(of(&longest, i, j + 1)),
            };
            if let Some(place) = longest.get_mut(i * width + j) {
                *place = best;
            }
        }
    }
    let (mut found, mut i, mut j) = (Vec::new(), 0, 0);
    while let (Some(one), Some(two)) = (a.get(i), b.get(j)) {
        if same(one, two) {
            found.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if of(&longest, i + 1, j) >= of(&longest, i, j + 1) {
            i += 1;
        } else {
            j += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_have_is_known_and_nothing_is_lost() {
        let [a, b] = words_apart("the red house on the hill", "the house on a hill");
        let own = |pieces: &[DiffPiece]| -> Vec<String> {
            pieces.iter().filter(|p| !p.shared).map(|p| p.text.clone()).collect()
        };
        assert_eq!(
            (own(&a), own(&b)),
            (vec!["red ".to_owned(), "the ".to_owned()], vec!["a ".to_owned()])
        );
        let whole: String = a.iter().map(|piece| piece.text.as_str()).collect();
        assert_eq!(whole, "the red house on the hill");
        let long = "word ".repeat(WORDS_MAX + 1);
        assert!(words_apart(&long, &long).iter().flatten().all(|piece| piece.shared));
        assert!(words_apart(&long, "word").iter().flatten().all(|piece| !piece.shared));
    }
}
