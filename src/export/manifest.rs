//! The receipt of an export: what was exported, of which run and policy, and every file with its hash.

use super::RunExport;
use super::target::NewFolder;
use crate::error::Error;
use crate::runtime::PolicyRow;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Where the receipt lies in an export.
const FILE: &str = "gradus.json";

/// A file of an export.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExportedFile {
    /// Its name in the folder.
    pub name: String,
    /// How long it is.
    pub bytes: u64,
    /// Its SHA-256, as `sha256sum` prints it.
    pub sha256: String,
}

/// What was exported.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Manifest {
    /// `model`, `adapter`, `gguf`, `pairs`.
    pub kind: &'static str,
    /// The name of the run's folder.
    pub run: String,
    /// The policy, where it is one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyRow>,
    /// Its id, under which the run's log knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<String>,
    /// Records of the log that it was made of.
    pub records: u64,
    /// How numbers are stored, or which form rows have.
    pub format: String,
    /// Rows, where it has rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// What one should know, in sentences.
    pub notes: Vec<String>,
    /// The files, sorted by name, without this receipt.
    pub files: Vec<ExportedFile>,
}

impl RunExport {
    /// A receipt without its files.
    pub(super) fn manifest(
        &self,
        kind: &'static str,
        policy: Option<&PolicyRow>,
        format: String,
    ) -> Manifest {
        Manifest {
            kind,
            run: self.name(),
            policy: policy.cloned(),
            policy_id: policy.map(|row| row.policy.id().to_string()),
            records: self.view.next.0,
            format,
            rows: None,
            notes: Vec::new(),
            files: Vec::new(),
        }
    }
}

impl Manifest {
    /// Counts the files of a folder, writes itself beside them, and gives the folder its place.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn finish(mut self, folder: NewFolder) -> Result<Manifest, Error> {
        let dir = folder.path();
        let mut names: Vec<String> = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
            let name = entry.map_err(|e| Error::io(dir, e))?.file_name();
            names.push(name.to_string_lossy().into_owned());
        }
        names.sort();
        for name in names {
            let path = dir.join(&name);
            let (bytes, sha256) = hashed(&path)?;
            self.files.push(ExportedFile { name, bytes, sha256 });
        }
        let json = serde_json::to_string_pretty(&self)
            .map_err(|error| Error::not_json("the receipt", &error))?;
        folder.write(FILE, json + "\n")?;
        folder.finish()?;
        Ok(self)
    }
}

/// Length and SHA-256 of a file.
fn hashed(path: &Path) -> Result<(u64, String), Error> {
    let io = |error| Error::io(path, error);
    let mut file = File::open(path).map_err(io)?;
    let (mut hasher, mut bytes) = (Sha256::new(), 0u64);
    let mut chunk = vec![0u8; 1 << 20];
    loop {
        let read = file.read(&mut chunk).map_err(io)?;
        let Some(part) = chunk.get(..read).filter(|part| !part.is_empty()) else { break };
        hasher.update(part);
        bytes += read as u64;
    }
    let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((bytes, hex))
}
