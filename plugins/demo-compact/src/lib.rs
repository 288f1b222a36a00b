//! The demo world's rubric: the same five additive points in the few words its tiny model knows.
//!
//! The judge walks over the answer, says yes or no to each point, and ends with `score : N`. A
//! score that is not the number of its yes is no score: the reply contradicts itself.

wit_bindgen::generate!({ path: "../../wit/v0.2", world: "rubric", generate_all });

use exports::gradus::rubric::judge::{Guest, Info, Item, ParseError, Prompt, Verdict};
use gradus::rubric::types::{
    Aggregation, Choice, Criterion, Example, Expectation, Message, Place, Readout, Role, Scale,
    Subject,
};

const POINTS: [&str; 5] = ["relevant", "useful", "complete", "correct", "clean"];

pub struct DemoCompact;

/// Yes or no after the last mention of a point.
fn point(words: &[&str], name: &str) -> Option<bool> {
    let at = words.iter().rposition(|word| *word == name)?;
    match words.get(at + 1) {
        Some(&"yes") => Some(true),
        Some(&"no") => Some(false),
        _ => None,
    }
}

/// What the score can be written as, and what each gives.
fn choices() -> Vec<Choice> {
    let choice = |score: u32| Choice { text: score.to_string(), scores: vec![f64::from(score)] };
    (0..=5).map(choice).collect()
}

/// Where the score is written; `1.0` is one, too, but none of the choices.
fn place(answer: &str, written: &str) -> Option<Place> {
    let start = (written.as_ptr() as usize).checked_sub(answer.as_ptr() as usize)?;
    let (start, end) = (u32::try_from(start).ok()?, u32::try_from(start + written.len()).ok()?);
    let choices = choices();
    let is_choice = choices.iter().any(|choice| choice.text == written);
    is_choice.then_some(Place { start, end, weight: 1.0, choices })
}

fn example(name: &str, answer: &str, expect: Expectation) -> Example {
    Example {
        name: name.to_owned(),
        item: Item {
            task: "add 2 and 3 .".to_owned(),
            context: None,
            reference: None,
            candidates: vec!["5 .".to_owned()],
            fields: Vec::new(),
        },
        answer: answer.to_owned(),
        expect,
    }
}

impl Guest for DemoCompact {
    fn describe() -> Info {
        Info {
            name: "demo-compact".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            description: "Five yes-or-no points in the words of the demo world.".to_owned(),
            subject: Subject::Response,
            min_candidates: 1,
            max_candidates: 1,
            scale: Scale { min: 0.0, max: 5.0 },
            aggregation: Aggregation::Mean,
            order_sensitive: false,
        }
    }

    fn examples() -> Vec<Example> {
        let all = "5 5 ok . 1 of 1 right , 0 wrong , form ok . relevant yes useful yes complete yes \
                   correct yes clean yes . score : 5";
        let none = "relevant no useful no complete no correct no clean no . score : 0";
        let wrong = "relevant yes useful no complete no correct no clean no . score : 4";
        vec![
            example("all points", all, Expectation::Scores(vec![5.0])),
            example("no points", none, Expectation::Scores(vec![0.0])),
            example("a score that contradicts its points", wrong, Expectation::Rejected),
            example("no score", "5 5 ok . 1 of 1 right", Expectation::Rejected),
            example("a score that is not last", "score : 3 . ok", Expectation::Rejected),
        ]
    }

    fn render(item: Item) -> Result<Prompt, String> {
        let [answer] = item.candidates.as_slice() else {
            return Err(format!("one candidate is wanted, there are {}", item.candidates.len()));
        };
        let content = format!(
            "give points for relevant , useful , complete , correct , clean . check : {} answer : \
             {answer}",
            item.task
        );
        Ok(Prompt {
            messages: vec![Message { role: Role::User, content }],
            max_tokens: 96,
            stop: Vec::new(),
            readout: Some(Readout { lead: "score :".to_owned(), choices: choices() }),
        })
    }

    fn parse(_item: Item, answer: String) -> Result<Verdict, ParseError> {
        let words: Vec<&str> = answer.split_whitespace().collect();
        let [.., "score", ":", digit] = words.as_slice() else {
            return Err(ParseError::Missing);
        };
        let score: f64 = digit.parse().map_err(|_| ParseError::Missing)?;
        if !(0.0..=5.0).contains(&score) {
            return Err(ParseError::OutOfRange(score));
        }
        let mut criteria = Vec::new();
        for name in POINTS {
            let Some(yes) = point(&words, name) else {
                return Err(ParseError::Malformed(format!("{name} has neither yes nor no")));
            };
            let value = if yes { 1.0 } else { 0.0 };
            criteria.push(Criterion { name: name.to_owned(), value });
        }
        let sum: f64 = criteria.iter().map(|c| c.value).sum();
        if sum != score {
            let found = vec![format!("{sum} points"), format!("score {score}")];
            return Err(ParseError::Ambiguous(found));
        }
        let places = place(&answer, digit).into_iter().collect();
        Ok(Verdict { scores: vec![score], places, criteria, rationale: answer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digit_is_a_place() {
        let points = "relevant yes useful no complete no correct no clean no . score :";
        for (end, wanted) in [(" 1", Some((65, 66))), ("  1 \n", Some((66, 67))), (" 1.0", None)] {
            let answer = format!("{points}{end}");
            let item = example("", "", Expectation::Rejected).item;
            let verdict = DemoCompact::parse(item, answer.clone()).unwrap();
            assert_eq!(verdict.scores, [1.0]);
            let found = verdict.places.first().map(|place| (place.start, place.end));
            assert_eq!(found, wanted, "{answer:?}");
        }
    }
}

// Native linkers take no `:` in a symbol's name, and `cargo test` links natively.
#[cfg(target_family = "wasm")]
export!(DemoCompact);
