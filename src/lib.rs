//! gradus: a language model that improves itself on your own machine and keeps the receipts.
//!
//! The log is the road; a mailbox is a doorbell; everything else is a view. For a first hour read
//! [`domain::event`] (everything that can have happened), [`stage`] (decide purely, act at the
//! edge), `stage/pair_store.rs` (the smallest stage), then `tests/it/simulation.rs`.
//!
//! The front door is [`runtime`]: create a run in a folder, start it, hand out handles.
//!
//! | room | what it is |
//! | --- | --- |
//! | [`domain`] | the words: pure types |
//! | [`log`], [`blob`] | the memory: events in order, files by hash |
//! | [`atomic_file`] | how a file is written: whole and durable, or not at all |
//! | [`view`] | what is known: folds over the log |
//! | [`lm`] | the model: tokens and tensors |
//! | [`engine`] | the ports: who answers, scores and trains |
//! | [`rubric`] | the sandbox: WASM judges |
//! | [`stage`] | decide and do: sampler, judge, pair store, trainer, evaluator, conductor |
//! | [`actor`] | actix, and nothing else |
//! | [`runtime`] | the front door |
//! | [`eft`] | seed data that teaches a model to judge |
//! | [`estimate`], [`doctor`] | what a run will take: by formulae, and measured |
//! | [`rejudge`] | the past under another rubric |
//! | [`assess`] | answers that are no part of the loop: judged, and policies compared |
//! | [`report`] | tables and plots of what happened |
//! | [`export`] | what a run made, as other tools open it |
//! | `http` | a run over HTTP |
//! | [`config`], [`prompts`], [`stats`] | settings, prompt files, pure numbers |
//! | [`demo`] | a world that a program can grade |

pub mod actor;
pub mod assess;
pub mod atomic_file;
pub mod blob;
mod codes;
pub mod config;
pub mod demo;
mod dice;
pub mod doctor;
pub mod domain;
pub mod eft;
pub mod engine;
pub mod error;
pub mod estimate;
pub mod export;
mod faults;
#[cfg(feature = "http")]
pub mod http;
pub mod log;
mod machine;
pub mod prompts;
pub mod rejudge;
pub mod report;
pub mod rubric;
pub mod runtime;
mod space;
pub mod stage;
pub mod stats;
pub mod view;

/// The model layer, a crate of its own.
pub use gradus_lm as lm;

pub use error::{Code, Error, ExitStatus};
pub use runtime::{
    Builder, FailedIteration, Folder, Goal, Handle, NewRun, Runtime, Subscription, WaitOutcome,
};

/// What a program needs that embeds a run.
pub mod prelude {
    pub use crate::domain::{Event, Message, Offset, Prompt, PromptOrigin, Role};
    pub use crate::error::Error;
    pub use crate::lm::cancel::Cancel;
    pub use crate::runtime::{
        Activity, Answer, Command, Delivered, Folder, Goal, Handle, Query, Reply, Runtime,
        ServedPolicy, Status, Subscription, WaitOutcome,
    };
}

/// The README's example is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
