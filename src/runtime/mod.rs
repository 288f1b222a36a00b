//! FRONT DOOR: create a run, start it, hand out [`Handle`]s, wait for a goal, stop it. A process may
//! hold as many runtimes as it has folders: what a run knows and decides is its own. They share what
//! belongs to the process and says nothing about any run: rayon's pool of threads
//! ([`crate::lm::threads`]), an opened GPU with the weights that nobody moves, the user's folder of
//! compiled rubrics, and whatever subscriber of `tracing` the host has set. Signals are not touched
//! here; the command line does that.
//!
//! Files, from the bottom to the top (each uses only those above it in this list):
//!
//! - `background`: threads that work beside a run, and for what a host awaits
//! - `fold`: what a log comes to
//! - `rubric_files`: installed components, each kept under its hash
//! - `folder`: what lies where in a run's folder
//! - `held_out`: `prompts.held_out`, changed after the run was laid out
//! - `memory`: whether there is some now, before each heavy task
//! - `space`: whether the run has room, once a second
//! - `watched`: a thread that looks into a folder when something happens there
//! - `panels`: which rubric somebody means, and whether what judges is what he thinks
//! - `policies`: what policies are called, and which of them acts
//! - `present`: whether the rubrics that a run needs are there
//! - `referees`: whether those that are to referee can
//! - `spelling`: whether a model can judge under a rubric
//! - `settings`: settings that no plan has yet
//! - `outcome`: until when a host waits, and why waiting ended
//! - `rubrics`: installing, activating and rolling back
//! - `component_folder`: the watched folder in which components appear
//! - `identity`: what cannot change in a run
//! - `models`: which models a run has, and what computes what
//! - `draft`: making a run, whole or not at all
//! - `create`: a new run, or one that begins as another did
//! - `retention`: what a long run may forget
//! - `alone`: what is asked of a run that no process works on
//! - `served`: a policy that answers, for a host
//! - `answering`: which policies answer at this moment
//! - `opened`: a run that is read: its policies answer, its model judges
//! - `status`: what a run is doing
//! - `surface`: everything that can be asked of a run, as data
//! - `votes`: what people said of answers
//! - `intake`: what of chats becomes prompts
//! - `admission`: which prompts are new and may be trained on
//! - `core`: what carries out the surface
//! - `socket`: the surface between processes
//! - `status_file`: the status in the run's folder
//! - `tensorboard`: event files of what training comes to
//! - `subscription`: reading the log as it grows
//! - `handle`: a door to a run, for a host
//! - `running`: a run that this process has open
//! - `builder`: how a runtime is put together and started
//! - `wait`: until a run has reached its goal

mod admission;
mod alone;
mod answering;
mod background;
mod builder;
mod component_folder;
mod core;
mod create;
mod draft;
pub(crate) mod fold;
pub mod folder;
mod handle;
mod held_out;
pub mod identity;
mod intake;
mod memory;
pub(crate) mod models;
pub(crate) mod opened;
mod outcome;
mod panels;
mod policies;
mod present;
mod referees;
mod retention;
pub(crate) mod rubric_files;
pub mod rubrics;
mod running;
mod served;
mod settings;
pub mod socket;
mod space;
mod spelling;
mod status;
mod status_file;
mod subscription;
mod surface;
pub(crate) mod tensorboard;
mod votes;
mod wait;
mod watched;

pub use builder::Builder;
pub use create::NewRun;
pub use fold::fold;
pub use folder::Folder;
pub use handle::Handle;
pub use held_out::HeldOutChange;
pub use opened::OpenedRun;
pub use outcome::{FailedIteration, Goal, WaitOutcome};
pub use policies::{PolicyChoice, PolicyRow, find as find_policy};
pub use retention::Freed;
pub use running::Runtime;
pub use served::{
    AnswerEnd, AnswerPiece, AnswerSettings, AnswerStream, AnswerToken, EncodedPrompt, PolicyAnswer,
    ServedPolicy, TextStream,
};
pub use settings::SettingsToCome;
pub use status::{Activity, IterationProgress, Status};
pub use subscription::{Delivered, Subscription};
pub use surface::{Admission, Answer, Command, Component, Query, RecordedVote, Reply};
