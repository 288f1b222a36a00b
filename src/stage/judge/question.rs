//! What a rubric asks about an item: which answers it shows together and in which orders, what it
//! renders of them, and whether somebody replied to the same question before.

use super::groups::{Groups, groups, orders};
use super::item::{JudgingItem, RecordedReply, SeedRule};
use crate::domain::Seed;
use crate::rubric::{Rendered, Rubric, RubricInput};

/// One question: some answers of an item in some order.
pub(super) struct Question {
    /// Which item.
    pub item: usize,
    /// Which of its answers are shown, in order.
    pub shown: Vec<usize>,
    /// The same as the rubric sees it.
    pub input: RubricInput,
    pub seed: Seed,
}

/// A question in the rubric's words.
pub(super) struct RenderedQuestion {
    pub rendered: Rendered,
    /// Replies to the same question that are recorded, all to one rubric.
    pub recorded: Vec<RecordedReply>,
    /// What that rubric rendered.
    pub recorded_rendering: Option<Rendered>,
}

/// How a rubric groups `n` answers; none when there are too few.
pub(super) fn groups_of(n: usize, rubric: &Rubric, comparisons_max: u32) -> Groups {
    let info = rubric.info();
    let size = n.min(info.max_candidates as usize);
    match size < info.min_candidates as usize {
        true => Groups::default(),
        false => groups(n, size, comparisons_max as usize),
    }
}

/// What is shown of `n` answers, each group in its orders; nothing when there are too few.
pub(crate) fn shown(n: usize, rubric: &Rubric, comparisons_max: u32) -> Vec<Vec<usize>> {
    let groups = groups_of(n, rubric, comparisons_max).shown;
    groups.iter().flat_map(|group| orders(group, rubric.info().order_sensitive)).collect()
}

impl Question {
    /// Everything a rubric asks about an item, which is the `at`-th.
    pub fn all_about(
        at: usize,
        item: &JudgingItem<'_>,
        rubric: &Rubric,
        comparisons_max: u32,
    ) -> Vec<Question> {
        let shown = shown(item.answers.len(), rubric, comparisons_max);
        let question = |(shown, position): (Vec<usize>, u64)| {
            let answers = shown.iter().filter_map(|one| item.answers.get(*one));
            let candidates: Vec<String> = answers.map(|text| (*text).to_owned()).collect();
            let seed = match item.seeds {
                SeedRule::ByPosition(seed) => seed.index(position),
                SeedRule::ByText(seed) => {
                    let hash = |text: &String| blake3::hash(text.as_bytes()).to_hex();
                    candidates.iter().fold(seed, |seed, text| seed.derive(&hash(text)))
                }
            };
            let input = RubricInput { candidates, ..item.input.clone() };
            Question { item: at, shown, input, seed }
        };
        shown.into_iter().zip(0u64..).map(question).collect()
    }

    /// The question as the rubric `rendered` it, with the replies to it that are recorded. Best are
    /// those to this rubric itself, for others may have got the very same ones; each rubric renders
    /// the question once.
    pub fn rendered(
        &self,
        rendered: Rendered,
        rubric: &Rubric,
        recorded: &[RecordedReply],
    ) -> RenderedQuestion {
        let mut left: Vec<&RecordedReply> =
            recorded.iter().filter(|reply| reply.shown == self.shown).collect();
        left.sort_by_key(|reply| reply.rubric.id() != rubric.id());
        while let Some(first) = left.first() {
            let whose = first.rubric.id();
            let (theirs, others): (Vec<_>, Vec<_>) =
                left.iter().copied().partition(|reply| reply.rubric.id() == whose);
            let before = first.rubric.render(&self.input).ok();
            if let Some(before) = before.filter(|before| before.asks_the_same(&rendered)) {
                let recorded = theirs.into_iter().cloned().collect();
                return RenderedQuestion { rendered, recorded, recorded_rendering: Some(before) };
            }
            left = others;
        }
        RenderedQuestion { rendered, recorded: Vec::new(), recorded_rendering: None }
    }
}

impl RenderedQuestion {
    /// Whether the rubric asks nobody: it is a program, which reads the answer itself.
    pub fn is_for_a_program(&self) -> bool {
        self.rendered.messages.is_empty()
    }

    /// Whether somebody replied before.
    pub fn is_answered(&self) -> bool {
        !self.recorded.is_empty()
    }

    /// Whether the judge has to reply.
    pub fn needs_a_reply(&self) -> bool {
        !self.is_for_a_program() && !self.is_answered()
    }
}
