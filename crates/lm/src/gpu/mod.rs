//! THE GPU: the decoder's passes on candle tensors in a device's memory, by our own kernels
//! (`crates/kernels`) and cuBLAS. What it computes is what [`super::decoder`] and
//! [`super::generate`] compute on the CPU; tests hold both together.
//!
//! Read [`layer`] for one layer forward and backward, [`store`] for where weights lie, [`trainee`]
//! for an optimiser step, [`reading`] for drawing, [`speed`] for what the device allows. [`kernels`]
//! is the one place that starts kernels, [`numbers`] the one that holds memory.
//!
//! Numbers: matrices and what lies between them are bf16 (or f32, for comparisons); the residual
//! stream, its gradient, norms, logits, losses, gradients of weights, master weights and the
//! optimiser's moments are f32. Products accumulate in f32.
//!
//! Without a GPU the same passes and the same kernels run on an emulator, which is how they are
//! tested; only cuBLAS and the driver are not seen then.

mod batch;
#[cfg(feature = "cuda")]
mod cuda;
mod emulated;
mod head;
mod kernels;
mod layer;
mod layout;
mod linear;
mod numbers;
mod passes;
mod reading;
mod speed;
mod store;
#[cfg(test)]
mod tests;
mod trainee;

#[cfg(feature = "cuda")]
use crate::device::{DeviceChoice, free_on, select};
use crate::device::{DeviceKind, Dtype, SelectedDevice};
use crate::error::LmError;
use candle_core::{DType, Device};
pub(crate) use layout::Moves;
pub(crate) use passes::GpuDecoder;
pub(crate) use reading::GpuReading;
pub use speed::{Ceilings, ceilings};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
pub use store::Base;
pub(crate) use store::{Adapters, Store};
pub(crate) use trainee::Trainee;

/// Types of numbers on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 4 bytes.
    F32,
    /// 2 bytes: f32 without its last 16 bits, rounded to the nearest.
    Bf16,
    /// Counts and row numbers.
    U32,
    /// Sums that must not lose anything.
    F64,
}

impl Kind {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        self.dtype().size_in_bytes()
    }

    fn dtype(self) -> DType {
        match self {
            Kind::F32 => DType::F32,
            Kind::Bf16 => DType::BF16,
            Kind::U32 => DType::U32,
            Kind::F64 => DType::F64,
        }
    }

    /// As kernels are named by it.
    fn name(self) -> &'static str {
        match self {
            Kind::F32 => "f32",
            Kind::Bf16 => "bf16",
            Kind::U32 => "u32",
            Kind::F64 => "f64",
        }
    }
}

/// Who runs kernels and products.
enum Driver {
    #[cfg(feature = "cuda")]
    Cuda(cuda::Cuda),
    Emulated(emulated::Emulated),
}

struct Inner {
    device: Device,
    driver: Driver,
    /// What matrices and activations are kept in.
    dtype: Dtype,
    held: AtomicU64,
    most_held: AtomicU64,
    limit: AtomicU64,
    phases: speed::Phases,
    turn: Mutex<()>,
}

/// A device that computes, opened and set up. Cheap to clone: all clones are the one device.
#[derive(Clone)]
pub struct Gpu(Arc<Inner>);

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu").field("device", &self.0.device).field("dtype", &self.0.dtype).finish()
    }
}

impl Gpu {
    fn with(device: Device, driver: Driver, dtype: Dtype) -> Gpu {
        Gpu(Arc::new(Inner {
            device,
            driver,
            dtype,
            held: AtomicU64::new(0),
            most_held: AtomicU64::new(0),
            limit: AtomicU64::new(u64::MAX),
            phases: speed::Phases::default(),
            turn: Mutex::new(()),
        }))
    }

    /// A GPU that candle opened.
    #[cfg(feature = "cuda")]
    fn cuda(device: &Device, dtype: Dtype) -> Result<Gpu, LmError> {
        let driver = Driver::Cuda(cuda::Cuda::new(device)?);
        Ok(Gpu::with(device.clone(), driver, dtype))
    }

    /// The GPU that was picked, one in the whole process for each kind of numbers; `None` where the
    /// CPU was.
    ///
    /// # Errors
    /// The program was built without kernels.
    pub fn of(picked: &SelectedDevice, dtype: Dtype) -> Result<Option<Gpu>, LmError> {
        static OPENED: Mutex<Vec<(DeviceKind, Dtype, Gpu)>> = Mutex::new(Vec::new());
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        let known =
            |(kind, of, _): &&(DeviceKind, Dtype, Gpu)| *kind == picked.kind && *of == dtype;
        if let Some((_, _, gpu)) = opened.iter().find(known) {
            return Ok(Some(gpu.clone()));
        }
        let gpu = match picked.kind {
            DeviceKind::Cpu => None,
            DeviceKind::Emulated => Gpu::emulated(dtype),
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda(_) => Some(Gpu::cuda(&picked.device, dtype)?),
            #[cfg(not(feature = "cuda"))]
            DeviceKind::Cuda(_) => None,
        };
        opened.extend(gpu.clone().map(|gpu| (picked.kind, dtype, gpu)));
        Ok(gpu)
    }

    /// A device to test with: a GPU where there is one, else the emulator; one of its own, whose
    /// memory nobody else counts.
    ///
    /// # Errors
    /// Why there is neither.
    pub fn to_test(dtype: Dtype) -> Result<Gpu, String> {
        #[cfg(feature = "cuda")]
        if let Ok(picked) = select(DeviceChoice::Cuda(0)) {
            return Gpu::cuda(&picked.device, dtype).map_err(|error| error.to_string());
        }
        Gpu::emulated(dtype).ok_or_else(|| "the kernels were not compiled for the CPU".to_owned())
    }

    /// Whether there are kernels for the CPU.
    pub fn can_be_emulated() -> bool {
        gradus_kernels::emulator().is_some()
    }

    /// The kernels on this machine's CPU, slowly: for tests. `None` where they were not compiled
    /// for it.
    pub fn emulated(dtype: Dtype) -> Option<Gpu> {
        let driver = Driver::Emulated(emulated::Emulated::new()?);
        Some(Gpu::with(Device::Cpu, driver, dtype))
    }

    /// What matrices and activations are kept in.
    pub fn dtype(&self) -> Dtype {
        self.0.dtype
    }

    /// As [`Gpu::dtype`], as kernels name it.
    pub(crate) fn work(&self) -> Kind {
        match self.0.dtype {
            Dtype::Bf16 => Kind::Bf16,
            Dtype::F32 => Kind::F32,
        }
    }

    /// Allows no more than this to be held at once, in bytes.
    pub fn set_limit(&self, bytes: u64) {
        self.0.limit.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that are held now.
    pub fn held(&self) -> u64 {
        self.0.held.load(Ordering::Relaxed)
    }

    /// The most bytes that were held since the last call.
    pub fn take_most_held(&self) -> u64 {
        self.0.most_held.swap(self.held(), Ordering::Relaxed)
    }

    /// Bytes that can still be had, as far as that can be known.
    pub fn free(&self) -> u64 {
        let allowed = self.0.limit.load(Ordering::Relaxed).saturating_sub(self.held());
        match &self.0.driver {
            #[cfg(feature = "cuda")]
            Driver::Cuda(_) => free_on(&self.0.device).unwrap_or(u64::MAX).min(allowed),
            Driver::Emulated(_) => allowed,
        }
    }

    /// Waits until all that was asked for is done.
    ///
    /// # Errors
    /// What the device reports late.
    pub fn wait(&self) -> Result<(), LmError> {
        Ok(self.0.device.synchronize()?)
    }

    /// One computation at a time: whoever holds this has the device.
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.0.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Multiprocessors that a launch should keep busy. An H100 or H200 has 132; a smaller GPU is kept
/// busy by as many blocks as well.
const MULTIPROCESSORS: usize = 132;
