//! DPO steps, through `TrainSession::dpo_step`, which is what a run calls: all weights, or an adapter on
//! all seven matrices of every layer.

use crate::floor::{Counts, adapter_numbers};
use crate::report::{Outcome, Report};
use crate::work::{Shape, pairs};
use crate::{Bench, Failure};
use gradus::lm::cancel::Cancel;
use gradus::lm::estimate::SavedActivations;
use gradus::lm::estimate::gpu::Training;
use gradus::lm::lora::LoraSettings;
use gradus::lm::loss::Loss;
use gradus::lm::optimizer::{OptimizerSettings, Schedule};
use gradus::lm::train::{DpoExample, DpoSettings, Method, StepReport, TrainSession, TrainSettings};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Instant;

/// Rank of the adapter.
const RANK: usize = 16;

/// Floors that a step is foretold to need.
const FLOORS: f64 = 6.0;

const LOSS: DpoSettings = DpoSettings {
    loss: Loss::Sigmoid { beta: 0.1, label_smoothing: 0.0 },
    nll_weight: 0.0,
    rehearsal_weight: 0.0,
};

fn settings(method: Method) -> TrainSettings {
    let optimizer = OptimizerSettings {
        learning_rate: 1e-6,
        schedule: Schedule::Constant,
        weight_decay: 0.01,
        ..OptimizerSettings::default()
    };
    TrainSettings { method, optimizer, threads: 1, gradient_checkpointing: false }
}

fn adapter() -> Method {
    let modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    let target_modules = modules.map(str::to_owned).to_vec();
    Method::Lora(LoraSettings { r: RANK, alpha: 32.0, target_modules })
}

/// All weights, then an adapter.
pub fn measure(bench: &Bench, shape: &Shape, count: usize, report: &mut Report) {
    for (name, method) in [("full", Method::Full), ("lora", adapter())] {
        let of = json!({"what": "dpo", "shape": shape.name, "method": name, "pairs": count,
            "prompt": shape.work.prompt, "response": shape.work.response});
        let floor = floor(bench, shape, count, &method);
        let steps = (shape.work.warm_steps + shape.work.steps + 1) as f64;
        let about = steps * (FLOORS * floor + 10.0 * bench.launch_seconds());
        report.measure(of, about, |cancel| {
            if let Some(why) = does_not_fit(bench, shape, count, &method) {
                return Ok(Outcome::Skipped(why));
            }
            let mut run = Run::new(bench, shape, count, method)?;
            run.figures(bench, shape, floor, cancel).map(Outcome::Figures)
        });
    }
}

fn floor(bench: &Bench, shape: &Shape, count: usize, method: &Method) -> f64 {
    let lora = matches!(method, Method::Lora(_));
    let moves = lora.then(|| adapter_numbers(&shape.config, RANK) as f64);
    let counts = Counts::of(&shape.config, bench.gpu.dtype().bytes());
    let lengths = [shape.work.prompt, shape.work.response];
    counts.dpo(count, lengths, moves).in_turn(&bench.ceilings)
}

/// By the same formula that `gradus run` refuses by.
fn does_not_fit(bench: &Bench, shape: &Shape, count: usize, method: &Method) -> Option<String> {
    let lora = matches!(method, Method::Lora(_));
    let training = Training {
        adapter: lora.then(|| adapter_numbers(&shape.config, RANK) as u64),
        items: count as u64,
        rows: (shape.work.prompt + 2 * shape.work.response) as u64,
        saved: SavedActivations::All,
        dtype: bench.gpu.dtype(),
    };
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let (wants, free) = (training.bytes(&shape.config), bench.gpu.free());
    (wants > free).then(|| format!("wants {:.1} GB, and {:.1} are free", gb(wants), gb(free)))
}

/// A trainer and its batch.
struct Run {
    trainer: TrainSession,
    pairs: Vec<DpoExample>,
}

impl Run {
    fn new(bench: &Bench, shape: &Shape, count: usize, method: Method) -> Result<Run, Failure> {
        bench.gpu.take_most_held();
        let trainer = TrainSession::on_made_up(&bench.gpu, &shape.config, settings(method))?;
        Ok(Run { trainer, pairs: pairs(shape, count) })
    }

    /// Seconds of a step, and its loss.
    fn step(&mut self, bench: &Bench, cancel: &Cancel) -> Result<(f64, f64), Failure> {
        bench.gpu.wait()?;
        let began = Instant::now();
        let report = self.trainer.dpo_step(&self.pairs, &[], &LOSS, cancel)?;
        bench.gpu.wait()?;
        match report {
            StepReport::Taken(figures) => Ok((began.elapsed().as_secs_f64(), figures.loss)),
            StepReport::Skipped { reason } => Err(reason.into()),
        }
    }

    fn figures(
        &mut self,
        bench: &Bench,
        shape: &Shape,
        floor: f64,
        cancel: &Cancel,
    ) -> Result<Value, Failure> {
        let work = &shape.work;
        let (mut warm, mut seconds, mut losses) = (Vec::new(), Vec::new(), Vec::new());
        for step in 0..work.warm_steps + work.steps {
            let (took, loss) = self.step(bench, cancel)?;
            if step < work.warm_steps {
                warm.push(took)
            } else {
                seconds.push(took)
            }
            losses.push(loss);
        }
        let peak = bench.gpu.take_most_held();
        let short = self.trainer.short_of_memory();
        bench.gpu.time_phases();
        let watched = self.step(bench, cancel);
        let phases = bench.gpu.take_phases().into_iter();
        let phases: BTreeMap<&str, f64> =
            phases.map(|(name, took)| (name, 1e3 * took.as_secs_f64())).collect();
        let mut sorted = seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted[sorted.len() / 2];
        let count = self.pairs.len();
        Ok(json!({
            "step_ms": 1e3 * median,
            "steps_s": seconds,
            "warm_steps_s": warm,
            "tokens_per_s": (2 * count * (work.prompt + work.response)) as f64 / median,
            "rows": count * (work.prompt + 2 * (work.response - 1)),
            "floor_ms": 1e3 * floor,
            "share_of_floor": floor / median,
            "peak_bytes": peak,
            "losses": losses,
            "short_of_memory": short.iter().map(|short| &short.reason).collect::<Vec<_>>(),
            "phases_ms": phases,
            "watched_step_ms": 1e3 * watched?.0,
        }))
    }
}
