//! The network on a device, from ids to log-probabilities and back.

use super::batch::{AngleScratch, AngleTable, DeviceBatch, additions};
use super::buffer::{DeviceBuffer, Scratch};
use super::context::Gpu;
use super::driver::ElementType;
use super::head::HeadScratch;
use super::kernels::{self, Angles, add_rows};
use super::layer::{BatchView, DeviceTape, KeySource, LayerScratch};
use super::weights::WeightStore;
use crate::decoder::LossGradient;
use crate::error::LmError;
use crate::estimate::SavedActivations;
use crate::estimate::gpu::READ_ROWS_MAX;
use crate::packed::{PackedRows, ScoredTokens, TokenScorer, check_ids, check_rows};
use std::sync::{Mutex, PoisonError};

/// Room for the passes, kept from step to step.
#[derive(Default)]
pub(super) struct PassScratch {
    /// The input of every layer, and the last output.
    pub streams: Vec<Scratch>,
    pub tapes: Vec<DeviceTape>,
    pub scratch: LayerScratch,
    pub angles: AngleScratch,
    /// What was last sent over of the rows at hand.
    pub sent: Scratch,
    pub inverses: Scratch,
    pub hidden: Scratch,
    pub head: HeadScratch,
    d_hidden: Scratch,
    g: Scratch,
}

/// A network on a device.
pub(crate) struct GpuDecoder {
    pub(super) store: WeightStore,
    frequencies: Vec<f32>,
    angles: Mutex<AngleTable>,
    space: Mutex<PassScratch>,
}

impl GpuDecoder {
    /// A network over these weights.
    pub fn new(store: WeightStore) -> GpuDecoder {
        let frequencies = store.config.rotary_frequencies();
        GpuDecoder { store, frequencies, angles: Mutex::default(), space: Mutex::default() }
    }

    /// Angles of all positions up to the largest of these.
    pub(super) fn angles(&self, positions: &[u32]) -> Result<Angles, LmError> {
        let mut table = self.angles.lock().unwrap_or_else(PoisonError::into_inner);
        let reach = positions.iter().max().map_or(0, |position| *position as usize + 1);
        table.reaching(&self.store.gpu, reach, &self.frequencies)
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.store.gpu
    }

    /// Has the device and the scratch of the passes to itself. Where it did not suffice it is given back,
    /// so that less may be tried.
    fn alone<T>(
        &self,
        pass: impl FnOnce(&mut PassScratch) -> Result<T, LmError>,
    ) -> Result<T, LmError> {
        let _turn = self.store.gpu.turn();
        let space = &mut *self.space.lock().unwrap_or_else(PoisonError::into_inner);
        let done = pass(space);
        if matches!(done, Err(LmError::DeviceMemory { .. })) {
            *space = PassScratch::default();
        }
        done
    }

    fn batch(&self, rows: &PackedRows, space: &mut PassScratch) -> Result<DeviceBatch, LmError> {
        let angles = self.angles(&rows.positions)?;
        DeviceBatch::new(
            rows,
            self.store.config.attention(),
            (&angles, &mut space.angles),
            &mut space.sent,
        )
    }

    /// Leaves the normed end in `space.hidden`, and gives the last stream. Where nothing is saved,
    /// there is no way back.
    fn forward(
        &self,
        batch: &DeviceBatch,
        saved: Option<SavedActivations>,
        space: &mut PassScratch,
    ) -> Result<DeviceBuffer, LmError> {
        let (store, gpu) = (&self.store, &self.store.gpu);
        let layers = store.net.layers.len();
        let streams = if saved.is_none() { 1 } else { layers + 1 };
        let all = saved == Some(SavedActivations::All);
        space.streams.resize_with(streams, Scratch::default);
        space.tapes.resize_with(if all { layers } else { 1 }, DeviceTape::default);
        let size = batch.rows * store.config.hidden_size;
        let mut x = space.streams[0].get(gpu, ElementType::F32, size)?;
        store.embed(&batch.ids, &x)?;
        let at = BatchView { rows: batch.rows, angles: &batch.angles, tiles: &batch.tiles };
        for (index, layer) in store.net.layers.iter().enumerate() {
            let next = (index + 1) % streams;
            let out = space.streams[next].get(gpu, ElementType::F32, size)?;
            let tape = &mut space.tapes[if all { index } else { 0 }];
            let to = (&x, &out);
            store.layer_forward(layer, (&at, &KeySource::Own), to, tape, &mut space.scratch)?;
            x = out;
        }
        self.end_norm(&x, space)?;
        Ok(x)
    }

    pub(super) fn end_norm(
        &self,
        x: &DeviceBuffer,
        space: &mut PassScratch,
    ) -> Result<(), LmError> {
        let (store, gpu) = (&self.store, &self.store.gpu);
        let width = store.config.hidden_size;
        let inverses = space.inverses.get(gpu, ElementType::F32, x.len() / width)?;
        let hidden = space.hidden.get(gpu, gpu.work(), x.len())?;
        let norm = store.vector(store.net.norm, width)?;
        kernels::rms_norm((x, &norm), (&hidden, &inverses), store.config.norm_eps())
    }

    /// As `Decoder::differentiate`, adding to the gradients of what moves.
    ///
    /// # Errors
    /// As there, and [`LmError::DeviceMemory`].
    pub fn differentiate(
        &self,
        rows: &PackedRows,
        scored: &ScoredTokens,
        loss_gradient: LossGradient<'_>,
        saved: SavedActivations,
    ) -> Result<(), LmError> {
        check_rows(&self.store.config, rows)?;
        check_ids(&self.store.config, &scored.targets)?;
        self.alone(|space| self.differentiate_in(space, rows, scored, loss_gradient, saved))
    }

    fn differentiate_in(
        &self,
        space: &mut PassScratch,
        rows: &PackedRows,
        scored: &ScoredTokens,
        loss_gradient: LossGradient<'_>,
        saved: SavedActivations,
    ) -> Result<(), LmError> {
        let (store, gpu) = (&self.store, &self.store.gpu);
        let batch = self.batch(rows, space)?;
        let end = self.forward(&batch, Some(saved), space)?;
        gpu.phase("forward")?;
        let width = store.config.hidden_size;
        let size = batch.rows * width;
        let hidden = space.hidden.get(gpu, gpu.work(), size)?;
        let d_hidden = space.d_hidden.get(gpu, ElementType::F32, size)?;
        kernels::fill(&d_hidden, 0.0)?;
        store.head_backward((&hidden, &d_hidden), scored, loss_gradient, &mut space.head)?;
        gpu.phase("head")?;
        let g = space.g.get(gpu, ElementType::F32, size)?;
        kernels::fill(&g, 0.0)?;
        let inverses = space.inverses.get(gpu, ElementType::F32, batch.rows)?;
        let x = (&end, &inverses);
        store.norm_backward(store.net.norm, x, &d_hidden, &g, &mut space.head.partial)?;
        let at = BatchView { rows: batch.rows, angles: &batch.angles, tiles: &batch.tiles };
        for (index, layer) in store.net.layers.iter().enumerate().rev() {
            let x = space.streams[index].get(gpu, ElementType::F32, size)?;
            let scratch = &mut space.scratch;
            let tape = &mut space.tapes[if saved == SavedActivations::All { index } else { 0 }];
            if saved == SavedActivations::LayerInputs {
                let out = space.streams[index + 1].get(gpu, ElementType::F32, size)?;
                store.layer_forward(layer, (&at, &KeySource::Own), (&x, &out), tape, scratch)?;
            }
            store.layer_backward(layer, (&at, &batch.key_tiles), (&x, &g), tape, scratch)?;
        }
        if let Some(sums) = store.gradient(store.net.embedding, store.len(store.net.embedding)) {
            add_rows(&g, &additions(gpu, &rows.ids)?, &sums, width)?;
        }
        gpu.phase("backward")
    }
}

impl TokenScorer for GpuDecoder {
    fn scored(&self, rows: &PackedRows, scored: &ScoredTokens) -> Result<Vec<f32>, LmError> {
        let store = &self.store;
        check_rows(&store.config, rows)?;
        check_ids(&store.config, &scored.targets)?;
        self.alone(|space| {
            let batch = self.batch(rows, space)?;
            self.forward(&batch, None, space)?;
            let size = batch.rows * store.config.hidden_size;
            let hidden = space.hidden.get(&store.gpu, store.gpu.work(), size)?;
            store.logps(&hidden, scored, &mut space.head)
        })
    }

    fn rows_max(&self) -> usize {
        READ_ROWS_MAX as usize
    }
}
