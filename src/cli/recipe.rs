//! The demo's recipe: the embedded base, the seed data of its world, the settings that were tuned
//! on other prompts than the ones that are reported, and the reduced form for tests.

use gradus::Error;
use gradus::config::{Config, ReadoutMode};
use gradus::demo::corpus::{SeedSizes, seed_data};
use gradus::demo::oracle;
use gradus::demo::writer::Tagged;
use gradus::domain::Seed;
use gradus::lm::model_files::ModelFiles;
use gradus::lm::weights::Weights;
use gradus::runtime::{Folder, NewRun};
use gradus::stage::{Oracle, PromptWriter};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const WEIGHTS: &[u8] = include_bytes!("../../assets/demo-base/model.safetensors");
const TEXTS: [(&str, &str); 3] = [
    ("config.json", include_str!("../../assets/demo-base/config.json")),
    ("tokenizer.json", include_str!("../../assets/demo-base/tokenizer.json")),
    ("tokenizer_config.json", include_str!("../../assets/demo-base/tokenizer_config.json")),
];

/// The held-out prompts that figures are reported on.
const REPORTED: u64 = 2026;
/// The held-out prompts that the recipe was tuned on.
const TUNED: u64 = 7;

/// How much of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecipeScale {
    /// Smaller numbers of everything, for tests.
    pub reduced: bool,
    /// The held-out prompts of tuning instead of the reported ones.
    pub tuning: bool,
}

/// The demo world's oracle.
pub struct WorldOracle;

impl Oracle for WorldOracle {
    fn score(&self, task: &str, completion: &str) -> Option<f64> {
        oracle::score(task, completion)
    }
}

/// Whether the folder's model is the demo's.
fn is_the_demos(folder: &Folder) -> bool {
    let theirs = std::fs::read_to_string(folder.model().join("tokenizer.json")).ok();
    theirs.as_deref() == TEXTS.get(1).map(|(_, ours)| *ours)
}

/// The oracle, when the folder's model is the demo's.
pub fn oracle_of(folder: &Folder) -> Option<Arc<dyn Oracle>> {
    is_the_demos(folder).then(|| Arc::new(WorldOracle) as Arc<dyn Oracle>)
}

/// How the demo's model is asked for prompts, when the folder's model is the demo's.
pub fn writer_of(folder: &Folder) -> Option<Arc<dyn PromptWriter>> {
    is_the_demos(folder).then(|| Arc::new(Tagged) as Arc<dyn PromptWriter>)
}

/// The settings.
pub fn config(seed: u64, scale: RecipeScale) -> Result<Config, Error> {
    let mut config = Config::preset("demo")?;
    config.seed = seed;
    if scale.reduced {
        config.prompts.per_iteration = 48;
        config.prompts.draws_per_round = 48;
        config.pairs.min_pairs = 4;
        // A judge of so few steps writes no scores and believes anything, and this is to show that
        // the loop turns.
        config.judge.readout = ReadoutMode::Forced;
        config.judge.forgery_gain_max = 1.0;
        config.rubrics.unparsed_max = 1.0;
        config.train.save_steps = 5;
        config.train.sft.num_train_epochs = 1;
        config.train.sft.warmup_steps = 1;
        config.train.dpo.warmup_steps = 1;
        config.evaluate.prompts = 24;
        // With so few, no win rate is known to a tenth.
        config.evaluate.gate.margin = 0.25;
        config.evaluate.judge_prompts = 6;
        config.sampling.batch_prompts = 16;
    }
    Ok(config)
}

fn sizes(scale: RecipeScale) -> SeedSizes {
    match scale.reduced {
        true => SeedSizes { ift: 100, eft: 200, held_out: 24 },
        false => SeedSizes { ift: 600, eft: 1000, held_out: 400 },
    }
}

/// The base: the embedded one, or another of the same world.
fn base(dir: Option<&Path>) -> Result<(ModelFiles, Weights), Error> {
    if let Some(dir) = dir {
        let files = ModelFiles::open(dir)?;
        let weights = files.weights()?;
        return Ok((files, weights));
    }
    let texts: BTreeMap<String, String> =
        TEXTS.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    Ok((ModelFiles::from_texts(texts)?, Weights::from_bytes(WEIGHTS)?))
}

/// A new run of the demo.
pub fn new_run(seed: u64, scale: RecipeScale, dir: Option<&Path>) -> Result<NewRun, Error> {
    let test = if scale.tuning { TUNED } else { REPORTED };
    let root = Seed::root(seed).derive("demo data");
    let data = seed_data(root, Seed::root(test), sizes(scale));
    let (model, weights) = base(dir)?;
    let mut prompts = data.demonstrations;
    prompts.extend(data.held_out);
    Ok(NewRun {
        config: config(seed, scale)?,
        model,
        weights,
        prompts,
        seed_data: vec![("ift".to_owned(), data.ift), ("eft".to_owned(), data.eft)],
        rubric: gradus::rubric::bundled::DEMO_COMPACT.to_vec(),
    })
}
