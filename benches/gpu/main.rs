//! What the model layer does on a GPU, beside what the card allows, as one JSON document:
//! `benches/gpu/run` calls it, and `docs/performance.md` says what is measured.
//!
//! usage: gpu-bench [--shapes 135M,1B,7B|tiny] [--only decode,prefill,dpo] [--batches 1,8,...]
//!                  [--pairs N,N,...] [--seconds N] [--out FILE] [--emulated]
//!
//! Read [`work`] for what is measured, [`floor`] for what it is held against, [`draw`] and [`train`]
//! for how. `--emulated` runs the kernels on the CPU: the figures say nothing then, and that there
//! are any says that this program works.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that stops has failed"
)]

mod draw;
mod floor;
mod report;
mod train;
mod work;

use gradus::lm::device::{DeviceChoice, Dtype, select};
use gradus::lm::gpu::{Ceilings, Gpu, ceilings};
use report::{Outcome, Report};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "usage: gpu-bench [--shapes 135M,1B,7B|tiny] [--only decode,prefill,dpo] \
                     [--batches 1,8,...] [--pairs N,N,...] [--seconds N] [--out FILE] [--emulated]";

/// Which device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Gpu,
    Emulated,
}

/// What was asked for.
struct Options {
    place: Where,
    shapes: Vec<String>,
    only: Vec<String>,
    batches: Option<Vec<usize>>,
    /// One for each shape, in order.
    pairs: Option<Vec<usize>>,
    budget: Duration,
    out: Option<PathBuf>,
}

fn list(text: &str) -> Vec<String> {
    text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn numbers(text: &str) -> Result<Vec<usize>, Failure> {
    list(text).iter().map(|part| part.parse().map_err(|_| USAGE.into())).collect()
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Options, Failure> {
        let mut options = Options {
            place: Where::Gpu,
            shapes: ["135M", "1B", "7B"].map(str::to_owned).to_vec(),
            only: ["decode", "prefill", "dpo"].map(str::to_owned).to_vec(),
            batches: None,
            pairs: None,
            budget: Duration::from_secs(600),
            out: None,
        };
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().ok_or(USAGE);
            match flag.as_str() {
                "--emulated" => options.place = Where::Emulated,
                "--shapes" => options.shapes = list(&value()?),
                "--only" => options.only = list(&value()?),
                "--batches" => options.batches = Some(numbers(&value()?)?),
                "--pairs" => options.pairs = Some(numbers(&value()?)?),
                "--seconds" => options.budget = Duration::from_secs(value()?.parse()?),
                "--out" => options.out = Some(value()?.into()),
                _ => return Err(USAGE.into()),
            }
        }
        Ok(options)
    }
}

/// What measurements need.
struct Bench {
    gpu: Gpu,
    ceilings: Ceilings,
    options: Options,
}

impl Bench {
    fn wants(&self, what: &str) -> bool {
        self.options.only.iter().any(|only| only == what)
    }

    /// What a step takes that only starts kernels, as far as that can be foretold.
    fn launch_seconds(&self) -> f64 {
        match self.options.place {
            Where::Gpu => 2e-3,
            Where::Emulated => 0.0,
        }
    }
}

/// The device, and what it is.
fn open(place: Where) -> Result<(Gpu, String), Failure> {
    match place {
        Where::Emulated => {
            let gpu = Gpu::emulated(Dtype::Bf16);
            let gpu = gpu.ok_or("the kernels were not compiled for this CPU (no C++ compiler)")?;
            Ok((gpu, "the kernels on the CPU".to_owned()))
        }
        Where::Gpu => {
            let picked = select(DeviceChoice::Cuda(0))?;
            let gpu = Gpu::of(&picked, Dtype::Bf16)?.ok_or("what was picked is no GPU")?;
            Ok((gpu, picked.to_string()))
        }
    }
}

/// A panic becomes an error.
fn caught<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(format!("a panic: {}", report::words(&*panic)).into()))
}

/// What floors are made of, for whoever reads the document.
fn described(shapes: &[work::Shape], dtype: Dtype) -> Value {
    let described = |shape: &work::Shape| {
        let counts = floor::Counts::of(&shape.config, dtype.bytes());
        let numbers = json!({"of": shape.of, "matmul_parameters": counts.matmul(),
            "kv_bytes_per_token": counts.kv_bytes});
        (shape.name.clone(), numbers)
    };
    json!(shapes.iter().map(described).collect::<BTreeMap<_, _>>())
}

fn main() -> Result<(), Failure> {
    let options = Options::read(std::env::args().skip(1))?;
    let shapes = work::shapes(&options.shapes)?;
    let (gpu, device) = open(options.place)?;
    let head = json!({
        "device": device,
        "dtype": gpu.dtype(),
        "version": env!("CARGO_PKG_VERSION"),
        "free_bytes": gpu.free(),
        "shapes": described(&shapes, gpu.dtype()),
    });
    let mut report = Report::new(head, options.out.clone(), options.budget);
    // Where they cannot be measured there are no floors, and everything else all the same.
    let mut found = Ceilings { memory_gb_per_s: f64::NAN, product_tflops: f64::NAN };
    report.measure(json!({"what": "ceilings"}), 0.0, |_| {
        found = ceilings(&gpu)?;
        Ok(Outcome::Figures(json!({"memory_gb_per_s": found.memory_gb_per_s,
            "product_tflops": found.product_tflops})))
    });
    let bench = Bench { gpu, ceilings: found, options };
    for (index, shape) in shapes.iter().enumerate() {
        draw::measure(&bench, shape, &mut report);
        if bench.wants("dpo") {
            let given = bench.options.pairs.as_ref().and_then(|pairs| pairs.get(index));
            train::measure(&bench, shape, given.copied().unwrap_or(shape.pairs), &mut report);
        }
    }
    report.note("held_bytes_at_the_end", json!(bench.gpu.held()));
    report.keep();
    println!("{:#}", report.document());
    Ok(())
}
