//! The gate of the MLP: `silu(gate) * up`.

use super::exp::sigmoid;
use super::{to_values, values};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

struct SwiGlu;

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
        let mut y = vec![0f32; gate.len()];
        for (y, (g, u)) in y.iter_mut().zip(gate.iter().zip(up)) {
            *y = g * sigmoid(*g) * u;
        }
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
        let mut dgate = vec![0f32; gs.len()];
        let mut dup = vec![0f32; gs.len()];
        let outputs = dgate.iter_mut().zip(&mut dup);
        for ((dgate, dup), ((g, u), y)) in outputs.zip(gs.iter().zip(&us).zip(&ys)) {
            let s = sigmoid(*g);
            *dgate = y * u * s * (1.0 + g * (1.0 - s));
            *dup = y * g * s;
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
