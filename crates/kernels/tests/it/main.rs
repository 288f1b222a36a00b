//! Every kernel through the emulator, against plain loops in f64 or against the arithmetic of its
//! twin on the CPU; and the emulator itself, against kernels that break the rules.

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
