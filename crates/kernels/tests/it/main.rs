//! Every kernel through the emulator, against plain loops in f64 or against the arithmetic of its
//! twin on the CPU; and the emulator itself, against kernels that break the rules.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unsafe_code,
    reason = "a test that stops has failed, which is what it is for"
)]

mod adamw;
mod attention;
mod choose;
mod emulator;
mod gpu;
mod heads;
mod logps;
mod names;
mod norms;
mod rows;
mod swiglu;
