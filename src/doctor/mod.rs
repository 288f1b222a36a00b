//! WHAT A RUN WILL TAKE, BEFORE IT DOES: peak memory and time, foretold from shapes and from a
//! miniature iteration of the run's own stages (`rehearsal`), which takes about a minute for a
//! model of 135 M parameters. Nothing of the run changes.
//!
//! Memory is the estimate of [`crate::estimate`], plus what the process held in the miniature beyond
//! that estimate of the miniature; of a GPU's memory, the estimate alone. Time is counts times prices:
//! tokens read, steps drawn and rows of each, rows trained (`forecast`). What is not known
//! beforehand: how long the answers of later policies are (today's are taken), and how many prompts
//! will give no pair.

mod bounds;
mod cost;
mod forecast;
mod machine;
mod measure;
mod rehearsal;
mod watch;

pub use forecast::IterationForecast;
pub use machine::Machine;

use crate::config::{Config, PoolForecast};
use crate::domain::Iteration;
use crate::domain::event::IterationKind;
use crate::engine;
use crate::error::Error;
use crate::estimate::{DiskNeeds, Kinds, Lengths, Memory, Outline, Remedy, parameters, remedies};
use crate::lm::device::{DeviceKind, SelectedDevice, free_memory};
use crate::lm::generate::live_max;
use crate::lm::model_files::ModelFiles;
use crate::lm::template::GenerationPrompt;
use crate::log::LogError;
use crate::rubric::{RubricEngine, RubricRegistry};
use crate::runtime::models::HostEngines;
use crate::runtime::{Folder, fold};
use crate::space::available_memory_bytes;
use crate::stage::judge::shown;
use crate::stage::{Oracle, PromptWriter};
use crate::view::RunView;
use forecast::{Forecast, Stock};
use measure::{Measured, measure};
use rehearsal::Cast;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// Answers that a probed prompt is asked about beside each other: three claims with two forgeries
/// each, the words that judges reward, and a repetition.
const PROBED_SHEETS: [usize; 5] = [3, 3, 3, 4, 2];

/// What one stage holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StageMemory {
    /// Which.
    pub stage: &'static str,
    /// Bytes.
    pub bytes: u64,
}

/// Memory, foretold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemoryForecast {
    /// By stage, in their order.
    pub stages: Vec<StageMemory>,
    /// The stage that holds most.
    pub peak_stage: &'static str,
    /// How much, bytes.
    pub peak_bytes: u64,
    /// What is free now, where the system says.
    pub available_bytes: Option<u64>,
    /// Whether it fits into that.
    pub fits: bool,
    /// What would fit, where it does not.
    pub remedies: Vec<Remedy>,
    /// Whether the process was measured, or shapes alone say it.
    pub measured: bool,
}

/// Time, foretold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TimeForecast {
    /// Every iteration that is left.
    pub iterations: Vec<IterationForecast>,
    /// Seconds of all of them.
    pub seconds: f64,
    /// Lengths that were seen, in tokens.
    pub lengths: Lengths,
}

/// What was found about a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diagnosis {
    /// The model's parameters.
    pub parameters: u64,
    /// The machine's memory.
    pub memory: MemoryForecast,
    /// The memory of the GPU, where one computes.
    pub device_memory: Option<MemoryForecast>,
    /// What the whole run takes of the disk at most.
    pub disk: DiskNeeds,
    /// Time; none where the run does not fit, for then nothing was measured.
    pub time: Option<TimeForecast>,
    /// How long the prompts last.
    pub pool: PoolForecast,
    /// The first prompt as the model reads it.
    pub first_prompt: Option<String>,
    /// The judge's first question as the model reads it; none where nothing was measured, or another
    /// engine judges.
    pub first_question: Option<String>,
    /// Seconds that finding out took.
    pub measured_seconds: f64,
}

/// The iteration that is under way, or else the next one.
fn upcoming(view: &RunView) -> (Iteration, IterationKind) {
    view.open().map_or_else(|| view.next_iteration(), |(iteration, open)| (iteration, open.kind))
}

impl Diagnosis {
    /// Whether the run fits into the memory that is free, of the machine and of the device.
    pub fn fits(&self) -> bool {
        self.memory.fits && self.device_memory.as_ref().is_none_or(|memory| memory.fits)
    }
}

/// The forecast of the GPU's memory, where one computes: by shapes, for it was not measured.
fn device_forecast(outline: &Outline<'_>, device: &SelectedDevice) -> Option<MemoryForecast> {
    let gpu = device.kind != DeviceKind::Cpu;
    gpu.then(|| memory_forecast(outline, Memory::Device, free_memory(device), None))
}

fn memory_forecast(
    outline: &Outline<'_>,
    memory: Memory,
    available_bytes: Option<u64>,
    found: Option<&Measured>,
) -> MemoryForecast {
    let needs = outline.needs(memory);
    let excess = found.map(|found| found.excess).unwrap_or_default();
    let stages: Vec<StageMemory> = needs
        .stages()
        .into_iter()
        .zip(excess)
        .map(|((stage, bytes), more)| StageMemory {
            stage,
            bytes: bytes.saturating_add_signed(more),
        })
        .collect();
    let worst = stages.iter().max_by_key(|stage| stage.bytes);
    let (peak_stage, peak_bytes) = worst.map_or(("", 0), |stage| (stage.stage, stage.bytes));
    let fits = available_bytes.is_none_or(|available| peak_bytes <= available);
    let remedies = match available_bytes.filter(|_| !fits) {
        Some(available) => remedies(outline, memory, available),
        None => Vec::new(),
    };
    let measured = found.is_some();
    MemoryForecast { stages, peak_stage, peak_bytes, available_bytes, fits, remedies, measured }
}

fn stock(cast: &Cast, oracle: bool) -> Stock {
    let view = &cast.view;
    let (next, kind) = upcoming(view);
    let asks = |n: usize| -> usize {
        let members = view.panel.iter().flat_map(|panel| panel.members());
        let rubrics = members.filter_map(|member| cast.rubrics.get(&member.rubric));
        rubrics.map(|rubric| shown(n, &rubric, cast.config.judge.comparisons_max).len()).sum()
    };
    let most = (cast.config.sampling.candidates as usize).max(4);
    Stock {
        next: (next.0, kind),
        unused: view.waiting(),
        answered: view.answered().count(),
        held_out: view.held_out().count(),
        seed_rows: view.seed_data.iter().map(|facts| facts.rows as usize).sum(),
        oracle,
        questions: (0..=most).map(asks).collect(),
        probes: PROBED_SHEETS.into_iter().map(asks).sum(),
        live_max: live_max(cast.model.config(), cast.device.kind),
    }
}

/// How long the prompts last that wait.
fn pool(cast: &Cast) -> PoolForecast {
    let (view, supervised) = (&cast.view, upcoming(&cast.view).1 == IterationKind::Sft);
    cast.config.pool_lasts(view.waiting(), view.finished(), u32::from(supervised))
}

/// The first prompt as the model reads it.
fn first_prompt(cast: &Cast) -> Option<String> {
    let prompt = cast.prompts(1).ok()?.pop()?;
    cast.model.template().render(&prompt.messages, GenerationPrompt::Open).ok()
}

fn cast(
    folder: &Folder,
    writer: Option<Arc<dyn PromptWriter>>,
    device: &SelectedDevice,
) -> Result<Cast, Error> {
    if let Some(pid) = folder.holder() {
        // Two would disturb each other: neither the figures nor the run would be worth anything.
        return Err(LogError::InUse { path: folder.path().to_owned(), pid }.into());
    }
    let log = folder.read_log()?;
    let view = fold(&log)?;
    let rubrics: Arc<RubricRegistry> = folder.open_rubrics(&RubricEngine::new()?)?;
    let mut config = Config::from_yaml(&folder.config())?;
    let writer = HostEngines { writer, ..HostEngines::default() }.writer(&mut config)?;
    let model = Arc::new(ModelFiles::open(&folder.model())?);
    config.validate_for(model.config()).map_err(|error| error.at(&folder.config()))?;
    config.brought.memory_bytes = engine::memory_bytes(&config, folder.path());
    let (log, device) = (Arc::new(log), device.clone());
    Ok(Cast { config, model, view, log, rubrics, device, writer })
}

/// Foretells a run that nobody works on, and that computes on `device`, as a host would start it that
/// brings this oracle and this prompt writer. What shapes alone say does not fit is not measured.
/// `tell` hears what is being done, for it takes about a minute.
///
/// # Errors
/// [`Error::NoRun`], [`LogError::InUse`] beside a process that works on the run, or what a stage
/// says that cannot do its work.
pub fn examine(
    folder: &Folder,
    (oracle, writer): (Option<&dyn Oracle>, Option<Arc<dyn PromptWriter>>),
    device: &SelectedDevice,
    tell: &dyn Fn(&str),
) -> Result<Diagnosis, Error> {
    let began = Instant::now();
    let cast = cast(folder, writer, device)?;
    let (model, config) = (cast.model.config(), &cast.config);
    let outline = Outline::of(model, config, Kinds::of(&cast.view), device);
    let machine = available_memory_bytes();
    let bare = Diagnosis {
        parameters: parameters(model),
        memory: memory_forecast(&outline, Memory::Machine, machine, None),
        device_memory: device_forecast(&outline, device),
        disk: outline.disk(cast.view.seed_data.iter().map(|set| set.rows as usize).sum()),
        time: None,
        pool: pool(&cast),
        first_prompt: first_prompt(&cast),
        first_question: None,
        measured_seconds: began.elapsed().as_secs_f64(),
    };
    if !bare.fits() {
        return Ok(bare);
    }
    let mut found = measure(&cast, folder, tell)?;
    let stock = stock(&cast, oracle.is_some());
    let tried = found.paired.0
        * stock.questions.get(config.sampling.candidates as usize).copied().unwrap_or(0);
    found.asked = if tried == 0 { 0.0 } else { found.asked / tried as f64 };
    let lengths = found.lengths.unwrap_or_else(|| Lengths::most(config));
    let outline = Outline { lengths: Some(lengths), ..outline };
    let machine = available_memory_bytes();
    let memory = memory_forecast(&outline, Memory::Machine, machine, Some(&found));
    let left = config.iterations.saturating_sub(cast.view.finished());
    let iterations = Forecast { config, stock: &stock, found: &found }.iterations(left);
    let seconds = iterations.iter().map(|iteration| iteration.seconds).sum();
    Ok(Diagnosis {
        memory,
        device_memory: device_forecast(&outline, device),
        time: Some(TimeForecast { iterations, seconds, lengths }),
        first_question: found.question.take(),
        measured_seconds: began.elapsed().as_secs_f64(),
        ..bare
    })
}
