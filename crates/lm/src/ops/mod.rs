//! The decoder's operations over plain rows of f32: forward, and backward by hand. Each runs on
//! the threads of the pool it is called in, splits its rows the same way whatever that pool has,
//! and is tested against finite differences. candle's own fused operations have no backward and
//! drop gradients silently (huggingface/candle#2168); its graph keeps every intermediate alive and
//! walks the rest on one thread (docs/performance.md).

mod attention;
mod awake;
mod exp;
mod logps;
mod matmul;
mod norm;
mod panel;
mod rotary;
mod swiglu;
mod wide;

pub(crate) use attention::softmax;
pub use attention::{AttentionShape, BackwardScratch, PrefixGroup, attention, attention_backward};
pub(crate) use awake::awake;
pub use exp::exp;
pub(crate) use logps::log_sum_exp;
pub use logps::{token_logps, token_logps_backward};
pub use matmul::{Mat, MatMut, matmul, matmul_here};
pub(crate) use norm::norm_some;
pub use norm::{rms_norm, rms_norm_backward, scaled};
pub(crate) use panel::lanes;
pub use panel::{Line, Lines, Panels, ProductScratch, RowBlocks, Storage, WIDTH};
pub(crate) use rotary::turn_some;
pub use rotary::{RotaryTable, turn_rows};
pub use swiglu::{silu_product, swiglu, swiglu_backward};
pub(crate) use wide::wide;

/// Rows that one thread takes at a time: a figure of the data, not of the machine, so that sums
/// over rows are added in the same order everywhere.
const ROWS_PER_TASK: usize = 32;

/// Sum of products in sixteen lanes, which the compiler may keep in vectors; the order of additions
/// is fixed.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (ac, bc) = (a.chunks_exact(16), b.chunks_exact(16));
    let tail: f32 = ac.remainder().iter().zip(bc.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in ac.zip(bc) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let mut width = 8;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0] + tail
}

/// `f` over all numbers in sixteen lanes, then over the lanes; in a fixed order.
#[inline(always)]
pub(crate) fn folded(row: &[f32], start: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; 16];
    let chunks = row.chunks_exact(16);
    let tail = chunks.remainder().iter().copied().fold(start, &f);
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = f(*lane, *x);
        }
    }
    let mut width = 8;
    while width > 0 {
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    f(lanes[0], tail)
}

#[cfg(test)]
pub(crate) mod testing {
    //! Finite differences.

    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    /// Standard-normal-ish values from a fixed stream.
    pub fn noise(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut uniform = || f64::from(rng.next_u32()) / f64::from(u32::MAX);
        (0..n).map(|_| ((0..6).map(|_| uniform()).sum::<f64>() - 3.0) as f32).collect()
    }

    /// Compares the gradients that `backward` gives for inputs of these sizes, when the output's
    /// gradient is the second argument, with central differences of `forward`.
    pub fn check(
        sizes: &[usize],
        forward: impl Fn(&[Vec<f32>]) -> Vec<f32>,
        backward: impl Fn(&[Vec<f32>], &[f32]) -> Vec<Vec<f32>>,
    ) {
        let mut inputs: Vec<Vec<f32>> = sizes.iter().zip(7..).map(|(n, s)| noise(*n, s)).collect();
        let weights = noise(forward(&inputs).len(), 99);
        let loss = |inputs: &[Vec<f32>]| -> f64 {
            let out = forward(inputs);
            out.iter().zip(&weights).map(|(y, w)| f64::from(*y) * f64::from(*w)).sum()
        };
        let grads = backward(&inputs, &weights);
        assert_eq!(grads.len(), sizes.len());
        let step = 1e-2f32;
        for input in 0..sizes.len() {
            for at in 0..sizes[input] {
                let value = inputs[input][at];
                inputs[input][at] = value + step;
                let up = loss(&inputs);
                inputs[input][at] = value - step;
                let down = loss(&inputs);
                inputs[input][at] = value;
                let expected = (up - down) / (2.0 * f64::from(step));
                let found = f64::from(grads[input][at]);
                assert!(
                    (found - expected).abs() < 2e-3 * (1.0 + expected.abs()),
                    "input {input}, value {at}: {found}, by differences {expected}"
                );
            }
        }
    }
}
