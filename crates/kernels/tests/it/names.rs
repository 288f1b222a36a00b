//! One list of kernels for the crate, the emulator and the fat binary; what the
//! assembler says of each.

use crate::gpu::gpu;
use gradus_kernels::{FAT_BINARY, KERNELS, USAGE};

#[test]
fn the_emulator_has_all_kernels_and_no_others() {
    let Some(gpu) = gpu() else { return };
    let mut names = gpu.kernels();
    names.retain(|name| !name.starts_with("fault_"));
    names.sort_unstable();
    assert_eq!(names, KERNELS);
}

#[test]
fn there_is_a_fat_binary_where_it_was_asked_for() {
    assert_eq!(FAT_BINARY.is_some(), cfg!(feature = "cuda"));
    assert_eq!(USAGE.is_some(), cfg!(feature = "cuda"));
}

#[cfg(feature = "cuda")]
mod assembled {
    use super::*;

    /// What the assembler said of a kernel.
    struct Usage {
        name: String,
        registers: u32,
        spilled_bytes: u32,
    }

    /// Every kernel in what `ptxas -v` says.
    fn usage() -> Vec<Usage> {
        let number = |line: &str, before: &str| -> u32 {
            let words =
                line.split_once(before).unwrap_or_else(|| panic!("no {before:?}: {line}")).0;
            words.split_whitespace().last().unwrap().parse().unwrap()
        };
        let mut all: Vec<Usage> = Vec::new();
        for line in USAGE.unwrap_or_default().lines() {
            if let Some((_, rest)) = line.split_once("Compiling entry function '") {
                let name = rest.split_once('\'').unwrap().0.to_owned();
                all.push(Usage { name, registers: 0, spilled_bytes: 0 });
            } else if let Some(last) = all.last_mut() {
                if line.contains("spill stores") {
                    last.spilled_bytes = number(line, " bytes spill stores");
                } else if let Some((_, rest)) = line.split_once("Used ") {
                    last.registers = number(rest, " registers");
                }
            }
        }
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    #[test]
    fn the_fat_binary_has_all_kernels_and_no_others() {
        let usage = usage();
        assert!(usage.iter().map(|kernel| kernel.name.as_str()).eq(KERNELS.iter().copied()));
    }

    /// A block has 65,536 registers, given out to warps 256 at a time: with more than this a launch of
    /// the largest block there is fails.
    #[test]
    fn every_launch_has_enough_registers() {
        for kernel in usage() {
            let threads = if kernel.name.starts_with("attention_") { 128 } else { 512 };
            let most = 65_536 / threads;
            let Usage { name, registers, .. } = kernel;
            assert!(
                (1..=most).contains(&registers),
                "{name}: {registers} registers, {threads} threads"
            );
        }
    }

    /// Heads of up to 128 numbers keep their sums in registers; wider ones cannot.
    #[test]
    fn nothing_spills_but_the_widest_heads() {
        for Usage { name, spilled_bytes, .. } in usage() {
            let fits = spilled_bytes == 0 || name.ends_with("_256");
            assert!(fits, "{name} spills {spilled_bytes} bytes");
        }
    }
}
