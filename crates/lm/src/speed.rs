//! How fast this machine computes: the two ceilings that every figure of the model layer is held
//! against (docs/performance.md).

use super::ops::{Mat, MatMut, lanes, matmul};
use rayon::prelude::*;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Rows and columns of the matrices that are multiplied.
const SIZE: usize = 1536;
/// Numbers that are read, 256 MiB: more than any cache holds.
const NUMBERS: usize = 64 << 20;
/// How long each ceiling is measured.
const PATIENCE: Duration = Duration::from_millis(400);

/// Bits of the vectors that the kernels use here.
pub fn vector_bits() -> usize {
    lanes() * 32
}

/// The best of what `once` takes, repeated for a while.
fn best(mut once: impl FnMut()) -> Duration {
    let began = Instant::now();
    let mut best = Duration::MAX;
    while began.elapsed() < PATIENCE {
        let from = Instant::now();
        once();
        best = best.min(from.elapsed());
    }
    best
}

/// GFLOP/s of a product of f32 matrices on all threads.
pub fn product_gflops() -> f64 {
    let (a, b) = (vec![0.5f32; SIZE * SIZE], vec![0.25f32; SIZE * SIZE]);
    let mut c = vec![0f32; SIZE * SIZE];
    let took = best(|| {
        let (a, b) = (Mat::new(&a, SIZE, SIZE), Mat::new(&b, SIZE, SIZE));
        matmul(MatMut::new(black_box(&mut c), SIZE, SIZE), a, b, false, 1.0);
    });
    2.0 * (SIZE as f64).powi(3) / took.as_secs_f64() / 1e9
}

/// GB/s at which all threads together read memory.
pub fn memory_gb_per_s() -> f64 {
    let data = vec![1f32; NUMBERS];
    let sum = |part: &[f32]| super::ops::folded(part, 0.0, |a, b| a + b);
    let took = best(|| {
        let part = NUMBERS / rayon::current_num_threads().max(1) / 8;
        let _ = black_box(data.par_chunks(part.max(16)).map(sum).sum::<f32>());
    });
    (NUMBERS * size_of::<f32>()) as f64 / took.as_secs_f64() / 1e9
}
