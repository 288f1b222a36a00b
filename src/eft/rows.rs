//! Responses to choose rows from, each with what the verifier says of it, and the choice: as many yes as
//! no of every kind, answers of the model itself before others.

use super::constraint::{Constraint, is_constraint};
use super::evidence::evidence;
use super::variants::{meeting, near_miss};
use super::{EftKind, EftPrompt, EftReport, failed};
use crate::dice::Dice;
use crate::domain::Prompt;
use crate::error::Error;
use crate::rubric::{CallError, ParsedReply, Rubric, RubricInput};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Answers to other prompts that are tried for each prompt.
const OTHERS: usize = 4;

/// Where a response comes from; those that come first are taken first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ResponseOrigin {
    /// The model's answer to the prompt, which ended by itself.
    Given,
    /// The same, cut off.
    CutOff,
    /// The same, changed.
    Changed,
    /// An answer to another prompt, perhaps changed.
    Another,
}

impl ResponseOrigin {
    pub fn is_as_given(self) -> bool {
        matches!(self, ResponseOrigin::Given | ResponseOrigin::CutOff)
    }
}

/// A response that a row could be made of.
#[derive(Clone, Debug)]
pub(super) struct EftCandidate<'a> {
    pub prompt: &'a Prompt,
    pub response: String,
    pub origin: ResponseOrigin,
    /// The prompt's constraints, by name, and whether each is met.
    pub met: BTreeMap<String, bool>,
    constraints: Arc<BTreeMap<String, Constraint>>,
}

impl EftCandidate<'_> {
    /// As rubrics see it.
    pub fn input(&self) -> RubricInput {
        RubricInput::of(self.prompt, vec![self.response.clone()])
    }

    /// Whether the model itself gave it, whole, and it meets everything.
    pub fn is_good(&self) -> bool {
        self.origin == ResponseOrigin::Given && self.met.values().all(|met| *met)
    }

    /// Share of the constraints that are met.
    pub fn share_met(&self) -> f64 {
        let met = self.met.values().filter(|met| **met).count();
        met as f64 / self.met.len().max(1) as f64
    }

    /// What a good judge says: for each requirement evidence, then the verdict.
    pub fn reply(&self) -> String {
        // The same names in both, in the same order.
        let one = |(constraint, met): (&Constraint, &bool)| {
            let verdict = if *met { "yes" } else { "no" };
            format!("Evidence: {}\nVerdict: {verdict}", evidence(constraint, &self.response))
        };
        let all: Vec<String> = self.constraints.values().zip(self.met.values()).map(one).collect();
        match all.as_slice() {
            [only] => only.clone(),
            several => {
                let numbered = (1..).zip(several).map(|(n, one)| format!("{n}. {one}"));
                numbered.collect::<Vec<_>>().join("\n")
            }
        }
    }
}

/// A prompt's constraints; why it cannot be used otherwise.
fn constraints(prompt: &Prompt) -> Result<BTreeMap<String, Constraint>, String> {
    let named = prompt.notes.fields.iter().filter(|(name, _)| is_constraint(name));
    let read = named.map(|(name, value)| {
        let known = Constraint::of(name, value);
        known
            .map(|known| (name.clone(), known))
            .ok_or_else(|| format!("no evidence can be written of {name}"))
    });
    let all: BTreeMap<String, Constraint> = read.collect::<Result<_, _>>()?;
    let words: Vec<&str> = prompt
        .notes
        .fields
        .keys()
        .filter_map(|name| name.strip_prefix("requirement"))
        .map(|name| name.strip_prefix('.').unwrap_or(name))
        .collect();
    // The judge is asked in the order of its fields, the program answers in that of the constraints.
    let each_has_its_words = words.len() <= 1 || all.keys().eq(words.iter().copied());
    match (all.len(), words.len()) {
        (0, _) => Err("no constraint".to_owned()),
        (some, stated) if stated > 0 && (stated != some || !each_has_its_words) => {
            Err("its requirements are not its constraints, one for one (requirement.NAME)"
                .to_owned())
        }
        _ => Ok(all),
    }
}

/// Everything that rows can be made of.
pub(super) struct EftPool<'a> {
    pub candidates: Vec<EftCandidate<'a>>,
    left_out: BTreeMap<String, usize>,
}

/// A prompt that can be used, and its constraints.
struct UsablePrompt<'a> {
    answered: &'a EftPrompt,
    constraints: Arc<BTreeMap<String, Constraint>>,
}

impl<'a> UsablePrompt<'a> {
    /// A response with what the verifier says of it; `None`: there is nothing in it.
    fn candidate(
        &self,
        response: String,
        origin: ResponseOrigin,
        verifier: &Rubric,
    ) -> Result<Option<EftCandidate<'a>>, CallError> {
        if response.trim().is_empty() {
            return Ok(None);
        }
        let prompt = &self.answered.prompt;
        let read = verifier.parse(&RubricInput::of(prompt, vec![response.clone()]), "")?;
        let ParsedReply::Verdict { criteria, .. } = read else { return Ok(None) };
        let met: BTreeMap<String, bool> =
            criteria.into_iter().map(|(name, value)| (name, value >= 1.0)).collect();
        let decided = met.keys().eq(self.constraints.keys());
        let constraints = self.constraints.clone();
        Ok(decided.then_some(EftCandidate { prompt, response, origin, met, constraints }))
    }

    /// A response changed so that it should meet everything, and one that should just miss it.
    fn changed(&self, response: &str, dice: &mut Dice) -> Vec<String> {
        let mut good = response.to_owned();
        for constraint in self.constraints.values() {
            match meeting(constraint, &good, dice) {
                Some(better) => good = better,
                None => return Vec::new(),
            }
        }
        let all: Vec<&Constraint> = self.constraints.values().collect();
        let which = dice.range(0, all.len().saturating_sub(1));
        let spoiled = all.get(which).and_then(|constraint| near_miss(constraint, &good, dice));
        [Some(good), spoiled].into_iter().flatten().collect()
    }
}

impl<'a> EftPool<'a> {
    /// What can be made of these answers.
    pub fn of(
        answered: &'a [EftPrompt],
        verifier: &Rubric,
        dice: &mut Dice,
    ) -> Result<EftPool<'a>, Error> {
        let mut pool = EftPool { candidates: Vec::new(), left_out: BTreeMap::new() };
        let mut usable = Vec::new();
        for answered in answered {
            match constraints(&answered.prompt) {
                Ok(found) => usable.push(UsablePrompt { answered, constraints: Arc::new(found) }),
                Err(why) => *pool.left_out.entry(why).or_default() += 1,
            }
        }
        let texts = answered.iter().flat_map(|one| &one.answers).map(|answer| &answer.text);
        let all: Vec<&String> = texts.collect();
        for prompt in &usable {
            let mut responses: Vec<(String, ResponseOrigin)> = Vec::new();
            for answer in &prompt.answered.answers {
                let given =
                    if answer.ended { ResponseOrigin::Given } else { ResponseOrigin::CutOff };
                responses.push((answer.text.clone(), given));
                let changed = prompt.changed(&answer.text, dice).into_iter();
                responses.extend(changed.map(|text| (text, ResponseOrigin::Changed)));
            }
            for _ in 0..OTHERS.min(all.len()) {
                let which = dice.range(0, all.len() - 1);
                let Some(answer) = all.get(which) else { continue };
                responses.push(((*answer).clone(), ResponseOrigin::Another));
                let changed = prompt.changed(answer, dice).into_iter();
                responses.extend(changed.map(|text| (text, ResponseOrigin::Another)));
            }
            for (response, origin) in responses {
                let found = prompt.candidate(response, origin, verifier);
                pool.candidates.extend(found.map_err(|error| failed(verifier, &error))?);
            }
        }
        Ok(pool)
    }

    /// What is in it.
    pub fn report(&self) -> EftReport {
        let mut kinds: BTreeMap<String, EftKind> = BTreeMap::new();
        let given = self.candidates.iter().filter(|one| one.origin.is_as_given());
        for name in self.candidates.iter().flat_map(|one| one.met.keys()) {
            kinds.entry(name.clone()).or_default();
        }
        for (name, met) in given.flat_map(|one| &one.met) {
            let kind = kinds.entry(name.clone()).or_default();
            kind.answers += 1;
            kind.met += usize::from(*met);
        }
        EftReport { kinds, left_out: self.left_out.clone(), ..EftReport::default() }
    }

    /// At most so many of them, in a random order: of every kind of constraint and either verdict as many
    /// as of the others, where there are so many.
    pub fn balanced(&self, most: usize, dice: &mut Dice) -> Vec<&EftCandidate<'a>> {
        let mut order = dice.shuffled(&self.candidates.iter().collect::<Vec<_>>());
        order.sort_by_key(|one| one.origin);
        let mut left: BTreeMap<(&str, bool), usize> = BTreeMap::new();
        for (name, met) in order.iter().flat_map(|one| &one.met) {
            left.entry((name, *met)).or_default();
        }
        let each = most / left.len().max(1);
        left.values_mut().for_each(|left| *left = each);
        let mut seen = HashSet::new();
        let mut chosen = Vec::new();
        for candidate in order {
            let buckets = || candidate.met.iter().map(|(name, met)| (name.as_str(), *met));
            let wanted = buckets().any(|bucket| left.get(&bucket).is_some_and(|left| *left > 0));
            if wanted && seen.insert((&candidate.prompt.id, &candidate.response)) {
                for bucket in buckets() {
                    left.entry(bucket).and_modify(|left| *left = left.saturating_sub(1));
                }
                chosen.push(candidate);
            }
        }
        dice.shuffled(&chosen)
    }
}
