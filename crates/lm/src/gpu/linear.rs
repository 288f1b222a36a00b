//! Linear layers on a device, with their adapters: those that multiply the same rows lie side by side
//! and are one product. Adapters are not merged, so that everyone shares what is below them.

use super::buffer::{DeviceBuffer, Scratch};
use super::kernels::{GradientSum, MatrixProduct, Operand, add_bias, add_columns, product};
use super::weights::WeightStore;
use crate::decoder::{Linear, ParameterId};
use crate::error::LmError;

impl WeightStore {
    /// `y = x W' + b` of layers side by side, or `y += x W'`.
    pub(super) fn linear(
        &self,
        parts: &[&Linear],
        x: &DeviceBuffer,
        (y, add): (&DeviceBuffer, bool),
        low: &mut Scratch,
    ) -> Result<(), LmError> {
        let input = parts[0].input;
        let rows = x.len() / input;
        let out: usize = parts.iter().map(|part| part.out).sum();
        let weight = self.matrix(parts[0].weight, out * input)?;
        product(&MatrixProduct {
            a: Operand::plain(x, input),
            b: Operand::transposed(&weight, input),
            c: y,
            c_stride: out,
            rows,
            columns: out,
            inner: input,
            add,
            scale: 1.0,
        })?;
        if let Some(bias) = parts[0].bias {
            add_bias(y, rows, &self.vector(bias, out)?)?;
        }
        let mut column = 0;
        for part in parts {
            if let Some((a, b)) = part.adapter {
                let (low, rank) = (self.lowered(part, a, x, low)?, self.rank(a));
                product(&MatrixProduct {
                    a: Operand::plain(&low, rank),
                    b: Operand::transposed(&self.matrix(b, self.len(b))?, rank),
                    c: &y.from(column),
                    c_stride: out,
                    rows,
                    columns: part.out,
                    inner: rank,
                    add: true,
                    scale: self.scale,
                })?;
            }
            column += part.out;
        }
        Ok(())
    }

    fn rank(&self, a: ParameterId) -> usize {
        self.parameters[a].shape[0]
    }

    /// x A' [T, r].
    fn lowered(
        &self,
        part: &Linear,
        a: ParameterId,
        x: &DeviceBuffer,
        low: &mut Scratch,
    ) -> Result<DeviceBuffer, LmError> {
        let (rows, rank) = (x.len() / part.input, self.rank(a));
        let low = self.work(low, rows * rank)?;
        product(&MatrixProduct {
            a: Operand::plain(x, part.input),
            b: Operand::transposed(&self.matrix(a, self.len(a))?, part.input),
            c: &low,
            c_stride: rank,
            rows,
            columns: rank,
            inner: part.input,
            add: false,
            scale: 1.0,
        })?;
        Ok(low)
    }

    /// scale dy B [T, r], of one part's columns of dy, rows `stride` apart.
    fn low_gradient(
        &self,
        part: &Linear,
        b: ParameterId,
        (dy, rows, stride): (&DeviceBuffer, usize, usize),
        low: &mut Scratch,
    ) -> Result<DeviceBuffer, LmError> {
        let rank = self.parameters[b].shape[1];
        let low = self.work(low, rows * rank)?;
        product(&MatrixProduct {
            a: Operand::plain(dy, stride),
            b: Operand::plain(&self.matrix(b, self.len(b))?, rank),
            c: &low,
            c_stride: rank,
            rows,
            columns: rank,
            inner: part.out,
            add: false,
            scale: self.scale,
        })?;
        Ok(low)
    }

    /// The gradient of the input of [`WeightStore::linear`], written to `dx`.
    pub(super) fn linear_dx(
        &self,
        parts: &[&Linear],
        dy: &DeviceBuffer,
        dx: &DeviceBuffer,
        low: &mut Scratch,
    ) -> Result<(), LmError> {
        let input = parts[0].input;
        let out: usize = parts.iter().map(|part| part.out).sum();
        let rows = dy.len() / out;
        let times = |a: &DeviceBuffer, stride: usize, b: &DeviceBuffer, inner: usize, add: bool| {
            product(&MatrixProduct {
                a: Operand::plain(a, stride),
                b: Operand::plain(b, input),
                c: dx,
                c_stride: input,
                rows,
                columns: input,
                inner,
                add,
                scale: 1.0,
            })
        };
        times(dy, out, &self.matrix(parts[0].weight, out * input)?, out, false)?;
        let mut column = 0;
        for part in parts {
            if let Some((a, b)) = part.adapter {
                let low = self.low_gradient(part, b, (&dy.from(column), rows, out), low)?;
                let rank = self.rank(a);
                times(&low, rank, &self.matrix(a, self.len(a))?, rank, true)?;
            }
            column += part.out;
        }
        Ok(())
    }

    /// Adds the gradients of the parameters of [`WeightStore::linear`] that move.
    pub(super) fn linear_dw(
        &self,
        parts: &[&Linear],
        x: &DeviceBuffer,
        dy: &DeviceBuffer,
        (low, partial): (&mut Scratch, &mut Scratch),
    ) -> Result<(), LmError> {
        let input = parts[0].input;
        let out: usize = parts.iter().map(|part| part.out).sum();
        let rows = dy.len() / out;
        let sum =
            |a: Operand, b: (&DeviceBuffer, usize), c: &DeviceBuffer, height: usize, scale: f32| {
                product(&MatrixProduct {
                    a,
                    b: Operand::plain(b.0, b.1),
                    c,
                    c_stride: b.1,
                    rows: height,
                    columns: b.1,
                    inner: rows,
                    add: true,
                    scale,
                })
            };
        if let Some(dw) = self.gradient(parts[0].weight, out * input) {
            sum(Operand::transposed(dy, out), (x, input), &dw, out, 1.0)?;
        }
        if let Some(db) = parts[0].bias.and_then(|bias| self.gradient(bias, out)) {
            add_columns(dy, rows, GradientSum { to: db, scratch: partial })?;
        }
        let mut column = 0;
        for part in parts {
            let dy = dy.from(column);
            column += part.out;
            let Some((a, b)) = part.adapter else { continue };
            if let Some(db) = self.gradient(b, self.len(b)) {
                let low = self.lowered(part, a, x, low)?;
                let side = Operand::transposed(&dy, out);
                sum(side, (&low, self.rank(a)), &db, part.out, self.scale)?;
            }
            if let Some(da) = self.gradient(a, self.len(a)) {
                let low = self.low_gradient(part, b, (&dy, rows, out), low)?;
                let rank = self.rank(a);
                sum(Operand::transposed(&low, rank), (x, input), &da, rank, 1.0)?;
            }
        }
        Ok(())
    }
}
