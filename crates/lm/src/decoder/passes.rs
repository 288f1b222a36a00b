//! The forward pass of a layer, and the backward pass that undoes it. Letters as in [`super`].
//!
//! What the forward pass keeps per row is in [`LayerTape`]; norms and the gated product are
//! computed again, because that is cheaper than reading them back from memory.

use super::Decoder;
use super::net::{Gradients, Layer, Linear, ParameterId};
use crate::ops::{
    BackwardScratch, Mat, MatMut, RotaryTable, attention, attention_backward, matmul, rms_norm,
    rms_norm_backward, scaled, swiglu, swiglu_backward, turn_rows,
};
use crate::packed::PackedRows;
use rayon::prelude::*;

/// What a layer's backward pass needs of its forward pass.
#[derive(Default)]
pub(super) struct LayerTape {
    inverses: Vec<f32>,
    /// Turned; [T, heads * D] and [T, kv_heads * D].
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// Queries and keys before their norms, where heads are normed, and the norms' factors.
    raw_q: Vec<f32>,
    raw_k: Vec<f32>,
    inverses_q: Vec<f32>,
    inverses_k: Vec<f32>,
    totals: Vec<f32>,
    y: Vec<f32>,
    mid: Vec<f32>,
    inverses_mid: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
}

/// Buffers that live for a layer, kept from layer to layer and step to step.
#[derive(Default)]
pub(super) struct LayerBuffers {
    normed: Vec<f32>,
    gated: Vec<f32>,
    blocks: Vec<f32>,
    dh: Vec<f32>,
    dy: Vec<f32>,
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
    attention: BackwardScratch,
}

/// Rows under computation and what is derived from their positions.
pub(super) struct RotatedRows<'a> {
    pub rows: &'a PackedRows,
    pub table: RotaryTable,
}

impl RotatedRows<'_> {
    pub fn len(&self) -> usize {
        self.rows.ids.len()
    }
}

/// Numbers that one thread copies at a time.
const COPIED_AT_ONCE: usize = 1 << 16;

/// The buffer at this length; what it holds is to be overwritten.
pub(super) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    buffer.resize(len, 0.0);
    buffer
}

/// `to` becomes `from`.
fn copied(from: &[f32], to: &mut Vec<f32>) {
    let to = sized(to, from.len()).par_chunks_mut(COPIED_AT_ONCE);
    to.zip(from.par_chunks(COPIED_AT_ONCE)).for_each(|(to, from)| to.copy_from_slice(from));
}

impl Decoder {
    pub(super) fn value(&self, id: ParameterId) -> &[f32] {
        &self.parameters[id].value
    }

    /// `y = x W' + b`, or `y += x W' + b`.
    fn linear(&self, linear: &Linear, x: &[f32], y: &mut [f32], add: bool) {
        let n = x.len() / linear.input;
        let (x, out) = (Mat::new(x, n, linear.input), linear.out);
        let weight = Mat::new(self.value(linear.weight), out, linear.input);
        matmul(MatMut::new(y, n, out), x, weight.t(), add, 1.0);
        if let Some(bias) = linear.bias {
            let bias = self.value(bias);
            let rows = y.chunks_exact_mut(out);
            rows.for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
        }
        if let Some((a, b)) = linear.adapter {
            let low = self.lowered(a, x);
            let rank = self.parameters[a].shape[0];
            let b = Mat::new(self.value(b), out, rank);
            let low = Mat::new(&low, n, rank);
            matmul(MatMut::new(y, n, out), low, b.t(), true, self.lora_scale);
        }
    }

    /// x A' [T, r].
    fn lowered(&self, a: ParameterId, x: Mat<'_>) -> Vec<f32> {
        let shape = &self.parameters[a].shape;
        let mut low = vec![0f32; x.rows() * shape[0]];
        let a = Mat::new(self.value(a), shape[0], shape[1]);
        matmul(MatMut::new(&mut low, x.rows(), shape[0]), x, a.t(), false, 1.0);
        low
    }

    /// Gradient of the input of [`Decoder::linear`], written to `dx` or added to it.
    fn linear_dx(&self, linear: &Linear, dy: &[f32], dx: &mut [f32], add: bool) {
        let n = dy.len() / linear.out;
        let dy = Mat::new(dy, n, linear.out);
        let weight = Mat::new(self.value(linear.weight), linear.out, linear.input);
        matmul(MatMut::new(dx, n, linear.input), dy, weight, add, 1.0);
        if let Some((a, b)) = linear.adapter {
            let rank = self.parameters[a].shape[0];
            let low = self.low_gradient(b, dy);
            let a = Mat::new(self.value(a), rank, linear.input);
            matmul(MatMut::new(dx, n, linear.input), Mat::new(&low, n, rank), a, true, 1.0);
        }
    }

    /// scale dy B [T, r].
    fn low_gradient(&self, b: ParameterId, dy: Mat<'_>) -> Vec<f32> {
        let shape = &self.parameters[b].shape;
        let mut low = vec![0f32; dy.rows() * shape[1]];
        let b = Mat::new(self.value(b), shape[0], shape[1]);
        matmul(MatMut::new(&mut low, dy.rows(), shape[1]), dy, b, false, self.lora_scale);
        low
    }

    /// Gradients of the parameters of [`Decoder::linear`] that move.
    fn linear_dw(&self, linear: &Linear, x: &[f32], dy: &[f32], grads: &mut Gradients) {
        let n = dy.len() / linear.out;
        let (input, out) = (linear.input, linear.out);
        if let Some((dw, add)) = grads.slot(linear.weight) {
            matmul(
                MatMut::new(dw, out, input),
                Mat::new(dy, n, out).t(),
                Mat::new(x, n, input),
                add,
                1.0,
            );
        }
        if let Some(db) = linear.bias.and_then(|bias| grads.sums(bias)) {
            let rows = dy.chunks_exact(out);
            rows.for_each(|row| db.iter_mut().zip(row).for_each(|(sum, dy)| *sum += dy));
        }
        let Some((a, b)) = linear.adapter else { return };
        let rank = self.parameters[a].shape[0];
        let (x, dy) = (Mat::new(x, n, input), Mat::new(dy, n, out));
        if let Some((db, add)) = grads.slot(b) {
            let low = self.lowered(a, x);
            let low = Mat::new(&low, n, rank);
            matmul(MatMut::new(db, out, rank), dy.t(), low, add, self.lora_scale);
        }
        if let Some((da, add)) = grads.slot(a) {
            let low = self.low_gradient(b, dy);
            matmul(MatMut::new(da, rank, input), Mat::new(&low, n, rank).t(), x, add, 1.0);
        }
    }

    /// One layer: `x` [T, H] to `out` [T, H].
    pub(super) fn layer_forward(
        &self,
        (layer, batch): (&Layer, &RotatedRows<'_>),
        x: &[f32],
        tape: &mut LayerTape,
        scratch: &mut LayerBuffers,
        out: &mut Vec<f32>,
    ) {
        let n = batch.len();
        let normed = sized(&mut scratch.normed, x.len());
        let inverses = sized(&mut tape.inverses, n);
        rms_norm(x, self.value(layer.attention_norm), self.config.norm_eps(), normed, inverses);
        self.project(layer, normed, tape, &batch.table);
        let heads = self.config.attention();
        let y = sized(&mut tape.y, n * heads.query_width());
        let totals = sized(&mut tape.totals, n * heads.queries);
        let groups = &batch.rows.groups;
        let seen = (tape.q.as_slice(), tape.k.as_slice(), tape.v.as_slice());
        attention(heads, groups, seen, (y, totals), &mut scratch.blocks);
        copied(x, &mut tape.mid);
        self.linear(&layer.o, &tape.y, &mut tape.mid, true);
        let inverses = sized(&mut tape.inverses_mid, n);
        rms_norm(&tape.mid, self.value(layer.mlp_norm), self.config.norm_eps(), normed, inverses);
        let inner = n * self.config.intermediate_size;
        self.linear(&layer.gate, normed, sized(&mut tape.gate, inner), false);
        self.linear(&layer.up, normed, sized(&mut tape.up, inner), false);
        let gated = sized(&mut scratch.gated, inner);
        swiglu(&tape.gate, &tape.up, gated);
        copied(&tape.mid, out);
        self.linear(&layer.down, gated, out, true);
    }

    /// Queries, keys and values of normed rows, heads normed where they are, turned.
    fn project(&self, layer: &Layer, normed: &[f32], tape: &mut LayerTape, table: &RotaryTable) {
        let n = normed.len() / self.config.hidden_size;
        let heads = self.config.attention();
        let (width, key_width) = (heads.query_width(), heads.key_width());
        self.linear(&layer.q, normed, sized(&mut tape.q, n * width), false);
        self.linear(&layer.k, normed, sized(&mut tape.k, n * key_width), false);
        self.linear(&layer.v, normed, sized(&mut tape.v, n * key_width), false);
        if let Some((q_norm, k_norm)) = layer.head_norms {
            for (norm, turned, raw, inverses) in [
                (q_norm, &mut tape.q, &mut tape.raw_q, &mut tape.inverses_q),
                (k_norm, &mut tape.k, &mut tape.raw_k, &mut tape.inverses_k),
            ] {
                std::mem::swap(turned, raw);
                let turned = sized(turned, raw.len());
                let inverses = sized(inverses, raw.len() / heads.dim);
                rms_norm(raw, self.value(norm), self.config.norm_eps(), turned, inverses);
            }
        }
        turn_rows(&mut tape.q, width, table, 1.0);
        turn_rows(&mut tape.k, key_width, table, 1.0);
    }

    /// The gradient of the layer's output becomes that of its input in `g` [T, H].
    pub(super) fn layer_backward(
        &self,
        (layer, batch): (&Layer, &RotatedRows<'_>),
        x: &[f32],
        tape: &mut LayerTape,
        scratch: &mut LayerBuffers,
        (g, grads): (&mut [f32], &mut Gradients),
    ) {
        self.mlp_backward(layer, tape, scratch, g, grads);
        let heads = self.config.attention();
        self.linear_dw(&layer.o, &tape.y, g, grads);
        let dy = sized(&mut scratch.dy, tape.y.len());
        self.linear_dx(&layer.o, g, dy, false);
        attention_backward(
            (heads, &batch.rows.groups),
            (&tape.q, &tape.k, &tape.v),
            (&tape.totals, dy),
            (
                sized(&mut scratch.dq, tape.q.len()),
                sized(&mut scratch.dk, tape.k.len()),
                sized(&mut scratch.dv, tape.v.len()),
            ),
            &mut scratch.attention,
        );
        turn_rows(&mut scratch.dq, heads.query_width(), &batch.table, -1.0);
        turn_rows(&mut scratch.dk, heads.key_width(), &batch.table, -1.0);
        if let Some((q_norm, k_norm)) = layer.head_norms {
            for (norm, raw, inverses, d_heads) in [
                (q_norm, &tape.raw_q, &tape.inverses_q, &mut scratch.dq),
                (k_norm, &tape.raw_k, &tape.inverses_k, &mut scratch.dk),
            ] {
                let mut before = vec![0f32; raw.len()];
                self.norm_backward(norm, (raw, inverses), d_heads, &mut before, grads);
                *d_heads = before;
            }
        }
        let normed = sized(&mut scratch.normed, x.len());
        scaled(x, self.value(layer.attention_norm), &tape.inverses, normed);
        let dh = sized(&mut scratch.dh, x.len());
        let gradients = [(&layer.q, &scratch.dq), (&layer.k, &scratch.dk), (&layer.v, &scratch.dv)];
        for (at, (linear, dy)) in gradients.into_iter().enumerate() {
            self.linear_dw(linear, normed, dy, grads);
            self.linear_dx(linear, dy, dh, at > 0);
        }
        self.norm_backward(layer.attention_norm, (x, &tape.inverses), dh, g, grads);
    }

    fn mlp_backward(
        &self,
        layer: &Layer,
        tape: &mut LayerTape,
        scratch: &mut LayerBuffers,
        g: &mut [f32],
        grads: &mut Gradients,
    ) {
        let gated = sized(&mut scratch.gated, tape.gate.len());
        self.linear_dx(&layer.down, g, gated, false);
        swiglu_backward(&mut tape.gate, &mut tape.up, gated);
        let (d_gate, d_up) = (&tape.gate, &tape.up);
        self.linear_dw(&layer.down, gated, g, grads);
        let normed = sized(&mut scratch.normed, g.len());
        scaled(&tape.mid, self.value(layer.mlp_norm), &tape.inverses_mid, normed);
        self.linear_dw(&layer.gate, normed, d_gate, grads);
        self.linear_dw(&layer.up, normed, d_up, grads);
        let dh = sized(&mut scratch.dh, g.len());
        self.linear_dx(&layer.gate, d_gate, dh, false);
        self.linear_dx(&layer.up, d_up, dh, true);
        self.norm_backward(layer.mlp_norm, (&tape.mid, &tape.inverses_mid), dh, g, grads);
    }

    /// Adds the gradient of a norm's input to `dx`, and that of its weight to `grads`.
    pub(super) fn norm_backward(
        &self,
        norm: ParameterId,
        (x, inverses): (&[f32], &[f32]),
        dy: &[f32],
        dx: &mut [f32],
        grads: &mut Gradients,
    ) {
        let wanted = grads.wants(norm);
        if let Some(dw) = rms_norm_backward((x, self.value(norm), inverses), dy, dx, wanted) {
            grads.add(norm, &dw);
        }
    }
}
