//! One integration binary: what no single room can test about itself.

mod author;
mod cli;
mod clock;
mod crash;
mod damage;
mod device;
mod dice;
mod disk;
mod doctor;
mod engines;
mod examples;
mod faults;
mod full_run;
mod held_out;
mod inputs;
mod lm_golden;
mod lm_runs;
mod log;
mod making;
mod memory;
mod plan;
#[cfg(feature = "failpoints")]
mod points;
mod readers;
mod rejudge;
mod retention;
mod rubric;
mod runs;
mod simulation;
mod stops;
mod surface;
mod swap;
mod tidy;
mod verdicts;
mod writers;
