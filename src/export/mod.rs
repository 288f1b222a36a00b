//! EXPORT: what a run made, in the forms that other tools open without a converter: a Hugging Face
//! folder, a PEFT adapter, a GGUF file, preference data. Reads a run and changes nothing in it, beside a
//! process that works on it too. Every export is a folder of its own, whole or not there, with a
//! receipt in it (`gradus.json`) that says where each file is from.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `target` | the folder that is made: beside its place, and renamed |
//! | `manifest` | what was exported, with hashes |
//! | `card` | `README.md` of a model or an adapter |
//! | `weights` | the model, its adapter, its GGUF |
//! | `pairs`, `preference` | the pairs that were trained on, and the forms they can take |
//! | `parquet` | rows as Parquet |
//! | `answers` | every answer with every judgment; a pair as it is shown |
//! | `evidence` | the texts that a report shows |
//! | `prompts` | every prompt, and what became of it |
//! | `metrics` | what each step and iteration came to |

mod answers;
mod card;
mod evidence;
mod manifest;
mod metrics;
mod pairs;
mod parquet;
mod preference;
mod prompts;
mod target;
mod weights;

pub use crate::report::RecordedVerdict;
pub use answers::{AnsweredPrompt, JudgedAnswer, PairSummary};
pub use manifest::{ExportedFile, Manifest};
pub use pairs::PairsFormat;
pub use prompts::{PromptState, PromptSummary};
pub use weights::{ModelDtype, ModelWishes};

use crate::blob::BlobStore;
use crate::config::Config;
use crate::engine::local::LocalModel;
use crate::error::{Code, Error};
use crate::lm::model_files::ModelFiles;
use crate::log::JournalLog;
use crate::report::Report;
use crate::runtime::{Folder, PolicyRow, find_policy, fold, identity};
use crate::view::RunView;
use std::sync::{Arc, OnceLock};

/// A run, opened to be exported from.
pub struct RunExport {
    folder: Folder,
    view: RunView,
    log: JournalLog,
    blobs: Arc<BlobStore>,
    /// Opened when something needs it: pairs and figures do not.
    base: OnceLock<ExportBase>,
}

/// The base's files, and the model that they describe.
struct ExportBase {
    files: Arc<ModelFiles>,
    local: LocalModel,
}

impl RunExport {
    /// Opens a run for reading.
    ///
    /// # Errors
    /// When the folder holds no run, or its log cannot be read.
    pub fn open(folder: &Folder) -> Result<RunExport, Error> {
        let log = folder.read_log()?;
        let (view, blobs) = (fold(&log)?, folder.blobs());
        Ok(RunExport { folder: folder.clone(), view, log, blobs, base: OnceLock::new() })
    }

    /// The base.
    ///
    /// # Errors
    /// When its files or the settings cannot be read, or they are not those that the run began with.
    fn base(&self) -> Result<&ExportBase, Error> {
        if let Some(known) = self.base.get() {
            return Ok(known);
        }
        let config = Config::from_yaml(&self.folder.config())?;
        let files = Arc::new(ModelFiles::open(&self.folder.model())?);
        identity::check_model(&self.view, &files, &self.folder)?;
        let local = LocalModel::on(None, files.clone(), self.blobs.clone())
            .with_adapters_of_old(identity::adapters_of_old(&self.view, &config));
        Ok(self.base.get_or_init(|| ExportBase { files, local }))
    }

    /// The policy that a person means: `latest`, `base`, `M2`, or the beginning of its hash.
    ///
    /// # Errors
    /// [`Error::Refused`] with the names that there are.
    pub fn policy(&self, wanted: &str) -> Result<PolicyRow, Error> {
        if self.view.policy.is_none() {
            let message = "the run has not started, so it has no policy that could be exported";
            return Err(Error::refused(Code::RunNotBegun, message));
        }
        find_policy(&self.view, wanted)
    }

    /// The figures of the run.
    pub fn report(&self) -> Report {
        Report::of(&self.view)
    }

    /// What the run is called: its folder's name.
    fn name(&self) -> String {
        let path = self.folder.path();
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        real.file_name()
            .map_or_else(|| "run".to_owned(), |name| name.to_string_lossy().into_owned())
    }

    /// What its base is called, where its files say it.
    fn base_name(&self) -> Option<String> {
        let config: serde_json::Value =
            serde_json::from_str(self.base().ok()?.files.text("config.json")?).ok()?;
        let name = config.get("_name_or_path")?.as_str()?;
        (!name.is_empty()).then(|| name.to_owned())
    }
}
