//! Training on the CPU. A large model computes a batch in micro-batches that fit into memory, one
//! after another, all threads in each product. A small one, whose products are too small to be
//! shared, gives each thread a part of the batch. Gradients are added in order, so the result is the
//! same, bit for bit, for a fixed thread count.

use super::work::Work;
use super::{
    MICRO_BATCH_BYTES, Method, Seat, ShortOfMemory, StepMetrics, TrainSettings,
    activation_bytes_per_row, lanes_of,
};
use crate::cancel::Cancel;
use crate::decoder::{Decoder, Gradients, Id, Parameter, Workspace};
use crate::error::LmError;
use crate::optimizer::{AdamW, Moving, OptimizerSettings, global_norm};
use crate::weights::Weights;
use std::collections::BTreeMap;
use std::ops::Range;

/// One thread, or all of them, with what it computes in.
struct Lane {
    pool: rayon::ThreadPool,
    space: Workspace,
    grads: Gradients,
}

/// Weights in training on the CPU.
pub(super) struct Lanes {
    pub decoder: Decoder,
    adamw: AdamW,
    lanes: Vec<Lane>,
    threads: usize,
    checkpointing: bool,
}

impl Lanes {
    /// Threads and their room.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn new(decoder: Decoder, settings: &TrainSettings) -> Result<Lanes, LmError> {
        let numbers: usize = decoder.parameters.iter().map(|p| p.value.len()).sum();
        let threads = settings.threads.max(1);
        let lanes = lanes_of(numbers * size_of::<f32>(), threads);
        let each = threads / lanes;
        let full = settings.method == Method::Full;
        let moves = |p: &Parameter| full || p.low_rank;
        let lane = |_| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(each).build();
            Ok(Lane {
                pool: pool.map_err(|error| LmError::Threads(error.to_string()))?,
                space: Workspace::new(settings.gradient_checkpointing),
                grads: Gradients::new(&decoder.parameters, moves),
            })
        };
        let lanes = (0..lanes).map(lane).collect::<Result<_, LmError>>()?;
        let checkpointing = settings.gradient_checkpointing;
        let adamw = AdamW::default();
        Ok(Lanes { decoder, adamw, lanes, threads: settings.threads, checkpointing })
    }

    /// Deals the work out to the lanes in nearly equal parts, cuts each part into micro-batches
    /// that fit in [`MICRO_BATCH_BYTES`], computes the parts side by side, and adds the gradients
    /// to the first lane's, in order.
    fn share_out(&mut self, work: &Work<'_>, cancel: &Cancel) -> Result<StepMetrics, LmError> {
        cancel.check()?;
        let decoder = &self.decoder;
        let size = work.len().div_ceil(self.lanes.len()).max(1);
        let per_row = activation_bytes_per_row(decoder.config(), self.checkpointing).max(1);
        let most = MICRO_BATCH_BYTES / per_row / self.lanes.len();
        let part_figures = |part: Range<usize>, space: &mut Workspace, grads: &mut Gradients| {
            let mut sum = StepMetrics::default();
            for micro in work.micro_batches(part, most) {
                cancel.check()?;
                let more = work.compute(micro, &mut |rows, scored, slopes| {
                    decoder.differentiate(rows, scored, slopes, (&mut *space, &mut *grads))
                });
                sum.add(&more?);
            }
            Ok(sum)
        };
        let parts = (0..work.len()).step_by(size).map(|from| from..(from + size).min(work.len()));
        let figures: Vec<Result<StepMetrics, LmError>> = std::thread::scope(|scope| {
            let running: Vec<_> = parts
                .zip(&mut self.lanes)
                .map(|(part, Lane { pool, space, grads })| {
                    let part_figures = &part_figures;
                    let compute = move || pool.install(|| part_figures(part, space, grads));
                    std::thread::Builder::new().spawn_scoped(scope, compute)
                })
                .collect();
            let lost = || Err(LmError::Training("a training thread panicked".to_owned()));
            let figures = running.into_iter().map(|started| match started {
                Ok(thread) => thread.join().unwrap_or_else(|_| lost()),
                Err(error) => Err(LmError::Threads(error.to_string())),
            });
            figures.collect()
        });
        cancel.check()?;
        let mut sum = StepMetrics::default();
        for figures in figures {
            sum.add(&figures?);
        }
        if let Some((first, more)) = self.lanes.split_first_mut() {
            for lane in more {
                first.grads.add_all(&lane.grads);
                lane.grads.clear();
            }
        }
        Ok(sum)
    }
}

impl Seat for Lanes {
    fn step(&self) -> u32 {
        self.adamw.step()
    }

    fn gradients(
        &mut self,
        works: &[Work<'_>],
        cancel: &Cancel,
    ) -> Result<Vec<StepMetrics>, LmError> {
        self.lanes.iter_mut().for_each(|lane| lane.grads.clear());
        works.iter().map(|work| self.share_out(work, cancel)).collect()
    }

    /// By the first lane's gradients.
    fn apply(
        &mut self,
        settings: &OptimizerSettings,
        figures: &mut StepMetrics,
    ) -> Result<Result<(), String>, LmError> {
        let Lanes { decoder, adamw, lanes, threads, .. } = self;
        // The optimiser's pass is bound by memory: it takes all threads, whoever computed.
        let Some(lane) = lanes.first_mut() else { return Ok(Err("no threads".to_owned())) };
        let grads = lane.grads.all();
        let mut step = || {
            figures.grad_norm = global_norm(grads.iter().map(|(_, grad)| *grad));
            figures.check()?;
            let mut by_id: BTreeMap<Id, &[f32]> = grads.iter().copied().collect();
            let moving = decoder.parameters.iter_mut().enumerate().filter_map(|(id, p)| {
                let grad = by_id.remove(&id)?;
                Some(Moving { name: &p.name, value: &mut p.value, grad })
            });
            let mut moving = moving.collect::<Vec<_>>();
            figures.learning_rate = adamw.update(settings, &mut moving, figures.grad_norm)?;
            Ok(())
        };
        Ok(match threads {
            0 | 1 => lane.pool.install(step),
            _ => step(),
        })
    }

    fn named_gradients(&mut self) -> Result<BTreeMap<String, Vec<f32>>, LmError> {
        let name = |id: Id| self.decoder.parameters[id].name.clone();
        let all = self.lanes.iter_mut().take(1).flat_map(|lane| lane.grads.all());
        Ok(all.map(|(id, grad)| (name(id), grad.to_vec())).collect())
    }

    fn base(&self) -> Result<Weights, LmError> {
        self.tensors(false)
    }

    fn adapter(&self) -> Result<Weights, LmError> {
        self.tensors(true)
    }

    fn optimizer_state(&self) -> Result<Weights, LmError> {
        self.adamw.state()
    }

    fn restore_optimizer(&mut self, state: &Weights) -> Result<(), LmError> {
        self.adamw = AdamW::from_state(state)?;
        Ok(())
    }

    fn short_of_memory(&mut self) -> Vec<ShortOfMemory> {
        Vec::new()
    }

    fn rounding(&self) -> f64 {
        1e-3
    }
}

impl Lanes {
    /// Puts a value in the place of every gradient; `value` is told whether it is the first tensor's.
    #[cfg(test)]
    pub fn fill_gradients(&mut self, value: impl Fn(bool) -> f32) {
        for lane in &mut self.lanes {
            lane.grads.clear();
            let ids: Vec<Id> = lane.grads.all().into_iter().map(|(id, _)| id).collect();
            for id in &ids {
                if let Some(sums) = lane.grads.sums(*id) {
                    sums.fill(value(*id == ids[0]));
                }
            }
        }
    }

    fn tensors(&self, low_rank: bool) -> Result<Weights, LmError> {
        let parameters = self.decoder.parameters.iter().filter(|p| p.low_rank == low_rank);
        let named = parameters.map(|p| Ok((p.name.clone(), p.tensor()?)));
        Ok(Weights(named.collect::<Result<_, LmError>>()?))
    }
}
