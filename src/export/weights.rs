//! A policy as a model: a Hugging Face folder, a PEFT adapter, a GGUF file with an Ollama Modelfile.

use super::RunExport;
use super::card::{Card, adapter_card, model_card};
use super::manifest::Manifest;
use super::target::NewFolder;
use crate::domain::AdapterRef;
use crate::error::{Code, Error};
use crate::lm::gguf_write::{GgufDtype, write_gguf};
use crate::lm::model_files::ModelFiles;
use crate::lm::weights::{WeightDtype, Weights};
use crate::runtime::PolicyRow;
use crate::stage::StageError;
use serde_json::json;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

/// How the numbers of a model are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModelDtype {
    /// Exactly those that the run computed and measured with.
    #[default]
    F32,
    /// As the base's files say that the base was stored.
    Base,
    /// Rounded to 16 bits.
    F16,
    /// Rounded to 16 bits, of which 8 are the number's.
    Bf16,
}

/// How a Hugging Face folder is to be made.
#[derive(Clone, Debug)]
pub struct ModelWishes {
    /// How numbers are stored.
    pub dtype: ModelDtype,
    /// Largest shard, bytes.
    pub shard_bytes_max: u64,
    /// What the base is called, for the card; the run's files say it where this does not.
    pub base: Option<String>,
}

/// Shards are at most this large, as no file system and no mirror minds.
pub const SHARD_BYTES_MAX: u64 = 4 << 30;

impl Default for ModelWishes {
    fn default() -> ModelWishes {
        ModelWishes { dtype: ModelDtype::F32, shard_bytes_max: SHARD_BYTES_MAX, base: None }
    }
}

impl RunExport {
    /// Exports a policy as a Hugging Face folder, an adapter merged into it.
    ///
    /// # Errors
    /// When something is at `to`, the policy's weights are missing or damaged, or the disk refuses.
    pub fn model(
        &self,
        policy: &PolicyRow,
        to: &Path,
        wishes: &ModelWishes,
    ) -> Result<Manifest, Error> {
        let folder = NewFolder::begin(to)?;
        let (dtype, unsaid) = stored_as(wishes.dtype, &self.base()?.files);
        let weights = self.merged(policy)?;
        let mut manifest = self.manifest("model", Some(policy), dtype.hf_name().to_owned());
        manifest.notes.extend(unsaid);
        manifest.notes.extend(self.lost_to_rounding(policy, &weights, dtype)?);
        manifest.notes.extend(self.base()?.files.quantised_note());
        self.base()?.files.write_hf(folder.path(), &weights, dtype, wishes.shard_bytes_max)?;
        let base = wishes.base.clone().or_else(|| self.base_name());
        folder.write("README.md", model_card(&Card::of(self, policy, base, &manifest)))?;
        manifest.finish(folder)
    }

    /// Exports a policy's adapter as PEFT keeps one.
    ///
    /// # Errors
    /// As [`RunExport::model`]; [`Error::Refused`] of a policy without an adapter, and of one whose
    /// adapter lies on weights that the run made itself.
    pub fn adapter(
        &self,
        policy: &PolicyRow,
        to: &Path,
        base: Option<String>,
    ) -> Result<Manifest, Error> {
        let AdapterRef { weights, shape } = self.own_adapter(policy)?;
        let shape = shape.as_ref().or(self.view.adapters_of_old.as_ref()).ok_or_else(|| {
            let message = format!("what {}'s adapter is scaled by is not recorded", policy.name);
            Error::refused(Code::AdapterNotAlone, message)
        })?;
        let folder = NewFolder::begin(to)?;
        let base = base.or_else(|| self.base_name());
        let mut manifest = self.manifest("adapter", Some(policy), "float32".to_owned());
        if base.is_none() {
            manifest.notes.push(
                "the base's files do not say what it is called, so base_model_name_or_path is empty: \
                 load the base yourself, or export again with its name (--base)"
                    .to_owned(),
            );
        }
        manifest.notes.extend(self.base()?.files.quantised_note());
        let config = json!({
            "alpha_pattern": {},
            "auto_mapping": null,
            "base_model_name_or_path": base.clone().unwrap_or_default(),
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "lora_alpha": shape.alpha,
            "lora_dropout": 0.0,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": shape.r,
            "rank_pattern": {},
            "revision": null,
            "target_modules": shape.target_modules,
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": false,
        });
        folder.write("adapter_config.json", format!("{config:#}\n"))?;
        // It is kept as PEFT keeps it: its names, in F32.
        folder.write("adapter_model.safetensors", self.blobs.read(weights)?)?;
        folder.write("README.md", adapter_card(&Card::of(self, policy, base, &manifest)))?;
        manifest.finish(folder)
    }

    /// Exports a policy as `MODEL.gguf`, with a Modelfile for Ollama beside it.
    ///
    /// # Errors
    /// As [`RunExport::model`]; [`crate::lm::error::LmError`] where llama.cpp does not know such a
    /// network or tokenizer.
    pub fn gguf(&self, policy: &PolicyRow, to: &Path, dtype: GgufDtype) -> Result<Manifest, Error> {
        let folder = NewFolder::begin(to)?;
        let weights = self.merged(policy)?;
        let called = format!("{} {}", self.name(), policy.name);
        let mut manifest = self.manifest("gguf", Some(policy), dtype.name().to_owned());
        if let Some(rounded) = dtype.rounding() {
            manifest.notes.extend(self.lost_to_rounding(policy, &weights, rounded)?);
        }
        manifest.notes.extend(self.base()?.files.quantised_note());
        let path = folder.path().join(GGUF);
        let file = File::create(&path).map_err(|e| Error::io(&path, e))?;
        let mut file = BufWriter::new(file);
        write_gguf(&mut file, &self.base()?.files, &weights, dtype, &called)?;
        file.into_inner().map_err(|e| Error::io(&path, e.into_error()))?;
        folder.write("Modelfile", modelfile(&called, &self.base()?.files))?;
        let base = self.base_name();
        folder.write("README.md", model_card(&Card::of(self, policy, base, &manifest)))?;
        manifest.finish(folder)
    }

    fn merged(&self, policy: &PolicyRow) -> Result<Weights, Error> {
        Ok(self.base()?.local.merged(&policy.policy).map_err(StageError::from)?)
    }

    /// The adapter of a policy, which lies on the run's base.
    fn own_adapter<'a>(&self, policy: &'a PolicyRow) -> Result<&'a AdapterRef, Error> {
        let name = &policy.name;
        let refused = |why: String| Error::refused(Code::AdapterNotAlone, why);
        let Some(adapter) = &policy.policy.adapter else {
            let whole = format!("{name} has no adapter: all of its weights were trained");
            return Err(refused(format!("{whole}. Export the model instead")));
        };
        let base = self.view.base.as_ref();
        match base.is_some_and(|base| base.weights == policy.policy.weights) {
            true => Ok(adapter),
            false => Err(refused(format!(
                "{name}'s adapter lies on weights that the run made itself, and not on the base: on \
                 the base it would be another model. Export the model instead"
            ))),
        }
    }

    /// What rounding takes back of what training did, in a sentence.
    fn lost_to_rounding(
        &self,
        policy: &PolicyRow,
        weights: &Weights,
        dtype: WeightDtype,
    ) -> Result<Option<String>, Error> {
        let Some(base) = self.view.base.as_ref().filter(|base| **base != policy.policy) else {
            return Ok(None);
        };
        if dtype == WeightDtype::F32 {
            return Ok(None);
        }
        let before = self.base()?.local.merged(base).map_err(StageError::from)?;
        let moved = weights.moved_from(&before, dtype)?;
        if moved.moved == 0 {
            return Ok(None);
        }
        let share = 100.0 * moved.lost as f64 / moved.moved as f64;
        Ok(Some(format!(
            "rounded to {}: of {} numbers that training moved {share:.1} % are those of the base again. \
             Answers and figures of the run are those of float32",
            dtype.hf_name(),
            moved.moved,
        )))
    }
}

/// The GGUF file of an export.
const GGUF: &str = "model.gguf";

/// How numbers are to be stored, and what is to be said about it.
fn stored_as(wanted: ModelDtype, files: &ModelFiles) -> (WeightDtype, Option<String>) {
    match wanted {
        ModelDtype::F32 => (WeightDtype::F32, None),
        ModelDtype::F16 => (WeightDtype::F16, None),
        ModelDtype::Bf16 => (WeightDtype::Bf16, None),
        ModelDtype::Base => match files.stored_dtype() {
            Some(dtype) => (dtype, None),
            None => {
                let note = "the base's config.json does not say how its weights are stored; \
                            these are float32";
                (WeightDtype::F32, Some(note.to_owned()))
            }
        },
    }
}

/// What Ollama is told. It takes the chat template from the file.
fn modelfile(called: &str, files: &ModelFiles) -> String {
    let mut text = format!("# {called}: ollama create NAME -f Modelfile\nFROM ./{GGUF}\n");
    for id in files.stop_ids() {
        let specials = files.tokenizer().specials();
        if let Some((token, _)) = specials.iter().find(|(_, special)| *special == id) {
            text += &format!("PARAMETER stop {}\n", json!(token));
        }
    }
    text
}
