//! RMSNorm.

use crate::args;
use crate::gpu::{Buffer, Element, NULL, Number, close, gpu, noise, rounded, run};
use gradus_kernels::{Emulator, column_sums_launch, rms_norm_backward_launch, rows_launch};

const EPS: f32 = 1e-5;

/// One row, odd widths, widths that go by fours, more rows than blocks.
const SHAPES: [(usize, usize); 6] = [(1, 5), (3, 64), (7, 30), (5, 576), (2, 2051), (1030, 12)];

fn inverses(x: &[f64], width: usize) -> Vec<f64> {
    let mean = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>() / width as f64;
    x.chunks(width).map(|row| 1.0 / (mean(row) + f64::from(EPS)).sqrt()).collect()
}

fn forward<Y: Number>(gpu: Emulator, shift: usize) {
    for (rows, width) in SHAPES {
        let (x, w) = (noise(rows * width, 1), noise(width, 2));
        let (x_at, w_at) = (Buffer::shifted(&x, shift), Buffer::shifted(&w, shift));
        let mut y = Buffer::<Y>::blank(rows * width);
        let mut kept = Buffer::<f32>::blank(rows);
        let launch = rows_launch(rows as u32, width as u32);
        let name = format!("rms_norm_f32_{}", Y::NAME);
        run(
            gpu,
            &name,
            launch,
            args![x_at.read(), w_at.read(), y.write(), kept.write(), rows, width, EPS],
        );
        let wide = rounded::<f32>(&x);
        let inverses = inverses(&wide, width);
        let each = wide.chunks(width).zip(&inverses);
        let scaled =
            each.flat_map(|(x, i)| x.iter().zip(&w).map(move |(x, w)| x * i * f64::from(*w)));
        let expected: Vec<f64> = scaled.collect();
        close("inverses", &kept.wide(), &inverses, 1e-6);
        close(&name, &y.wide(), &expected, 1e-6 + Y::EPSILON);
        let mut again = Buffer::<Y>::blank(rows * width);
        let name = format!("scale_rows_f32_{}", Y::NAME);
        let args = args![x_at.read(), w_at.read(), kept.read(), again.write(), rows, width];
        run(gpu, &name, launch, args);
        assert!(again.get() == y.get(), "{name}: not what the norm gave");
    }
}

#[test]
fn forward_is_the_formula_and_scaling_gives_it_again() {
    let Some(gpu) = gpu() else { return };
    forward::<f32>(gpu, 0);
    forward::<crate::gpu::Bf16>(gpu, 0);
    forward::<f32>(gpu, 1);
}

/// What is added to dx, and the gradient of w.
fn slopes(x: &[f64], w: &[f64], dy: &[f64], width: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut dx, mut dw) = (Vec::new(), vec![0.0; width]);
    let rows = x.chunks(width).zip(dy.chunks(width)).zip(inverses(x, width));
    for ((x, dy), inverse) in rows {
        let sum: f64 = (0..width).map(|i| dy[i] * w[i] * x[i]).sum();
        let pull = sum * inverse.powi(3) / width as f64;
        for i in 0..width {
            dx.push(dy[i] * w[i] * inverse - x[i] * pull);
            dw[i] += dy[i] * x[i] * inverse;
        }
    }
    (dx, dw)
}

fn backward<D: Number>(gpu: Emulator) {
    for (rows, width) in SHAPES {
        let (x, w, dy) = (noise(rows * width, 1), noise(width, 2), noise(rows * width, 3));
        let before = noise(rows * width, 4);
        let wide = rounded::<f32>(&x);
        let (added, dw) = slopes(&wide, &rounded::<f32>(&w), &rounded::<D>(&dy), width);
        let factors: Vec<f32> = inverses(&wide, width).iter().map(|i| *i as f32).collect();
        let (x, w, factors) = (Buffer::new(&x), Buffer::new(&w), Buffer::new(&factors));
        let dy = Buffer::<D>::of(&dy);
        let mut dx = Buffer::new(&before);
        let launch = rms_norm_backward_launch(rows as u32, width as u32);
        let blocks = launch.grid[0] as usize;
        let mut partial = Buffer::<f32>::blank(blocks * width);
        let name = format!("rms_norm_backward_{}", D::NAME);
        let given = [x.read(), w.read(), factors.read(), dy.read()];
        let rest = args![dx.write(), partial.write(), rows, width];
        run(gpu, &name, launch, &[&given[..], rest].concat());
        let sums: Vec<f64> =
            added.iter().zip(&before).map(|(added, before)| added + f64::from(*before)).collect();
        close(&name, &dx.wide(), &sums, 2e-6);
        // Added up, and added to what is there.
        let mut to = Buffer::new(&vec![0.5f32; width]);
        let launch_sums = column_sums_launch(width as u32);
        run(
            gpu,
            "column_sums",
            launch_sums,
            args![partial.read(), to.write(), blocks, width, 1u32],
        );
        let expected: Vec<f64> = dw.iter().map(|dw| dw + 0.5).collect();
        close("the gradient of w", &to.wide(), &expected, 1e-5);
        let mut to = Buffer::new(&vec![f32::RUBBISH; width]);
        run(
            gpu,
            "column_sums",
            launch_sums,
            args![partial.read(), to.write(), blocks, width, 0u32],
        );
        close("the gradient of w, not added", &to.wide(), &dw, 1e-5);
        let mut without = Buffer::new(&before);
        run(gpu, &name, launch, &[&given[..], args![without.write(), NULL, rows, width]].concat());
        assert!(without.get() == dx.get(), "{name}: dx depends on whether w is wanted");
    }
}

#[test]
fn backward_adds_the_gradients() {
    let Some(gpu) = gpu() else { return };
    backward::<f32>(gpu);
    backward::<crate::gpu::Bf16>(gpu);
}
