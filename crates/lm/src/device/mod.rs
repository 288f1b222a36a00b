//! Which device computes: what was asked for, what can be had here, and why.
//!
//! A binary that was built with the feature `cuda` starts everywhere; the libraries are opened when
//! [`select`] asks for them. What one would have to hold is said by
//! [`super::estimate`].

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
pub(crate) use cuda::free_memory as free_on;
#[cfg(test)]
mod tests;

use crate::error::LmError;
use candle_core::Device;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The names there are, for whoever wrote another.
const NAMES: &str = "Devices: auto, cpu, cuda, cuda:N";

/// What was asked for. In settings it stands as its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first GPU where there is one that can be used, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU with this number, and nothing else.
    Cuda(usize),
    /// A GPU's kernels on this machine's CPU, slowly: for tests of gradus itself, and only there.
    Emulated,
}

impl FromStr for DeviceChoice {
    type Err = LmError;

    fn from_str(text: &str) -> Result<Self, LmError> {
        let unknown = || LmError::Device {
            device: text.to_owned(),
            why: "there is no such device".to_owned(),
            advice: NAMES.to_owned(),
        };
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            "emulated" => Ok(DeviceChoice::Emulated),
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
            DeviceChoice::Emulated => f.write_str("emulated"),
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    /// For settings, whose message has the key already.
    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|_| format!("there is no device {text:?}. {NAMES}"))
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> String {
        choice.to_string()
    }
}

/// What numbers a GPU computes with. The CPU has f32 always. Master weights, moments, gradients,
/// the residual stream and sums are f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Weights and activations of 16 bits, 8 of them mantissa: half the memory, and what the tensor
    /// cores are made for.
    #[default]
    Bf16,
    /// All of 32 bits, for comparisons with the CPU.
    F32,
}

impl Dtype {
    /// Bytes of a number.
    pub fn bytes(self) -> u64 {
        match self {
            Dtype::Bf16 => 2,
            Dtype::F32 => 4,
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
    /// A GPU's kernels on the CPU.
    Emulated,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceKind::Cpu => f.write_str("cpu"),
            DeviceKind::Cuda(index) => write!(f, "cuda:{index}"),
            DeviceKind::Emulated => f.write_str("emulated"),
        }
    }
}

/// A device that was opened and set up.
#[derive(Clone, Debug)]
pub struct SelectedDevice {
    /// For tensors. A GPU has one stream, whichever thread asks.
    pub device: Device,
    /// What it is.
    pub kind: DeviceKind,
    /// Why it is this one; of a GPU, what it is.
    pub reason: String,
}

impl SelectedDevice {
    fn cpu(reason: impl Into<String>) -> SelectedDevice {
        SelectedDevice { device: Device::Cpu, kind: DeviceKind::Cpu, reason: reason.into() }
    }

    /// A line for a person: which device it is and why. None where there was no choice, for a
    /// program that was built for the CPU alone need not say so.
    pub fn notice(&self) -> Option<String> {
        let chosen = cfg!(feature = "cuda") || self.kind != DeviceKind::Cpu;
        chosen.then(|| self.to_string())
    }
}

impl fmt::Display for SelectedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.kind, self.reason)
    }
}

/// Why a GPU cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "the other reasons need the feature"))]
enum GpuUnavailable {
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

impl GpuUnavailable {
    fn advice(&self) -> &'static str {
        match self {
            #[cfg(not(feature = "cuda"))]
            GpuUnavailable::NotBuilt => {
                "Build it with scripts/build-cuda, or take the CPU: cpu or auto"
            }
            GpuUnavailable::Library { is_driver: true, .. } | GpuUnavailable::OldDriver { .. } => {
                "Install NVIDIA's driver, 580 or later, or take the CPU: cpu or auto"
            }
            GpuUnavailable::Library { is_driver: false, .. } => {
                "Name the folder that holds it in GRADUS_CUDA_DIRS (CUDA 13's toolkit has it, and so \
                 have the Python packages that PyTorch brings), or take the CPU: cpu or auto"
            }
            GpuUnavailable::Driver(_) | GpuUnavailable::Failed(_) => {
                "See what nvidia-smi says, or take the CPU: cpu or auto"
            }
            GpuUnavailable::NoSuchGpu { .. } => {
                "They are counted from 0; take another, or the CPU: cpu or auto"
            }
            GpuUnavailable::OldGpu { .. } => {
                "Build it for this GPU: CUDA_COMPUTE_CAP (80 for 8.0) and scripts/build-cuda"
            }
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn open_gpu(_: usize) -> Result<SelectedDevice, GpuUnavailable> {
    Err(GpuUnavailable::NotBuilt)
}

#[cfg(feature = "cuda")]
use cuda::open_gpu;

/// Opens what was asked for.
///
/// # Errors
/// [`LmError::Device`] when a GPU was asked for by name and cannot be had: which, why, and what to
/// do. With [`DeviceChoice::Auto`] that is the reason why it is the CPU.
pub fn select(choice: DeviceChoice) -> Result<SelectedDevice, LmError> {
    match choice {
        DeviceChoice::Cpu => Ok(SelectedDevice::cpu("asked for")),
        DeviceChoice::Emulated => emulated(),
        DeviceChoice::Auto => {
            Ok(open_gpu(0).unwrap_or_else(|why| SelectedDevice::cpu(why.to_string())))
        }
        DeviceChoice::Cuda(index) => open_gpu(index).map_err(|why| LmError::Device {
            device: choice.to_string(),
            why: why.to_string(),
            advice: why.advice().to_owned(),
        }),
    }
}

/// Whether there are kernels for the CPU.
pub fn can_be_emulated() -> bool {
    gradus_kernels::emulator().is_some()
}

fn emulated() -> Result<SelectedDevice, LmError> {
    match can_be_emulated() {
        true => Ok(SelectedDevice {
            device: Device::Cpu,
            kind: DeviceKind::Emulated,
            reason: "a GPU's kernels on the CPU, for tests".to_owned(),
        }),
        false => Err(LmError::Device {
            device: DeviceChoice::Emulated.to_string(),
            why: "the kernels were not compiled for the CPU".to_owned(),
            advice: "It is for tests, which have it where there is a C++ compiler; take cpu"
                .to_owned(),
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

/// Bytes of the device's memory that this process may still take: what is free, and what its own
/// pool holds for later. None on the CPU, whose memory is the machine's, and where the driver does
/// not say.
pub fn free_memory(selected: &SelectedDevice) -> Option<u64> {
    match selected.kind {
        DeviceKind::Cpu | DeviceKind::Emulated => None,
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(_) => cuda::free_memory(&selected.device).ok(),
        #[cfg(not(feature = "cuda"))]
        DeviceKind::Cuda(_) => None,
    }
}
