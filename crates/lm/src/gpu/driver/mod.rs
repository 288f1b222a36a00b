//! Who runs kernels and products: NVIDIA's driver, or the emulator on this machine's CPU. Asked by
//! kernel name and by address; [`super::kernels`] checks beforehand that what lies there is long
//! enough. Knows no buffer and no network.

#[cfg(feature = "cuda")]
pub mod cuda;
pub mod emulated;

use crate::error::LmError;
use candle_core::DType;
use gradus_kernels::Launch;

/// Types of numbers on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ElementType {
    /// 4 bytes.
    F32,
    /// 2 bytes: f32 without its last 16 bits, rounded to the nearest.
    Bf16,
    /// Counts and row numbers.
    U32,
    /// Sums that must not lose anything.
    F64,
}

impl ElementType {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        self.dtype().size_in_bytes()
    }

    pub fn dtype(self) -> DType {
        match self {
            ElementType::F32 => DType::F32,
            ElementType::Bf16 => DType::BF16,
            ElementType::U32 => DType::U32,
            ElementType::F64 => DType::F64,
        }
    }

    /// As kernels are named by it.
    pub fn name(self) -> &'static str {
        match self {
            ElementType::F32 => "f32",
            ElementType::Bf16 => "bf16",
            ElementType::U32 => "u32",
            ElementType::F64 => "f64",
        }
    }
}

/// One side of a product: a matrix where it lies.
#[derive(Clone, Copy)]
pub(crate) struct RawOperand {
    /// Where it begins.
    pub address: u64,
    /// What its numbers are.
    pub kind: ElementType,
    /// How many numbers there are from there on.
    pub len: usize,
    /// Numbers from one row to the next.
    pub stride: usize,
    /// It is used transposed.
    pub transposed: bool,
}

/// `c` [rows, columns] = scale a [rows, inner] b [inner, columns], or that added to it. All of it is
/// as long as its shape and stride say.
pub(crate) struct RawProduct {
    pub a: RawOperand,
    pub b: RawOperand,
    pub c: RawOperand,
    pub rows: usize,
    pub columns: usize,
    pub inner: usize,
    pub add: bool,
    pub scale: f32,
}

/// Who runs kernels and products.
pub(crate) enum Driver {
    #[cfg(feature = "cuda")]
    Cuda(cuda::Cuda),
    Emulated(emulated::Emulated),
}

impl Driver {
    /// Starts a kernel; its arguments are those that it is declared with.
    ///
    /// # Errors
    /// What the driver says.
    pub fn launch(&self, name: &str, launch: Launch, args: &[u64]) -> Result<(), LmError> {
        match self {
            #[cfg(feature = "cuda")]
            Driver::Cuda(cuda) => cuda.launch(name, launch, args),
            Driver::Emulated(emulated) => emulated.launch(name, launch, args),
        }
    }

    /// Computes a product.
    ///
    /// # Errors
    /// What the driver says.
    pub fn product(&self, product: &RawProduct) -> Result<(), LmError> {
        match self {
            #[cfg(feature = "cuda")]
            Driver::Cuda(cuda) => cuda.product(product),
            Driver::Emulated(emulated) => emulated.product(product),
        }
    }

    /// Copies from the host.
    ///
    /// # Errors
    /// What the driver says.
    pub fn upload(&self, to: u64, bytes: &[u8]) -> Result<(), LmError> {
        match self {
            #[cfg(feature = "cuda")]
            Driver::Cuda(cuda) => cuda.upload(to, bytes),
            Driver::Emulated(emulated) => emulated.upload(to, bytes),
        }
    }

    /// Copies to the host, and waits until it is there.
    ///
    /// # Errors
    /// What the driver says.
    pub fn download(&self, from: u64, bytes: &mut [u8]) -> Result<(), LmError> {
        match self {
            #[cfg(feature = "cuda")]
            Driver::Cuda(cuda) => cuda.download(from, bytes),
            Driver::Emulated(emulated) => emulated.download(from, bytes),
        }
    }

    /// Copies within the device.
    ///
    /// # Errors
    /// What the driver says.
    pub fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), LmError> {
        match self {
            #[cfg(feature = "cuda")]
            Driver::Cuda(cuda) => cuda.copy(from, to, bytes),
            Driver::Emulated(emulated) => emulated.copy(from, to, bytes),
        }
    }
}
