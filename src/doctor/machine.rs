//! What this machine has, and what this process holds.

use crate::lm::speed;
use crate::space::{available_memory_bytes, field, free_bytes};
use serde::Serialize;
use std::fs;
use std::path::Path;

/// A machine, as a run sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// Processors that this process may use.
    pub cores: usize,
    /// Bits of the vectors that the kernels use.
    pub vector_bits: usize,
    /// Bytes of memory that are free to use, where the system says.
    pub memory_available_bytes: Option<u64>,
    /// Bytes that may be written where the run is, where the system says.
    pub disk_free_bytes: Option<u64>,
    /// GFLOP/s of a product of matrices on all threads.
    pub product_gflops: f64,
    /// GB/s at which all threads read memory.
    pub memory_gb_per_s: f64,
}

impl Machine {
    /// Looks, and measures for about a second. `place` is a folder on the disk that is meant.
    pub fn look(place: &Path) -> Machine {
        Machine {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            vector_bits: speed::vector_bits(),
            memory_available_bytes: available_memory_bytes(),
            disk_free_bytes: free_bytes(place),
            product_gflops: speed::product_gflops(),
            memory_gb_per_s: speed::memory_gb_per_s(),
        }
    }
}

/// The most that this process has held since [`forget_peak`], bytes; 0 where the system does not
/// say.
pub(super) fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    field(&status, "VmHWM:").unwrap_or(0) * 1024
}

/// Begins to count anew (proc(5), `clear_refs`).
pub(super) fn forget_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}
