//! Rotary position embedding, half-rotation as in transformers' Llama: the pair of dimensions
//! (i, i + D/2) of each head turns by `position * theta^(-2i/D)`. The backward pass turns back.

use super::{to_values, values};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use std::sync::Arc;

/// Cosine and sine of every position and frequency, computed once.
#[derive(Debug)]
pub struct RotaryTable {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RotaryTable {
    /// Angles for `positions` positions of heads of width `head_dim`.
    pub fn new(positions: usize, head_dim: usize, theta: f64) -> RotaryTable {
        let half = head_dim / 2;
        let mut table = RotaryTable {
            half,
            cos: Vec::with_capacity(positions * half),
            sin: Vec::with_capacity(positions * half),
        };
        for position in 0..positions {
            for i in 0..half {
                // transformers computes the inverse frequency in f32; so do we.
                let inverse = 1.0 / (theta as f32).powf(2.0 * i as f32 / head_dim as f32);
                let angle = position as f32 * inverse;
                table.cos.push(angle.cos());
                table.sin.push(angle.sin());
            }
        }
        table
    }

    /// Turns one row of heads in place; `sign` -1 turns back. Positions past the table leave the
    /// row as it is; callers check lengths before.
    pub fn turn(&self, row: &mut [f32], position: usize, sign: f32) {
        let at = position * self.half;
        let (Some(cos), Some(sin)) =
            (self.cos.get(at..at + self.half), self.sin.get(at..at + self.half))
        else {
            return;
        };
        for head in row.chunks_exact_mut(2 * self.half) {
            let (low, high) = head.split_at_mut(self.half);
            for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                let (a, b) = (*low, *high);
                *low = a * cos - sign * b * sin;
                *high = b * cos + sign * a * sin;
            }
        }
    }
}

struct Rotary {
    table: Arc<RotaryTable>,
    positions: Arc<Vec<u32>>,
}

impl Rotary {
    fn turned(&self, mut data: Vec<f32>, sign: f32) -> Vec<f32> {
        let width = data.len() / self.positions.len().max(1);
        for (row, position) in data.chunks_exact_mut(width.max(1)).zip(self.positions.iter()) {
            self.table.turn(row, *position as usize, sign);
        }
        data
    }
}

impl CustomOp1 for Rotary {
    fn name(&self) -> &'static str {
        "gradus-rotary"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(storage, layout, self.name())?.to_vec();
        Ok((CpuStorage::F32(self.turned(x, 1.0)), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let dx = self.turned(to_values(grad)?, -1.0);
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

/// Turns the heads of `x` [T, heads * D] by their rows' positions (T of them).
///
/// # Errors
/// When `x` is not contiguous f32 on the CPU.
pub fn rotary(x: &Tensor, table: &Arc<RotaryTable>, positions: &Arc<Vec<u32>>) -> Result<Tensor> {
    x.apply_op1(Rotary { table: table.clone(), positions: positions.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backward_equals_differences() {
        let table = Arc::new(RotaryTable::new(8, 4, 10000.0));
        let positions = Arc::new(vec![0, 1, 5]);
        super::super::testing::check(&[&[3, 8]], |t| rotary(&t[0], &table, &positions));
    }
}
