//! What a miniature iteration showed: prices, lengths, and how much more the process holds than the
//! estimate says.

use super::bounds::{DrawBounds, bounds, without_bound};
use super::cost::{CostLine, Flow, Prices, flow, shared};
use super::rehearsal::{Act, Cast, Hands, RehearsedRun};
use super::watch::TimedCall;
use crate::codes::Code;
use crate::domain::event::IterationKind;
use crate::domain::plan::PlannedSampling;
use crate::domain::{PolicyRef, Prompt, Seed};
use crate::engine::tokens::draw_request;
use crate::engine::{Prepared, Scorer};
use crate::error::Error;
use crate::estimate::{Kinds, Lengths, Memory, MemoryNeeds, Outline};
use crate::lm::cancel::Cancel;
use crate::lm::error::LmError;
use crate::lm::generate::{DrawRequest, live_max};
use crate::lm::policy::LanguageModel;
use crate::runtime::Folder;
use crate::stage::StageError;
use crate::stage::sampler::{prompt_seed, request};
use std::sync::Arc;
use std::time::Instant;

/// Tokens that are drawn to find the price of a step, after a first one.
const STEPS: usize = 8;
/// Prompts whose answers are drawn to see how long they are.
const SURVEYED: usize = 32;
/// What takes less than this is measured more than once.
const SHORT_SECONDS: f64 = 0.1;

/// What drawing costs in a stage.
#[derive(Clone, Debug, Default)]
pub(super) struct DrawingCost {
    pub prices: Prices,
    /// Seconds that the stage took for each that the prices say: what is done beside the model.
    pub ratio: f64,
    /// Of what was drawn, tokens.
    pub lengths: Vec<usize>,
}

impl DrawingCost {
    /// Seconds of reading `tokens` and drawing.
    pub fn seconds(&self, tokens: f64, flow: Flow) -> f64 {
        self.ratio * self.prices.of(tokens, flow)
    }
}

/// What a kind of training costs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TrainingCost {
    /// A step, by its rows.
    pub step: CostLine,
    /// Rows of a pair, or of a supervised row.
    pub rows: f64,
    /// The first segment beside its steps and its first check: weights in, checkpoint out.
    pub first: f64,
    /// Every other one: state in, checkpoint out.
    pub next: f64,
}

/// Everything that was measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    pub lengths: Option<Lengths>,
    pub sampling: DrawingCost,
    pub judging: DrawingCost,
    /// Seconds of reading probabilities, for each token; 0 where none are read.
    pub readout: f64,
    /// Of the different answers to prompts, the share that had to be asked about.
    pub asked: f64,
    /// Seconds of a prompt's judging where the run's own model is not asked: by programs, or by another
    /// engine.
    pub program: f64,
    /// Seconds of a prompt's answers where another engine gives them.
    pub answered: Option<f64>,
    /// Seconds of opening a policy, and a checkpoint.
    pub opening: f64,
    pub checkpoint: f64,
    /// Reference scoring, by its rows.
    pub reference: CostLine,
    pub preference: TrainingCost,
    pub supervised: Option<TrainingCost>,
    /// Seconds of a round of writing, and the prompts it gave.
    pub writing: Option<(f64, u32)>,
    /// Prompts, and those of them that gave a pair.
    pub paired: (usize, usize),
    /// Bytes beyond the estimate, by stage; below it where negative.
    pub excess: [i64; 5],
    /// How long answers and replies could get.
    pub bounds: Option<DrawBounds>,
    /// The first question that the judge was asked.
    pub question: Option<String>,
}

fn opened(act: &Act) -> f64 {
    let each = act.calls.iter().map(|call| match call {
        TimedCall::Opened { seconds } => *seconds,
        _ => 0.0,
    });
    each.sum()
}

/// Requests and lengths of everything that was drawn.
fn drawn(acts: &[Act]) -> (Vec<DrawRequest>, Vec<usize>) {
    let (mut requests, mut lengths) = (Vec::new(), Vec::new());
    for call in acts.iter().flat_map(|act| &act.calls) {
        if let TimedCall::Drew { requests: some, lengths: of_them } = call {
            requests.extend(some.iter().cloned());
            lengths.extend(of_them);
        }
    }
    (requests, lengths)
}

fn mean(values: impl Iterator<Item = usize>) -> usize {
    let (sum, count) = values.fold((0, 0), |(sum, n), value| (sum + value, n + 1));
    if count == 0 { 0 } else { (sum as f64 / count as f64).round() as usize }
}

/// Seconds of drawing `tokens` tokens in `rows` rows from a few of the requests.
pub(super) fn time_of(
    model: &dyn LanguageModel,
    sample: &[DrawRequest],
    rows: usize,
    tokens: usize,
) -> Result<f64, Error> {
    let part = sample.len().min(rows).max(1);
    let requests: Vec<DrawRequest> = sample
        .iter()
        .take(part)
        .enumerate()
        .filter_map(|(at, request)| {
            let mut request = request.clone();
            let ours = rows / part + usize::from(at < rows % part);
            let seed = *request.seeds.first()?;
            request.seeds = (0..ours as u64).map(|n| seed.index(n)).collect();
            request.sampling.max_new_tokens = tokens;
            request.sampling.stop_ids.clear();
            Some(request)
        })
        .collect();
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let began = Instant::now();
        model.draw(&requests, &Cancel::default()).map_err(Error::Model)?;
        best = best.min(began.elapsed().as_secs_f64());
        if best > SHORT_SECONDS {
            break;
        }
    }
    Ok(best)
}

/// The prices of drawing from requests like these, in up to `rows` rows.
fn prices(model: &dyn LanguageModel, sample: &[DrawRequest], rows: usize) -> Result<Prices, Error> {
    let few = (rows / 4).max(1);
    let mut points = Vec::new();
    let mut first = 0.0;
    for rows in [few, rows.max(few + 1)] {
        first = time_of(model, sample, rows, 1)?;
        let all = time_of(model, sample, rows, 1 + STEPS)?;
        points.push((rows as f64, (all - first).max(0.0) / STEPS as f64));
    }
    let tokens = shared(sample.iter().map(|request| request.prompt.as_slice())).1;
    let [few, many] = points.as_slice() else { return Ok(Prices::default()) };
    Ok(Prices { token: first / tokens.max(1) as f64, step: CostLine::through(*few, *many) })
}

/// What a stage's drawing came to beside what the prices say; `other` is what it asked for beside
/// drawing, seconds.
fn ratio(acts: &[Act], prices: &Prices, live: usize, other: f64) -> f64 {
    let seconds: f64 = acts.iter().map(|act| act.seconds - opened(act)).sum();
    let said = acts.iter().flat_map(|act| &act.calls).map(|call| match call {
        TimedCall::Drew { requests, lengths } => {
            let tokens = shared(requests.iter().map(|r| r.prompt.as_slice())).1;
            prices.of(tokens as f64, flow(lengths.iter().copied(), live))
        }
        _ => 0.0,
    });
    let said: f64 = said.sum();
    if said > 0.0 { (seconds - other).max(0.0) / said } else { 0.0 }
}

/// A miniature without a step would make training free in every forecast.
fn no_steps() -> Error {
    Error::refused(
        Code::Defect,
        "the rehearsal took no step of training, so its price is not known",
    )
}

/// The price of a training, from the segments of its miniature: batches of two sizes in turns, the
/// first round of each segment not counted, for it touches memory for the first time.
fn training(acts: &[Act], items: usize) -> Option<TrainingCost> {
    let segments: Vec<(&Act, &Vec<(usize, f64)>)> = acts
        .iter()
        .filter_map(|act| {
            let trained = act.calls.iter().find_map(|call| match call {
                TimedCall::Trained { steps, .. } => Some(steps),
                _ => None,
            });
            Some((act, trained?))
        })
        .collect();
    let (first, steps) = segments.first()?;
    let round: usize = 2.min(steps.len() / 2);
    let settled: Vec<(usize, f64)> = steps.iter().skip(round).copied().collect();
    let most = settled.iter().map(|(rows, _)| *rows).max()?;
    let average = |large: &dyn Fn(usize) -> bool| {
        let of = settled.iter().filter(|(rows, _)| large(*rows));
        let (rows, seconds, n) = of.fold((0.0, 0.0, 0.0), |(r, s, n), (rows, seconds)| {
            (r + *rows as f64, s + seconds, n + 1.0)
        });
        (rows / n, seconds / n)
    };
    let step =
        CostLine::through(average(&|rows| 2 * rows <= most + most / 2), average(&|r| r == most));
    let plain = |steps: &[(usize, f64)]| -> f64 {
        steps.iter().map(|(rows, _)| step.at(*rows as f64)).sum()
    };
    let check = steps.first().map_or(0.0, |(rows, _)| step.each * *rows as f64);
    let beside =
        |act: &Act, steps: &[(usize, f64)]| (act.seconds - opened(act) - plain(steps)).max(0.0);
    let once = (beside(first, steps) - check).max(0.0);
    let next = segments.get(1).map_or(once, |(act, steps)| beside(act, steps));
    let rows = steps.iter().take(round.max(1)).map(|(rows, _)| *rows).sum::<usize>() as f64;
    Some(TrainingCost { step, rows: rows / items.max(1) as f64, first: once, next })
}

/// The miniature from end to end, and what it showed; `tell` hears what is being done.
pub(super) fn measure(
    cast: &Cast,
    folder: &Folder,
    tell: &dyn Fn(&str),
) -> Result<Measured, Error> {
    tell("opening the model");
    let mut play = RehearsedRun::prepare(cast, folder)?;
    let hands = Hands::start()?;
    let mut found = Measured::default();
    let mut trained = Vec::new();
    let (opening, bounds) = bounds(&play, cast)?;
    found.opening = opening;
    play.bound(bounds);
    found.bounds = Some(bounds);
    let waiting = cast.view.waiting() < cast.config.prompts.per_iteration as usize;
    if cast.config.prompts.generate && waiting {
        let draws = cast.config.prompts.draws_per_round;
        tell(&format!("writing prompts: {} of the {draws} draws of a round", bounds.written));
        let (act, admitted) = play.write(&hands, cast, bounds.written)?;
        found.opening = found.opening.max(opened(&act));
        let rest = f64::from(draws) / f64::from(bounds.written.max(1));
        let (seconds, all) = ((act.seconds - opened(&act)) * rest, f64::from(admitted) * rest);
        found.writing = Some((seconds, all.round() as u32));
    }
    if Kinds::of(&cast.view) == Kinds::SupervisedFirst {
        tell("training on a few seed rows");
        play.open(IterationKind::Sft)?;
        let acts = play.train(&hands)?;
        let rows = play.view.seed_data.iter().map(|facts| facts.rows as usize).sum();
        found.supervised = Some(training(&acts, rows).ok_or_else(no_steps)?);
        trained.extend(acts);
        play.close()?;
    }
    play.open(IterationKind::Dpo)?;
    let candidates = cast.config.sampling.candidates;
    tell(&format!(
        "answering {} prompts {candidates} times, in at most {} tokens each",
        play.prompts, bounds.answer
    ));
    let sampled = play.sample(&hands)?;
    tell(&format!("judging the answers, in at most {} tokens each", bounds.reply));
    let judged = play.judge(&hands)?;
    found.question = first_question(&judged, cast);
    play.pair()?;
    tell("training on pairs of them");
    let acts = play.train(&hands)?;
    found.preference = training(&acts, play.prompts).ok_or_else(no_steps)?;
    // Ahead of supervision the policy says nothing yet of how many ties there will be.
    // Nor does a judge whose replies were cut off.
    let cut = bounds.reply < cast.config.judge.max_new_tokens;
    let paired = if found.supervised.is_some() || cut { play.prompts } else { play.paired };
    found.paired = (play.prompts, paired);
    let checkpoint = play.open_checkpoint(&hands)?;
    found.checkpoint = checkpoint.as_ref().map_or(0.0, |act| act.seconds);
    found.opening = found.opening.max(sampled.first().map_or(0.0, opened));
    found.lengths = Some(lengths(&sampled, &judged));
    trained.extend(acts);
    found.excess = excess(&play, cast, found.lengths, [&sampled, &judged, &trained], checkpoint);
    tell("timing a few steps");
    price(&play, cast, (&sampled, &judged, &trained), &mut found)?;
    tell("answering more prompts, to see how long answers are");
    survey(&play, cast, &mut found)?;
    tracing::debug!(?found, "measured");
    Ok(found)
}

/// The first question that the judge was asked, as the model read it.
fn first_question(judged: &[Act], cast: &Cast) -> Option<String> {
    let (questions, _) = drawn(judged);
    cast.model.tokenizer().decode_whole(&questions.first()?.prompt).ok()
}

fn lengths(sampled: &[Act], judged: &[Act]) -> Lengths {
    let ((prompts, answers), (questions, replies)) = (drawn(sampled), drawn(judged));
    let (rubric, all) = shared(questions.iter().map(|q| q.prompt.as_slice()));
    Lengths {
        prompt: mean(prompts.iter().map(|request| request.prompt.len())),
        answer: mean(answers.into_iter()),
        rubric,
        question: all.saturating_sub(rubric) / questions.len().max(1),
        reply: mean(replies.into_iter()),
    }
}

/// What the process held at each stage's worst moment beyond what the estimate says of the
/// miniature.
fn excess(
    play: &RehearsedRun,
    cast: &Cast,
    lengths: Option<Lengths>,
    [sampled, judged, trained]: [&[Act]; 3],
    checkpoint: Option<Act>,
) -> [i64; 5] {
    let (model, kinds) = (cast.model.config(), Kinds::of(&cast.view));
    let outline = Outline { lengths, ..Outline::of(model, &play.config, kinds, &cast.device) };
    let MemoryNeeds { sampler, judge, reference, trainer, opening, .. } =
        outline.needs(Memory::Machine);
    let peak = |acts: &mut dyn Iterator<Item = &Act>| acts.map(|act| act.peak).max();
    let scores = |act: &&Act| act.calls.iter().any(|call| matches!(call, TimedCall::Scored { .. }));
    let over = |peak: Option<u64>, said: u64| peak.map_or(0, |peak| peak as i64 - said as i64);
    [
        over(peak(&mut sampled.iter()), sampler),
        over(peak(&mut judged.iter()), judge),
        over(peak(&mut trained.iter().filter(scores)), reference),
        over(peak(&mut trained.iter().filter(|act| !scores(act))), trainer),
        // Measuring begins with what training left behind.
        over(checkpoint.map(|act| act.peak), opening),
    ]
}

/// The policy that is measured, to be asked in token ids.
fn tokens(
    play: &RehearsedRun,
    cast: &Cast,
    policy: &PolicyRef,
) -> Result<Arc<dyn LanguageModel>, Error> {
    let opened = play.watched.tokens(policy, &cast.config.engine());
    Ok(opened.map_err(StageError::from)?)
}

/// Prices, by drawing a little more, and what the stages did beside it.
fn price(
    play: &RehearsedRun,
    cast: &Cast,
    (sampled, judged, trained): (&[Act], &[Act], &[Act]),
    found: &mut Measured,
) -> Result<(), Error> {
    let Some(policy) = play.view.base.clone() else { return Ok(()) };
    let model = tokens(play, cast, &policy)?;
    let live = live_max(cast.model.config(), cast.device.kind);
    let (sampling, judge) = (&cast.config.sampling, &cast.config.judge);
    let (mut requests, mut lengths) = drawn(sampled);
    if requests.is_empty() {
        // Another engine answers: that is measured as a whole. The policy answers where it is measured.
        let spent: f64 = sampled.iter().map(|act| act.seconds).sum();
        found.answered = Some(spent / play.prompts.max(1) as f64);
        let bound = found.bounds.unwrap_or_else(|| DrawBounds::of(&cast.config)).answer;
        (requests, lengths) = some_answers(model.as_ref(), cast, (play.prompts, bound))?;
    }
    let rows = (sampling.batch_prompts * sampling.candidates) as usize;
    let costs = prices(model.as_ref(), &requests, rows.min(live))?;
    let ratio_of_run = match found.answered {
        // The policy draws nothing there that could be held against its prices.
        Some(_) => 1.0,
        None => ratio(sampled, &costs, live, 0.0),
    };
    found.sampling = DrawingCost { prices: costs, ratio: ratio_of_run, lengths };
    let (questions, replies) = drawn(judged);
    let reads = judged.iter().flat_map(|act| &act.calls).filter_map(|call| match call {
        TimedCall::Read { contexts, seconds } => Some((contexts, *seconds)),
        _ => None,
    });
    let (tokens, seconds) = reads.fold((0, 0.0), |(tokens, all), (contexts, seconds)| {
        (tokens + shared(contexts.iter().map(Vec::as_slice)).1, all + seconds)
    });
    found.readout = if tokens > 0 { seconds / tokens as f64 } else { 0.0 };
    found.asked = questions.len() as f64;
    if questions.is_empty() {
        let spent: f64 = judged.iter().map(|act| act.seconds).sum();
        found.program = spent / play.prompts.max(1) as f64;
    } else {
        let few: Vec<DrawRequest> = questions.into_iter().take(2).collect();
        let rows = rows * judge.samples as usize;
        let costs = prices(model.as_ref(), &few, rows.min(live))?;
        let ratio = ratio(judged, &costs, live, seconds);
        let bound = found.bounds.unwrap_or_else(|| DrawBounds::of(&cast.config)).reply;
        let lengths = without_bound(&replies, bound, judge.max_new_tokens);
        if let Some(known) = &mut found.lengths {
            known.reply = mean(lengths.iter().copied());
        }
        found.judging = DrawingCost { prices: costs, ratio, lengths };
    }
    let scored = trained.iter().flat_map(|act| &act.calls).find_map(|call| match call {
        TimedCall::Scored { rows, seconds } => Some((*rows as f64, *seconds)),
        _ => None,
    });
    let one: Vec<(Vec<u32>, Vec<u32>)> =
        requests.iter().take(1).map(|r| (r.prompt.clone(), r.prompt.clone())).collect();
    let began = Instant::now();
    play.watched.logps(&policy, &one, &Cancel::default()).map_err(StageError::from)?;
    let rows = one.iter().map(|(prompt, _)| 2 * prompt.len()).sum::<usize>();
    let least = (rows as f64, began.elapsed().as_secs_f64());
    found.reference = CostLine::through(least, scored.unwrap_or(least));
    Ok(())
}

/// What the policy is asked for one answer to each of the first prompts, and the answers' lengths.
fn some_answers(
    model: &dyn LanguageModel,
    cast: &Cast,
    (most, bound): (usize, u32),
) -> Result<(Vec<DrawRequest>, Vec<usize>), Error> {
    let root = Seed::root(cast.config.seed);
    let (iteration, _) = super::upcoming(&cast.view);
    let request = |prompt: &Prompt| {
        let ids = model.encode_chat(&prompt.messages)?;
        let seed = prompt_seed(root, "sampler", iteration, &prompt.id);
        let prompt = Arc::new(Prepared { ids, ..Prepared::default() });
        let drawing = cast.config.sampling.drawing();
        let drawing = PlannedSampling { max_new_tokens: bound, ..drawing };
        let request = request(prompt, seed, 1, &drawing);
        Ok(draw_request(model, &request))
    };
    let requests = cast.prompts(most)?.iter().map(request).collect::<Result<Vec<_>, LmError>>()?;
    let drawn = model.draw(&requests, &Cancel::default())?;
    let lengths = drawn.iter().flatten().map(|c| c.token_ids.len()).collect();
    Ok((requests, lengths))
}

/// The lengths of answers to more prompts than were judged, one answer each: lengths differ from
/// prompt to prompt more than among the answers to one. They are those that the run itself would
/// draw.
fn survey(play: &RehearsedRun, cast: &Cast, found: &mut Measured) -> Result<(), Error> {
    let Some(policy) = &play.view.base else { return Ok(()) };
    let model = tokens(play, cast, policy)?;
    let most = SURVEYED.min(cast.config.prompts.per_iteration as usize);
    let bound = found.bounds.unwrap_or_else(|| DrawBounds::of(&cast.config)).answer;
    let (requests, lengths) = some_answers(model.as_ref(), cast, (most, bound))?;
    let lengths = without_bound(&lengths, bound, cast.config.sampling.max_new_tokens);
    let Some(known) = &mut found.lengths else { return Ok(()) };
    let (prompt, answer) =
        (mean(requests.iter().map(|r| r.prompt.len())), mean(lengths.iter().copied()));
    let more = |old: usize, by: i64| old.saturating_add_signed(by as isize);
    let (longer_prompt, longer_answer) =
        (prompt as i64 - known.prompt as i64, answer as i64 - known.answer as i64);
    // A question shows the prompt and the answer.
    known.question = more(known.question, longer_prompt + longer_answer);
    (known.prompt, known.answer) = (prompt, answer);
    let rows = found.preference.rows + (longer_prompt + 2 * longer_answer) as f64;
    found.preference.rows = rows.max(1.0);
    found.sampling.lengths = lengths;
    Ok(())
}
