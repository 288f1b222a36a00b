//! The MLP's gate.

use crate::args;
use crate::gpu::{Bf16, Buffer, Number, close, gpu, noise, rounded, run};
use gradus_kernels::{Emulator, rows_launch};

fn check<T: Number>(gpu: Emulator) {
    for (rows, inner) in [(1, 1), (3, 7), (2, 36), (5, 1536), (4, 2050)] {
        // Gates to where their sigmoid is 0 or 1.
        let data: Vec<f32> = noise(rows * 2 * inner, 1).iter().map(|x| 8.0 * x).collect();
        let slopes = noise(rows * inner, 2);
        let mut gate_up = Buffer::<T>::of(&data);
        let mut out = Buffer::<T>::blank(rows * inner);
        let launch = rows_launch(rows as u32, inner as u32);
        let name = format!("swiglu_{}", T::NAME);
        run(gpu, &name, launch, args![gate_up.read(), out.write(), rows, inner]);
        let (wide, slopes_wide) = (rounded::<T>(&data), rounded::<T>(&slopes));
        let (mut product, mut d_gate_up) = (Vec::new(), Vec::new());
        for (row, d) in wide.chunks(2 * inner).zip(slopes_wide.chunks(inner)) {
            let (gate, up) = row.split_at(inner);
            let sigmoid = |g: f64| 1.0 / (1.0 + (-g).exp());
            product.extend(gate.iter().zip(up).map(|(g, u)| g * sigmoid(*g) * u));
            d_gate_up.extend(gate.iter().zip(up).zip(d).map(|((g, u), d)| {
                let s = sigmoid(*g);
                d * u * s * (1.0 + g * (1.0 - s))
            }));
            d_gate_up.extend(gate.iter().zip(d).map(|(g, d)| d * g * sigmoid(*g)));
        }
        let error = 2e-6 + T::EPSILON;
        close(&name, &out.wide(), &product, error);
        let mut gated = Buffer::<T>::of(&slopes);
        let name = format!("swiglu_backward_{}", T::NAME);
        run(gpu, &name, launch, args![gate_up.write(), gated.write(), rows, inner]);
        close(&name, &gate_up.wide(), &d_gate_up, error);
        assert!(gated.get() == out.get(), "{name}: another product than forward");
    }
}

#[test]
fn forward_and_backward_are_the_formulas() {
    let Some(gpu) = gpu() else { return };
    check::<f32>(gpu);
    check::<Bf16>(gpu);
}
