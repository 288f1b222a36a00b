//! Training on the CPU. A large model computes a batch in micro-batches that fit into memory, one
//! after another, all threads in each product. A small one, whose products are too small to be
//! shared, gives each thread a part of the batch. Gradients are added in order, so the result is the
//! same, bit for bit, for a fixed thread count.

use super::{LossTerm, Method, ShortOfMemory, StepBackend, StepMetrics, TrainSettings};
use crate::cancel::Cancel;
use crate::decoder::{Decoder, Gradients, Parameter, ParameterId, Workspace};
use crate::error::LmError;
use crate::estimate::SavedActivations;
use crate::estimate::cpu::{MICRO_BATCH_BYTES, activation_bytes_per_row, data_parallel_workers};
use crate::optimizer::{AdamW, OptimizerSettings, TrainedTensor, global_norm};
use crate::weights::Weights;
use std::collections::BTreeMap;
use std::ops::Range;

/// One thread, or all of them together, with what it computes in.
struct StepWorker {
    pool: rayon::ThreadPool,
    space: Workspace,
    grads: Gradients,
}

/// Weights in training on the CPU.
pub(super) struct CpuBackend {
    pub decoder: Decoder,
    adamw: AdamW,
    workers: Vec<StepWorker>,
    threads: usize,
    saved: SavedActivations,
}

impl CpuBackend {
    /// Threads and their room.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn new(decoder: Decoder, settings: &TrainSettings) -> Result<CpuBackend, LmError> {
        let numbers: usize = decoder.parameters.iter().map(|p| p.value.len()).sum();
        let threads = settings.threads.max(1);
        let count = data_parallel_workers(numbers * size_of::<f32>(), threads);
        let each = threads / count;
        let full = settings.method == Method::Full;
        let moves = |p: &Parameter| full || p.low_rank;
        let worker = |_| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(each).build();
            Ok(StepWorker {
                pool: pool.map_err(|error| LmError::Threads(error.to_string()))?,
                space: Workspace::new(settings.saved()),
                grads: Gradients::new(&decoder.parameters, moves),
            })
        };
        let workers = (0..count).map(worker).collect::<Result<_, LmError>>()?;
        let adamw = AdamW::default();
        let (threads, saved) = (settings.threads, settings.saved());
        Ok(CpuBackend { decoder, adamw, workers, threads, saved })
    }

    /// Deals a loss term out to the workers in nearly equal parts, cuts each part into micro-batches
    /// that fit in [`MICRO_BATCH_BYTES`], computes the parts side by side, and adds the gradients
    /// to the first worker's, in order.
    fn share_out(&mut self, term: &LossTerm<'_>, cancel: &Cancel) -> Result<StepMetrics, LmError> {
        cancel.check()?;
        let decoder = &self.decoder;
        let size = term.len().div_ceil(self.workers.len()).max(1);
        let per_row = activation_bytes_per_row(decoder.config(), self.saved).max(1);
        let most = MICRO_BATCH_BYTES / per_row / self.workers.len();
        let part_figures = |part: Range<usize>, space: &mut Workspace, grads: &mut Gradients| {
            let mut sum = StepMetrics::default();
            for micro in term.micro_batches(part, most) {
                cancel.check()?;
                let more = term.compute(micro, &mut |rows, scored, loss_gradient| {
                    decoder.differentiate(rows, scored, loss_gradient, (&mut *space, &mut *grads))
                });
                sum.add(&more?);
            }
            Ok(sum)
        };
        let parts = (0..term.len()).step_by(size).map(|from| from..(from + size).min(term.len()));
        let figures: Vec<Result<StepMetrics, LmError>> = std::thread::scope(|scope| {
            let running: Vec<_> = parts
                .zip(&mut self.workers)
                .map(|(part, StepWorker { pool, space, grads })| {
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
        if let Some((first, more)) = self.workers.split_first_mut() {
            for worker in more {
                first.grads.add_all(&worker.grads);
                worker.grads.clear();
            }
        }
        Ok(sum)
    }
}

impl StepBackend for CpuBackend {
    fn step(&self) -> u32 {
        self.adamw.step()
    }

    fn gradients(
        &mut self,
        terms: &[LossTerm<'_>],
        cancel: &Cancel,
    ) -> Result<Vec<StepMetrics>, LmError> {
        self.workers.iter_mut().for_each(|worker| worker.grads.clear());
        terms.iter().map(|term| self.share_out(term, cancel)).collect()
    }

    /// By the first worker's gradients.
    fn apply(
        &mut self,
        settings: &OptimizerSettings,
        figures: &mut StepMetrics,
    ) -> Result<Result<(), String>, LmError> {
        let CpuBackend { decoder, adamw, workers, threads, .. } = self;
        // The optimiser's pass is bound by memory: it takes all threads, whoever computed.
        let Some(worker) = workers.first_mut() else { return Ok(Err("no threads".to_owned())) };
        let grads = worker.grads.all();
        let mut step = || {
            figures.grad_norm = global_norm(grads.iter().map(|(_, grad)| *grad));
            figures.check()?;
            let mut by_id: BTreeMap<ParameterId, &[f32]> = grads.iter().copied().collect();
            let moving = decoder.parameters.iter_mut().enumerate().filter_map(|(id, p)| {
                let grad = by_id.remove(&id)?;
                Some(TrainedTensor { name: &p.name, value: &mut p.value, grad })
            });
            let mut moving = moving.collect::<Vec<_>>();
            figures.learning_rate = adamw.update(settings, &mut moving, figures.grad_norm)?;
            Ok(())
        };
        Ok(match threads {
            0 | 1 => worker.pool.install(step),
            _ => step(),
        })
    }

    fn named_gradients(&mut self) -> Result<BTreeMap<String, Vec<f32>>, LmError> {
        let name = |id: ParameterId| self.decoder.parameters[id].name.clone();
        let all = self.workers.iter_mut().take(1).flat_map(|worker| worker.grads.all());
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

impl CpuBackend {
    /// Puts a value in the place of every gradient; `value` is told whether it is the first tensor's.
    #[cfg(test)]
    pub fn fill_gradients(&mut self, value: impl Fn(bool) -> f32) {
        for worker in &mut self.workers {
            worker.grads.clear();
            let ids: Vec<ParameterId> = worker.grads.all().into_iter().map(|(id, _)| id).collect();
            for id in &ids {
                if let Some(sums) = worker.grads.sums(*id) {
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
