//! Scores from probabilities, held to transformers on four kinds of tokenizer
//! (`tests/golden/scripts/make_readout_goldens.py`).

use super::*;
use crate::domain::{Message, Outcome};
use crate::engine::tokens::TokenChat;
use crate::lm::fork::continuation;
use crate::lm::model_files::ModelFiles;
use crate::lm::policy::{Policy, Vocabulary};
use crate::lm::template::GenerationPrompt;
use serde::Deserialize;
use std::path::Path;
use std::sync::Arc;

#[derive(Deserialize)]
struct Cases {
    question: String,
    prompt: Vec<u32>,
    replies: Vec<ReadoutCase>,
}

#[derive(Deserialize)]
struct ReadoutCase {
    text: String,
    ids: Vec<u32>,
    choices: Vec<(String, Vec<f64>)>,
    places: Vec<TokenSpan>,
    scores: Vec<f64>,
    mass: f64,
    entropy: f64,
}

#[derive(Deserialize)]
struct TokenSpan {
    start: usize,
    end: usize,
    weight: f64,
}

fn reply_of(case: &ReadoutCase) -> JudgeReply {
    JudgeReply {
        text: case.text.clone(),
        ..JudgeReply::without_text(&[0], Outcome::Scored { score: 0.0, parsed: Some(0.0) })
    }
}

/// A question that is known as ids.
fn question(prompt: &[u32]) -> Arc<Prepared> {
    Arc::new(Prepared { ids: prompt.to_vec(), ..Prepared::default() })
}

fn read(policy: &Arc<Policy>, prompt: &[u32], ids: &[u32], case: &ReadoutCase) -> JudgeReply {
    let place = |span: &TokenSpan| {
        let TokenSpan { start, end, weight } = *span;
        ScorePlace { start, end, weight, choices: case.choices.clone() }
    };
    let places: Vec<ScorePlace> = case.places.iter().map(place).collect();
    let prompt = question(prompt);
    let reply = JudgeText { question: &prompt, ids, text: &case.text };
    let pending = at_places(reply, &places).expect("it has places");
    let mut replies = vec![vec![reply_of(case)]];
    let model = TokenChat::over(policy.clone());
    apply(model.as_ref(), vec![pending], &mut replies, &Cancel::default()).unwrap();
    replies.remove(0).remove(0)
}

fn kind(name: &str) -> (Arc<Policy>, Cases) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/readout").join(name);
    let files = Arc::new(ModelFiles::open(&folder).unwrap());
    let weights = files.weights().unwrap();
    let cases = std::fs::read_to_string(folder.join("cases.json")).unwrap();
    (Arc::new(Policy::new(files, weights, None).unwrap()), serde_json::from_str(&cases).unwrap())
}

#[test]
fn scores_and_masses_are_those_of_transformers_at_the_right_token() {
    for name in ["smollm2", "llama3", "qwen2", "sentencepiece"] {
        let (policy, cases) = kind(name);
        let asked = policy.encode_chat(&[Message::user(cases.question.as_str())]).unwrap();
        assert_eq!(asked, cases.prompt, "{name}: the question");
        assert_eq!(cases.replies.len(), 20);
        for case in &cases.replies {
            let reply = read(&policy, &cases.prompt, &case.ids, case);
            let facts = reply.readout.unwrap();
            let what = format!("{name} {:?}: {:?} {facts:?}", case.text, reply.scores);
            for (ours, theirs) in reply.scores.iter().zip(&case.scores) {
                assert!((ours - theirs).abs() < 1e-3, "{what}, not {:?}", case.scores);
            }
            assert!((facts.mass - case.mass).abs() < 1e-3 * case.mass, "{what}, not {}", case.mass);
            assert!((facts.entropy - case.entropy).abs() < 1e-3, "{what}");
        }
    }
}

/// A reply of which only the text is known is read where its own tokenization has the place.
#[test]
fn a_reply_known_as_text_is_read_at_the_same_place() {
    for name in ["smollm2", "llama3", "qwen2", "sentencepiece"] {
        let (policy, cases) = kind(name);
        let drawn_apart =
            |case: &ReadoutCase| case.ids.len() > 2 * case.text.split(' ').count() + 8;
        for case in cases.replies.iter().filter(|case| !drawn_apart(case)) {
            let drawn = read(&policy, &cases.prompt, &case.ids, case);
            let known = read(&policy, &cases.prompt, &[], case);
            for (a, b) in drawn.scores.iter().zip(&known.scores) {
                assert!((a - b).abs() < 1e-6, "{name} {:?}: {a} and {b}", case.text);
            }
        }
    }
}

/// What is forced begins on a line of its own, after all that was said.
#[test]
fn a_forced_reading_goes_on_where_the_reply_ended() {
    let (policy, cases) = kind("smollm2");
    let case = ReadoutCase {
        text: "It is clear.\nScore: 4".to_owned(),
        ids: Vec::new(),
        choices: cases.replies[0].choices.clone(),
        places: vec![TokenSpan { start: 20, end: 21, weight: 1.0 }],
        scores: Vec::new(),
        mass: 0.0,
        entropy: 0.0,
    };
    let written = read(&policy, &cases.prompt, &[], &case);
    let ids = policy.encode_text("It is clear.").unwrap();
    let prompt = question(&cases.prompt);
    let reply = JudgeText { question: &prompt, ids: &ids, text: "It is clear." };
    let choices = case.choices.iter().map(|(text, s)| (format!(" {text}"), s.clone())).collect();
    let readout = Readout { lead: "Score:".to_owned(), choices };
    let pending = forced(reply, &readout);
    let mut replies = vec![vec![reply_of(&case)]];
    let model = TokenChat::over(policy.clone());
    apply(model.as_ref(), vec![pending], &mut replies, &Cancel::default()).unwrap();
    let reply = &replies[0][0];
    assert!(reply.readout.unwrap().forced);
    assert!((reply.scores[0] - written.scores[0]).abs() < 1e-6, "{reply:?} {written:?}");
}

/// Case D6: an answer that is only known as text is spelled as it would be sampled, together with
/// what stands before it; a SentencePiece tokenizer marks the beginning of a text that it is given
/// alone (`▁Hi` after a line feed).
#[test]
fn an_answer_is_spelled_as_it_would_be_sampled() {
    let mut apart = 0;
    for name in ["smollm2", "llama3", "qwen2", "sentencepiece"] {
        let (policy, _) = kind(name);
        for text in ["Hi", "Hi there.", " Hi", "Score: 4", "4", "\u{e9}t\u{e9} 2"] {
            let asked = [Message::user("Say it.")];
            let prompt = policy.encode_chat(&asked).unwrap();
            let template = policy.files().template();
            let rendered = template.render(&asked, GenerationPrompt::Open).unwrap();
            let whole = policy.encode_template(&format!("{rendered}{text}")).unwrap();
            assert!(whole.starts_with(&prompt), "{name} {text:?}");
            let ours = continuation(policy.as_ref() as &dyn Vocabulary, &prompt, text).unwrap();
            assert_eq!(ours, whole[prompt.len()..], "{name} {text:?}");
            apart += u32::from(policy.encode_text(text).unwrap() != ours);
        }
    }
    assert!(apart > 0, "spelled alone, no answer would be another");
}
