//! How fast a device is, measured on it: the two ceilings that every figure of the model layer is
//! held against. As [`crate::speed`], of the CPU.

use super::buffer::DeviceBuffer;
use super::context::Gpu;
use super::driver::{Driver, ElementType};
use super::kernels::{MatrixProduct, Operand, product};
use crate::error::LmError;
use std::time::Instant;

/// What a device allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// GB/s at which numbers are copied within its memory, read and written bytes both counted.
    pub memory_gb_per_s: f64,
    /// TFLOP/s of a large product of the numbers that it computes with ([`Gpu::dtype`]).
    pub product_tflops: f64,
}

/// How much is measured.
struct Sizes {
    /// Numbers of 4 bytes that are copied.
    numbers: usize,
    /// Rows and columns of the matrices that are multiplied.
    side: usize,
    /// How often in a round, after which the device is waited for.
    repeats: u32,
}

/// Rounds, of which the best counts: what else a machine does makes it slower and never faster.
const ROUNDS: usize = 5;

impl Sizes {
    fn of(gpu: &Gpu) -> Sizes {
        match gpu.driver() {
            // 2 GiB from here to there: many times what its caches hold.
            #[cfg(feature = "cuda")]
            Driver::Cuda(_) => {
                let most = (gpu.free() / 16) as usize;
                Sizes { numbers: (512 << 20).min(most), side: 8192, repeats: 10 }
            }
            // Says nothing about anything; it shows that the measuring works.
            Driver::Emulated(_) => Sizes { numbers: 1 << 20, side: 96, repeats: 1 },
        }
    }
}

/// Seconds that `once` takes.
fn best(
    gpu: &Gpu,
    repeats: u32,
    mut once: impl FnMut() -> Result<(), LmError>,
) -> Result<f64, LmError> {
    once()?;
    gpu.wait()?;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for _ in 0..repeats {
            once()?;
        }
        gpu.wait()?;
        best = best.min(began.elapsed().as_secs_f64() / f64::from(repeats));
    }
    Ok(best)
}

/// Measures what the device allows, in a second or so.
///
/// # Errors
/// [`LmError::DeviceMemory`], or what the device says.
pub fn ceilings(gpu: &Gpu) -> Result<Ceilings, LmError> {
    let _turn = gpu.turn();
    let Sizes { numbers, side, repeats } = Sizes::of(gpu);
    let copied = {
        let (from, to) = (
            DeviceBuffer::zeros(gpu, ElementType::F32, numbers)?,
            DeviceBuffer::zeros(gpu, ElementType::F32, numbers)?,
        );
        best(gpu, repeats, || to.copy(&from))?
    };
    // Noise: a product of zeros takes less power, and runs faster than any of a model's.
    let matrix = || {
        let matrix = DeviceBuffer::zeros(gpu, gpu.work(), side * side)?;
        matrix.make_up(1.0).map(|()| matrix)
    };
    let (a, b, c) = (matrix()?, matrix()?, DeviceBuffer::zeros(gpu, gpu.work(), side * side)?);
    let multiplied = best(gpu, repeats, || {
        product(&MatrixProduct {
            a: Operand::plain(&a, side),
            b: Operand::transposed(&b, side),
            c: &c,
            c_stride: side,
            rows: side,
            columns: side,
            inner: side,
            add: false,
            scale: 1.0,
        })
    })?;
    Ok(Ceilings {
        memory_gb_per_s: (2 * numbers * ElementType::F32.bytes()) as f64 / copied / 1e9,
        product_tflops: 2.0 * (side as f64).powi(3) / multiplied / 1e12,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Dtype;

    #[test]
    fn ceilings_are_measured() {
        let Some(gpu) = Gpu::emulated(Dtype::Bf16) else { return };
        let Ceilings { memory_gb_per_s, product_tflops } = ceilings(&gpu).unwrap();
        assert!(memory_gb_per_s > 0.01 && memory_gb_per_s < 1e5, "{memory_gb_per_s} GB/s");
        assert!(product_tflops > 1e-6 && product_tflops < 1e5, "{product_tflops} TFLOP/s");
        assert_eq!(gpu.held(), 0, "what was measured with is given back");
    }
}
