//! ROUGE-L F1, as the Python package rouge-score with `use_stemmer=False`: lower case, words of
//! `[a-z0-9]`. (So text in other scripts has no words and is never similar to anything.)

fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let keep = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    lower.split(|c: char| !keep(c)).filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

/// F1 of the longest common subsequence of words; 0 when either text has none.
pub fn rouge_l(a: &str, b: &str) -> f64 {
    rouge_l_of(&words(a), &words(b))
}

/// The same of texts that are split already: F1 of the longest common subsequence.
pub fn rouge_l_of<T: PartialEq>(a: &[T], b: &[T]) -> f64 {
    if a.is_empty() || b.is_empty() {
        return 0.0;
    }
    let mut row = vec![0usize; b.len() + 1];
    for word in a {
        let mut diagonal = 0;
        let mut left = 0;
        for (slot, other) in row.iter_mut().skip(1).zip(b) {
            let above = *slot;
            let longest = if word == other { diagonal + 1 } else { above.max(left) };
            diagonal = above;
            *slot = longest;
            left = longest;
        }
    }
    let common = row.last().copied().unwrap_or(0) as f64;
    let (recall, precision) = (common / a.len() as f64, common / b.len() as f64);
    if common == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn equals_rouge_score() {
        let text = include_str!("../../tests/golden/stats/rouge.json");
        let rows: Vec<(String, String, f64)> = serde_json::from_str(text).unwrap();
        assert!(rows.len() > 100);
        for (a, b, expected) in rows {
            let found = super::rouge_l(&a, &b);
            assert!((found - expected).abs() < 1e-12, "{a:?} {b:?} {found} {expected}");
        }
    }
}
