//! Every kernel and product, called with numbers instead of addresses: who may be given what, and
//! how long it must be. A kernel that is given too little would read or write somebody else's
//! memory, so that is checked here, always; it is a mistake of ours and panics.
//!
//! What each computes is said in `crates/kernels`; shapes are those of [`super`].

mod attention;
mod layers;
mod rows;
mod step;

pub(super) use attention::{KeyTiles, Mixed, Seen, Tiles, attention, attention_backward};
pub(super) use layers::{
    Angles, HeadNorm, HeadRows, Sum, add_bias, add_columns, heads, heads_backward, rms_norm,
    rms_norm_backward, scale_rows, swiglu, swiglu_backward,
};
pub(super) use rows::{
    Additions, add_rows, fill, gather_rows, narrowed, store_rows, token_logps, token_logps_backward,
};
pub(super) use step::{ASKED_WORDS, CHOSEN_WORDS, Moving, adamw, adamw_finite, choose, square_sum};

use super::numbers::Numbers;
use super::{Driver, Gpu, Kind};
use crate::error::LmError;
pub(super) use gradus_kernels::Launch;

/// One side of a product.
pub(super) struct Side {
    /// Row-major, as it lies.
    pub numbers: Numbers,
    /// Numbers from one row to the next.
    pub stride: usize,
    /// It is used transposed.
    pub transposed: bool,
}

impl Side {
    /// As it lies.
    pub fn plain(numbers: &Numbers, stride: usize) -> Side {
        Side { numbers: numbers.clone(), stride, transposed: false }
    }

    /// Transposed.
    pub fn turned(numbers: &Numbers, stride: usize) -> Side {
        Side { numbers: numbers.clone(), stride, transposed: true }
    }

    fn check(&self, rows: usize, columns: usize) {
        let (rows, columns) = if self.transposed { (columns, rows) } else { (rows, columns) };
        reaches(&self.numbers, rows, columns, self.stride);
    }
}

/// `c` [rows, columns] = scale a [rows, inner] b [inner, columns], or that added to it.
pub(super) struct Product<'a> {
    pub a: Side,
    pub b: Side,
    pub c: &'a Numbers,
    pub c_stride: usize,
    pub rows: usize,
    pub columns: usize,
    pub inner: usize,
    pub add: bool,
    pub scale: f32,
}

/// A strided matrix must end within its numbers.
fn reaches(numbers: &Numbers, rows: usize, columns: usize, stride: usize) {
    let end = rows.saturating_sub(1) * stride + columns;
    assert!(
        columns <= stride && end <= numbers.len(),
        "{rows} rows of {columns}, {stride} apart, are not in {} numbers",
        numbers.len()
    );
}

fn needs(numbers: &Numbers, kind: Kind, len: usize) {
    assert!(
        numbers.kind() == kind && numbers.len() >= len,
        "{} numbers of {:?} where {len} of {kind:?} are needed",
        numbers.len(),
        numbers.kind()
    );
}

fn at(numbers: &Numbers) -> u64 {
    numbers.address()
}

fn or_null(numbers: Option<&Numbers>) -> u64 {
    numbers.map_or(0, Numbers::address)
}

fn n(count: usize) -> u64 {
    count as u32 as u64
}

fn f(value: f32) -> u64 {
    u64::from(value.to_bits())
}

fn start(gpu: &Gpu, name: &str, launch: Launch, args: &[u64]) -> Result<(), LmError> {
    match &gpu.0.driver {
        #[cfg(feature = "cuda")]
        Driver::Cuda(cuda) => cuda.launch(name, launch, args),
        Driver::Emulated(emulated) => emulated.launch(name, launch, args),
    }
}

/// The product; nothing where it has no rows or columns.
pub(super) fn product(p: &Product<'_>) -> Result<(), LmError> {
    if p.rows == 0 || p.columns == 0 {
        return Ok(());
    }
    p.a.check(p.rows, p.inner);
    p.b.check(p.inner, p.columns);
    reaches(p.c, p.rows, p.columns, p.c_stride);
    assert!(p.a.numbers.kind() == p.b.numbers.kind(), "sides of different kinds");
    match &p.c.gpu().0.driver {
        #[cfg(feature = "cuda")]
        Driver::Cuda(cuda) => cuda.product(p),
        Driver::Emulated(emulated) => emulated.product(p),
    }
}
