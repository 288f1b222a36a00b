//! The gate of the MLP: `silu(gate) * up`, element by element.

use super::exp::sigmoid;
use super::wide;
use rayon::prelude::*;

/// Elements that one thread takes at a time.
const PART: usize = 16 * 1024;

wide! {
    /// `y = silu(gate) * up` on this thread.
    pub fn silu_product<'a>(gate: &'a [f32], up: &'a [f32], y: &'a mut [f32]) {
        for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
            *y = g * sigmoid(*g) * u;
        }
    }

    fn gradients<'a>(gate: &'a mut [f32], up: &'a mut [f32], dy: &'a mut [f32]) {
        for ((gate, up), dy) in gate.iter_mut().zip(up).zip(dy) {
            let (g, u, d) = (*gate, *up, *dy);
            let s = sigmoid(g);
            *gate = d * u * s * (1.0 + g * (1.0 - s));
            *up = d * g * s;
            *dy = g * s * u;
        }
    }
}

/// `y = silu(gate) * up`.
pub fn swiglu(gate: &[f32], up: &[f32], y: &mut [f32]) {
    let parts = gate.par_chunks(PART).zip(up.par_chunks(PART)).zip(y.par_chunks_mut(PART));
    parts.for_each(|((gate, up), y)| silu_product(gate, up, y));
}

/// In place, in one pass: `gate` and `up` become their gradients, and `dy`, the gradient of y,
/// becomes y again, which the backward pass of the layer above needs.
pub fn swiglu_backward(gate: &mut [f32], up: &mut [f32], dy: &mut [f32]) {
    let parts = gate.par_chunks_mut(PART).zip(up.par_chunks_mut(PART)).zip(dy.par_chunks_mut(PART));
    parts.for_each(|((gate, up), dy)| gradients(gate, up, dy));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backward_equals_differences_and_gives_the_output_again() {
        let forward = |t: &[Vec<f32>]| {
            let mut y = vec![0f32; 15];
            swiglu(&t[0], &t[1], &mut y);
            y
        };
        super::super::testing::check(&[15, 15], forward, |t, dy| {
            let (mut gate, mut up, mut dy) = (t[0].clone(), t[1].clone(), dy.to_vec());
            swiglu_backward(&mut gate, &mut up, &mut dy);
            assert_eq!(dy, forward(t));
            vec![gate, up]
        });
    }
}
