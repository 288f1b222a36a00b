//! What a layer is made of besides products and attention: norms, heads, the gated product, biases.

use super::launch::{at, f, n, needs, or_null, reaches, start};
use crate::error::LmError;
use crate::gpu::buffer::{DeviceBuffer, Scratch};
use crate::gpu::driver::ElementType;
use gradus_kernels as shapes;
use gradus_kernels::Launch;

/// y of x [rows, width] f32, and each row's factor.
pub(in crate::gpu) fn rms_norm(
    (x, w): (&DeviceBuffer, &DeviceBuffer),
    (y, inverses): (&DeviceBuffer, &DeviceBuffer),
    eps: f32,
) -> Result<(), LmError> {
    let width = w.len();
    let rows = x.len() / width;
    needs(x, ElementType::F32, rows * width);
    needs(w, ElementType::F32, width);
    needs(y, y.kind(), rows * width);
    needs(inverses, ElementType::F32, rows);
    let name = format!("rms_norm_f32_{}", y.kind().name());
    let args = [at(x), at(w), at(y), at(inverses), n(rows), n(width), f(eps)];
    start(x.gpu(), &name, shapes::rows_launch(rows as u32, width as u32), &args)
}

/// y again, from the factors that [`rms_norm`] kept.
pub(in crate::gpu) fn scale_rows(
    (x, w, inverses): (&DeviceBuffer, &DeviceBuffer, &DeviceBuffer),
    y: &DeviceBuffer,
) -> Result<(), LmError> {
    let width = w.len();
    let rows = x.len() / width;
    needs(w, ElementType::F32, width);
    needs(inverses, ElementType::F32, rows);
    needs(x, ElementType::F32, rows * width);
    needs(y, y.kind(), rows * width);
    let name = format!("scale_rows_f32_{}", y.kind().name());
    let args = [at(x), at(w), at(inverses), at(y), n(rows), n(width)];
    start(x.gpu(), &name, shapes::rows_launch(rows as u32, width as u32), &args)
}

/// Where a sum over rows is added: each block's is kept apart first, and they are added in order.
pub(in crate::gpu) struct GradientSum<'a> {
    pub to: DeviceBuffer,
    pub scratch: &'a mut Scratch,
}

impl GradientSum<'_> {
    /// A row for each block of this launch.
    fn partial(&mut self, launch: Launch) -> Result<DeviceBuffer, LmError> {
        needs(&self.to, ElementType::F32, self.to.len());
        let len = launch.grid[0] as usize * self.to.len();
        self.scratch.get(self.to.gpu(), ElementType::F32, len)
    }

    fn add(&self, partial: &DeviceBuffer) -> Result<(), LmError> {
        let width = self.to.len();
        let args = [at(partial), at(&self.to), n(partial.len() / width), n(width), 1];
        start(self.to.gpu(), "column_sums", shapes::column_sums_launch(width as u32), &args)
    }
}

/// Adds the gradient of x to `dx`, and that of w to `dw` where it is wanted.
pub(in crate::gpu) fn rms_norm_backward(
    (x, w, inverses): (&DeviceBuffer, &DeviceBuffer, &DeviceBuffer),
    dy: &DeviceBuffer,
    dx: &DeviceBuffer,
    mut dw: Option<GradientSum<'_>>,
) -> Result<(), LmError> {
    let width = w.len();
    let rows = x.len() / width;
    for (buffer, len) in [(x, rows * width), (w, width), (inverses, rows), (dx, rows * width)] {
        needs(buffer, ElementType::F32, len);
    }
    needs(dy, dy.kind(), rows * width);
    let launch = shapes::rms_norm_backward_launch(rows as u32, width as u32);
    let partial = dw.as_mut().map(|dw| dw.partial(launch)).transpose()?;
    let sums = or_null(partial.as_ref());
    let name = format!("rms_norm_backward_{}", dy.kind().name());
    let args = [at(x), at(w), at(inverses), at(dy), at(dx), sums, n(rows), n(width)];
    start(x.gpu(), &name, launch, &args)?;
    added(dw, partial)
}

fn added(sum: Option<GradientSum<'_>>, partial: Option<DeviceBuffer>) -> Result<(), LmError> {
    match (sum, partial) {
        (Some(sum), Some(partial)) => sum.add(&partial),
        _ => Ok(()),
    }
}

/// Adds the rows of `from` [rows, width of the sum].
pub(in crate::gpu) fn add_columns(
    from: &DeviceBuffer,
    rows: usize,
    mut sum: GradientSum<'_>,
) -> Result<(), LmError> {
    let width = sum.to.len();
    reaches(from, rows, width, width);
    let launch = shapes::partial_columns_launch(rows as u32, width as u32);
    let partial = sum.partial(launch)?;
    let name = format!("partial_columns_{}", from.kind().name());
    let args = [at(from), n(width), at(&partial), n(rows), n(width)];
    start(from.gpu(), &name, launch, &args)?;
    sum.add(&partial)
}

/// Adds `bias` to every row of `y`.
pub(in crate::gpu) fn add_bias(
    y: &DeviceBuffer,
    rows: usize,
    bias: &DeviceBuffer,
) -> Result<(), LmError> {
    let width = bias.len();
    reaches(y, rows, width, width);
    needs(bias, ElementType::F32, width);
    let name = format!("add_bias_{}", y.kind().name());
    let args = [at(y), n(width), at(bias), n(rows), n(width)];
    start(y.gpu(), &name, shapes::rows_launch(rows as u32, width as u32), &args)
}

/// Cosines and sines, a row for each row that is turned [rows, D/2].
#[derive(Clone)]
pub(in crate::gpu) struct Angles {
    pub cos: DeviceBuffer,
    pub sin: DeviceBuffer,
}

/// Some heads of every row: rows `stride` apart, `heads` of `dim` numbers from the beginning of each.
#[derive(Clone, Copy)]
pub(in crate::gpu) struct HeadRows {
    pub rows: usize,
    pub heads: usize,
    pub dim: usize,
    pub stride: usize,
}

impl HeadRows {
    fn check(&self, buffer: &DeviceBuffer, angles: &Angles) {
        reaches(buffer, self.rows, self.heads * self.dim, self.stride);
        needs(&angles.cos, ElementType::F32, self.rows * self.dim / 2);
        needs(&angles.sin, ElementType::F32, self.rows * self.dim / 2);
    }

    fn launch(&self) -> Launch {
        shapes::heads_launch(self.rows as u32, self.heads as u32)
    }
}

/// Heads normed where there is a norm, and turned: from `from` to `to`, which may be the same.
pub(in crate::gpu) fn heads(
    shape: HeadRows,
    (from, to): (&DeviceBuffer, &DeviceBuffer),
    norm: Option<(&DeviceBuffer, &DeviceBuffer)>,
    eps: f32,
    angles: &Angles,
) -> Result<(), LmError> {
    shape.check(from, angles);
    shape.check(to, angles);
    if let Some((weight, inverses)) = norm {
        needs(weight, ElementType::F32, shape.dim);
        needs(inverses, ElementType::F32, shape.rows * shape.heads);
    }
    let name = format!("heads_{}", from.kind().name());
    let HeadRows { rows, heads, dim, stride } = shape;
    let (weight, inverses) = (norm.map(|n| n.0), norm.map(|n| n.1));
    let args = [
        at(from),
        n(stride),
        at(to),
        n(stride),
        n(rows),
        n(heads),
        n(dim),
        or_null(weight),
        or_null(inverses),
        f(eps),
        at(&angles.cos),
        at(&angles.sin),
    ];
    start(from.gpu(), &name, shape.launch(), &args)
}

/// What [`heads_backward`] needs of a norm: what was normed, by what, the factors, and where the
/// weight's gradient goes, where it is wanted.
pub(in crate::gpu) struct HeadNorm<'a> {
    pub raw: DeviceBuffer,
    pub weight: DeviceBuffer,
    pub inverses: DeviceBuffer,
    pub dw: Option<GradientSum<'a>>,
}

/// The gradient of turned heads becomes that of heads before their norm.
pub(in crate::gpu) fn heads_backward(
    shape: HeadRows,
    d: &DeviceBuffer,
    angles: &Angles,
    mut norm: Option<HeadNorm<'_>>,
) -> Result<(), LmError> {
    shape.check(d, angles);
    let HeadRows { rows, heads, dim, stride } = shape;
    if let Some(norm) = &norm {
        reaches(&norm.raw, rows, heads * dim, stride);
        needs(&norm.weight, ElementType::F32, dim);
        needs(&norm.inverses, ElementType::F32, rows * heads);
    }
    let launch = shapes::heads_backward_launch(rows as u32, heads as u32, dim as u32);
    let dw = norm.as_mut().and_then(|norm| norm.dw.as_mut());
    let partial = dw.map(|dw| dw.partial(launch)).transpose()?;
    let name = format!("heads_backward_{}", d.kind().name());
    let args = [
        at(d),
        n(stride),
        n(rows),
        n(heads),
        n(dim),
        at(&angles.cos),
        at(&angles.sin),
        or_null(norm.as_ref().map(|n| &n.raw)),
        n(stride),
        or_null(norm.as_ref().map(|n| &n.weight)),
        or_null(norm.as_ref().map(|n| &n.inverses)),
        or_null(partial.as_ref()),
    ];
    start(d.gpu(), &name, launch, &args)?;
    added(norm.and_then(|norm| norm.dw), partial)
}

/// `out` [rows, inner] of gate and up side by side [rows, 2 inner].
pub(in crate::gpu) fn swiglu(
    gate_up: &DeviceBuffer,
    out: &DeviceBuffer,
    inner: usize,
) -> Result<(), LmError> {
    let rows = out.len() / inner;
    needs(gate_up, out.kind(), rows * 2 * inner);
    let name = format!("swiglu_{}", out.kind().name());
    let args = [at(gate_up), at(out), n(rows), n(inner)];
    start(out.gpu(), &name, shapes::rows_launch(rows as u32, inner as u32), &args)
}

/// Gate and up become their gradients, and the gradient of the product the product.
pub(in crate::gpu) fn swiglu_backward(
    gate_up: &DeviceBuffer,
    gated: &DeviceBuffer,
    inner: usize,
) -> Result<(), LmError> {
    let rows = gated.len() / inner;
    needs(gate_up, gated.kind(), rows * 2 * inner);
    let name = format!("swiglu_backward_{}", gated.kind().name());
    let args = [at(gate_up), at(gated), n(rows), n(inner)];
    start(gated.gpu(), &name, shapes::rows_launch(rows as u32, inner as u32), &args)
}
