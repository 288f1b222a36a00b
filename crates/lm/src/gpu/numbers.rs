//! Numbers in a device's memory: candle tensors, and the addresses that kernels take.
//!
//! A handle keeps its memory alive, so an address is never older than what it points to. Whoever
//! writes through one owns the numbers by the passes' order: a device does one thing after another.

use super::{Driver, Gpu, Kind};
use crate::error::LmError;
use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers that are made up in one go.
const MADE_UP_AT_ONCE: usize = 64 << 20;

/// Memory that was set aside; given back when the last handle goes.
struct Held {
    /// Held for its memory.
    _tensor: Tensor,
    bytes: u64,
    gpu: Gpu,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gpu.0.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A stretch of numbers on a device.
#[derive(Clone)]
pub(crate) struct Numbers {
    held: Arc<Held>,
    address: u64,
    kind: Kind,
    len: usize,
}

/// Asks a tensor where it lies.
#[derive(Default)]
struct Address(AtomicU64);

impl InplaceOp1 for Address {
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
        self.0.store(super::cuda::address(storage)?, Ordering::Relaxed);
        Ok(())
    }
}

impl Numbers {
    /// Zeros.
    ///
    /// # Errors
    /// [`LmError::DeviceMemory`] when there is no room.
    pub fn zeros(gpu: &Gpu, kind: Kind, len: usize) -> Result<Numbers, LmError> {
        // Kernels are never given an address of nothing.
        let room = len.max(1);
        let bytes = (room * kind.bytes()) as u64;
        let held = gpu.held();
        let limit = gpu.0.limit.load(Ordering::Relaxed);
        let short = |why: String| LmError::DeviceMemory { wanted: bytes, held, why };
        if held.saturating_add(bytes) > limit {
            return Err(short(format!("{limit} bytes are allowed")));
        }
        let tensor =
            Tensor::zeros(room, kind.dtype(), &gpu.0.device).map_err(|error| {
                match error.to_string() {
                    text if text.contains("OUT_OF_MEMORY") => {
                        short("the device has no more".into())
                    }
                    _ => LmError::from(error),
                }
            })?;
        Numbers::holding(gpu, tensor, kind, len)
    }

    /// The numbers of a tensor that nobody else has, `len` of them.
    fn holding(gpu: &Gpu, tensor: Tensor, kind: Kind, len: usize) -> Result<Numbers, LmError> {
        let bytes = (tensor.elem_count() * kind.bytes()) as u64;
        let address = Address::default();
        tensor.inplace_op1(&address)?;
        let now = gpu.0.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        gpu.0.most_held.fetch_max(now, Ordering::Relaxed);
        let held = Arc::new(Held { _tensor: tensor, bytes, gpu: gpu.clone() });
        Ok(Numbers { held, address: address.0.into_inner(), kind, len })
    }

    /// What the host holds.
    ///
    /// # Errors
    /// As [`Numbers::zeros`].
    pub fn of<T: Plain>(gpu: &Gpu, values: &[T]) -> Result<Numbers, LmError> {
        let numbers = Numbers::zeros(gpu, T::KIND, values.len())?;
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
            let made = Tensor::randn(0f32, std, len, &self.gpu().0.device)?;
            let made = made.to_dtype(self.kind.dtype())?;
            self.part(from, len).copy(&Numbers::holding(self.gpu(), made, self.kind, len)?)?;
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
    pub fn kind(&self) -> Kind {
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
    pub fn part(&self, at: usize, len: usize) -> Numbers {
        assert!(
            at.checked_add(len).is_some_and(|end| end <= self.len),
            "a stretch of {len} numbers from {at} reaches beyond {}",
            self.len
        );
        let address = self.address + (at * self.kind.bytes()) as u64;
        Numbers { held: self.held.clone(), address, kind: self.kind, len }
    }

    /// All from `at` on.
    pub fn from(&self, at: usize) -> Numbers {
        self.part(at, self.len.saturating_sub(at))
    }

    /// Writes the host's numbers to its beginning.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// When they are of another kind, or more.
    pub fn write<T: Plain>(&self, values: &[T]) -> Result<(), LmError> {
        assert!(T::KIND == self.kind && values.len() <= self.len, "numbers that do not fit");
        let bytes = pulp::bytemuck::cast_slice(values);
        match &self.gpu().0.driver {
            #[cfg(feature = "cuda")]
            Driver::Cuda(cuda) => cuda.upload(self.address, bytes),
            Driver::Emulated(emulated) => emulated.upload(self.address, bytes),
        }
    }

    /// Its numbers on the host; waits for whoever writes them.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// When they are of another kind.
    pub fn read<T: Plain>(&self) -> Result<Vec<T>, LmError> {
        assert!(T::KIND == self.kind, "numbers of another kind");
        let mut values = vec![T::default(); self.len];
        let bytes = pulp::bytemuck::cast_slice_mut(&mut values);
        match &self.gpu().0.driver {
            #[cfg(feature = "cuda")]
            Driver::Cuda(cuda) => cuda.download(self.address, bytes)?,
            Driver::Emulated(emulated) => emulated.download(self.address, bytes)?,
        }
        Ok(values)
    }

    /// Becomes a copy of as many numbers of `from`.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// When `from` is of another kind or length.
    pub fn copy(&self, from: &Numbers) -> Result<(), LmError> {
        assert!(self.kind == from.kind && self.len == from.len, "a copy of something else");
        let bytes = self.len * self.kind.bytes();
        match &self.gpu().0.driver {
            #[cfg(feature = "cuda")]
            Driver::Cuda(cuda) => cuda.copy(from.address, self.address, bytes),
            Driver::Emulated(emulated) => emulated.copy(from.address, self.address, bytes),
        }
    }
}

/// Numbers that host and device write alike.
pub(crate) trait Plain: pulp::bytemuck::Pod + Default {
    /// Their kind.
    const KIND: Kind;
}

impl Plain for f32 {
    const KIND: Kind = Kind::F32;
}

impl Plain for u32 {
    const KIND: Kind = Kind::U32;
}

impl Plain for f64 {
    const KIND: Kind = Kind::F64;
}

impl Plain for half::bf16 {
    const KIND: Kind = Kind::Bf16;
}

/// Memory that is kept from use to use and grows with what is asked of it.
#[derive(Default)]
pub(crate) struct Room(Option<Numbers>);

impl Room {
    /// `len` numbers; what they are is to be overwritten.
    ///
    /// # Errors
    /// As [`Numbers::zeros`].
    pub fn get(&mut self, gpu: &Gpu, kind: Kind, len: usize) -> Result<Numbers, LmError> {
        if let Some(held) = self.0.as_ref().filter(|n| n.kind == kind && n.len >= len) {
            return Ok(held.part(0, len));
        }
        // Given back first, so that both are not held at once.
        self.0 = None;
        let numbers = Numbers::zeros(gpu, kind, len)?;
        self.0 = Some(numbers.clone());
        Ok(numbers)
    }

    /// What the host holds, sent over in one go: each piece begins at a multiple of 16 bytes. The
    /// pieces that were sent before are overwritten, when the device is done with them.
    ///
    /// # Errors
    /// As [`Numbers::zeros`].
    pub fn send<const N: usize>(
        &mut self,
        gpu: &Gpu,
        pieces: [&[u32]; N],
    ) -> Result<[Numbers; N], LmError> {
        let mut words: Vec<u32> = Vec::new();
        let at = pieces.map(|piece| {
            let at = words.len();
            words.extend(piece);
            words.resize(words.len().next_multiple_of(4), 0);
            at
        });
        let sent = self.get(gpu, Kind::U32, words.len())?;
        sent.write(&words)?;
        Ok(std::array::from_fn(|piece| sent.part(at[piece], pieces[piece].len())))
    }
}
