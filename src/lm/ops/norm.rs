//! RMSNorm: `y = x / sqrt(mean(x^2) + eps) * w`, each row of x [T, H] by itself.

use super::{to_values, values};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

struct RmsNorm {
    eps: f32,
}

fn inverse_rms(row: &[f32], eps: f32) -> f32 {
    let square: f32 = row.iter().map(|v| v * v).sum();
    1.0 / (square / row.len() as f32 + eps).sqrt()
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "gradus-rms-norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = values(s1, l1, self.name())?;
        let w = values(s2, l2, self.name())?;
        let mut y = vec![0f32; x.len()];
        for (x, y) in x.chunks_exact(w.len()).zip(y.chunks_exact_mut(w.len())) {
            let scale = inverse_rms(x, self.eps);
            for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                *y = x * scale * w;
            }
        }
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (xs, ws, gs) = (to_values(x)?, to_values(w)?, to_values(grad)?);
        let h = ws.len();
        let mut dx = vec![0f32; xs.len()];
        let mut dw = vec![0f32; h];
        for ((x, g), dx) in xs.chunks_exact(h).zip(gs.chunks_exact(h)).zip(dx.chunks_exact_mut(h)) {
            let scale = inverse_rms(x, self.eps);
            let mut dot = 0f32;
            for (((x, g), w), dw) in x.iter().zip(g).zip(&ws).zip(&mut dw) {
                dot += g * w * x;
                *dw += g * x * scale;
            }
            let pull = dot * scale * scale * scale / h as f32;
            for (((dx, x), g), w) in dx.iter_mut().zip(x).zip(g).zip(&ws) {
                *dx = g * w * scale - x * pull;
            }
        }
        let dx = Tensor::from_vec(dx, x.shape(), x.device())?;
        Ok((Some(dx), Some(Tensor::from_vec(dw, h, x.device())?)))
    }
}

/// RMSNorm of the rows of `x` [T, H] with the weight `w` [H].
///
/// # Errors
/// When an argument is not contiguous f32 on the CPU.
pub fn rms_norm(x: &Tensor, w: &Tensor, eps: f64) -> Result<Tensor> {
    x.apply_op2(w, RmsNorm { eps: eps as f32 })
}

#[cfg(test)]
mod tests {
    #[test]
    fn backward_equals_differences() {
        super::super::testing::check(&[&[3, 6], &[6]], |t| super::rms_norm(&t[0], &t[1], 1e-5));
    }
}
