//! Frozen models that the settings name: they answer or judge beside the run's own policy, the plan
//! records what they are, and another model under the same name is refused.

use super::small::{config, create, demo_base, first, judging, run};
use crate::alone::alone;
use gradus::config::{Config, DeviceChoice, EngineConfig, ReadoutMode};
use gradus::doctor::examine;
use gradus::domain::plan::{self, AnswersWith};
use gradus::domain::{BlobHash, Event, Message, PolicyRef};
use gradus::engine::candle::CandleEngine;
use gradus::engine::local::LocalModel;
use gradus::engine::{Engine, ModelBackend, PolicyTokens, memory_bytes};
use gradus::lm::device::select;
use gradus::lm::model_files::ModelFiles;
use gradus::lm::policy::Vocabulary;
use gradus::runtime::Folder;
use gradus::stage::{NoGauge, Stage};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/readout").join(name)
}

/// A run with a judge of the policy's own kind, and a sampler with another vocabulary.
fn of_frozen_models(root: &Path) -> PathBuf {
    let dir = root.join("run");
    copied(&demo_base(), &root.join("judge"));
    let mut settings = config();
    settings.judge.readout = ReadoutMode::Forced;
    for (name, model) in [("referee", "../judge".into()), ("stranger", golden("llama3"))] {
        settings.engines.insert(name.to_owned(), EngineConfig::Candle { model });
    }
    settings.judge.engine = Some("referee".to_owned());
    settings.sampling.engine = Some("stranger".to_owned());
    settings.sampling.max_new_tokens = 6;
    create(&dir, settings);
    dir
}

/// What answering and judging will take is foretold whoever does it, and so is the memory of both.
#[test]
fn the_doctor_foretells_engines_beside_the_runs_own() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = of_frozen_models(root.path());
    let device = select(DeviceChoice::Cpu).unwrap();
    let found = examine(&Folder::at(&dir), (None, None), &device, &|_| {}).unwrap();
    let time = found.time.expect("it fits");
    let seconds = &time.iterations[0].seconds_by_stage;
    for stage in ["sampler", "judge", "trainer", "evaluator"] {
        assert!(seconds[stage] > 0.0, "{stage}: {seconds:?}");
    }
    let settings = Config::from_yaml(&dir.join("gradus.yaml")).unwrap();
    let bytes = std::fs::metadata(demo_base().join("model.safetensors")).unwrap().len();
    let held = memory_bytes(&settings, &dir);
    // The judge's numbers are read as they are, or have half as many bytes in the file.
    assert!(held > bytes && held < 3 * bytes, "{held} of {bytes}");
}

/// A judge of the policy's own kind, and a sampler with another vocabulary.
#[test]
fn a_frozen_judge_and_a_frozen_sampler_are_named_in_the_settings() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = of_frozen_models(root.path());
    let records = run(&dir, |builder| builder).unwrap();
    let plan = first(&records, |event| match event {
        Event::IterationStarted { plan, .. } => Some(plan.clone()),
        _ => None,
    });
    let named = |engine: &plan::PlannedEngine| match engine {
        plan::PlannedEngine::Named(named) => named.clone(),
        _ => panic!("it is the run's own"),
    };
    let (judge, sampler) = (named(&plan.judge.engine), named(&plan.samples[0].engine));
    assert_eq!((judge.name.as_str(), judge.what.as_str()), ("referee", "candle llama"));
    assert_eq!(judge.answers_with, AnswersWith::Own);
    assert_eq!(
        judge.identity,
        CandleEngine::open(&demo_base()).unwrap().identity().hash,
        "the hash is of the files, wherever they lie"
    );
    assert_eq!(sampler.name, "stranger");
    let model = ModelFiles::open(&demo_base()).unwrap();
    let (mut answers, mut judged) = (0, 0);
    for record in &records {
        match &record.event {
            Event::CompletionsSampled { prompt_ids, completions, policy, prompt, .. } => {
                answers += completions.len();
                assert_eq!(*policy, plan.samples[0].engine.answers_as(&plan.policy));
                assert_ne!(*policy, plan.policy.id());
                let text = text_of(&records, prompt);
                let ours = model.chat().encode_chat(&[Message::user(text)]).unwrap();
                assert_eq!(*prompt_ids, ours, "the prompt as the policy reads it");
                for completion in completions {
                    assert_eq!(completion.logp, None);
                    let text = model.chat().decode(&completion.token_ids).unwrap();
                    assert_eq!(completion.text, text, "what is judged is what is trained on");
                }
            }
            Event::JudgmentsRecorded { judge, judgments, .. } => {
                judged += judgments.len();
                assert_eq!(*judge, plan.judge.engine.answers_as(&plan.policy));
            }
            _ => {}
        }
    }
    assert_eq!(answers, 8 * 4);
    assert!(judged >= 8, "{judged}");
}

fn text_of(records: &[gradus::log::Recorded], id: &gradus::domain::PromptId) -> String {
    first(records, |event| match event {
        Event::PromptAdmitted { prompt } if prompt.id == *id => Some(prompt.task_text().to_owned()),
        _ => None,
    })
}

#[test]
fn a_name_that_is_nobodys_and_a_model_that_is_not_there_are_refused_at_the_start() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("run");
    let mut settings = config();
    settings.judge.engine = Some("nobody".to_owned());
    create(&dir, settings.clone());
    let said = run(&dir, |builder| builder).err().unwrap().to_string();
    assert!(said.contains("GRADUS1004") && said.contains("judge.engine is \"nobody\""), "{said}");
    let dir = root.path().join("away");
    let model = "nowhere".into();
    settings.engines.insert("nobody".to_owned(), EngineConfig::Candle { model });
    create(&dir, settings);
    let said = run(&dir, |builder| builder).err().unwrap().to_string();
    assert!(said.contains("engines.nobody") && said.contains("GRADUS0101"), "{said}");
    let yaml = std::fs::read_to_string(dir.join("gradus.yaml")).unwrap();
    assert!(yaml.contains("engines:") && yaml.contains("kind: \"candle\""), "{yaml}");
}

/// What two models say does not compare.
#[test]
fn another_model_under_the_same_name_is_refused() {
    let root = tempfile::tempdir().unwrap();
    copied(&demo_base(), root.path());
    let opened = || Arc::new(CandleEngine::open(root.path()).unwrap());
    let before = opened();
    let files = Arc::new(ModelFiles::open(&demo_base()).unwrap());
    let blobs = Arc::new(gradus::blob::BlobStore::open(&root.path().join("blobs")).unwrap());
    let local = Arc::new(LocalModel::on(None, files.clone(), blobs));
    let models = ModelBackend::local(local, PolicyTokens::of(&files));
    let named = plan::PlannedEngine::Named(before.identity().named("referee"));
    let policy = PolicyRef::full(BlobHash("none".to_owned()));
    let ask = |models: &ModelBackend| models.answering(&policy, &named).map(drop);
    assert!(ask(&models.clone().with_named("referee", before)).is_ok());
    let refused = |models: &ModelBackend| {
        let error = ask(models).err().unwrap();
        error.code().says(error)
    };
    let said = refused(&models);
    assert!(said.contains("GRADUS1002") && said.contains("none of that name"), "{said}");
    let template = root.path().join("tokenizer_config.json");
    let text = std::fs::read_to_string(&template).unwrap();
    std::fs::write(&template, format!("{text}\n")).unwrap();
    let after = opened();
    assert_ne!(after.identity(), plan_identity(&named));
    let said = refused(&models.with_named("referee", after));
    assert!(said.contains("GRADUS1002") && said.contains("does not compare"), "{said}");
}

fn plan_identity(engine: &plan::PlannedEngine) -> gradus::engine::Identity {
    match engine {
        plan::PlannedEngine::Named(named) => gradus::engine::Identity {
            what: named.what.clone(),
            hash: named.identity.clone(),
            answers_with: named.answers_with,
        },
        _ => panic!("it is named"),
    }
}

/// A folder of the demo that was made before its writer was the host's: its settings are read, and
/// a host without that writer is told what is missing.
#[test]
fn a_demo_folder_of_old_opens_with_the_demos_writer_and_not_without() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("run");
    let mut settings = config();
    settings.prompts.generate = true;
    settings.prompts.per_iteration = 9;
    create(&dir, settings);
    let yaml = dir.join("gradus.yaml");
    let text = std::fs::read_to_string(&yaml).unwrap();
    assert!(!text.contains("writer:"), "it is no setting any more");
    let of_old = text.replacen("prompts:\n", "prompts:\n  writer: \"tagged\"\n", 1);
    assert_ne!(of_old, text);
    std::fs::write(&yaml, of_old).unwrap();
    let said = run(&dir, |builder| builder).err().unwrap().to_string();
    assert!(said.contains("GRADUS1005") && said.contains("Builder::prompt_writer"), "{said}");
    let writer = Arc::new(gradus::demo::writer::Tagged);
    let records = run(&dir, |builder| builder.prompt_writer(writer)).unwrap();
    let style = first(&records, |event| match event {
        Event::IterationStarted { plan, .. } => Some(plan.prompts.writer.clone().unwrap().style),
        _ => None,
    });
    assert_eq!(style, "tagged", "as it has always been recorded");
    assert!(!records.iter().any(|record| record.event.kind() == "settings_changed"));
    let wrote = |event: &Event| match event {
        Event::PromptsWritten { admitted, .. } => Some(*admitted),
        _ => None,
    };
    assert!(first(&records, wrote) >= 1);
}

/// A task says what it takes: a judge on this machine the device, one elsewhere the network, a
/// program nothing.
#[test]
fn who_judges_elsewhere_or_not_by_a_model_does_not_hold_the_device() {
    use super::fakes::TextEngine;
    use gradus::engine::Needs;
    use gradus::log::MemoryLog;
    use gradus::rubric::{Rubric, RubricEngine, RubricRegistry, bundled};
    use gradus::stage::judge::Judge;
    use gradus::stage::writer::numbered::Numbered;
    use gradus::stage::{Ample, StageContext};
    let root = tempfile::tempdir().unwrap();
    let files = Arc::new(ModelFiles::open(&demo_base()).unwrap());
    let blobs = Arc::new(gradus::blob::BlobStore::open(root.path()).unwrap());
    let local = Arc::new(LocalModel::on(None, files.clone(), blobs.clone()));
    let models = ModelBackend::local(local, PolicyTokens::of(&files));
    let elsewhere = Arc::new(TextEngine { frozen: true, ..TextEngine::default() });
    let models = models.with_named("elsewhere", elsewhere.clone());
    let registry = RubricRegistry::default();
    let engine = RubricEngine::new().unwrap();
    let asking = Rubric::load(&engine, bundled::DEMO_COMPACT).unwrap();
    let program = Rubric::load(&engine, bundled::VERIFIER).unwrap();
    assert!(!asking.is_a_program() && program.is_a_program());
    registry.install(asking.clone());
    registry.install(program.clone());
    let context = StageContext {
        log: Arc::new(MemoryLog::default()),
        models: Arc::new(models),
        blobs,
        writer: Arc::new(Numbered),
        rubrics: Arc::new(registry),
        oracle: None,
        cancel: Default::default(),
        gauge: Arc::new(NoGauge),
        headroom: Arc::new(Ample),
    };
    let needs = |rubric: &Rubric, named: Option<&str>| {
        let mut config = config();
        config.judge.engine = named.map(str::to_owned);
        config.brought.engines = context.models.named();
        let view = judging(&config, rubric);
        let (_, task) = Judge.next(&view).expect("answers wait for the judge");
        Judge.needs(&task, &view, &context)
    };
    assert_eq!(needs(&asking, None), Needs::Device);
    assert_eq!(needs(&asking, Some("elsewhere")), Needs::Network);
    assert_eq!(needs(&program, None), Needs::Nothing);
}
