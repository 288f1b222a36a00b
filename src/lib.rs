//! gradus: a language model that improves itself on your own machine and keeps the receipts.
//!
//! The rooms that are open so far: [`domain`] (the words), [`log`] (the memory), [`blob`],
//! [`lm`] (the model), [`rubric`] (the sandbox), [`stats`], [`prompts`], [`config`], and [`demo`]
//! (a world that a program can grade).

pub mod blob;
pub mod config;
pub mod demo;
pub mod domain;
pub mod lm;
pub mod log;
pub mod prompts;
pub mod rubric;
pub mod stats;
