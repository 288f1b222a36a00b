//! What a step ends in: the optimiser over everything that moves, and a token for each sequence.

use super::launch::{at, f, n, needs, or_null, start};
use crate::error::LmError;
use crate::gpu::buffer::DeviceBuffer;
use crate::gpu::driver::ElementType;
use crate::optimizer::StepNumbers;
use gradus_kernels as shapes;

/// The sum of all squares.
pub(in crate::gpu) fn square_sum(from: &DeviceBuffer) -> Result<f64, LmError> {
    needs(from, ElementType::F32, from.len());
    let launch = shapes::square_sums_launch(from.len() as u64);
    let partial = DeviceBuffer::zeros(from.gpu(), ElementType::F64, launch.grid[0] as usize)?;
    start(from.gpu(), "square_sums", launch, &[at(from), from.len() as u64, at(&partial)])?;
    Ok(partial.read::<f64>()?.into_iter().sum())
}

/// Weights, their moments and gradients, all as long; and the copy that products read.
pub(in crate::gpu) struct AdamWBuffers<'a> {
    pub x: &'a DeviceBuffer,
    pub m: &'a DeviceBuffer,
    pub v: &'a DeviceBuffer,
    pub g: &'a DeviceBuffer,
    pub work: Option<&'a DeviceBuffer>,
}

impl AdamWBuffers<'_> {
    fn check(&self) -> usize {
        let len = self.x.len();
        for buffer in [self.x, self.m, self.v, self.g] {
            needs(buffer, ElementType::F32, len);
        }
        if let Some(work) = self.work {
            needs(work, work.kind(), len);
        }
        len
    }

    fn addresses(&self) -> [u64; 4] {
        [at(self.x), at(self.m), at(self.v), at(self.g)]
    }
}

fn step_args(step: &StepNumbers) -> [u64; 9] {
    let s = step;
    [s.clip, s.b1, s.b2, s.c1, s.c2, s.keep, s.size, s.second, s.eps].map(f)
}

/// One step of all of them; gives the largest of what they have become.
pub(in crate::gpu) fn adamw(moving: &AdamWBuffers<'_>, step: &StepNumbers) -> Result<f32, LmError> {
    let len = moving.check();
    let launch = shapes::adamw_launch(len as u64);
    let gpu = moving.x.gpu();
    let most = DeviceBuffer::zeros(gpu, ElementType::F32, launch.grid[0] as usize)?;
    let kind = moving.work.map_or(ElementType::F32, DeviceBuffer::kind);
    let args = [
        &moving.addresses()[..],
        &[or_null(moving.work), len as u64],
        &step_args(step),
        &[at(&most)],
    ]
    .concat();
    start(gpu, &format!("adamw_{}", kind.name()), launch, &args)?;
    Ok(most.read::<f32>()?.into_iter().fold(0.0, f32::max))
}

/// Whether a step would leave all finite: of the moments, of the values.
pub(in crate::gpu) fn adamw_finite(
    moving: &AdamWBuffers<'_>,
    step: &StepNumbers,
) -> Result<(bool, bool), LmError> {
    let len = moving.check();
    let launch = shapes::adamw_launch(len as u64);
    let flags = DeviceBuffer::zeros(moving.x.gpu(), ElementType::U32, launch.grid[0] as usize)?;
    let args = [&moving.addresses()[..], &[len as u64], &step_args(step), &[at(&flags)]].concat();
    start(moving.x.gpu(), "adamw_check", launch, &args)?;
    let flags = flags.read::<u32>()?.into_iter().fold(0, |all, flags| all | flags);
    Ok((flags & 1 == 0, flags & 2 == 0))
}

/// Words of a choice that is asked for, and of one that was made.
pub(in crate::gpu) const ASKED_WORDS: usize = size_of::<shapes::Choice>() / 4;
/// As [`ASKED_WORDS`].
pub(in crate::gpu) const CHOSEN_WORDS: usize = size_of::<shapes::Chosen>() / 4;

/// One token for every row of `logits` [rows, vocab].
pub(in crate::gpu) fn choose(
    logits: &DeviceBuffer,
    asked: &DeviceBuffer,
    chosen: &DeviceBuffer,
    vocab: usize,
) -> Result<(), LmError> {
    let rows = asked.len() / ASKED_WORDS;
    needs(asked, ElementType::U32, rows * ASKED_WORDS);
    needs(chosen, ElementType::U32, rows * CHOSEN_WORDS);
    needs(logits, ElementType::F32, rows * vocab);
    let args = [at(logits), n(vocab), at(asked), at(chosen), n(rows)];
    start(logits.gpu(), "choose", shapes::choose_launch(rows as u32), &args)
}
