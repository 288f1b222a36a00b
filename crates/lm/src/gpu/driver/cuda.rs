//! NVIDIA's driver and cuBLAS, asked directly: by kernel name, by address. All work goes to one
//! stream, in the order in which it is asked for.

use super::{ElementType, RawOperand, RawProduct};
use crate::error::LmError;
use candle_core::cuda_backend::cudarc::cublas::{result as cublas, sys as cublas_sys};
use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum as Attribute;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaModule, DevicePtrMut, LaunchConfig, PushKernelArg, result,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{CudaStorage, DType, Device};
use gradus_kernels::Launch;
use half::bf16;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What a kernel may have of shared memory without being asked whether it wants more.
const SHARED_BYTES: u32 = 48 << 10;

/// A GPU's driver.
pub(crate) struct Cuda {
    device: CudaDevice,
    module: Arc<CudaModule>,
    /// Kernels that were asked for, and how much shared memory each may have.
    functions: Mutex<HashMap<String, (CudaFunction, u32)>>,
}

/// Where a tensor lies.
pub(crate) fn address(storage: &mut CudaStorage) -> candle_core::Result<u64> {
    let stream = storage.device.cuda_stream();
    // The guard only records an event, and those are switched off.
    macro_rules! of {
        ($t:ty) => {
            storage.as_cuda_slice_mut::<$t>()?.device_ptr_mut(&stream).0
        };
    }
    use candle_core::backend::BackendStorage;
    Ok(match storage.dtype() {
        DType::F32 => of!(f32),
        DType::BF16 => of!(bf16),
        DType::U32 => of!(u32),
        DType::F64 => of!(f64),
        other => candle_core::bail!("no kernel takes {other:?}"),
    })
}

fn data_type(kind: ElementType) -> cublas_sys::cudaDataType {
    match kind {
        ElementType::Bf16 => cublas_sys::cudaDataType::CUDA_R_16BF,
        _ => cublas_sys::cudaDataType::CUDA_R_32F,
    }
}

fn operation(side: &RawOperand) -> cublas_sys::cublasOperation_t {
    match side.transposed {
        true => cublas_sys::cublasOperation_t::CUBLAS_OP_T,
        false => cublas_sys::cublasOperation_t::CUBLAS_OP_N,
    }
}

impl Cuda {
    pub fn new(device: &Device) -> Result<Cuda, LmError> {
        let broken = |why: String| LmError::Device {
            device: "cuda".to_owned(),
            why,
            advice: "Build it with scripts/build-cuda, CUDA_COMPUTE_CAP at most that of the GPU"
                .to_owned(),
        };
        let binary = gradus_kernels::FAT_BINARY
            .ok_or_else(|| broken("the program was built without its kernels".to_owned()))?;
        let device = device.as_cuda_device()?.clone();
        let context = device.cuda_stream().context().clone();
        let module = context
            .load_module(Ptx::from_binary(binary.to_vec()))
            .map_err(|error| broken(format!("the driver does not take the kernels: {error}")))?;
        Ok(Cuda { device, module, functions: Mutex::default() })
    }

    /// The calling thread must have the GPU's context before the driver is asked.
    fn bind(&self) -> candle_core::Result<()> {
        self.device.cuda_stream().context().bind_to_thread().w()
    }

    fn function(&self, name: &str, shared_bytes: u32) -> candle_core::Result<CudaFunction> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let (function, allowed) = match functions.get_mut(name) {
            Some(known) => known,
            None => {
                let function = self.module.load_function(name).w()?;
                functions.entry(name.to_owned()).or_insert((function, SHARED_BYTES))
            }
        };
        if shared_bytes > *allowed {
            let most = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(most, shared_bytes as i32).w()?;
            *allowed = shared_bytes;
        }
        Ok(function.clone())
    }

    #[expect(unsafe_code, reason = "kernels read and write by address")]
    pub fn launch(&self, name: &str, launch: Launch, args: &[u64]) -> Result<(), LmError> {
        let function = self.function(name, launch.shared_bytes)?;
        let stream = self.device.cuda_stream();
        let mut builder = stream.launch_builder(&function);
        for arg in args {
            builder.arg(arg);
        }
        let [x, y, z] = launch.grid;
        let config = LaunchConfig {
            grid_dim: (x, y, z),
            block_dim: (launch.block, 1, 1),
            shared_mem_bytes: launch.shared_bytes,
        };
        // SAFETY: `kernels` gives each kernel the arguments it is declared with, and checks that what
        // they point to is as long as the kernel reads and writes.
        unsafe { builder.launch(config) }.w()?;
        Ok(())
    }

    /// Row-major matrices are column-major ones transposed: C' = B' A'.
    #[expect(unsafe_code, reason = "cuBLAS takes addresses")]
    pub fn product(&self, p: &RawProduct) -> Result<(), LmError> {
        self.bind()?;
        let handle = self.device.cublas_handle();
        let (alpha, beta) = (p.scale, if p.add { 1f32 } else { 0.0 });
        // SAFETY: `kernels` checks that every operand is as long as its shape and stride say.
        unsafe {
            cublas::gemm_ex(
                *handle.handle(),
                operation(&p.b),
                operation(&p.a),
                p.columns as i32,
                p.rows as i32,
                p.inner as i32,
                (&raw const alpha).cast(),
                p.b.address as *const _,
                data_type(p.b.kind),
                p.b.stride as i32,
                p.a.address as *const _,
                data_type(p.a.kind),
                p.a.stride as i32,
                (&raw const beta).cast(),
                p.c.address as *mut _,
                data_type(p.c.kind),
                p.c.stride as i32,
                cublas_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                cublas_sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .w()?;
        Ok(())
    }

    #[expect(unsafe_code, reason = "the driver copies by address")]
    pub fn upload(&self, to: u64, bytes: &[u8]) -> Result<(), LmError> {
        self.bind()?;
        let stream = self.device.cuda_stream();
        // SAFETY: `DeviceBuffer::write` checks the length. The driver has read pageable memory when it
        // returns.
        unsafe { result::memcpy_htod_async(to, bytes, stream.cu_stream()) }.w()?;
        Ok(())
    }

    #[expect(unsafe_code, reason = "the driver copies by address")]
    pub fn download(&self, from: u64, bytes: &mut [u8]) -> Result<(), LmError> {
        self.bind()?;
        let stream = self.device.cuda_stream();
        // SAFETY: `DeviceBuffer::read` makes room for as many; they are waited for before anyone looks.
        unsafe { result::memcpy_dtoh_async(bytes, from, stream.cu_stream()) }.w()?;
        stream.synchronize().w()?;
        Ok(())
    }

    #[expect(unsafe_code, reason = "the driver copies by address")]
    pub fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), LmError> {
        self.bind()?;
        let stream = self.device.cuda_stream();
        // SAFETY: `DeviceBuffer::copy` checks that both are as long.
        unsafe { result::memcpy_dtod_async(to, from, bytes, stream.cu_stream()) }.w()?;
        Ok(())
    }
}
