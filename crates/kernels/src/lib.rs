//! gradus' CUDA kernels: for a GPU, and compiled for this machine's CPU for tests.
//!
//! The sources are in `cuda/`, a file for each topic; every `__global__` function's head says what
//! it computes and what its arguments are. The feature `cuda` compiles them to [`FAT_BINARY`]. The feature
//! `emulate` compiles the same sources as C++ with `cuda/emulate.h` in the place of CUDA's headers,
//! and [`emulator`] runs them: what the tests see is what a GPU would do, up to the rounding of its
//! sums and elementary functions.
//!
//! How many blocks, threads and bytes a kernel wants is said by the `*_launch` functions and by
//! nobody else. Kernels write nothing that depends on the order of blocks or threads: the same
//! arguments and launch give the same bits.
//!
//! This crate calls no CUDA and knows no model: who loads the kernels and owns the memory is its caller.

mod emulator;
mod launch;
mod types;

pub use emulator::{Emulator, emulator};
pub use launch::{
    Launch, adamw_launch, attention_backward_kv_launch, attention_backward_q_launch,
    attention_delta_launch, attention_join_launch, attention_kernel, attention_launch,
    choose_launch, column_sums_launch, each_launch, heads_backward_launch, heads_launch,
    partial_columns_launch, rms_norm_backward_launch, rows_launch, square_sums_launch,
    token_logps_launch,
};
pub use types::{Choice, Chosen, KEY_TILE, KeyTile, TILE_QUERIES, Tile};

/// Every kernel, for the GPU that the build named and, as PTX, for newer ones: what
/// `cuModuleLoadData` takes. None without the feature `cuda`.
#[cfg(feature = "cuda")]
pub const FAT_BINARY: Option<&[u8]> =
    Some(include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin")));
/// Every kernel, for a GPU; None without the feature `cuda`.
#[cfg(not(feature = "cuda"))]
pub const FAT_BINARY: Option<&[u8]> = None;

/// What the assembler says of each kernel (`ptxas -v`): registers, shared memory, and what did not
/// fit into registers. None without the feature `cuda`.
#[cfg(feature = "cuda")]
pub const USAGE: Option<&str> = Some(include_str!(concat!(env!("OUT_DIR"), "/usage.txt")));
/// What the assembler says of each kernel; None without the feature `cuda`.
#[cfg(not(feature = "cuda"))]
pub const USAGE: Option<&str> = None;

/// Names of all kernels.
pub const KERNELS: &[&str] = &[
    "adamw_bf16",
    "adamw_check",
    "adamw_f32",
    "add_bias_bf16",
    "add_bias_f32",
    "add_rows_bf16",
    "add_rows_f32",
    "attention_backward_kv_bf16_128",
    "attention_backward_kv_bf16_256",
    "attention_backward_kv_bf16_32",
    "attention_backward_kv_bf16_64",
    "attention_backward_kv_bf16_96",
    "attention_backward_kv_f32_128",
    "attention_backward_kv_f32_256",
    "attention_backward_kv_f32_32",
    "attention_backward_kv_f32_64",
    "attention_backward_q_bf16_128",
    "attention_backward_q_bf16_256",
    "attention_backward_q_bf16_32",
    "attention_backward_q_bf16_64",
    "attention_backward_q_bf16_96",
    "attention_backward_q_f32_128",
    "attention_backward_q_f32_256",
    "attention_backward_q_f32_32",
    "attention_backward_q_f32_64",
    "attention_bf16_128",
    "attention_bf16_256",
    "attention_bf16_32",
    "attention_bf16_64",
    "attention_bf16_96",
    "attention_delta_bf16",
    "attention_delta_f32",
    "attention_f32_128",
    "attention_f32_256",
    "attention_f32_32",
    "attention_f32_64",
    "attention_join_bf16",
    "attention_join_f32",
    "choose",
    "column_sums",
    "convert_f32_bf16",
    "fill_f32",
    "gather_rows_bf16_bf16",
    "gather_rows_bf16_f32",
    "gather_rows_f32_f32",
    "heads_backward_bf16",
    "heads_backward_f32",
    "heads_bf16",
    "heads_f32",
    "partial_columns_bf16",
    "partial_columns_f32",
    "rms_norm_backward_bf16",
    "rms_norm_backward_f32",
    "rms_norm_f32_bf16",
    "rms_norm_f32_f32",
    "scale_rows_f32_bf16",
    "scale_rows_f32_f32",
    "square_sums",
    "store_rows_bf16",
    "store_rows_f32",
    "swiglu_backward_bf16",
    "swiglu_backward_f32",
    "swiglu_bf16",
    "swiglu_f32",
    "token_logps",
    "token_logps_backward_bf16",
    "token_logps_backward_f32",
];
