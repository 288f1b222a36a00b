//! Log-probabilities of tokens.

use crate::args;
use crate::gpu::{Bf16, Buffer, Number, Stream, close, gpu, noise, run};
use gradus_kernels::{Emulator, rows_launch, token_logps_launch};

const SHAPES: [(usize, usize); 6] = [(1, 1), (3, 5), (4, 33), (2, 1000), (2, 49_152), (1, 152_001)];

struct Case {
    rows: usize,
    vocab: usize,
    logits: Vec<f32>,
    targets: Vec<u32>,
    totals: Vec<f64>,
}

impl Case {
    fn new((rows, vocab): (usize, usize)) -> Case {
        let mut logits: Vec<f32> = noise(rows * vocab, 1).iter().map(|x| 4.0 * x + 30.0).collect();
        let mut stream = Stream(2);
        let targets: Vec<u32> = (0..rows).map(|_| stream.below(vocab) as u32).collect();
        // A token that cannot come, and one that is nearly certain.
        if vocab > 4 {
            logits[3] = f32::NEG_INFINITY;
            logits[(rows - 1) * vocab + 2] = 60.0;
        }
        let total = |row: &[f32]| {
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|x| f64::from(x - most).exp()).sum();
            f64::from(most) + sum.ln()
        };
        let totals = logits.chunks(vocab).map(total).collect();
        Case { rows, vocab, logits, targets, totals }
    }
}

#[test]
fn logps_lose_nothing_over_large_vocabularies() {
    let Some(gpu) = gpu() else { return };
    for shape in SHAPES {
        let Case { rows, vocab, logits, targets, totals } = Case::new(shape);
        let (at, to) = (Buffer::new(&logits), Buffer::new(&targets));
        let (mut logps, mut kept) = (Buffer::<f32>::blank(rows), Buffer::<f32>::blank(rows));
        let args = args![at.read(), to.read(), logps.write(), kept.write(), rows, vocab];
        run(gpu, "token_logps", token_logps_launch(rows as u32), args);
        let of = |r: usize| f64::from(logits[r * vocab + targets[r] as usize]) - totals[r];
        for row in 0..rows {
            let (found, expected) = (f64::from(logps.get()[row]), of(row));
            let error = (found - expected).abs();
            assert!(
                error <= 1e-6 + 1e-7 * expected.abs() || found == expected,
                "{found} {expected}"
            );
        }
        close("totals", &kept.wide(), &totals, 1e-7);
    }
}

fn backward<T: Number>(
    gpu: Emulator,
    in_place: impl Fn(&mut Buffer<f32>) -> Option<crate::gpu::Arg>,
) {
    for shape in SHAPES {
        let Case { rows, vocab, logits, targets, totals } = Case::new(shape);
        let slopes = noise(rows, 3);
        let kept: Vec<f32> = totals.iter().map(|x| *x as f32).collect();
        let mut at = Buffer::new(&logits);
        let mut other = Buffer::<T>::blank(rows * vocab);
        let (to, kept, slope) = (Buffer::new(&targets), Buffer::new(&kept), Buffer::new(&slopes));
        let own = in_place(&mut at);
        let out = own.unwrap_or_else(|| other.write());
        let name = format!("token_logps_backward_{}", T::NAME);
        let launch = rows_launch(rows as u32, vocab as u32);
        let args = args![at.read(), to.read(), kept.read(), slope.read(), out, rows, vocab];
        run(gpu, &name, launch, args);
        let found = if own.is_some() { at.wide() } else { other.wide() };
        for (i, (found, logit)) in found.iter().zip(&logits).enumerate() {
            let (row, id) = (i / vocab, i % vocab);
            let own = if id == targets[row] as usize { 1.0 } else { 0.0 };
            // Beside the total that the kernel is given; the difference is rounded once.
            let x = f64::from(*logit) - f64::from(totals[row] as f32);
            let slope = f64::from(slopes[row]);
            let (p, expected) = (x.exp(), slope * (own - x.exp()));
            let error = (found - expected).abs();
            let of_p = if p > 0.0 { p * (1.0 + x.abs()) * 2e-7 } else { 0.0 };
            let bound = slope.abs() * (of_p + own * 1e-7) + T::EPSILON * expected.abs();
            assert!(error <= bound + 1e-30, "{name}, row {row}, token {id}: {found} {expected}");
        }
    }
}

#[test]
fn backward_is_the_softmax_against_the_target() {
    let Some(gpu) = gpu() else { return };
    backward::<f32>(gpu, |_| None);
    backward::<f32>(gpu, |logits| Some(logits.write()));
    backward::<Bf16>(gpu, |_| None);
}
