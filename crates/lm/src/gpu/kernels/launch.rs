//! How a kernel is started: its arguments as words, each checked to be long enough; and products.

use crate::error::LmError;
use crate::gpu::buffer::DeviceBuffer;
use crate::gpu::context::Gpu;
use crate::gpu::driver::{ElementType, RawOperand, RawProduct};
use gradus_kernels::Launch;

/// One side of a product.
pub(in crate::gpu) struct Operand {
    /// Row-major, as it lies.
    pub buffer: DeviceBuffer,
    /// Numbers from one row to the next.
    pub stride: usize,
    /// It is used transposed.
    pub transposed: bool,
}

impl Operand {
    /// As it lies.
    pub fn plain(buffer: &DeviceBuffer, stride: usize) -> Operand {
        Operand { buffer: buffer.clone(), stride, transposed: false }
    }

    /// Transposed.
    pub fn transposed(buffer: &DeviceBuffer, stride: usize) -> Operand {
        Operand { buffer: buffer.clone(), stride, transposed: true }
    }

    fn check(&self, rows: usize, columns: usize) {
        let (rows, columns) = if self.transposed { (columns, rows) } else { (rows, columns) };
        reaches(&self.buffer, rows, columns, self.stride);
    }

    fn raw(&self) -> RawOperand {
        raw(&self.buffer, self.stride, self.transposed)
    }
}

/// `c` [rows, columns] = scale a [rows, inner] b [inner, columns], or that added to it.
pub(in crate::gpu) struct MatrixProduct<'a> {
    pub a: Operand,
    pub b: Operand,
    pub c: &'a DeviceBuffer,
    pub c_stride: usize,
    pub rows: usize,
    pub columns: usize,
    pub inner: usize,
    pub add: bool,
    pub scale: f32,
}

fn raw(buffer: &DeviceBuffer, stride: usize, transposed: bool) -> RawOperand {
    let (address, kind, len) = (buffer.address(), buffer.kind(), buffer.len());
    RawOperand { address, kind, len, stride, transposed }
}

/// A strided matrix must end within its numbers.
pub(super) fn reaches(buffer: &DeviceBuffer, rows: usize, columns: usize, stride: usize) {
    let end = rows.saturating_sub(1) * stride + columns;
    assert!(
        columns <= stride && end <= buffer.len(),
        "{rows} rows of {columns}, {stride} apart, are not in {} numbers",
        buffer.len()
    );
}

pub(super) fn needs(buffer: &DeviceBuffer, kind: ElementType, len: usize) {
    assert!(
        buffer.kind() == kind && buffer.len() >= len,
        "{} numbers of {:?} where {len} of {kind:?} are needed",
        buffer.len(),
        buffer.kind()
    );
}

pub(super) fn at(buffer: &DeviceBuffer) -> u64 {
    buffer.address()
}

pub(super) fn or_null(buffer: Option<&DeviceBuffer>) -> u64 {
    buffer.map_or(0, DeviceBuffer::address)
}

pub(super) fn n(count: usize) -> u64 {
    count as u32 as u64
}

pub(super) fn f(value: f32) -> u64 {
    u64::from(value.to_bits())
}

pub(super) fn start(gpu: &Gpu, name: &str, launch: Launch, args: &[u64]) -> Result<(), LmError> {
    gpu.driver().launch(name, launch, args)
}

/// The product; nothing where it has no rows or columns.
pub(in crate::gpu) fn product(p: &MatrixProduct<'_>) -> Result<(), LmError> {
    if p.rows == 0 || p.columns == 0 {
        return Ok(());
    }
    p.a.check(p.rows, p.inner);
    p.b.check(p.inner, p.columns);
    reaches(p.c, p.rows, p.columns, p.c_stride);
    let (a, b, c) = (p.a.raw(), p.b.raw(), raw(p.c, p.c_stride, false));
    assert!(a.kind == b.kind, "sides of different kinds");
    let MatrixProduct { rows, columns, inner, add, scale, .. } = *p;
    p.c.gpu().driver().product(&RawProduct { a, b, c, rows, columns, inner, add, scale })
}
