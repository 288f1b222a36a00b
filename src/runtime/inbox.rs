//! INBOX: how another process asks a running one to change its rubrics. A request is a file that
//! appears whole in `DIR/inbox`; the answer appears beside it, and the request is gone. Only one
//! process writes the log, so only that one can do it; when there is none, whoever asks does it
//! alone.

use super::folder::Folder;
use super::rubrics::{Activated, Again, Installed, Rubrics, Wanted};
use crate::atomic_file::{self, Access};
use crate::domain::{RubricId, When};
use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Compiling a large component takes half a minute.
const PATIENCE: Duration = Duration::from_secs(180);
const REQUEST: &str = "request.json";
const ANSWER: &str = "answer.json";

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// Install the component in this file.
    Install {
        /// Its path, absolute.
        file: PathBuf,
    },
    /// Let these rubrics judge.
    Activate {
        /// Which.
        wanted: Vec<Wanted>,
        /// From when on.
        when: When,
        /// Also one that was rolled back.
        again: Again,
        /// The beginning of the hash of what judges, or of all of them with commas between; when
        /// it is another, nothing changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        if_current: Option<String>,
    },
    /// Let these rubrics judge beside the panel, and no others.
    Shadow {
        /// Which; none: nobody.
        rubrics: Vec<String>,
    },
    /// Put the panel before this one back, or one rubric away.
    RollBack {
        /// Which; none: the last panel.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rubric: Option<String>,
        /// Why.
        reason: String,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// The component is kept.
    Installed(Installed),
    /// The panel judges.
    Activated(Activated),
    /// These judge beside the panel.
    Shadowed {
        /// Which.
        rubrics: Vec<RubricId>,
    },
    /// Nothing changed.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Does what is asked.
pub(crate) fn carry_out(request: &Request, rubrics: &Rubrics) -> Result<Answer, Error> {
    Ok(match request {
        Request::Install { file } => {
            let bytes = std::fs::read(file).map_err(|error| Error::io(file, error))?;
            Answer::Installed(rubrics.install(&bytes)?)
        }
        Request::Activate { wanted, when, again, if_current } => {
            Answer::Activated(match if_current {
                None => rubrics.activate(wanted, *when, *again)?,
                Some(hash) => rubrics.activate_if_current(wanted, *when, *again, hash)?,
            })
        }
        Request::Shadow { rubrics: wanted } => {
            Answer::Shadowed { rubrics: rubrics.shadow(wanted)? }
        }
        Request::RollBack { rubric: None, reason } => Answer::Activated(rubrics.roll_back(reason)?),
        Request::RollBack { rubric: Some(rubric), reason } => {
            Answer::Activated(rubrics.put_away(rubric, reason)?)
        }
    })
}

/// Answers every request in the inbox, in the order of their names.
pub(crate) fn answer_all(inbox: &Path, rubrics: &Rubrics) {
    let Ok(entries) = std::fs::read_dir(inbox) else { return };
    let mut requests: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().ends_with(REQUEST))
        .collect();
    requests.sort();
    for path in requests {
        let done = std::fs::read(&path).map_err(|error| Error::io(&path, error)).and_then(|body| {
            let request = serde_json::from_slice(&body)
                .map_err(|error| Error::Usage(format!("no request of this gradus: {error}")))?;
            carry_out(&request, rubrics)
        });
        let answer = done.unwrap_or_else(|error| Answer::Refused { reason: error.to_string() });
        let body = serde_json::to_vec(&answer).unwrap_or_default();
        // First the answer: whoever dies between the two does it again, which changes nothing.
        let written = write(&answer_of(&path), &body);
        if let Err(error) = written
            .and_then(|()| std::fs::remove_file(&path).map_err(|error| Error::io(&path, error)))
        {
            tracing::warn!(%error, "a request could not be answered");
        }
    }
}

fn write(path: &Path, body: &[u8]) -> Result<(), Error> {
    atomic_file::write(path, body, Access::Private).map_err(|error| Error::io(path, error))
}

fn answer_of(request: &Path) -> PathBuf {
    PathBuf::from(request.to_string_lossy().replace(REQUEST, ANSWER))
}

/// Asks the process that works on the run, or does it here when none does.
///
/// # Errors
/// What was wrong with the request; [`Error::Halted`] when nobody answers.
pub fn ask(folder: &Folder, request: &Request) -> Result<Answer, Error> {
    if folder.holder().is_none() {
        match folder.rubrics_alone() {
            Ok((_log, rubrics)) => return carry_out(request, &rubrics),
            // Somebody was faster.
            Err(Error::Log(crate::log::LogError::InUse { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let inbox = folder.inbox();
    atomic_file::create_private_folder(&inbox).map_err(|error| Error::io(&inbox, error))?;
    let (pid, n) = (std::process::id(), ASKED.fetch_add(1, Ordering::Relaxed));
    let path = inbox.join(format!("{pid}-{n:06}.{REQUEST}"));
    let answer = answer_of(&path);
    let _ = std::fs::remove_file(&answer);
    let body = serde_json::to_vec(request).unwrap_or_default();
    write(&path, &body)?;
    let asked = Instant::now();
    while asked.elapsed() < PATIENCE && folder.holder().is_some() {
        if let Ok(body) = std::fs::read(&answer) {
            let _ = std::fs::remove_file(&answer);
            let answer: Answer = serde_json::from_slice(&body)
                .map_err(|error| Error::Usage(format!("{}: {error}", answer.display())))?;
            return match answer {
                Answer::Refused { reason } => Err(Error::Usage(reason)),
                answer => Ok(answer),
            };
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // Nobody may find it later and do what nobody waits for.
    let taken_back = std::fs::remove_file(&path).is_ok();
    Err(Error::Halted(format!(
        "the process that works on {} did not answer; {}",
        folder.path().display(),
        if taken_back { "nothing was changed" } else { "ask again: gradus rubric list" }
    )))
}
