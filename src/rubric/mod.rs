//! THE SANDBOX: text in, score out. A rubric is a WASM component of the world in
//! `wit/v0.2/rubric.wit`, or of the one before it in `wit/v0.1`; it says what to ask a judge model,
//! reads the answer and says where in it the score stands. This room knows no model; wasmtime lives
//! here and nowhere else.
//!
//! Every call gets a fresh instance, bounded fuel and memory, and no import but a bounded log, so
//! a rubric can be written by a stranger, loops end, and the same answer gives the same score on
//! every machine. Values that types cannot check (finite, inside the scale, one per candidate) are
//! checked here.

mod bindings;
pub mod bundled;
mod cache;
mod call;
mod component;
mod engine;
mod examine;
mod place;
mod registry;
mod world;

use crate::codes::Code;

pub use call::{CallError, ParsedReply, Readout, Rendered, RubricInput, ScorePlace};
pub use component::{Aggregation, Rubric, RubricInfo, Subject};
pub use engine::RubricEngine;
pub use examine::{Attacked, CaseOutcome, TriedCase, attack, require_golden, run_golden};
pub use registry::{RubricRegistry, UnusableFile};

/// Why a component is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RubricError {
    /// The sandbox could not be set up.
    #[error("the WASM engine does not start: {0}")]
    Engine(String),
    /// The system did not give the sandbox what it needs; another time it will.
    #[error("no room for a rubric's sandbox: {0}")]
    Sandbox(String),
    /// The file is too large: compiling it could not be interrupted.
    #[error("the component has {bytes} bytes, more than {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// It is not a component that compiles.
    #[error("not a usable WASM component: {0}")]
    Compile(String),
    /// It speaks another version of the world.
    #[error(
        "the component exports {found}, and this version of gradus speaks gradus:rubric/judge@0.2 and \
         gradus:rubric/judge@0.1. Rebuild it against wit/v0.2"
    )]
    World {
        /// What it exports.
        found: String,
    },
    /// It asks for something a rubric does not get.
    #[error("the component imports what a rubric does not get: {0}")]
    Import(String),
    /// What it says of itself makes no sense.
    #[error("the component describes itself wrongly: {0}")]
    Describe(String),
    /// A golden case failed.
    #[error("golden case {name:?} of the component failed: {reason}")]
    Example {
        /// Its name.
        name: String,
        /// What happened.
        reason: String,
    },
}

impl RubricError {
    /// What happened, as programs tell it apart.
    pub fn code(&self) -> Code {
        match self {
            RubricError::Engine(_) => Code::SandboxUnavailable,
            RubricError::Sandbox(_) => Code::SandboxShort,
            RubricError::TooLarge { .. } => Code::RubricTooLarge,
            RubricError::Compile(_) => Code::RubricNoComponent,
            RubricError::World { .. } => Code::RubricWrongWorld,
            RubricError::Import(_) => Code::RubricImports,
            RubricError::Describe(_) => Code::RubricDescription,
            RubricError::Example { .. } => Code::RubricGoldenCase,
        }
    }

    /// Whether the same call may succeed later, with nothing in it changed.
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }
}
