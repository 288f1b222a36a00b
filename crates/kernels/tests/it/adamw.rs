//! The optimiser: bit for bit what crates/lm/src/optimizer.rs computes.

use crate::args;
use crate::gpu::{Arg, Bf16, Buffer, NULL, Number, close, gpu, noise, run};
use gradus_kernels::{Emulator, adamw_launch, square_sums_launch};

/// clip, b1, b2, c1, c2, keep, size, second, eps of the third step at a rate of 1e-3.
const STEP: [f32; 9] = [0.37, 0.9, 0.999, 0.1, 0.001, 0.99999, 3.69e-3, 0.054_7, 1e-8];

/// `Step::moved`.
fn moved(x: f32, g: f32, m: f32, v: f32) -> (f32, f32, f32) {
    let [clip, b1, b2, c1, c2, keep, size, second, eps] = STEP;
    let g = g * clip;
    let m = b1 * m + c1 * g;
    let v = b2 * v + c2 * g * g;
    (x * keep - size * m / (v.sqrt() / second + eps), m, v)
}

/// x, m, v, g.
fn state(n: usize) -> [Vec<f32>; 4] {
    let squares = noise(n, 3).iter().map(|x| x * x * 1e-3).collect();
    [noise(n, 1), noise(n, 2).iter().map(|x| 0.01 * x).collect(), squares, noise(n, 4)]
}

fn numbers() -> Vec<Arg> {
    STEP.iter().map(|x| Arg::from(*x)).collect()
}

fn check<W: Number>(gpu: Emulator, n: usize, shift: usize, wants_work: bool) {
    let [x, m, v, g] = state(n);
    let [mut x_at, mut m_at, mut v_at, g_at] =
        [&x, &m, &v, &g].map(|data| Buffer::shifted(data, shift));
    let mut work = Buffer::<W>::blank(n);
    let work_arg = if wants_work { work.write() } else { NULL };
    let launch = adamw_launch(n as u64);
    let mut most = Buffer::<f32>::blank(launch.grid[0] as usize);
    let tensors = args![x_at.write(), m_at.write(), v_at.write(), g_at.read(), work_arg, n as u64];
    let args = [&tensors[..], &numbers(), &[most.write()]].concat();
    run(gpu, &format!("adamw_{}", W::NAME), launch, &args);
    let (xs, ms, vs) = (x_at.get(), m_at.get(), v_at.get());
    let mut expected = Vec::with_capacity(n);
    let mut largest = 0f32;
    for i in 0..n {
        let (x, m, v) = moved(x[i], g[i], m[i], v[i]);
        assert_eq!((xs[i], ms[i], vs[i]), (x, m, v), "element {i} of {n}");
        expected.push(W::of(x));
        largest = largest.max(x.abs()).max(m.abs()).max(v.abs());
    }
    assert!(!wants_work || work.get() == expected, "working copy of {n}");
    assert_eq!(most.get().iter().copied().fold(0.0, f32::max), largest);
}

#[test]
fn a_step_is_the_step_on_the_cpu_to_the_last_bit() {
    let Some(gpu) = gpu() else { return };
    for (n, shift) in [(1, 0), (5, 0), (1024, 0), (4099, 0), (4099, 1), (3_000_001, 0)] {
        check::<Bf16>(gpu, n, shift, true);
        if n < 10_000 {
            check::<f32>(gpu, n, shift, true);
            check::<f32>(gpu, n, shift, false);
            check::<Bf16>(gpu, n, shift, false);
        }
    }
}

#[test]
fn what_would_not_be_finite_is_found_and_nothing_moves() {
    let Some(gpu) = gpu() else { return };
    let n = 3001;
    // Where, what x and g are there, and what must be found.
    let cases = [
        (0, 1.0, 1.0, 0),
        (7, 1.0, f32::NAN, 3),
        (2999, 1.0, 1e30, 1),
        (3000, f32::INFINITY, 1.0, 2),
    ];
    for (at, x, g, expected) in cases {
        let [mut xs, ms, vs, mut gs] = state(n);
        (xs[at], gs[at]) = (x, g);
        let [x_at, m_at, v_at, g_at] = [&xs, &ms, &vs, &gs].map(|data| Buffer::new(data));
        let launch = adamw_launch(n as u64);
        let mut flags = Buffer::<u32>::blank(launch.grid[0] as usize);
        let tensors = args![x_at.read(), m_at.read(), v_at.read(), g_at.read(), n as u64];
        let args = [&tensors[..], &numbers(), &[flags.write()]].concat();
        run(gpu, "adamw_check", launch, &args);
        assert_eq!(flags.get().iter().fold(0, |all, flag| all | flag), expected, "x {x}, g {g}");
    }
}

#[test]
fn squares_are_summed_in_f64() {
    let Some(gpu) = gpu() else { return };
    for (n, shift) in [(1, 0), (4097, 0), (4097, 3), (300_000, 0)] {
        let data = noise(n, 1);
        let from = Buffer::shifted(&data, shift);
        let launch = square_sums_launch(n as u64);
        let mut partial = Buffer::<f64>::blank(launch.grid[0] as usize);
        run(gpu, "square_sums", launch, args![from.read(), n as u64, partial.write()]);
        let found: f64 = partial.get().iter().sum();
        let expected: f64 = data.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        close("squares", &[found], &[expected], 1e-12);
    }
}
