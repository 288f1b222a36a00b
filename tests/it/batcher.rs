//! Answers that several callers want at the same time: they join, they go, and what fails fails for those
//! in hand alone.

use gradus::domain::{Completion, Message, Seed, StopReason};
use gradus::engine::batcher::{Batcher, DrawEvent, DrawnAnswers};
use gradus::lm::cancel::Cancel;
use gradus::lm::error::LmError;
use gradus::lm::foreground::Foreground;
use gradus::lm::generate::{DrawRequest, DrawSource, Drawn, Sampling, ToldToken};
use gradus::lm::policy::{LanguageModel, Vocabulary};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a prompt begins with that makes the model fail, or panic.
const FAILS: u32 = 8;
const PANICS: u32 = 9;

/// Gives each sequence the tokens 1, 2, 3, ... up to its bound, one a step, all of them together.
#[derive(Default)]
struct Counting {
    /// The most sequences that took a step together.
    together: AtomicUsize,
}

impl Vocabulary for Counting {
    fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>, LmError> {
        Ok(vec![messages.len() as u32])
    }

    fn encode_text(&self, text: &str) -> Result<Vec<u32>, LmError> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn encode_template(&self, text: &str) -> Result<Vec<u32>, LmError> {
        self.encode_text(text)
    }

    fn decode(&self, ids: &[u32]) -> Result<String, LmError> {
        Ok(ids.iter().map(|id| format!("{id} ")).collect())
    }

    fn turn_end(&self) -> u32 {
        0
    }

    fn stop_ids(&self) -> &[u32] {
        &[0]
    }

    fn context_tokens_max(&self) -> usize {
        64
    }
}

impl LanguageModel for Counting {
    fn draw(&self, _: &[DrawRequest], _: &Cancel) -> Result<Vec<Vec<Completion>>, LmError> {
        Err(LmError::Model("it draws for many alone".to_owned()))
    }

    fn draw_continuously(
        &self,
        source: &mut dyn DrawSource,
        cancel: &Cancel,
    ) -> Result<(), LmError> {
        let (mut live, mut came) = (Vec::<(usize, usize, u32, u32)>::new(), 0);
        loop {
            cancel.check()?;
            let Some(requests) = source.next(100, live.is_empty()) else { return Ok(()) };
            for request in requests {
                match request.prompt.first() {
                    None => source.refused(came, LmError::Model("an empty prompt".to_owned())),
                    Some(&FAILS) => return Err(LmError::Model("it fails".to_owned())),
                    Some(&PANICS) => panic!("it panics"),
                    Some(_) => {
                        let most = request.sampling.max_new_tokens as u32;
                        live.extend((0..request.seeds.len()).map(|n| (came, n, 0, most)));
                    }
                }
                came += 1;
            }
            self.together.fetch_max(live.len(), Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(1));
            live.retain_mut(|(request, candidate, at, most)| {
                *at += 1;
                let (request, candidate) = (*request, *candidate);
                if !source.token(ToldToken { request, candidate, id: *at, logp: Some(-1.0) }) {
                    return false;
                }
                if at == most {
                    let token_ids = (1..=*most).collect();
                    let drawn =
                        Drawn { token_ids, logp: -f64::from(*most), stop: StopReason::Length };
                    source.ended(request, candidate, drawn);
                }
                at < most
            });
        }
    }

    fn choice_logps(
        &self,
        _: &[Vec<u32>],
        _: &[Vec<u32>],
        _: &Cancel,
    ) -> Result<Vec<Vec<f64>>, LmError> {
        Ok(Vec::new())
    }
}

fn request(first: Option<u32>, answers: u64, tokens: usize) -> DrawRequest {
    DrawRequest {
        prompt: first.into_iter().collect(),
        seeds: (0..answers).map(Seed::root).collect(),
        sampling: Sampling {
            temperature: 1.0,
            top_p: 1.0,
            top_k: None,
            min_p: None,
            repetition_penalty: 1.0,
            max_new_tokens: tokens,
            stop_ids: vec![0],
        },
    }
}

/// What came of each answer: its tokens, and whether it is whole; and why all of it failed.
fn gathered(mut drawn: DrawnAnswers, answers: usize) -> (Vec<(Vec<u32>, bool)>, Option<String>) {
    let mut all = vec![(Vec::new(), false); answers];
    while let Some(event) = drawn.next_blocking() {
        match event {
            DrawEvent::Token { candidate, id, logp } => {
                assert_eq!(logp, Some(-1.0));
                all[candidate].0.push(id);
            }
            DrawEvent::Ended { candidate, drawn } => {
                assert_eq!(drawn.token_ids, all[candidate].0);
                all[candidate].1 = true;
            }
            DrawEvent::Failed(why) => return (all, Some(why.to_string())),
        }
    }
    (all, None)
}

fn idle(batcher: &Batcher) {
    let since = Instant::now();
    while batcher.waiting() + batcher.drawing() > 0 {
        assert!(since.elapsed() < Duration::from_secs(10), "it is not idle again");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn who_comes_later_joins_and_who_goes_is_given_up() {
    let model = Arc::new(Counting::default());
    let batcher = Batcher::start(model.clone(), Foreground::default()).unwrap();
    let long = batcher.draw(request(Some(1), 2, 60));
    std::thread::sleep(Duration::from_millis(10));
    let (short, failed) = gathered(batcher.draw(request(Some(1), 3, 5)), 3);
    assert!(failed.is_none() && short.iter().all(|(ids, whole)| *whole && ids.len() == 5));
    long.give_up(1);
    let (all, failed) = gathered(long, 2);
    assert!(failed.is_none());
    assert!(all[0].1 && all[0].0.len() == 60, "the other goes on to its end");
    assert!(!all[1].1 && all[1].0.len() < 60, "nobody wanted the rest");
    assert_eq!(model.together.load(Ordering::Relaxed), 5, "they took their steps together");
    drop(batcher.draw(request(Some(1), 1, 1_000_000)));
    idle(&batcher);
}

#[test]
fn what_fails_fails_for_those_in_hand_alone() {
    let batcher = Batcher::start(Arc::new(Counting::default()), Foreground::default()).unwrap();
    for (first, wanted) in [(Some(FAILS), "it fails"), (Some(PANICS), "panicked")] {
        let beside = batcher.draw(request(Some(1), 1, 1_000_000));
        std::thread::sleep(Duration::from_millis(5));
        let (_, failed) = gathered(batcher.draw(request(first, 1, 5)), 1);
        assert!(failed.unwrap().contains(wanted));
        assert!(gathered(beside, 1).1.unwrap().contains(wanted), "it was in hand, too");
        let (after, failed) = gathered(batcher.draw(request(Some(1), 1, 5)), 1);
        assert!(failed.is_none() && after[0].1, "who comes after it is answered");
    }
    let beside = batcher.draw(request(Some(1), 1, 30));
    let (_, failed) = gathered(batcher.draw(request(None, 1, 5)), 1);
    assert!(failed.unwrap().contains("an empty prompt"));
    assert!(gathered(beside, 1).0[0].1, "a request that is refused is nothing to the others");
    let cut = batcher.draw(request(Some(1), 2, 1_000_000));
    std::thread::sleep(Duration::from_millis(5));
    batcher.cancel();
    assert!(gathered(cut, 2).1.is_some(), "whoever waits is told");
    idle(&batcher);
}

#[test]
fn work_behind_it_waits_while_it_draws() {
    let foreground = Foreground::default();
    let batcher = Batcher::start(Arc::new(Counting::default()), foreground.clone()).unwrap();
    let work = Cancel::behind(&foreground);
    let task = work.child();
    let steps = |count: u32| {
        let began = Instant::now();
        for _ in 0..count {
            task.check().unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        began.elapsed()
    };
    let answers = batcher.draw(request(Some(1), 1, 1_000_000));
    std::thread::sleep(Duration::from_millis(10));
    let beside = steps(10);
    drop(answers);
    // Each look waits a fiftieth of a second at least, whatever the machine.
    assert!(beside >= Duration::from_millis(190), "it gives way: {beside:?}");
    idle(&batcher);
}
