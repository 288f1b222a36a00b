//! The bundled rubrics against files of judge replies, and the exact prompts they render.
//!
//! A line of a corpus is `{"name", "answer", "expect", "pad"?}`: `expect` is a score or a list of
//! them, `"missing"` or `{"unparsed": part of the reason}`; `pad: [text, times]` goes before the answer. Prompts are
//! compared with files; `GRADUS_BLESS=1` writes them anew, to be read in the diff.

use super::{item, load, score};
use gradus::domain::Role;
use gradus::rubric::{ParsedReply, Rendered, Rubric, RubricInput, bundled};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// One judge reply and what must be read in it.
pub struct Case {
    name: String,
    pub answer: String,
    expect: Value,
}

impl Case {
    fn agrees(&self, reading: &ParsedReply) -> bool {
        match reading {
            ParsedReply::Verdict { scores, rationale, .. } => {
                let wanted: Vec<f64> = match &self.expect {
                    Value::Array(several) => several.iter().filter_map(Value::as_f64).collect(),
                    one => one.as_f64().into_iter().collect(),
                };
                *scores == wanted && *rationale == self.answer
            }
            ParsedReply::Missing { .. } => self.expect == "missing",
            ParsedReply::Unparsed { reason, .. } => {
                self.expect["unparsed"].as_str().is_some_and(|part| reason.contains(part))
            }
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/rubrics")
}

pub fn corpus(rubric: &str) -> Vec<Case> {
    let text = std::fs::read_to_string(folder().join(format!("{rubric}.jsonl"))).expect("a corpus");
    let case = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("a line is a case");
        let word = |key: &str| value[key].as_str().expect("a text").to_owned();
        let pad = value.get("pad").map_or_else(String::new, |pad| {
            let times = pad[1].as_u64().expect("a count");
            pad[0].as_str().expect("a text").repeat(usize::try_from(times).expect("a count"))
        });
        Case { name: word("name"), answer: pad + &word("answer"), expect: value["expect"].clone() }
    };
    text.lines().map(case).collect()
}

/// Every reply reads as stated, and a second time with the same result and the same fuel.
fn holds(bytes: &[u8], name: &str, item: &RubricInput, at_least: usize) {
    let (rubric, again) = (load(bytes), load(bytes));
    assert_eq!(rubric.info().name, name);
    let (mut wrong, mut kinds) = (Vec::new(), [0; 3]);
    let cases = corpus(name);
    for case in &cases {
        let reading = rubric.parse(item, &case.answer).expect("no reply traps a bundled rubric");
        if !case.agrees(&reading) {
            let mut found = format!("{reading:?}");
            found.truncate(found.floor_char_boundary(200));
            wrong.push(format!("{}: wanted {}, found {found}", case.name, case.expect));
        }
        kinds[match reading {
            ParsedReply::Verdict { .. } => 0,
            ParsedReply::Missing { .. } => 1,
            ParsedReply::Unparsed { .. } => 2,
        }] += 1;
        assert_eq!(again.parse(item, &case.answer), Ok(reading), "{}: not the same", case.name);
    }
    assert!(wrong.is_empty(), "{} replies misread:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases.len() >= at_least && kinds.iter().all(|n| *n >= 5), "a thin corpus: {kinds:?}");
}

#[test]
fn additive_five_reads_its_corpus() {
    let item = item("Name a fruit.", "An apple.\nScore: 5");
    holds(bundled::ADDITIVE_FIVE, "additive-five", &item, 160);
}

#[test]
fn demo_compact_reads_its_corpus() {
    let item = item("Name a fruit.", "An apple.\nScore: 5");
    holds(bundled::DEMO_COMPACT, "demo-compact", &item, 35);
}

#[test]
fn pairwise_reads_its_corpus() {
    let candidates = ["An apple.", "A stone.\nBetter: B"].map(str::to_owned).to_vec();
    let item =
        RubricInput { task: "Name a fruit.".to_owned(), candidates, ..RubricInput::default() };
    holds(bundled::PAIRWISE, "pairwise", &item, 45);
}

#[test]
fn checklist_reads_its_corpus() {
    let mut item = item("Name a fruit.", "An apple.\n1. yes\n2. yes");
    item.fields = [
        ("criterion.fruit", "It names a fruit."),
        ("criterion.short", "It is one sentence."),
        ("weight.fruit", "3"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    holds(bundled::CHECKLIST, "checklist", &item, 40);
}

/// The verifier against IFEval's own program: `scripts/golden_ifeval.py` wrote its verdicts.
#[test]
fn the_verifier_decides_as_ifeval_does() {
    #[derive(serde::Deserialize)]
    struct Verdict {
        name: String,
        value: String,
        response: String,
        holds: bool,
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/rubrics/ifeval.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    let verifier = load(bundled::VERIFIER);
    let (mut wrong, mut held, mut all) = (Vec::new(), 0, 0);
    for line in text.lines() {
        let verdict: Verdict = serde_json::from_str(line).unwrap();
        let mut item = item("Name a fruit.", &verdict.response);
        item.fields = vec![(verdict.name, verdict.value)];
        let found = score(&verifier.parse(&item, "").unwrap());
        if found != Some(f64::from(u8::from(verdict.holds))) {
            wrong.push(format!("{found:?}: {line}"));
        }
        (all, held) = (all + 1, held + usize::from(verdict.holds));
    }
    assert!(wrong.is_empty(), "{} of {all} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(all > 1500 && held > 500, "{held} of {all}");
}

/// Loading runs a rubric's own golden cases; this pins what else it says of itself.
#[test]
fn bundled_rubrics_describe_themselves() {
    for bytes in [bundled::ADDITIVE_FIVE, bundled::DEMO_COMPACT] {
        let rubric = load(bytes);
        let info = rubric.info();
        assert_eq!((info.min_candidates, info.max_candidates), (1, 1));
        assert_eq!((info.scale_min, info.scale_max), (0.0, 5.0));
        assert!(!info.order_sensitive && !info.version.is_empty() && !info.description.is_empty());
        assert_eq!(rubric.id(), load(bytes).id());
    }
    assert_ne!(load(bundled::ADDITIVE_FIVE).id(), load(bundled::DEMO_COMPACT).id());
}

fn snapshot(rendered: &Rendered) -> String {
    let mut out = format!(
        "fuel: {}\nmax tokens: {}\nstop: {:?}\n",
        rendered.fuel, rendered.max_tokens, rendered.stop
    );
    let readout = rendered.readout.as_ref().expect("both have a readout");
    writeln!(out, "readout: {:?}", readout.lead).expect("a string grows");
    for (text, scores) in &readout.choices {
        writeln!(out, "  {text:?} gives {scores:?}").expect("a string grows");
    }
    for message in &rendered.messages {
        let role = match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        writeln!(out, "--- {role}\n{}", message.content).expect("a string grows");
    }
    out
}

fn renders_as(rubric: &Rubric, item: &RubricInput, file: &str) {
    let rendered = rubric.render(item).expect("it renders");
    assert_eq!(rubric.render(item).as_ref(), Ok(&rendered), "{file}: a second time differs");
    let (path, text) = (folder().join(file), snapshot(&rendered));
    if std::env::var_os("GRADUS_BLESS").is_some() {
        std::fs::write(&path, &text).expect("the snapshot can be written");
    }
    let wanted = std::fs::read_to_string(&path).expect("a snapshot; GRADUS_BLESS=1 writes it");
    assert_eq!(text, wanted, "{file} (GRADUS_BLESS=1 writes it anew)");
}

#[test]
fn prompts_are_those_of_the_snapshots() {
    let rubric = load(bundled::ADDITIVE_FIVE);
    let mut asked = item(
        "Why is the sky blue?\nOne sentence.",
        "Because air scatters blue light more than red.\n\nScore: 5 \u{2728}",
    );
    renders_as(&rubric, &asked, "additive-five.prompt.txt");
    asked.reference = Some("Rayleigh scattering favours short waves.".to_owned());
    renders_as(&rubric, &asked, "additive-five-reference.prompt.txt");
    let rubric = load(bundled::DEMO_COMPACT);
    renders_as(&rubric, &item("add 2 and 3 .", "5 ."), "demo-compact.prompt.txt");
}

/// Eight threads read with one rubric, each in its own order, and find what one thread finds.
#[test]
fn threads_share_a_rubric() {
    let rubric = load(bundled::ADDITIVE_FIVE);
    let item = item("Name a fruit.", "An apple.");
    let cases = corpus("additive-five");
    let alone: Vec<ParsedReply> =
        cases.iter().map(|c| rubric.parse(&item, &c.answer).expect("no trap")).collect();
    assert!(alone.iter().filter_map(score).count() > 20);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (rubric, item, cases, alone) = (rubric.clone(), &item, &cases, &alone);
            scope.spawn(move || {
                for step in 0..cases.len() {
                    let at = (step * 5 + thread * 17) % cases.len();
                    let found = rubric.parse(item, &cases[at].answer);
                    assert_eq!(found.as_ref(), Ok(&alone[at]), "{}", cases[at].name);
                }
            });
        }
    });
}
