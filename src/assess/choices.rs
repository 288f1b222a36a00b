//! MULTIPLE CHOICE by log-probability, as lm-eval does it: which of the answers a model finds likeliest,
//! by itself and for its length. Nothing is drawn. It shows what a loop unlearns.
//!
//! Questions in ARC's format are asked `Question: ...\nAnswer:` and continued with each choice's text;
//! such in MMLU's format show the choices with letters, and are continued with each letter.

use super::figures::{PairedDifference, estimate_within};
use super::records::SuiteRecords;
use super::{Assessor, SuiteRun};
use crate::domain::evaluation::Estimate;
use crate::domain::{Prompt, PromptOrigin};
use crate::error::{Code, Error};
use crate::lm::policy::LanguageModel;
use crate::runtime::PolicyRow;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub struct ChoiceQuestion {
    /// What the model reads.
    pub context: String,
    /// What may follow it, without the space between.
    pub choices: Vec<String>,
    /// Which of them is right, from 0.
    pub answer: usize,
}

/// What a model picks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChoicePick {
    /// Which question, from 0.
    pub question: usize,
    /// Log-probability of each choice, nats.
    pub logps: Vec<f64>,
    /// The likeliest.
    pub pick: usize,
    /// The likeliest for its length in characters.
    pub pick_by_length: usize,
    /// The right one.
    pub answer: usize,
}

/// What a policy came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChoiceFigures {
    /// Which policy.
    pub policy: String,
    /// Share of questions whose likeliest choice is right (lm-eval's `acc`).
    pub accuracy: Estimate,
    /// The same for the likeliest by its length (`acc_norm`).
    pub accuracy_by_length: Estimate,
}

/// Policies, measured on questions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChoiceSuite {
    /// Questions.
    pub questions: usize,
    /// Questions that equal, or nearly, something that the run was trained on.
    pub trained_on: usize,
    /// Each policy.
    pub policies: Vec<ChoiceFigures>,
    /// Each above the one before it, by length.
    pub differences: Vec<PairedDifference>,
    /// What each picked.
    pub picks: Vec<(String, Vec<ChoicePick>)>,
}

/// Reads questions, in ARC's format or in MMLU's, a JSON object on each line.
///
/// # Errors
/// With the line that is no question, and why.
pub fn read_questions(path: &Path) -> Result<Vec<ChoiceQuestion>, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, error))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(at, line): (usize, &str)| {
        let bad = |why: String| {
            Error::refused(Code::SuiteUnreadable, format!("{}:{}: {why}", path.display(), at + 1))
        };
        let value: Value =
            serde_json::from_str(line).map_err(|error| bad(format!("not valid JSON: {error}")))?;
        question(&value).map_err(bad)
    };
    let all: Vec<ChoiceQuestion> = lines.map(read).collect::<Result<_, _>>()?;
    match all.is_empty() {
        true => Err(Error::refused(
            Code::SuiteUnreadable,
            format!("{} holds no question", path.display()),
        )),
        false => Ok(all),
    }
}

fn texts(list: &Value) -> Option<Vec<String>> {
    let text = |value: &Value| Some(value.as_str()?.to_owned());
    list.as_array()?.iter().map(text).collect()
}

fn letter(at: usize) -> String {
    char::from(b'A' + (at % 26) as u8).to_string()
}

/// A question of one format or another.
fn question(value: &Value) -> Result<ChoiceQuestion, String> {
    let stem = value.get("question").ok_or("it has no question")?;
    let (asked, choices) = match stem.as_str() {
        Some(text) => (text, value.get("choices").ok_or("it has no choices")?),
        // ARC's own files have the choices inside.
        None => {
            let text = stem.get("stem").and_then(Value::as_str).ok_or("its question is no text")?;
            (text, stem.get("choices").ok_or("it has no choices")?)
        }
    };
    let asked = asked.trim();
    if let Some(texts) = texts(choices) {
        let lettered = (0..).zip(&texts).map(|(at, text)| format!("{}. {text}\n", letter(at)));
        let context = format!("{asked}\n{}Answer:", lettered.collect::<String>());
        let choices: Vec<String> = (0..texts.len()).map(letter).collect();
        let answer = answer_at(value.get("answer"), &choices)?;
        return Ok(ChoiceQuestion { context, choices, answer });
    }
    let (texts, labels) = labelled(choices).ok_or("its choices are neither texts nor labelled")?;
    let answer = answer_at(value.get("answerKey"), &labels)?;
    let context = format!("Question: {asked}\nAnswer:");
    Ok(ChoiceQuestion { context, choices: texts, answer })
}

/// `{"text": [...], "label": [...]}` or `[{"text", "label"}]`.
fn labelled(choices: &Value) -> Option<(Vec<String>, Vec<String>)> {
    if let (Some(text), Some(label)) = (choices.get("text"), choices.get("label")) {
        return Some((texts(text)?, texts(label)?));
    }
    let one = |choice: &Value| {
        let of = |key: &str| Some(choice.get(key)?.as_str()?.to_owned());
        Some((of("text")?, of("label")?))
    };
    let all: Vec<(String, String)> = choices.as_array()?.iter().map(one).collect::<Option<_>>()?;
    Some(all.into_iter().unzip())
}

/// Which choice is right: its number from 0, or its label.
fn answer_at(answer: Option<&Value>, labels: &[String]) -> Result<usize, String> {
    let answer = answer.ok_or("it does not say which choice is right (answer, or answerKey)")?;
    let found = match answer {
        Value::Number(number) => number.as_u64().map(|at| at as usize),
        Value::String(label) => labels.iter().position(|known| known == label),
        _ => None,
    };
    found.filter(|at| *at < labels.len()).ok_or_else(|| format!("there is no choice {answer}"))
}

/// The place of the greatest; of equal ones the first.
fn greatest(values: impl Iterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (at, value) in values.enumerate() {
        if value > best.1 {
            best = (at, value);
        }
    }
    best.0
}

fn pick(
    run: &SuiteRun<'_>,
    model: &dyn LanguageModel,
    (at, question): (usize, &ChoiceQuestion),
) -> Result<ChoicePick, Error> {
    let context = model.encode_text(&question.context).map_err(Error::Model)?;
    // Tokens of the whole, cut where the context ends: as lm-eval takes them.
    let rest = |choice: &String| {
        let whole = model.encode_text(&format!("{} {choice}", question.context))?;
        Ok(whole.get(context.len()..).unwrap_or_default().to_vec())
    };
    let rests = question.choices.iter().map(rest).collect::<Result<Vec<_>, _>>();
    let rests = rests.map_err(Error::Model)?;
    let found = model.choice_logps(&[context], &rests, run.cancel).map_err(Error::Model)?;
    let lost = || Error::refused(Code::Defect, "the model scored no choice of a question");
    let logps = found.into_iter().next().ok_or_else(lost)?;
    let lengths = question.choices.iter().map(|choice| choice.chars().count().max(1) as f64);
    let by_length = greatest(logps.iter().zip(lengths).map(|(logp, length)| logp / length));
    let pick = greatest(logps.iter().copied());
    Ok(ChoicePick { question: at, logps, pick, pick_by_length: by_length, answer: question.answer })
}

/// Questions that are kept together.
const TOGETHER: usize = 16;

impl Assessor {
    /// Has policies pick among the answers to questions. What is found is kept in the run's folder.
    ///
    /// # Errors
    /// When a policy cannot be opened.
    pub fn choose(
        &self,
        policies: &[PolicyRow],
        questions: &[ChoiceQuestion],
    ) -> Result<ChoiceSuite, Error> {
        let run = self.suite_run();
        let identity = blake3::hash(format!("{questions:?}").as_bytes());
        let mut picks = Vec::new();
        for policy in policies {
            let mut records = SuiteRecords::open(run.folder, ("choices", &identity), policy)?;
            let mut rows: Vec<ChoicePick> = records.rows()?;
            let done = rows.len();
            let all: Vec<(usize, &ChoiceQuestion)> =
                questions.iter().enumerate().skip(done).collect();
            if !all.is_empty() {
                let model = run.model(policy)?;
                for chunk in all.chunks(TOGETHER) {
                    let some = chunk.iter().map(|one| pick(&run, model.as_ref(), *one));
                    let some = some.collect::<Result<Vec<_>, _>>()?;
                    records.add(&some)?;
                    rows.extend(some);
                    run.gauge.progress("suite", rows.len() as u64, questions.len() as u64);
                }
            }
            picks.push((policy.name.clone(), rows));
        }
        let asked: Vec<Prompt> = questions
            .iter()
            .map(|one| Prompt::user(one.context.clone(), PromptOrigin::HeldOut))
            .collect();
        Ok(summed((questions.len(), run.trained_on(&asked)?), picks))
    }
}

fn right(rows: &[ChoicePick], picked: fn(&ChoicePick) -> usize) -> Vec<f64> {
    rows.iter().map(|row| f64::from(u8::from(picked(row) == row.answer))).collect()
}

fn summed(
    (questions, trained_on): (usize, usize),
    picks: Vec<(String, Vec<ChoicePick>)>,
) -> ChoiceSuite {
    let by_length: Vec<Vec<f64>> =
        picks.iter().map(|(_, rows)| right(rows, |row| row.pick_by_length)).collect();
    let policies = picks.iter().zip(&by_length).map(|((name, rows), by_length)| ChoiceFigures {
        policy: name.clone(),
        accuracy: estimate_within(&right(rows, |row| row.pick), (0.0, 1.0)),
        accuracy_by_length: estimate_within(by_length, (0.0, 1.0)),
    });
    let policies = policies.collect();
    let pairs = picks.windows(2).zip(by_length.windows(2));
    let differences = pairs.filter_map(|(names, values)| match (names, values) {
        ([(theirs, _), (ours, _)], [before, after]) => {
            let both: Vec<(f64, f64)> = after.iter().copied().zip(before.iter().copied()).collect();
            Some(PairedDifference::of((ours, theirs), &both))
        }
        _ => None,
    });
    let differences = differences.collect();
    ChoiceSuite { questions, trained_on, policies, differences, picks }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_in_both_formats() {
        let arc = r#"{"question": "Which is hot?", "choices": {"text": ["ice", "fire"], "label": ["A", "B"]}, "answerKey": "B"}"#;
        let own = r#"{"question": {"stem": "Which is hot?", "choices": [{"text": "ice", "label": "1"}, {"text": "fire", "label": "2"}]}, "answerKey": "2"}"#;
        for row in [arc, own] {
            let found = question(&serde_json::from_str(row).unwrap()).unwrap();
            assert_eq!(found.context, "Question: Which is hot?\nAnswer:");
            assert_eq!(
                (found.choices, found.answer),
                (vec!["ice".to_owned(), "fire".to_owned()], 1)
            );
        }
        let mmlu = r#"{"question": "Which is hot?", "choices": ["ice", "fire"], "answer": 1}"#;
        let found = question(&serde_json::from_str(mmlu).unwrap()).unwrap();
        assert_eq!(found.context, "Which is hot?\nA. ice\nB. fire\nAnswer:");
        assert_eq!((found.choices, found.answer), (vec!["A".to_owned(), "B".to_owned()], 1));
        for wrong in [
            r#"{"question": "a"}"#,
            r#"{"question": "a", "choices": ["b"], "answer": 1}"#,
            r#"{"question": "a", "choices": {"text": ["b"], "label": ["A"]}, "answerKey": "C"}"#,
            r#"{"choices": ["b"], "answer": 0}"#,
        ] {
            assert!(question(&serde_json::from_str(wrong).unwrap()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_likeliest_of_equal_ones_is_the_first() {
        assert_eq!(greatest([-2.0, -1.0, -1.0].into_iter()), 1);
        assert_eq!(greatest(std::iter::empty()), 0);
    }
}
