//! Rows moved about, and what is computed of rows of logits.

use super::launch::{at, f, n, needs, reaches, start};
use crate::error::LmError;
use crate::gpu::buffer::DeviceBuffer;
use crate::gpu::driver::ElementType;
use gradus_kernels as shapes;

/// Log-probabilities of targets, and the logarithms of what they are divided by.
pub(in crate::gpu) fn token_logps(
    logits: &DeviceBuffer,
    targets: &DeviceBuffer,
    (logps, totals): (&DeviceBuffer, &DeviceBuffer),
) -> Result<(), LmError> {
    let rows = targets.len();
    let vocab = logits.len() / rows.max(1);
    needs(logits, ElementType::F32, rows * vocab);
    needs(logps, ElementType::F32, rows);
    needs(totals, ElementType::F32, rows);
    let args = [at(logits), at(targets), at(logps), at(totals), n(rows), n(vocab)];
    start(logits.gpu(), "token_logps", shapes::token_logps_launch(rows as u32), &args)
}

/// Gradients of logits, to `out`, which may be the logits.
pub(in crate::gpu) fn token_logps_backward(
    logits: &DeviceBuffer,
    (targets, totals, d_logps): (&DeviceBuffer, &DeviceBuffer, &DeviceBuffer),
    out: &DeviceBuffer,
) -> Result<(), LmError> {
    let rows = targets.len();
    let vocab = logits.len() / rows.max(1);
    needs(logits, ElementType::F32, rows * vocab);
    needs(out, out.kind(), rows * vocab);
    needs(totals, ElementType::F32, rows);
    needs(d_logps, ElementType::F32, rows);
    let name = format!("token_logps_backward_{}", out.kind().name());
    let args = [at(logits), at(targets), at(totals), at(d_logps), at(out), n(rows), n(vocab)];
    start(out.gpu(), &name, shapes::rows_launch(rows as u32, vocab as u32), &args)
}

/// Row i of `to` becomes row `index[i]` of `from`, whose numbers of rows the caller has checked.
pub(in crate::gpu) fn gather_rows(
    from: &DeviceBuffer,
    index: &DeviceBuffer,
    to: &DeviceBuffer,
    width: usize,
) -> Result<(), LmError> {
    let rows = index.len();
    needs(index, ElementType::U32, rows);
    needs(to, to.kind(), rows * width);
    let name = format!("gather_rows_{}_{}", from.kind().name(), to.kind().name());
    let args = [at(from), at(index), at(to), n(rows), n(width)];
    start(to.gpu(), &name, shapes::rows_launch(rows as u32, width as u32), &args)
}

/// Which rows are added to which, every target once: `offsets` cut `sources`.
pub(in crate::gpu) struct ScatterAdd {
    pub targets: DeviceBuffer,
    pub offsets: DeviceBuffer,
    pub sources: DeviceBuffer,
}

/// Adds rows of `from` to rows of `to`, each target's in order.
pub(in crate::gpu) fn add_rows(
    from: &DeviceBuffer,
    additions: &ScatterAdd,
    to: &DeviceBuffer,
    width: usize,
) -> Result<(), LmError> {
    let targets = additions.targets.len();
    needs(&additions.offsets, ElementType::U32, targets + 1);
    needs(from, from.kind(), additions.sources.len() * width);
    needs(to, ElementType::F32, width);
    let name = format!("add_rows_{}", from.kind().name());
    let args = [
        at(from),
        at(&additions.targets),
        at(&additions.offsets),
        at(&additions.sources),
        at(to),
        n(targets),
        n(width),
    ];
    start(to.gpu(), &name, shapes::rows_launch(targets as u32, width as u32), &args)
}

/// Keys and values of rows `stride` apart, to their places in the caches.
pub(in crate::gpu) fn store_rows(
    (k, v, stride): (&DeviceBuffer, &DeviceBuffer, usize),
    slots: &DeviceBuffer,
    (k_to, v_to): (&DeviceBuffer, &DeviceBuffer),
    width: usize,
) -> Result<(), LmError> {
    let rows = slots.len();
    reaches(k, rows, width, stride);
    reaches(v, rows, width, stride);
    let name = format!("store_rows_{}", k.kind().name());
    let args = [at(k), at(v), n(stride), at(slots), at(k_to), at(v_to), n(rows), n(width)];
    start(k.gpu(), &name, shapes::rows_launch(rows as u32, width as u32), &args)
}

/// The same numbers in 2 bytes.
pub(in crate::gpu) fn narrowed(from: &DeviceBuffer, to: &DeviceBuffer) -> Result<(), LmError> {
    needs(from, ElementType::F32, to.len());
    needs(to, ElementType::Bf16, to.len());
    let args = [at(from), at(to), to.len() as u64];
    start(to.gpu(), "convert_f32_bf16", shapes::each_launch(to.len() as u64), &args)
}

/// All become `value`.
pub(in crate::gpu) fn fill(to: &DeviceBuffer, value: f32) -> Result<(), LmError> {
    needs(to, ElementType::F32, to.len());
    let args = [at(to), f(value), to.len() as u64];
    start(to.gpu(), "fill_f32", shapes::each_launch(to.len() as u64), &args)
}
