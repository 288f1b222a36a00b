//! What a run is given: settings, prompts, seed data, a model's character. A seed makes one world,
//! so two hundred seeds try two hundred settings.

use super::fake::{FakeBackend, FakeOracle, Temper, Verdict};
use super::flaky::Disk;
use crate::dice::Dice;
use gradus::config::{
    Config, GateMode, JudgeSource, OnFailure, PairRule, ReadoutMode, ReferenceRule,
};
use gradus::demo::writer::Tagged;
use gradus::domain::event::SeedRow;
use gradus::domain::plan::WriterPlan;
use gradus::domain::{
    Event, Message, Notes, Panel, PanelMember, PolicyRef, Prompt, PromptOrigin, RubricId, TaskKey,
    When,
};
use gradus::lm::cancel::Cancel;
use gradus::log::{Batch, Log};
use gradus::rubric::{Rubric, RubricEngine, RubricRegistry, bundled};
use gradus::stage::writer::numbered::Numbered;
use gradus::stage::{Ample, NoGauge, Oracle, StageContext};
use std::sync::{Arc, OnceLock};

/// What a run is given.
#[derive(Clone, Debug)]
pub struct World {
    /// The settings.
    pub config: Config,
    /// Those that the file has from the second iteration on, one for each; none: the same.
    pub later: Vec<Config>,
    /// Prompts to train on.
    pub given: u32,
    /// Prompts shown to the writer only.
    pub shown: u32,
    /// Prompts to measure with.
    pub held_out: u32,
    /// Rows of seed data; none skips the supervised iteration.
    pub seed_rows: u32,
    /// What the model is like.
    pub temper: Temper,
    /// Whether a program knows the truth.
    pub oracle: bool,
    /// What judges.
    pub panel: Panel,
    /// What comes with the n-th prompt of a kind.
    pub notes: fn(u32) -> Notes,
}

/// The rubrics that every world has installed: the demo's, one that compares, a program, and one
/// whose question this model does not understand.
fn rubrics() -> &'static [Rubric; 4] {
    static LOADED: OnceLock<[Rubric; 4]> = OnceLock::new();
    LOADED.get_or_init(|| {
        let engine = RubricEngine::new().unwrap();
        [bundled::DEMO_COMPACT, bundled::PAIRWISE, bundled::VERIFIER, bundled::ADDITIVE_FIVE]
            .map(|bytes| Rubric::load(&engine, bytes).unwrap())
    })
}

/// The demo's rubric.
pub fn demo() -> RubricId {
    rubrics()[0].id().clone()
}

/// The one that compares.
pub fn pairwise() -> RubricId {
    rubrics()[1].id().clone()
}

/// The program; it judges prompts with the tag `math`, which bring what it checks.
pub fn verifier() -> RubricId {
    rubrics()[2].id().clone()
}

/// The one that this model does not understand.
pub fn foreign() -> RubricId {
    rubrics()[3].id().clone()
}

fn member(rubric: RubricId, weight: f64, tags: &[&str]) -> PanelMember {
    PanelMember { rubric, weight, tags: tags.iter().map(|tag| (*tag).to_owned()).collect() }
}

fn panels() -> [Panel; 5] {
    let several = |members: Vec<PanelMember>| Panel::new(members).unwrap();
    [
        Panel::one(demo()),
        Panel::one(pairwise()),
        several(vec![member(demo(), 2.0, &[]), member(pairwise(), 1.0, &[])]),
        several(vec![member(demo(), 1.0, &[]), member(verifier(), 1.0, &["math"])]),
        several(vec![member(demo(), 1.0, &[]), member(pairwise(), 1.0, &["math"])]),
    ]
}

/// Panels that take another's place: one that compares, one that this model does not understand, and
/// two of both.
pub fn others() -> [Panel; 3] {
    let two = vec![member(pairwise(), 1.0, &[]), member(foreign(), 1.0, &["math"])];
    [Panel::one(pairwise()), Panel::one(foreign()), Panel::new(two).unwrap()]
}

/// Every other prompt is about numbers.
fn notes(at: u32) -> Notes {
    if at.is_multiple_of(2) {
        return Notes::default();
    }
    let fields = [("keywords:existence", "so"), ("length_constraints:number_words", "less than 5")];
    let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Notes { tags: vec!["math".to_owned()], fields: fields.into(), ..Notes::default() }
}

impl World {
    /// A small world in which pairs are made in every preference iteration.
    pub fn plain() -> World {
        // Failed iterations are among what is simulated.
        let on_failure = OnFailure::Continue;
        let mut config = Config { seed: 8, iterations: 3, on_failure, ..Config::default() };
        config.prompts.per_iteration = 6;
        config.sampling.candidates = 3;
        config.sampling.max_new_tokens = 32;
        config.sampling.batch_prompts = 2;
        config.judge.samples = 1;
        config.judge.max_new_tokens = 120;
        config.pairs.min_pairs = 1;
        config.train.save_steps = 2;
        config.train.sft.per_device_train_batch_size = 2;
        config.train.dpo.per_device_train_batch_size = 2;
        config.evaluate.prompts = 3;
        config.evaluate.judge_prompts = 2;
        config.evaluate.gate.mode = GateMode::Paper;
        World {
            config,
            later: Vec::new(),
            given: 16,
            shown: 2,
            held_out: 4,
            seed_rows: 6,
            temper: Temper {
                answers: 5,
                cut_off: 8,
                unreadable: 10,
                verdict: Verdict::Fair,
                skipped_steps: 10,
                short_steps: 0,
                learns: false,
            },
            oracle: false,
            panel: Panel::one(demo()),
            notes,
        }
    }

    /// The world of a seed.
    pub fn of(seed: u64) -> World {
        let mut dice = Dice(seed ^ 0x0077_6f72_6c64);
        let d = &mut dice;
        let mut world = World::plain();
        let c = &mut world.config;
        c.seed = seed;
        c.iterations = d.from(2, 4);
        c.prompts.per_iteration = d.from(3, 7);
        c.prompts.generate = d.chance(50);
        c.brought.writer = Some(d.pick(&[Tagged::NAME, WriterPlan::NUMBERED]).to_owned());
        c.prompts.draws_per_round = d.from(1, 4);
        c.prompts.rounds_max = d.from(1, 3);
        c.sampling.batch_prompts = d.from(1, 4);
        c.sampling.candidates = d.from(2, 4);
        c.judge.samples = d.from(1, 2);
        c.judge.readout = d.pick(&[ReadoutMode::Expected, ReadoutMode::Parsed]);
        let sources = [JudgeSource::Model, JudgeSource::Model, JudgeSource::Random];
        c.judge.source = d.pick(&sources);
        c.pairs.min_pairs = d.from(0, 3);
        c.pairs.min_gap = d.pick(&[0.0, 0.5]);
        c.pairs.length_control = d.pick(&[0.0, 0.0, 0.3]);
        c.pairs.noise = d.pick(&[0.0, 0.0, 1.0]);
        c.pairs.require_ended = d.chance(70);
        c.train.save_steps = d.from(1, 3);
        c.train.sft.per_device_train_batch_size = d.from(1, 4);
        c.train.dpo.per_device_train_batch_size = d.from(1, 3);
        c.train.dpo.num_train_epochs = d.from(1, 2);
        c.train.dpo.rehearsal_weight = d.pick(&[0.0, 0.3]);
        c.train.use_peft = d.chance(50);
        c.evaluate.prompts = d.from(0, 4);
        c.evaluate.gate.mode = d.pick(&[GateMode::Paper, GateMode::NotWorse, GateMode::Better]);
        world.given = d.from(2, 16);
        world.held_out = d.from(0, 5);
        world.seed_rows = if d.chance(60) { d.from(1, 7) } else { 0 };
        world.oracle = d.chance(30);
        world.panel = panels()[d.pick(&[0, 1, 2, 3, 4])].clone();
        world.temper = Temper {
            answers: d.pick(&[1, 2, 4, 8, 8, 8]),
            cut_off: d.pick(&[0, 8]),
            unreadable: d.pick(&[0, 10, 40]),
            verdict: d.pick(&[Verdict::Fair, Verdict::Fair, Verdict::Fair, Verdict::Fooled]),
            skipped_steps: d.pick(&[0, 10, 60, 95]),
            short_steps: d.pick(&[0, 0, 30]),
            learns: false,
        };
        if dice.chance(50) {
            world.change_settings(&mut dice);
        }
        world.config.pairs.rule =
            dice.pick(&[PairRule::BestWorst, PairRule::BestWorst, PairRule::Anchored]);
        let rule = world.config.pairs.rule;
        let references = [ReferenceRule::Previous, ReferenceRule::Initial, ReferenceRule::Ema];
        world.config.train.dpo.reference = dice.pick(&references);
        let reference = world.config.train.dpo.reference;
        for config in &mut world.later {
            config.pairs.rule = rule;
            config.train.dpo.reference = reference;
        }
        world
    }

    /// Settings that change from iteration to iteration, what is trained above all.
    pub fn change_settings(&mut self, dice: &mut Dice) {
        let mut config = self.config.clone();
        for _ in 1..self.config.iterations {
            let c = &mut config;
            match dice.below(8) {
                0 => c.train.use_peft = !c.train.use_peft,
                1 => c.train.lora_r = dice.from(1, 3),
                2 => c.train.lora_alpha = f64::from(dice.from(1, 100)),
                3 => c.train.dpo.learning_rate *= 2.0,
                4 => c.train.dpo.per_device_train_batch_size = dice.from(1, 3),
                5 => c.sampling.candidates = dice.from(2, 4),
                6 => c.judge.samples = dice.from(1, 2),
                _ => c.train.save_steps = dice.from(1, 3),
            }
            self.later.push(config.clone());
        }
    }

    /// The settings that an iteration is opened with.
    pub fn config_of(&self, iteration: u32) -> Config {
        let at = (iteration as usize).checked_sub(2);
        let config = at.and_then(|at| self.later.get(at)).unwrap_or(&self.config);
        Config { on_failure: self.config.on_failure, ..config.clone() }
    }

    /// A disk with a run that is created and has not begun; batches as `Folder::create` appends
    /// them, `RunStarted` last.
    pub fn create(&self) -> Disk {
        self.config.validate().unwrap();
        let disk = Disk::default();
        let mut prompts = Vec::new();
        for (n, origin) in [
            (self.given, PromptOrigin::Given),
            (self.shown, PromptOrigin::Demonstration),
            (self.held_out, PromptOrigin::HeldOut),
        ] {
            let prompt =
                |at| Prompt::user(format!("{origin:?} {at} ."), origin).noted((self.notes)(at));
            prompts.extend((0..n).map(prompt));
        }
        let mut last = Vec::new();
        if self.seed_rows > 0 {
            let row = |n: u32| SeedRow {
                messages: vec![Message::user(format!("row {n} ."))],
                completion: format!("{n} ."),
            };
            let lines = (0..self.seed_rows).map(|n| serde_json::to_string(&row(n)).unwrap());
            let blob = disk.blobs.put(lines.collect::<Vec<_>>().join("\n").as_bytes());
            last.push(Event::SeedDataAdmitted { name: "ift".into(), rows: self.seed_rows, blob });
        }
        let panel = self.panel.clone();
        last.push(Event::RubricActivated { panel, when: When::NextIteration, trial: None });
        let base = PolicyRef::full(disk.blobs.put(b"base"));
        let mut settings = self.config.recorded();
        // What a host does after a failure is nothing that a run came to.
        settings.as_object_mut().unwrap().remove("on_failure");
        last.push(Event::RunStarted { seed: self.config.seed, base, settings });
        let admitted = prompts.into_iter().map(|prompt| Event::PromptAdmitted { prompt }).collect();
        for (at, events) in [admitted, last].into_iter().enumerate() {
            let key = Some(TaskKey::of("create", &[&(at as u64).to_le_bytes()]));
            disk.log.append(Batch { key, events, cursor: None }).unwrap();
        }
        disk
    }

    /// What a process that opens the disk works with.
    pub fn context(&self, disk: &Disk, log: Arc<dyn Log>) -> StageContext {
        let rubrics = RubricRegistry::default();
        for rubric in self::rubrics() {
            rubrics.install(rubric.clone());
        }
        let oracle: Arc<dyn Oracle> = Arc::new(FakeOracle);
        StageContext {
            log,
            models: Arc::new(FakeBackend::backend(disk.blobs.clone(), self.temper)),
            blobs: Arc::new(disk.blobs.clone()),
            writer: match self.config.brought.writer.as_deref() {
                Some(Tagged::NAME) => Arc::new(Tagged),
                _ => Arc::new(Numbered),
            },
            rubrics: Arc::new(rubrics),
            oracle: self.oracle.then_some(oracle),
            cancel: Cancel::default(),
            gauge: Arc::new(NoGauge),
            headroom: Arc::new(Ample),
        }
    }
}
