//! A rubric that misbehaves on request, for the sandbox's tests. What it is asked to do is the
//! item's task (for `render`) or the judge's answer (for `parse`).

wit_bindgen::generate!({ path: "../../wit/v0.1", world: "rubric", generate_all });

use exports::gradus::rubric::judge::{Guest, Info, Item, ParseError, Prompt, Verdict};
use gradus::rubric::log;
use gradus::rubric::types::{
    Aggregation, Choice, Example, Expectation, Message, Readout, Role, Scale, Subject,
};
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};

struct Hostile;

/// Lives as long as the instance: shows whether calls share one.
static CALLS: AtomicU32 = AtomicU32::new(0);

fn deep(n: u64) -> u64 {
    let room = black_box([n; 64]);
    if black_box(true) { deep(n + 1) + room[3] } else { n }
}

fn misbehave(what: &str) {
    match what {
        "loop" => loop {
            black_box(0);
        },
        "grow" => {
            let mut held = Vec::new();
            loop {
                held.push(vec![1u8; 1 << 20]);
                black_box(&held);
            }
        }
        "trap" => panic!("asked to"),
        "deep" => {
            black_box(deep(0));
        }
        "log flood" => (0..1000).for_each(|_| log::write(log::Level::Info, "again")),
        _ => {}
    }
}

fn example(name: &str, answer: &str, expect: Expectation) -> Example {
    let item = Item {
        task: "behave".to_owned(),
        context: None,
        reference: None,
        candidates: vec!["x".to_owned()],
        fields: Vec::new(),
    };
    Example { name: name.to_owned(), item, answer: answer.to_owned(), expect }
}

impl Guest for Hostile {
    fn describe() -> Info {
        Info {
            name: "hostile".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            description: "Misbehaves on request.".to_owned(),
            subject: Subject::Response,
            min_candidates: 1,
            max_candidates: 1,
            scale: Scale { min: 0.0, max: 5.0 },
            aggregation: Aggregation::Mean,
            order_sensitive: false,
        }
    }

    fn examples() -> Vec<Example> {
        vec![
            example("good", "3", Expectation::Scores(vec![3.0])),
            example("bad", "none", Expectation::Rejected),
        ]
    }

    fn render(item: Item) -> Result<Prompt, String> {
        misbehave(&item.task);
        let content = match item.task.as_str() {
            "refuse" => return Err("not this one".to_owned()),
            "huge" => "x".repeat(32 << 20),
            _ => item.task.clone(),
        };
        let choice = |text: &str, score| Choice { text: text.to_owned(), scores: vec![score] };
        let readout = match item.task.as_str() {
            "choice outside" => Some(vec![choice("a", 0.0), choice("b", 9.0)]),
            "same choices" => Some(vec![choice("a", 0.0), choice("a", 1.0)]),
            _ => None,
        };
        let message = Message { role: Role::User, content };
        Ok(Prompt {
            messages: if item.task == "no messages" { Vec::new() } else { vec![message] },
            max_tokens: if item.task == "no tokens" { 0 } else { 16 },
            stop: Vec::new(),
            readout: readout.map(|choices| Readout { lead: "score:".to_owned(), choices }),
        })
    }

    fn parse(_item: Item, answer: String) -> Result<Verdict, ParseError> {
        misbehave(&answer);
        let calls = f64::from(CALLS.fetch_add(1, Ordering::Relaxed) + 1);
        let scores = match answer.as_str() {
            "outside" => vec![99.0],
            "nan" => vec![f64::NAN],
            "two" => vec![1.0, 2.0],
            "calls" => vec![calls],
            other => match other.parse() {
                Ok(score) => vec![score],
                Err(_) => return Err(ParseError::Missing),
            },
        };
        Ok(Verdict { scores, criteria: Vec::new(), rationale: String::new() })
    }
}

export!(Hostile);
