//! One list of kernels for the crate, the emulator and the PTX.

use crate::gpu::gpu;
use gradus_kernels::{KERNELS, PTX};

#[test]
fn the_emulator_has_all_kernels_and_no_others() {
    let Some(gpu) = gpu() else { return };
    let mut names = gpu.kernels();
    names.retain(|name| !name.starts_with("fault_"));
    names.sort_unstable();
    assert_eq!(names, KERNELS);
}

#[test]
fn the_ptx_has_all_kernels_and_no_others() {
    assert_eq!(PTX.is_some(), cfg!(feature = "cuda"));
    let Some(ptx) = PTX else { return };
    let entries = ptx.lines().filter_map(|line| line.split_once(".visible .entry "));
    let mut names: Vec<&str> = entries.map(|(_, rest)| rest.trim_end_matches('(')).collect();
    names.sort_unstable();
    assert_eq!(names, KERNELS);
}
