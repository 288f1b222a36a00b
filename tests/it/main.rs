//! One integration binary: what no single room can test about itself.

mod cli;
mod crash;
mod damage;
mod dice;
mod inputs;
mod lm_golden;
mod lm_runs;
mod log;
mod rubric;
mod simulation;
mod tidy;
