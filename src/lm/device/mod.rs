//! Which device computes: what was asked for, what can be had here, and why.
//!
//! A binary that was built with the feature `cuda` starts everywhere; the libraries are opened when
//! [`pick`] asks for them. Nothing is computed on a GPU yet: the trainer and the sampler have the CPU.

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod tests;

use crate::lm::error::LmError;
use candle_core::Device;
use std::fmt;
use std::str::FromStr;

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU where there is one that can be used, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU with this number, and nothing else.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = LmError;

    fn from_str(text: &str) -> Result<Self, LmError> {
        let unknown = || LmError::Device {
            device: text.to_owned(),
            why: "there is no such device".to_owned(),
            advice: "Devices: auto, cpu, cuda, cuda:N".to_owned(),
        };
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => {
                let number = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                // `parse` alone would take `+1`.
                let digits = number.bytes().all(|byte| byte.is_ascii_digit());
                let number = number.parse().ok().filter(|_| digits).ok_or_else(unknown)?;
                Ok(DeviceChoice::Cuda(number))
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// The CPU.
    Cpu,
    /// The GPU with this number.
    Cuda(usize),
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceKind::Cpu => f.write_str("cpu"),
            DeviceKind::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// A device that was opened and set up.
#[derive(Clone, Debug)]
pub struct Picked {
    /// For tensors. All work of a GPU belongs on one thread: candle gives each thread a stream of
    /// its own, and one does not wait for the other.
    pub device: Device,
    /// What it is.
    pub kind: DeviceKind,
    /// Why it is this one; of a GPU, what it is.
    pub reason: String,
}

impl Picked {
    fn cpu(reason: impl Into<String>) -> Picked {
        Picked { device: Device::Cpu, kind: DeviceKind::Cpu, reason: reason.into() }
    }
}

/// Why a GPU cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "the other reasons need the feature"))]
enum Refusal {
    #[cfg(not(feature = "cuda"))]
    #[error("built without the feature cuda")]
    NotBuilt,
    #[error("{missing}")]
    Library { missing: String, is_driver: bool },
    #[error("the driver is for CUDA {0}, and this program for CUDA {1}", version(*.found), version(*.needed))]
    OldDriver { found: i32, needed: i32 },
    #[error("{0}")]
    Driver(String),
    #[error("there is no GPU {index}; GPUs here: {count}")]
    NoSuchGpu { index: usize, count: usize },
    #[error("{name} has compute capability {found}, and this program is for {needed} and later")]
    OldGpu { name: String, found: String, needed: String },
    #[error("{0}")]
    Failed(String),
}

/// As the driver counts: 13010 is 13.1.
fn version(number: i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

impl Refusal {
    fn advice(&self) -> &'static str {
        match self {
            #[cfg(not(feature = "cuda"))]
            Refusal::NotBuilt => "Build it with scripts/build-cuda, or take the CPU: cpu or auto",
            Refusal::Library { is_driver: true, .. } | Refusal::OldDriver { .. } => {
                "Install NVIDIA's driver, 580 or later, or take the CPU: cpu or auto"
            }
            Refusal::Library { is_driver: false, .. } => {
                "Name the folder that holds it in GRADUS_CUDA_DIRS (CUDA 13's toolkit has it, and so \
                 have the Python packages that PyTorch brings), or take the CPU: cpu or auto"
            }
            Refusal::Driver(_) | Refusal::Failed(_) => {
                "See what nvidia-smi says, or take the CPU: cpu or auto"
            }
            Refusal::NoSuchGpu { .. } => "`gradus devices` lists them",
            Refusal::OldGpu { .. } => {
                "Build it for this GPU: CUDA_COMPUTE_CAP (80 for 8.0) and scripts/build-cuda"
            }
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn open_gpu(_: usize) -> Result<Picked, Refusal> {
    Err(Refusal::NotBuilt)
}

#[cfg(feature = "cuda")]
use cuda::open_gpu;

/// Opens what was asked for.
///
/// # Errors
/// [`LmError::Device`] when a GPU was asked for by name and cannot be had: which, why, and what to
/// do. With [`DeviceChoice::Auto`] that is the reason why it is the CPU.
pub fn pick(choice: DeviceChoice) -> Result<Picked, LmError> {
    match choice {
        DeviceChoice::Cpu => Ok(Picked::cpu("asked for")),
        DeviceChoice::Auto => Ok(open_gpu(0).unwrap_or_else(|why| Picked::cpu(why.to_string()))),
        DeviceChoice::Cuda(index) => open_gpu(index).map_err(|why| LmError::Device {
            device: choice.to_string(),
            why: why.to_string(),
            advice: why.advice().to_owned(),
        }),
    }
}

/// How many GPUs this program can see; 0 where CUDA cannot be had.
pub fn gpu_count() -> usize {
    #[cfg(feature = "cuda")]
    return cuda::count().unwrap_or(0);
    #[cfg(not(feature = "cuda"))]
    0
}
