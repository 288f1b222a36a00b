//! Log-probability of one token per row: log-softmax and gather in one pass, without keeping the
//! probabilities.

use super::exp::exp;
use super::wide;
use rayon::prelude::*;

wide! {
    /// log(sum(exp(row))); the sum is kept in f64 by chunks, so that rows of 49,152 logits lose
    /// nothing.
    pub fn log_sum_exp<'a>(row: &'a [f32]) -> f64 {
        let mut peaks = [f32::NEG_INFINITY; 16];
        for chunk in row.chunks(16) {
            for (peak, v) in peaks.iter_mut().zip(chunk) {
                *peak = if *v > *peak { *v } else { *peak };
            }
        }
        let most = peaks.iter().copied().fold(f32::NEG_INFINITY, f32::max);
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

    fn row_gradient<'a>(row: &'a mut [f32], total: f32, d_logp: f32) {
        for v in row.iter_mut() {
            *v = -d_logp * exp(*v - total);
        }
    }
}

/// Natural-log probability of `targets[p]` under row p of `logits` [P, V], and what [`exp`] of a
/// logit is divided by, as a logarithm: two of `[P]`.
///
/// # Panics
/// When a target is outside the vocabulary; callers check.
pub fn token_logps(logits: &[f32], targets: &[u32]) -> (Vec<f32>, Vec<f32>) {
    let width = (logits.len() / targets.len().max(1)).max(1);
    let row = |(row, target): (&[f32], &u32)| {
        let total = log_sum_exp(row);
        ((f64::from(row[*target as usize]) - total) as f32, total as f32)
    };
    logits.par_chunks_exact(width).zip(targets).map(row).unzip()
}

/// `logits` become their gradients, `d_logps[p]` being that of the p-th log-probability.
pub fn token_logps_backward(logits: &mut [f32], targets: &[u32], totals: &[f32], d_logps: &[f32]) {
    let width = (logits.len() / targets.len().max(1)).max(1);
    let rows = logits.par_chunks_exact_mut(width).zip(targets).zip(totals).zip(d_logps);
    rows.for_each(|(((row, target), total), d_logp)| {
        row_gradient(row, *total, *d_logp);
        row[*target as usize] += d_logp;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backward_equals_differences() {
        let targets = [2, 0, 4];
        super::super::testing::check(
            &[15],
            |t| token_logps(&t[0], &targets).0,
            |t, dy| {
                let mut logits = t[0].clone();
                let totals = token_logps(&logits, &targets).1;
                token_logps_backward(&mut logits, &targets, &totals, dy);
                vec![logits]
            },
        );
    }
}
