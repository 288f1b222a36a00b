//! The product that draws: a few rows against a matrix that stays. Sums of one row are added in
//! the order of the inner index, one after another, whatever other rows are computed beside it and
//! however the work is cut: **a row's result does not depend on its company, bit for bit**, on
//! processors of one kind. (The general product of [`super::matmul`] does not promise that.)
//!
//! The matrix lies in panels of [`WIDTH`] columns, each contiguous and read from beginning to end:
//! few rows run at the speed of memory, many at that of arithmetic. Rows lie in blocks, turned, so
//! that the kernel reads both sides in order.

use super::wide;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::ops::{Deref, DerefMut};

/// Columns of a panel.
pub const WIDTH: usize = 32;

/// One row of a panel.
pub type Line = [f32; WIDTH];

/// Bytes that a processor fetches together.
const FETCHED: usize = 64;

/// Lines that begin where what a processor fetches begins: a vector that lies across two of those
/// costs two reads.
#[derive(Debug)]
pub struct Lines {
    numbers: Vec<f32>,
    first: usize,
}

impl Lines {
    /// So many of zeros. Memory that nobody writes to is not touched.
    pub fn zeros(count: usize) -> Lines {
        let spare = FETCHED / size_of::<f32>();
        let numbers = vec![0f32; count * WIDTH + spare];
        let first = numbers.as_ptr().align_offset(FETCHED).min(spare);
        Lines { numbers, first }
    }
}

impl Deref for Lines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        self.numbers[self.first..].as_chunks().0
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [Line] {
        self.numbers[self.first..].as_chunks_mut().0
    }
}

/// Numbers in a vector of the kernels here.
pub(crate) fn lanes() -> usize {
    struct F32Lanes;
    impl WithSimd for F32Lanes {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    Arch::new().dispatch(F32Lanes)
}

/// Rows that are computed at once: as many as there are registers for.
fn rows_at_once() -> usize {
    if lanes() >= 16 { 12 } else { 6 }
}

/// Rows [T, K] in blocks: of each block its first numbers, then its second ones.
#[derive(Debug, Default)]
pub struct RowBlocks {
    data: Vec<f32>,
    /// First row of every block, and the end.
    starts: Vec<usize>,
    inner: usize,
}

impl RowBlocks {
    /// Takes `rows` rows of `inner` numbers; `row(r)` is the r-th.
    pub fn fill<'a>(&mut self, rows: usize, inner: usize, row: impl Fn(usize) -> &'a [f32]) {
        let count = rows.div_ceil(rows_at_once());
        self.inner = inner;
        self.starts.clear();
        self.starts.extend((0..=count).map(|block| (rows * block).div_ceil(count.max(1))));
        self.data.resize(rows * inner, 0.0);
        for at in self.starts.windows(2) {
            let size = at[1] - at[0];
            let block = &mut self.data[at[0] * inner..at[1] * inner];
            for r in 0..size {
                let turned = block[r..].iter_mut().step_by(size);
                turned.zip(row(at[0] + r)).for_each(|(to, from)| *to = *from);
            }
        }
    }

    /// Adds these rows times `panel` `[K]` to `sums`, a line for every row. `next` is the panel that
    /// will be wanted after this one: it is fetched from memory in the meantime, a part beside
    /// every block.
    #[inline]
    pub fn add_product(&self, panel: &[Line], next: &[Line], sums: &mut [Line]) {
        debug_assert_eq!(panel.len(), self.inner);
        let count = (self.starts.len() - 1) * self.inner.div_ceil(NEAR);
        let mut parts = next.chunks(next.len().div_ceil(count.max(1)).max(1));
        for (from, stretch) in (0..).step_by(NEAR).zip(panel.chunks(NEAR)) {
            self.add_stretch(from, stretch, &mut parts, sums);
        }
    }

    /// The part of [`RowBlocks::add_product`] that `lines` make, which begin at the inner index
    /// `from`; of `ahead` a part is fetched beside every block.
    fn add_stretch(
        &self,
        from: usize,
        lines: &[Line],
        ahead: &mut std::slice::Chunks<'_, Line>,
        sums: &mut [Line],
    ) {
        for at in self.starts.windows(2) {
            let (first, size) = (at[0] * self.inner, at[1] - at[0]);
            let rows = &self.data[first + from * size..][..lines.len() * size];
            multiply(rows, lines, ahead.next().unwrap_or_default(), &mut sums[at[0]..at[1]]);
        }
    }
}

/// Adds a block of rows, turned, times `panel` to `sums`.
fn multiply(rows: &[f32], panel: &[Line], ahead: &[Line], sums: &mut [Line]) {
    macro_rules! by_size {
        ($($size:literal)*) => {
            match sums.len() {
                $($size => run::<$size>(rows, panel, ahead, sums),)*
                _ => {}
            }
        };
    }
    by_size!(1 2 3 4 5 6 7 8 9 10 11 12);
}

struct PanelTile<'a, const R: usize> {
    rows: &'a [[f32; R]],
    panel: &'a [Line],
    ahead: &'a [Line],
    sums: &'a mut [Line; R],
}

fn run<const R: usize>(rows: &[f32], panel: &[Line], ahead: &[Line], sums: &mut [Line]) {
    if let Ok(sums) = sums.try_into() {
        Arch::new().dispatch(PanelTile::<R> { rows: rows.as_chunks().0, panel, ahead, sums });
    }
}

/// Lines of a panel that all rows pass before the next ones: 24 KiB, which stay in the nearest
/// cache meanwhile.
const NEAR: usize = 192;

/// Steps of the inner index between two fetches.
const STRETCH: usize = 12;

/// Asks for a line that will be wanted soon. One core cannot wait for memory and compute at the
/// same time unless it is told beforehand.
#[inline(always)]
fn fetch(line: &Line) {
    #[cfg(target_arch = "x86_64")]
    for at in [0, WIDTH / 2] {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        #[expect(unsafe_code, reason = "the instruction has no safe name")]
        // SAFETY: the address lies in a slice; a prefetch changes no value and cannot fault.
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>((&raw const line[at]).cast());
        }
    }
}

impl<const R: usize> WithSimd for PanelTile<'_, R> {
    type Output = ();

    /// Two vectors of every row at a time: what they add up stays in registers.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let PanelTile { rows, panel, ahead, sums } = self;
        let each = (ahead.len() * STRETCH).div_ceil(panel.len().max(1)).max(1);
        let step = 2 * S::F32_LANES;
        for from in (0..WIDTH).step_by(step) {
            let mut held = [[simd.splat_f32s(0.0); 2]; R];
            for (held, line) in held.iter_mut().zip(sums.iter()) {
                let (vectors, _) = S::as_simd_f32s(&line[from..from + step]);
                *held = [vectors[0], vectors[1]];
            }
            let mut soon = ahead.chunks(each);
            for (rows, lines) in rows.chunks(STRETCH).zip(panel.chunks(STRETCH)) {
                soon.next().unwrap_or_default().iter().for_each(fetch);
                for (row, line) in rows.iter().zip(lines) {
                    let (vectors, _) = S::as_simd_f32s(&line[from..from + step]);
                    for (held, x) in held.iter_mut().zip(row) {
                        let x = simd.splat_f32s(*x);
                        held[0] = simd.mul_add_f32s(x, vectors[0], held[0]);
                        held[1] = simd.mul_add_f32s(x, vectors[1], held[1]);
                    }
                }
            }
            for (held, line) in held.iter().zip(sums.iter_mut()) {
                let (vectors, _) = S::as_mut_simd_f32s(&mut line[from..from + step]);
                (vectors[0], vectors[1]) = (held[0], held[1]);
            }
        }
    }
}

/// How the numbers of a [`Panels`] are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// As they are.
    #[default]
    Exact,
    /// 8 bits, with a scale for every column of `GROUP` numbers: a quarter of the memory.
    EightBit,
}

/// Inner numbers of a column that share a scale.
const GROUP: usize = 32;

#[derive(Debug)]
enum PanelData {
    Exact(Lines),
    EightBit {
        values: Vec<[i8; WIDTH]>,
        /// One line for every group.
        scales: Vec<Line>,
    },
}

/// A matrix `W` [N, K] arranged for `x W'`.
#[derive(Debug)]
pub struct Panels {
    numbers: PanelData,
    inner: usize,
    outer: usize,
}

/// Numbers of a result that are worth another thread to be put in order.
const GATHERED_MIN: usize = 1 << 16;

/// Products of fewer multiplications than this are not worth another thread.
const SHARED_MIN: usize = 1 << 16;

impl Panels {
    /// Arranges matrices [N, K], one below the other, whose rows are `inner` long.
    pub fn new(parts: &[&[f32]], inner: usize, storage: Storage) -> Panels {
        let outer = parts.iter().map(|part| part.len() / inner).sum();
        let mut panels = Panels::room(outer, inner);
        parts.iter().for_each(|part| panels.push(part));
        panels.stored(storage)
    }

    /// Room for `outer` rows, to be filled by [`Panels::push`].
    pub fn room(outer: usize, inner: usize) -> Panels {
        let lines = Lines::zeros(outer.div_ceil(WIDTH) * inner);
        Panels { numbers: PanelData::Exact(lines), inner, outer: 0 }
    }

    /// Appends the rows of a matrix [N, K].
    pub fn push(&mut self, matrix: &[f32]) {
        let PanelData::Exact(lines) = &mut self.numbers else { return };
        let (inner, first) = (self.inner, self.outer);
        self.outer += matrix.len() / inner;
        let panels = lines.par_chunks_mut(inner).enumerate().skip(first / WIDTH);
        panels.for_each(|(panel, lines)| {
            let from = (panel * WIDTH).max(first);
            let to = ((panel + 1) * WIDTH).min(first + matrix.len() / inner);
            let rows: Vec<&[f32]> = (from..to).map(|r| &matrix[(r - first) * inner..]).collect();
            // Line by line: each is written once, whole.
            for (k, line) in lines.iter_mut().enumerate() {
                let numbers = line[from % WIDTH..].iter_mut().zip(&rows);
                numbers.for_each(|(to, row)| *to = row[k]);
            }
        });
    }

    /// Kept as told.
    pub fn stored(mut self, storage: Storage) -> Panels {
        if let (Storage::EightBit, PanelData::Exact(lines)) = (storage, &self.numbers) {
            self.numbers = eight_bit(lines, self.inner);
        }
        self
    }

    /// Columns of the product.
    pub fn outer(&self) -> usize {
        self.outer
    }

    /// Row `row` of `W`.
    pub fn row(&self, row: usize, to: &mut [f32]) {
        let (panel, column) = (row / WIDTH * self.inner, row % WIDTH);
        match &self.numbers {
            PanelData::Exact(lines) => {
                let lines = &lines[panel..panel + self.inner];
                to.iter_mut().zip(lines).for_each(|(to, line)| *to = line[column]);
            }
            PanelData::EightBit { values, scales } => {
                let groups = self.inner.div_ceil(GROUP);
                let scales = &scales[row / WIDTH * groups..];
                let lines = values[panel..panel + self.inner].iter().enumerate();
                to.iter_mut().zip(lines).for_each(|(to, (k, line))| {
                    *to = f32::from(line[column]) * scales[k / GROUP][column];
                });
            }
        }
    }

    /// `to` [T, N] = `x` [T, K] W'.
    pub fn product(&self, x: &[f32], space: &mut ProductScratch, to: &mut Vec<f32>) {
        let rows = x.len() / self.inner;
        self.lines(x, space);
        to.resize(rows * self.outer, 0.0);
        let lines = &space.lines;
        let gather = |(row, to): (usize, &mut [f32])| {
            for (to, line) in to.chunks_mut(WIDTH).zip(lines[row..].iter().step_by(rows)) {
                to.copy_from_slice(&line[..to.len()]);
            }
        };
        match to.len() >= GATHERED_MIN {
            true => to.par_chunks_mut(self.outer).enumerate().for_each(gather),
            false => to.chunks_mut(self.outer).enumerate().for_each(gather),
        }
    }

    /// `to` [T, N] += `x` [T, K] W'.
    pub fn add_product(&self, x: &[f32], space: &mut ProductScratch, to: &mut [f32]) {
        let rows = x.len() / self.inner;
        self.lines(x, space);
        for (row, to) in to.chunks_mut(self.outer).enumerate() {
            for (to, line) in to.chunks_mut(WIDTH).zip(space.lines[row..].iter().step_by(rows)) {
                to.iter_mut().zip(line).for_each(|(to, more)| *to += more);
            }
        }
    }

    /// x W' in `space`: of every panel a line for each row.
    fn lines(&self, x: &[f32], space: &mut ProductScratch) {
        let rows = x.len() / self.inner;
        space.blocks.fill(rows, self.inner, |r| &x[r * self.inner..(r + 1) * self.inner]);
        let panels = self.outer.div_ceil(WIDTH);
        space.lines.resize(panels * rows, [0.0; WIDTH]);
        let blocks = &space.blocks;
        let one = |(panel, sums): (usize, &mut [Line])| {
            sums.fill([0.0; WIDTH]);
            self.panel_product(panel, blocks, sums);
        };
        let shared = rows * self.inner * self.outer >= SHARED_MIN;
        match shared {
            true => space.lines.par_chunks_mut(rows).enumerate().for_each(one),
            false => space.lines.chunks_mut(rows).enumerate().for_each(one),
        }
    }

    fn panel_product(&self, panel: usize, blocks: &RowBlocks, sums: &mut [Line]) {
        let range = panel * self.inner..(panel + 1) * self.inner;
        match &self.numbers {
            PanelData::Exact(lines) => {
                let next = range.end..(range.end + self.inner).min(lines.len());
                blocks.add_product(&lines[range], &lines[next], sums);
            }
            PanelData::EightBit { values, scales } => {
                let scales = &scales[panel * self.inner.div_ceil(GROUP)..];
                let mut near = [[0.0; WIDTH]; NEAR];
                let stretches = values[range].chunks(NEAR).zip(scales.chunks(NEAR / GROUP));
                for (at, (values, scales)) in stretches.enumerate() {
                    let lines = &mut near[..values.len()];
                    unpack(values, scales, lines);
                    blocks.add_stretch(at * NEAR, lines, &mut [].chunks(1), sums);
                }
            }
        }
    }
}

wide! {
    /// 8 bits as the numbers they stand for.
    fn unpack<'a>(values: &'a [[i8; WIDTH]], scales: &'a [Line], lines: &'a mut [Line]) {
        let groups = lines.chunks_mut(GROUP).zip(values.chunks(GROUP));
        for ((lines, values), scale) in groups.zip(scales) {
            for (line, values) in lines.iter_mut().zip(values) {
                *line = std::array::from_fn(|c| f32::from(values[c]) * scale[c]);
            }
        }
    }
}

/// Rounds each column of a group to 255 steps of its largest number.
fn eight_bit(lines: &[Line], inner: usize) -> PanelData {
    let panel = |panel: &[Line]| {
        let (mut values, mut scales) = (Vec::new(), Vec::new());
        for group in panel.chunks(GROUP) {
            let mut scale = [0f32; WIDTH];
            for line in group {
                scale.iter_mut().zip(line).for_each(|(most, v)| *most = most.max(v.abs() / 127.0));
            }
            for line in group {
                let rounded = |c: usize| (line[c] / scale[c].max(f32::MIN_POSITIVE)).round() as i8;
                values.push(std::array::from_fn(rounded));
            }
            scales.push(scale);
        }
        (values, scales)
    };
    let parts: Vec<_> = lines.par_chunks(inner.max(1)).map(panel).collect();
    let (values, scales): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    PanelData::EightBit { values: values.concat(), scales: scales.concat() }
}

/// Buffers of a product, kept from one to the next.
#[derive(Debug, Default)]
pub struct ProductScratch {
    blocks: RowBlocks,
    lines: Vec<Line>,
}

#[cfg(test)]
mod tests {
    use super::super::testing::noise;
    use super::*;

    fn product(panels: &Panels, x: &[f32]) -> Vec<f32> {
        let mut to = Vec::new();
        panels.product(x, &mut ProductScratch::default(), &mut to);
        to
    }

    /// Shapes of SmolLM2 among them; the exact sums come from f64.
    #[test]
    fn a_row_is_its_sums_of_products_and_does_not_depend_on_the_number_of_rows() {
        for (inner, outer) in [(3, 5), (128, 200), (576, 960), (1536, 576)] {
            let (w, x) = (noise(inner * outer, 1), noise(130 * inner, 2));
            let half = outer / 2 * inner;
            let panels = Panels::new(&[&w[..half], &w[half..]], inner, Storage::Exact);
            let whole = product(&panels, &x);
            for (i, j) in [(0, 0), (1, outer - 1), (129, outer / 2)] {
                let pairs = x[i * inner..].iter().zip(&w[j * inner..(j + 1) * inner]);
                let sum: f64 = pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                assert!((f64::from(whole[i * outer + j]) - sum).abs() < 1e-4);
            }
            for rows in [1, 2, 3, 5, 7, 12, 13, 31, 96] {
                let part = product(&panels, &x[..rows * inner]);
                assert!(part == whole[..rows * outer], "{rows} rows of {inner}x{outer}");
            }
        }
    }

    /// Processors with wide vectors, narrow ones and none.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn every_width_of_vectors_gives_the_same_bits() {
        let (rows, panel) = (noise(7 * 40, 1), noise(40 * WIDTH, 2));
        let (rows, panel) = (rows.as_chunks::<7>().0, panel.as_chunks::<WIDTH>().0);
        let run = |with: &dyn Fn(PanelTile<'_, 7>)| {
            let mut sums = [[0.5; WIDTH]; 7];
            with(PanelTile { rows, panel, ahead: &[], sums: &mut sums });
            sums
        };
        let scalar = run(&|tile| Simd::vectorize(pulp::Scalar::new(), tile));
        assert!(scalar.as_flattened().iter().any(|x| *x != 0.5));
        if let Some(v3) = pulp::x86::V3::try_new() {
            assert!(run(&|tile| Simd::vectorize(v3, tile)) == scalar);
        }
        if let Some(v4) = pulp::x86::V4::try_new() {
            assert!(run(&|tile| Simd::vectorize(v4, tile)) == scalar);
        }
    }

    #[test]
    fn eight_bits_are_within_half_a_step() {
        let (inner, outer) = (70, 40);
        let w = noise(inner * outer, 3);
        let panels = Panels::new(&[&w], inner, Storage::EightBit);
        let mut row = vec![0f32; inner];
        for j in 0..outer {
            panels.row(j, &mut row);
            for (group, exact) in row.chunks(GROUP).zip(w[j * inner..].chunks(GROUP)) {
                let most = exact.iter().take(group.len()).fold(0f32, |m, v| m.max(v.abs()));
                let gaps = group.iter().zip(exact).map(|(a, b)| (a - b).abs());
                assert!(gaps.fold(0.0, f32::max) <= most / 127.0 * 0.501);
            }
        }
        // What is read back and what is multiplied are the same numbers.
        let one: Vec<f32> = (0..inner).map(|k| if k == 33 { 1.0 } else { 0.0 }).collect();
        panels.row(7, &mut row);
        assert_eq!(product(&panels, &one)[7], row[33]);
    }
}
