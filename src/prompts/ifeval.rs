//! IFEval's own rows (arXiv 2311.07911): `instruction_id_list` with `kwargs`, as the fields that the rubric
//! `verifier` reads. A name that a prompt has twice gets a number the second time: `keywords:frequency#2`.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The constraints of a row; none where it is not IFEval's.
pub(super) fn fields(object: &Map<String, Value>) -> Result<BTreeMap<String, String>, String> {
    let Some(names) = object.get("instruction_id_list") else { return Ok(BTreeMap::new()) };
    let names = names.as_array().ok_or("instruction_id_list is not a list")?;
    let none = Vec::new();
    let kwargs = object.get("kwargs").and_then(Value::as_array).unwrap_or(&none);
    if names.len() != kwargs.len() {
        return Err(format!("{} instructions and {} kwargs", names.len(), kwargs.len()));
    }
    let mut fields = BTreeMap::new();
    for (name, kwargs) in names.iter().zip(kwargs) {
        let name = name.as_str().ok_or("an instruction is not text")?;
        let value = value(name, kwargs).map_err(|why| format!("{name}: {why}"))?;
        let mut free = name.to_owned();
        for n in 2.. {
            if !fields.contains_key(&free) {
                break;
            }
            free = format!("{name}#{n}");
        }
        fields.insert(free, value);
    }
    Ok(fields)
}

/// The arguments of a constraint, as the verifier writes them.
fn value(name: &str, kwargs: &Value) -> Result<String, String> {
    let of = |key: &str| match kwargs.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        _ => Err(format!("its kwargs have no {key}")),
    };
    let list = |key: &str| {
        let all = kwargs.get(key).and_then(Value::as_array);
        let all = all.ok_or_else(|| format!("its kwargs have no list {key}"))?;
        let words: Vec<&str> = all.iter().filter_map(Value::as_str).collect();
        match words.iter().any(|word| word.contains(',')) {
            true => Err(format!("a word of {key} has a comma, which the verifier reads as two")),
            false => Ok(words.join(", ")),
        }
    };
    let bounded = |relation: &str, number: &str| Ok(format!("{} {}", of(relation)?, of(number)?));
    match name {
        "keywords:existence" => list("keywords"),
        "keywords:forbidden_words" => list("forbidden_words"),
        "keywords:frequency" => {
            Ok(format!("{} {}", of("keyword")?, bounded("relation", "frequency")?))
        }
        "keywords:letter_frequency" => {
            Ok(format!("{} {}", of("letter")?, bounded("let_relation", "let_frequency")?))
        }
        "length_constraints:number_words" => bounded("relation", "num_words"),
        "length_constraints:number_sentences" => bounded("relation", "num_sentences"),
        "length_constraints:number_paragraphs" => of("num_paragraphs"),
        "length_constraints:nth_paragraph_first_word" => {
            let (nth, all) = (of("nth_paragraph")?, of("num_paragraphs")?);
            Ok(format!("{nth} of {all} {}", of("first_word")?))
        }
        "detectable_format:number_bullet_lists" => of("num_bullets"),
        "detectable_format:number_highlighted_sections" => of("num_highlights"),
        "detectable_format:multiple_sections" => {
            Ok(format!("{} {}", of("section_spliter")?, of("num_sections")?))
        }
        "detectable_content:number_placeholders" => of("num_placeholders"),
        "detectable_content:postscript" => of("postscript_marker"),
        "change_case:capital_word_frequency" => bounded("capital_relation", "capital_frequency"),
        "startend:end_checker" => of("end_phrase"),
        "language:response_language" => of("language"),
        "combination:repeat_prompt" => of("prompt_to_repeat"),
        _ => Ok(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All 541 rows, 834 instructions of all 25 kinds.
    #[test]
    fn the_prompts_that_come_with_gradus_are_ifevals() {
        let file = crate::prompts::ifeval_prompts().unwrap();
        assert_eq!((file.rows.len(), file.repeats), (541, 0));
        let fields = || file.rows.iter().flat_map(|row| row.notes.fields.keys());
        assert_eq!(fields().count(), 834);
        let kinds: std::collections::BTreeSet<&str> =
            fields().map(|name| name.split('#').next().unwrap_or(name)).collect();
        assert_eq!(kinds.len(), 25);
    }

    #[test]
    fn instructions_become_what_the_verifier_reads() {
        let read = |row: Value| fields(row.as_object().unwrap());
        let row = serde_json::json!({"instruction_id_list": ["keywords:frequency", "keywords:frequency",
            "punctuation:no_comma", "length_constraints:nth_paragraph_first_word"],
            "kwargs": [{"keyword": "so", "relation": "at least", "frequency": 2},
                {"keyword": "no", "relation": "less than", "frequency": 3}, {},
                {"nth_paragraph": 2, "num_paragraphs": 4, "first_word": "then"}]});
        let found = read(row).unwrap();
        let found: Vec<(&str, &str)> =
            found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            found,
            [
                ("keywords:frequency", "so at least 2"),
                ("keywords:frequency#2", "no less than 3"),
                ("length_constraints:nth_paragraph_first_word", "2 of 4 then"),
                ("punctuation:no_comma", ""),
            ]
        );
        assert!(read(serde_json::json!({"prompt": "a"})).unwrap().is_empty());
        for wrong in [
            serde_json::json!({"instruction_id_list": ["a:b"], "kwargs": []}),
            serde_json::json!({"instruction_id_list": ["startend:end_checker"], "kwargs": [{}]}),
            serde_json::json!({"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["a, b"]}]}),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
