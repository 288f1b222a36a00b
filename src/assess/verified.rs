//! THE VERIFIER'S SUITE: a program checks what policies answer to prompts with constraints, IFEval's 541
//! among them. No judge takes part. Beside it stands whether the answers still read like a model's.
//!
//! Strict and loose as IFEval has them (arXiv 2311.07911, section 2.2): loosely, a constraint is met where
//! it is by the answer without its first line, its last one, both, or its stars.

use super::figures::{PairedDifference, estimate_within};
use super::prose::{nats, repetition};
use super::records::SuiteRecords;
use super::{Assessor, SuiteRun};
use crate::domain::evaluation::Estimate;
use crate::domain::{Prompt, PromptId, Seed, StopReason};
use crate::error::{Code, Error};
use crate::lm::generate::{DrawRequest, Sampling};
use crate::lm::policy::LanguageModel;
use crate::rubric::{ParsedReply, Rubric, RubricInput};
use crate::runtime::PolicyRow;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Prompts that are answered together, and kept together.
const TOGETHER: usize = 16;

/// How a suite's answers are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SuiteSampling {
    /// Answers to each prompt.
    pub samples: u32,
    /// 0 takes the likeliest token.
    pub temperature: f64,
    /// Nucleus.
    pub top_p: f64,
    /// Bound on an answer, tokens.
    pub max_new_tokens: u32,
    /// The same seed gives the same answers.
    pub seed: u64,
}

/// An answer and what the program says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerifiedAnswer {
    /// Which prompt.
    pub prompt: PromptId,
    /// Its place among those of the suite, from 0.
    pub place: u32,
    /// Which of the answers to it.
    pub sample: u32,
    /// The answer.
    pub text: String,
    /// Its tokens.
    pub tokens: u32,
    /// Whether it ended by itself.
    pub ended: bool,
    /// Each constraint, and whether it is met.
    pub strict: BTreeMap<String, bool>,
    /// The same, loosely.
    pub loose: BTreeMap<String, bool>,
    /// Its log-probability under the run's base, nats.
    pub base_logp: f64,
    /// Tokens that this is over.
    pub base_tokens: u32,
}

/// A kind of constraint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct KindFigure {
    /// Share of the answers that meet it.
    pub met: f64,
    /// Answers.
    pub n: usize,
}

/// What a policy came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerifiedFigures {
    /// Which policy.
    pub policy: String,
    /// Share of a prompt's constraints that an answer meets, averaged over prompts.
    pub met: Estimate,
    /// Share of answers that meet all of their constraints, by prompt.
    pub prompt_strict: Estimate,
    /// The same, loosely.
    pub prompt_loose: Estimate,
    /// Share of all constraints that are met.
    pub instruction_strict: f64,
    /// The same, loosely.
    pub instruction_loose: f64,
    /// Mean tokens of an answer.
    pub tokens: f64,
    /// Share of answers that ended by themselves.
    pub ended: f64,
    /// Share of four-word sequences that an answer had before.
    pub repetition: f64,
    /// Mean log-probability of a token of the answers under the base, nats.
    pub base_nats: f64,
    /// By kind of constraint.
    pub kinds: BTreeMap<String, KindFigure>,
    /// Share met by length of answer, tokens: under 20, under 40, under 80, more.
    pub by_length: Vec<(String, KindFigure)>,
}

/// Policies, measured by the verifier.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerifiedSuite {
    /// How answers were drawn.
    pub sampling: SuiteSampling,
    /// Prompts.
    pub prompts: usize,
    /// Prompts that were left out, for they bring no constraint or one that the verifier does not read.
    pub left_out: usize,
    /// Prompts that equal, or nearly, something that the run was trained on.
    pub trained_on: usize,
    /// Each policy, in the order asked for.
    pub policies: Vec<VerifiedFigures>,
    /// Each above the first, and above the one before it.
    pub differences: Vec<PairedDifference>,
}

/// What the program says of a response; `None`: the prompt brings nothing that it reads.
fn verified(
    verifier: &Rubric,
    prompt: &Prompt,
    response: &str,
) -> Result<Option<BTreeMap<String, bool>>, Error> {
    let read = verifier.parse(&RubricInput::of(prompt, vec![response.to_owned()]), "").map_err(
        |error| Error::refused(error.code(), format!("the verifier, of {}: {error}", prompt.id)),
    )?;
    Ok(match read {
        ParsedReply::Verdict { criteria, .. } if !criteria.is_empty() => {
            Some(criteria.into_iter().map(|(name, value)| (name, value >= 1.0)).collect())
        }
        _ => None,
    })
}

/// The answer without its first line, its last one, both; and each without stars.
fn loosened(response: &str) -> Vec<String> {
    let lines: Vec<&str> = response.split('\n').collect();
    let some = |from: usize, left: usize| {
        let to = lines.len().saturating_sub(left).max(from.min(lines.len()));
        lines.get(from.min(lines.len())..to).unwrap_or_default().join("\n").trim().to_owned()
    };
    let whole = [response.to_owned(), some(1, 0), some(0, 1), some(1, 1)];
    let bare = whole.each_ref().map(|text| text.replace('*', ""));
    whole.into_iter().chain(bare).collect()
}

/// Each constraint met by one or another of the responses.
fn loosely(
    verifier: &Rubric,
    prompt: &Prompt,
    response: &str,
    strict: &BTreeMap<String, bool>,
) -> Result<BTreeMap<String, bool>, Error> {
    let mut loose = strict.clone();
    for other in loosened(response).iter().skip(1) {
        if loose.values().all(|met| *met) {
            break;
        }
        if let Some(found) = verified(verifier, prompt, other)? {
            for (name, met) in found {
                loose.entry(name).and_modify(|known| *known |= met);
            }
        }
    }
    Ok(loose)
}

/// Rows of the prompts whose every answer is there: one that was stopped in their midst is asked again.
fn whole(rows: Vec<VerifiedAnswer>, samples: u32) -> Vec<VerifiedAnswer> {
    let mut all: BTreeMap<(PromptId, u32), VerifiedAnswer> = BTreeMap::new();
    let mut count: HashMap<PromptId, u32> = HashMap::new();
    for row in rows {
        let (prompt, key) = (row.prompt.clone(), (row.prompt.clone(), row.sample));
        if all.insert(key, row).is_none() {
            *count.entry(prompt).or_default() += 1;
        }
    }
    all.into_values().filter(|row| count.get(&row.prompt) == Some(&samples)).collect()
}

/// What measuring needs.
struct Measure<'a> {
    run: &'a SuiteRun<'a>,
    verifier: Rubric,
    base: Arc<dyn LanguageModel>,
    sampling: SuiteSampling,
}

impl Measure<'_> {
    fn drawn(
        &self,
        model: &dyn LanguageModel,
        chunk: &[&(u32, Prompt)],
    ) -> Result<Vec<VerifiedAnswer>, Error> {
        let root = Seed::root(self.sampling.seed).derive("suite");
        let request = |(_, prompt): &&(u32, Prompt)| {
            let seed = root.derive(prompt.id.as_str());
            Ok(DrawRequest {
                prompt: model.encode_chat(&prompt.messages)?,
                seeds: (0..u64::from(self.sampling.samples)).map(|n| seed.index(n)).collect(),
                sampling: Sampling {
                    temperature: self.sampling.temperature as f32,
                    top_p: self.sampling.top_p as f32,
                    top_k: None,
                    min_p: None,
                    repetition_penalty: 1.0,
                    max_new_tokens: self.sampling.max_new_tokens as usize,
                    stop_ids: model.stop_ids().to_vec(),
                },
            })
        };
        let requests = chunk.iter().map(request).collect::<Result<Vec<_>, _>>();
        let requests = requests.map_err(Error::Model)?;
        let drawn = model.draw(&requests, self.run.cancel).map_err(Error::Model)?;
        let mut rows = Vec::new();
        for ((place, prompt), answers) in chunk.iter().zip(drawn) {
            let texts: Vec<&str> = answers.iter().map(|answer| answer.text.as_str()).collect();
            let prose = nats(self.base.as_ref(), prompt, &texts, self.run.cancel)?;
            for (sample, (answer, (base_logp, base_tokens))) in (0..).zip(answers.iter().zip(prose))
            {
                let strict = verified(&self.verifier, prompt, &answer.text)?.ok_or_else(|| {
                    let why = format!("the verifier says nothing of an answer to {}", prompt.id);
                    Error::refused(Code::Defect, why)
                })?;
                rows.push(VerifiedAnswer {
                    prompt: prompt.id.clone(),
                    place: *place,
                    sample,
                    tokens: answer.token_ids.len() as u32,
                    ended: answer.stop != StopReason::Length,
                    loose: loosely(&self.verifier, prompt, &answer.text, &strict)?,
                    strict,
                    text: answer.text.clone(),
                    base_logp,
                    base_tokens,
                });
            }
        }
        Ok(rows)
    }

    /// The rows of a policy: those that are there, and the rest.
    fn rows(
        &self,
        policy: &PolicyRow,
        prompts: &[(u32, Prompt)],
        mut records: SuiteRecords,
    ) -> Result<Vec<VerifiedAnswer>, Error> {
        let mut rows = whole(records.rows()?, self.sampling.samples);
        let known: HashSet<PromptId> = rows.iter().map(|row| row.prompt.clone()).collect();
        let missing: Vec<&(u32, Prompt)> =
            prompts.iter().filter(|(_, prompt)| !known.contains(&prompt.id)).collect();
        if !missing.is_empty() {
            let model = self.run.model(policy)?;
            for chunk in missing.chunks(TOGETHER) {
                let drawn = self.drawn(model.as_ref(), chunk)?;
                records.add(&drawn)?;
                rows.extend(drawn);
                let done = rows.len() / self.sampling.samples.max(1) as usize;
                self.run.gauge.progress("suite", done as u64, prompts.len() as u64);
            }
        }
        Ok(rows)
    }
}

impl Assessor {
    /// Has policies answer prompts, and a program check what they say. What is found is kept in the run's
    /// folder: a policy that was measured before is not asked again.
    ///
    /// # Errors
    /// When no prompt has constraints, or a policy cannot be opened.
    pub fn verify(
        &self,
        name: &str,
        policies: &[PolicyRow],
        prompts: Vec<Prompt>,
        sampling: SuiteSampling,
    ) -> Result<VerifiedSuite, Error> {
        let run = self.suite_run();
        let verifier = run.verifier()?;
        let all = prompts.len();
        let usable =
            |(_, prompt): &(u32, Prompt)| matches!(verified(&verifier, prompt, "a"), Ok(Some(_)));
        let prompts: Vec<(u32, Prompt)> = (0..).zip(prompts).filter(usable).collect();
        if prompts.is_empty() {
            return Err(Error::refused(
                Code::SuiteUnreadable,
                "no prompt brings a constraint that the verifier reads (docs/rubrics.md): fields \
                 such as punctuation:no_comma, or IFEval's own rows",
            ));
        }
        let identity = identity(&verifier, &prompts, sampling);
        let base = run.model(&self.policy("base")?)?;
        let measure = Measure { run: &run, verifier, base, sampling };
        let mut found: Vec<(String, Vec<VerifiedAnswer>)> = Vec::new();
        for policy in policies {
            let records = SuiteRecords::open(run.folder, (name, &identity), policy)?;
            found.push((policy.name.clone(), measure.rows(policy, &prompts, records)?));
        }
        Ok(VerifiedSuite {
            sampling,
            prompts: prompts.len(),
            left_out: all - prompts.len(),
            trained_on: run.trained_on(prompts.iter().map(|(_, prompt)| prompt))?,
            policies: found.iter().map(|(name, rows)| figures(name, &prompts, rows)).collect(),
            differences: differences(&found, &prompts),
        })
    }
}

/// Everything that rows depend on beside the policy.
fn identity(verifier: &Rubric, prompts: &[(u32, Prompt)], sampling: SuiteSampling) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_derive_key("gradus suite v1");
    hasher.update(verifier.id().as_str().as_bytes());
    hasher.update(format!("{sampling:?}").as_bytes());
    for (place, prompt) in prompts {
        hasher.update(&place.to_le_bytes());
        hasher.update(prompt.id.as_str().as_bytes());
        for (name, value) in &prompt.notes.fields {
            hasher.update(name.as_bytes()).update(b"\0").update(value.as_bytes()).update(b"\0");
        }
    }
    hasher.finalize()
}

fn share(met: &BTreeMap<String, bool>) -> f64 {
    met.values().filter(|met| **met).count() as f64 / met.len().max(1) as f64
}

fn all_met(met: &BTreeMap<String, bool>) -> f64 {
    f64::from(u8::from(met.values().all(|met| *met)))
}

/// A value of every prompt: the mean over its answers.
fn by_prompt(
    prompts: &[(u32, Prompt)],
    rows: &[VerifiedAnswer],
    value: impl Fn(&VerifiedAnswer) -> f64,
) -> Vec<f64> {
    let mut sums: HashMap<&PromptId, (f64, f64)> = HashMap::new();
    for row in rows {
        let (sum, n) = sums.entry(&row.prompt).or_default();
        (*sum, *n) = (*sum + value(row), *n + 1.0);
    }
    let of = |(_, prompt): &(u32, Prompt)| sums.get(&prompt.id).map(|(sum, n)| sum / n);
    prompts.iter().filter_map(of).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0.0), |(sum, n), value| (sum + value, n + 1.0));
    if n > 0.0 { sum / n } else { 0.0 }
}

/// The kind of a constraint: of two of a kind the second has a number.
fn kind(name: &str) -> &str {
    name.split_once('#').map_or(name, |(kind, _)| kind)
}

fn share_of(values: &[bool]) -> KindFigure {
    KindFigure { met: mean(values.iter().map(|met| f64::from(u8::from(*met)))), n: values.len() }
}

fn figures(policy: &str, prompts: &[(u32, Prompt)], rows: &[VerifiedAnswer]) -> VerifiedFigures {
    let over = |value: &dyn Fn(&VerifiedAnswer) -> f64| {
        estimate_within(&by_prompt(prompts, rows, value), (0.0, 1.0))
    };
    let mut kinds: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for (name, met) in rows.iter().flat_map(|row| &row.strict) {
        kinds.entry(kind(name).to_owned()).or_default().push(*met);
    }
    let instructions = |met: fn(&VerifiedAnswer) -> &BTreeMap<String, bool>| {
        mean(rows.iter().flat_map(met).map(|(_, met)| f64::from(u8::from(*met))))
    };
    let (nats, tokens) = rows.iter().fold((0.0, 0.0), |(nats, tokens), row| {
        (nats + row.base_logp, tokens + f64::from(row.base_tokens))
    });
    let bands = [
        ("under 20", 0, 20),
        ("20 to 39", 20, 40),
        ("40 to 79", 40, 80),
        ("80 or more", 80, u32::MAX),
    ];
    let by_length = bands.map(|(name, from, to)| {
        let inside = rows.iter().filter(|row| (from..to).contains(&row.tokens));
        let met: Vec<bool> = inside.flat_map(|row| row.strict.values().copied()).collect();
        (name.to_owned(), share_of(&met))
    });
    VerifiedFigures {
        policy: policy.to_owned(),
        met: over(&|row| share(&row.strict)),
        prompt_strict: over(&|row| all_met(&row.strict)),
        prompt_loose: over(&|row| all_met(&row.loose)),
        instruction_strict: instructions(|row| &row.strict),
        instruction_loose: instructions(|row| &row.loose),
        tokens: mean(rows.iter().map(|row| f64::from(row.tokens))),
        ended: mean(rows.iter().map(|row| f64::from(u8::from(row.ended)))),
        repetition: mean(rows.iter().map(|row| repetition(&row.text))),
        base_nats: if tokens > 0.0 { nats / tokens } else { 0.0 },
        kinds: kinds.into_iter().map(|(name, met)| (name, share_of(&met))).collect(),
        by_length: by_length.into_iter().filter(|(_, figure)| figure.n > 0).collect(),
    }
}

/// Each policy above the first, and above the one before it.
fn differences(
    found: &[(String, Vec<VerifiedAnswer>)],
    prompts: &[(u32, Prompt)],
) -> Vec<PairedDifference> {
    let values: Vec<(&str, Vec<f64>)> = found
        .iter()
        .map(|(name, rows)| (name.as_str(), by_prompt(prompts, rows, |row| share(&row.strict))))
        .collect();
    let paired = |ours: &(&str, Vec<f64>), theirs: &(&str, Vec<f64>)| {
        let both: Vec<(f64, f64)> = ours.1.iter().copied().zip(theirs.1.iter().copied()).collect();
        PairedDifference::of((ours.0, theirs.0), &both)
    };
    let mut all = Vec::new();
    for (at, ours) in values.iter().enumerate().skip(1) {
        let before = values.get(at - 1);
        all.extend(before.map(|theirs| paired(ours, theirs)));
        all.extend(values.first().filter(|_| at > 1).map(|theirs| paired(ours, theirs)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::PromptOrigin;

    fn two() -> [(u32, Prompt); 2] {
        [(0, "a"), (1, "b")].map(|(place, text)| (place, Prompt::user(text, PromptOrigin::HeldOut)))
    }

    fn answer(
        (place, prompt): &(u32, Prompt),
        sample: u32,
        met: &[(&str, bool)],
    ) -> VerifiedAnswer {
        let met: BTreeMap<String, bool> =
            met.iter().map(|(name, met)| ((*name).to_owned(), *met)).collect();
        VerifiedAnswer {
            prompt: prompt.id.clone(),
            place: *place,
            sample,
            text: "so it is".to_owned(),
            tokens: 10 + 30 * sample,
            ended: sample == 0,
            loose: met.keys().map(|name| (name.clone(), true)).collect(),
            strict: met,
            base_logp: -20.0,
            base_tokens: 10,
        }
    }

    #[test]
    fn figures_are_over_prompts_and_over_constraints() {
        let prompts = two();
        let rows = [
            answer(&prompts[0], 0, &[("k:a", true), ("k:a#2", false)]),
            answer(&prompts[0], 1, &[("k:a", true), ("k:a#2", true)]),
            answer(&prompts[1], 0, &[("k:b", false)]),
            answer(&prompts[1], 1, &[("k:b", false)]),
        ];
        let found = figures("M1", &prompts, &rows);
        assert!((found.met.mean - 0.375).abs() < 1e-12, "0.75 and 0: {:?}", found.met);
        assert!((found.prompt_strict.mean - 0.25).abs() < 1e-12);
        assert!((found.prompt_loose.mean - 1.0).abs() < 1e-12);
        assert!((found.instruction_strict - 0.5).abs() < 1e-12, "three of six");
        assert_eq!(found.kinds["k:a"], KindFigure { met: 0.75, n: 4 });
        assert!((found.base_nats + 2.0).abs() < 1e-12 && (found.ended - 0.5).abs() < 1e-12);
        assert_eq!(found.by_length.len(), 2);
        let better: Vec<VerifiedAnswer> = rows
            .iter()
            .map(|row| VerifiedAnswer { strict: row.loose.clone(), ..row.clone() })
            .collect();
        let all = [("M1".to_owned(), rows.to_vec()), ("M2".to_owned(), better)];
        let found = differences(&all, &prompts);
        assert_eq!((found.len(), found[0].wins, found[0].losses), (1, 2, 0));
        assert!((found[0].difference.mean - 0.625).abs() < 1e-12);
    }

    #[test]
    fn a_prompt_with_an_answer_missing_is_asked_again() {
        let prompts = two();
        let row = |at: usize, sample| answer(&prompts[at], sample, &[("k:a", true)]);
        let rows = vec![row(0, 0), row(0, 1), row(1, 0), row(1, 0)];
        let left = whole(rows, 2);
        assert_eq!(left.len(), 2);
        assert!(left.iter().all(|row| row.prompt == prompts[0].1.id));
    }

    #[test]
    fn loosely_an_answer_may_lose_lines_and_stars() {
        let all = loosened("Sure:\n*yes*\nBye");
        assert_eq!(all.len(), 8);
        assert_eq!(&all[1..4], ["*yes*\nBye", "Sure:\n*yes*", "*yes*"]);
        assert_eq!(all[7], "yes");
        assert_eq!(loosened("one")[1..4], ["", "", ""]);
    }
}
