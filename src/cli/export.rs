//! `gradus export`: what a run made, in the forms that other tools open.

use super::{ExitStatus, output};
use clap::{Args, Subcommand, ValueEnum};
use gradus::Error;
use gradus::domain::Iteration;
use gradus::export::{Manifest, ModelDtype, ModelWishes, PairsFormat, PromptState, RunExport};
use gradus::lm::gguf_write::GgufDtype;
use gradus::runtime::Folder;
use std::path::PathBuf;

/// What a run made, in the forms that other tools open.
#[derive(Subcommand)]
pub enum ExportVerb {
    /// A policy as a Hugging Face folder, for transformers, vLLM, llama.cpp's converter.
    Model(ModelArguments),
    /// A policy's LoRA adapter, for PEFT and vLLM.
    Adapter(AdapterArguments),
    /// A policy as a GGUF file with a Modelfile, for llama.cpp and Ollama.
    Gguf(GgufArguments),
    /// The pairs that were trained on, for TRL, axolotl, LLaMA-Factory.
    Pairs(PairsArguments),
    /// Every answer with everything that the judge said of it.
    Candidates(CandidatesArguments),
    /// The prompts, and what became of each.
    Prompts(PromptsArguments),
    /// The figures of every step and iteration: JSON lines, and TensorBoard's event files.
    Metrics(ExportPlace),
}

/// Where from and where to.
#[derive(Args)]
pub struct ExportPlace {
    /// The run's folder. A process may work on it meanwhile.
    dir: PathBuf,
    /// Where the export is made: a folder that is empty, or not there yet.
    #[arg(short, long)]
    out: PathBuf,
    /// Print the receipt (what was exported, every file with its SHA-256) as JSON.
    #[arg(long)]
    json: bool,
}

/// WhichPolicy policy.
#[derive(Args)]
pub struct WhichPolicy {
    /// latest, base, M2, or the beginning of a policy's hash.
    #[arg(long, default_value = "latest")]
    policy: String,
}

/// A policy as a Hugging Face folder.
#[derive(Args)]
pub struct ModelArguments {
    #[command(flatten)]
    place: ExportPlace,
    #[command(flatten)]
    which: WhichPolicy,
    /// How numbers are stored: f32 is exactly what the run measured, base is as the base was stored.
    #[arg(long, default_value = "f32")]
    dtype: DtypeChoice,
    /// What the base is called (its hub name), for the model card.
    #[arg(long)]
    base: Option<String>,
    /// The largest shard, in GiB.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1024))]
    max_shard_gib: u64,
}

/// A policy's LoRA adapter.
#[derive(Args)]
pub struct AdapterArguments {
    #[command(flatten)]
    place: ExportPlace,
    #[command(flatten)]
    which: WhichPolicy,
    /// What the base is called (a hub name or a folder), for `base_model_name_or_path`.
    #[arg(long)]
    base: Option<String>,
}

/// A policy as a GGUF file.
#[derive(Args)]
pub struct GgufArguments {
    #[command(flatten)]
    place: ExportPlace,
    #[command(flatten)]
    which: WhichPolicy,
    /// How matrices are stored.
    #[arg(long, default_value = "f16")]
    dtype: GgufChoice,
}

/// The pairs that were trained on.
#[derive(Args)]
pub struct PairsArguments {
    #[command(flatten)]
    place: ExportPlace,
    /// The form that rows have.
    #[arg(long, default_value = "trl")]
    format: FormChoice,
    /// Of this iteration alone.
    #[arg(long)]
    iteration: Option<u32>,
}

/// Every answer with its judgments.
#[derive(Args)]
pub struct CandidatesArguments {
    #[command(flatten)]
    place: ExportPlace,
    /// Of this iteration alone.
    #[arg(long)]
    iteration: Option<u32>,
}

/// The prompts.
#[derive(Args)]
pub struct PromptsArguments {
    #[command(flatten)]
    place: ExportPlace,
    /// Those alone that wait, were answered, are held out, or are shown to whoever writes new ones.
    #[arg(long)]
    state: Option<StateChoice>,
}

/// What became of a prompt.
#[derive(Clone, Copy, ValueEnum)]
pub enum StateChoice {
    Waiting,
    Answered,
    HeldOut,
    Demonstration,
}

impl From<StateChoice> for PromptState {
    fn from(state: StateChoice) -> PromptState {
        match state {
            StateChoice::Waiting => PromptState::Waiting,
            StateChoice::Answered => PromptState::Answered,
            StateChoice::HeldOut => PromptState::HeldOut,
            StateChoice::Demonstration => PromptState::Demonstration,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum DtypeChoice {
    F32,
    F16,
    Bf16,
    Base,
}

#[derive(Clone, Copy, ValueEnum)]
enum GgufChoice {
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8,
}

#[derive(Clone, Copy, ValueEnum)]
enum FormChoice {
    Trl,
    TrlImplicit,
    Kto,
    Axolotl,
    LlamaFactory,
}

impl From<DtypeChoice> for ModelDtype {
    fn from(dtype: DtypeChoice) -> ModelDtype {
        match dtype {
            DtypeChoice::F32 => ModelDtype::F32,
            DtypeChoice::F16 => ModelDtype::F16,
            DtypeChoice::Bf16 => ModelDtype::Bf16,
            DtypeChoice::Base => ModelDtype::Base,
        }
    }
}

impl From<GgufChoice> for GgufDtype {
    fn from(dtype: GgufChoice) -> GgufDtype {
        match dtype {
            GgufChoice::F32 => GgufDtype::F32,
            GgufChoice::F16 => GgufDtype::F16,
            GgufChoice::Bf16 => GgufDtype::Bf16,
            GgufChoice::Q8 => GgufDtype::Q8_0,
        }
    }
}

impl From<FormChoice> for PairsFormat {
    fn from(format: FormChoice) -> PairsFormat {
        match format {
            FormChoice::Trl => PairsFormat::Trl,
            FormChoice::TrlImplicit => PairsFormat::TrlImplicit,
            FormChoice::Kto => PairsFormat::Kto,
            FormChoice::Axolotl => PairsFormat::Axolotl,
            FormChoice::LlamaFactory => PairsFormat::LlamaFactory,
        }
    }
}

/// Runs the verb.
pub fn run(verb: &ExportVerb) -> Result<ExitStatus, Error> {
    let (place, manifest) = match verb {
        ExportVerb::Model(ModelArguments { place, which, dtype, base, max_shard_gib }) => {
            let (run, policy) = (open(place)?, &which.policy);
            let wishes = ModelWishes {
                dtype: (*dtype).into(),
                shard_bytes_max: max_shard_gib << 30,
                base: base.clone(),
            };
            (place, run.model(&run.policy(policy)?, &place.out, &wishes)?)
        }
        ExportVerb::Adapter(AdapterArguments { place, which, base }) => {
            let run = open(place)?;
            (place, run.adapter(&run.policy(&which.policy)?, &place.out, base.clone())?)
        }
        ExportVerb::Gguf(GgufArguments { place, which, dtype }) => {
            let run = open(place)?;
            (place, run.gguf(&run.policy(&which.policy)?, &place.out, (*dtype).into())?)
        }
        ExportVerb::Pairs(PairsArguments { place, format, iteration }) => {
            let run = open(place)?;
            (place, run.pairs(&place.out, (*format).into(), iteration.map(Iteration))?)
        }
        ExportVerb::Candidates(CandidatesArguments { place, iteration }) => {
            (place, open(place)?.candidates(&place.out, iteration.map(Iteration))?)
        }
        ExportVerb::Prompts(PromptsArguments { place, state }) => {
            (place, open(place)?.prompts(&place.out, state.map(PromptState::from))?)
        }
        ExportVerb::Metrics(place) => (place, open(place)?.metrics(&place.out)?),
    };
    match place.json {
        true => output::json(&manifest)?,
        false => output::text(&said(place, &manifest))?,
    }
    Ok(ExitStatus::Done)
}

fn open(place: &ExportPlace) -> Result<RunExport, Error> {
    RunExport::open(&Folder::at(&place.dir))
}

/// What was exported, for people.
fn said(place: &ExportPlace, manifest: &Manifest) -> String {
    let Manifest { kind, policy, rows, format, notes, files, .. } = manifest;
    let what = match (policy, rows) {
        (Some(policy), _) => format!("{} as {kind}, {format}", policy.name),
        (None, Some(rows)) => format!("{rows} rows of {kind}, {format}"),
        (None, None) => format!("{kind}, {format}"),
    };
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let mib = bytes as f64 / f64::from(1 << 20);
    let mut text = format!("{what}: {}, {mib:.1} MiB\n", place.out.display());
    for file in files {
        text += &format!("  {}  {}\n", file.sha256.get(..12).unwrap_or_default(), file.name);
    }
    text.extend(notes.iter().map(|note| format!("note: {note}\n")));
    text
}
