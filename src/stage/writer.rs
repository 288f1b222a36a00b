//! New prompts in the style of the known ones (Self-Instruct, arXiv 2212.10560; paper, 2.3 step 1):
//! few-shot from given and generated prompts, then the filters.
//!
//! Departure from the paper: the iteration's own policy writes, not a fixed larger model.

use super::{Desk, StageError};
use crate::config::WriterStyle;
use crate::domain::{Event, Iteration, Message, PolicyRef, Prompt, PromptOrigin, Seed};
use crate::lm::generate::DrawRequest;
use crate::lm::generate::Sampling;
use crate::lm::policy::LanguageModel;
use crate::prompts::self_instruct;
use crate::view::RunView;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// One round: `prompts.draws_per_round` draws, each from demonstrations of its own.
pub(crate) fn write_round(
    iteration: Iteration,
    policy: &PolicyRef,
    round: u32,
    view: &RunView,
    desk: &Desk,
) -> Result<Vec<Event>, StageError> {
    let root = view.seed.ok_or_else(|| StageError::Missing("the run's seed".into()))?;
    let seed = root.derive("writer").index(u64::from(iteration.0)).index(u64::from(round));
    let model = desk.workshop.policy(policy)?;
    let (given, generated, mut known) = pool(view, desk)?;
    let requests = (0..u64::from(desk.config.prompts.draws_per_round))
        .map(|draw| draw_request(model.as_ref(), &given, &generated, seed.index(draw), desk))
        .collect::<Result<Vec<_>, StageError>>()?;
    let drawn = model.draw(&requests, &desk.cancel)?;
    let mut events = Vec::new();
    let (mut admitted, mut rejected) = (0, 0);
    let room = (desk.config.prompts.per_iteration as usize).saturating_sub(view.unused().count());
    for completion in drawn.iter().flatten() {
        for text in split(desk.config.prompts.writer, &completion.text) {
            if admitted as usize >= room {
                break;
            }
            match accept(desk.config.prompts.writer, &text, &known) {
                Ok(()) => {
                    admitted += 1;
                    known.push(text.clone());
                    let prompt = Prompt::user(text, PromptOrigin::Generated);
                    events.push(Event::PromptAdmitted { prompt });
                }
                Err(reason) => {
                    rejected += 1;
                    events.push(Event::PromptRejected { text, reason });
                }
            }
        }
    }
    events.push(Event::PromptsWritten { iteration, round, admitted, rejected });
    Ok(events)
}

/// Given prompts, generated prompts, and every known text (held-out ones too: what is measured is
/// never trained on).
type Pool = (Vec<String>, Vec<String>, Vec<String>);

fn pool(view: &RunView, desk: &Desk) -> Result<Pool, StageError> {
    let (mut given, mut generated, mut known) = (Vec::new(), Vec::new(), Vec::new());
    for (id, facts) in &view.prompts {
        let text = desk.prompt(view, id)?.task_text().to_owned();
        known.push(text.clone());
        match facts.origin {
            PromptOrigin::Given | PromptOrigin::Demonstration => given.push(text),
            PromptOrigin::Generated => generated.push(text),
            PromptOrigin::HeldOut => {}
        }
    }
    Ok((given, generated, known))
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
    given: &[String],
    generated: &[String],
    seed: Seed,
    desk: &Desk,
) -> Result<DrawRequest, StageError> {
    let settings = &desk.config.prompts;
    let mut rng = ChaCha8Rng::from_seed(seed.0);
    let shots = settings.shots as usize;
    // Of the paper's eight, two are the model's own.
    let own = pick(generated, shots / 4, &mut rng);
    let mut demonstrations = pick(given, shots - own.len(), &mut rng);
    demonstrations.extend(own);
    let prompt = match settings.writer {
        WriterStyle::Tagged => {
            let mut text = String::from("<bos> <task>");
            for shot in &demonstrations {
                text.push_str(&format!(" {shot} <task>"));
            }
            model.encode_template(&text)?
        }
        WriterStyle::Numbered => {
            let text = self_instruct::few_shot_prompt(&demonstrations);
            model.encode_chat(&[Message::user(text)])?
        }
    };
    let mut stop_ids = model.stop_ids().to_vec();
    if settings.writer == WriterStyle::Tagged {
        stop_ids.extend(model.encode_template("<task>")?);
    }
    let sampling = Sampling {
        temperature: settings.temperature as f32,
        top_p: settings.top_p as f32,
        max_new_tokens: settings.max_new_tokens as usize,
        top_k: None,
        min_p: None,
        repetition_penalty: 1.0,
        stop_ids,
    };
    Ok(DrawRequest { prompt, seeds: vec![seed.derive("draw")], sampling })
}

fn split(style: WriterStyle, text: &str) -> Vec<String> {
    match style {
        WriterStyle::Tagged => vec![text.trim().to_owned()],
        WriterStyle::Numbered => self_instruct::split_numbered(text),
    }
}

fn accept(style: WriterStyle, text: &str, known: &[String]) -> Result<(), String> {
    match style {
        WriterStyle::Numbered => self_instruct::accept(text, known),
        WriterStyle::Tagged => {
            let words = text.split_whitespace().count();
            if !(3..=16).contains(&words) {
                return Err(format!("{words} words, not 3 to 16"));
            }
            if !text.ends_with('.') || text.contains('<') {
                return Err("no full stop at the end, or a special token inside".to_owned());
            }
            if known.iter().any(|k| k == text) {
                return Err("known already".to_owned());
            }
            Ok(())
        }
    }
}
