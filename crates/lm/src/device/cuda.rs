//! A GPU opened and set up, once in a process, or the reason why not.

use super::{DeviceKind, GpuUnavailable, SelectedDevice, version};
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, DriverError, result, sys};
use candle_core::{DType, Device, DeviceLocation, Tensor};
use std::sync::{Mutex, PoisonError};

/// What the bindings and the kernels are for; scripts/build-cuda builds with it.
const CUDA_VERSION: i32 = 13000;

/// The oldest GPU that the kernels were compiled for: 90 is compute capability 9.0.
const COMPUTE_CAP: Option<&str> = option_env!("CUDA_COMPUTE_CAP");

/// Opened so far. candle's tensors only meet on one `Device`, so a GPU is opened once.
static OPENED: Mutex<Vec<(usize, SelectedDevice)>> = Mutex::new(Vec::new());

/// The GPU with this number, set up.
pub(super) fn open_gpu(index: usize) -> Result<SelectedDevice, GpuUnavailable> {
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, selected)) = opened.iter().find(|(known, _)| *known == index) {
        return Ok(selected.clone());
    }
    let count = count()?;
    if index >= count {
        return Err(GpuUnavailable::NoSuchGpu { index, count });
    }
    let reason = described(index)?;
    let failed = |error: candle_core::Error| GpuUnavailable::Failed(error.to_string());
    let device = Device::new_cuda_with_stream(index).map_err(failed)?;
    set_up(&device).map_err(failed)?;
    tried(&device).map_err(failed)?;
    let selected = SelectedDevice { device, kind: DeviceKind::Cuda(index), reason };
    opened.push((index, selected.clone()));
    Ok(selected)
}

/// How many GPUs there are, when there is all that is needed to use one.
pub(super) fn count() -> Result<usize, GpuUnavailable> {
    // What lacks first is said first, the driver before all.
    if let Some(missing) = cuda_lazy::missing().first() {
        let is_driver = missing.library.starts_with("libcuda.");
        return Err(GpuUnavailable::Library { missing: missing.to_string(), is_driver });
    }
    let found = driver_version().map_err(refused)?;
    if found < CUDA_VERSION {
        return Err(GpuUnavailable::OldDriver { found, needed: CUDA_VERSION });
    }
    match CudaContext::device_count().map_err(refused)? {
        0 => Err(refused(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE))),
        count => Ok(usize::try_from(count).unwrap_or(0)),
    }
}

#[expect(unsafe_code, reason = "the driver's interface is C")]
fn driver_version() -> Result<i32, DriverError> {
    let mut version = 0;
    // SAFETY: the driver writes one integer. It may be asked before it is initialised.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    Ok(version)
}

/// What the driver says, in its own words: `CUDA_ERROR_NO_DEVICE: no CUDA-capable device ...`.
fn refused(error: DriverError) -> GpuUnavailable {
    let words = error.error_string().map(|words| words.to_string_lossy().into_owned());
    GpuUnavailable::Driver(match words {
        Ok(words) => format!("{:?}: {words}", error.0),
        Err(_) => format!("{:?}", error.0),
    })
}

/// Name, memory and version, if the kernels were compiled for such a GPU.
fn described(index: usize) -> Result<String, GpuUnavailable> {
    let context = CudaContext::new(index).map_err(refused)?;
    let name = context.name().map_err(refused)?;
    let (major, minor) = context.compute_capability().map_err(refused)?;
    let built_for = COMPUTE_CAP.and_then(|cap| cap.parse::<i32>().ok()).unwrap_or(0);
    if major * 10 + minor < built_for {
        let needed = format!("{}.{}", built_for / 10, built_for % 10);
        return Err(GpuUnavailable::OldGpu { name, found: format!("{major}.{minor}"), needed });
    }
    let gib = context.total_mem().map_err(refused)? as f64 / f64::from(1 << 30);
    let driver = version(driver_version().map_err(refused)?);
    Ok(format!(
        "{name}, {gib:.0} GiB, compute capability {major}.{minor}, driver for CUDA {driver}"
    ))
}

/// What a trainer wants of a device and candle does not ask for.
#[expect(unsafe_code, reason = "the driver's interface is C")]
fn set_up(device: &Device) -> candle_core::Result<()> {
    let cuda = device.as_cuda_device()?;
    // SAFETY: there is one stream, whoever asks, so no allocation is freed on one stream while
    // another still reads it. Without this each allocation makes and destroys two events.
    unsafe { cuda.disable_event_tracking() };
    let DeviceLocation::Cuda { gpu_id } = device.location() else {
        candle_core::bail!("not a GPU");
    };
    // Else each synchronisation gives free memory back to the driver, to be asked for again.
    let mut keep_all = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    let pool = pool_of(gpu_id).w()?;
    // SAFETY: of this attribute the driver reads the 64 bits it is made of.
    unsafe {
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut keep_all).cast()).result().w()?;
    }
    // Products of f32 on the tensor cores, with 10 bits of mantissa (TF32).
    candle_core::cuda_backend::set_gemm_reduced_precision_f32(true);
    Ok(())
}

/// The pool that tensors of a GPU come from.
#[expect(unsafe_code, reason = "the driver's interface is C")]
fn pool_of(index: usize) -> Result<sys::CUmemoryPool, DriverError> {
    let number = result::device::get(index as i32)?;
    let mut pool = std::ptr::null_mut();
    // SAFETY: the driver writes one pointer.
    unsafe { sys::cuDeviceGetDefaultMemPool(&mut pool, number) }.result()?;
    Ok(pool)
}

/// What is free, and what the pool has got and nobody uses: it never gives any back, so after a
/// first run in this process the driver alone would count that as taken.
#[expect(unsafe_code, reason = "the driver's interface is C")]
pub(crate) fn free_memory(device: &Device) -> candle_core::Result<u64> {
    let DeviceLocation::Cuda { gpu_id } = device.location() else {
        candle_core::bail!("not a GPU");
    };
    let stream = device.as_cuda_device()?.cuda_stream();
    let (free, _) = stream.context().mem_get_info().w()?;
    let pool = pool_of(gpu_id).w()?;
    let ask = |attribute| {
        let mut bytes = 0u64;
        // SAFETY: of these attributes the driver writes the 64 bits they are made of.
        unsafe { sys::cuMemPoolGetAttribute(pool, attribute, (&raw mut bytes).cast()) }
            .result()
            .map(|()| bytes)
    };
    let held = ask(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT).w()?;
    let used = ask(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT).w()?;
    Ok(free as u64 + held.saturating_sub(used))
}

/// One product whose result is known: cuBLAS answers, and memory goes there and back.
fn tried(device: &Device) -> candle_core::Result<()> {
    let a = Tensor::arange(0f32, 6., device)?.reshape((2, 3))?;
    let found = a.matmul(&a.t()?)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    if found != [[5., 14.], [14., 50.]] {
        candle_core::bail!("a product of small numbers came out as {found:?}");
    }
    Ok(())
}
