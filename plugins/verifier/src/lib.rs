//! No model at all: a program that checks what can be checked. The prompt brings its constraints as
//! fields with IFEval's names (`keywords:existence` = `apple, pear`), and the score is the share of
//! them that the response meets.

mod checks;
mod language;

wit_bindgen::generate!({ path: "../../wit/v0.2", world: "rubric", generate_all });

use checks::{holds, is_constraint};
use exports::gradus::rubric::judge::{Guest, Info, Item, ParseError, Prompt, Verdict};
use gradus::rubric::types::{Aggregation, Criterion, Example, Expectation, Field, Scale, Subject};

pub struct Verifier;

/// Each constraint and whether the response meets it.
fn verify(item: &Item) -> Result<Vec<(String, bool)>, String> {
    let [response] = item.candidates.as_slice() else {
        return Err(format!("one candidate is wanted, there are {}", item.candidates.len()));
    };
    let constraints = item.fields.iter().filter(|field| is_constraint(&field.name));
    let checked: Vec<(String, bool)> = constraints
        // A response without a word meets nothing, as in IFEval's program.
        .map(|Field { name, value }| {
            let met = holds(name, value, &item.task, response)? && !response.trim().is_empty();
            Ok((name.clone(), met))
        })
        .collect::<Result<_, String>>()?;
    match checked.is_empty() {
        true => Err("the prompt has no constraint (a field such as keywords:existence)".to_owned()),
        false => Ok(checked),
    }
}

fn example(name: &str, response: &str, expect: Expectation) -> Example {
    let fields =
        [("keywords:existence", "apple"), ("length_constraints:number_words", "less than 5")];
    Example {
        name: name.to_owned(),
        item: Item {
            task: "Name a fruit.".to_owned(),
            context: None,
            reference: None,
            candidates: vec![response.to_owned()],
            fields: fields
                .map(|(name, value)| Field { name: name.to_owned(), value: value.to_owned() })
                .to_vec(),
        },
        answer: String::new(),
        expect,
    }
}

impl Guest for Verifier {
    fn describe() -> Info {
        Info {
            name: "verifier".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            description: "Constraints that a program checks (IFEval's); no model is asked."
                .to_owned(),
            subject: Subject::Response,
            min_candidates: 1,
            max_candidates: 1,
            scale: Scale { min: 0.0, max: 1.0 },
            aggregation: Aggregation::Mean,
            order_sensitive: false,
        }
    }

    fn examples() -> Vec<Example> {
        let score = |score| Expectation::Scores(vec![score]);
        let mut answered = example("an answer is no response", "An apple.", Expectation::Rejected);
        answered.answer = "Score: 1".to_owned();
        vec![
            example("both", "An apple.", score(1.0)),
            example("one", "A pear.", score(0.5)),
            example("nothing at all", " ", score(0.0)),
            example("none", "A pear is what I would call a fruit.", score(0.0)),
            answered,
        ]
    }

    fn render(item: Item) -> Result<Prompt, String> {
        verify(&item)?;
        Ok(Prompt { messages: Vec::new(), max_tokens: 0, stop: Vec::new(), readout: None })
    }

    fn parse(item: Item, answer: String) -> Result<Verdict, ParseError> {
        if !answer.is_empty() {
            return Err(ParseError::Malformed("this rubric asks no model".to_owned()));
        }
        let checked = verify(&item).map_err(ParseError::Malformed)?;
        let met = checked.iter().filter(|(_, holds)| *holds).count();
        let score = met as f64 / checked.len() as f64;
        let missed: Vec<&str> =
            checked.iter().filter(|(_, holds)| !holds).map(|(name, _)| name.as_str()).collect();
        let rationale = match missed.is_empty() {
            true => format!("meets all {met} constraints"),
            false => format!("misses {}", missed.join(", ")),
        };
        let criteria = checked
            .into_iter()
            .map(|(name, holds)| Criterion { name, value: if holds { 1.0 } else { 0.0 } });
        Ok(Verdict {
            scores: vec![score],
            // Nobody wrote it: a program counted.
            places: Vec::new(),
            criteria: criteria.collect(),
            rationale,
        })
    }
}

// Native linkers take no `:` in a symbol's name, and `cargo test` links natively.
#[cfg(target_family = "wasm")]
export!(Verifier);
