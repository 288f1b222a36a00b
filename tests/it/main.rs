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
mod full_run;
mod held_out;
mod inputs;
mod lm_golden;
mod lm_runs;
mod log;
mod memory;
#[cfg(feature = "failpoints")]
mod points;
mod rejudge;
mod retention;
mod rubric;
mod runs;
mod simulation;
mod stops;
mod swap;
mod tidy;
mod verdicts;
