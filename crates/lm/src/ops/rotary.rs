//! Rotary position embedding, half-rotation as in transformers' Llama: the pair of dimensions
//! (i, i + D/2) of each head turns by `position * frequency(i)`. The backward pass turns back.

use super::{ROWS_PER_TASK, wide};
use rayon::prelude::*;

/// Cosine and sine of every position and frequency, computed once.
#[derive(Debug)]
pub struct RotaryTable {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RotaryTable {
    /// Angles of the given positions for these frequencies (D/2 of them), a row for each.
    pub fn new(positions: impl Iterator<Item = u32>, frequencies: &[f32]) -> RotaryTable {
        let mut table = RotaryTable { half: frequencies.len(), cos: Vec::new(), sin: Vec::new() };
        for position in positions {
            for frequency in frequencies {
                let angle = position as f32 * frequency;
                table.cos.push(angle.cos());
                table.sin.push(angle.sin());
            }
        }
        table
    }

    /// Cosines [positions, D/2].
    pub fn cos(&self) -> &[f32] {
        &self.cos
    }

    /// Sines [positions, D/2].
    pub fn sin(&self) -> &[f32] {
        &self.sin
    }

    /// Turns the heads of `row` in place by the table's row `at`.
    #[inline(always)]
    fn turn(&self, row: &mut [f32], at: usize, sign: f32) {
        let at = at * self.half;
        let (cos, sin) = (&self.cos[at..at + self.half], &self.sin[at..at + self.half]);
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

wide! {
    /// Turns the heads of `rows` by the table's rows from `by.0` on; `by.1` -1 turns back.
    pub fn turn_some<'a>(
        rows: &'a mut [f32],
        width: usize,
        table: &'a RotaryTable,
        by: (usize, f32),
    ) {
        for (at, row) in rows.chunks_exact_mut(width).enumerate() {
            table.turn(row, by.0 + at, by.1);
        }
    }
}

/// Turns every row of `data` [T, width] by the table's row of the same number; `sign` -1 turns
/// back.
pub fn turn_rows(data: &mut [f32], width: usize, table: &RotaryTable, sign: f32) {
    data.par_chunks_mut(ROWS_PER_TASK * width).enumerate().for_each(|(part, rows)| {
        turn_some(rows, width, table, (part * ROWS_PER_TASK, sign));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backward_equals_differences() {
        let table = RotaryTable::new([0, 1, 5].into_iter(), &[1.0, 0.01]);
        let turned = |data: &[f32], sign| {
            let mut data = data.to_vec();
            turn_rows(&mut data, 8, &table, sign);
            data
        };
        super::super::testing::check(&[24], |t| turned(&t[0], 1.0), |_, dy| vec![turned(dy, -1.0)]);
    }
}
