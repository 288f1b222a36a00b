//! One integration binary: what no single room can test about itself. What works on whole runs does so by
//! the command line and is left out where that is not built.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that stops has failed, which is what it is for"
)]
#![cfg_attr(
    not(feature = "cli"),
    allow(dead_code, reason = "what only tests of the command line use")
)]

mod alone;
#[cfg(feature = "cli")]
mod author;
mod batcher;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "cli")]
mod clock;
#[cfg(feature = "cli")]
mod crash;
#[cfg(feature = "cli")]
mod damage;
#[cfg(feature = "cli")]
mod device;
mod dice;
mod disk;
#[cfg(feature = "cli")]
mod doctor;
mod engines;
mod errors;
#[cfg(feature = "cli")]
mod examples;
#[cfg(feature = "cli")]
mod export;
#[cfg(feature = "cli")]
mod faults;
#[cfg(feature = "cli")]
mod full_run;
#[cfg(feature = "cli")]
mod held_out;
mod inputs;
mod lm_golden;
mod lm_runs;
mod log;
#[cfg(feature = "cli")]
mod making;
#[cfg(feature = "cli")]
mod memory;
#[cfg(feature = "cli")]
mod plan;
#[cfg(all(feature = "cli", feature = "failpoints"))]
mod points;
#[cfg(feature = "cli")]
mod readers;
#[cfg(feature = "cli")]
mod rejudge;
#[cfg(feature = "cli")]
mod retention;
mod rubric;
#[cfg(feature = "cli")]
mod runs;
#[cfg(feature = "cli")]
mod serve;
mod simulation;
#[cfg(feature = "cli")]
mod stops;
#[cfg(feature = "cli")]
mod suites;
#[cfg(feature = "cli")]
mod surface;
#[cfg(feature = "cli")]
mod swap;
mod tidy;
#[cfg(feature = "cli")]
mod verbs;
mod verdicts;
#[cfg(feature = "cli")]
mod writers;
