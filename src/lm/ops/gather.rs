//! Log-probability of one token per row: log-softmax and gather in one pass, without keeping the
//! probabilities. The backward pass recomputes them row by row.

use super::exp::exp;
use super::{to_values, values};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use std::sync::Arc;

struct TokenLogps {
    targets: Arc<Vec<u32>>,
}

/// log(sum(exp(row))); the sum is kept in f64 by chunks, so that rows of 49,152 logits lose
/// nothing.
fn log_sum_exp(row: &[f32]) -> f64 {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0f64;
    for chunk in row.chunks(64) {
        let mut values = [0f32; 64];
        for (value, v) in values.iter_mut().zip(chunk) {
            *value = exp(v - most);
        }
        sum += f64::from(values.iter().take(chunk.len()).sum::<f32>());
    }
    f64::from(most) + sum.ln()
}

impl CustomOp1 for TokenLogps {
    fn name(&self) -> &'static str {
        "gradus-token-logps"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let logits = values(storage, layout, self.name())?;
        let rows = self.targets.len();
        let width = logits.len() / rows.max(1);
        let mut logps = Vec::with_capacity(rows);
        for (row, target) in logits.chunks_exact(width.max(1)).zip(self.targets.iter()) {
            let Some(logit) = row.get(*target as usize) else {
                bail!("token {target} is outside the vocabulary of {width}")
            };
            logps.push((f64::from(*logit) - log_sum_exp(row)) as f32);
        }
        Ok((CpuStorage::F32(logps), Shape::from(rows)))
    }

    fn bwd(&self, logits: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut data = to_values(logits)?;
        let grads = to_values(grad)?;
        let width = data.len() / self.targets.len().max(1);
        let rows = data.chunks_exact_mut(width.max(1));
        for ((row, target), g) in rows.zip(self.targets.iter()).zip(grads) {
            let total = log_sum_exp(row) as f32;
            for v in row.iter_mut() {
                *v = -g * exp(*v - total);
            }
            if let Some(v) = row.get_mut(*target as usize) {
                *v += g;
            }
        }
        Ok(Some(Tensor::from_vec(data, logits.shape(), logits.device())?))
    }
}

/// Natural-log probability of `targets[p]` under row p of `logits` [P, V]; gives [P].
///
/// # Errors
/// When a target is outside the vocabulary, or `logits` is not contiguous f32 on the CPU.
pub fn token_logps(logits: &Tensor, targets: &Arc<Vec<u32>>) -> Result<Tensor> {
    logits.apply_op1(TokenLogps { targets: targets.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backward_equals_differences() {
        let targets = Arc::new(vec![2, 0, 4]);
        super::super::testing::check(&[&[3, 5]], |t| token_logps(&t[0], &targets));
    }
}
