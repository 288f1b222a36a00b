//! Numbers in a device's memory: candle tensors, and the addresses that kernels take.
//!
//! A handle keeps its memory alive, so an address is never older than what it points to. Whoever
//! writes through one owns the numbers by the passes' order: a device does one thing after another.

use super::context::Gpu;
use super::driver::ElementType;
use crate::error::LmError;
use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers that are made up in one go.
const MADE_UP_AT_ONCE: usize = 64 << 20;

/// Memory that was set aside; given back when the last handle goes.
struct Allocation {
    /// Allocation for its memory.
    _tensor: Tensor,
    bytes: u64,
    gpu: Gpu,
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.gpu.let_go(self.bytes);
    }
}

/// A stretch of numbers in a device's memory.
#[derive(Clone)]
pub(crate) struct DeviceBuffer {
    held: Arc<Allocation>,
    address: u64,
    kind: ElementType,
    len: usize,
}

/// Asks a tensor where it lies.
#[derive(Default)]
struct AddressProbe(AtomicU64);

impl InplaceOp1 for AddressProbe {
    fn name(&self) -> &'static str {
        "address"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        let address = match storage {
            CpuStorage::F32(v) => v.as_mut_ptr() as u64,
            CpuStorage::BF16(v) => v.as_mut_ptr() as u64,
            CpuStorage::U32(v) => v.as_mut_ptr() as u64,
            CpuStorage::F64(v) => v.as_mut_ptr() as u64,
            _ => candle_core::bail!("no kernel takes such numbers"),
        };
        self.0.store(address, Ordering::Relaxed);
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &mut candle_core::CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<()> {
        self.0.store(super::driver::cuda::address(storage)?, Ordering::Relaxed);
        Ok(())
    }
}

impl DeviceBuffer {
    /// Zeros.
    ///
    /// # Errors
    /// [`LmError::DeviceMemory`] when there is no room.
    pub fn zeros(gpu: &Gpu, kind: ElementType, len: usize) -> Result<DeviceBuffer, LmError> {
        // Kernels are never given an address of nothing.
        let count = len.max(1);
        let bytes = (count * kind.bytes()) as u64;
        let held = gpu.held();
        let limit = gpu.limit();
        let short = |why: String| LmError::DeviceMemory { wanted: bytes, held, why };
        if held.saturating_add(bytes) > limit {
            return Err(short(format!("{limit} bytes are allowed")));
        }
        let tensor =
            Tensor::zeros(count, kind.dtype(), gpu.device()).map_err(|error| {
                match error.to_string() {
                    text if text.contains("OUT_OF_MEMORY") => {
                        short("the device has no more".into())
                    }
                    _ => LmError::from(error),
                }
            })?;
        DeviceBuffer::holding(gpu, tensor, kind, len)
    }

    /// The numbers of a tensor that nobody else has, `len` of them.
    fn holding(
        gpu: &Gpu,
        tensor: Tensor,
        kind: ElementType,
        len: usize,
    ) -> Result<DeviceBuffer, LmError> {
        let bytes = (tensor.elem_count() * kind.bytes()) as u64;
        let address = AddressProbe::default();
        tensor.inplace_op1(&address)?;
        gpu.hold(bytes);
        let held = Arc::new(Allocation { _tensor: tensor, bytes, gpu: gpu.clone() });
        Ok(DeviceBuffer { held, address: address.0.into_inner(), kind, len })
    }

    /// What the host holds.
    ///
    /// # Errors
    /// As [`DeviceBuffer::zeros`].
    pub fn of<T: Element>(gpu: &Gpu, values: &[T]) -> Result<DeviceBuffer, LmError> {
        let numbers = DeviceBuffer::zeros(gpu, T::KIND, values.len())?;
        numbers.write(values)?;
        Ok(numbers)
    }

    /// Becomes normal numbers with deviation `std`, made on the device in an order of its own.
    ///
    /// # Errors
    /// What the device says.
    pub fn make_up(&self, std: f32) -> Result<(), LmError> {
        for from in (0..self.len).step_by(MADE_UP_AT_ONCE) {
            let len = MADE_UP_AT_ONCE.min(self.len - from);
            let made = Tensor::randn(0f32, std, len, self.gpu().device())?;
            let made = made.to_dtype(self.kind.dtype())?;
            self.part(from, len).copy(&DeviceBuffer::holding(self.gpu(), made, self.kind, len)?)?;
        }
        Ok(())
    }

    /// The device it lies on.
    pub fn gpu(&self) -> &Gpu {
        &self.held.gpu
    }

    /// Where it begins.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// What it is made of.
    pub fn kind(&self) -> ElementType {
        self.kind
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The stretch of `len` numbers from `at`.
    ///
    /// # Panics
    /// When it reaches beyond the end: on a device that would be somebody else's memory.
    pub fn part(&self, at: usize, len: usize) -> DeviceBuffer {
        assert!(
            at.checked_add(len).is_some_and(|end| end <= self.len),
            "a stretch of {len} numbers from {at} reaches beyond {}",
            self.len
        );
        let address = self.address + (at * self.kind.bytes()) as u64;
        DeviceBuffer { held: self.held.clone(), address, kind: self.kind, len }
    }

    /// All from `at` on.
    pub fn from(&self, at: usize) -> DeviceBuffer {
        self.part(at, self.len.saturating_sub(at))
    }

    /// Writes the host's numbers to its beginning.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// When they are of another kind, or more.
    pub fn write<T: Element>(&self, values: &[T]) -> Result<(), LmError> {
        assert!(T::KIND == self.kind && values.len() <= self.len, "numbers that do not fit");
        let bytes = pulp::bytemuck::cast_slice(values);
        self.gpu().driver().upload(self.address, bytes)
    }

    /// Its numbers on the host; waits for whoever writes them.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// When they are of another kind.
    pub fn read<T: Element>(&self) -> Result<Vec<T>, LmError> {
        assert!(T::KIND == self.kind, "numbers of another kind");
        let mut values = vec![T::default(); self.len];
        let bytes = pulp::bytemuck::cast_slice_mut(&mut values);
        self.gpu().driver().download(self.address, bytes)?;
        Ok(values)
    }

    /// Becomes a copy of as many numbers of `from`.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// When `from` is of another kind or length.
    pub fn copy(&self, from: &DeviceBuffer) -> Result<(), LmError> {
        assert!(self.kind == from.kind && self.len == from.len, "a copy of something else");
        let bytes = self.len * self.kind.bytes();
        self.gpu().driver().copy(from.address, self.address, bytes)
    }
}

/// Numbers that host and device write alike.
pub(crate) trait Element: pulp::bytemuck::Pod + Default {
    /// Their kind.
    const KIND: ElementType;
}

impl Element for f32 {
    const KIND: ElementType = ElementType::F32;
}

impl Element for u32 {
    const KIND: ElementType = ElementType::U32;
}

impl Element for f64 {
    const KIND: ElementType = ElementType::F64;
}

impl Element for half::bf16 {
    const KIND: ElementType = ElementType::Bf16;
}

/// Memory that is kept from use to use and grows with what is asked of it.
#[derive(Default)]
pub(crate) struct Scratch(Option<DeviceBuffer>);

impl Scratch {
    /// `len` numbers; what they are is to be overwritten.
    ///
    /// # Errors
    /// As [`DeviceBuffer::zeros`].
    pub fn get(
        &mut self,
        gpu: &Gpu,
        kind: ElementType,
        len: usize,
    ) -> Result<DeviceBuffer, LmError> {
        if let Some(held) = self.0.as_ref().filter(|n| n.kind == kind && n.len >= len) {
            return Ok(held.part(0, len));
        }
        // Given back first, so that both are not held at once.
        self.0 = None;
        let numbers = DeviceBuffer::zeros(gpu, kind, len)?;
        self.0 = Some(numbers.clone());
        Ok(numbers)
    }

    /// What the host holds, sent over in one go: each piece begins at a multiple of 16 bytes. The
    /// pieces that were sent before are overwritten, when the device is done with them.
    ///
    /// # Errors
    /// As [`DeviceBuffer::zeros`].
    pub fn send<const N: usize>(
        &mut self,
        gpu: &Gpu,
        pieces: [&[u32]; N],
    ) -> Result<[DeviceBuffer; N], LmError> {
        let mut words: Vec<u32> = Vec::new();
        let at = pieces.map(|piece| {
            let at = words.len();
            words.extend(piece);
            words.resize(words.len().next_multiple_of(4), 0);
            at
        });
        let sent = self.get(gpu, ElementType::U32, words.len())?;
        sent.write(&words)?;
        Ok(std::array::from_fn(|piece| sent.part(at[piece], pieces[piece].len())))
    }
}
