//! Reading prompts and drawing after them, through `Generator::draw`, which is what a run calls.

use crate::floor::Counts;
use crate::report::{Outcome, Report};
use crate::work::{Shape, ids, requests};
use crate::{Bench, Failure, caught};
use gradus::lm::cancel::Cancel;
use gradus::lm::estimate::gpu::{Drawing, READ_ROWS_MAX, frozen_bytes};
use gradus::lm::generate::Generator;
use serde_json::json;
use std::time::Instant;

/// Every time is the best of so many; the first also warms up.
const ROUNDS: usize = 2;

/// Floors that a program is foretold to need.
const FLOORS: f64 = 3.0;

/// Decoding at every batch, then reading.
pub fn measure(bench: &Bench, shape: &Shape, report: &mut Report) {
    let batches = bench.options.batches.as_ref().unwrap_or(&shape.work.batches);
    let live = batches.iter().copied().max().unwrap_or(1);
    let made = || {
        let generator = Generator::made_up(&bench.gpu, &shape.config)?.with_live_max(live);
        // Kernels are compiled and loaded when they are first started.
        generator.draw(&requests(&prompts(shape, 2, 8), 4), &Cancel::default())?;
        Ok(generator)
    };
    let generator = match frozen_bytes(&shape.config, bench.gpu.dtype()) {
        wants if wants > bench.gpu.free() => {
            Err(format!("weights want {wants} bytes, and {} are free", bench.gpu.free()))
        }
        _ => caught(made).map_err(|why| why.to_string()),
    };
    let generator = generator.as_ref().map_err(|why| why.as_str());
    if bench.wants("decode") {
        for batch in batches {
            decode(bench, shape, generator, *batch, report);
        }
    }
    if bench.wants("prefill") {
        for [prompts, tokens] in &shape.work.prefill {
            prefill(bench, shape, generator, [*prompts, *tokens], report);
        }
    }
}

fn prompts(shape: &Shape, count: usize, tokens: usize) -> Vec<Vec<u32>> {
    (0..count).map(|n| ids(n, tokens, shape.config.vocab_size)).collect()
}

/// Seconds of a draw, the best of [`ROUNDS`]. All sequences must have been drawn together.
fn seconds(
    bench: &Bench,
    generator: &Generator,
    prompts: &[Vec<u32>],
    tokens: usize,
    cancel: &Cancel,
) -> Result<f64, Failure> {
    let requests = requests(prompts, tokens);
    let rows: usize = prompts.iter().map(Vec::len).sum();
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        // It looks at its flag at every step and every reading: more looks than those of all
        // sequences together mean that memory was short and fewer were drawn at a time.
        let looks = cancel.child();
        bench.gpu.wait()?;
        let began = Instant::now();
        let drawn = generator.draw(&requests, &looks)?;
        best = best.min(began.elapsed().as_secs_f64());
        if drawn.iter().flatten().any(|drawn| drawn.token_ids.len() != tokens) {
            return Err("a completion has another length".into());
        }
        let together = tokens + rows.div_ceil(READ_ROWS_MAX as usize) + 3;
        if looks.looks() > together as u64 {
            return Err("memory was short, and not all sequences were drawn together".into());
        }
    }
    Ok(best)
}

fn decode(
    bench: &Bench,
    shape: &Shape,
    generator: Result<&Generator, &str>,
    batch: usize,
    report: &mut Report,
) {
    let work = &shape.work;
    let [short, long] = work.tokens;
    let counts = Counts::of(&shape.config, bench.gpu.dtype().bytes());
    let floor = counts.decode(batch, work.context).overlapped(&bench.ceilings);
    let reading = counts.prefill(batch, work.drawn_after()).overlapped(&bench.ceilings);
    let steps = (short + long) as f64 * (floor + bench.launch_seconds());
    let about = FLOORS * ROUNDS as f64 * (2.0 * reading + steps);
    let of =
        json!({"what": "decode", "shape": shape.name, "batch": batch, "context": work.context});
    report.measure(of, about, |cancel| {
        let generator = generator?;
        let drawing = Drawing {
            live: batch as u64,
            tokens: (batch * (work.drawn_after() + long)) as u64,
            dtype: bench.gpu.dtype(),
        };
        let (wants, free) = (drawing.bytes(&shape.config), bench.gpu.free());
        if wants > free {
            return Ok(Outcome::Skipped(format!("wants {wants} bytes, and {free} are free")));
        }
        bench.gpu.take_most_held();
        let prompts = prompts(shape, batch, work.drawn_after());
        let few = seconds(bench, generator, &prompts, short, cancel)?;
        let many = seconds(bench, generator, &prompts, long, cancel)?;
        let step = (many - few) / (long - short) as f64;
        if step <= 0.0 {
            return Err(format!("{long} tokens took {many} s and {short} took {few} s").into());
        }
        Ok(Outcome::Figures(json!({
            "tokens_per_s": batch as f64 / step,
            "step_ms": 1e3 * step,
            "floor_ms": 1e3 * floor,
            "share_of_floor": floor / step,
            "draw_s": {short.to_string(): few, long.to_string(): many},
            "peak_bytes": bench.gpu.take_most_held(),
        })))
    });
}

fn prefill(
    bench: &Bench,
    shape: &Shape,
    generator: Result<&Generator, &str>,
    [count, tokens]: [usize; 2],
    report: &mut Report,
) {
    let counts = Counts::of(&shape.config, bench.gpu.dtype().bytes());
    let floor = counts.prefill(count, tokens).overlapped(&bench.ceilings);
    let about = FLOORS * ROUNDS as f64 * floor;
    let of = json!({"what": "prefill", "shape": shape.name, "prompts": count, "tokens": tokens});
    report.measure(of, about, |cancel| {
        let generator = generator?;
        let prompts = prompts(shape, count, tokens);
        bench.gpu.take_most_held();
        let took = seconds(bench, generator, &prompts, 1, cancel)?;
        Ok(Outcome::Figures(json!({
            "tokens_per_s": (count * tokens) as f64 / took,
            "seconds": took,
            "floor_ms": 1e3 * floor,
            "share_of_floor": floor / took,
            "peak_bytes": bench.gpu.take_most_held(),
        })))
    });
}
