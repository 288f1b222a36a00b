//! The network on a device, from ids to log-probabilities and back.

use super::batch::{AngleRooms, AngleTable, Batch, additions};
use super::head::HeadRooms;
use super::kernels::{self, Angles, add_rows};
use super::layer::{At, Keys, Scratch, Tape};
use super::numbers::{Numbers, Room};
use super::store::Store;
use super::{Gpu, Kind};
use crate::decoder::{PackedRows, Slopes, check_ids, check_rows};
use crate::device::estimate::{Kept, READ_ROWS_MAX};
use crate::error::LmError;
use crate::logp::{Scored, Scores};
use std::sync::{Mutex, PoisonError};

/// Room for the passes, kept from step to step.
#[derive(Default)]
pub(super) struct Space {
    /// The input of every layer, and the last output.
    pub streams: Vec<Room>,
    pub tapes: Vec<Tape>,
    pub scratch: Scratch,
    pub angles: AngleRooms,
    /// What was last sent over of the rows at hand.
    pub sent: Room,
    pub inverses: Room,
    pub hidden: Room,
    pub head: HeadRooms,
    d_hidden: Room,
    g: Room,
}

/// A network on a device.
pub(crate) struct GpuDecoder {
    pub(super) store: Store,
    frequencies: Vec<f32>,
    angles: Mutex<AngleTable>,
    space: Mutex<Space>,
}

impl GpuDecoder {
    /// A network over these weights.
    pub fn new(store: Store) -> GpuDecoder {
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

    /// Has the device and the room of the passes to itself. Where it did not suffice it is given back,
    /// so that less may be tried.
    fn alone<T>(&self, pass: impl FnOnce(&mut Space) -> Result<T, LmError>) -> Result<T, LmError> {
        let _turn = self.store.gpu.turn();
        let space = &mut *self.space.lock().unwrap_or_else(PoisonError::into_inner);
        let done = pass(space);
        if matches!(done, Err(LmError::DeviceMemory { .. })) {
            *space = Space::default();
        }
        done
    }

    fn batch(&self, rows: &PackedRows, space: &mut Space) -> Result<Batch, LmError> {
        let angles = self.angles(&rows.positions)?;
        Batch::new(rows, self.store.heads(), (&angles, &mut space.angles), &mut space.sent)
    }

    /// Leaves the normed end in `space.hidden`, and gives the last stream. Where nothing is kept,
    /// there is no way back.
    fn forward(
        &self,
        batch: &Batch,
        kept: Option<Kept>,
        space: &mut Space,
    ) -> Result<Numbers, LmError> {
        let (store, gpu) = (&self.store, &self.store.gpu);
        let layers = store.net.layers.len();
        let streams = if kept.is_none() { 1 } else { layers + 1 };
        let all = kept == Some(Kept::All);
        space.streams.resize_with(streams, Room::default);
        space.tapes.resize_with(if all { layers } else { 1 }, Tape::default);
        let size = batch.rows * store.config.hidden_size;
        let mut x = space.streams[0].get(gpu, Kind::F32, size)?;
        store.embed(&batch.ids, &x)?;
        let at = At { rows: batch.rows, angles: &batch.angles, tiles: &batch.tiles };
        for (index, layer) in store.net.layers.iter().enumerate() {
            let next = (index + 1) % streams;
            let out = space.streams[next].get(gpu, Kind::F32, size)?;
            let tape = &mut space.tapes[if all { index } else { 0 }];
            let to = (&x, &out);
            store.layer_forward(layer, (&at, &Keys::Own), to, tape, &mut space.scratch)?;
            x = out;
        }
        self.end_norm(&x, space)?;
        Ok(x)
    }

    pub(super) fn end_norm(&self, x: &Numbers, space: &mut Space) -> Result<(), LmError> {
        let (store, gpu) = (&self.store, &self.store.gpu);
        let width = store.config.hidden_size;
        let inverses = space.inverses.get(gpu, Kind::F32, x.len() / width)?;
        let hidden = space.hidden.get(gpu, gpu.work(), x.len())?;
        let norm = store.vector(store.net.norm, width)?;
        kernels::rms_norm((x, &norm), (&hidden, &inverses), store.eps())
    }

    /// As `Decoder::differentiate`, adding to the gradients of what moves.
    ///
    /// # Errors
    /// As there, and [`LmError::DeviceMemory`].
    pub fn differentiate(
        &self,
        rows: &PackedRows,
        scored: &Scored,
        slopes: Slopes<'_>,
        kept: Kept,
    ) -> Result<(), LmError> {
        check_rows(&self.store.config, rows)?;
        check_ids(&self.store.config, &scored.targets)?;
        self.alone(|space| self.differentiate_in(space, rows, scored, slopes, kept))
    }

    fn differentiate_in(
        &self,
        space: &mut Space,
        rows: &PackedRows,
        scored: &Scored,
        slopes: Slopes<'_>,
        kept: Kept,
    ) -> Result<(), LmError> {
        let (store, gpu) = (&self.store, &self.store.gpu);
        let batch = self.batch(rows, space)?;
        let end = self.forward(&batch, Some(kept), space)?;
        gpu.phase("forward")?;
        let width = store.config.hidden_size;
        let size = batch.rows * width;
        let hidden = space.hidden.get(gpu, gpu.work(), size)?;
        let d_hidden = space.d_hidden.get(gpu, Kind::F32, size)?;
        kernels::fill(&d_hidden, 0.0)?;
        store.head_backward((&hidden, &d_hidden), scored, slopes, &mut space.head)?;
        gpu.phase("head")?;
        let g = space.g.get(gpu, Kind::F32, size)?;
        kernels::fill(&g, 0.0)?;
        let inverses = space.inverses.get(gpu, Kind::F32, batch.rows)?;
        let x = (&end, &inverses);
        store.norm_backward(store.net.norm, x, &d_hidden, &g, &mut space.head.partial)?;
        let at = At { rows: batch.rows, angles: &batch.angles, tiles: &batch.tiles };
        for (index, layer) in store.net.layers.iter().enumerate().rev() {
            let x = space.streams[index].get(gpu, Kind::F32, size)?;
            let scratch = &mut space.scratch;
            let tape = &mut space.tapes[if kept == Kept::All { index } else { 0 }];
            if kept == Kept::Inputs {
                let out = space.streams[index + 1].get(gpu, Kind::F32, size)?;
                store.layer_forward(layer, (&at, &Keys::Own), (&x, &out), tape, scratch)?;
            }
            store.layer_backward(layer, (&at, &batch.key_tiles), (&x, &g), tape, scratch)?;
        }
        if let Some(sums) = store.gradient(store.net.embedding, store.len(store.net.embedding)) {
            add_rows(&g, &additions(gpu, &rows.ids)?, &sums, width)?;
        }
        gpu.phase("backward")
    }
}

impl Scores for GpuDecoder {
    fn scored(&self, rows: &PackedRows, scored: &Scored) -> Result<Vec<f32>, LmError> {
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
