//! Norm and rotary embedding of heads.

use crate::args;
use crate::gpu::{Arg, Bf16, Buffer, NULL, Number, close, gpu, noise, rounded, run};
use gradus_kernels::{Emulator, heads_backward_launch, heads_launch};

const EPS: f32 = 1e-6;
/// Rows, heads, width of a head.
const SHAPES: [(usize, usize, usize); 8] = [
    (1, 1, 2),
    (3, 4, 4),
    (5, 3, 16),
    (7, 9, 64),
    (4, 1, 80),
    (2, 7, 128),
    (3, 2, 256),
    (70, 64, 6),
];

struct Case {
    rows: usize,
    heads: usize,
    dim: usize,
    stride: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
    weight: Option<Vec<f32>>,
}

impl Case {
    fn new((rows, heads, dim): (usize, usize, usize), normed: bool) -> Case {
        let angles = noise(rows * dim / 2, 5);
        Case {
            rows,
            heads,
            dim,
            stride: heads * dim + 3,
            cos: angles.iter().map(|a| a.cos()).collect(),
            sin: angles.iter().map(|a| a.sin()).collect(),
            weight: normed.then(|| noise(dim, 6)),
        }
    }

    /// The head's numbers among rows.
    fn range(&self, row: usize, head: usize) -> std::ops::Range<usize> {
        let from = row * self.stride + head * self.dim;
        from..from + self.dim
    }

    fn each(&self) -> impl Iterator<Item = (usize, usize)> {
        let heads = self.heads;
        (0..self.rows).flat_map(move |row| (0..heads).map(move |head| (row, head)))
    }

    fn turned(&self, row: usize, head: &[f64], sign: f64) -> Vec<f64> {
        let half = self.dim / 2;
        let mut to = vec![0.0; self.dim];
        for i in 0..half {
            let at = row * half + i;
            let (c, s) = (f64::from(self.cos[at]), sign * f64::from(self.sin[at]));
            to[i] = head[i] * c - head[i + half] * s;
            to[i + half] = head[i + half] * c + head[i] * s;
        }
        to
    }

    fn inverse(&self, head: &[f64]) -> f64 {
        let mean = head.iter().map(|x| x * x).sum::<f64>() / self.dim as f64;
        1.0 / (mean + f64::from(EPS)).sqrt()
    }

    fn forward(&self, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (mut y, mut inverses) = (x.to_vec(), Vec::new());
        for (row, head) in self.each() {
            let range = self.range(row, head);
            let mut numbers = x[range.clone()].to_vec();
            let inverse = self.inverse(&numbers);
            inverses.push(inverse);
            if let Some(weight) = &self.weight {
                numbers.iter_mut().zip(weight).for_each(|(x, w)| *x *= inverse * f64::from(*w));
            }
            y[range].copy_from_slice(&self.turned(row, &numbers, 1.0));
        }
        (y, inverses)
    }

    /// Gradients of the heads before, and of the weight.
    fn backward(&self, x: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (mut dx, mut dw) = (dy.to_vec(), vec![0.0; self.dim]);
        for (row, head) in self.each() {
            let range = self.range(row, head);
            let mut d = self.turned(row, &dy[range.clone()], -1.0);
            if let Some(weight) = &self.weight {
                let x = &x[range.clone()];
                let inverse = self.inverse(x);
                let scaled = |i: usize| d[i] * f64::from(weight[i]);
                let pull: f64 = (0..self.dim).map(|i| scaled(i) * x[i]).sum::<f64>()
                    * inverse.powi(3)
                    / self.dim as f64;
                let slopes: Vec<f64> =
                    (0..self.dim).map(|i| scaled(i) * inverse - x[i] * pull).collect();
                (0..self.dim).for_each(|i| dw[i] += d[i] * x[i] * inverse);
                d = slopes;
            }
            dx[range].copy_from_slice(&d);
        }
        (dx, dw)
    }
}

fn check_forward<T: Number>(gpu: Emulator, case: &Case, in_place: bool) {
    let Case { rows, heads, dim, stride, .. } = *case;
    let x = noise(rows * stride, 7);
    let mut from = Buffer::<T>::of(&x);
    let mut to = from.clone();
    let mut inverses = Buffer::<f32>::blank(rows * heads);
    let (cos, sin) = (Buffer::new(&case.cos), Buffer::new(&case.sin));
    let weight = case.weight.as_ref().map(|w| Buffer::new(w));
    let weight_arg = weight.as_ref().map_or(NULL, Buffer::read);
    let inverses_arg = if weight.is_some() { inverses.write() } else { NULL };
    let out = if in_place { from.write() } else { to.write() };
    let name = format!("heads_{}", T::NAME);
    let launch = heads_launch(rows as u32, heads as u32);
    let places: [Arg; 4] = [from.read(), stride.into(), out, stride.into()];
    let rest = args![rows, heads, dim, weight_arg, inverses_arg, EPS, cos.read(), sin.read()];
    run(gpu, &name, launch, &[&places[..], rest].concat());
    let (expected, factors) = case.forward(&rounded::<T>(&x));
    let found = if in_place { from.wide() } else { to.wide() };
    close(&format!("{name} of {dim}"), &found, &expected, 2e-6 + T::EPSILON);
    if weight.is_some() {
        close("inverses", &inverses.wide(), &factors, 1e-6);
    }
}

fn check_backward<T: Number>(gpu: Emulator, case: &Case) {
    let Case { rows, heads, dim, stride, .. } = *case;
    let (x, dy) = (noise(rows * stride, 7), noise(rows * stride, 8));
    let raw = Buffer::<T>::of(&x);
    let mut d = Buffer::<T>::of(&dy);
    let (_, factors) = case.forward(&rounded::<T>(&x));
    let factors: Vec<f32> = factors.iter().map(|x| *x as f32).collect();
    let (inverses, cos, sin) =
        (Buffer::new(&factors), Buffer::new(&case.cos), Buffer::new(&case.sin));
    let weight = case.weight.as_ref().map(|w| Buffer::new(w));
    let launch = heads_backward_launch(rows as u32, heads as u32, dim as u32);
    let blocks = launch.grid[0] as usize;
    let mut partial = Buffer::<f32>::blank(blocks * dim);
    let norm = match &weight {
        Some(weight) => {
            [raw.read(), stride.into(), weight.read(), inverses.read(), partial.write()]
        }
        None => [NULL, 0u32.into(), NULL, NULL, NULL],
    };
    let name = format!("heads_backward_{}", T::NAME);
    let first = args![d.write(), stride, rows, heads, dim, cos.read(), sin.read()];
    run(gpu, &name, launch, &[&first[..], &norm].concat());
    let (expected, dw) = case.backward(&rounded::<T>(&x), &rounded::<T>(&dy));
    close(&format!("{name} of {dim}"), &d.wide(), &expected, 4e-6 + T::EPSILON);
    if weight.is_some() {
        let partial = partial.wide();
        let sum = |i: usize| partial.chunks(dim).map(|row| row[i]).sum::<f64>();
        let sums: Vec<f64> = (0..dim).map(sum).collect();
        close("the gradient of the weight", &sums, &dw, 1e-5);
    }
}

fn check<T: Number>(gpu: Emulator) {
    for shape in SHAPES {
        for normed in [false, true] {
            let case = Case::new(shape, normed);
            check_forward::<T>(gpu, &case, false);
            check_forward::<T>(gpu, &case, true);
            check_backward::<T>(gpu, &case);
        }
    }
}

#[test]
fn heads_are_normed_and_turned_and_back_in_f32() {
    let Some(gpu) = gpu() else { return };
    check::<f32>(gpu);
}

#[test]
fn heads_are_normed_and_turned_and_back_in_bf16() {
    let Some(gpu) = gpu() else { return };
    check::<Bf16>(gpu);
}
