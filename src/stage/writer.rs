//! New prompts in the style of the known ones (Self-Instruct, arXiv 2212.10560; paper, 2.3 step 1):
//! few-shot from given and generated prompts, then the filters. How they are asked for and read is
//! a [`PromptWriter`]'s matter: [`numbered`] is the product's own, and a host brings others.
//!
//! Departure from the paper: the iteration's own policy writes, not a fixed larger model.

pub mod numbered;

use super::{StageContext, StageError};
use crate::domain::plan::{PlannedEngine, WriterPlan};
use crate::domain::{Completion, Event, Iteration, PolicyRef, Prompt, PromptOrigin, Seed};
use crate::engine::{AnswerRequest, ChatModel, EngineError, Prepared};
use crate::lm::policy::Vocabulary;
use crate::prompts::list::ListItem;
use crate::view::RunView;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::sync::Arc;

/// How the policy is asked for new prompts, and what is taken of what it says.
pub trait PromptWriter: Send + Sync {
    /// Its name in plans. What it does under one name does not change.
    fn name(&self) -> &str;

    /// Of known prompts those that show what is wanted.
    fn demonstrating(&self, texts: Vec<String>) -> Vec<String> {
        texts
    }

    /// What the model is asked, with as many of the demonstrations as it has room for beside
    /// `max_new_tokens` of its own.
    ///
    /// # Errors
    /// The model cannot be asked so.
    fn ask(
        &self,
        demonstrations: Vec<String>,
        max_new_tokens: u32,
        model: &Asked<'_>,
    ) -> Result<WriterQuestion, EngineError>;

    /// The prompts in what the model said.
    fn items(&self, said: &Completion) -> Vec<ListItem>;

    /// What decides which of them are taken, knowing no prompt yet.
    fn filter(&self) -> Box<dyn PromptFilter>;
}

/// Which written prompts are taken.
pub trait PromptFilter {
    /// Told of every prompt of the run, held-out ones too: what is measured is never trained on.
    /// Those that were taken are told as well.
    fn know(&mut self, prompt: &Prompt);

    /// Whether a prompt is taken.
    ///
    /// # Errors
    /// Why it is not, for people.
    fn accept(&self, item: &ListItem) -> Result<(), String>;
}

/// Who is asked.
pub struct Asked<'a> {
    /// The model.
    pub model: &'a dyn ChatModel,
    /// How texts become ids of the policy.
    pub vocabulary: &'a dyn Vocabulary,
}

/// Write a round of new prompts.
#[derive(Clone, Debug)]
pub struct WriteTask {
    pub(crate) iteration: Iteration,
    /// Who writes.
    pub(crate) policy: PolicyRef,
    pub(crate) engine: PlannedEngine,
    /// Which round, from 0.
    pub(crate) round: u32,
    pub(crate) writer: WriterPlan,
    /// Prompts that the iteration wants.
    pub(crate) wanted: u32,
}

/// What the model is asked.
#[derive(Clone, Debug)]
pub struct WriterQuestion {
    /// The conversation, or bare ids.
    pub prompt: Prepared,
    /// Ids that end what it says, beside those that always do.
    pub stop_ids: Vec<u32>,
}

/// One round: `prompts.draws_per_round` draws, each from demonstrations of its own.
pub(crate) fn write_round(
    task: &WriteTask,
    view: &RunView,
    context: &StageContext,
) -> Result<Vec<Event>, StageError> {
    let WriteTask { iteration, round, writer: plan, .. } = task;
    let (iteration, round) = (*iteration, *round);
    let root = view.seed.ok_or_else(|| StageError::Missing("the run's seed".into()))?;
    let seed = root.derive("writer").index(u64::from(iteration.0)).index(u64::from(round));
    let writer = of_plan(plan, context)?;
    let model = context.models.answering(&task.policy, &task.engine)?;
    let asked = Asked { model: model.as_ref(), vocabulary: context.models.vocabulary() };
    let (given, generated, mut known) = pool(writer, view, context)?;
    let requests = (0..u64::from(plan.draws_per_round))
        .map(|draw| request((writer, &asked), (&given, &generated), seed.index(draw), plan))
        .collect::<Result<Vec<_>, StageError>>()?;
    let drawn = model.answer(&requests, &context.cancel)?;
    let mut events = Vec::new();
    let (mut admitted, mut rejected) = (0, 0);
    let room = (task.wanted as usize).saturating_sub(view.waiting());
    for completion in drawn.iter().flatten() {
        for item in writer.items(completion) {
            if admitted as usize >= room {
                break;
            }
            match known.accept(&item) {
                Ok(()) => {
                    admitted += 1;
                    let prompt = Prompt::user(item.text, PromptOrigin::Generated);
                    known.know(&prompt);
                    events.push(Event::PromptAdmitted { prompt });
                }
                Err(reason) => {
                    rejected += 1;
                    events.push(Event::PromptRejected { text: item.text, reason });
                }
            }
        }
    }
    events.push(Event::PromptsWritten { iteration, round, admitted, rejected });
    Ok(events)
}

/// The writer that a plan names.
fn of_plan<'a>(
    plan: &WriterPlan,
    context: &'a StageContext,
) -> Result<&'a dyn PromptWriter, StageError> {
    let writer = context.writer.as_ref();
    match writer.name() == plan.style {
        true => Ok(writer),
        false => Err(EngineError::Another(format!(
            "the iteration was begun with the prompt writer {:?}, and the host brought {:?} \
             (Builder::prompt_writer). Bring the first one until the iteration is over; the demo's is \
             there under gradus run and gradus demo",
            plan.style,
            writer.name()
        ))
        .into()),
    }
}

/// Given prompts, generated prompts, and what knows every text.
type Pool = (Vec<String>, Vec<String>, Box<dyn PromptFilter>);

fn pool(
    writer: &dyn PromptWriter,
    view: &RunView,
    context: &StageContext,
) -> Result<Pool, StageError> {
    let (mut given, mut generated, mut known) = (Vec::new(), Vec::new(), writer.filter());
    for (id, facts) in &view.prompts {
        let prompt = context.bodies().prompt(view, id)?;
        known.know(&prompt);
        let text = prompt.task_text().to_owned();
        match facts.origin {
            PromptOrigin::Given | PromptOrigin::Demonstration => given.push(text),
            PromptOrigin::Generated => generated.push(text),
            PromptOrigin::HeldOut => {}
        }
    }
    Ok((writer.demonstrating(given), writer.demonstrating(generated), known))
}

fn pick(from: &[String], n: usize, rng: &mut ChaCha8Rng) -> Vec<String> {
    let mut left: Vec<&String> = from.iter().collect();
    let mut picked = Vec::new();
    while picked.len() < n && !left.is_empty() {
        let at = (rng.next_u64() % left.len() as u64) as usize;
        picked.push(left.swap_remove(at).clone());
    }
    picked
}

fn request(
    (writer, asked): (&dyn PromptWriter, &Asked<'_>),
    (given, generated): (&[String], &[String]),
    seed: Seed,
    plan: &WriterPlan,
) -> Result<AnswerRequest, StageError> {
    let mut rng = ChaCha8Rng::from_seed(seed.0);
    let shots = plan.shots as usize;
    // Of the paper's eight, two are the model's own.
    let own = pick(generated, shots / 4, &mut rng);
    let mut demonstrations = pick(given, shots - own.len(), &mut rng);
    demonstrations.extend(own);
    let WriterQuestion { prompt, stop_ids } =
        writer.ask(demonstrations, plan.sampling.max_new_tokens, asked)?;
    Ok(AnswerRequest {
        prompt: Arc::new(prompt),
        seeds: vec![seed.derive("draw")],
        sampling: plan.sampling,
        stop_ids,
        stop: Vec::new(),
    })
}
