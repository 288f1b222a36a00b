//! RMSNorm: `y = x / sqrt(mean(x^2) + eps) * w`, each row of x [T, H] by itself.

use super::{ROWS_PER_TASK, dot, wide};
use rayon::prelude::*;

/// `1 / sqrt(mean(row^2) + eps)`.
#[inline(always)]
fn inverse_rms(row: &[f32], eps: f32) -> f32 {
    1.0 / (dot(row, row) / row.len() as f32 + eps).sqrt()
}

wide! {
    /// y of some rows x, with their factors.
    pub fn norm_some<'a>(
        xw: (&'a [f32], &'a [f32]),
        eps: f32,
        y: &'a mut [f32],
        inverses: &'a mut [f32],
    ) {
        let (x, w) = xw;
        let rows = x.chunks_exact(w.len()).zip(y.chunks_exact_mut(w.len()));
        for ((x, y), inverse) in rows.zip(inverses) {
            *inverse = inverse_rms(x, eps);
            for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                *y = x * *inverse * w;
            }
        }
    }

    fn scale_some<'a>(xw: (&'a [f32], &'a [f32]), inverses: &'a [f32], y: &'a mut [f32]) {
        let (x, w) = xw;
        let rows = x.chunks_exact(w.len()).zip(y.chunks_exact_mut(w.len()));
        for ((x, y), inverse) in rows.zip(inverses) {
            for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                *y = x * inverse * w;
            }
        }
    }

    fn some_backward<'a>(
        xwi: (&'a [f32], &'a [f32], &'a [f32]),
        dy: &'a [f32],
        dx: &'a mut [f32],
        dw: &'a mut [f32],
    ) {
        let (x, w, inverses) = xwi;
        let rows = x.chunks_exact(w.len()).zip(dy.chunks_exact(w.len()));
        for (((x, dy), dx), inverse) in rows.zip(dx.chunks_exact_mut(w.len())).zip(inverses) {
            row_backward((x, w, *inverse), dy, dx, dw);
        }
    }
}

/// y [T, H] of x [T, H] and w `[H]`; keeps each row's factor in `inverses` `[T]`.
pub fn rms_norm(x: &[f32], w: &[f32], eps: f32, y: &mut [f32], inverses: &mut [f32]) {
    let part = ROWS_PER_TASK * w.len();
    let parts = x.par_chunks(part).zip(y.par_chunks_mut(part));
    parts
        .zip(inverses.par_chunks_mut(ROWS_PER_TASK))
        .for_each(|((x, y), inverses)| norm_some((x, w), eps, y, inverses));
}

/// y again, from the factors that [`rms_norm`] kept.
pub fn scaled(x: &[f32], w: &[f32], inverses: &[f32], y: &mut [f32]) {
    let part = ROWS_PER_TASK * w.len();
    let parts = x.par_chunks(part).zip(y.par_chunks_mut(part));
    parts
        .zip(inverses.par_chunks(ROWS_PER_TASK))
        .for_each(|((x, y), inverses)| scale_some((x, w), inverses, y));
}

/// Adds the gradient of x to `dx` [T, H], given that of y; gives that of w, where it is wanted.
pub fn rms_norm_backward(
    (x, w, inverses): (&[f32], &[f32], &[f32]),
    dy: &[f32],
    dx: &mut [f32],
    wants_dw: bool,
) -> Option<Vec<f32>> {
    let part = ROWS_PER_TASK * w.len();
    let parts = x.par_chunks(part).zip(dy.par_chunks(part)).zip(dx.par_chunks_mut(part));
    let sums: Vec<Vec<f32>> = parts
        .zip(inverses.par_chunks(ROWS_PER_TASK))
        .map(|(((x, dy), dx), inverses)| {
            let mut dw = vec![0f32; if wants_dw { w.len() } else { 0 }];
            some_backward((x, w, inverses), dy, dx, &mut dw);
            dw
        })
        .collect();
    wants_dw.then(|| {
        let mut total = vec![0f32; w.len()];
        for sum in sums {
            total.iter_mut().zip(sum).for_each(|(t, s)| *t += s);
        }
        total
    })
}

#[inline(always)]
fn row_backward(
    (x, w, inverse): (&[f32], &[f32], f32),
    dy: &[f32],
    dx: &mut [f32],
    dw: &mut [f32],
) {
    let mut lanes = [0f32; 16];
    let (xc, wc, gc) = (x.chunks_exact(16), w.chunks_exact(16), dy.chunks_exact(16));
    let tails = xc.remainder().iter().zip(wc.remainder()).zip(gc.remainder());
    let mut pull: f32 = tails.map(|((x, w), g)| g * w * x).sum();
    for ((x, w), g) in xc.zip(wc).zip(gc) {
        for (((lane, x), w), g) in lanes.iter_mut().zip(x).zip(w).zip(g) {
            *lane += g * w * x;
        }
    }
    pull = (pull + lanes.iter().sum::<f32>()) * inverse * inverse * inverse / x.len() as f32;
    for (((dx, x), g), w) in dx.iter_mut().zip(x).zip(dy).zip(w) {
        *dx += g * w * inverse - x * pull;
    }
    for ((dw, g), x) in dw.iter_mut().zip(dy).zip(x) {
        *dw += g * x * inverse;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backward_equals_differences() {
        for (rows, width) in [(3, 5), (40, 18)] {
            let forward = |t: &[Vec<f32>]| {
                let mut y = vec![0f32; rows * width];
                rms_norm(&t[0], &t[1], 1e-5, &mut y, &mut vec![0f32; rows]);
                y
            };
            super::super::testing::check(&[rows * width, width], forward, |t, dy| {
                let mut inverses = vec![0f32; rows];
                let (mut y, mut again) = (vec![0f32; rows * width], vec![0f32; rows * width]);
                rms_norm(&t[0], &t[1], 1e-5, &mut y, &mut inverses);
                scaled(&t[0], &t[1], &inverses, &mut again);
                assert_eq!(y, again);
                let mut dx = vec![0f32; rows * width];
                let dw = rms_norm_backward((&t[0], &t[1], &inverses), dy, &mut dx, true).unwrap();
                vec![dx, dw]
            });
        }
    }
}
