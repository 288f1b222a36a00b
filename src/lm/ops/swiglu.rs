//! The gate of the MLP: `silu(gate) * up`.

use super::{to_values, values};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

struct SwiGlu;

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "gradus-swiglu"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let gate = values(s1, l1, self.name())?;
        let up = values(s2, l2, self.name())?;
        let y = gate.iter().zip(up).map(|(g, u)| g * sigmoid(*g) * u).collect();
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (gs, us, ys) = (to_values(gate)?, to_values(up)?, to_values(grad)?);
        let mut dgate = Vec::with_capacity(gs.len());
        let mut dup = Vec::with_capacity(gs.len());
        for ((g, u), y) in gs.iter().zip(&us).zip(&ys) {
            let s = sigmoid(*g);
            dgate.push(y * u * s * (1.0 + g * (1.0 - s)));
            dup.push(y * g * s);
        }
        let shape = gate.shape();
        Ok((
            Some(Tensor::from_vec(dgate, shape, gate.device())?),
            Some(Tensor::from_vec(dup, shape, gate.device())?),
        ))
    }
}

/// `silu(gate) * up`, elementwise over equal shapes.
///
/// # Errors
/// When an argument is not contiguous f32 on the CPU.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.apply_op2(up, SwiGlu)
}

#[cfg(test)]
mod tests {
    #[test]
    fn backward_equals_differences() {
        super::super::testing::check(&[&[3, 5], &[3, 5]], |t| super::swiglu(&t[0], &t[1]));
    }
}
