//! A device that computes: which driver it has, how much of its memory is held, whose turn it is, and
//! what the parts of a step took while somebody asks.

#[cfg(feature = "cuda")]
use super::driver::cuda::Cuda;
use super::driver::emulated::Emulated;
use super::driver::{Driver, ElementType};
#[cfg(feature = "cuda")]
use crate::device::{DeviceChoice, free_on, select};
use crate::device::{DeviceKind, Dtype, SelectedDevice};
use crate::error::LmError;
use candle_core::Device;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the parts of steps took, while somebody asks.
#[derive(Default)]
pub(super) struct PhaseTimer(Mutex<Option<RunningPhase>>);

pub(super) struct RunningPhase {
    pub since: Instant,
    pub parts: Vec<(&'static str, Duration)>,
}

impl PhaseTimer {
    pub fn watched(&self) -> MutexGuard<'_, Option<RunningPhase>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct GpuState {
    device: Device,
    driver: Driver,
    /// What matrices and activations are kept in.
    dtype: Dtype,
    held: AtomicU64,
    most_held: AtomicU64,
    limit: AtomicU64,
    phases: PhaseTimer,
    turn: Mutex<()>,
}

/// A device that computes, opened and set up. Cheap to clone: all clones are the one device.
#[derive(Clone)]
pub struct Gpu(Arc<GpuState>);

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu").field("device", &self.0.device).field("dtype", &self.0.dtype).finish()
    }
}

impl Gpu {
    fn with(device: Device, driver: Driver, dtype: Dtype) -> Gpu {
        Gpu(Arc::new(GpuState {
            device,
            driver,
            dtype,
            held: AtomicU64::new(0),
            most_held: AtomicU64::new(0),
            limit: AtomicU64::new(u64::MAX),
            phases: PhaseTimer::default(),
            turn: Mutex::new(()),
        }))
    }

    /// A GPU that candle opened.
    #[cfg(feature = "cuda")]
    fn cuda(device: &Device, dtype: Dtype) -> Result<Gpu, LmError> {
        let driver = Driver::Cuda(Cuda::new(device)?);
        Ok(Gpu::with(device.clone(), driver, dtype))
    }

    /// The GPU that was selected, one in the whole process for each kind of numbers; `None` where the
    /// CPU was.
    ///
    /// # Errors
    /// The program was built without kernels.
    pub fn of(selected: &SelectedDevice, dtype: Dtype) -> Result<Option<Gpu>, LmError> {
        static OPENED: Mutex<Vec<(DeviceKind, Dtype, Gpu)>> = Mutex::new(Vec::new());
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        let known =
            |(kind, of, _): &&(DeviceKind, Dtype, Gpu)| *kind == selected.kind && *of == dtype;
        if let Some((_, _, gpu)) = opened.iter().find(known) {
            return Ok(Some(gpu.clone()));
        }
        let gpu = match selected.kind {
            DeviceKind::Cpu => None,
            DeviceKind::Emulated => Gpu::emulated(dtype),
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda(_) => Some(Gpu::cuda(&selected.device, dtype)?),
            #[cfg(not(feature = "cuda"))]
            DeviceKind::Cuda(_) => None,
        };
        opened.extend(gpu.clone().map(|gpu| (selected.kind, dtype, gpu)));
        Ok(gpu)
    }

    /// A device to test with: a GPU where there is one, else the emulator; one of its own, whose
    /// memory nobody else counts.
    ///
    /// # Errors
    /// Why there is neither.
    pub fn to_test(dtype: Dtype) -> Result<Gpu, String> {
        #[cfg(feature = "cuda")]
        if let Ok(selected) = select(DeviceChoice::Cuda(0)) {
            return Gpu::cuda(&selected.device, dtype).map_err(|error| error.to_string());
        }
        Gpu::emulated(dtype).ok_or_else(|| "the kernels were not compiled for the CPU".to_owned())
    }

    /// The kernels on this machine's CPU, slowly: for tests. `None` where they were not compiled
    /// for it.
    pub fn emulated(dtype: Dtype) -> Option<Gpu> {
        let driver = Driver::Emulated(Emulated::new()?);
        Some(Gpu::with(Device::Cpu, driver, dtype))
    }

    /// What matrices and activations are kept in.
    pub fn dtype(&self) -> Dtype {
        self.0.dtype
    }

    /// As [`Gpu::dtype`], as kernels name it.
    pub(crate) fn work(&self) -> ElementType {
        match self.0.dtype {
            Dtype::Bf16 => ElementType::Bf16,
            Dtype::F32 => ElementType::F32,
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

    /// Who runs its kernels.
    pub(super) fn driver(&self) -> &Driver {
        &self.0.driver
    }

    /// Where its tensors lie.
    pub(super) fn device(&self) -> &Device {
        &self.0.device
    }

    /// Bytes that may be held at once.
    pub(super) fn limit(&self) -> u64 {
        self.0.limit.load(Ordering::Relaxed)
    }

    /// So many bytes more are held.
    pub(super) fn hold(&self, bytes: u64) {
        let now = self.0.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.0.most_held.fetch_max(now, Ordering::Relaxed);
    }

    /// So many bytes less are held.
    pub(super) fn let_go(&self, bytes: u64) {
        self.0.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Waits until all that was asked for is done.
    ///
    /// # Errors
    /// What the device reports late.
    pub fn wait(&self) -> Result<(), LmError> {
        Ok(self.0.device.synchronize()?)
    }

    /// One computation at a time: whoever holds this has the device.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.0.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gpu {
    /// From here on the device is waited for after each part of a step, and the parts are timed.
    /// The waits cost: a step that is timed so takes longer, for nothing is asked for ahead.
    pub fn time_phases(&self) {
        *self.0.phases.watched() = Some(RunningPhase { since: Instant::now(), parts: Vec::new() });
    }

    /// What each part took since [`Gpu::time_phases`], in the order in which they first came. Ends
    /// the timing.
    pub fn take_phases(&self) -> Vec<(&'static str, Duration)> {
        self.0.phases.watched().take().map_or_else(Vec::new, |watched| watched.parts)
    }

    /// All that was asked for since the last such call is this part of a step.
    pub(super) fn phase(&self, name: &'static str) -> Result<(), LmError> {
        let mut watched = self.0.phases.watched();
        let Some(RunningPhase { since, parts }) = watched.as_mut() else { return Ok(()) };
        self.wait()?;
        let took = since.elapsed();
        *since = Instant::now();
        match parts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += took,
            None => parts.push((name, took)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_timed_only_when_asked_for() {
        let Some(gpu) = Gpu::emulated(Dtype::Bf16) else { return };
        gpu.phase("forward").unwrap();
        assert!(gpu.take_phases().is_empty());
        gpu.time_phases();
        for name in ["forward", "backward", "forward"] {
            std::thread::sleep(Duration::from_millis(2));
            gpu.phase(name).unwrap();
        }
        let parts = gpu.take_phases();
        assert_eq!(parts.iter().map(|part| part.0).collect::<Vec<_>>(), ["forward", "backward"]);
        assert!(parts[0].1 >= Duration::from_millis(4), "both are added: {parts:?}");
        assert!(gpu.take_phases().is_empty());
    }
}
