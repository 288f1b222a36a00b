//! New prompts in the style of the known ones (Self-Instruct, arXiv 2212.10560; paper, 2.3 step 1):
//! few-shot from given and generated prompts, then the filters.
//!
//! Departure from the paper: the iteration's own policy writes, not a fixed larger model.

use super::sampler::{WriteTask, drawing};
use super::{StageContext, StageError};
use crate::domain::plan::{WriterPlan, WriterStyle};
use crate::domain::{Completion, Event, Message, Prompt, PromptOrigin, Seed, StopReason};
use crate::lm::generate::DrawRequest;
use crate::lm::policy::LanguageModel;
use crate::prompts::alike::Known;
use crate::prompts::held_out::HeldOut;
use crate::prompts::list::{self, Item};
use crate::prompts::self_instruct;
use crate::view::RunView;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::BTreeSet;

/// With fewer demonstrations than this that show what is wanted, the others are shown too.
const GOOD_MIN: usize = 8;

/// One round: `prompts.draws_per_round` draws, each from demonstrations of its own.
pub(crate) fn write_round(
    task: &WriteTask,
    view: &RunView,
    context: &StageContext,
) -> Result<Vec<Event>, StageError> {
    let WriteTask { iteration, round, writer, .. } = task;
    let (iteration, round) = (*iteration, *round);
    let root = view.seed.ok_or_else(|| StageError::Missing("the run's seed".into()))?;
    let seed = root.derive("writer").index(u64::from(iteration.0)).index(u64::from(round));
    let model = context.workshop.policy(&task.policy, &task.engine)?;
    let style = writer.style;
    let (given, generated, mut known) = pool(style, view, context)?;
    let requests = (0..u64::from(writer.draws_per_round))
        .map(|draw| draw_request(model.as_ref(), (&given, &generated), seed.index(draw), writer))
        .collect::<Result<Vec<_>, StageError>>()?;
    let drawn = model.draw(&requests, &context.cancel)?;
    let mut events = Vec::new();
    let (mut admitted, mut rejected) = (0, 0);
    let room = (task.wanted as usize).saturating_sub(view.unused().count());
    for completion in drawn.iter().flatten() {
        for item in split(style, completion) {
            if admitted as usize >= room {
                break;
            }
            match known.accept(style, &item) {
                Ok(()) => {
                    admitted += 1;
                    known.add(style, &item.text);
                    let prompt = Prompt::user(item.text, PromptOrigin::Generated);
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

/// Every text of the run, held-out ones too: what is measured is never trained on.
#[derive(Default)]
struct Texts {
    /// Word for word.
    raw: BTreeSet<String>,
    /// As the numbered style compares them.
    compared: Known,
    held_out: HeldOut,
}

impl Texts {
    fn add(&mut self, style: WriterStyle, text: &str) {
        match style {
            WriterStyle::Tagged => drop(self.raw.insert(text.to_owned())),
            WriterStyle::Numbered => self.compared.add(text),
        }
    }

    fn accept(&self, style: WriterStyle, item: &Item) -> Result<(), String> {
        match style {
            WriterStyle::Numbered => {
                if self.held_out.in_chat(&[Message::user(item.text.as_str())]).is_some() {
                    return Err("is held out, or nearly: what is measured is not trained on".into());
                }
                self_instruct::accept(item, &self.compared)
            }
            WriterStyle::Tagged => {
                let text = item.text.as_str();
                let words = text.split_whitespace().count();
                if !(3..=16).contains(&words) {
                    return Err(format!("{words} words, not 3 to 16"));
                }
                if !text.ends_with('.') || text.contains('<') {
                    return Err("no full stop at the end, or a special token inside".to_owned());
                }
                if self.raw.contains(text) {
                    return Err("known already".to_owned());
                }
                Ok(())
            }
        }
    }
}

/// Given prompts, generated prompts, and every known text.
type Pool = (Vec<String>, Vec<String>, Texts);

fn pool(style: WriterStyle, view: &RunView, context: &StageContext) -> Result<Pool, StageError> {
    let (mut given, mut generated, mut known) = (Vec::new(), Vec::new(), Texts::default());
    for (id, facts) in &view.prompts {
        let prompt = context.prompt(view, id)?;
        let text = prompt.task_text().to_owned();
        known.add(style, &text);
        match facts.origin {
            PromptOrigin::Given | PromptOrigin::Demonstration => given.push(text),
            PromptOrigin::Generated => generated.push(text),
            PromptOrigin::HeldOut => known.held_out.add(&prompt),
        }
    }
    if style == WriterStyle::Numbered {
        demonstrating(&mut given);
        demonstrating(&mut generated);
    }
    Ok((given, generated, known))
}

/// Leaves the texts that show what is wanted; all of them where hardly any does.
fn demonstrating(texts: &mut Vec<String>) {
    let good = texts.iter().filter(|text| self_instruct::demonstrates(text));
    let good: Vec<String> = good.cloned().collect();
    if good.len() >= GOOD_MIN.min(texts.len()) {
        *texts = good;
    }
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

fn draw_request(
    model: &dyn LanguageModel,
    (given, generated): (&[String], &[String]),
    seed: Seed,
    writer: &WriterPlan,
) -> Result<DrawRequest, StageError> {
    let mut rng = ChaCha8Rng::from_seed(seed.0);
    let shots = writer.shots as usize;
    // Of the paper's eight, two are the model's own.
    let own = pick(generated, shots / 4, &mut rng);
    let mut demonstrations = pick(given, shots - own.len(), &mut rng);
    demonstrations.extend(own);
    let prompt = match writer.style {
        WriterStyle::Tagged => {
            let mut text = String::from("<bos> <task>");
            for shot in &demonstrations {
                text.push_str(&format!(" {shot} <task>"));
            }
            model.encode_template(&text)?
        }
        WriterStyle::Numbered => numbered(model, demonstrations, writer.sampling.max_new_tokens)?,
    };
    let mut stop_ids = model.stop_ids().to_vec();
    if writer.style == WriterStyle::Tagged {
        stop_ids.extend(model.encode_template("<task>")?);
    }
    let sampling = drawing(&writer.sampling, stop_ids);
    Ok(DrawRequest { prompt, seeds: vec![seed.derive("draw")], sampling })
}

/// The request, and the model's own turn begun with the demonstrations: it goes on with the list.
/// (Asked in the user's turn, a small model repeats the list or answers it.) As many demonstrations
/// as the context has room for.
fn numbered(
    model: &dyn LanguageModel,
    mut demonstrations: Vec<String>,
    max_new_tokens: u32,
) -> Result<Vec<u32>, StageError> {
    loop {
        let mut ids = model.encode_chat(&[Message::user(self_instruct::REQUEST)])?;
        ids.extend(model.encode_text(&self_instruct::open_list(&demonstrations))?);
        let fits = ids.len() + max_new_tokens as usize <= model.context_tokens_max();
        let longest =
            (0..demonstrations.len()).max_by_key(|at| demonstrations.get(*at).map(String::len));
        match longest.filter(|_| !fits) {
            Some(at) => drop(demonstrations.remove(at)),
            None => return Ok(ids),
        }
    }
}

fn split(style: WriterStyle, completion: &Completion) -> Vec<Item> {
    match style {
        WriterStyle::Tagged => vec![Item { text: completion.text.trim().to_owned(), cut: false }],
        WriterStyle::Numbered => {
            list::split(&completion.text, completion.stop == StopReason::Length)
        }
    }
}
