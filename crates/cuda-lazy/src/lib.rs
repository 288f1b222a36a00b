//! CUDA's entry points, bound on first call instead of by the loader, so that a program that calls
//! them starts on a machine without CUDA. x86-64 Linux.
//!
//! candle asks cudarc to link the driver, cuBLAS, cuBLASLt, cuRAND and NVRTC like any other
//! library, and what is linked so does not start where one of them is missing. This crate defines
//! every function of theirs that cudarc can call, by the same name (`syms.txt`). So the linker needs
//! none of the libraries and the program names none. Each function is a jump through a slot; the
//! first call opens the library, looks the name up and fills the slot; later calls cost one jump.
//!
//! Where a library or a name is not there the call answers with a failure of that library:
//! `CUDA_ERROR_NO_DEVICE` (100) from the driver, and what its status type has for "not set up" from
//! each of the others. [`missing`] says so beforehand, and why.
//!
//! A library is looked for in the folders of [`DIRS_VARIABLE`]; where the system's loader looks
//! (`LD_LIBRARY_PATH`, its cache); in the toolkit's and the driver's usual folders; and among
//! Python's packages, where NVIDIA's wheels (and so PyTorch) put it. No other program is started.
//!
//! # When the link fails
//!
//! `undefined symbol: cuSomething` after an update of cudarc: the name is new. Add it to `syms.txt`,
//! or make the list again from what cudarc's library asks for:
//!
//! ```sh
//! nm -u target/cuda/release/deps/libcudarc-*.rlib | awk '$1 == "U" { print $2 }' | LC_ALL=C sort -u |
//!   grep -E '^(cu[A-Z]|cublas|curand|nvrtc)'
//! ```
//!
//! A list of all of CUDA's names: the program does not refer to this crate. Call [`missing`].

#![allow(
    clippy::indexing_slicing,
    reason = "tables of one length, made by build.rs, indexed by what the same build.rs numbered"
)]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("CUDA is for x86-64 Linux here: build without the feature `cuda`");

mod bind;
mod places;

pub use bind::{Missing, missing};
pub use places::DIRS_VARIABLE;
