//! A whole small run with one port brought by the host and the others on this machine.

use super::fakes::{LengthScorer, STATE, StandingTrainer, TextEngine};
use super::small::{config, create, demo_base, first, run};
use crate::alone::alone;
use gradus::blob::BlobStore;
use gradus::config::ReadoutMode;
use gradus::domain::plan::{self, AnswersWith, NamedEngine};
use gradus::domain::{Event, StopReason};
use gradus::lm::model_files::ModelFiles;
use gradus::lm::policy::Vocabulary;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

#[path = "../../../examples/own_engine.rs"]
mod own_engine;

/// Text is trained on as the policy's tokenizer spells it, its own end of the turn included.
#[test]
fn an_engine_that_gives_text_alone_answers_and_judges_beside_the_trainer_here() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("run");
    create(&dir, config());
    let asked = Arc::new(AtomicU32::new(0));
    let engine = Arc::new(TextEngine { frozen: false, asked: asked.clone() });
    let records = run(&dir, |builder| builder.engine(engine)).unwrap();
    assert!(asked.load(Ordering::Relaxed) > 8);
    let plan = first(&records, |event| match event {
        Event::IterationStarted { plan, .. } => Some(plan.clone()),
        _ => None,
    });
    let plan::PlannedEngine::Named(NamedEngine { name, what, answers_with, .. }) =
        &plan.judge.engine
    else {
        panic!("{:?}", plan.judge.engine)
    };
    assert_eq!((name.as_str(), *answers_with), (NamedEngine::POLICY, AnswersWith::Policy));
    assert_eq!(what, "a fake that gives text");
    let model = ModelFiles::open(&demo_base()).unwrap();
    let mut answers = 0;
    for record in &records {
        let Event::CompletionsSampled { completions, prompt_ids, .. } = &record.event else {
            continue;
        };
        assert!(!prompt_ids.is_empty());
        for completion in completions {
            answers += 1;
            assert_eq!(completion.logp, None, "nobody said it");
            assert_eq!(completion.stop, StopReason::TurnEnd);
            let (end, words) = completion.token_ids.split_last().unwrap();
            assert_eq!(*end, model.turn_end());
            assert_eq!(words, model.chat().encode_text(&completion.text).unwrap());
            assert!(completion.text.starts_with("cat , dog"), "{}", completion.text);
        }
    }
    assert_eq!(answers, 8 * 4);
    let kinds: Vec<&str> = records.iter().map(|record| record.event.kind()).collect();
    for kind in ["pair_formed", "reference_scored", "step_taken", "checkpoint_promoted"] {
        assert!(kinds.contains(&kind), "no {kind}: {kinds:?}");
    }
}

/// What an engine lacks is said before anything begins.
#[test]
fn what_an_engine_cannot_do_is_refused_at_the_start() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("run");
    let mut settings = config();
    settings.judge.readout = ReadoutMode::Expected;
    create(&dir, settings);
    let refused = run(&dir, |builder| builder.engine(Arc::new(TextEngine::default())));
    let said = refused.err().unwrap().to_string();
    assert!(said.contains("GRADUS1001") && said.contains("judge.readout: expected"), "{said}");
    assert!(said.contains("judge.readout: parsed"), "{said}");
    let frozen = Arc::new(TextEngine { frozen: true, ..TextEngine::default() });
    let said = run(&dir, |builder| builder.engine(frozen)).err().unwrap().to_string();
    assert!(said.contains("weights of its own") && said.contains("named_engine"), "{said}");
    let dir = root.path().join("writes");
    let mut settings = config();
    settings.prompts.generate = true;
    create(&dir, settings);
    let refused = run(&dir, |builder| builder.engine(Arc::new(TextEngine::default())));
    let said = refused.err().unwrap().to_string();
    assert!(said.contains("GRADUS1001") && said.contains("prompts.generate: false"), "{said}");
}

#[test]
fn a_scorer_is_asked_about_both_sides_of_every_pair() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("run");
    let mut settings = config();
    settings.judge.readout = ReadoutMode::Forced;
    create(&dir, settings);
    let asked = Arc::new(AtomicU32::new(0));
    let scorer = Arc::new(LengthScorer(asked.clone()));
    let records = run(&dir, |builder| builder.scorer(scorer)).unwrap();
    let mut logps = Vec::new();
    for record in &records {
        if let Event::ReferenceScored { logps: some, .. } = &record.event {
            logps.extend(some.iter().flat_map(|one| [one.chosen, one.rejected]));
        }
    }
    assert_eq!(asked.load(Ordering::Relaxed) as usize, logps.len());
    assert!(
        !logps.is_empty() && logps.iter().all(|logp| (logp / -2.5).fract() == 0.0),
        "{logps:?}"
    );
}

#[test]
fn a_training_backend_saves_what_becomes_the_policy() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("run");
    let mut settings = config();
    settings.judge.readout = ReadoutMode::Forced;
    create(&dir, settings);
    let steps = Arc::new(AtomicU32::new(0));
    let blobs = BlobStore::open(&dir.join("blobs")).unwrap();
    let trainer = Arc::new(StandingTrainer { blobs, steps: steps.clone() });
    let records = run(&dir, |builder| builder.train_backend(trainer)).unwrap();
    let taken = records.iter().filter_map(|record| match &record.event {
        Event::StepTaken { metrics, .. } => Some(metrics.loss),
        _ => None,
    });
    let taken: Vec<f64> = taken.collect();
    assert_eq!(taken.len() as u32, steps.load(Ordering::Relaxed));
    assert!(!taken.is_empty() && taken.iter().all(|loss| *loss == 0.25));
    let base = first(&records, |event| match event {
        Event::RunStarted { base, .. } => Some(base.clone()),
        _ => None,
    });
    let (policy, optimizer) = first(&records, |event| match event {
        Event::CheckpointSaved { policy, optimizer, .. } => {
            Some((policy.clone(), optimizer.clone()))
        }
        _ => None,
    });
    assert_eq!(policy, base);
    assert_eq!(optimizer.as_str(), blake3::hash(STATE).to_hex().to_string());
}

/// The example: a judge that is no model, by the name that the settings call it.
#[test]
fn an_engine_of_ones_own_judges_by_its_name() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("run");
    let mut settings = config();
    settings.judge.engine = Some("counter".to_owned());
    create(&dir, settings);
    let counter = Arc::new(own_engine::Counter);
    let records = run(&dir, |builder| builder.named_engine("counter", counter)).unwrap();
    let judged = first(&records, |event| match event {
        Event::JudgmentsRecorded { judgments, .. } => Some(judgments.clone()),
        _ => None,
    });
    assert!(judged.iter().all(|judgment| judgment.text.contains("score : ")), "{judged:?}");
    assert!(judged.iter().all(|judgment| judgment.outcome.score().is_some()), "{judged:?}");
}
