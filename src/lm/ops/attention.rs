//! Causal self-attention over packed rows: every sequence is a range of rows and sees only itself.
//! Grouped-query: query head h reads key/value head `h / (heads / kv_heads)`. Probabilities are
//! not kept; the backward pass computes them again.

use super::exp::exp;
use super::{to_values, values};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use std::ops::Range;
use std::sync::Arc;

struct CausalAttention {
    segments: Arc<Vec<Range<usize>>>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

/// Rows of one head inside a matrix [T, heads * D].
struct Head<'a> {
    data: &'a [f32],
    width: usize,
    from: usize,
    dim: usize,
}

impl Head<'_> {
    fn row(&self, t: usize) -> &[f32] {
        let at = t * self.width + self.from;
        self.data.get(at..at + self.dim).unwrap_or_default()
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight lanes: the compiler may not reorder a plain float sum, and so would not vectorise it.
    let mut lanes = [0f32; 8];
    let (ac, bc) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f32 = ac.remainder().iter().zip(bc.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in ac.zip(bc) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f32>() + tail
}

fn add_scaled(to: &mut [f32], from: &[f32], scale: f32) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from * scale;
    }
}

impl CausalAttention {
    fn head<'a>(&self, data: &'a [f32], heads: usize, head: usize) -> Head<'a> {
        let dim = self.head_dim;
        Head { data, width: heads * dim, from: head * dim, dim }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// Probabilities of row `t` over `start..=t`.
    fn probabilities(&self, q: &[f32], k: &Head<'_>, start: usize, t: usize, p: &mut Vec<f32>) {
        p.clear();
        p.extend((start..=t).map(|s| dot(q, k.row(s)) * self.scale()));
        let most = p.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0f32;
        for v in p.iter_mut() {
            *v = exp(*v - most);
            sum += *v;
        }
        let inverse = 1.0 / sum;
        for v in p.iter_mut() {
            *v *= inverse;
        }
    }

    fn forward(&self, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
        let width = self.heads * self.head_dim;
        let mut out = vec![0f32; q.len()];
        let mut p = Vec::new();
        for h in 0..self.heads {
            let kv = h / (self.heads / self.kv_heads);
            let q = self.head(q, self.heads, h);
            let (k, v) = (self.head(k, self.kv_heads, kv), self.head(v, self.kv_heads, kv));
            for segment in self.segments.iter() {
                for t in segment.clone() {
                    self.probabilities(q.row(t), &k, segment.start, t, &mut p);
                    let at = t * width + h * self.head_dim;
                    let Some(out) = out.get_mut(at..at + self.head_dim) else { continue };
                    for (s, p) in (segment.start..).zip(&p) {
                        add_scaled(out, v.row(s), *p);
                    }
                }
            }
        }
        out
    }

    /// Gradients of q, k, v given the gradient of the output.
    fn backward(&self, q: &[f32], k: &[f32], v: &[f32], g: &[f32]) -> [Vec<f32>; 3] {
        let mut dq = vec![0f32; q.len()];
        let mut dk = vec![0f32; k.len()];
        let mut dv = vec![0f32; v.len()];
        let (mut p, mut dp) = (Vec::new(), Vec::new());
        let dim = self.head_dim;
        let (width, kv_width) = (self.heads * dim, self.kv_heads * dim);
        for h in 0..self.heads {
            let kv = h / (self.heads / self.kv_heads);
            let (qh, gh) = (self.head(q, self.heads, h), self.head(g, self.heads, h));
            let (kh, vh) = (self.head(k, self.kv_heads, kv), self.head(v, self.kv_heads, kv));
            for segment in self.segments.iter() {
                for t in segment.clone() {
                    self.probabilities(qh.row(t), &kh, segment.start, t, &mut p);
                    let g = gh.row(t);
                    dp.clear();
                    dp.extend((segment.start..=t).map(|s| dot(g, vh.row(s))));
                    let mean: f32 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
                    let at = t * width + h * dim;
                    for ((s, p), dp) in (segment.start..).zip(&p).zip(&dp) {
                        let ds = p * (dp - mean) * self.scale();
                        let row = s * kv_width + kv * dim;
                        if let Some(dq) = dq.get_mut(at..at + dim) {
                            add_scaled(dq, kh.row(s), ds);
                        }
                        if let Some(dk) = dk.get_mut(row..row + dim) {
                            add_scaled(dk, qh.row(t), ds);
                        }
                        if let Some(dv) = dv.get_mut(row..row + dim) {
                            add_scaled(dv, g, *p);
                        }
                    }
                }
            }
        }
        [dq, dk, dv]
    }
}

impl CustomOp3 for CausalAttention {
    fn name(&self) -> &'static str {
        "gradus-causal-attention"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let q = values(s1, l1, self.name())?;
        let k = values(s2, l2, self.name())?;
        let v = values(s3, l3, self.name())?;
        Ok((CpuStorage::F32(self.forward(q, k, v)), l1.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (qs, ks) = (to_values(q)?, to_values(k)?);
        let [dq, dk, dv] = self.backward(&qs, &ks, &to_values(v)?, &to_values(grad)?);
        let device = q.device();
        Ok((
            Some(Tensor::from_vec(dq, q.shape(), device)?),
            Some(Tensor::from_vec(dk, k.shape(), device)?),
            Some(Tensor::from_vec(dv, v.shape(), device)?),
        ))
    }
}

/// Attention of `q` [T, heads * D] over `k`, `v` [T, kv_heads * D]; gives [T, heads * D].
///
/// # Errors
/// When an argument is not contiguous f32 on the CPU.
pub fn causal_attention(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    segments: &Arc<Vec<Range<usize>>>,
    (heads, kv_heads, head_dim): (usize, usize, usize),
) -> Result<Tensor> {
    let op = CausalAttention { segments: segments.clone(), heads, kv_heads, head_dim };
    q.apply_op3(k, v, op)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backward_equals_differences_with_grouped_queries_and_two_segments() {
        let segments = Arc::new(vec![0..2, 2..5]);
        super::super::testing::check(&[&[5, 8], &[5, 4], &[5, 4]], |t| {
            causal_attention((&t[0], &t[1], &t[2]), &segments, (4, 2, 2))
        });
    }

    #[test]
    fn rows_see_neither_the_future_nor_other_segments() {
        let noise = super::super::testing::noise;
        let op = CausalAttention {
            segments: Arc::new(vec![0..2, 2..4]),
            heads: 1,
            kv_heads: 1,
            head_dim: 4,
        };
        let (q, k, mut v) = (noise(16, 1), noise(16, 2), noise(16, 3));
        let before = op.forward(&q, &k, &v);
        v[12..].fill(9.0);
        let after = op.forward(&q, &k, &v);
        assert_eq!(before[..12], after[..12]);
        assert_ne!(before[12..], after[12..]);
    }
}
