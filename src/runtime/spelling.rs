//! WHETHER A MODEL CAN JUDGE under a rubric: a score that is read from probabilities needs choices that
//! the model's vocabulary can spell. Asked when a rubric is activated, of the replies that its golden
//! cases bring; a run that found it out at work would judge by what was drawn, without a word.

use crate::error::{Code, Error};
use crate::lm::fork::{Spelling, Written, fork};
use crate::lm::tokenizer::TextTokenizer;
use crate::rubric::Rubric;

/// The choices of a rubric that the model cannot write, each once, as they would be written.
fn unspelled(tokenizer: &TextTokenizer, rubric: &Rubric) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    for (before, choices) in rubric.written_choices()? {
        let written = Written { prompt: &[], reply: &[], text: &before };
        if fork(tokenizer, written, &choices)?.is_some() {
            continue;
        }
        let mut lacking = Vec::new();
        for choice in &choices {
            let ids = tokenizer.ids(&format!("{before}{choice}"))?;
            if !tokenizer.text(&ids)?.ends_with(choice.as_str()) {
                lacking.push(choice.clone());
            }
        }
        // Each can be written, and two of them are the same ids.
        all.extend(if lacking.is_empty() { choices } else { lacking });
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// Refuses a rubric whose scores this model's probabilities cannot say.
///
/// # Errors
/// [`Error::Refused`] naming the rubric and the words.
pub(super) fn check(tokenizer: &TextTokenizer, rubric: &Rubric) -> Result<(), Error> {
    let lacking = unspelled(tokenizer, rubric)?;
    if lacking.is_empty() {
        return Ok(());
    }
    let words: Vec<String> = lacking.iter().map(|word| format!("{word:?}")).collect();
    let info = rubric.info();
    Err(Error::refused(
        Code::RubricUnspellable,
        format!(
            "{}@{} ({}) reads its scores from how likely the judge is to write {}, and the \
         model's vocabulary cannot spell {}: it cannot be activated. Take another rubric, or set \
         judge.readout: parsed in gradus.yaml, which takes scores as they are written",
            info.name,
            info.version,
            rubric.id().short(),
            words.join(", "),
            if words.len() == 1 { "it" } else { "them" }
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rubric::{RubricEngine, bundled};
    use std::path::Path;

    fn tokenizer(folder: &str) -> TextTokenizer {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        TextTokenizer::from_file(&root.join(folder).join("tokenizer.json")).unwrap()
    }

    /// Case A6. The demo's vocabulary has 200 words; `Yes` with a capital is none of them.
    #[test]
    fn words_that_a_model_does_not_have_are_named() {
        let engine = RubricEngine::new().unwrap();
        let rubric = |bytes: &[u8]| Rubric::load(&engine, bytes).unwrap();
        let demo = tokenizer("assets/demo-base");
        check(&demo, &rubric(bundled::DEMO_COMPACT)).unwrap();
        let refused = check(&demo, &rubric(bundled::PAIRWISE)).unwrap_err().to_string();
        assert!(refused.starts_with("GRADUS0510 pairwise@"), "{refused}");
        assert!(refused.contains("\"A\", \"B\""), "{refused}");
        for kind in ["smollm2", "llama3", "qwen2", "sentencepiece"] {
            let whole = tokenizer(&format!("tests/golden/readout/{kind}"));
            for bytes in [bundled::ADDITIVE_FIVE, bundled::PAIRWISE, bundled::CHECKLIST] {
                check(&whole, &rubric(bytes)).unwrap();
            }
        }
    }
}
