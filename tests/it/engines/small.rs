//! A small run in this process: the demo's base, eight prompts of its world, one preference
//! iteration.

use gradus::Error;
use gradus::config::{Config, DeviceChoice, GateMode, PlanInputs, ReadoutMode, ReferenceRule};
use gradus::demo::corpus::{SeedSizes, seed_data};
use gradus::domain::event::IterationKind;
use gradus::domain::{
    BlobHash, Completion, Event, Iteration, Panel, PolicyRef, Prompt, PromptOrigin, Seed,
    StopReason, When,
};
use gradus::lm::cancel::Cancel;
use gradus::lm::model_files::ModelFiles;
use gradus::log::{Batch, Log, MemoryLog, Recorded};
use gradus::rubric::{Rubric, bundled};
use gradus::runtime::{Builder, Folder, Goal, NewRun, Runtime, WaitOutcome};
use gradus::view::RunView;
use std::path::{Path, PathBuf};

/// The demo's base.
pub fn demo_base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-base")
}

/// Settings under which every chunk is small and every checkpoint passes.
pub fn config() -> Config {
    let mut config = Config::preset("demo").unwrap();
    config.iterations = 1;
    config.device = DeviceChoice::Cpu;
    config.prompts.per_iteration = 8;
    config.prompts.generate = false;
    config.sampling.batch_prompts = 4;
    config.sampling.candidates = 4;
    config.judge.samples = 1;
    config.judge.readout = ReadoutMode::Parsed;
    (config.judge.probes, config.judge.probes_max) = (0, 0);
    (config.pairs.min_pairs, config.pairs.noise, config.pairs.min_gap) = (1, 0.0, 0.0);
    config.pairs.require_ended = false;
    config.train.save_steps = 2;
    config.train.dpo.per_device_train_batch_size = 4;
    config.train.dpo.num_train_epochs = 1;
    // So that the reference's figures need not be those of the policy.
    config.train.dpo.reference = ReferenceRule::Initial;
    config.train.dpo.rehearsal_weight = 0.0;
    (config.evaluate.prompts, config.evaluate.judge_prompts) = (4, 0);
    config.evaluate.gate.mode = GateMode::Paper;
    config
}

/// A new run with these settings.
pub fn create(dir: &Path, config: Config) -> Folder {
    let sizes = SeedSizes { ift: 8, eft: 1, held_out: 4 };
    let data = seed_data(Seed::root(5), Seed::root(6), sizes);
    let given = data.demonstrations.iter().map(|prompt| prompt.task_text().to_owned());
    let mut prompts: Vec<Prompt> =
        given.map(|text| Prompt::user(text, PromptOrigin::Given)).collect();
    prompts.truncate(8);
    assert_eq!(prompts.len(), 8);
    prompts.extend(data.held_out);
    let model = ModelFiles::open(&demo_base()).unwrap();
    let weights = model.weights().unwrap();
    let (seed_data, rubric) = (Vec::new(), bundled::DEMO_COMPACT.to_vec());
    let folder = Folder::at(dir);
    folder.create(&NewRun { config, model, weights, prompts, seed_data, rubric }).unwrap();
    folder
}

/// Works until the iterations are over, with what `host` brings.
pub fn run(dir: &Path, host: impl FnOnce(Builder) -> Builder) -> Result<Vec<Recorded>, Error> {
    let runtime = host(Runtime::builder(dir)).start_blocking()?;
    let outcome = runtime.wait_blocking(Goal::Iterations, &Cancel::default(), |_| {})?;
    runtime.shutdown_blocking();
    assert_eq!(outcome, WaitOutcome::Reached);
    let log = Folder::at(dir).read_log()?;
    Ok(log.read(gradus::domain::Offset(0), 100_000)?)
}

/// The first event of a kind.
pub fn first<T>(records: &[Recorded], find: impl Fn(&Event) -> Option<T>) -> T {
    records.iter().find_map(|record| find(&record.event)).expect("there is one")
}

/// What is known when two answers to one prompt wait to be judged under a rubric.
pub fn judging(config: &Config, rubric: &Rubric) -> RunView {
    let base = PolicyRef::full(BlobHash("base".to_owned()));
    let panel = Panel::one(rubric.id().clone());
    let (kind, policy) = (IterationKind::Dpo, &base);
    let inputs =
        PlanInputs { kind, policy, initial: policy, mean: policy, panel: &panel, seed_data: &[] };
    let prompt = Prompt::user("name a cat .", PromptOrigin::Given);
    let (iteration, id) = (Iteration(1), prompt.id.clone());
    let answer = |text: &str| Completion {
        token_ids: vec![text.len() as u32],
        text: text.to_owned(),
        logp: None,
        stop: StopReason::TurnEnd,
    };
    let events = vec![
        Event::PromptAdmitted { prompt },
        Event::RubricActivated { panel: panel.clone(), when: When::NextIteration, trial: None },
        Event::RunStarted { seed: 1, base: base.clone(), settings: config.recorded() },
        Event::IterationStarted { iteration, plan: Box::new(config.plan(&inputs)) },
        Event::PromptsSealed { iteration, prompts: vec![id.clone()], left: 0 },
        Event::CompletionsSampled {
            iteration,
            prompt: id,
            policy: base.id(),
            completions: vec![answer("cat ."), answer("a cat .")],
            set: "policy".to_owned(),
            prompt_ids: vec![1],
        },
    ];
    let log = MemoryLog::default();
    log.append(Batch { key: None, events, cursor: None }).unwrap();
    let mut view = RunView::default();
    for record in log.read(gradus::domain::Offset(0), 100).unwrap() {
        view.apply(&record);
    }
    view
}
