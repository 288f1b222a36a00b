//! Matrix products over strided views, by the crate `gemm`, which candle uses too. Calling it here
//! rather than through candle lets a product add to what is there, read a transposed matrix without
//! copying it, and write into a buffer that exists.

use rayon::prelude::*;

/// Rows are shared out by this many: the kernel's tiles stay whole.
const PART_ROWS: usize = 96;

/// The most rows that a thread takes at a time: so many of the left side, arranged for the kernel,
/// stay in a core's second cache.
const PART_ROWS_MAX: usize = 8 * PART_ROWS;

/// Columns above which threads share the packing of the right side instead of having rows of their
/// own.
const WIDE: usize = 8192;

/// A matrix inside a slice.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Mat<'a> {
    /// Row-major [rows, columns].
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Mat<'a> {
        Mat::strided(data, rows, columns, columns)
    }

    /// [rows, columns], each row `stride` after the one before.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Mat<'a> {
        Mat { data, rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// `rows` of it.
    fn part(self, rows: std::ops::Range<usize>) -> Mat<'a> {
        let data = self.data.get(rows.start * self.row_stride..).unwrap_or_default();
        Mat { data, rows: rows.len(), ..self }
    }

    /// Transposed; nothing moves.
    pub fn t(self) -> Mat<'a> {
        Mat {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// A row-major matrix that is written.
#[derive(Debug)]
pub struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a> MatMut<'a> {
    /// [rows, columns].
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize) -> MatMut<'a> {
        MatMut::strided(data, rows, columns, columns)
    }

    /// [rows, columns], each row `stride` after the one before.
    pub fn strided(data: &'a mut [f32], rows: usize, columns: usize, stride: usize) -> MatMut<'a> {
        MatMut { data, rows, columns, row_stride: stride }
    }
}

/// Numbers that a view of this shape reaches over.
fn span(rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> usize {
    match rows == 0 || columns == 0 {
        true => 0,
        false => (rows - 1) * row_stride + (columns - 1) * column_stride + 1,
    }
}

/// `to = scale * a b`, or `to += scale * a b` where `add`; on the threads of the current pool.
///
/// # Panics
/// When the shapes do not fit, or a view reaches past its slice.
pub fn matmul(to: MatMut<'_>, a: Mat<'_>, b: Mat<'_>, add: bool, scale: f32) {
    let threads = rayon::current_num_threads();
    let parts = threads * to.rows.div_ceil(threads * PART_ROWS_MAX);
    let part = to.rows.div_ceil(parts.max(1)).next_multiple_of(PART_ROWS);
    if threads == 1 || to.rows < 2 * PART_ROWS || b.columns > WIDE {
        return product(to, a, b, (add, scale), threads);
    }
    let MatMut { data, rows, columns, row_stride } = to;
    data.par_chunks_mut(part * row_stride).enumerate().for_each(|(index, data)| {
        let rows = (index * part).min(rows)..((index + 1) * part).min(rows);
        let to = MatMut { data, rows: rows.len(), columns, row_stride };
        product(to, a.part(rows), b, (add, scale), 1);
    });
}

/// As [`matmul`], on this thread alone: for products inside what is already shared out.
///
/// # Panics
/// As [`matmul`].
pub fn matmul_here(to: MatMut<'_>, a: Mat<'_>, b: Mat<'_>, add: bool, scale: f32) {
    product(to, a, b, (add, scale), 1);
}

fn product(to: MatMut<'_>, a: Mat<'_>, b: Mat<'_>, (add, scale): (bool, f32), threads: usize) {
    assert!(
        a.columns == b.rows && to.rows == a.rows && to.columns == b.columns,
        "[{}, {}] [{}, {}] is not [{}, {}]",
        a.rows,
        a.columns,
        b.rows,
        b.columns,
        to.rows,
        to.columns
    );
    for view in [a, b] {
        let reach = span(view.rows, view.columns, view.row_stride, view.column_stride);
        assert!(reach <= view.data.len(), "a view reaches past its slice");
    }
    // Rows that overlapped would be written by two threads at once.
    assert!(to.rows <= 1 || to.row_stride >= to.columns, "rows that are written overlap");
    assert!(span(to.rows, to.columns, to.row_stride, 1) <= to.data.len(), "written past the end");
    let threads = match threads {
        1 => gemm::Parallelism::None,
        n => gemm::Parallelism::Rayon(n),
    };
    #[expect(unsafe_code, reason = "the crate takes pointers")]
    // SAFETY: the views lie inside their slices and the strides are theirs, as checked above; `to`
    // is borrowed mutably, so it overlaps neither `a` nor `b`, and its own rows do not overlap.
    unsafe {
        gemm::gemm(
            to.rows,
            to.columns,
            a.columns,
            to.data.as_mut_ptr(),
            1,
            to.row_stride as isize,
            add,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            threads,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_views_are_sums_of_products() {
        let noise = super::super::testing::noise;
        for (m, k, n) in [(1, 1, 1), (3, 5, 2), (17, 33, 9), (40, 64, 70), (413, 24, 30)] {
            let (a, b) = (noise(m * k, 1), noise(k * n, 2));
            let expected = |i: usize, j: usize| -> f32 {
                (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum::<f32>() * 0.5
            };
            let turned = |data: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                (0..rows * columns).map(|at| data[(at % rows) * columns + at / rows]).collect()
            };
            let (a_turned, b_turned) = (turned(&a, m, k), turned(&b, k, n));
            let stride = n + 3;
            for (left, right) in [
                (Mat::new(&a, m, k), Mat::new(&b, k, n)),
                (Mat::new(&a_turned, k, m).t(), Mat::new(&b_turned, n, k).t()),
            ] {
                let mut to = vec![1f32; m * stride];
                matmul(MatMut::strided(&mut to, m, n, stride), left, right, true, 0.5);
                for i in 0..m {
                    for j in 0..stride {
                        let expected = if j < n { 1.0 + expected(i, j) } else { 1.0 };
                        assert!((to[i * stride + j] - expected).abs() < 1e-4);
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "past its slice")]
    fn a_view_past_its_slice_is_refused() {
        let (a, b) = ([1f32; 5], [1f32; 6]);
        matmul(
            MatMut::new(&mut [0f32; 4], 2, 2),
            Mat::new(&a, 2, 3),
            Mat::new(&b, 3, 2),
            false,
            1.0,
        );
    }
}
