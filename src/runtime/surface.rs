//! THE SURFACE: everything that a person or a host can ask of a run, as data. A handle, the command
//! line and the socket in the run's folder are doors to it, and have no other powers. What carries it
//! out is `runtime/core.rs`.

use super::policies::{PolicyChoice, PolicyRow};
use super::rubrics::{Activated, Again, Installed, RubricRow, RubricWanted};
use super::status::Status;
use crate::domain::vote::{Vote, VoteCounts};
use crate::domain::{Offset, Prompt, PromptId, RubricId, When};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Something that changes a run. What comes of it is an event in the log, so it outlives the process
/// and shows in the receipts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Command {
    /// Add prompts to train on. Those that the run has already are left out.
    AddPrompts {
        /// The prompts.
        prompts: Vec<Prompt>,
    },
    /// Give up or cut what is computed, and wait.
    Pause,
    /// Go on, also after a stage was halted.
    Resume,
    /// End the process at the next safe point, as a signal would.
    Stop,
    /// Have at least so many iterations in all, whatever the settings say.
    RaiseIterations {
        /// In all, those that are over included.
        total: u32,
    },
    /// Let a policy act from here on. An open iteration that began with another one ends.
    ChoosePolicy {
        /// `M2`, `base`, or the beginning of its hash.
        policy: String,
        /// Whether it stays, whatever later iterations come to.
        pin: bool,
        /// Why, for the record.
        reason: String,
    },
    /// Let the policy act again that acted before this one.
    RollBackPolicy {
        /// Why, for the record.
        reason: String,
    },
    /// Let the gate decide again which policy acts.
    UnpinPolicy {
        /// Why, for the record.
        reason: String,
    },
    /// Keep what somebody says of an answer.
    Vote {
        /// What is said, and of what.
        vote: Box<Vote>,
    },
    /// Keep a rubric. It judges nothing before it is activated.
    InstallRubric {
        /// The WebAssembly component.
        component: Component,
    },
    /// Let these rubrics judge in the place of those that do.
    ActivateRubrics {
        /// Which.
        wanted: Vec<RubricWanted>,
        /// From when on.
        when: When,
        /// Whether one that was rolled back may judge again.
        again: Again,
        /// The beginning of the hash of what judges, or of all of them with commas between; when it
        /// is another, nothing changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        if_current: Option<String>,
    },
    /// Let these rubrics judge beside the panel, and no others; their scores count for nothing.
    ShadowRubrics {
        /// Which; none: nobody.
        rubrics: Vec<String>,
    },
    /// Put the panel before this one back, or take one rubric off it.
    RollBackRubric {
        /// Which; none: all that the last activation brought.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rubric: Option<String>,
        /// Why, for the record.
        reason: String,
    },
}

/// What came of a [`Command`]. It is durable when it is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Answer {
    /// Of [`Command::AddPrompts`].
    PromptsAdded(Admission),
    /// It is recorded there.
    Recorded {
        /// Where the log says so.
        at: Offset,
    },
    /// The process ends at the next safe point.
    Stopping,
    /// A policy was chosen.
    PolicyChosen(PolicyChoice),
    /// The component is kept.
    Installed(Installed),
    /// The panel judges.
    Activated(Activated),
    /// These judge beside the panel.
    Shadowed {
        /// Which.
        rubrics: Vec<RubricId>,
    },
}

/// What became of prompts that somebody added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Admission {
    /// Those that will be answered.
    pub admitted: Vec<PromptId>,
    /// Those that the run had already.
    pub known: Vec<PromptId>,
    /// Those that are not trained on, and why.
    pub refused: Vec<(PromptId, String)>,
}

/// Something that changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "query", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Query {
    /// What the run is doing.
    Status,
    /// Its rubrics, and which of them judge.
    Rubrics,
    /// Its policies, and which of them acts.
    Policies,
    /// What people said of answers, in the order in which they did.
    Votes {
        /// Those that were recorded from there on.
        #[serde(default)]
        from: Offset,
        /// At most so many.
        limit: usize,
    },
}

/// What a [`Query`] asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reply {
    /// Of [`Query::Status`].
    Status(Box<Status>),
    /// Of [`Query::Rubrics`].
    Rubrics {
        /// One row each.
        rubrics: Vec<RubricRow>,
    },
    /// Of [`Query::Policies`].
    Policies {
        /// In the order in which they came about.
        policies: Vec<PolicyRow>,
    },
    /// Of [`Query::Votes`].
    Votes {
        /// How many there are in all.
        counts: VoteCounts,
        /// Those that were asked for.
        votes: Vec<RecordedVote>,
        /// Where to ask for more; none: there are no more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Offset>,
    },
}

/// A vote, with its place in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedVote {
    /// Where the log says so; its id.
    pub at: Offset,
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// What was said.
    #[serde(flatten)]
    pub vote: Vote,
}

/// The bytes of a WebAssembly component; as text they are base64.
#[derive(Clone, PartialEq, Eq)]
pub struct Component(pub Vec<u8>);

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Component({} bytes)", self.0.len())
    }
}

impl Serialize for Component {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use base64::Engine;
        to.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Component {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Component, D::Error> {
        use base64::Engine;
        let text = String::deserialize(from)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text);
        bytes.map(Component).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written by one version is read by the next.
    #[test]
    fn a_command_is_the_same_after_it_was_text() {
        let commands = [
            (Command::Pause, r#"{"command":"pause"}"#),
            (Command::RaiseIterations { total: 7 }, r#"{"command":"raise_iterations","total":7}"#),
            (
                Command::ChoosePolicy { policy: "M2".into(), pin: true, reason: "safer".into() },
                r#"{"command":"choose_policy","policy":"M2","pin":true,"reason":"safer"}"#,
            ),
            (
                Command::InstallRubric { component: Component(vec![0, 97, 115, 109]) },
                r#"{"command":"install_rubric","component":"AGFzbQ=="}"#,
            ),
        ];
        for (command, text) in commands {
            assert_eq!(serde_json::to_string(&command).unwrap(), text);
            assert_eq!(serde_json::from_str::<Command>(text).unwrap(), command);
        }
        let broken = r#"{"command":"install_rubric","component":"not base64!"}"#;
        assert!(serde_json::from_str::<Command>(broken).is_err());
    }
}
