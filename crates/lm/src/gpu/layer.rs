//! One layer on a device, forward and backward: the order of `decoder::passes`, with queries, keys
//! and values in one product, gate and up in one, and the residual stream in f32.

use super::buffer::{DeviceBuffer, Scratch};
use super::driver::ElementType;
use super::kernels::{
    self, Angles, AttentionGradients, AttentionInputs, GradientSum, HeadNorm, HeadRows, KeyTiles,
    QueryTiles,
};
use super::layout::{gate_up, qkv};
use super::weights::WeightStore;
use crate::decoder::{Layer, ParameterId};
use crate::error::LmError;

/// What a layer's backward pass needs of its forward pass.
#[derive(Default)]
pub(super) struct DeviceTape {
    inverses: Scratch,
    /// [T, (heads + 2 kv_heads) D], before norms of heads; turned where there are none.
    raw: Scratch,
    turned: Scratch,
    inverses_q: Scratch,
    inverses_k: Scratch,
    totals: Scratch,
    y: Scratch,
    mid: Scratch,
    inverses_mid: Scratch,
    gate_up: Scratch,
}

/// Scratch that lives for a layer, kept from layer to layer and step to step.
#[derive(Default)]
pub(super) struct LayerScratch {
    normed: Scratch,
    gated: Scratch,
    narrow_g: Scratch,
    d_qkv: Scratch,
    dy: Scratch,
    dh: Scratch,
    delta: Scratch,
    low: Scratch,
    partial: Scratch,
    attention: Scratch,
}

/// Where keys and values of earlier rows are.
pub(super) enum KeySource<'a> {
    /// They are among the rows at hand.
    Own,
    /// In caches [places, kv_heads * D], to which those at hand are added first.
    Cached { slots: &'a DeviceBuffer, k: &'a DeviceBuffer, v: &'a DeviceBuffer },
}

/// The rows at hand: how many, their angles, what they see.
pub(super) struct BatchView<'a> {
    pub rows: usize,
    pub angles: &'a Angles,
    pub tiles: &'a QueryTiles,
}

impl WeightStore {
    /// Numbers per row of queries, keys and values together.
    fn qkv_width(&self) -> usize {
        self.config.attention().query_width() + 2 * self.config.attention().key_width()
    }

    /// So many heads from the beginning of each row of queries, keys and values.
    fn head_rows(&self, rows: usize, heads: usize) -> HeadRows {
        HeadRows { rows, heads, dim: self.config.attention().dim, stride: self.qkv_width() }
    }

    pub(super) fn work(&self, scratch: &mut Scratch, len: usize) -> Result<DeviceBuffer, LmError> {
        scratch.get(&self.gpu, self.gpu.work(), len)
    }

    fn wide(&self, scratch: &mut Scratch, len: usize) -> Result<DeviceBuffer, LmError> {
        scratch.get(&self.gpu, ElementType::F32, len)
    }

    /// Adds the gradient of a norm's input to `dx`, and that of its weight to what is added up.
    pub(super) fn norm_backward(
        &self,
        norm: ParameterId,
        (x, inverses): (&DeviceBuffer, &DeviceBuffer),
        dy: &DeviceBuffer,
        dx: &DeviceBuffer,
        partial: &mut Scratch,
    ) -> Result<(), LmError> {
        let width = self.len(norm);
        let dw = self.gradient(norm, width).map(|to| GradientSum { to, scratch: partial });
        let weight = self.vector(norm, width)?;
        kernels::rms_norm_backward((x, &weight, inverses), dy, dx, dw)
    }

    fn normed(
        &self,
        norm: ParameterId,
        x: &DeviceBuffer,
        (normed, inverses): (&mut Scratch, &mut Scratch),
    ) -> Result<DeviceBuffer, LmError> {
        let width = self.config.hidden_size;
        let normed = self.work(normed, x.len())?;
        let inverses = self.wide(inverses, x.len() / width)?;
        kernels::rms_norm(
            (x, &self.vector(norm, width)?),
            (&normed, &inverses),
            self.config.norm_eps(),
        )?;
        Ok(normed)
    }

    /// One layer: `x` [T, H] to `out` [T, H], both f32. Where both are the same stretch it grows in
    /// place, and nothing is kept of the layer's input and of its middle.
    pub(super) fn layer_forward(
        &self,
        layer: &Layer,
        (at, keys): (&BatchView<'_>, &KeySource<'_>),
        (x, out): (&DeviceBuffer, &DeviceBuffer),
        tape: &mut DeviceTape,
        scratch: &mut LayerScratch,
    ) -> Result<(), LmError> {
        let (rows, heads) = (at.rows, self.config.attention());
        let normed =
            self.normed(layer.attention_norm, x, (&mut scratch.normed, &mut tape.inverses))?;
        let raw = self.work(&mut tape.raw, rows * self.qkv_width())?;
        self.linear(&qkv(layer), &normed, (&raw, false), &mut scratch.low)?;
        let turned = self.turn(layer, at, &raw, tape)?;
        let y = self.work(&mut tape.y, rows * heads.query_width())?;
        let totals = self.wide(&mut tape.totals, rows * heads.queries)?;
        let seen = self.seen(&turned, &raw, keys)?;
        if let KeySource::Cached { slots, k, v } = keys {
            let (own, width) = (self.seen(&turned, &raw, &KeySource::Own)?, heads.key_width());
            let values = (&own.0[1], &own.0[2], self.qkv_width());
            kernels::store_rows(values, slots, (k, v), width)?;
        }
        kernels::attention(
            &self.view(&seen),
            at.tiles,
            (&y, Some(&totals)),
            &mut scratch.attention,
        )?;
        let in_place = x.address() == out.address();
        let mid = match in_place {
            true => x.clone(),
            false => {
                let mid = self.wide(&mut tape.mid, x.len())?;
                mid.copy(x)?;
                mid
            }
        };
        self.linear(&[&layer.o], &y, (&mid, true), &mut scratch.low)?;
        let normed =
            self.normed(layer.mlp_norm, &mid, (&mut scratch.normed, &mut tape.inverses_mid))?;
        let inner = self.config.intermediate_size;
        let both = self.work(&mut tape.gate_up, rows * 2 * inner)?;
        self.linear(&gate_up(layer), &normed, (&both, false), &mut scratch.low)?;
        let gated = self.work(&mut scratch.gated, rows * inner)?;
        kernels::swiglu(&both, &gated, inner)?;
        if !in_place {
            out.copy(&mid)?;
        }
        self.linear(&[&layer.down], &gated, (out, true), &mut scratch.low)
    }

    /// Queries and keys normed where heads are, and turned.
    fn turn(
        &self,
        layer: &Layer,
        at: &BatchView<'_>,
        raw: &DeviceBuffer,
        tape: &mut DeviceTape,
    ) -> Result<DeviceBuffer, LmError> {
        let heads = self.config.attention();
        let shape = |count: usize| self.head_rows(at.rows, count);
        let Some((q_norm, k_norm)) = layer.head_norms else {
            let shape = shape(heads.queries + heads.keys);
            kernels::heads(shape, (raw, raw), None, self.config.norm_eps(), at.angles)?;
            return Ok(raw.clone());
        };
        let turned = self.work(&mut tape.turned, raw.len())?;
        let inverses_of = [&mut tape.inverses_q, &mut tape.inverses_k];
        let parts = [(q_norm, heads.queries, 0), (k_norm, heads.keys, heads.query_width())];
        for ((norm, count, column), inverses) in parts.into_iter().zip(inverses_of) {
            let inverses = self.wide(inverses, at.rows * count)?;
            let weight = self.vector(norm, heads.dim)?;
            let (from, to) = (raw.from(column), turned.from(column));
            let norm = Some((&weight, &inverses));
            kernels::heads(shape(count), (&from, &to), norm, self.config.norm_eps(), at.angles)?;
        }
        Ok(turned)
    }

    /// Queries, keys, values, and numbers from one row of keys to the next.
    fn seen(
        &self,
        turned: &DeviceBuffer,
        raw: &DeviceBuffer,
        keys: &KeySource<'_>,
    ) -> Result<([DeviceBuffer; 3], usize), LmError> {
        let (queries, width) =
            (self.config.attention().query_width(), self.config.attention().key_width());
        Ok(match keys {
            KeySource::Own => {
                let (k, v) = (turned.from(queries), raw.from(queries + width));
                ([turned.clone(), k, v], self.qkv_width())
            }
            KeySource::Cached { k, v, .. } => ([turned.clone(), (*k).clone(), (*v).clone()], width),
        })
    }

    fn view<'a>(&self, (qkv, kv_stride): &'a ([DeviceBuffer; 3], usize)) -> AttentionInputs<'a> {
        let [q, k, v] = qkv;
        let q_stride = self.qkv_width();
        AttentionInputs { heads: self.config.attention(), q, q_stride, k, v, kv_stride: *kv_stride }
    }

    /// The gradient of the layer's output becomes that of its input in `g` [T, H], f32.
    pub(super) fn layer_backward(
        &self,
        layer: &Layer,
        (at, key_tiles): (&BatchView<'_>, &KeyTiles),
        (x, g): (&DeviceBuffer, &DeviceBuffer),
        tape: &mut DeviceTape,
        scratch: &mut LayerScratch,
    ) -> Result<(), LmError> {
        self.mlp_backward(layer, at.rows, g, tape, scratch)?;
        let heads = self.config.attention();
        let y = self.work(&mut tape.y, at.rows * heads.query_width())?;
        let narrow_g = self.narrow(g, &mut scratch.narrow_g)?;
        let buffers = (&mut scratch.low, &mut scratch.partial);
        self.linear_dw(&[&layer.o], &y, &narrow_g, buffers)?;
        let dy = self.work(&mut scratch.dy, y.len())?;
        self.linear_dx(&[&layer.o], &narrow_g, &dy, &mut scratch.low)?;
        let d_qkv = self.attention_backward(layer, (at, key_tiles), (&y, &dy), tape, scratch)?;
        let width = self.config.hidden_size;
        let inverses = self.wide(&mut tape.inverses, at.rows)?;
        let normed = self.work(&mut scratch.normed, x.len())?;
        let norm = self.vector(layer.attention_norm, width)?;
        kernels::scale_rows((x, &norm, &inverses), &normed)?;
        let buffers = (&mut scratch.low, &mut scratch.partial);
        self.linear_dw(&qkv(layer), &normed, &d_qkv, buffers)?;
        let dh = self.work(&mut scratch.dh, x.len())?;
        self.linear_dx(&qkv(layer), &d_qkv, &dh, &mut scratch.low)?;
        self.norm_backward(layer.attention_norm, (x, &inverses), &dh, g, &mut scratch.partial)
    }

    /// f32 in the kind that products take.
    fn narrow(&self, g: &DeviceBuffer, scratch: &mut Scratch) -> Result<DeviceBuffer, LmError> {
        if self.gpu.work() == ElementType::F32 {
            return Ok(g.clone());
        }
        let narrow = self.work(scratch, g.len())?;
        kernels::narrowed(g, &narrow)?;
        Ok(narrow)
    }

    fn attention_backward(
        &self,
        layer: &Layer,
        (at, key_tiles): (&BatchView<'_>, &KeyTiles),
        (y, dy): (&DeviceBuffer, &DeviceBuffer),
        tape: &mut DeviceTape,
        scratch: &mut LayerScratch,
    ) -> Result<DeviceBuffer, LmError> {
        let (rows, heads) = (at.rows, self.config.attention());
        let (queries, width) = (heads.query_width(), heads.key_width());
        let raw = self.work(&mut tape.raw, rows * self.qkv_width())?;
        let turned = match layer.head_norms {
            Some(_) => self.work(&mut tape.turned, raw.len())?,
            None => raw.clone(),
        };
        let totals = self.wide(&mut tape.totals, rows * heads.queries)?;
        let delta = self.wide(&mut scratch.delta, rows * heads.queries)?;
        let d_qkv = self.work(&mut scratch.d_qkv, raw.len())?;
        let (dk, dv) = (d_qkv.from(queries), d_qkv.from(queries + width));
        let seen = self.seen(&turned, &raw, &KeySource::Own)?;
        let mixed = AttentionGradients { y, dy, totals: &totals, delta: &delta };
        let to = (&d_qkv, &dk, &dv);
        kernels::attention_backward(&self.view(&seen), (at.tiles, key_tiles), &mixed, to)?;
        let shape = |count: usize| self.head_rows(rows, count);
        let Some((q_norm, k_norm)) = layer.head_norms else {
            let shape = shape(heads.queries + heads.keys);
            kernels::heads_backward(shape, &d_qkv, at.angles, None)?;
            return Ok(d_qkv);
        };
        let inverses_of = [&mut tape.inverses_q, &mut tape.inverses_k];
        let parts = [(q_norm, heads.queries, 0), (k_norm, heads.keys, queries)];
        for ((norm, count, column), inverses) in parts.into_iter().zip(inverses_of) {
            let dw = self.gradient(norm, heads.dim);
            let norm = HeadNorm {
                raw: raw.from(column),
                weight: self.vector(norm, heads.dim)?,
                inverses: self.wide(inverses, rows * count)?,
                dw: dw.map(|to| GradientSum { to, scratch: &mut scratch.partial }),
            };
            kernels::heads_backward(shape(count), &d_qkv.from(column), at.angles, Some(norm))?;
        }
        Ok(d_qkv)
    }

    fn mlp_backward(
        &self,
        layer: &Layer,
        rows: usize,
        g: &DeviceBuffer,
        tape: &mut DeviceTape,
        scratch: &mut LayerScratch,
    ) -> Result<(), LmError> {
        let inner = self.config.intermediate_size;
        let narrow_g = self.narrow(g, &mut scratch.narrow_g)?;
        let gated = self.work(&mut scratch.gated, rows * inner)?;
        self.linear_dx(&[&layer.down], &narrow_g, &gated, &mut scratch.low)?;
        let both = self.work(&mut tape.gate_up, rows * 2 * inner)?;
        kernels::swiglu_backward(&both, &gated, inner)?;
        let buffers = (&mut scratch.low, &mut scratch.partial);
        self.linear_dw(&[&layer.down], &gated, &narrow_g, buffers)?;
        let mid = self.wide(&mut tape.mid, g.len())?;
        let inverses = self.wide(&mut tape.inverses_mid, rows)?;
        let normed = self.work(&mut scratch.normed, g.len())?;
        let norm = self.vector(layer.mlp_norm, self.config.hidden_size)?;
        kernels::scale_rows((&mid, &norm, &inverses), &normed)?;
        let buffers = (&mut scratch.low, &mut scratch.partial);
        self.linear_dw(&gate_up(layer), &normed, &both, buffers)?;
        let dh = self.work(&mut scratch.dh, g.len())?;
        self.linear_dx(&gate_up(layer), &both, &dh, &mut scratch.low)?;
        self.norm_backward(layer.mlp_norm, (&mid, &inverses), &dh, g, &mut scratch.partial)
    }
}
