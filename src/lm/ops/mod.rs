//! Fused operations with hand-written backward passes, over packed rows.
//!
//! candle's own fused `rms_norm`, `softmax_last_dim` and `rope` have no backward: the gradient
//! stops there silently and the loss still falls (huggingface/candle#2168). None of them is used
//! in training. Each op here is tested against finite differences.

mod attention;
mod exp;
mod gather;
mod norm;
mod rotary;
mod swiglu;

pub use attention::causal_attention;
pub use gather::token_logps;
pub use norm::rms_norm;
pub use rotary::{RotaryTable, rotary};
pub use swiglu::swiglu;

use candle_core::{CpuStorage, Layout, Result, Tensor, bail};

/// The contiguous f32 values behind an op's argument.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout, op: &str) -> Result<&'a [f32]> {
    let Some((from, to)) = layout.contiguous_offsets() else {
        bail!("{op}: the argument must be contiguous, its layout is {layout:?}")
    };
    match storage {
        CpuStorage::F32(all) => match all.get(from..to) {
            Some(values) => Ok(values),
            None => bail!("{op}: layout {from}..{to} is outside {} values", all.len()),
        },
        _ => bail!("{op}: the argument must be f32"),
    }
}

/// The values of a tensor, copied, row-major.
fn to_values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.contiguous()?.flatten_all()?.to_vec1::<f32>()
}

#[cfg(test)]
pub(crate) mod testing {
    //! Finite differences.

    use candle_core::{Device, Result, Tensor, Var};
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    /// Standard-normal-ish values from a fixed stream.
    pub fn noise(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut uniform = || f64::from(rng.next_u32()) / f64::from(u32::MAX);
        (0..n).map(|_| ((0..6).map(|_| uniform()).sum::<f64>() - 3.0) as f32).collect()
    }

    /// Compares the gradient of `sum(f(inputs) * weights)` with central differences.
    pub fn check(shapes: &[&[usize]], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
        let vars: Vec<Var> = shapes
            .iter()
            .enumerate()
            .map(|(i, shape)| {
                let data = noise(shape.iter().product(), 7 + i as u64);
                Var::from_tensor(&Tensor::from_vec(data, *shape, &Device::Cpu).unwrap()).unwrap()
            })
            .collect();
        let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let out = f(&tensors).unwrap();
        let weights = Tensor::from_vec(noise(out.elem_count(), 99), out.shape(), &Device::Cpu);
        let weights = weights.unwrap();
        let loss = |inputs: &[Tensor]| -> f64 {
            let product = (f(inputs).unwrap() * &weights).unwrap().flatten_all().unwrap();
            product.to_vec1::<f32>().unwrap().iter().map(|v| f64::from(*v)).sum()
        };
        let grads = (out * &weights).unwrap().sum_all().unwrap().backward().unwrap();
        for (i, shape) in shapes.iter().enumerate() {
            let grad = grads.get(&tensors[i]).unwrap_or_else(|| panic!("input {i}: no gradient"));
            let grad = super::to_values(grad).unwrap();
            let data = super::to_values(&tensors[i]).unwrap();
            for at in 0..data.len() {
                let moved = |by: f32| {
                    let mut data = data.clone();
                    data[at] += by;
                    let mut inputs = tensors.clone();
                    inputs[i] = Tensor::from_vec(data, *shape, &Device::Cpu).unwrap();
                    loss(&inputs)
                };
                let step = 1e-2;
                let expected = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
                let gap = (expected - f64::from(grad[at])).abs();
                assert!(
                    gap < 2e-2 * (1.0 + expected.abs()),
                    "input {i} at {at}: {} by backward, {expected} by differences",
                    grad[at]
                );
            }
        }
    }
}
